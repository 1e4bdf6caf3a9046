//! Headers of objects whose state lies in the bucket: several machines, with the same rules or others.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bucket_brigade::{
    CacheManager, ErrorKind, HeaderRule, RemoteState, RescanConfig, RescanOrchestrator, RescanOutcome,
    RescanReport, S3Backend, S3Config,
};

use crate::shared_state::{Machine, requests};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::Seen;
use crate::support::{PREFIX, World, s3_config_at};

/// The names that rules match.
const PAGE: &str = ".html";
const FILES: [(&str, &str); 3] = [("a.html", "1"), ("b.html", "2"), ("c.js", "3")];

fn pages(value: &str) -> HeaderRule {
    HeaderRule::new("*.html").set("Cache-Control", value)
}

fn publish_with(machine: &Machine<'_>, rules: &[HeaderRule]) -> RescanReport {
    machine.let_files_settle();
    let config = rules.iter().cloned().fold(machine.world.s3_config(), S3Config::header_rule);
    let backend = Arc::new(S3Backend::new(&machine.engine, config).unwrap());
    let cache = CacheManager::open(machine.cache_path()).unwrap();
    let config = RescanConfig::new().state(RemoteState::new());
    let site =
        RescanOrchestrator::with_config(&machine.engine, machine.root(), backend, cache, config).unwrap();
    site.rescan().unwrap()
}

fn counts(report: &RescanReport) -> (RescanOutcome, u64, u64, u64) {
    (report.outcome, report.headers_updated_count, report.uploaded_count, report.failed_count)
}

fn cache_control(world: &World, key: &str) -> Option<String> {
    world.store.get(&format!("{PREFIX}{key}")).unwrap().cache_control
}

fn copies(world: &World) -> Vec<String> {
    world.store.copies().into_iter().map(|key| key[PREFIX.len()..].to_owned()).collect()
}

#[test]
fn machine_with_the_same_rules_sends_nothing_and_one_with_others_copies() {
    let world = World::new();
    let one = Machine::new(&world, &FILES);
    let report = publish_with(&one, &[pages("no-cache")]);
    assert_eq!(counts(&report), (RescanOutcome::Published, 0, 3, 0), "{report:?}");
    // An object of the state takes no rule.
    let rules = [pages("no-cache"), HeaderRule::new("*").set("x-amz-meta-a", "b")];
    let state = world.store.get(&format!("{PREFIX}.brigade/head")).unwrap();
    assert_eq!(state.cache_control.as_deref().filter(|value| *value == "no-cache"), None);
    requests(&world);
    let two = Machine::new(&world, &FILES);
    let report = publish_with(&two, &[pages("no-cache")]);
    assert_eq!(counts(&report), (RescanOutcome::Unchanged, 0, 0, 0), "{report:?}");
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    // Another rule there.
    let report = publish_with(&two, &[pages("max-age=60")]);
    assert_eq!(counts(&report), (RescanOutcome::Published, 2, 0, 0), "{report:?}");
    assert_eq!(cache_control(&world, "a.html").as_deref(), Some("max-age=60"));
    // The first one learns the headers, and keeps its stats: nothing is read.
    let report = publish_with(&one, &[pages("max-age=60")]);
    assert_eq!(counts(&report), (RescanOutcome::Unchanged, 0, 0, 0), "{report:?}");
    assert_eq!((report.metrics.bytes_hashed, report.state.unwrap().pulled), (0, 0));
    // With its own rules it brings them back, and again when it has forgotten all.
    let report = publish_with(&one, &rules);
    assert_eq!(counts(&report), (RescanOutcome::Published, 3, 0, 0), "{report:?}");
    let three = Machine::new(&world, &FILES);
    let report = publish_with(&three, &rules);
    assert_eq!(counts(&report), (RescanOutcome::Unchanged, 0, 0, 0), "{report:?}");
    assert!(!world.store.get(&format!("{PREFIX}.brigade/head")).unwrap().metadata.contains_key("a"));
}

#[test]
fn unchanged_tree_with_rules_costs_one_request() {
    let world = World::new();
    let one = Machine::new(&world, &FILES);
    publish_with(&one, &[pages("no-cache")]);
    publish_with(&one, &[pages("no-cache")]);
    requests(&world);
    let report = publish_with(&one, &[pages("no-cache")]);
    assert_eq!((requests(&world), report.metrics.commits), (vec!["GET .brigade/head".to_owned()], 0));
}

/// Somebody else's object is not taken for ours: the copy has the condition of a write.
#[test]
fn copy_of_an_object_that_somebody_changed_is_a_conflict() {
    let world = World::new();
    let one = Machine::new(&world, &FILES);
    publish_with(&one, &[]);
    world.store.put_raw(&format!("{PREFIX}a.html"), "of somebody else");
    let report = publish_with(&one, &[pages("no-cache")]);
    assert_eq!(counts(&report), (RescanOutcome::Partial, 1, 0, 1), "{report:?}");
    assert_eq!((report.failed[0].kind(), report.failed[0].key()), (ErrorKind::Conflict, Some("a.html")));
    assert_eq!(
        (copies(&world), world.objects()["a.html"].as_slice()),
        (vec!["b.html".to_owned()], b"of somebody else".as_slice())
    );
}

/// A store that does not copy: the file is sent again, on the condition that nobody changed its object.
#[test]
fn file_is_sent_again_under_the_claim_where_the_store_does_not_copy() {
    let world = World::new();
    let one = Machine::new(&world, &FILES);
    publish_with(&one, &[]);
    world.store.lacks_copy(true);
    world.proxy.clear_counts();
    let report = publish_with(&one, &[pages("no-cache")]);
    assert_eq!(counts(&report), (RescanOutcome::Published, 0, 2, 0), "{report:?}");
    assert_eq!(report.headers_resent_count, 2);
    let is_file = |seen: &Seen| seen.target.ends_with(PAGE) && seen.header("x-amz-copy-source").is_none();
    let sent: Vec<_> = world.proxy.requests().into_iter().filter(is_file).collect();
    assert!(sent.len() == 2 && sent.iter().all(|seen| seen.header("if-match").is_some()), "{sent:?}");
    let two = Machine::new(&world, &FILES);
    assert_eq!(counts(&publish_with(&two, &[pages("no-cache")])), (RescanOutcome::Unchanged, 0, 0, 0));
}

/// Format 1 has no digests of headers. It is read, and the next publisher writes format 2, which older versions refuse.
#[test]
fn state_of_the_format_before_is_read_and_raised_by_the_next_publisher() {
    let (world, key) = (World::new(), format!("{PREFIX}.brigade/head"));
    let one = Machine::new(&world, &FILES);
    publish_with(&one, &[]);
    let formats =
        |number: u32| format!("\"format\":{number},\"min_reader\":{number},\"min_writer\":{number}");
    let head = || String::from_utf8(world.store.get(&key).unwrap().bytes.to_vec()).unwrap();
    assert!(head().contains(&formats(2)), "{}", head());
    world.store.put_raw(&key, head().replace(&formats(2), &formats(1)));
    let two = Machine::new(&world, &FILES);
    assert_eq!(counts(&publish_with(&two, &[])), (RescanOutcome::Unchanged, 0, 0, 0));
    assert!(head().contains(&formats(1)));
    assert_eq!(counts(&publish_with(&two, &[pages("no-cache")])), (RescanOutcome::Published, 2, 0, 0));
    assert!(head().contains(&formats(2)));
}

#[test]
fn keys_are_named_before_they_are_copied() {
    let world = World::new();
    let one = Machine::new(&world, &FILES);
    publish_with(&one, &[]);
    requests(&world);
    publish_with(&one, &[pages("no-cache")]);
    let sent = requests(&world);
    let first = sent.iter().position(|line| line.ends_with(PAGE)).unwrap();
    let claimed = sent[..first].iter().filter(|line| *line == "PUT .brigade/head").count();
    assert_eq!((sent[0].as_str(), claimed), ("GET .brigade/head", 1), "{sent:?}");
}

const ROOT: &str = "BRIGADE_TEST_HEADERS_ROOT";
const CACHE: &str = "BRIGADE_TEST_HEADERS_CACHE";
const ENDPOINT: &str = "BRIGADE_TEST_HEADERS_ENDPOINT";

/// Publishes with a rule, where this process was started for that.
fn acted_as_child() -> bool {
    let var = |name| std::env::var(name).ok();
    let (Some(root), Some(cache), Some(endpoint)) = (var(ROOT), var(CACHE), var(ENDPOINT)) else {
        return false;
    };
    let engine = bucket_brigade::Engine::new().unwrap();
    let backend = S3Backend::new(&engine, s3_config_at(&endpoint).header_rule(pages("no-cache"))).unwrap();
    let cache = CacheManager::open(cache).unwrap();
    RescanOrchestrator::new(&engine, root, Arc::new(backend), cache).unwrap().rescan().unwrap();
    true
}

/// P1 for copies: a process that is killed among them leaves nothing that the next run does not settle.
#[test]
fn p1_killed_among_copies_the_next_run_brings_the_rest_in_line() {
    if acted_as_child() {
        return;
    }
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("{n:02}.html"), format!("page {n}"));
    }
    world.let_files_settle();
    world.orchestrator().rescan().unwrap();
    world.let_files_settle();
    let (victim, arrived, killed): (Arc<Mutex<Option<Child>>>, _, _) =
        (Arc::default(), AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let (handle, done) = (victim.clone(), killed.clone());
    world.proxy.on_request(move |seen| {
        let copy = seen.header("x-amz-copy-source").is_some();
        if copy && arrived.fetch_add(1, Ordering::SeqCst) + 1 == 25 {
            while handle.lock().unwrap().as_mut().map(|child| child.kill().unwrap()).is_none() {
                std::thread::yield_now();
            }
            done.store(true, Ordering::SeqCst);
        }
    });
    let test = "headers_shared::p1_killed_among_copies_the_next_run_brings_the_rest_in_line";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(ROOT, world.root())
        .env(CACHE, world.cache_path())
        .env(ENDPOINT, world.proxy.endpoint())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    *victim.lock().unwrap() = Some(child);
    let mut child = loop {
        let mut slot = victim.lock().unwrap();
        if let Some(child) = slot.take_if(|child| child.try_wait().unwrap().is_some()) {
            break child;
        }
        drop(slot);
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(!child.wait().unwrap().success() && killed.load(Ordering::SeqCst));
    world.proxy.on_request(|_| {});
    let config = world.s3_config().header_rule(pages("no-cache"));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.pending, report.failed_count), (RescanOutcome::Published, 0, 0));
    assert!(world.keys().iter().all(|key| cache_control(&world, key).as_deref() == Some("no-cache")));
    check_idle(&world, &site);
}
