//! What may go wrong between several publishers: the rows D of the faults, and the rules R of the state in the bucket.

use std::time::Duration;

use bucket_brigade::{
    ErrorKind, OnConflict, RemoteState, RescanConfig, RescanOutcome, RescanReport, RetryPolicy, S3Backend,
    StopReason,
};

use crate::shared_state::{Machine, published, requests, tree};
use crate::support::proxy::{Fault, HeldRequest, Rule};
use crate::support::{PREFIX, World};

pub(crate) const HEAD: &str = "site/.brigade/head";
/// Longer than the lease of 5 minutes and the slack.
pub(crate) const AFTER_LEASE: Duration = Duration::from_secs(340);
/// Nothing that was sent before can land any more.
pub(crate) const LANDED: Duration = Duration::from_secs(31 * 60);

fn state() -> RemoteState {
    RemoteState::new()
}

fn outcome(report: &RescanReport) -> (RescanOutcome, Option<StopReason>, u64) {
    (report.outcome, report.stop_reason, report.failed_count)
}

const PUBLISHED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Published, None, 0);
const UNCHANGED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Unchanged, None, 0);

/// Puts the store's clock forward: what the dates of objects say, and of its answers.
pub(crate) fn pass(world: &World, time: Duration) {
    world.store.advance_clock(time);
    world.proxy.add(Rule::new(Fault::WithHeader("date", httpdate::fmt_http_date(world.store.now()))));
}

#[test]
fn d01_second_run_ends_without_a_request_for_objects_while_the_first_publishes() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    let two = Machine::new(&world, &[("a", "2"), ("c", "2")]);
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("/a").times(1));
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
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("/a").times(1));
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

/// A world with two generations by one machine.
fn two_generations(world: &World) -> Machine<'_> {
    let one = Machine::new(world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    one.publish();
    one.write("b", "2");
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    one.let_files_settle();
    one.publish();
    one
}

/// A machine without a cache, whose tree lacks `c`, and has another `b`.
fn other(world: &World) -> Machine<'_> {
    Machine::new(world, &[("a", "1"), ("b", "3")])
}

#[test]
fn d05_lost_or_damaged_head_deletes_nothing_and_loses_nothing() {
    for damage in ["gone", "empty", "truncated", "not a head"] {
        for cached in [true, false] {
            let world = World::new();
            let one = two_generations(&world);
            let head = String::from_utf8(world.store.get(HEAD).unwrap().bytes.to_vec()).unwrap();
            match damage {
                "gone" => drop(world.store.remove_raw(HEAD)),
                "empty" => world.store.put_raw(HEAD, ""),
                "truncated" => world.store.put_raw(HEAD, head[..head.len() / 2].to_owned()),
                _ => world.store.put_raw(HEAD, "{\"format\":1}"),
            }
            let two = other(&world);
            let machine = if cached { &one } else { &two };
            if cached {
                one.remove("c");
                one.write("b", "3");
            }
            let report = machine.publish();
            let case = format!("{damage} {cached} {report:?}");
            assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Published, 0), "{case}");
            // An empty machine cannot know that there was a head.
            let known = cached || damage != "gone";
            assert_eq!(report.state.as_ref().unwrap().was_lost, known, "{case}");
            // Only who has a cache knows that c was published.
            assert_eq!(report.deleted_count, u64::from(cached), "{case}");
            machine.let_files_settle();
            machine.publish();
            assert_eq!(outcome(&machine.publish()), UNCHANGED, "{case}");
            let keys: Vec<_> = published(&world).into_keys().collect();
            assert_eq!(keys, if cached { vec!["a", "b"] } else { vec!["a", "b", "c"] }, "{case}");
        }
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
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("/a").times(1));
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        assert_eq!(two.publish().stop_reason, Some(StopReason::Claimed));
        held.go.release();
        assert_eq!(outcome(&first.join().unwrap()), PUBLISHED);
    });
    assert_eq!(outcome(&two.publish()), PUBLISHED);
}

/// A run whose PUT of `/a` is held by the proxy, while the store's time passes and `then` happens; then it lands.
fn with_held_put(world: &World, one: &Machine<'_>, then: impl FnOnce()) -> RescanReport {
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("/a").times(1));
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        pass(world, AFTER_LEASE);
        then();
        held.go.release();
        assert!(held.landed.wait());
        first.join().unwrap()
    })
}

#[test]
fn d11_request_that_lands_after_a_takeover_is_found_while_it_is_in_doubt() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    let two = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    // Two does not touch a: the condition of the held request is still true.
    let report = with_held_put(&world, &one, || assert_eq!(outcome(&two.publish()), PUBLISHED));
    assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "2")]));
    world.proxy.clear_rules();
    // The next run of two finds it, although its tree has not changed, once nothing more can land.
    pass(&world, LANDED);
    let report = two.publish();
    assert_eq!((outcome(&report), report.uploaded_count), (PUBLISHED, 1), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2")]));
    assert_eq!(report.state.unwrap().in_doubt, 0);
    two.let_files_settle();
    two.publish();
    assert_eq!(outcome(&two.publish()), UNCHANGED);
    // One goes on from there.
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "1")]));
}

#[test]
fn d11_held_request_does_not_overwrite_what_the_next_run_stored() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    one.write("a", "2");
    let two = Machine::new(&world, &[("a", "3")]);
    let report = with_held_put(&world, &one, || assert_eq!(outcome(&two.publish()), PUBLISHED));
    assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "3")]));
}

#[test]
fn d13_head_that_is_removed_under_a_claim_supersedes_its_holder() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("/a").times(1));
    let report = std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        assert!(world.store.remove_raw(HEAD));
        held.go.release();
        first.join().unwrap()
    });
    assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    assert!(world.store.get(HEAD).is_none(), "it is never made anew under a claim");
    world.proxy.clear_rules();
    let report = one.publish();
    assert_eq!(report.failed_count, 0, "{report:?}");
    assert!(report.state.unwrap().was_lost);
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "1")]));
}

#[test]
fn d13_head_that_was_rolled_back_is_found_out() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    let old = world.store.get(HEAD).unwrap().bytes.clone();
    one.write("a", "2");
    one.publish();
    world.store.put_raw(HEAD, old);
    one.let_files_settle();
    let report = one.publish();
    assert!(report.state.as_ref().unwrap().was_lost, "{report:?}");
    assert_eq!((report.failed_count, report.deleted_count), (0, 0), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "1")]));
    one.publish();
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert!(one.publish().state.unwrap().epoch >= 3);
}

#[test]
fn d13_copy_of_a_prefix_with_its_state_is_refused() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    for (key, bytes) in world.store.objects() {
        world.store.put_raw(&key.replace(PREFIX, "copy/"), bytes);
    }
    let config = world.s3_config().bucket_prefix("copy/");
    let two = Machine::new(&world, &[("a", "2")]);
    let backend = std::sync::Arc::new(S3Backend::new(&two.engine, config).unwrap());
    let cache = bucket_brigade::CacheManager::open(two.cache_path()).unwrap();
    let config = RescanConfig::new().state(state());
    let site =
        bucket_brigade::RescanOrchestrator::with_config(&two.engine, two.root(), backend, cache, config)
            .unwrap();
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateDamaged);
    assert!(error.message().contains("s3://bucket/site/"), "{error}");
    assert_eq!(world.store.get("copy/a").unwrap().bytes, "1");
}

#[test]
fn d14_newer_format_and_another_tree_are_refused() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.site(state().tree("docs")).rescan().unwrap();
    let two = Machine::new(&world, &[("a", "2")]);
    let error = two.site(state().tree("app")).rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::StateDamaged && error.message().contains("\"docs\""), "{error}");
    let head = String::from_utf8(world.store.get(HEAD).unwrap().bytes.to_vec()).unwrap();
    world.store.put_raw(
        HEAD,
        head.replace(
            "\"format\":1,\"min_reader\":1,\"min_writer\":1",
            "\"format\":2,\"min_reader\":1,\"min_writer\":2",
        ),
    );
    let error = two.site(state().tree("docs")).rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::StateDamaged && error.message().contains("update it"), "{error}");
    assert_eq!(published(&world), tree(&[("a", "1")]));
}

#[test]
fn unanswered_writes_stay_in_doubt_until_nothing_can_land() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    world.proxy.add(Rule::new(Fault::DropAnswer).method("PUT").path_contains("/a").times(1));
    let report = one.publish();
    assert_eq!(outcome(&report), PUBLISHED, "{report:?}");
    assert_eq!(report.state.unwrap().in_doubt, 1);
    one.let_files_settle();
    one.publish();
    // Until then an unchanged tree costs one request.
    requests(&world);
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    pass(&world, LANDED);
    let report = one.publish();
    assert_eq!((report.failed_count, report.state.unwrap().in_doubt), (0, 0));
    requests(&world);
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(requests(&world), ["GET .brigade/head"]);
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
    let cache = bucket_brigade::CacheManager::open(one.cache_path()).unwrap();
    let config = RescanConfig::new().state(state());
    let site = bucket_brigade::RescanOrchestrator::with_config(
        &one.engine,
        one.root(),
        std::sync::Arc::new(backend),
        cache,
        config,
    )
    .unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.pending), (RescanOutcome::LocalOnly, 1), "{report:?}");
    world.proxy.accept_again();
    assert_eq!(outcome(&site.rescan().unwrap()), PUBLISHED);
}

/// A world with `count` files published by a machine, so that the state has segments of its own.
fn with_segments(world: &World, count: usize) -> Machine<'_> {
    let one = Machine::new(world, &[]);
    for n in 0..count {
        one.write(&format!("{n:05}-{}", "x".repeat(140)), &n.to_string());
    }
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    one
}

fn segments(world: &World) -> Vec<String> {
    let is_segment =
        |key: &String| ["/snapshot/", "/delta/", "/intent/"].iter().any(|kind| key.contains(kind));
    world.store.objects().into_keys().filter(is_segment).collect()
}

#[test]
fn d05_lost_truncated_or_foreign_segment_is_said_and_deletes_nothing() {
    for damage in ["gone", "truncated", "another"] {
        let world = World::new();
        let one = with_segments(&world, 300);
        let all = segments(&world);
        let snapshot = all.iter().find(|key| !key.contains("/intent/")).expect("a segment").clone();
        let bytes = world.store.get(&snapshot).unwrap().bytes.clone();
        match damage {
            "gone" => drop(world.store.remove_raw(&snapshot)),
            "truncated" => world.store.put_raw(&snapshot, bytes.slice(..bytes.len() / 2)),
            _ => {
                let mut other = bytes.to_vec();
                *other.last_mut().unwrap() ^= 1;
                world.store.put_raw(&snapshot, other);
            }
        }
        // A reader gets an error, and nothing changes there.
        let reader = Machine::new(&world, &[]);
        let cache = bucket_brigade::CacheManager::open(reader.cache_path()).unwrap();
        let backend: std::sync::Arc<dyn bucket_brigade::StorageBackend> = reader.backend();
        let error = cache.pull(&reader.engine, &backend, &state(), &bucket_brigade::Run::new()).unwrap_err();
        assert_eq!((error.kind(), cache.published_count().unwrap()), (ErrorKind::StateDamaged, 0), "{error}");
        drop(cache);
        // A publisher without a cache takes over what is there, and deletes nothing.
        let two = Machine::new(&world, &[]);
        for entry in std::fs::read_dir(one.root()).unwrap().skip(1) {
            let path = entry.unwrap().path();
            std::fs::copy(&path, two.root().join(path.file_name().unwrap())).unwrap();
        }
        two.write("new", "1");
        let report = two.publish();
        assert_eq!(outcome(&report), PUBLISHED, "{damage} {:?}", report.failed);
        assert_eq!(
            (report.uploaded_count, report.deleted_count, report.adopted_count),
            (1, 0, 299),
            "{damage}"
        );
        assert!(report.state.unwrap().was_lost);
        // Whose cache is older learns it.
        one.write("new", "1");
        one.let_files_settle();
        let report = one.publish();
        assert_eq!((report.uploaded_count, report.adopted_count, report.failed_count), (0, 1, 0));
    }
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
fn d12_three_publishers_leave_the_keys_of_both_dead_ones_in_doubt() {
    let world = World::new();
    let first = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    first.publish();
    first.write("a", "2");
    let second = Machine::new(&world, &[("a", "1"), ("b", "2"), ("c", "1")]);
    let third = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "3")]);
    let (one, two) = (HeldRequest::default(), HeldRequest::default());
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(one.clone())).method("PUT").path_contains("site/a").times(1));
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(two.clone())).method("PUT").path_contains("site/b").times(1));
    std::thread::scope(|threads| {
        let dead_one = threads.spawn(|| first.publish());
        assert!(one.go.wait_for_arrivals(1));
        pass(&world, AFTER_LEASE);
        let dead_two = threads.spawn(|| second.publish());
        assert!(two.go.wait_for_arrivals(1));
        pass(&world, AFTER_LEASE);
        let report = third.publish();
        assert_eq!(outcome(&report), PUBLISHED);
        assert_eq!(report.state.unwrap().in_doubt, 2);
        one.go.release();
        two.go.release();
        assert!(one.landed.wait() && two.landed.wait());
        assert_eq!(dead_one.join().unwrap().stop_reason, Some(StopReason::Superseded));
        assert_eq!(dead_two.join().unwrap().stop_reason, Some(StopReason::Superseded));
    });
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "2"), ("c", "3")]));
    world.proxy.clear_rules();
    pass(&world, LANDED);
    let report = third.publish();
    assert_eq!((outcome(&report), report.state.unwrap().in_doubt), (PUBLISHED, 0));
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "1"), ("c", "3")]));
}

#[test]
fn state_of_another_prefix_describes_the_objects_and_a_marker_says_where_it_lies() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    let elsewhere = || {
        let config = world.s3_config().bucket_prefix("private/");
        let backend = S3Backend::new(&one.engine, config).unwrap();
        state().at(std::sync::Arc::new(backend))
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

#[test]
fn d10_reader_gets_whole_generations_while_a_publisher_pushes_and_collects() {
    let world = World::new();
    let one = with_segments(&world, 300);
    let reader = Machine::new(&world, &[]);
    let cache = bucket_brigade::CacheManager::open(reader.cache_path()).unwrap();
    let backend: std::sync::Arc<dyn bucket_brigade::StorageBackend> = reader.backend();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let publisher = threads.spawn(|| {
            for generation in 0..6 {
                for n in 0..300 {
                    one.write(&format!("{n:05}-{}", "x".repeat(140)), &"y".repeat(10 + generation));
                }
                assert_eq!(outcome(&one.publish()), PUBLISHED);
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut pulled = 0;
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let state = cache.pull(&reader.engine, &backend, &state(), &bucket_brigade::Run::new()).unwrap();
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
fn r08_run_that_cannot_renew_its_claim_begins_nothing_more() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    one.write("a", "2");
    for n in 0..20 {
        one.write(&format!("b{n}"), "2");
    }
    let held = HeldRequest::default();
    // Each worker has a request that is under way.
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/b"));
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/a"));
    let report = std::thread::scope(|threads| {
        let run = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(3));
        world.proxy.clear_rules();
        world
            .proxy
            .add(Rule::new(crate::network::answer(500, "InternalError")).path_contains("/.brigade/head"));
        one.clock.advance(Duration::from_secs(200));
        held.go.release();
        run.join().unwrap()
    });
    assert!(published(&world).len() <= 4, "{:?}", published(&world));
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable), "{report:?}");
    world.proxy.clear_rules();
    // Its claim is still there. Nobody has to wait for ever.
    let report = one.publish();
    assert_eq!(report.stop_reason, Some(StopReason::Claimed), "{report:?}");
    pass(&world, AFTER_LEASE);
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    assert_eq!(published(&world).len(), 21);
}

#[test]
fn r01_hostile_state_is_an_error_and_deletes_nothing() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    let head = String::from_utf8(world.store.get(HEAD).unwrap().bytes.to_vec()).unwrap();
    let object = |text: &str| world.store.put_raw(HEAD, text.to_owned());
    for (from, to) in [
        ("\"rows\":1", "\"rows\":18446744073709551615"),
        ("\"unpacked\":", "\"unpacked\":9999999999"),
        ("\"epoch\":1", "\"epoch\":18446744073709551615"),
        ("\"doubt\":[]", "\"doubt\":[{}]"),
    ] {
        assert!(head.contains(from), "{head}");
        object(&head.replacen(from, to, 1));
        let reader = Machine::new(&world, &[]);
        let cache = bucket_brigade::CacheManager::open(reader.cache_path()).unwrap();
        let backend: std::sync::Arc<dyn bucket_brigade::StorageBackend> = reader.backend();
        let error = cache.pull(&reader.engine, &backend, &state(), &bucket_brigade::Run::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StateDamaged, "{to} {error}");
    }
    // A head without an end is not read to its end.
    object(&format!("{}{}", head, " ".repeat(200_000)));
    let two = Machine::new(&world, &[("b", "1")]);
    let report = two.publish();
    assert_eq!((outcome(&report), report.deleted_count), (PUBLISHED, 0), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "1")]));
}

#[test]
fn d10_reader_gets_nothing_of_a_run_that_has_not_ended() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    let reader = Machine::new(&world, &[("a", "22"), ("b", "22")]);
    let cache = bucket_brigade::CacheManager::open(reader.cache_path()).unwrap();
    let backend: std::sync::Arc<dyn bucket_brigade::StorageBackend> = reader.backend();
    let sizes = || {
        let state = cache.pull(&reader.engine, &backend, &state(), &bucket_brigade::Run::new()).unwrap();
        let sizes: Vec<_> = cache.published().unwrap().entries().map(|entry| entry.stat.size).collect();
        (sizes, state.generation, state.claimed_by.is_some())
    };
    assert_eq!(sizes(), (vec![1, 1], 1, false));
    one.write("a", "22");
    one.write("b", "22");
    let held = HeldRequest::default();
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/b").times(1));
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
fn tree_that_was_published_without_a_record_in_the_bucket_gets_one() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    assert_eq!(outcome(&one.site_with(RescanConfig::new()).rescan().unwrap()), PUBLISHED);
    one.let_files_settle();
    one.site_with(RescanConfig::new()).rescan().unwrap();
    let report = one.publish();
    assert_eq!((report.uploaded_count, report.failed_count), (0, 0), "{report:?}");
    let state = report.state.unwrap();
    assert_eq!((state.generation, state.was_lost), (1, false));
    let two = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    let report = two.publish();
    assert_eq!((outcome(&report), report.state.unwrap().pulled), (UNCHANGED, 2));
}

#[test]
fn d14_local_run_with_a_cache_that_is_a_copy_is_refused() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    requests(&world);
    let error = one.site_with(RescanConfig::new()).rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.message().starts_with("state: "), "{error}");
    assert!(requests(&world).is_empty());
}

#[test]
fn d05_order_and_generation_go_on_where_the_head_was_lost() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.site(state().order(7)).rescan().unwrap();
    one.write("a", "2");
    one.site(state().order(8)).rescan().unwrap();
    assert!(world.store.remove_raw(HEAD));
    one.write("a", "3");
    let report = one.site(state().order(6)).rescan().unwrap();
    assert_eq!((report.stop_reason, report.uploaded_count), (Some(StopReason::Claimed), 0), "{report:?}");
    let state = one.site(state().order(9)).rescan().unwrap().state.unwrap();
    assert_eq!((state.generation, state.order, state.was_lost), (3, Some(9), true));
}

/// A head of the same claim and beat with other rows is not the one that was to be stored.
#[test]
fn d04_checkpoint_that_lands_unseen_loses_no_row() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    one.write("b", "2");
    let held = HeldRequest::default();
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/b").times(1));
    let report = std::thread::scope(|threads| {
        let run = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        // Each PUT of the head takes effect, and nothing is ever heard of it: a renewal, or the row of a.
        let lose = || Rule::new(Fault::DropAnswer).path_contains("/.brigade/head");
        world.proxy.add(lose());
        let before = world.store.get(HEAD).unwrap().bytes;
        one.clock.advance(Duration::from_secs(61));
        while world.store.get(HEAD).unwrap().bytes == before {
            std::thread::yield_now();
        }
        world.proxy.clear_rules();
        held.go.release();
        run.join().unwrap()
    });
    assert_eq!(outcome(&report), PUBLISHED, "{report:?}");
    let state = report.state.unwrap();
    assert_eq!((state.generation, state.claimed_by), (2, None));
    let two = Machine::new(&world, &[("a", "2"), ("b", "2")]);
    assert_eq!(outcome(&two.publish()), UNCHANGED);
}

#[test]
fn first_run_that_was_interrupted_takes_over_all_the_same() {
    let world = World::new();
    for key in ["a", "b", "c"] {
        world.stranger(key, "1");
    }
    let one = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    let stop = bucket_brigade::CancelToken::new();
    let handle = stop.clone();
    // Stopped after the claim, in the lease for which it waits.
    let cancel = move |event: &bucket_brigade::Event| {
        if matches!(event, bucket_brigade::Event::Log { message, .. } if message.contains("for one lease")) {
            handle.cancel();
        }
    };
    let run = bucket_brigade::Run::new().cancel(stop).observer(std::sync::Arc::new(cancel));
    let report = one.site(state()).rescan_with(&run).unwrap();
    assert_eq!(report.stop_reason, Some(StopReason::Cancelled), "{report:?}");
    assert_eq!(report.state.unwrap().claimed_by, None, "the claim was given back");
    for machine in [Machine::new(&world, &[("a", "1"), ("b", "2")]), one] {
        let report = machine.publish();
        assert_eq!((report.failed_count, report.deleted_count), (0, 0), "{report:?}");
        assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2"), ("c", "1")]));
    }
}

#[test]
fn first_run_that_refuses_objects_refuses_them_again() {
    let world = World::new();
    world.stranger("c", "1");
    let one = Machine::new(&world, &[("a", "1")]);
    let config = || RescanConfig::new().state(state()).first_run(bucket_brigade::FirstRun::Refuse);
    for _ in 0..2 {
        let error = one.site_with(config()).rescan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FirstRunRefused, "{error}");
    }
    assert_eq!(published(&world), tree(&[("c", "1")]));
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
    let held = HeldRequest::default();
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/a").times(1));
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
