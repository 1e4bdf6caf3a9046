//! What the chapter `security` promises and no other file tests, and that each test it names is there.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use bucket_brigade::{
    CacheManager, Catalog, ErrorKind, MaxDelete, RemoteState, RescanConfig, RescanOutcome, Run, S3Backend,
    StorageBackend, StorageError,
};
use memchr::memmem;

use crate::shared_state::{Machine, published, tree};
use crate::support::server::SECRET_KEY;
use crate::support::{PREFIX, SESSION_TOKEN, World, files_below, s3_config_at};

mod memory;

/// Every function with `#[test]` in src and tests.
fn tests_of_this_crate() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in ["src", "tests"] {
        let files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        for (_, bytes) in
            files.into_iter().filter(|(key, _)| Path::new(key).extension().is_some_and(|kind| kind == "rs"))
        {
            let text = String::from_utf8(bytes).unwrap();
            for part in text.split("#[test]").skip(1) {
                // Other attributes may stand between.
                let line =
                    part.lines().map(str::trim).find(|line| line.starts_with("fn ")).unwrap_or_default();
                found.extend(
                    line.strip_prefix("fn ")
                        .and_then(|line| line.split_once('('))
                        .map(|(name, _)| name.to_owned()),
                );
            }
        }
    }
    found
}

/// The names of tests that a text has between backticks: `n03_…` stands for all that begin so.
fn named_tests(text: &str) -> Vec<&str> {
    let is_test = |name: &&str| {
        let has_row = |name: &str| {
            let row = name.split('_').next().unwrap_or_default();
            row.len() > 1 && row.len() < 5 && row[1..].starts_with(|c: char| c.is_ascii_digit())
        };
        name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '…'))
            && (name.matches('_').count() >= 3
                || name.contains('_') && (has_row(name) || name.ends_with('…')))
    };
    text.split('`').skip(1).step_by(2).filter(is_test).collect()
}

fn chapter(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/guide/{name}.md"))).unwrap()
}

/// A promise of the manual names the test that shows it. A test that was renamed left the manual with a name of nothing.
#[test]
fn every_test_that_the_manual_names_is_there() {
    let there = tests_of_this_crate();
    assert!(there.len() > 500, "{}", there.len());
    for (name, least) in [("security", 80), ("reliability", 10)] {
        let chapter = chapter(name);
        let named = named_tests(&chapter);
        assert!(named.len() >= least, "{name}: {named:?}");
        for test in named {
            let is_there = match test.strip_suffix('…') {
                Some(begin) => {
                    there.range(begin.to_owned()..).next().is_some_and(|next| next.starts_with(begin))
                }
                None => there.contains(test),
            };
            assert!(is_there, "{name}.md: there is no test {test}");
        }
    }
}

/// Of `security.md`, each item of a list names a test, but where the chapter says what is trusted and what is not promised.
#[test]
fn every_promise_about_security_names_its_test() {
    let chapter = chapter("security");
    let mut promises = 0;
    for section in chapter.split("\n## ").skip(1) {
        if section.starts_with("Trusted") || section.starts_with("Not protected") {
            continue;
        }
        for item in section.split("\n- ").skip(1) {
            let item = item.split("\n\n").next().unwrap_or_default();
            assert!(!named_tests(item).is_empty(), "no test is named: {item}");
            promises += 1;
        }
    }
    assert!(promises > 30, "{promises}");
}

/// A relay that changes what goes to the store, as somebody on the way of an http endpoint can, and keeps it.
struct Relay {
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Relay {
    fn start(upstream: SocketAddr, from: &'static [u8], to: &'static [u8]) -> Self {
        assert_eq!(from.len(), to.len());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let store = TcpStream::connect(upstream).unwrap();
                let (mut answers, mut back) = (store.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let kept = kept.clone();
                std::thread::spawn(move || change(client, store, (from, to), &kept));
            }
        });
        Self { addr, seen }
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap().clone()
    }
}

/// Relays until either side closes. The bytes that are changed are in one write of the client.
fn change(mut client: TcpStream, mut store: TcpStream, (from, to): (&[u8], &[u8]), kept: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let bytes = &mut buffer[..count];
        kept.lock().unwrap().extend_from_slice(bytes);
        if let Some(at) = memmem::find(bytes, from) {
            bytes[at..][..to.len()].copy_from_slice(to);
        }
        if store.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = store.shutdown(std::net::Shutdown::Both);
}

/// A run through a relay, of a file `swap-this` that holds `genuine`. Returns what the relay has seen.
fn published_through(world: &World, from: &'static [u8], to: &'static [u8]) -> (RescanOutcome, Vec<u8>) {
    world.write("swap-this", "genuine");
    let relay = Relay::start(world.proxy.addr(), from, to);
    let config = s3_config_at(&format!("http://{}", relay.addr));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let outcome = site.rescan().map_or(RescanOutcome::Partial, |report| report.outcome);
    (outcome, relay.seen())
}

/// The signature covers method, path, headers and content. Whoever sits between and has no key cannot change any of them.
#[test]
fn s3_request_that_is_changed_on_the_way_is_refused_by_the_store() {
    let world = World::new();
    assert_eq!(published_through(&world, b"-", b"-").0, RescanOutcome::Published);
    assert_eq!(world.objects()["swap-this"], b"genuine");
    for (from, to) in [
        (&b"genuine"[..], &b"forged!"[..]),
        (b"/swap-this", b"/swap-that"),
        (b"octet-stream", b"other-stream"),
    ] {
        let world = World::new();
        let (outcome, _) = published_through(&world, from, to);
        assert_ne!(outcome, RescanOutcome::Published, "{from:?}");
        assert_eq!(world.keys(), Vec::<String>::new(), "{from:?}");
    }
}

/// What a listener on the way of an http endpoint learns: the session token, and not the key that signs.
#[test]
fn s1_secret_key_is_in_no_request() {
    let world = World::new();
    let (outcome, seen) = published_through(&world, b"-", b"-");
    assert_eq!(outcome, RescanOutcome::Published);
    let holds = |text: &str| memmem::find(&seen, text.as_bytes()).is_some();
    assert!(holds("genuine") && holds(SESSION_TOKEN) && !holds(SECRET_KEY));
}

/// What a proxy, or any other listener, learns of TLS.
#[test]
fn s3_listener_on_the_way_of_tls_learns_neither_content_nor_keys_nor_token() {
    let world = World::over_tls(2);
    world.write("swap-this", "genuine");
    let relay = Relay::start(world.proxy.addr(), b"-", b"-");
    let config = s3_config_at(&format!("https://localhost:{}", relay.addr.port())).network(world.network());
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let report = world.orchestrator_on(backend, RescanConfig::new()).rescan().unwrap();
    assert_eq!(report.outcome, RescanOutcome::Published);
    let seen = relay.seen();
    let holds = |text: &str| memmem::find(&seen, text.as_bytes()).is_some();
    assert!(holds("localhost"), "the name of the host is in the open");
    assert!(!["genuine", "swap-this", SESSION_TOKEN, SECRET_KEY].into_iter().any(holds));
}

/// What other users see in the list of processes.
#[test]
#[cfg(feature = "config")]
fn s1_no_flag_takes_a_secret() {
    let secrets: Vec<_> = bucket_brigade::all_settings().filter(|(_, setting)| setting.is_secret()).collect();
    assert!(secrets.iter().any(|(_, setting)| setting.name() == "secret_access_key"));
    for command in ["sync", "plan", "status", "verify", "url", "pull", "rebuild", "uploads", "config"] {
        assert!(!secrets.iter().any(|(_, setting)| setting.applies_to(command)), "{command}");
    }
}

/// S7: the limits of what a forged state does. It names an object that brigade never stored, with its true `ETag`; that of
/// the test was made by publishing the same bytes.
#[test]
fn s7_forged_state_can_have_any_object_deleted_below_the_prefix_within_the_cap_and_no_other() {
    let world = World::new();
    Machine::new(&world, &[("a", "1"), ("victim", "theirs"), ("changed", "1")]).publish();
    world.stranger("victim", "theirs");
    world.stranger("changed", "since then");
    world.store.put_raw("victim", "beside the prefix");
    world.stranger("unnamed", "x");
    let victim = Machine::new(&world, &[("a", "1")]);
    let capped = RescanConfig::new().state(RemoteState::new()).max_delete(MaxDelete::Count(1));
    let report = victim.site_with(capped).rescan().unwrap();
    assert_eq!((report.deleted_count, report.deletes_refused.is_some()), (0, true), "{report:?}");
    let report = victim.publish();
    assert_eq!(
        report.failed.iter().map(StorageError::kind).collect::<Vec<_>>(),
        [ErrorKind::Conflict],
        "{report:?}"
    );
    assert_eq!(published(&world), tree(&[("a", "1"), ("changed", "since then"), ("unnamed", "x")]));
    assert!(world.store.get("victim").is_some());
}

/// S7: a state says what is published, and not where. Whoever writes it sends no reader to another host.
#[test]
fn s7_pulled_urls_begin_with_the_readers_own_base() {
    let world = World::new();
    Machine::new(&world, &[("a b", "1")]).publish();
    let reader = Machine::new(&world, &[]);
    let cache = CacheManager::open(reader.cache_path()).unwrap();
    let config = world.s3_config().public_url("https://cdn.example.com/files");
    let backend: Arc<dyn StorageBackend> = Arc::new(S3Backend::new(&reader.engine, config).unwrap());
    world.proxy.clear_counts();
    cache.pull(&reader.engine, &backend, &RemoteState::new(), &Run::new()).unwrap();
    assert!(world.proxy.requests().iter().all(|seen| seen.method == "GET"), "it writes nothing");
    let head = world.store.get(&format!("{PREFIX}.brigade/head")).unwrap().bytes;
    assert!(memmem::find(&head, b"://").is_none(), "no URL is in it");
    let catalog = Catalog::open(Catalog::path_for(reader.cache_path())).unwrap();
    let url = catalog.get("a b").unwrap().url;
    assert!(url.starts_with("https://cdn.example.com/files/"), "{url}");
}
