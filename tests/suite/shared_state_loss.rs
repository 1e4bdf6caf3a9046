//! A state in the bucket that is lost, damaged, old, foreign, or not there yet.

use std::sync::Arc;

use bucket_brigade::{
    CacheManager, CancelToken, ErrorKind, Event, FirstRun, RescanConfig, RescanOrchestrator, RescanOutcome,
    Run, S3Backend, StopReason, StorageBackend,
};

use crate::shared_state::{Machine, published, requests, tree};
use crate::shared_state_faults::{
    AFTER_LEASE, HEAD, LANDED, PUBLISHED, UNCHANGED, hold, outcome, pass, segments, state, with_segments,
};
use crate::support::{PREFIX, World};

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
fn d13_head_that_is_removed_under_a_claim_supersedes_its_holder() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    let held = hold(&world, "/a");
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
    let backend = Arc::new(S3Backend::new(&two.engine, config).unwrap());
    let cache = CacheManager::open(two.cache_path()).unwrap();
    let config = RescanConfig::new().state(state());
    let site = RescanOrchestrator::with_config(&two.engine, two.root(), backend, cache, config).unwrap();
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
    requests(&world);
    let error = two.site(state().tree("app")).rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::StateDamaged && error.message().contains("\"docs\""), "{error}");
    assert_eq!(requests(&world), ["GET .brigade/head"], "nothing is sent");
    let head = String::from_utf8(world.store.get(HEAD).unwrap().bytes.to_vec()).unwrap();
    world.store.put_raw(
        HEAD,
        head.replace(
            "\"format\":2,\"min_reader\":2,\"min_writer\":2",
            "\"format\":3,\"min_reader\":2,\"min_writer\":3",
        ),
    );
    let error = two.site(state().tree("docs")).rescan().unwrap_err();
    assert!(error.kind() == ErrorKind::StateDamaged && error.message().contains("update it"), "{error}");
    assert_eq!(requests(&world), ["GET .brigade/head"], "nothing is sent");
    assert_eq!(published(&world), tree(&[("a", "1")]));
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
        let cache = CacheManager::open(reader.cache_path()).unwrap();
        let backend: Arc<dyn StorageBackend> = reader.backend();
        let error = cache.pull(&reader.engine, &backend, &state(), &Run::new()).unwrap_err();
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

/// Damages an object of the state: it is gone, cut off, or another one.
fn damage(world: &World, key: &str, how: &str) {
    let bytes = world.store.get(key).unwrap().bytes.clone();
    match how {
        "gone" => drop(world.store.remove_raw(key)),
        "truncated" => world.store.put_raw(key, bytes.slice(..bytes.len() / 2)),
        _ => {
            let mut other = bytes.to_vec();
            *other.last_mut().unwrap() ^= 1;
            world.store.put_raw(key, other);
        }
    }
}

/// The names of all files of a tree with so many, and what is in them.
fn many(count: usize, content: &str) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("{n:05}-{}", "x".repeat(140)), format!("{content} {n}"))).collect()
}

fn write_all(machine: &Machine<'_>, files: &[(String, String)]) {
    for (key, content) in files {
        machine.write(key, content);
    }
}

/// D5: a delta, for one machine whose cache has the snapshot before it, and for one without a cache.
#[test]
fn d05_lost_truncated_or_damaged_delta_is_said_and_deletes_nothing() {
    for how in ["gone", "truncated", "another"] {
        let world = World::new();
        let one = with_segments(&world, 1000);
        let known = segments(&world);
        let other = Machine::new(&world, &[]);
        // What the other one publishes is a delta on the snapshot that one has.
        let changed: Vec<_> = many(250, "changed");
        for entry in std::fs::read_dir(one.root()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, other.root().join(path.file_name().unwrap())).unwrap();
        }
        write_all(&other, &changed);
        assert_eq!(outcome(&other.publish()), PUBLISHED);
        let is_new = |key: &&String| key.contains("/delta/") && !known.contains(key);
        let all = segments(&world);
        damage(&world, all.iter().find(is_new).expect("a delta that is an object"), how);
        let before = published(&world);
        let reader = Machine::new(&world, &[]);
        let cache = CacheManager::open(reader.cache_path()).unwrap();
        let backend: Arc<dyn StorageBackend> = reader.backend();
        let error = cache.pull(&reader.engine, &backend, &state(), &Run::new()).unwrap_err();
        assert_eq!((error.kind(), cache.published_count().unwrap()), (ErrorKind::StateDamaged, 0), "{error}");
        // One wants what it has, and something new.
        one.write("new", "1");
        let report = one.publish();
        assert_eq!((outcome(&report), report.deleted_count), (PUBLISHED, 0), "{how} {:?}", report.failed);
        assert!(report.state.unwrap().was_lost, "{how}");
        // What the other one changed is sent again, what it did not is adopted or known.
        assert_eq!(report.uploaded_count, 251, "{how}");
        let now = published(&world);
        assert!(before.keys().all(|key| now.contains_key(key)), "{how}");
        one.let_files_settle();
        one.publish();
        requests(&world);
        assert_eq!(outcome(&one.publish()), UNCHANGED, "{how}");
        assert_eq!(requests(&world), ["GET .brigade/head"], "{how}");
    }
}

/// D5: the intent of a run that died, and with it the keys that it may have written: all keys are in doubt, nothing is deleted that
/// is not proven, and once nothing can land any more all is settled.
#[test]
fn d05_lost_truncated_or_damaged_intent_is_said_and_puts_all_in_doubt() {
    for how in ["gone", "truncated", "another"] {
        let world = World::new();
        let one = Machine::new(&world, &[("a", "1"), ("z", "1")]);
        one.publish();
        one.write("a", "2");
        // Names that do not compress: an intent of its own, which does not stand in the head.
        let mut random = fastrand::Rng::with_seed(1);
        let name = |n: usize, random: &mut fastrand::Rng| {
            format!("{n:05}-{:032x}{:032x}", random.u128(..), random.u128(..))
        };
        let files: Vec<_> = (0..400).map(|n| (name(n, &mut random), "new".to_owned())).collect();
        write_all(&one, &files);
        let two = Machine::new(&world, &[("a", "3"), ("z", "1")]);
        world.stranger("theirs", "theirs");
        let held = hold(&world, "site/00399-");
        let report = std::thread::scope(|threads| {
            let first = threads.spawn(|| one.publish());
            assert!(held.go.wait_for_arrivals(1));
            pass(&world, AFTER_LEASE);
            let all = segments(&world);
            let intent =
                all.iter().find(|key| key.contains("/intent/")).expect("an intent that is an object");
            damage(&world, intent, how);
            let report = two.publish();
            assert_eq!((report.stop_reason, report.failed_count), (None, 0), "{how} {report:?}");
            held.go.release();
            assert!(held.landed.wait());
            first.join().unwrap()
        });
        assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{how} {report:?}");
        assert_eq!(published(&world)["a"], "3", "{how}");
        world.proxy.clear_rules();
        pass(&world, LANDED);
        let report = two.publish();
        assert_eq!((report.failed_count, report.state.unwrap().in_doubt), (0, 0), "{how}");
        let now = published(&world);
        assert_eq!(
            (&now["a"], &now["z"], &now["theirs"]),
            (&"3".into(), &"1".into(), &"theirs".into()),
            "{how}"
        );
        println!("{how}: {} objects of the dead run are left", now.len() - 3);
        two.let_files_settle();
        two.publish();
        requests(&world);
        assert_eq!(outcome(&two.publish()), UNCHANGED, "{how}");
        assert_eq!(requests(&world), ["GET .brigade/head"], "{how}");
    }
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
        let cache = CacheManager::open(reader.cache_path()).unwrap();
        let backend: Arc<dyn StorageBackend> = reader.backend();
        let error = cache.pull(&reader.engine, &backend, &state(), &Run::new()).unwrap_err();
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

#[test]
fn first_run_that_was_interrupted_takes_over_all_the_same() {
    let world = World::new();
    for key in ["a", "b", "c"] {
        world.stranger(key, "1");
    }
    let one = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    let stop = CancelToken::new();
    let handle = stop.clone();
    // Stopped after the claim, in the lease for which it waits.
    let cancel = move |event: &Event| {
        if matches!(event, Event::Log { message, .. } if message.contains("for one lease")) {
            handle.cancel();
        }
    };
    let run = Run::new().cancel(stop).observer(Arc::new(cancel));
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
    let config = || RescanConfig::new().state(state()).first_run(FirstRun::Refuse);
    for _ in 0..2 {
        let error = one.site_with(config()).rescan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FirstRunRefused, "{error}");
    }
    assert_eq!(published(&world), tree(&[("c", "1")]));
}
