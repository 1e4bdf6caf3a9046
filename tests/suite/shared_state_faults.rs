//! What may go wrong between several publishers: the rows D of the faults, and the rules R of the state in the bucket.

use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    CacheManager, ErrorKind, OnConflict, RemoteState, RescanConfig, RescanOrchestrator, RescanOutcome,
    RescanReport, RetryPolicy, Run, S3Backend, StopReason, StorageBackend,
};

use crate::shared_state::{Machine, published, requests, tree};
use crate::support::World;
use crate::support::proxy::{Fault, HeldRequest, Rule};

pub(crate) const HEAD: &str = "site/.brigade/head";

/// Longer than the lease of 5 minutes and the slack.
pub(crate) const AFTER_LEASE: Duration = Duration::from_secs(340);

/// Nothing that was sent before can land any more.
pub(crate) const LANDED: Duration = Duration::from_secs(31 * 60);

pub(crate) fn state() -> RemoteState {
    RemoteState::new()
}

pub(crate) fn outcome(report: &RescanReport) -> (RescanOutcome, Option<StopReason>, u64) {
    (report.outcome, report.stop_reason, report.failed_count)
}

pub(crate) const PUBLISHED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Published, None, 0);

pub(crate) const UNCHANGED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Unchanged, None, 0);

/// Puts the store's clock forward: what the dates of objects say, and of its answers.
pub(crate) fn pass(world: &World, time: Duration) {
    world.store.advance_clock(time);
    world.proxy.add(Rule::new(Fault::WithHeader("date", httpdate::fmt_http_date(world.store.now()))));
}

/// Holds the next PUT whose path contains this text.
pub(crate) fn hold(world: &World, path: &str) -> HeldRequest {
    let held = HeldRequest::default();
    let rule = Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains(path).times(1);
    world.proxy.add(rule);
    held
}

#[test]
fn d01_second_run_ends_without_a_request_for_objects_while_the_first_publishes() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    let two = Machine::new(&world, &[("a", "2"), ("c", "2")]);
    let held = hold(&world, "/a");
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.site(state().publisher("runner 1")).rescan().unwrap());
        assert!(held.go.wait_for_arrivals(1));
        let report = two.site(state()).rescan().unwrap();
        assert_eq!(outcome(&report), (RescanOutcome::Partial, Some(StopReason::Claimed), 0));
        let claimed_by = report.state.unwrap().claimed_by.unwrap();
        assert_eq!(claimed_by.who, "runner 1");
        assert!(!published(&world).contains_key("c"));
        held.go.release();
        assert_eq!(outcome(&first.join().unwrap()), PUBLISHED);
    });
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "1")]));
    assert_eq!(outcome(&two.publish()), PUBLISHED);
    assert_eq!(published(&world), tree(&[("a", "2"), ("c", "2")]));
}

#[test]
fn d01_second_run_waits_for_the_first() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    let two = Machine::new(&world, &[("a", "2")]);
    let held = hold(&world, "/a");
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        let second =
            threads.spawn(|| two.site(state().wait(Duration::from_secs(1_000_000))).rescan().unwrap());
        held.go.release();
        assert_eq!(outcome(&first.join().unwrap()), PUBLISHED);
        assert_eq!(outcome(&second.join().unwrap()), PUBLISHED);
    });
    assert_eq!(published(&world), tree(&[("a", "2")]));
}

#[test]
fn d04_lost_answers_of_the_head_are_recognised_as_our_own() {
    // The claim, the push; and a first claim, which has the intent in a PUT of its own.
    for skip in 0..3 {
        let world = World::new();
        let one = Machine::new(&world, &[("a", "1")]);
        world.proxy.add(
            Rule::new(Fault::DropAnswer).method("PUT").path_contains("/.brigade/head").skip(skip).times(1),
        );
        assert_eq!(outcome(&one.publish()), PUBLISHED, "{skip}");
        one.write("a", "2");
        world.proxy.add(
            Rule::new(Fault::DropAnswer).method("PUT").path_contains("/.brigade/head").skip(skip).times(1),
        );
        let report = one.publish();
        assert_eq!(outcome(&report), PUBLISHED, "{skip}");
        let state = report.state.unwrap();
        assert_eq!((state.generation, state.epoch, state.in_doubt), (2, 2, 0), "{skip}");
        world.proxy.clear_rules();
        one.let_files_settle();
        one.publish();
        assert_eq!(outcome(&one.publish()), UNCHANGED);
    }
}

#[test]
fn d06_older_build_is_refused() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    assert_eq!(outcome(&one.site(state().order(7)).rescan().unwrap()), PUBLISHED);
    let two = Machine::new(&world, &[("a", "2")]);
    world.store.clear_logs();
    let report = two.site(state().order(6)).rescan().unwrap();
    assert_eq!(outcome(&report), (RescanOutcome::Partial, Some(StopReason::Claimed), 0));
    assert_eq!((report.state.unwrap().newer_order, published(&world)), (Some(7), tree(&[("a", "1")])));
    assert!(world.store.puts().is_empty(), "{:?}", world.store.puts());
    // The same tree with an older order is refused as well; an equal one is a rerun.
    assert_eq!(one.site(state().order(6)).rescan().unwrap().stop_reason, Some(StopReason::Claimed));
    one.let_files_settle();
    one.site(state().order(7)).rescan().unwrap();
    assert_eq!(outcome(&one.site(state().order(7)).rescan().unwrap()), UNCHANGED);
    // A higher one is kept, also where nothing else is to be done.
    assert_eq!(outcome(&one.site(state().order(9)).rescan().unwrap()), UNCHANGED);
    assert_eq!(two.site(state().order(8)).rescan().unwrap().state.unwrap().newer_order, Some(9));
    // Back on purpose.
    assert_eq!(outcome(&two.site(state().order(3).reset_order(true)).rescan().unwrap()), PUBLISHED);
    assert_eq!(one.site(state().order(4)).rescan().unwrap().state.unwrap().order, Some(4));
}

#[test]
fn d07_object_that_somebody_else_changed_is_a_conflict() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    one.publish();
    world.stranger("b", "theirs");
    world.stranger("c", "theirs");
    world.stranger("d", "theirs");
    one.write("a", "2");
    one.write("b", "2");
    one.remove("c");
    one.write("d", "2");
    let report = one.publish();
    assert_eq!(outcome(&report), (RescanOutcome::Partial, None, 2), "{report:?}");
    assert!(report.failed.iter().all(|error| error.kind() == ErrorKind::Conflict), "{report:?}");
    let theirs = [("a", "2"), ("b", "theirs"), ("c", "theirs"), ("d", "theirs")];
    assert_eq!(published(&world), tree(&theirs));
    // The deletes wait for the uploads.
    let report = one.site(state().on_conflict(OnConflict::Overwrite)).rescan().unwrap();
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "2"), ("c", "theirs"), ("d", "2")]), "{report:?}");
    assert_eq!((report.uploaded_count, report.failed_count), (2, 1), "{report:?}");
    assert_eq!(report.failed[0].kind(), ErrorKind::Conflict);
}

#[test]
fn d08_store_without_conditions_is_found_out() {
    for atomic in [true, false] {
        let world = World::new();
        let one = Machine::new(&world, &[("a", "1")]);
        if atomic {
            world.store.ignores_conditions(true);
        } else {
            world.store.honours_without_atomicity(Some(Duration::from_millis(20)));
        }
        let error = one.site(state()).rescan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.message().contains("single_writer"), "{error}");
        assert!(published(&world).is_empty());
        let alone = || state().single_writer(true);
        assert_eq!(outcome(&one.site(alone()).rescan().unwrap()), PUBLISHED);
        let two = Machine::new(&world, &[("b", "2")]);
        assert_eq!(outcome(&two.site(alone()).rescan().unwrap()), PUBLISHED);
        assert_eq!(published(&world), tree(&[("b", "2")]));
        // The head remembers what the probe found.
        two.write("b", "3");
        let error = two.site(state()).rescan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(published(&world), tree(&[("b", "2")]));
    }
}

#[test]
fn d09_clocks_of_publishers_have_no_effect() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    let two = Machine::new(&world, &[("a", "2")]);
    one.clock.step_wall(-7 * 3600);
    two.clock.step_wall(5 * 3600);
    let held = hold(&world, "/a");
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        assert_eq!(two.publish().stop_reason, Some(StopReason::Claimed));
        held.go.release();
        assert_eq!(outcome(&first.join().unwrap()), PUBLISHED);
    });
    assert_eq!(outcome(&two.publish()), PUBLISHED);
}

/// D9: whatever the clock of the one that comes shows, a claim is dead once the store's clock says so, and not before.
#[test]
fn d09_takeover_is_judged_by_the_clock_of_the_store_alone() {
    for hours in [-7, 7] {
        let world = World::new();
        let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
        one.publish();
        one.write("a", "2");
        let two = Machine::new(&world, &[("a", "1"), ("b", "2")]);
        two.clock.step_wall(hours * 3600);
        let held = hold(&world, "/a");
        std::thread::scope(|threads| {
            let first = threads.spawn(|| one.publish());
            assert!(held.go.wait_for_arrivals(1));
            for seconds in [0, 200] {
                pass(&world, Duration::from_secs(seconds));
                assert_eq!(two.publish().stop_reason, Some(StopReason::Claimed), "{hours} {seconds}");
            }
            pass(&world, AFTER_LEASE);
            assert_eq!(outcome(&two.publish()), PUBLISHED, "{hours}");
            held.go.release();
            assert_eq!(first.join().unwrap().stop_reason, Some(StopReason::Superseded), "{hours}");
        });
        world.proxy.clear_rules();
        pass(&world, LANDED);
        // This store checks signatures by this machine's clock, which its own is half an hour ahead of by now.
        two.clock.step_wall(-hours * 3600);
        assert_eq!(two.publish().failed_count, 0, "{hours}");
        assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2")]), "{hours}");
    }
}

#[test]
fn outage_of_the_head_leaves_the_work_pending() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    one.write("a", "2");
    world.proxy.refuse();
    let backend =
        S3Backend::new(&one.engine, world.s3_config().retry(RetryPolicy::default().with_attempts(1)))
            .unwrap();
    let cache = CacheManager::open(one.cache_path()).unwrap();
    let config = RescanConfig::new().state(state());
    let site =
        RescanOrchestrator::with_config(&one.engine, one.root(), Arc::new(backend), cache, config).unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.pending), (RescanOutcome::LocalOnly, 1), "{report:?}");
    world.proxy.accept_again();
    assert_eq!(outcome(&site.rescan().unwrap()), PUBLISHED);
}

/// A world with `count` files published by a machine, so that the state has segments of its own.
pub(crate) fn with_segments(world: &World, count: usize) -> Machine<'_> {
    let one = Machine::new(world, &[]);
    for n in 0..count {
        one.write(&format!("{n:05}-{}", "x".repeat(140)), &n.to_string());
    }
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    one
}

pub(crate) fn segments(world: &World) -> Vec<String> {
    let is_segment =
        |key: &String| ["/snapshot/", "/delta/", "/intent/"].iter().any(|kind| key.contains(kind));
    world.store.objects().into_keys().filter(is_segment).collect()
}

#[test]
fn r09_segments_that_no_head_needs_are_collected() {
    let world = World::new();
    let one = with_segments(&world, 1500);
    for round in 0..2 {
        for n in 0..1500 {
            one.write(&format!("{n:05}-{}", "x".repeat(140)), &format!("{round} {n}"));
        }
        assert_eq!(outcome(&one.publish()), PUBLISHED);
        // The snapshot, the intent and those of the epoch before, which the head before references.
        assert!(segments(&world).len() <= 8, "{:?}", segments(&world));
    }
    // A stray of a crashed run is found when a snapshot is made.
    let stray = "site/.brigade/delta/0000000000000001-00000000000000000000000000000001";
    world.store.put_raw(stray, "left by a crash");
    for n in 0..1500 {
        one.write(&format!("{n:05}-{}", "x".repeat(140)), &format!("last {n}"));
    }
    one.publish();
    assert!(world.store.get(stray).is_none());
    let two = Machine::new(&world, &[("a", "1")]);
    let report = two.site_with(RescanConfig::new().state(state()).delete(false)).rescan().unwrap();
    assert_eq!((outcome(&report), report.state.unwrap().pulled), (PUBLISHED, 1500));
}

#[test]
fn r07_empty_machine_reads_the_state_and_lists_nothing() {
    let world = World::new();
    let one = with_segments(&world, 300);
    one.write("00000-another", "1");
    one.publish();
    let two = Machine::new(&world, &[]);
    for entry in std::fs::read_dir(one.root()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, two.root().join(path.file_name().unwrap())).unwrap();
    }
    requests(&world);
    let report = two.publish();
    assert_eq!(
        (report.outcome, report.unchanged, report.state.unwrap().pulled),
        (RescanOutcome::Unchanged, 301, 301)
    );
    let sent = requests(&world);
    assert!(sent.len() <= 3 && sent.iter().all(|line| line.starts_with("GET .brigade/")), "{sent:?}");
}

#[test]
fn state_of_another_prefix_describes_the_objects_and_a_marker_says_where_it_lies() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    let elsewhere = || {
        let config = world.s3_config().bucket_prefix("private/");
        let backend = S3Backend::new(&one.engine, config).unwrap();
        state().at(Arc::new(backend))
    };
    assert_eq!(outcome(&one.site(elsewhere()).rescan().unwrap()), PUBLISHED);
    assert!(world.store.get("private/.brigade/head").is_some());
    let marker = String::from_utf8(world.store.get(HEAD).unwrap().bytes.to_vec()).unwrap();
    assert!(marker.contains("private/"), "{marker}");
    // Whoever does not know is told.
    let error = one.site(state()).rescan().unwrap_err();
    assert!(error.message().contains("s3://bucket/private/"), "{error}");
    one.remove("b");
    let report = one.site(elsewhere()).rescan().unwrap();
    assert_eq!((outcome(&report), report.deleted_count), (PUBLISHED, 1));
    // An object that is not what the state says is not deleted.
    one.write("c", "1");
    one.site(elsewhere()).rescan().unwrap();
    world.stranger("c", "theirs");
    one.remove("c");
    let report = one.site(elsewhere()).rescan().unwrap();
    assert_eq!((report.deleted_count, report.failed[0].kind()), (0, ErrorKind::Conflict));
    assert_eq!(published(&world), tree(&[("a", "1"), ("c", "theirs")]));
}

/// A HEAD before a delete that fails made all keys of the request fail. It is a failure of its own key.
#[test]
fn key_whose_proof_cannot_be_read_holds_up_no_other_delete() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    let elsewhere = || {
        let config = world.s3_config().bucket_prefix("private/");
        state().at(Arc::new(S3Backend::new(&one.engine, config).unwrap()))
    };
    assert_eq!(outcome(&one.site(elsewhere()).rescan().unwrap()), PUBLISHED);
    one.remove("b");
    one.remove("c");
    world
        .proxy
        .add(Rule::new(Fault::Answer(403, Vec::new(), Vec::new())).method("HEAD").path_contains("site/b"));
    let report = one.site(elsewhere()).rescan().unwrap();
    let failed: Vec<_> = report.failed.iter().map(|error| (error.key(), error.kind())).collect();
    assert_eq!(failed, [(Some("b"), ErrorKind::AccessDenied)], "{report:?}");
    assert_eq!((report.deleted_count, published(&world)), (1, tree(&[("a", "1"), ("b", "1")])));
    world.proxy.clear_rules();
    let report = one.site(elsewhere()).rescan().unwrap();
    assert_eq!((outcome(&report), published(&world)), (PUBLISHED, tree(&[("a", "1")])));
}

#[test]
fn d10_reader_gets_whole_generations_while_a_publisher_pushes_and_collects() {
    let world = World::new();
    let one = with_segments(&world, 300);
    let reader = Machine::new(&world, &[]);
    let cache = CacheManager::open(reader.cache_path()).unwrap();
    let backend: Arc<dyn StorageBackend> = reader.backend();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let publisher = threads.spawn(|| {
            let _end = crate::support::SetAtEnd(&done);
            for generation in 0..6 {
                for n in 0..300 {
                    one.write(&format!("{n:05}-{}", "x".repeat(140)), &"y".repeat(10 + generation));
                }
                assert_eq!(outcome(&one.publish()), PUBLISHED);
            }
        });
        let mut pulled = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let state = cache.pull(&reader.engine, &backend, &state(), &Run::new()).unwrap();
            pulled += u64::from(state.pulled > 0);
            let version = cache.published().unwrap();
            let sizes: std::collections::BTreeSet<_> =
                version.entries().map(|entry| entry.stat.size).collect();
            // The first tree has numbers of one to three digits.
            let whole = sizes.len() == 1 || sizes.iter().all(|size| *size <= 3);
            assert!(version.len() == 300 && whole, "{sizes:?}");
        }
        publisher.join().unwrap();
        assert!(pulled > 0);
    });
}

#[test]
fn writes_that_raced_are_tried_again_and_are_no_conflict() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    for times in 1..4 {
        one.write("a", &format!("{times}x"));
        // The claim, the object or the push: 409, not 412.
        world.store.conflicts(times);
        let report = one.publish();
        assert_eq!(outcome(&report), PUBLISHED, "{report:?}");
    }
    assert_eq!(published(&world), tree(&[("a", "3x")]));
}

#[test]
fn d10_reader_gets_nothing_of_a_run_that_has_not_ended() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    let reader = Machine::new(&world, &[("a", "22"), ("b", "22")]);
    let cache = CacheManager::open(reader.cache_path()).unwrap();
    let backend: Arc<dyn StorageBackend> = reader.backend();
    let sizes = || {
        let state = cache.pull(&reader.engine, &backend, &state(), &Run::new()).unwrap();
        let sizes: Vec<_> = cache.published().unwrap().entries().map(|entry| entry.stat.size).collect();
        (sizes, state.generation, state.claimed_by.is_some())
    };
    assert_eq!(sizes(), (vec![1, 1], 1, false));
    one.write("a", "22");
    one.write("b", "22");
    let held = hold(&world, "site/b");
    std::thread::scope(|threads| {
        let run = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        let read_head = || -> serde_json::Value {
            serde_json::from_slice(&world.store.get(HEAD).unwrap().bytes).unwrap()
        };
        let deltas = |head: &serde_json::Value| head["deltas"].as_array().unwrap().len();
        let first = read_head();
        let mut last = first.clone();
        // The claim is renewed once a minute; the row of a comes with it once it is recorded.
        while deltas(&last) == deltas(&first) {
            one.clock.advance(Duration::from_secs(61));
            while read_head() == last {
                std::thread::yield_now();
            }
            last = read_head();
        }
        assert_eq!(sizes(), (vec![1, 1], 1, true));
        assert_eq!(sizes(), (vec![1, 1], 1, true));
        held.go.release();
        assert_eq!(outcome(&run.join().unwrap()), PUBLISHED);
    });
    assert_eq!(sizes(), (vec![2, 2], 2, false));
    drop(cache);
    // A publisher with that cache goes on from the whole head.
    let report = reader.publish();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
}

#[test]
fn delete_of_an_object_that_somebody_else_changed_is_given_up() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    world.stranger("b", "theirs");
    one.remove("b");
    let report = one.publish();
    assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::Conflict), "{report:?}");
    one.let_files_settle();
    one.publish();
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "theirs")]));
}

#[test]
fn wait_goes_on_while_the_other_run_renews_its_claim() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    let two = Machine::new(&world, &[("a", "2")]);
    let held = hold(&world, "site/a");
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        let second =
            threads.spawn(|| two.site(state().wait(Duration::from_secs(10_000_000))).rescan().unwrap());
        let read_head = || world.store.get(HEAD).unwrap().bytes;
        for _ in 0..30 {
            let before = read_head();
            one.clock.advance(Duration::from_secs(61));
            while read_head() == before {
                std::thread::yield_now();
            }
        }
        held.go.release();
        assert_eq!(outcome(&first.join().unwrap()), PUBLISHED);
        assert_eq!(outcome(&second.join().unwrap()), PUBLISHED);
    });
    assert_eq!(published(&world), tree(&[("a", "2")]));
}
