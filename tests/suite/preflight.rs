//! The first request of a run asks for the head of a state that lies with the bucket. Here the runs keep theirs on this
//! machine (D14), or the store does not say whether there is one.

use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    ErrorKind, FirstRun, RescanConfig, RescanOrchestrator, RescanOutcome, RetryPolicy, Run, S3Backend,
    StopReason, StorageBackend, StorageError, Verify,
};

use crate::network::{acquainted, answer, heals, rescan, site_with};
use crate::support::oracle::check;
use crate::support::proxy::{Fault, Rule};
use crate::support::{HEAD, PREFIX, World};

const POLICIES: [FirstRun; 4] = [FirstRun::Adopt, FirstRun::Overwrite, FirstRun::Refuse, FirstRun::Mirror];
/// The first request, as [`requests`] shows it.
const GET_HEAD: &str = "GET .brigade/head";
/// The beginning of a head, which is enough.
const FORMAT_1: &str = r#"{"format": 1, "target": {"bucket": "bucket", "prefix": "site/"}}"#;

fn with_files(count: usize) -> World {
    let world = World::with_workers(2);
    for n in 0..count {
        world.write(&format!("f{n:02}"), format!("{n}"));
    }
    world.let_files_settle();
    world
}

fn with_policy(world: &World, policy: FirstRun) -> RescanOrchestrator {
    world.orchestrator_with(RescanConfig::new().first_run(policy))
}

/// The methods and targets of the requests so far, without the bucket and the prefix.
fn requests(world: &World) -> Vec<String> {
    let seen = world.proxy.requests().into_iter();
    let begin = format!("/bucket/{PREFIX}");
    seen.map(|seen| format!("{} {}", seen.method, seen.target.replacen(&begin, "", 1))).collect()
}

fn published_keys(site: &RescanOrchestrator) -> Vec<String> {
    let published = site.cache().published().unwrap();
    published.entries().map(|entry| entry.key.as_str().to_owned()).collect()
}

fn listing_of_one() -> String {
    format!("GET /bucket/?list-type=2&max-keys=1&prefix={}", PREFIX.replace('/', "%2F"))
}

/// Denies requests whose target contains this.
fn deny(world: &World, target: &str) {
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("GET").path_contains(target));
}

/// The error of a run that met a head.
#[track_caller]
fn says_what_to_set(error: &StorageError) -> String {
    let text = error.message().to_owned();
    assert!(error.kind() == ErrorKind::Config && text.starts_with("state: "), "{error}");
    for part in ["RescanConfig::state", "--state ", "delete the object .brigade/head"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!error.may_go_away());
    text
}

#[test]
fn d14_first_run_with_a_local_state_sends_nothing_where_there_is_a_head() {
    for policy in POLICIES {
        let world = with_files(3);
        world.stranger(HEAD, FORMAT_1);
        world.stranger("f00", "0");
        let site = with_policy(&world, policy);
        let text = says_what_to_set(&site.rescan().unwrap_err());
        assert!(text.contains("lies in its bucket") && text.contains("--state bucket"), "{text}");
        assert_eq!(requests(&world), [GET_HEAD]);
        assert_eq!((world.store.puts(), world.store.deletes()), (Vec::new(), Vec::new()));
        let cache = site.cache();
        assert!(cache.is_first_run().unwrap());
        assert_eq!((cache.published_count().unwrap(), cache.pending_count().unwrap()), (0, 3));
        // The way back: nobody publishes by that state any more.
        world.strangers.lock().unwrap().clear();
        world.store.remove_raw(&format!("{PREFIX}{HEAD}"));
        world.store.remove_raw(&format!("{PREFIX}f00"));
        world.store.clear_logs();
        heals(&world, &site);
        assert_eq!(world.keys().len(), 3);
    }
}

#[test]
fn d14_later_run_with_a_local_state_sends_nothing_where_there_is_a_head() {
    let world = with_files(3);
    let site = world.orchestrator();
    acquainted(&world, &site);
    world.let_files_settle();
    rescan(&world, &site);
    world.stranger(HEAD, FORMAT_1);
    world.store.clear_logs();
    world.proxy.clear_counts();
    assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Unchanged, "without work nothing is asked");
    assert_eq!(requests(&world), [""; 0]);
    world.write("new", "x");
    world.write("f00", "another");
    world.remove("f01");
    for attempt in 0..2 {
        says_what_to_set(&site.rescan().unwrap_err());
        assert_eq!(requests(&world), [GET_HEAD], "attempt {attempt}");
        assert_eq!((world.store.puts(), world.store.deletes()), (Vec::new(), Vec::new()));
        assert_eq!(published_keys(&site), ["f00", "f01", "f02", "known"], "as before");
        world.proxy.clear_counts();
    }
    world.strangers.lock().unwrap().clear();
    world.store.remove_raw(&format!("{PREFIX}{HEAD}"));
    world.store.clear_logs();
    heals(&world, &site);
    assert_eq!(world.keys(), ["f00", "f02", "known", "new"]);
}

#[test]
fn d14_marker_names_the_place_of_the_state() {
    let world = with_files(1);
    world.stranger(HEAD, r#"{"format": 1, "elsewhere": {"bucket": "states", "prefix": "of/site/"}}"#);
    let text = says_what_to_set(&world.orchestrator().rescan().unwrap_err());
    assert!(text.contains("lies at s3://states/of/site/,"), "{text}");
    assert!(text.contains("--state s3://states/of/site/)"), "{text}");
    assert!(world.store.puts().is_empty());
}

/// It need not be one that this version can read, nor come with what a reader of the state demands.
#[test]
fn d14_whatever_lies_under_the_key_of_the_head_is_one() {
    for head in ["", "no JSON", r#"{"format": 99}"#, r#"{"elsewhere": 7}"#, &"x".repeat(200_000)] {
        let world = with_files(1);
        world.stranger(HEAD, head);
        says_what_to_set(&world.orchestrator().rescan().unwrap_err());
        assert_eq!(requests(&world), [GET_HEAD]);
    }
    for fault in [
        Fault::WithHeader("etag", "W/\"weak\"".to_owned()),
        Fault::WithHeader("content-encoding", "gzip".to_owned()),
        Fault::WithoutHeader("last-modified"),
    ] {
        let world = with_files(1);
        world.stranger(HEAD, FORMAT_1);
        world.proxy.add(Rule::new(fault).path_contains(HEAD));
        says_what_to_set(&world.orchestrator().rescan().unwrap_err());
        assert!(world.store.puts().is_empty());
    }
}

/// A plan shows what a run would do, and a first run would end.
#[test]
fn d14_plan_of_a_first_run_is_the_same_error() {
    for policy in [FirstRun::Adopt, FirstRun::Mirror] {
        let world = with_files(3);
        world.stranger(HEAD, FORMAT_1);
        let site = with_policy(&world, policy);
        says_what_to_set(&site.rescan_with(&Run::new().dry_run(true)).unwrap_err());
        assert_eq!(requests(&world), [GET_HEAD]);
        assert_eq!(site.cache().pending_count().unwrap(), 0);
    }
}

/// What only reads is not concerned: it changes nothing that the state's publishers would not know of.
#[test]
fn d14_verification_and_uploads_are_not_concerned() {
    let world = with_files(3);
    let site = world.orchestrator();
    acquainted(&world, &site);
    world.let_files_settle();
    rescan(&world, &site);
    world.stranger(HEAD, FORMAT_1);
    world.proxy.clear_counts();
    let backend: Arc<dyn StorageBackend> = world.backend();
    let found = site.cache().verify(&world.engine, &backend, &Run::new().verify(Verify::List)).unwrap();
    assert_eq!((found.matching, found.missing_count), (4, 0));
    assert!(site.cache().unfinished_uploads(&world.engine, &*backend).unwrap().is_empty());
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    assert_eq!(report.outcome, RescanOutcome::Unchanged, "{report:?}");
    assert!(requests(&world).iter().all(|request| !request.contains(HEAD)));
}

/// Only the permission to read is missing: the listing says that the rest is good, and files are taken over.
#[test]
fn head_that_may_not_be_read_is_passed_where_listing_is_allowed() {
    let world = with_files(3);
    world.store.put_raw(&format!("{PREFIX}f00"), "0");
    deny(&world, HEAD);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.adopted_count), (RescanOutcome::Published, 1), "{report:?}");
    assert_eq!(report.uploaded_count, 2);
    assert_eq!(requests(&world)[..2], [GET_HEAD, &listing_of_one()]);
    assert_eq!(world.logged(log::Level::Warn), [""; 0]);
    // They may do something, so keys that are denied are failures of their own.
    world.write("f00", "another");
    world.proxy.clear_counts();
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("PUT"));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Partial, 1));
    assert_eq!(requests(&world)[..2], [GET_HEAD, &listing_of_one()]);
    world.proxy.clear_rules();
    heals(&world, &site);
}

/// Other refusals of this one request say no more: the listing decides.
#[test]
fn head_that_a_store_refuses_otherwise_is_left_to_the_listing() {
    for (status, code) in [(405, "MethodNotAllowed"), (404, "NoSuchThing"), (400, "InvalidRequest")] {
        let world = with_files(2);
        world.proxy.add(Rule::new(answer(status, code)).path_contains(HEAD));
        let site = world.orchestrator();
        assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
        assert_eq!(requests(&world)[..2], [GET_HEAD, &listing_of_one()], "{code}");
        assert_eq!(world.logged(log::Level::Warn), [""; 0]);
    }
    // Under this prefix no head has room.
    let world = with_files(2);
    let prefix = format!("{}/", "p".repeat(1015));
    let site = site_with(&world, world.s3_config().bucket_prefix(&prefix));
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Published);
    assert!(world.store.get(&format!("{prefix}f00")).is_some());
}

/// Neither may be: files are published unseen, but nothing is deleted or refused unseen. It makes no difference whether
/// the store says to those who may not list that there is no head.
#[test]
fn prefix_that_can_neither_be_read_nor_listed_is_published_to_unseen() {
    for denied in ["", "list-type"] {
        for policy in POLICIES {
            let world = with_files(3);
            world.stranger("f00", "0");
            deny(&world, denied);
            let site = with_policy(&world, policy);
            if matches!(policy, FirstRun::Refuse | FirstRun::Mirror) {
                let error = site.rescan().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::AccessDenied, "{policy:?}");
                assert!(error.to_string().contains("s3:ListBucket is needed"), "{error}");
                assert!(world.store.puts().is_empty() && site.cache().is_first_run().unwrap());
                continue;
            }
            // Each key is tried, as a policy may know prefixes; then it is one error.
            world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("PUT"));
            let error = site.rescan().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AccessDenied, "{policy:?}");
            assert!(error.to_string().contains("s3:PutObject"), "{error}");
            let warned = world.logged(log::Level::Warn);
            let unlisted = warned.iter().filter(|text| text.contains("cannot be listed")).count();
            assert_eq!(unlisted, 1, "{warned:?}");
            world.proxy.clear_rules();
            deny(&world, denied);
            let report = rescan(&world, &site);
            assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 3));
            assert_eq!((report.adoption, report.adopted_count), (None, 0));
        }
    }
}

#[test]
fn plan_of_a_first_run_shows_all_files_where_the_prefix_cannot_be_listed() {
    for denied in ["", "list-type"] {
        let world = with_files(3);
        world.stranger("f00", "0");
        deny(&world, denied);
        let dry = Run::new().dry_run(true);
        let report = world.orchestrator().rescan_with(&dry).unwrap();
        assert_eq!((report.uploaded_count, report.adoption), (3, None));
        let error = with_policy(&world, FirstRun::Mirror).rescan_with(&dry).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AccessDenied);
    }
}

/// Not every 404 is a store's, and a page is no head.
#[test]
fn head_that_something_in_between_answers_for_is_an_outage() {
    let html = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![html("Content-Type", "text/html"), html("ETag", "\"x\"")];
    for fault in [
        Fault::Answer(404, Vec::new(), b"not found".to_vec()),
        Fault::Answer(200, headers, b"<html>log in</html>".to_vec()),
        Fault::Answer(200, Vec::new(), FORMAT_1.as_bytes().to_vec()),
    ] {
        let world = with_files(2);
        world.proxy.add(Rule::new(fault).path_contains(HEAD));
        let policy = RetryPolicy::default().with_attempts(2);
        let site = site_with(&world, world.s3_config().retry(policy));
        let report = rescan(&world, &site);
        assert_eq!(
            (report.outcome, report.stop_reason),
            (RescanOutcome::LocalOnly, Some(StopReason::Unavailable))
        );
        let outage = report.outage.unwrap();
        assert_eq!((outage.kind(), outage.attempts()), (ErrorKind::Protocol, 2), "{outage}");
        assert_eq!(requests(&world), [GET_HEAD; 2]);
    }
}

/// Each of the two requests waits once.
#[test]
fn n02_server_that_refuses_the_head_and_then_is_silent_is_asked_once_more() {
    let world = with_files(2);
    let config = world.s3_config().network(world.network().answer_timeout(Duration::from_millis(300)));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend, RescanConfig::new());
    deny(&world, HEAD);
    world.proxy.add(Rule::new(Fault::Stall));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable));
    let outage = report.outage.unwrap();
    assert_eq!((outage.kind(), outage.attempts()), (ErrorKind::Timeout, 1));
    assert_eq!(requests(&world), [GET_HEAD, &listing_of_one()]);
}
