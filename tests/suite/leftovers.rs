//! What interrupted runs have stored without a record, and whose files are gone by the next run (I4).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use bucket_brigade::{
    KeptReason, MaxDelete, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport, RetryPolicy,
    StopReason,
};

use crate::large::in_small_parts;
use crate::network::{acquainted, answer, heals, rescan, site_with};
use crate::support::proxy::{Rule, Seen};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

/// Runs `site` once, and puts the cache back as it was on disk when the first request came that `at` picks: that is what
/// a kill at this moment leaves. What the run stored after it stays in the bucket.
fn interrupted(world: &World, site: RescanOrchestrator, at: impl Fn(&Seen) -> bool + Send + Sync + 'static) {
    let saved = world.root().with_extension("cache");
    let (cache, copy, done) = (world.cache_path(), saved.clone(), AtomicBool::new(false));
    world.proxy.on_request(move |seen| {
        if at(seen) && !done.swap(true, Ordering::SeqCst) {
            fs::copy(&cache, &copy).unwrap();
        }
    });
    site.rescan().unwrap();
    world.proxy.on_request(|_| ());
    drop(site);
    fs::rename(&saved, world.cache_path()).unwrap();
    world.proxy.clear_counts();
    world.store.clear_logs();
}

fn is_put(seen: &Seen) -> bool {
    seen.method == "PUT"
}

/// A world with a file that is known, and others that a run stored and did not record.
fn with_leftovers(files: usize) -> World {
    let world = World::new();
    let site = world.orchestrator();
    acquainted(&world, &site);
    for n in 0..files {
        world.write(&format!("left/{n}"), format!("{n}"));
    }
    interrupted(&world, site, is_put);
    assert_eq!(world.keys().len(), files + 1);
    world
}

fn kept(report: &RescanReport) -> Vec<(&str, KeptReason)> {
    report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect()
}

/// In a loop of 132 kills 87 such objects stayed in the bucket for ever.
#[test]
fn i4_objects_of_an_interrupted_run_are_deleted_when_their_files_are_gone() {
    let world = with_leftovers(30);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.write("left/3", "3");
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!(
        (report.outcome, report.deleted_count, report.uploaded_count),
        (RescanOutcome::Published, 29, 1)
    );
    let heads = world.proxy.requests().iter().filter(|seen| seen.method == "HEAD").count();
    assert_eq!((heads, world.keys()), (29, vec!["known".to_owned(), "left/3".to_owned()]));
    heals(&world, &site);
}

/// An object that was completed from parts, and not recorded.
#[test]
fn i4_large_object_of_an_interrupted_run_is_deleted_too() {
    let world = World::new();
    let site = in_small_parts(&world);
    acquainted(&world, &site);
    world.write_random("large", 17 * MIB, 1);
    interrupted(&world, site, |seen| seen.method == "POST" && seen.target.contains("?uploadId="));
    assert_eq!(world.keys(), ["known", "large"]);
    world.remove("large");
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, world.keys()), (1, vec!["known".to_owned()]));
    heals(&world, &site);
}

/// Somebody else has stored another object under the key since, or there is none any more.
#[test]
fn i3_objects_of_others_at_such_keys_are_left_and_said() {
    let world = with_leftovers(3);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.stranger("left/0", "theirs");
    let other = world.root().with_extension("other");
    fs::write(&other, "of another run of ours").unwrap();
    bucket_brigade::StorageBackend::upload_file(&*world.backend(), &other, "left/1").unwrap();
    world.strangers.lock().unwrap().insert("left/1".into(), b"of another run of ours".to_vec());
    world.store.remove_raw(&format!("{PREFIX}left/2"));
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!(kept(&report), [("left/0", KeptReason::NotOurs), ("left/1", KeptReason::NotOurs)]);
    assert_eq!((report.deleted_count, report.pending), (0, 0));
    assert_eq!(world.keys(), ["known", "left/0", "left/1"]);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.kept_count), (RescanOutcome::Unchanged, 0));
}

/// A key that is excluded by now, or that another root sent, is kept as any other published key is.
#[test]
fn f9_leftovers_that_are_excluded_or_of_another_root_are_kept() {
    let world = with_leftovers(2);
    let site = world.orchestrator_with(RescanConfig::new().exclude("/left"));
    let report = site.rescan().unwrap();
    assert_eq!(kept(&report), [("left/0", KeptReason::Excluded), ("left/1", KeptReason::Excluded)]);
    assert_eq!((report.outcome, report.pending, world.keys().len()), (RescanOutcome::Unchanged, 0, 3));
    drop(site);

    let world = with_leftovers(2);
    let elsewhere = world.root().with_extension("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("known"), "1").unwrap();
    let site = RescanOrchestrator::new(&world.engine, &elsewhere, world.backend(), world.cache()).unwrap();
    let report = site.rescan().unwrap();
    assert_eq!(kept(&report), [("left/0", KeptReason::OtherRoot), ("left/1", KeptReason::OtherRoot)]);
    assert_eq!((report.deleted_count, world.keys().len()), (0, 3));
}

/// They count as deletes.
#[test]
fn i3_leftovers_are_deleted_within_the_cap_only() {
    let world = with_leftovers(12);
    fs::remove_dir_all(world.path("left")).unwrap();
    let capped = |cap| world.orchestrator_with(RescanConfig::new().max_delete(MaxDelete::Count(cap)));
    let report = capped(11).rescan().unwrap();
    assert_eq!((report.stop_reason, report.deleted_count), (Some(StopReason::DeletesRefused), 0));
    let report = rescan(&world, &capped(12));
    assert_eq!((report.deleted_count, world.keys()), (12, vec!["known".to_owned()]));
}

/// The store fails while they are looked at: they stay pending.
#[test]
fn outage_while_leftovers_are_looked_at_leaves_them_pending() {
    let world = with_leftovers(4);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.proxy.add(Rule::new(answer(503, "SlowDown")).method("HEAD"));
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    let report = rescan(&world, &site);
    assert_eq!(
        (report.stop_reason, report.pending, report.deleted_count),
        (Some(StopReason::Unavailable), 4, 0)
    );
    world.proxy.clear_rules();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 4));
    heals(&world, &site);
}

/// A run that only settles leftovers walks the tree twice, and counts it once.
#[test]
fn second_plan_counts_nothing_twice() {
    let world = with_leftovers(5);
    fs::remove_dir_all(world.path("left")).unwrap();
    std::os::unix::fs::symlink("known", world.path("link")).unwrap();
    world.write("new", "x");
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.scanned, report.unchanged, report.skipped_count), (2, 1, 1), "{report:?}");
    assert_eq!((report.uploaded_count, report.deleted_count, report.failed_count), (1, 5, 0));
}

/// One key whose HEAD always fails held up every run.
#[test]
fn leftover_that_cannot_be_asked_for_holds_up_nothing() {
    let world = with_leftovers(1);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.write("new", "x");
    world.proxy.add(Rule::new(answer(500, "InternalError")).method("HEAD"));
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count, report.pending), (RescanOutcome::Partial, 1, 1));
    assert_eq!(kept(&report), [("left/0", KeptReason::Unsettled)]);
    world.proxy.clear_rules();
    assert_eq!(rescan(&world, &site).deleted, ["left/0"]);
}

/// Copies with the metadata of our objects, and objects that were edited with it, are not what a run stored there.
#[test]
fn i3_copies_and_edits_with_our_metadata_are_left() {
    let world = with_leftovers(3);
    let stored = |key: &str| world.store.get(&format!("{PREFIX}{key}")).unwrap();
    // As CopyObject does, from an object of the same interrupted run.
    let source = stored("left/2");
    let put = |key: &str, bytes: &str, proof: &str| {
        world.strangers.lock().unwrap().insert(key.to_owned(), bytes.into());
        world.store.put_raw_with(
            &format!("{PREFIX}{key}"),
            bytes.to_owned(),
            &[("x-amz-meta-brigade", proof)],
        );
    };
    put("left/0", "2", &source.metadata["brigade"]);
    put("left/1", "a longer text of somebody", &stored("left/1").metadata["brigade"]);
    fs::remove_dir_all(world.path("left")).unwrap();
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!(report.deleted, ["left/2"]);
    assert_eq!(kept(&report), [("left/0", KeptReason::NotOurs), ("left/1", KeptReason::NotOurs)]);
}

/// The tokens of complete runs were never forgotten, so their objects counted as leftovers later.
#[test]
fn i3_objects_of_complete_runs_are_no_leftovers() {
    let world = World::new();
    let site = world.orchestrator();
    acquainted(&world, &site);
    world.write("left/0", "0");
    rescan(&world, &site);
    let before = world.store.get(&format!("{PREFIX}left/0")).unwrap();
    world.remove("left/0");
    for n in 0..3 {
        world.write("known", format!("{n}"));
        rescan(&world, &site);
    }
    world.write("left/0", "1");
    interrupted(&world, site, is_put);
    // Somebody puts the object of the complete run back.
    world.strangers.lock().unwrap().insert("left/0".into(), b"0".to_vec());
    let proof = before.metadata["brigade"].as_str();
    world.store.put_raw_with(&format!("{PREFIX}left/0"), "0", &[("x-amz-meta-brigade", proof)]);
    world.remove("left/0");
    let report = rescan(&world, &world.orchestrator());
    assert_eq!((kept(&report), report.deleted_count), (vec![("left/0", KeptReason::NotOurs)], 0));
}

/// Three keys in a row whose HEAD always fails, as that of a folder does on some stores, are asked for no further.
#[test]
fn leftovers_that_cannot_be_asked_for_hold_up_nothing_however_many() {
    let world = with_leftovers(30);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.write("new", "x");
    world.proxy.add(Rule::new(answer(500, "InternalError")).method("HEAD"));
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    for uploaded in [1, 0] {
        world.proxy.clear_counts();
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
        assert_eq!((report.uploaded_count, report.pending, report.kept_count), (uploaded, 30, 30));
        let heads = world.proxy.requests().iter().filter(|seen| seen.method == "HEAD").count();
        assert!(heads <= 2 * 13, "three, and those in flight: {heads}");
    }
    world.proxy.clear_rules();
    assert_eq!(rescan(&world, &site).deleted_count, 30);
}

/// Each run of an outage was recorded as one that may have stored something, until none of the others was known.
#[test]
fn i4_runs_of_a_long_outage_do_not_push_out_the_one_that_was_interrupted() {
    let world = with_leftovers(2);
    fs::remove_dir_all(world.path("left")).unwrap();
    world.proxy.refuse();
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(1)));
    for _ in 0..1001 {
        assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::LocalOnly);
    }
    world.proxy.accept_again();
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, world.keys()), (2, vec!["known".to_owned()]));
}
