//! The first run of a cache on a prefix that holds objects already.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bucket_brigade::{
    CancelToken, ErrorKind, Event, FirstRun, MaxDelete, Progress, RescanConfig, RescanOrchestrator,
    RescanOutcome, RescanReport, RetryPolicy, Run, S3Backend, S3Config, StopReason, StorageBackend, Verify,
};
use sha2::{Digest, Sha256};

use crate::network::{answer, heals, rescan, site_with};
use crate::support::memory_store::ETags;
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Headers, Rule, latch};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

/// Files in some folders, no two of the same content.
fn tree(files: usize) -> World {
    let world = World::new();
    for n in 0..files {
        world.write(&format!("d{}/f{n:03}", n % 7), format!("content {n}"));
    }
    world.let_files_settle();
    world
}

/// Removes the cache and its catalog, as a new machine has none, and gives every file new times.
fn forget(world: &World) {
    fs::remove_dir_all(world.cache_path().parent().unwrap()).unwrap();
    touch_all(&world.root());
    world.let_files_settle();
    world.proxy.clear_counts();
    world.store.clear_logs();
}

fn touch_all(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            touch_all(&path);
        } else {
            fs::File::options()
                .append(true)
                .open(path)
                .unwrap()
                .set_modified(std::time::SystemTime::now())
                .unwrap();
        }
    }
}

/// The number of requests by method.
fn requests(world: &World, method: &str) -> usize {
    world.proxy.requests().iter().filter(|seen| seen.method == method).count()
}

/// What was adopted, uploaded, and asked for by HEAD.
fn counts(report: &RescanReport) -> (u64, u64, u64) {
    let asked = report.adoption.map_or(0, |found| found.head_requests);
    (report.adopted_count, report.uploaded_count, asked)
}

fn stored(world: &World, key: &str, bytes: impl AsRef<[u8]>, headers: &[(&str, &str)]) {
    let bytes = bytes.as_ref().to_vec();
    world.remember(key, &bytes);
    world.store.put_raw_with(&format!("{PREFIX}{key}"), bytes, headers);
}

/// 10,000 published files were sent again by a machine without their cache.
#[test]
fn published_tree_is_taken_over_without_its_cache() {
    let world = tree(40);
    let site = world.orchestrator();
    rescan(&world, &site);
    drop(site);
    forget(&world);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, counts(&report)), (RescanOutcome::Unchanged, (40, 0, 0)));
    assert_eq!(
        (report.adopted.len(), report.adopted_bytes),
        (40, world.objects().values().map(|b| b.len() as u64).sum())
    );
    assert_eq!(
        (requests(&world, "GET"), world.proxy.requests().len()),
        (2, 2),
        "the preflight and a listing"
    );
    check_idle(&world, &site);
    // What was taken over is ours from then on.
    world.remove("d0/f000");
    world.write("d1/f001", "other");
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.deleted), (1, vec!["d0/f000".to_owned()]));
}

/// Pages in no order, of a few keys each, with others' objects in between.
#[test]
fn listings_may_be_in_any_order() {
    let world = tree(40);
    rescan(&world, &world.orchestrator());
    for n in 0..30 {
        world.stranger(&format!("d3/theirs{n}"), "x");
    }
    forget(&world);
    world.store.lists_out_of_order(true);
    world.store.page_limit(7);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.unknown_objects.unwrap().count), ((40, 0, 0), 30));
    assert_eq!(report.adoption.map(|found| (found.listed, found.without_file)), Some((70, 30)));
    check_idle(&world, &site);
}

/// The same size is not the same content; what others stored whole is taken over, in one part or in many.
#[test]
fn objects_of_others_are_taken_over_if_they_hold_the_file() {
    let world = World::new();
    stored(&world, "same", "0123456789", &[("cache-control", "max-age=1")]);
    stored(&world, "different", "0123456789", &[]);
    stored(&world, "longer", "0123456789+", &[]);
    stored(&world, "empty", "", &[]);
    for (key, text) in
        [("same", "0123456789"), ("different", "9876543210"), ("longer", "0123456789"), ("empty", "")]
    {
        world.write(key, text);
    }
    for (n, part) in [5, 8, 15, 16, 25, 32, 50, 64, 100].into_iter().enumerate() {
        let bytes = world.write_random(&format!("parts of {part}"), 5 * MIB * (n + 1) + 1, n as u64);
        world.store.put_raw_in_parts(&format!("{PREFIX}parts of {part}"), bytes, part * MIB, &[]);
    }
    // The same number of parts, and other bytes.
    let bytes = world.write_random("other parts", 20 * MIB, 90);
    world.remember("other parts", &[bytes.as_slice(), b"x"].concat()[1..]);
    world.store.put_raw_in_parts(
        &format!("{PREFIX}other parts"),
        bytes[1..].iter().copied().chain(*b"x").collect::<Vec<_>>(),
        8 * MIB,
        &[],
    );
    world.let_files_settle();
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!(counts(&report), (11, 3, 2), "{:?}", report.uploaded);
    let mut sent: Vec<_> = report.uploaded.iter().map(|file| file.key.as_str()).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["different", "longer", "other parts"]);
    // What is adopted keeps the headers that it has.
    assert_eq!(
        world.store.get(&format!("{PREFIX}same")).unwrap().cache_control.as_deref(),
        Some("max-age=1")
    );
    check_idle(&world, &site);
    fs::write(world.path("parts of 50"), b"short").unwrap();
    world.remember("parts of 50", b"short");
    assert_eq!(rescan(&world, &site).uploaded_count, 1);
}

/// Where a listing does not tell the content, a HEAD does: by our proof, by the store's own checksum; else it is sent.
#[test]
fn objects_whose_listing_tells_nothing_are_asked_for() {
    for habit in ["encrypted", "made up", "no ETags listed"] {
        let world = tree(25);
        world.store.etags(match habit {
            "encrypted" => ETags::Encrypted,
            "made up" => ETags::MadeUp,
            _ => ETags::Md5,
        });
        world.store.lists_no_etags(habit == "no ETags listed");
        rescan(&world, &world.orchestrator());
        let sum = |text: &str| {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(Sha256::digest(text))
        };
        for (key, holds) in [("checked", "abc"), ("wrongly", "abd")] {
            world.write(key, "abc");
            stored(&world, key, holds, &[("x-amz-checksum-sha256", &sum(holds))]);
        }
        world.write("bare", "abc");
        stored(&world, "bare", "abc", &[]);
        // A file that we stored, and that changed since.
        world.write("d0/f000", "Content 0");
        forget(&world);
        let site = world.orchestrator();
        let report = rescan(&world, &site);
        // Where a HEAD shows an MD5, what is bare is proven by that.
        let adopted = if habit == "no ETags listed" { 26 } else { 25 };
        assert_eq!(counts(&report), (adopted, 28 - adopted, 28), "{habit}: {:?}", report.uploaded);
        let (heads, puts) = (requests(&world, "HEAD"), requests(&world, "PUT"));
        assert_eq!((heads, puts as u64), (28, 28 - adopted), "{habit}");
        check_idle(&world, &site);
    }
}

/// A file is read once, whatever its comparison needs: a listed `ETag` that is no MD5 made it two.
#[test]
fn files_are_read_once_to_be_compared() {
    for etags in [ETags::Md5, ETags::Encrypted, ETags::MadeUp] {
        let world = tree(20);
        world.store.etags(etags);
        rescan(&world, &world.orchestrator());
        world.write("d0/f000", "Content 0");
        forget(&world);
        let site = world.orchestrator();
        let report = rescan(&world, &site);
        let all: u64 = world.objects().values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!((report.adopted_count, report.uploaded_count), (19, 1));
        assert_eq!(report.metrics.bytes_hashed, all, "{etags:?}");
    }
}

/// Credentials that may write and list, and not read.
#[test]
fn objects_that_may_not_be_looked_at_are_sent() {
    let world = tree(5);
    world.store.etags(ETags::Encrypted);
    rescan(&world, &world.orchestrator());
    forget(&world);
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("HEAD"));
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!(
        (report.outcome, report.adopted_count, report.uploaded_count),
        (RescanOutcome::Published, 0, 5)
    );
    heals(&world, &site);
}

/// With SSE-KMS, to ask for a checksum needs the permission to decrypt: the proof alone does not.
#[test]
fn proof_is_read_without_the_permission_to_decrypt() {
    let world = tree(12);
    world.store.etags(ETags::Encrypted);
    rescan(&world, &world.orchestrator());
    forget(&world);
    let with_checksum = |headers: &Headers| headers.iter().any(|(name, _)| name == "x-amz-checksum-mode");
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("HEAD").when(with_checksum));
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.adopted_count, report.uploaded_count), (12, 0));
    assert!(requests(&world, "HEAD") < 24, "they are not asked with it for long");
}

/// A HEAD that always failed spent all its retries for each object, hours for 10,000 of them.
#[test]
fn heads_that_fail_are_given_up_and_files_are_sent() {
    for (status, code) in [(500, "InternalError"), (503, "SlowDown")] {
        let world = tree(40);
        world.store.etags(ETags::Encrypted);
        rescan(&world, &world.orchestrator());
        forget(&world);
        world.proxy.add(Rule::new(answer(status, code)).method("HEAD"));
        let config = world.s3_config().retry(RetryPolicy::default().with_attempts(2));
        let site = site_with(&world, config);
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 40), "{code}");
        assert!(counts(&report).2 <= 25, "three in a row, and those in flight: {:?}", report.adoption);
    }
}

/// What the store says of the content comes before the metadata, which tools that edit an object may keep.
#[test]
fn proof_does_not_count_against_the_store_s_own_evidence() {
    let world = World::new();
    let (ours, other) = (world.write_random("md5", 4096, 1), crate::support::random_bytes(4096, 2));
    world.write("sha", &ours);
    rescan(&world, &world.orchestrator());
    let proof = |key: &str| world.store.get(&format!("{PREFIX}{key}")).unwrap().metadata["brigade"].clone();
    let kept = [proof("md5"), proof("sha")];
    forget(&world);
    stored(&world, "md5", &other, &[("x-amz-meta-brigade", &kept[0])]);
    world.store.etags(ETags::Encrypted);
    let sum = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, Sha256::digest(&other));
    stored(&world, "sha", &other, &[("x-amz-meta-brigade", &kept[1]), ("x-amz-checksum-sha256", &sum)]);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.adopted_count, report.uploaded_count), (0, 2));
    assert!(world.objects().values().all(|bytes| *bytes == ours));
}

/// A run that was cancelled during its first request took the prefix for listed.
#[test]
fn first_run_that_was_cancelled_before_its_listing_is_still_to_come() {
    let world = tree(3);
    world.stranger("theirs", "x");
    world.proxy.add(Rule::new(answer(503, "SlowDown")).method("GET"));
    let cancel = CancelToken::new();
    let token = cancel.clone();
    world.proxy.on_request(move |_| token.cancel());
    let site = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Refuse));
    let report = site.rescan_with(&Run::new().cancel(cancel)).unwrap();
    assert_eq!(report.stop_reason, Some(StopReason::Cancelled));
    assert!(site.cache().is_first_run().unwrap());
    world.proxy.on_request(|_| ());
    world.proxy.clear_rules();
    assert_eq!(site.rescan().unwrap_err().kind(), ErrorKind::FirstRunRefused);
}

/// A listing that repeats its token is no reason to publish nothing.
#[test]
fn broken_listing_takes_over_nothing_and_files_are_sent() {
    let world = tree(5);
    let page = format!(
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>again</NextContinuationToken>\
         <Contents><Key>{PREFIX}x</Key><Size>1</Size></Contents></ListBucketResult>"
    );
    let broken = Fault::Answer(200, Vec::new(), page.into_bytes());
    world.proxy.add(Rule::new(broken).method("GET").path_contains("max-keys=1000"));
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 5));
    assert!(
        world.logged(log::Level::Warn).iter().any(|text| text.starts_with("the prefix cannot be listed"))
    );
    check_idle(&world, &site);
}

/// A prefix that may not be listed is published to as ever; but nothing of it may be deleted or refused unseen.
#[test]
fn prefix_that_may_not_be_listed_is_overwritten() {
    let world = tree(5);
    rescan(&world, &world.orchestrator());
    forget(&world);
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("GET"));
    let mirror = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Mirror));
    assert!(mirror.rescan().is_err());
    drop(mirror);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.adoption, counts(&report)), (None, (0, 5, 0)));
}

/// Large files of our own, under another part size than the one of now, and under a store's own kind of `ETag`.
#[test]
fn own_large_files_are_taken_over_under_any_part_size() {
    let parts_of = |config: S3Config, mib: u64| config.part_threshold(8 << 20).part_size(mib << 20);
    for (etags, with_checksum, adopted) in [
        (ETags::Md5, false, 2),
        (ETags::Encrypted, true, 2),
        // Nothing shows what it holds: it was not hashed before its upload was created.
        (ETags::Encrypted, false, 0),
    ] {
        for now in [9, 11] {
            let world = World::new();
            world.store.etags(etags);
            world.write_random("large", 20 * MIB, 1);
            world.write_random("larger", 27 * MIB + 1, 2);
            let config = || world.s3_config().checksum_header(with_checksum);
            rescan(&world, &site_with(&world, parts_of(config(), 9)));
            forget(&world);
            let site = site_with(&world, parts_of(config(), now));
            let report = rescan(&world, &site);
            assert_eq!(report.adopted_count, adopted, "{etags:?}, {with_checksum}, {now} MiB");
            assert_eq!(report.uploaded_count, 2 - adopted);
            check_idle(&world, &site);
            world.write_random("large", 20 * MIB, 3);
            assert_eq!(rescan(&world, &site).uploaded_count, 1);
        }
    }
}

/// A stat that is too young proves nothing: the file is taken over, and hashed again by the next run.
#[test]
fn racy_files_are_taken_over_and_never_believed_by_their_stat() {
    let world = tree(3);
    rescan(&world, &world.orchestrator());
    forget(&world);
    world.write("d0/f000", "content 0");
    let time = fs::metadata(world.path("d0/f000")).unwrap().modified().unwrap();
    world.clock.step_wall(-10);
    let site = world.orchestrator();
    assert_eq!(counts(&rescan(&world, &site)), (3, 0, 0));
    // Written again within the same tick, as far as its stat tells.
    world.write("d0/f000", "CONTENT 0");
    fs::File::options().append(true).open(world.path("d0/f000")).unwrap().set_modified(time).unwrap();
    let report = rescan(&world, &site);
    assert_eq!(report.uploaded_count, 1);
    heals(&world, &site);
}

/// Files that change while they are compared: before they are opened, and after they were read.
#[test]
fn files_that_change_meanwhile_are_sent_by_the_next_run() {
    let world = tree(8);
    world.store.etags(ETags::Encrypted);
    rescan(&world, &world.orchestrator());
    forget(&world);
    let (path, seen) = (world.path("d0/f000"), AtomicUsize::new(0));
    world.remember("d0/f000", b"changed!!");
    let late = world.path("d6/f006");
    world.remember("d6/f006", b"changed!!");
    world.proxy.on_request(move |request| {
        // The listing: nothing is opened yet.
        if request.method == "GET" && seen.fetch_add(1, Ordering::SeqCst) == 1 {
            fs::write(&path, "changed!!").unwrap();
        }
        if request.method == "HEAD" && request.target.contains("d6/f006") {
            fs::write(&late, "changed!!").unwrap();
        }
    });
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    assert_eq!(report.outcome, RescanOutcome::Partial, "{report:?}");
    world.proxy.on_request(|_| ());
    heals(&world, &site);
    assert_eq!(
        (world.objects()["d0/f000"].as_slice(), world.objects()["d6/f006"].as_slice()),
        (&b"changed!!"[..], &b"changed!!"[..])
    );
}

/// Mirror: what the tree does not have is deleted, by the rules of all deletes.
#[test]
fn mirror_deletes_what_the_tree_lacks_under_the_same_valve() {
    let world = tree(20);
    rescan(&world, &world.orchestrator());
    for n in 0..15 {
        world.store.put_raw(&format!("{PREFIX}old/{n}"), "old");
    }
    world.store.put_raw(&format!("{PREFIX}folder/"), "");
    world.store.put_raw(&format!("{PREFIX}private/kept"), "theirs");
    world.store.put_raw("elsewhere/x", "theirs");
    for (key, bytes) in [("folder/", ""), ("private/kept", "theirs")] {
        world.strangers.lock().unwrap().insert(key.to_owned(), bytes.into());
    }
    forget(&world);
    let mirror = |config: RescanConfig| {
        world.orchestrator_with(config.first_run(FirstRun::Mirror).exclude("/private"))
    };
    let site = mirror(RescanConfig::new().max_delete(MaxDelete::Count(14)));
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!(
        (planned.adopted_count, planned.deleted_count, planned.stop_reason),
        (20, 15, Some(StopReason::DeletesRefused))
    );
    let report = site.rescan().unwrap();
    assert_eq!((report.stop_reason, report.deleted_count), (Some(StopReason::DeletesRefused), 0));
    assert_eq!(report.adopted_count, 20);
    drop(site);
    let site = mirror(RescanConfig::new().max_delete(MaxDelete::Count(15)));
    let report = rescan(&world, &site);
    assert_eq!((report.deleted_count, report.uploaded_count, report.kept_count), (15, 0, 1));
    assert_eq!(world.keys().len(), 22);
    assert!(world.store.get("elsewhere/x").is_some());
    world.let_files_settle();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.kept_count), (RescanOutcome::Unchanged, 1));
    // What was taken over unread has no content to compare.
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    assert!(report.verified.as_ref().unwrap().is_good() && report.pending == 0, "{report:?}");
}

/// Events and progress say what the report says: also of deletes that only the second plan knows, and of a forced run.
#[test]
fn mirror_is_told_as_it_is_done() {
    for force in [false, true] {
        let world = tree(20);
        rescan(&world, &world.orchestrator());
        for n in 0..5 {
            world.store.put_raw(&format!("{PREFIX}old/{n}"), "old");
        }
        forget(&world);
        let progress = Progress::new();
        let site = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Mirror));
        let planned = site.rescan_with(&Run::new().dry_run(true).force(force)).unwrap();
        world.events.lock().unwrap().clear();
        let report = site.rescan_with(&Run::new().force(force).progress(progress.clone())).unwrap();
        let (adopted, uploaded) = if force { (0, 20) } else { (20, 0) };
        assert_eq!(
            (report.adopted_count, report.uploaded_count, report.deleted_count),
            (adopted, uploaded, 5)
        );
        assert_eq!(
            (planned.adopted_count, planned.uploaded_count, planned.deleted_count),
            (adopted, uploaded, 5)
        );
        let events = world.events.lock().unwrap();
        let told = events.iter().filter(|event| matches!(event, Event::Adopted { .. })).count();
        let to_delete = events.iter().rev().find_map(|event| match event {
            Event::Planned { to_delete, .. } => Some(*to_delete),
            _ => None,
        });
        let seen = progress.snapshot();
        assert_eq!((told as u64, to_delete, seen.files_done, seen.files_total), (adopted, Some(5), 20, 20));
        assert_eq!((seen.deletes_done, seen.deletes_total), (5, 5));
    }
}

/// With deletes off, a mirror takes over and deletes nothing; its plan said otherwise.
#[test]
fn mirror_without_deletes_is_planned_so() {
    let world = tree(20);
    for n in 0..15 {
        world.stranger(&format!("old/{n}"), "old");
    }
    let config =
        RescanConfig::new().first_run(FirstRun::Mirror).delete(false).max_delete(MaxDelete::Count(3));
    let site = world.orchestrator_with(config);
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!((planned.deleted_count, planned.kept_count, planned.stop_reason), (0, 15, None));
    let report = site.rescan().unwrap();
    assert_eq!((report.deleted_count, report.kept_count, report.stop_reason), (0, 15, None));
}

/// Without a cap, a tree that has nothing in common with the bucket deletes nothing, and an empty one needs a word.
#[test]
fn mirror_of_a_wrong_or_empty_tree_deletes_nothing() {
    let fill = |world: &World| {
        for n in 0..30 {
            world.stranger(&format!("site/{n}"), "theirs");
        }
    };
    let world = tree(30);
    fill(&world);
    let site = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Mirror));
    let report = site.rescan().unwrap();
    assert_eq!((report.stop_reason, world.keys().len()), (Some(StopReason::DeletesRefused), 60));

    let world = World::new();
    fill(&world);
    let config = || RescanConfig::new().first_run(FirstRun::Mirror);
    let site = world.orchestrator_with(config());
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Unchanged);
    assert_eq!(world.keys().len(), 30);
    drop(site);
    world.strangers.lock().unwrap().clear();
    let site = world.orchestrator_with(config().allow_empty(true));
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!((planned.deleted_count, planned.stop_reason), (30, None));
    assert_eq!(rescan(&world, &site).deleted_count, 30);
    assert_eq!(world.keys(), [""; 0]);
}

/// A tree of the same names with all contents changed has its objects in common.
#[test]
fn mirror_counts_changed_files_as_common() {
    let world = tree(30);
    for n in 0..30 {
        world.store.put_raw(&format!("{PREFIX}d{}/f{n:03}", n % 7), format!("before {n:2}"));
    }
    for n in 0..12 {
        world.store.put_raw(&format!("{PREFIX}old/{n}"), "old");
    }
    let site = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Mirror));
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!((planned.uploaded_count, planned.deleted_count, planned.stop_reason), (30, 12, None));
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.deleted_count), (30, 12));
    check_idle(&world, &site);
}

/// A forced run sends everything; a dry run shows what would be taken over, and records nothing.
#[test]
fn dry_run_shows_what_would_be_adopted() {
    let world = tree(20);
    let site = world.orchestrator();
    rescan(&world, &site);
    drop(site);
    world.write("d0/f000", "another length");
    world.write("new", "x");
    forget(&world);
    let site = world.orchestrator();
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    let mut sent: Vec<_> = planned.uploaded.iter().map(|file| file.key.as_str()).collect();
    sent.sort_unstable();
    assert_eq!((counts(&planned), sent), ((19, 2, 0), vec!["d0/f000", "new"]));
    assert_eq!((planned.outcome, site.cache().published_count().unwrap()), (RescanOutcome::Published, 0));
    let forced = site.rescan_with(&Run::new().force(true).dry_run(true)).unwrap();
    assert_eq!(counts(&forced), (0, 21, 0));
    assert_eq!(counts(&rescan(&world, &site)), (19, 2, 0));
    drop(site);
    forget(&world);
    let site = world.orchestrator();
    let report = site.rescan_with(&Run::new().force(true)).unwrap();
    check(&world, &site, &report);
    assert_eq!(counts(&report), (0, 21, 0));
}

/// The store goes away while it lists: nothing is taken over before all of the prefix is known.
#[test]
fn outage_in_the_middle_of_the_listing_leaves_all_to_the_next_run() {
    let world = tree(60);
    world.store.etags(ETags::Encrypted);
    rescan(&world, &world.orchestrator());
    forget(&world);
    world.store.page_limit(20);
    world.proxy.add(Rule::new(answer(503, "SlowDown")).method("GET").skip(2));
    let config = world.s3_config().retry(RetryPolicy::default().with_attempts(2));
    let site = site_with(&world, config);
    let report = rescan(&world, &site);
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable));
    assert_eq!((report.adopted_count, report.uploaded_count), (0, 0));
    world.proxy.clear_rules();
    let again = rescan(&world, &site);
    assert_eq!((again.adopted_count, again.uploaded_count), (60, 0));
    check_idle(&world, &site);
}

/// The store goes away while objects are compared: the next run goes on.
#[test]
fn outage_in_the_middle_of_comparing_leaves_the_rest_to_the_next_run() {
    let world = tree(60);
    world.store.etags(ETags::Encrypted);
    rescan(&world, &world.orchestrator());
    forget(&world);
    world.store.page_limit(10);
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).method("HEAD").skip(20));
    let config = world.s3_config().retry(RetryPolicy::default().with_attempts(2));
    let site = site_with(&world, config);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| site.rescan().unwrap());
        assert!(held.wait_for_arrivals(10));
        world.proxy.refuse();
        held.release();
        run.join().unwrap()
    });
    check(&world, &site, &report);
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable));
    assert_eq!((report.adopted_count, report.uploaded_count), (20, 0), "{report:?}");
    world.proxy.clear_rules();
    world.proxy.accept_again();
    let again = rescan(&world, &site);
    assert_eq!((again.adopted_count, again.uploaded_count), (40, 0));
    check_idle(&world, &site);
}

/// Every object tells its origin, and the user's own metadata stays possible.
#[test]
fn every_object_carries_the_proof_of_origin() {
    let world = World::new();
    world.write("small", "x");
    world.write_random("large", 17 * MIB, 1);
    let site = site_with(
        &world,
        world.s3_config().header("x-amz-meta-build", "7").header("x-amz-meta-brigade-id", "8"),
    );
    rescan(&world, &site);
    let of = |key: &str| world.store.get(&format!("{PREFIX}{key}")).unwrap().metadata;
    let (small, large) = (of("small"), of("large"));
    assert!((small["build"].as_str(), large["brigade-id"].as_str()) == ("7", "8"));
    let sum = hex::encode(Sha256::digest("x"));
    assert!(small["brigade"].starts_with(&format!("sha256={sum};size=1;run=")), "{small:?}");
    assert!(
        large["brigade"].starts_with(&format!("size={};part-size={};run=", 17 * MIB, 16 * MIB)),
        "{large:?}"
    );
    let run = |metadata: &std::collections::BTreeMap<String, String>| {
        let field = metadata["brigade"].split(';').find_map(|field| field.strip_prefix("run="));
        field.unwrap().to_owned()
    };
    assert_eq!((run(&small).len(), run(&small)), (32, run(&large)));
    world.write("small", "y");
    rescan(&world, &site);
    assert_ne!(run(&of("small")), run(&large), "each run has its own");
    let refused = S3Backend::new(&world.engine, world.s3_config().header("X-Amz-Meta-Brigade", "x"));
    assert!(refused.unwrap_err().to_string().contains("it is set by this library"));
    // Used alone, the backend does the same.
    let backend = Arc::new(S3Backend::new(&world.engine, world.s3_config()).unwrap());
    backend.upload_file(&world.path("small"), "alone").unwrap();
    assert!(of("alone")["brigade"].contains("size=1;run="));
}

/// A random tree on a random bucket: only what is proven is believed, and the bucket is the tree in the end.
#[test]
fn adoption_never_believes_another_content() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::with_workers(3);
        let one_of = |random: &mut fastrand::Rng| ["", "a", "b", "ab", "ba", "abc", "cba"][random.usize(..7)];
        let kinds = [ETags::Md5, ETags::Encrypted, ETags::MadeUp];
        let mut provable = 0;
        for n in 0..30 {
            let (key, holds, file) = (format!("d{}/{n}", n % 3), one_of(&mut random), one_of(&mut random));
            let etags = kinds[random.usize(..3)];
            world.store.etags(etags);
            let (has_object, has_file, ours) = (random.u8(..4) > 0, random.u8(..4) > 0, random.bool());
            if has_object && ours {
                let scratch = world.root().with_extension("scratch");
                fs::write(&scratch, holds).unwrap();
                world.backend().upload_file(&scratch, &key).unwrap();
            } else if has_object {
                world.store.put_raw(&format!("{PREFIX}{key}"), holds);
            }
            if has_object {
                world.strangers.lock().unwrap().insert(key.clone(), holds.into());
            }
            if has_file {
                world.write(&key, file);
            }
            provable += u64::from(has_object && has_file && holds == file && (ours || etags == ETags::Md5));
        }
        world.store.lists_out_of_order(random.bool());
        world.store.page_limit(random.usize(1..40));
        let hidden = random.u8(..4) == 0;
        world.store.lists_no_etags(hidden);
        world.let_files_settle();
        let site = world.orchestrator();
        let report = rescan(&world, &site);
        assert!(
            report.adopted_count == provable || (hidden && report.adopted_count < provable),
            "seed {seed}"
        );
        check_idle(&world, &site);
    }
}

/// What stays the same whoever runs it: an orchestrator of the defaults adopts.
#[test]
fn overwrite_sends_everything_as_it_did() {
    let world = tree(10);
    rescan(&world, &world.orchestrator());
    forget(&world);
    let site: RescanOrchestrator =
        world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Overwrite));
    let report = rescan(&world, &site);
    assert_eq!((counts(&report), report.unknown_objects.unwrap().count), ((0, 10, 0), 10));
}
