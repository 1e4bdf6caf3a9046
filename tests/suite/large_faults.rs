//! Files in parts, when something goes wrong in the middle.

use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bucket_brigade::{
    CancelToken, ErrorKind, LocalBackend, RescanConfig, RescanOrchestrator, RescanOutcome, RescanReport,
    RetryPolicy, Run, S3Backend, StopReason, StorageBackend,
};

use crate::large::{in_small_parts, steps};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule, Seen};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

fn answer(status: u16, code: &str) -> Fault {
    Fault::Answer(status, Vec::new(), format!("<Error><Code>{code}</Code></Error>").into_bytes())
}

fn rescan(world: &World, site: &RescanOrchestrator) -> RescanReport {
    let report = site.rescan().unwrap();
    check(world, site, &report);
    report
}

/// The next rescan, with nothing in its way, makes everything right.
fn heals(world: &World, site: &RescanOrchestrator) -> RescanReport {
    world.proxy.clear_rules();
    let report = rescan(world, site);
    assert!(
        matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged),
        "{:?}: {:?}",
        report.outcome,
        report.failed
    );
    report
}

fn parts_sent(world: &World) -> Vec<u32> {
    let number = |seen: &Seen| {
        let rest = seen.target.split_once("partNumber=")?.1;
        rest.split('&').next()?.parse().ok()
    };
    let mut numbers: Vec<u32> = world.proxy.requests().iter().filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// The store takes so many parts, and is away from then on.
fn outage_after(world: &World, parts: u64) {
    let rule = Rule::new(answer(500, "InternalError"));
    world.proxy.add(rule.path_contains("partNumber=").skip(parts));
}

#[test]
fn n01_reset_in_the_middle_of_a_part_sends_that_part_again() {
    let world = World::new();
    world.write_random("f", 30 * MIB, 1);
    world.proxy.add(Rule::new(Fault::ResetInBody(3 << 20)).path_contains("partNumber=2&").times(2));
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!(report.outcome, RescanOutcome::Published);
    assert_eq!(parts_sent(&world), [1, 2, 2, 2, 3, 4]);
}

#[test]
fn n04_truncated_answers_are_not_believed() {
    for (method, path) in [("POST", "uploads="), ("PUT", "partNumber=1&"), ("POST", "uploadId=")] {
        for bytes in [10, 200] {
            let world = World::new();
            world.write_random("f", 17 * MIB, 1);
            let rule = Rule::new(Fault::TruncateAnswer(bytes)).method(method).path_contains(path);
            world.proxy.add(rule.times(1));
            world.proxy.on_request({
                let store = world.store.clone();
                move |seen| assert!(seen.method != "PUT" || !store.uploads().is_empty())
            });
            if path == "uploads=" {
                world.lost_begins.store(true, Ordering::SeqCst);
            }
            let site = in_small_parts(&world);
            let report = rescan(&world, &site);
            assert_eq!(report.outcome, RescanOutcome::Published, "{method} {path} {bytes}");
        }
    }
}

#[test]
fn n05_burst_of_503_costs_no_file() {
    let world = World::new();
    world.write_random("f", 60 * MIB, 1);
    world.proxy.add(Rule::new(answer(503, "SlowDown")).path_contains("partNumber=").times(12));
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 12));
}

#[test]
fn n08_complete_that_answers_200_with_an_error_is_never_success() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    let complete = |fault: Fault| Rule::new(fault).method("POST").path_contains("?uploadId=");
    world.proxy.add(complete(answer(200, "InternalError")));
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.pending, world.keys().len()), (0, 1, 0));
    assert_eq!((report.open_uploads, world.store.uploads().len()), (1, 1));
    // The parts are there still; and once is retried.
    world.proxy.clear_rules();
    world.proxy.clear_counts();
    let late = b" \n \n<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code></Error>".to_vec();
    world.proxy.add(complete(Fault::Answer(200, Vec::new(), late)).times(1));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, parts_sent(&world).len()), (RescanOutcome::Published, 0));
    assert_eq!(report.metrics.retries, 1);
}

/// A store puts thousands of parts together while the client waits: that answer has a limit of its own.
#[test]
fn complete_may_take_longer_than_other_answers() {
    use std::time::Duration;
    let world = World::new();
    world.write_random("f", 9 * MIB, 1);
    let slow = || Rule::new(Fault::Delay(Duration::from_millis(1500)));
    world.proxy.add(slow().method("POST").path_contains("?uploadId="));
    let limit = Duration::from_millis(500);
    let s3 = world
        .s3_config()
        .part_threshold(8 << 20)
        .network(world.network().idle_timeout(limit).answer_timeout(limit));
    let s3 = s3.retry(RetryPolicy::default().with_attempts(1));
    let backend = S3Backend::new(&world.engine, s3).unwrap();
    backend.upload_file(&world.path("f"), "f").unwrap();
    world.proxy.add(slow().method("PUT"));
    let error = backend.upload_file(&world.path("f"), "g").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[test]
fn n09_lost_answer_to_complete_is_proven_by_token_and_size() {
    for fault in [Fault::DropAnswer, Fault::ResetAfter] {
        let world = World::new();
        world.write_random("f", 17 * MIB, 1);
        world.proxy.add(Rule::new(fault).method("POST").path_contains("?uploadId=").times(1));
        let site = in_small_parts(&world);
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, steps(&world).1), (RescanOutcome::Published, 3));
        assert!(world.proxy.requests().iter().any(|seen| seen.method == "HEAD"));
        check_idle(&world, &site);
    }
}

/// The same when nothing at all is heard any more: the next run finds out, and sends no part.
#[test]
fn n09_lost_answer_is_proven_by_the_next_run() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.let_files_settle();
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploadId="));
    world.proxy.add(Rule::new(Fault::ResetBefore).method("HEAD"));
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, world.keys().len()), (0, 1));
    world.proxy.clear_counts();
    let report = heals(&world, &site);
    assert_eq!((report.uploaded_count, steps(&world)), (1, (0, 0, 0)));
    check_idle(&world, &site);
}

#[test]
fn n09_another_s_object_is_no_success() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.strangers.lock().unwrap().insert("f".to_owned(), b"theirs".to_vec());
    let store = world.store.clone();
    world.proxy.on_request(move |seen| {
        if seen.method == "POST" && seen.target.contains("?uploadId=") {
            store.expire_uploads();
            store.put_raw(&format!("{PREFIX}f"), "theirs");
        }
    });
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count, report.pending), (RescanOutcome::Partial, 0, 1));
    assert_eq!(world.objects()["f"], b"theirs");
    world.proxy.on_request(|_| ());
    assert_eq!(heals(&world, &site).uploaded_count, 1);
}

/// Nobody may look: the file is sent once more, and only once.
#[test]
fn n09_head_forbidden_sends_the_file_once_more() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploadId=").times(1));
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("HEAD"));
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, steps(&world).0, steps(&world).1), (RescanOutcome::Published, 2, 6));
    assert_eq!(world.store.commits().len(), 2);
}

#[test]
fn n09b_lost_answer_to_begin_stays_recorded_and_is_listed() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploads=").times(1));
    world.lost_begins.store(true, Ordering::SeqCst);
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, steps(&world).0), (RescanOutcome::Published, 2));
    world.lose_names_of_uploads();
    let lost = world.store.uploads();
    assert_eq!(lost.len(), 1);
    let backend = world.backend();
    let listed = site.cache().unfinished_uploads(&world.engine, &*backend).unwrap();
    assert_eq!((listed.len(), listed[0].certain, listed[0].key.as_str()), (1, false, "f"));
    assert_eq!(listed[0].upload_id.as_deref(), Some(lost[0].1.as_str()));
    // Where the store may not be asked, it is named by its key alone.
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("GET").path_contains("uploads="));
    let listed = site.cache().unfinished_uploads(&world.engine, &*backend).unwrap();
    assert_eq!((listed.len(), &listed[0].upload_id), (1, &None));
    world.proxy.clear_rules();
    // Nobody can tell whose it is: it is never aborted here.
    let aborted = site.cache().abort_uploads(&world.engine, &*backend).unwrap();
    assert_eq!((aborted.aborted.len(), aborted.left.len(), world.store.uploads()), (0, 1, lost));
    check_idle(&world, &site);
    // Once it is gone it is forgotten.
    world.store.expire_uploads();
    world.strange_uploads.lock().unwrap().clear();
    site.cache().abort_uploads(&world.engine, &*backend).unwrap();
    world.strange_upload("f");
    assert!(site.cache().unfinished_uploads(&world.engine, &*backend).unwrap().is_empty());
}

#[test]
fn n10_refused_hash_of_a_part_is_one_retry_or_a_changed_source() {
    let world = World::new();
    world.write_random("f", 17 * MIB, 1);
    let refused = || Rule::new(answer(400, "XAmzContentSHA256Mismatch")).path_contains("partNumber=2&");
    world.proxy.add(refused().times(1));
    let site = in_small_parts(&world);
    assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
    world.write_random("f", 17 * MIB, 2);
    world.proxy.add(refused());
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.failed[0].kind()), (RescanOutcome::Partial, ErrorKind::Integrity));
    assert_eq!(world.store.uploads().len(), 0, "given up at once");
    heals(&world, &site);
}

/// The store goes away in the middle, in a run whose files are settled or not, and comes back.
#[test]
fn n11_interrupted_upload_goes_on_where_it_was() {
    for settled in [true, false] {
        let mut world = World::new();
        let bytes = world.write_random("f", 60 * MIB, 1);
        if settled {
            world.let_files_settle();
        }
        outage_after(&world, 5);
        let site = in_small_parts(&world);
        let report = rescan(&world, &site);
        assert_eq!((report.uploaded_count, report.pending, report.open_uploads), (0, 1, 1));
        let (_, id) = world.store.uploads().remove(0);
        let there = world.store.parts_of(&id);
        assert_eq!(there.len(), 5);
        let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
        assert_eq!((listed[0].certain, listed[0].sent, listed[0].size), (true, 40 << 20, 60 << 20));
        drop(site);
        world.restart_server();
        world.proxy.clear_counts();
        let site = in_small_parts(&world);
        let report = heals(&world, &site);
        let missing: Vec<u32> = (1..=8).filter(|number| !there.contains(&(*number as i32))).collect();
        assert_eq!((parts_sent(&world), steps(&world).0), (missing, 0), "settled: {settled}");
        let hashed = if settled { 20 * MIB..60 * MIB } else { 60 * MIB..60 * MIB + 1 };
        assert!(hashed.contains(&(report.metrics.bytes_hashed as usize)), "{}", report.metrics.bytes_hashed);
        assert_eq!(world.objects()["f"], bytes);
        check_idle(&world, &site);
    }
}

/// The server dies in the middle of the parts, and another one is there for the next run.
#[test]
fn n11_server_that_is_killed_in_the_middle_of_an_upload_is_gone_on_with() {
    let mut world = World::with_workers(2);
    let bytes = world.write_random("f", 60 * MIB, 1);
    world.let_files_settle();
    let server = std::sync::Mutex::new(world.server.take());
    let parts = std::sync::atomic::AtomicU32::new(0);
    world.proxy.on_request(move |seen| {
        let is_part = seen.target.contains("partNumber=");
        if is_part && parts.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 3 {
            server.lock().unwrap().take();
        }
    });
    let site = in_small_parts(&world);
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.pending, report.open_uploads), (0, 1, 1));
    let (_, id) = world.store.uploads().remove(0);
    let there = world.store.parts_of(&id);
    assert!((1..=4).contains(&there.len()), "{there:?}");
    world.proxy.on_request(|_| ());
    world.restart_server();
    world.proxy.clear_counts();
    heals(&world, &site);
    let missing: Vec<u32> = (1..=8).filter(|number| !there.contains(&(*number as i32))).collect();
    assert_eq!((parts_sent(&world), steps(&world).0), (missing, 0));
    assert_eq!(world.objects()["f"], bytes);
    check_idle(&world, &site);
}

/// What the store has lost since is sent again, whatever the cache believes.
#[test]
fn n11_cache_and_store_agree_on_parts_before_more_are_sent() {
    let world = World::new();
    world.write_random("f", 60 * MIB, 1);
    world.let_files_settle();
    outage_after(&world, 5);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    let (_, id) = world.store.uploads().remove(0);
    let lost = world.store.parts_of(&id)[2];
    world.store.lose_part(&id, lost);
    world.proxy.clear_counts();
    heals(&world, &site);
    assert_eq!((parts_sent(&world).len(), steps(&world).0), (4, 0));
    assert!(parts_sent(&world).contains(&(lost as u32)));
}

#[test]
fn n11_upload_that_is_gone_starts_afresh() {
    let world = World::new();
    world.write_random("f", 40 * MIB, 1);
    outage_after(&world, 3);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    world.store.expire_uploads();
    world.proxy.clear_counts();
    heals(&world, &site);
    assert_eq!(steps(&world), (1, 5, 1));
    // And in the middle of a run, too.
    world.write_random("f", 41 * MIB, 2);
    world.proxy.clear_counts();
    let (store, expired) = (world.store.clone(), AtomicU64::new(0));
    world.proxy.on_request(move |seen| {
        if seen.target.contains("partNumber=4&") && expired.fetch_add(1, Ordering::SeqCst) == 0 {
            store.expire_uploads();
        }
    });
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, steps(&world).0), (RescanOutcome::Published, 2));
    check_idle(&world, &site);
}

/// Parts may not be listed: what the cache has recorded is believed, and where that is wrong, it shows.
#[test]
fn n11_list_of_parts_forbidden_goes_on_by_the_cache_alone() {
    for expired in [false, true] {
        let world = World::new();
        world.write_random("f", 60 * MIB, 1);
        world.let_files_settle();
        outage_after(&world, 5);
        let site = in_small_parts(&world);
        rescan(&world, &site);
        if expired {
            world.store.expire_uploads();
        }
        world.proxy.clear_rules();
        world.proxy.clear_counts();
        world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("GET"));
        let report = rescan(&world, &site);
        assert_eq!(report.outcome, RescanOutcome::Published, "expired: {expired}");
        assert_eq!(steps(&world).0, usize::from(expired));
    }
}

#[test]
fn n11_file_that_changed_meanwhile_is_a_new_upload_and_the_old_one_is_aborted() {
    let world = World::new();
    world.write_random("f", 40 * MIB, 1);
    world.write_random("g", 40 * MIB, 2);
    world.write_random("h", 40 * MIB, 3);
    outage_after(&world, 9);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    assert!(!world.store.uploads().is_empty());
    // One is changed, one becomes small, one is gone.
    world.write_random("f", 40 * MIB, 4);
    world.write("g", "small");
    world.remove("h");
    let report = heals(&world, &site);
    assert_eq!(
        (report.open_uploads, world.store.uploads().len(), world.keys()),
        (0, 0, vec!["f".into(), "g".into()])
    );
    check_idle(&world, &site);
}

#[test]
fn n12_connection_closed_after_each_answer() {
    let world = World::new();
    world.write_random("f", 60 * MIB, 1);
    world.proxy.add(Rule::new(Fault::CloseIdle));
    let site = in_small_parts(&world);
    assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Published);
}

#[test]
fn cancelled_upload_publishes_nothing_and_is_gone_on_with() {
    let world = World::new();
    world.write_random("f", 60 * MIB, 1);
    world.let_files_settle();
    let cancel = CancelToken::new();
    world.proxy.on_request({
        let cancel = cancel.clone();
        let seen_parts = AtomicU64::new(0);
        move |seen| {
            if seen.target.contains("partNumber=") && seen_parts.fetch_add(1, Ordering::SeqCst) == 7 {
                cancel.cancel();
            }
        }
    });
    let site = in_small_parts(&world);
    let report = site.rescan_with(&Run::new().cancel(cancel)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Cancelled)));
    assert_eq!((world.keys().len(), world.store.uploads().len()), (0, 1));
    world.proxy.on_request(|_| ());
    world.proxy.clear_counts();
    heals(&world, &site);
    assert_eq!(steps(&world).0, 0);
}

#[test]
fn credentials_refused_in_the_middle_stop_the_run_and_lose_nothing() {
    let world = World::new();
    world.write("old", "1");
    let site = in_small_parts(&world);
    rescan(&world, &site);
    world.remove("old");
    world.write_random("f", 60 * MIB, 1);
    world.let_files_settle();
    world.proxy.add(Rule::new(answer(403, "ExpiredToken")).path_contains("partNumber=").skip(4));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, Some(StopReason::Credentials)));
    assert_eq!((report.deleted_count, world.store.uploads().len()), (0, 1));
    world.proxy.clear_counts();
    let report = heals(&world, &site);
    assert_eq!((steps(&world).0, report.deleted_count), (0, 1));
    assert!(parts_sent(&world).len() <= 4, "{:?}", parts_sent(&world));
}

fn opened(world: &World) -> fs::File {
    fs::File::options().write(true).open(world.path("f")).unwrap()
}

/// However a file changes while its parts are on their way, nothing of it is published.
#[test]
fn f1_source_that_changes_while_it_is_sent_is_aborted_and_published_by_the_next_run() {
    type Change = fn(&World);
    let changes: [(&str, Change); 5] = [
        ("shorter", |world| opened(world).set_len(20 << 20).unwrap()),
        ("longer", |world| opened(world).set_len(50 << 20).unwrap()),
        ("rewritten", |world| opened(world).write_all_at(b"changed", 33 << 20).unwrap()),
        ("replaced", |world| {
            fs::write(world.path("new"), vec![7; 40 << 20]).unwrap();
            fs::rename(world.path("new"), world.path("f")).unwrap();
        }),
        ("gone", |world| world.remove("f")),
    ];
    // In front of a part, and in front of nothing but Complete.
    for at in ["partNumber=3&", "partNumber=5&"] {
        for (how, change) in changes {
            let world = Arc::new(World::new());
            world.write_random("f", 40 * MIB, 1);
            world.write("other", "x");
            let (inner, done) = (Arc::downgrade(&world), AtomicU64::new(0));
            world.proxy.on_request(move |seen| {
                if seen.target.contains(at) && done.fetch_add(1, Ordering::SeqCst) == 0 {
                    change(&inner.upgrade().unwrap());
                }
            });
            let site = in_small_parts(&world);
            let report = rescan(&world, &site);
            assert_eq!(
                (report.outcome, world.keys()),
                (RescanOutcome::Partial, vec!["other".into()]),
                "{how}"
            );
            let kind = report.failed[0].kind();
            assert!(matches!(kind, ErrorKind::SourceChanged | ErrorKind::SourceVanished), "{how}: {kind:?}");
            assert_eq!(world.store.uploads(), [], "{how}: aborted");
            if let Ok(bytes) = fs::read(world.path("f")) {
                world.remember("f", &bytes);
            }
            let report = heals(&world, &site);
            assert_eq!(report.uploaded_count, u64::from(how != "gone"), "{how}");
        }
    }
}

#[test]
fn abort_that_is_forbidden_is_a_warning_and_stays_recorded() {
    let world = World::new();
    world.write_random("f", 40 * MIB, 1);
    world.write("g", "x");
    outage_after(&world, 3);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    world.write("f", "small now");
    world.proxy.clear_rules();
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("DELETE").path_contains("uploadId="));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.open_uploads), (RescanOutcome::Published, 1));
    let warnings = world.logged(log::Level::Warn);
    assert!(warnings.iter().any(|text| text.contains("may not be aborted")), "{warnings:?}");
    let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
    assert_eq!((listed.len(), listed[0].certain), (1, true));
    let aborted = site.cache().abort_uploads(&world.engine, &*world.backend()).unwrap();
    assert_eq!((aborted.aborted.len(), aborted.failed.len()), (0, 1));
    let report = heals(&world, &site);
    assert_eq!((report.open_uploads, world.store.uploads().len()), (0, 0));
    check_idle(&world, &site);
}

#[test]
fn i4_uploads_of_others_are_not_touched() {
    let world = World::new();
    world.strange_upload("f");
    world.strange_upload("elsewhere");
    world.write_random("f", 40 * MIB, 1);
    outage_after(&world, 3);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    let aborted = site.cache().abort_uploads(&world.engine, &*world.backend()).unwrap();
    assert_eq!((aborted.aborted.len(), aborted.left.len()), (1, 0));
    heals(&world, &site);
    world.remove("f");
    world.write("g", "x");
    heals(&world, &site);
    assert_eq!(world.store.uploads().len(), 2);
}

/// A new content was completed unheard, and the file rolled back: what the cache says is published is not.
#[test]
fn i2_doubt_outlives_a_lost_answer_to_complete() {
    let world = World::new();
    let first = world.write_random("f", 17 * MIB, 1);
    let site = in_small_parts(&world);
    rescan(&world, &site);
    let second = world.write_random("f", 17 * MIB, 2);
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST").path_contains("?uploadId="));
    world.proxy.add(Rule::new(Fault::ResetBefore).method("HEAD"));
    let report = site.rescan().unwrap();
    assert_eq!((report.uploaded_count, &world.objects()["f"]), (0, &second));
    world.write("f", &first);
    heals(&world, &site);
    assert_eq!(world.objects()["f"], first);
    check_idle(&world, &site);
}

#[test]
fn large_file_that_fails_stops_no_other_and_holds_deletes_back() {
    let world = World::new();
    world.write("old", "1");
    let site = in_small_parts(&world);
    rescan(&world, &site);
    world.remove("old");
    world.write_random("bad", 17 * MIB, 1);
    world.write_random("good", 17 * MIB, 2);
    world.write("small", "x");
    world.proxy.add(Rule::new(answer(400, "InvalidArgument")).path_contains("bad?partNumber=2&"));
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.failed_count, report.deleted_count), (2, 1, 0));
    assert_eq!((world.store.uploads().len(), report.failed[0].key()), (0, Some("bad")));
    assert_eq!(heals(&world, &site).deleted_count, 1);
}

/// URLs lead to the fallback meanwhile, with the digest of what is there.
#[test]
fn n14_large_files_are_hashed_during_an_outage_where_there_is_a_fallback() {
    let world = World::new();
    let bytes = world.write_random("f", 17 * MIB, 1);
    world.let_files_settle();
    let config = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let backend = || Arc::new(S3Backend::new(&world.engine, config.clone()).unwrap());
    let fallback = Arc::new(LocalBackend::new("http://local", "/srv"));
    let site = world.orchestrator_on(backend(), RescanConfig::new().fallback(fallback));
    world.proxy.refuse();
    let report = rescan(&world, &site);
    assert_eq!(report.outcome, RescanOutcome::LocalOnly);
    let place = site.cache().resolve("f").unwrap().unwrap();
    let expected = bucket_brigade::Digest::of_stream(&bytes[..], Some(8 << 20)).unwrap();
    assert_eq!((place.url.as_str(), place.digest), ("http://local/f", Some(expected)));
    world.proxy.accept_again();
    heals(&world, &site);
    assert_eq!(site.cache().resolve("f").unwrap().unwrap().url, backend().get_url("f"));
}

#[test]
fn fault_sweep_connections_reset_before_a_request() {
    sweep_all(&Fault::ResetBefore);
}

#[test]
fn fault_sweep_answers_dropped() {
    sweep_all(&Fault::DropAnswer);
}

#[test]
fn fault_sweep_connections_reset_after_a_request() {
    sweep_all(&Fault::ResetAfter);
}

#[test]
fn fault_sweep_answers_of_500() {
    sweep_all(&answer(500, "InternalError"));
}

#[test]
fn fault_sweep_connections_reset_in_a_body() {
    sweep_all(&Fault::ResetInBody(1000));
}

#[test]
fn fault_sweep_answers_of_503() {
    sweep_all(&answer(503, "SlowDown"));
}

/// Set it for the sweeps over TLS, too: they take as long again.
const LONG: &str = "BRIGADE_TEST_LONG";

/// The k-th request of a run with large files, small ones and a delete fails, once or from then on: the next
/// run without faults makes it right.
fn sweep_all(fault: &Fault) {
    let tls = if std::env::var_os(LONG).is_some() { &[false, true][..] } else { &[false] };
    for &tls in tls {
        let count = sweep(None, tls, "no fault");
        assert!(count >= 10, "a run of {count} requests is not what this is meant for");
        // What fails adds a few.
        for k in 0..count + 4 {
            for once in [true, false] {
                let rule = Rule::new(fault.clone()).skip(k);
                let rule = if once { rule.times(1) } else { rule };
                sweep(Some(rule), tls, &format!("{fault:?} at {k}, once: {once}, TLS: {tls}"));
            }
        }
    }
}

/// Gives the number of requests of the run that the fault befalls.
fn sweep(fault: Option<Rule>, tls: bool, what: &str) -> u64 {
    let world = if tls { World::over_tls(3) } else { World::with_workers(3) };
    let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let s3 = s3.retry(RetryPolicy::default().with_attempts(2));
    let site = |world: &World| {
        world.orchestrator_on(
            Arc::new(S3Backend::new(&world.engine, s3.clone()).unwrap()),
            RescanConfig::new(),
        )
    };
    world.write_random("large-modified", 9 * MIB, 1);
    world.write("gone", "x");
    heals(&world, &site(&world));
    world.write_random("large-modified", 9 * MIB, 2);
    world.write_random("large-added", 9 * MIB, 3);
    world.write("small", "y");
    world.remove("gone");
    world.lost_begins.store(true, Ordering::SeqCst);
    world.proxy.clear_counts();
    if let Some(rule) = fault {
        world.proxy.add(rule);
    }
    let first = site(&world);
    if let Ok(report) = first.rescan() {
        check(&world, &first, &report);
    }
    drop(first);
    let count = world.proxy.requests().len() as u64;
    world.proxy.clear_rules();
    let second = site(&world);
    let report = second.rescan().unwrap();
    check(&world, &second, &report);
    assert!(
        matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged),
        "{what}: {:?} {:?}",
        report.outcome,
        report.failed
    );
    assert_eq!(world.keys(), ["large-added", "large-modified", "small"], "{what}");
    count
}
