//! Connections through real proxies, and what proxies may do to them.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bucket_brigade::{
    CancelToken, ErrorKind, NetworkConfig, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport,
    RetryPolicy, Run, S3Backend, StopReason, StorageBackend, StorageError,
};

use crate::support::World;
use crate::support::logs::leaks;
use crate::support::oracle::check;
use crate::support::proxies::{PASSWORD, USER, basic_auth, microsocks, peer, silent, tinyproxy, tls_front};
use crate::support::tls::TestCa;

const FILES: usize = 40;

fn backend(world: &World, network: NetworkConfig, host: &str) -> Arc<S3Backend> {
    let address = world.proxy.endpoint();
    let endpoint = address.replace("127.0.0.1", host);
    let config = world.s3_config().endpoint(endpoint).network(network).part_threshold(8 << 20);
    let config = config.part_size(8 << 20).retry(RetryPolicy::default().with_attempts(2));
    Arc::new(S3Backend::new(&world.engine, config).unwrap())
}

fn site(world: &World, network: NetworkConfig) -> RescanOrchestrator {
    world.orchestrator_on(backend(world, network, "localhost"), RescanConfig::new())
}

/// Publishes files, one of them in parts, and verifies what the store has.
fn publish(world: &World, network: NetworkConfig) -> RescanReport {
    for n in 0..FILES {
        world.write(&format!("f{n:02}"), vec![n as u8; 5000]);
    }
    world.write_random("large", 17 << 20, 7);
    let site = site(world, network);
    let report = site.rescan().unwrap();
    check(world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1 + FILES as u64));
    assert!(world.proxy.connections() <= 11, "{} connections", world.proxy.connections());
    assert_eq!(report.metrics.connections, world.proxy.connections());
    assert!(report.metrics.bytes_sent > 17 << 20);
    assert_eq!(leaks(), Vec::<String>::new());
    report
}

/// The error of one upload through this proxy.
fn refusal(network: NetworkConfig) -> StorageError {
    let world = World::new();
    refusal_in(&world, network)
}

fn refusal_in(world: &World, network: NetworkConfig) -> StorageError {
    world.write("f", "x");
    let error = backend(world, network, "localhost").upload_file(&world.path("f"), "f").unwrap_err();
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error}");
    assert!(world.keys().is_empty());
    error
}

fn through(url: String) -> NetworkConfig {
    NetworkConfig::new().proxy(url)
}

fn worlds() -> [World; 2] {
    [World::new(), World::over_tls(10)]
}

#[test]
fn tree_is_published_through_an_http_proxy_over_reused_tunnels() {
    for world in worlds() {
        let Some(proxy) = tinyproxy(&basic_auth()) else { return };
        let report = publish(&world, world.network().proxy(proxy.url("http", true)));
        assert_eq!(report.metrics.lookups, 0, "the proxy resolves localhost, and is itself an address");
        assert_eq!(proxy.logged("CONNECT localhost:") as u64, report.metrics.connections);
    }
}

#[test]
fn tree_is_published_through_a_socks5_proxy_that_resolves_the_name_or_gets_the_address() {
    for (scheme, lookups) in [("socks5h", 0), ("socks5", 1)] {
        for world in worlds() {
            let Some(proxy) = microsocks() else { return };
            let report = publish(&world, world.network().proxy(proxy.url(scheme, true)));
            assert_eq!(report.metrics.lookups, lookups, "{scheme}");
            assert_eq!(proxy.logged("connected to") as u64, report.metrics.connections);
        }
    }
}

#[test]
fn proxy_is_reached_over_tls_for_stores_with_and_without() {
    for world in worlds() {
        let Some(proxy) = tinyproxy(&basic_auth()) else { return };
        let ca = TestCa::new();
        let front = tls_front(proxy.addr(), ca.server_config());
        // One file holds the authorities of both.
        let folder = tempfile::tempdir().unwrap();
        let path = ca.write_into(folder.path());
        let of_store = world.ca_pem();
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + &of_store).unwrap();
        let url = proxy.url("https", true).replace(&proxy.addr().to_string(), &front.to_string());
        world.write("f", "x");
        world.write_random("g", 300_000, 3);
        let site = site(&world, NetworkConfig::new().ca_file(path).proxy(url));
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(report.outcome, RescanOutcome::Published);
        assert_eq!(proxy.logged("CONNECT localhost:") as u64, report.metrics.connections);
    }
}

#[test]
fn https_proxy_with_a_strange_certificate_is_an_error_that_names_it() {
    let front = tls_front(silent(), TestCa::new().server_config());
    let error = refusal(through(format!("https://{front}")));
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Tls, false), "{error}");
    assert!(error.to_string().contains(&format!("proxy {front}: the TLS connection failed")), "{error}");
}

#[test]
fn name_of_the_proxy_is_looked_up_once() {
    let world = World::new();
    let Some(proxy) = tinyproxy("") else { return };
    let url = format!("http://localhost:{}", proxy.addr().port());
    let report = publish(&world, through(url));
    assert_eq!(report.metrics.lookups, 1);
}

#[test]
fn i7_wrong_or_missing_password_is_an_error_of_the_settings() {
    let proxies = [(tinyproxy(&basic_auth()), "http"), (microsocks(), "socks5h")];
    for (proxy, scheme) in proxies {
        let Some(proxy) = proxy else { return };
        let wrong = format!("{scheme}://{}:wrong@{}", USER.replace('.', "%2E"), proxy.addr());
        for (url, says) in [
            (wrong, "refused the user name or the password"),
            (proxy.url(scheme, false), "asks for a user name"),
        ] {
            let error = refusal(through(url.clone()));
            assert_eq!((error.kind(), error.attempts()), (ErrorKind::Config, 1), "{error}");
            assert!(error.message().starts_with(&format!("proxy: {}", proxy.addr())), "{error}");
            assert!(error.message().contains(says), "{error}");
            // A run ends with it at its first request.
            let world = World::new();
            world.write("f", "x");
            let error = site(&world, through(url)).rescan().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        }
    }
    assert_eq!(leaks(), Vec::<String>::new());
}

#[test]
fn host_or_port_that_the_proxy_refuses_is_a_failed_connect_that_says_so() {
    for lines in ["Filter \"%DIR%/filter\"\nFilterDefaultDeny Yes", "ConnectPort 443"] {
        let Some(proxy) = tinyproxy(lines) else { return };
        let error = refusal(through(proxy.url("http", false)));
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connect, 2), "{error}");
        let says = format!("proxy {} refused a connection to localhost:", proxy.addr());
        assert!(error.message().contains(&says) && error.message().contains("(403)"), "{error}");
        assert!(error.message().contains("must allow CONNECT"), "{error}");
    }
}

#[test]
fn store_that_the_proxy_cannot_reach_is_named_beside_the_proxy() {
    for (proxy, scheme) in [(tinyproxy(""), "http"), (microsocks(), "socks5h")] {
        let Some(proxy) = proxy else { return };
        let mut world = World::new();
        world.write("f", "x");
        world.server.take();
        let config = world.s3_config().endpoint("http://127.0.0.1:9");
        let config = config.network(through(proxy.url(scheme, true)));
        let s3 =
            S3Backend::new(&world.engine, config.retry(RetryPolicy::default().with_attempts(2))).unwrap();
        let error = s3.upload_file(&world.path("f"), "f").unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connect, 2), "{error}");
        let says = format!("proxy {} could not connect to 127.0.0.1:9", proxy.addr());
        assert!(error.message().contains(&says), "{error}");
    }
}

#[test]
fn proxy_that_fails_in_any_way_is_a_failed_connect_and_an_outage_for_a_run() {
    let refusing = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let answer = |bytes: &'static [u8]| {
        peer(move |mut stream| {
            let _ = stream.write_all(bytes);
            thread::park_timeout(Duration::from_millis(200));
        })
    };
    let dripping = || {
        peer(|mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 ");
            while stream.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let cases: [(&str, SocketAddr, &str); 8] = [
        ("http", refusing, "check its address"),
        ("http", silent(), "timed out"),
        ("socks5h", silent(), "timed out"),
        ("https", silent(), "timed out"),
        ("http", dripping(), "timed out"),
        ("http", peer(drop), "closed the connection"),
        ("http", answer(b"HTTP/1.1 503 Busy\r\n\r\n"), "(503)"),
        ("socks5h", answer(b"HTTP/1.1 400 Bad\r\n\r\n"), "does not speak SOCKS5"),
    ];
    for (scheme, address, says) in cases {
        let network = || through(format!("{scheme}://{address}")).connect_timeout(Duration::from_millis(400));
        let error = refusal(network());
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connect, 2), "{error}");
        assert!(error.message().contains(&format!("proxy {address}")), "{error}");
        assert!(error.message().contains(says), "{says}: {error}");
        let world = World::new();
        world.write("f", "x");
        let report = site(&world, network()).rescan().unwrap();
        assert_eq!(report.outcome, RescanOutcome::LocalOnly, "{scheme} {address}");
    }
}

#[test]
fn proxy_without_an_address_is_told_from_a_store_without_one() {
    let error = refusal(through("http://proxy.invalid:3128".to_owned()));
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(error.message().starts_with("proxy proxy.invalid:3128 does not resolve: "), "{error}");
    // On a run that never reached its store it is a typing error.
    let world = World::new();
    world.write("f", "x");
    let error = site(&world, through("http://proxy.invalid:3128".to_owned())).rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.message().starts_with("proxy: proxy.invalid:3128 does not resolve: "), "{error}");
    assert!(error.message().ends_with("; check the proxy's name"), "{error}");
    let text = error.to_string();
    assert_eq!(
        (text.matches("does not resolve").count(), text.matches("endpoint").count()),
        (1, 0),
        "{text}"
    );
}

#[test]
fn hosts_of_no_proxy_are_reached_directly() {
    let dead = "http://127.0.0.1:9";
    for (host, list) in
        [("127.0.0.1", "10.0.0.0/8,127.0.0.0/8"), ("localhost", "localhost"), ("localhost", "*")]
    {
        let world = World::new();
        world.write("f", "x");
        let network = NetworkConfig::new().proxy(dead).no_proxy(list);
        let site = world.orchestrator_on(backend(&world, network, host), RescanConfig::new());
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(report.outcome, RescanOutcome::Published, "{host} {list}");
    }
}

/// Go's rule for the variables. They are set in a process of its own.
#[test]
fn variables_of_the_environment_are_read_when_asked_and_spare_this_machine() {
    const ASKED: &str = "BRIGADE_TEST_PROXY_VARIABLES";
    if std::env::var_os(ASKED).is_some() {
        let world = World::new();
        world.write("f", "x");
        for network in [NetworkConfig::new(), NetworkConfig::new().proxy_from_env()] {
            let url = backend(&world, network.clone(), "localhost").upload_file(&world.path("f"), "f");
            assert!(url.is_ok(), "{network:?}");
        }
        println!("{:?}", NetworkConfig::new().proxy_from_env());
        return;
    }
    let name = "proxies::variables_of_the_environment_are_read_when_asked_and_spare_this_machine";
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ASKED, "1")
        .env("HTTP_PROXY", "http://user:CANARY@127.0.0.1:9")
        .env("HTTPS_PROXY", "socks5h://127.0.0.1:10")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Http 127.0.0.1:9") && text.contains("Socks5h 127.0.0.1:10"), "{text}");
    assert!(!text.contains("CANARY"), "{text}");
}

/// A run that is cancelled does not wait for the time limit of the connect.
#[test]
fn cancel_ends_the_wait_for_a_proxy() {
    let world = World::new();
    world.write("f", "x");
    let (waiting, is_waiting) = std::sync::mpsc::channel();
    let proxy = peer(move |mut stream| {
        let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
        let _ = waiting.send(());
        thread::park_timeout(Duration::from_secs(600));
    });
    let network = through(format!("http://{proxy}")).connect_timeout(Duration::from_secs(3600));
    let site = site(&world, network);
    let cancel = CancelToken::new();
    thread::scope(|scope| {
        let run = scope.spawn(|| site.rescan_with(&Run::new().cancel(cancel.clone())));
        is_waiting.recv().unwrap();
        cancel.cancel();
        let report = run.join().unwrap().unwrap();
        assert_eq!(report.stop_reason, Some(StopReason::Cancelled), "{report:?}");
    });
}

#[test]
fn user_agent_is_what_the_store_and_the_proxy_see() {
    let world = World::new();
    world.write("f", "x");
    let (tell, told) = std::sync::mpsc::channel();
    let spy = peer(move |mut stream| {
        let mut bytes = [0; 1024];
        let count = std::io::Read::read(&mut stream, &mut bytes).unwrap_or(0);
        let _ = tell.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
    });
    let agent = "release-tool/1.2 (+https://example.com)";
    backend(&world, NetworkConfig::new().user_agent(agent), "localhost")
        .upload_file(&world.path("f"), "f")
        .unwrap();
    assert_eq!(world.proxy.requests()[0].header("user-agent"), Some(agent));
    let own = concat!("bucket-brigade/", env!("CARGO_PKG_VERSION"));
    backend(&world, NetworkConfig::new(), "localhost").upload_file(&world.path("f"), "f").unwrap();
    assert_eq!(world.proxy.requests()[1].header("user-agent"), Some(own));
    let network = through(format!("http://{spy}")).user_agent(agent);
    backend(&world, network, "localhost").upload_file(&world.path("f"), "f").unwrap_err();
    let request = told.recv().unwrap();
    assert!(request.starts_with("CONNECT localhost:") && request.contains(agent), "{request}");
}
