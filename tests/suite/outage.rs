//! The store is away, or half there.

use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    ErrorKind, KeyState, LocalBackend, RescanConfig, RescanOutcome, RetryPolicy, S3Backend, StopReason,
};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule};
use crate::support::{HEAD, PREFIX, World};

fn with_fallback() -> RescanConfig {
    RescanConfig::new().fallback(Arc::new(LocalBackend::new("http://local/files/", "/srv")))
}

/// The whole story of an outage: Ok and soon, the warning, the local side, the fallback's URLs, and
/// the next rescan catches up by itself.
#[test]
fn n14_outage_is_local_only_and_the_next_rescan_catches_up() {
    let world = World::new();
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "old");
    }
    let site = world.orchestrator_with(with_fallback());
    site.rescan().unwrap();
    world.write("f00", "new");
    world.write("added", "a");
    world.remove("f29");
    world.proxy.refuse();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(
        (report.outcome, report.stop_reason),
        (RescanOutcome::LocalOnly, Some(StopReason::Unavailable))
    );
    assert!(report.metrics.requests <= 5, "the circuit opens after five: {}", report.metrics.requests);
    assert!(world.logged(log::Level::Warn).contains(&"Cloud sync failed".to_owned()));
    assert_eq!((report.pending, world.objects()["f00"].as_slice()), (3, b"old".as_slice()));
    let resolved = |key: &str| site.cache().resolve(key).unwrap().unwrap();
    let (added, kept, gone) = (resolved("added"), resolved("f01"), resolved("f29"));
    assert_eq!(
        (added.url.as_str(), added.size, added.state),
        ("http://local/files/added", Some(1), KeyState::Pending)
    );
    assert_eq!(resolved("f00").digest.unwrap().to_hex(), sha256(b"new"), "the digest of what the URL serves");
    assert!(kept.state == KeyState::Published && kept.url.contains(PREFIX));
    assert_eq!(gone.state, KeyState::Stale);
    world.proxy.accept_again();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(
        (report.outcome, report.uploaded_count, report.deleted_count),
        (RescanOutcome::Published, 2, 1)
    );
    check_idle(&world, &site);
}

#[test]
fn without_a_fallback_urls_keep_serving_what_is_published() {
    let world = World::new();
    world.write("a", "old");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.write("a", "newer");
    world.write("b", "b");
    world.proxy.refuse();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let a = site.cache().resolve("a").unwrap().unwrap();
    assert_eq!((a.size, a.state), (Some(3), KeyState::Stale));
    assert_eq!(a.digest.unwrap().to_hex(), sha256(b"old"));
    let b = site.cache().resolve("b").unwrap().unwrap();
    assert_eq!((b.size, b.digest, b.state), (None, None, KeyState::Pending));
    assert_eq!(site.cache().resolve("nowhere").unwrap(), None);
}

#[test]
fn n14_first_run_during_an_outage_is_local_only_too() {
    let world = World::new();
    world.write("a", "1");
    world.proxy.refuse();
    let site = world.orchestrator_with(with_fallback());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.pending), (RescanOutcome::LocalOnly, 1));
    assert_eq!(site.cache().resolve("a").unwrap().unwrap().digest.unwrap().to_hex(), sha256(b"1"));
    world.proxy.accept_again();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::Published);
}

#[test]
fn n14_name_that_does_not_resolve_says_so() {
    let world = World::new();
    world.write("a", "1");
    let config = world
        .s3_config()
        .endpoint("http://no-such-host.invalid")
        .retry(RetryPolicy::default().with_attempts(1));
    let backend = S3Backend::new(&world.engine, config).unwrap();
    let error = bucket_brigade::StorageBackend::upload_file(&backend, &world.path("a"), "a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}

/// The store breaks down in the middle: what it took is recorded, the rest is pending.
#[test]
fn outage_in_the_middle_keeps_what_was_acknowledged() {
    let world = World::new();
    for n in 0..50 {
        world.write(&format!("f{n:02}"), format!("{n}"));
    }
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("PUT").skip(20));
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, 20));
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable));
    assert_eq!(site.cache().published_count().unwrap(), 20);
    world.proxy.clear_rules();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 30));
}

#[test]
fn server_errors_throughout_are_an_outage_and_few_requests() {
    // As many as are in flight are tried, as the store lists. One that asks for fewer requests has a minute to
    // come to itself. Not giving up would be 3,000 requests; how many are under way by then depends on the machine.
    for (status, most) in [(500, 500), (503, 500)] {
        let world = World::new();
        for n in 0..500 {
            world.write(&format!("f{n}"), "x");
        }
        world.proxy.add(Rule::new(Fault::Answer(status, Vec::new(), Vec::new())).method("PUT"));
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.pending), (RescanOutcome::LocalOnly, 500));
        assert!(report.metrics.requests <= most, "{status}: {}", report.metrics.requests);
    }
}

/// N1, N4, N5, N12 and the lost answer: one request alone is tried again, and the run is as if nothing
/// had been.
#[test]
fn passing_faults_cost_a_retry_and_nothing_else() {
    let faults: [(&str, Fault); 8] = [
        ("n1 reset in the body", Fault::ResetInBody(100_000)),
        ("reset before", Fault::ResetBefore),
        ("effect without answer", Fault::ResetAfter),
        ("answer dropped", Fault::DropAnswer),
        ("n4 truncated answer", Fault::TruncateAnswer(20)),
        ("500", Fault::Answer(500, Vec::new(), Vec::new())),
        ("n5 503", Fault::Answer(503, vec![("Retry-After".into(), "3".into())], Vec::new())),
        (
            "400 RequestTimeout",
            Fault::Answer(400, Vec::new(), b"<Error><Code>RequestTimeout</Code></Error>".to_vec()),
        ),
    ];
    for (name, fault) in faults {
        let world = World::new();
        for n in 0..12 {
            world.write(&format!("f{n:02}"), vec![n; 300_000]);
        }
        world.proxy.add(Rule::new(fault).method("PUT").path_contains("/f07").times(2));
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 2), "{name}");
        // After a reset in the place of an answer it may ask what the store has against it.
        let asked = u64::from(name.contains("reset") || name.contains("without answer"));
        let expected = 16..=16 + asked;
        assert!(expected.contains(&report.metrics.requests), "{name}: twelve, two more, two listings");
        check_idle(&world, &site);
    }
}

/// N12: a server closes kept-alive connections as it likes.
#[test]
fn n12_connection_closed_just_as_it_is_used_is_made_anew() {
    let world = World::new();
    for n in 0..20 {
        world.write(&format!("f{n:02}"), "x");
    }
    world.proxy.add(Rule::new(Fault::CloseIdle).method("PUT"));
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::Published);
    assert!(world.proxy.connections() > 10);
}

/// N2: a server that accepts and never answers is a timeout that names its phase.
#[test]
fn n2_silent_server_is_a_timeout_that_names_its_phase() {
    let world = World::new();
    world.write("a", "1");
    world.proxy.add(Rule::new(Fault::Stall));
    let config = world
        .s3_config()
        .network(world.network().answer_timeout(Duration::from_millis(200)))
        .retry(RetryPolicy::default().with_attempts(1));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let error = bucket_brigade::StorageBackend::upload_file(&*backend, &world.path("a"), "a").unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true));
    assert!(error.to_string().contains("receive response"), "{error}");
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::LocalOnly);
}

/// N15: a redirect is an error that says where to go; nothing is sent twice.
#[test]
fn n15_redirect_names_the_region_and_is_not_followed() {
    let world = World::new();
    world.write("a", "1");
    let headers = vec![
        ("Location".to_owned(), "http://127.0.0.1:1/".to_owned()),
        ("x-amz-bucket-region".to_owned(), "eu-west-7".to_owned()),
    ];
    world.proxy.add(Rule::new(Fault::Answer(301, headers, Vec::new())));
    let error = world.orchestrator().rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Region);
    assert!(error.to_string().contains("eu-west-7"), "{error}");
    assert_eq!(world.proxy.requests().len(), 1, "the preflight");
    assert!(world.proxy.requests()[0].target.ends_with(HEAD));
}

/// Credentials end in the middle: nothing more is started, what is done stays recorded.
#[test]
fn n6_credentials_refused_in_the_middle_stop_the_run() {
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("f{n:02}"), "x");
    }
    world.write("gone", "x");
    let refusal = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::Answer(400, Vec::new(), refusal)).method("PUT").skip(15));
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Credentials)));
    assert_eq!((report.uploaded_count, site.cache().published_count().unwrap()), (15, 15));
    assert!(world.proxy.requests().len() < 60);
}

/// A wrong bucket, region or key is one clear error and not ten: the preflight finds it, before any file is fed.
#[test]
fn mistake_in_the_settings_is_one_error_and_one_request() {
    for code in ["InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"] {
        let world = World::new();
        for n in 0..30 {
            world.write(&format!("f{n:02}"), "x");
        }
        let refusal = format!("<Error><Code>{code}</Code><Message>no</Message></Error>");
        world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), refusal.into_bytes())));
        let site = world.orchestrator();
        let error = site.rescan().unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert_eq!((world.proxy.requests().len(), world.proxy.requests()[0].method.as_str()), (1, "GET"));
        assert!(world.proxy.requests()[0].target.ends_with(HEAD));
        assert!(world.keys().is_empty());
    }
}

/// Credentials that may do nothing at all are an error of the run, which says what they would need; each key was
/// tried, as a policy may know prefixes.
#[test]
fn credentials_that_may_neither_list_nor_write_are_one_error() {
    let world = World::new();
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    let refusal = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), refusal)));
    let site = world.orchestrator();
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AccessDenied);
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    assert_eq!(site.cache().pending_count().unwrap(), 30);
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

/// N14b: a certificate that nobody vouches for, and a port that does not speak TLS at all: an error of
/// its own kind that is not retried, and never an outage.
#[test]
fn n14b_certificate_that_is_not_accepted_is_an_error_and_never_local_only() {
    let world = World::new();
    world.write("a", "1");
    let stranger = tls_server();
    let plain = world.server.as_ref().unwrap().addr();
    for (address, says) in [(stranger, "ca_file"), (plain, "seems to speak http, not https")] {
        let config = world.s3_config().endpoint(format!("https://localhost:{}", address.port()));
        let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let cache = bucket_brigade::CacheManager::open(folder.path().join("cache")).unwrap();
        let site =
            bucket_brigade::RescanOrchestrator::new(&world.engine, world.root(), backend, cache).unwrap();
        let error = site.rescan().unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Tls, 1), "{error}");
        assert!(error.to_string().contains("localhost") && error.to_string().contains(says), "{error}");
    }
}

/// A server with a certificate of its own making; it serves one connection.
fn tls_server() -> std::net::SocketAddr {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        // It ends with the client's alert.
        let _ = connection.complete_io(&mut socket);
    });
    address
}
