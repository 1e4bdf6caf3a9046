//! What was proved wrong in the core, each as a test that tells the story.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bucket_brigade::{
    CacheManager, ErrorKind, KeptReason, KeyState, MaxDelete, PendingKind, RescanConfig, RescanOrchestrator,
    RescanOutcome, RescanReport, RetryPolicy, Run, S3Backend, StopReason, Verify,
};

use crate::large::in_small_parts;
use crate::network::{acquainted, answer, heals, rescan, site_with};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule, latch};
use crate::support::server::{S3Server, fs as store_on_a_folder};
use crate::support::{PREFIX, SetAtEnd, World, files_below, s3_config_at};

const MIB: usize = 1024 * 1024;

fn of_key(method: &str, key: &str, fault: Fault) -> Rule {
    Rule::new(fault).method(method).path_contains(key)
}

fn outcome_and_pending(report: &RescanReport) -> (RescanOutcome, u64) {
    (report.outcome, report.pending)
}

fn verified(site: &RescanOrchestrator) -> RescanReport {
    site.rescan_with(&Run::new().verify(Verify::List)).unwrap()
}

/// A file was renamed away while the answer to its upload was under way. The store had acknowledged it; the look
/// at the file afterwards failed, the key was never recorded, and its object stayed public for ever.
#[test]
fn i2_file_renamed_away_before_its_answer_is_recorded_and_then_deleted() {
    let world = World::new();
    world.write("keep", "1");
    world.write("leaving", "2");
    let held = latch();
    world.proxy.add(of_key("PUT", "/leaving", Fault::Hold(held.clone())));
    let (path, away) = (world.path("leaving"), world.root().with_extension("away"));
    let rename = std::thread::spawn(move || {
        assert!(held.wait_for_arrivals(1));
        fs::rename(path, away).unwrap();
        held.release();
    });
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    rename.join().unwrap();
    assert_eq!((report.uploaded_count, report.failed_count), (2, 0), "{:?}", report.failed);
    assert_eq!(site.cache().published_count().unwrap(), 2);
    world.proxy.clear_rules();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted), (RescanOutcome::Published, vec!["leaving".to_owned()]));
    assert_eq!(world.keys(), ["keep"]);
}

/// An added file whose answer was lost was gone by the next run: it was forgotten, its object stayed public, and the
/// run said "unchanged".
#[test]
fn i2_added_file_that_may_be_stored_and_is_gone_is_said_until_the_store_settles_it() {
    let world = World::new();
    let once = world.s3_config().retry(RetryPolicy::default().with_attempts(1));
    let site = site_with(&world, once);
    acquainted(&world, &site);
    world.write("leaving", "2");
    world.proxy.add(of_key("PUT", "/leaving", Fault::DropAnswer));
    rescan(&world, &site);
    world.proxy.clear_rules();
    world.remove("leaving");
    world.proxy.add(of_key("HEAD", "/leaving", answer(403, "AccessDenied")));
    for _ in 0..2 {
        let report = rescan(&world, &site);
        assert_eq!(outcome_and_pending(&report), (RescanOutcome::Partial, 1));
        let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
        assert_eq!(kept, [("leaving", KeptReason::Unsettled)]);
        assert_eq!(report.deleted_count, 0, "nothing may show whose it is");
        let plan = site.rescan_with(&Run::new().dry_run(true)).unwrap();
        assert_eq!((plan.outcome, plan.kept_count), (RescanOutcome::Partial, 1), "a plan foretells it");
    }
    assert_eq!(site.cache().pending().unwrap()[0].kind, PendingKind::Unsettled);
    // The list has it: it stays unsettled. Once it is away, the list says so, too.
    assert_eq!(verified(&site).pending, 1);
    assert!(world.store.remove_raw(&format!("{PREFIX}leaving")));
    verified(&site);
    heals(&world, &site);
    // A file that comes back is sent, whatever is there.
    world.write("leaving", "3");
    assert_eq!(rescan(&world, &site).uploaded_count, 1);
}

/// The same where the run was killed between the store's effect and its record.
#[test]
fn i2_added_file_of_a_killed_run_that_is_gone_is_deleted() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write("leaving", "2");
    let saved = world.root().with_extension("cache");
    let (cache, copy) = (world.cache_path(), saved.clone());
    // What the disk held when the request was on its way is what a kill leaves.
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            fs::copy(&cache, &copy).unwrap();
        }
    });
    rescan(&world, &site);
    world.proxy.on_request(|_| ());
    drop(site);
    fs::copy(&saved, world.cache_path()).unwrap();
    world.remove("leaving");
    let report = rescan(&world, &site_with(&world, world.s3_config()));
    // The run that sent it is recorded, and the object carries its proof.
    assert_eq!((report.outcome, report.deleted), (RescanOutcome::Published, vec!["leaving".to_owned()]));
    assert_eq!(world.keys(), ["known"]);
}

/// What a run had still to send when it was stopped is not taken for attempted: it was not.
#[test]
fn i2_what_was_never_sent_is_forgotten_when_its_file_is_gone() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(1)));
    acquainted(&world, &site);
    for n in 0..300 {
        world.write(&format!("f{n:03}"), "x");
    }
    world.proxy.add(Rule::new(Fault::ResetBefore).method("PUT").skip(20));
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.stop_reason), (20, Some(StopReason::Unavailable)));
    let sent: Vec<_> = world.proxy.requests().into_iter().filter(|seen| seen.method == "PUT").collect();
    world.proxy.clear_rules();
    for n in 20..300 {
        world.remove(&format!("f{n:03}"));
    }
    let report = verified(&site);
    assert!(report.kept_count <= sent.len() as u64 - 20, "{} kept of {} sent", report.kept_count, sent.len());
    assert_eq!((report.pending, world.keys().len()), (0, 21));
}

/// A delete had no answer. The next run kept its key (deletes switched off, a new pattern, another root), and the record
/// that it was ever published was dropped: it stayed public for ever.
#[test]
fn i2_delete_without_an_answer_is_not_forgotten_by_a_run_that_keeps() {
    for lost in [Fault::DropAnswer, Fault::ResetBefore] {
        for keeps in [RescanConfig::new().delete(false), RescanConfig::new().exclude("gone*")] {
            let world = World::new();
            let once = world.s3_config().retry(RetryPolicy::default().with_attempts(1));
            let backend = Arc::new(S3Backend::new(&world.engine, once).unwrap());
            let site = || world.orchestrator_on(backend.clone(), RescanConfig::new());
            for key in ["gone1", "gone2", "keep"] {
                world.write(key, "1");
            }
            rescan(&world, &site());
            world.remove("gone1");
            world.remove("gone2");
            world.proxy.add(Rule::new(lost.clone()).method("POST"));
            rescan(&world, &site());
            world.proxy.clear_rules();
            let report = rescan(&world, &world.orchestrator_on(backend.clone(), keeps));
            assert_eq!((report.kept_count, report.outcome), (2, RescanOutcome::Partial));
            let site = site();
            assert_eq!(site.cache().published_count().unwrap(), 3, "the record is kept");
            let report = rescan(&world, &site);
            assert_eq!((report.deleted_count, world.keys()), (2, vec!["keep".to_owned()]));
            heals(&world, &site);
        }
    }
}

/// `resolve` and the catalog gave size and digest of the old version while the URL served the new one already.
#[test]
fn digest_and_size_are_unknown_while_a_key_may_hold_either_version() {
    let world = World::new();
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(1)));
    world.write("a", "old");
    world.write("gone", "old");
    world.write("keep", "old");
    rescan(&world, &site);
    world.write("a", "newer");
    world.remove("gone");
    world.proxy.add(of_key("PUT", "/a", Fault::DropAnswer));
    rescan(&world, &site);
    assert_eq!(world.objects()["a"], b"newer");
    let resolved = site.cache().resolve("a").unwrap().unwrap();
    assert_eq!((resolved.size, resolved.digest, resolved.modified), (None, None, None));
    assert_eq!((resolved.whole_digest, resolved.state), (None, KeyState::Stale));
    // Nothing was sent for this one: deletes wait.
    assert!(site.cache().resolve("gone").unwrap().unwrap().digest.is_some());
    world.proxy.clear_rules();
    world.proxy.add(Rule::new(Fault::DropAnswer).method("DELETE"));
    rescan(&world, &site);
    let resolved = site.cache().resolve("gone").unwrap().unwrap();
    assert_eq!((resolved.size, resolved.digest), (None, None));
    assert!(site.cache().resolve("a").unwrap().unwrap().digest.is_some());
}

/// A firewall refused `.htaccess`, which comes first: every run ended there, and nothing was ever published.
#[test]
fn one_key_that_is_denied_concerns_that_key() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    world.write(".htaccess", "deny");
    world.proxy.add(of_key("PUT", "/.htaccess", Fault::Answer(403, Vec::new(), b"<html>no</html>".to_vec())));
    for uploaded in [30, 0] {
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
        assert_eq!((report.uploaded_count, report.failed_count), (uploaded, 1));
        assert_eq!(
            (report.failed[0].kind(), report.failed[0].key()),
            (ErrorKind::AccessDenied, Some(".htaccess"))
        );
    }
    world.proxy.clear_rules();
    heals(&world, &site);
}

/// A policy by prefix: the first folder in order is denied, and these credentials may not list either.
#[test]
fn folder_that_is_denied_does_not_keep_the_others() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    for n in 0..40 {
        world.write(&format!("a/f{n:02}"), "x");
        world.write(&format!("b/f{n:02}"), "x");
    }
    world.proxy.add(Rule::new(answer(403, "AccessDenied")).method("GET"));
    world.proxy.add(of_key("PUT", "/a/", answer(403, "AccessDenied")));
    let report = rescan(&world, &site);
    assert_eq!((report.uploaded_count, report.failed_count), (40, 40));
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
}

/// A proxy rewrote `+` in paths: the signature of that one key was wrong, and the whole run stopped for its credentials.
#[test]
fn wrong_signature_of_one_key_is_no_trouble_with_the_credentials() {
    let world = World::with_workers(2);
    let site = site_with(&world, world.s3_config());
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
        world.write(&format!("a+{n:02}"), "x");
    }
    world.proxy.add(of_key("PUT", "a%2B", answer(403, "SignatureDoesNotMatch")));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
    assert_eq!((report.uploaded_count, report.failed_count), (30, 30));
    assert!(report.failed.iter().all(|error| error.key().is_some_and(|key| key.starts_with("a+"))));
    world.proxy.clear_rules();
    heals(&world, &site);
    // That the store cannot be asked again says nothing of the credentials.
    world.write("a+31", "x");
    world.write("h", "x");
    world.proxy.add(Rule::new(answer(500, "InternalError")).method("GET").skip(1));
    world.proxy.add(of_key("PUT", "a%2B", answer(403, "SignatureDoesNotMatch")));
    let report = rescan(&world, &site);
    assert_eq!((report.stop_reason, report.uploaded_count, report.failed_count), (None, 1, 1));
    world.proxy.clear_rules();
    heals(&world, &site);
    // Where the preflight's signature is wrong as well by then, it is the credentials.
    for n in 0..30 {
        world.write(&format!("g{n:02}"), "x");
    }
    world.proxy.add(Rule::new(answer(403, "SignatureDoesNotMatch")).method("GET").skip(1));
    world.proxy.add(Rule::new(answer(403, "SignatureDoesNotMatch")).method("PUT"));
    world.proxy.clear_counts();
    let report = rescan(&world, &site);
    assert_eq!((report.stop_reason, report.uploaded_count), (Some(StopReason::Credentials), 0));
    assert!(world.proxy.requests().len() < 30);
}

/// One key always got 500. With nothing else to do, each run was told as an outage for ever, without a name.
#[test]
fn one_key_that_always_fails_is_no_outage() {
    let world = World::new();
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    acquainted(&world, &site);
    world.write("gone", "x");
    rescan(&world, &site);
    world.remove("gone");
    world.write("cursed", "x");
    world.proxy.add(of_key("PUT", "/cursed", answer(500, "InternalError")));
    for _ in 0..2 {
        let report = rescan(&world, &site);
        assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
        assert_eq!((report.failed_count, report.failed[0].key()), (1, Some("cursed")));
        assert_eq!(report.deleted_count, 0, "I3");
    }
    let why = "deletes wait for a run without errors";
    assert!(world.logged(log::Level::Warn).iter().any(|text| text.starts_with(why)));
}

/// A gateway answered the beginning of an upload with `NoSuchUpload`. The file was neither sent nor failed, and the
/// deletes went on as if all uploads were acknowledged; only an assertion of debug builds stood there.
#[test]
fn i3_upload_that_cannot_be_begun_fails_and_holds_the_deletes() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write("gone", "x");
    rescan(&world, &site);
    world.remove("gone");
    world.write_random("large", 17 * MIB, 1);
    let refusal = answer(404, "NoSuchUpload");
    world.proxy.add(Rule::new(refusal).method("POST").path_contains("?uploads="));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 0));
    assert_eq!((report.failed_count, report.failed[0].key()), (1, Some("large")), "{:?}", report.failed);
    assert_eq!(world.keys(), ["gone", "known"]);
    world.proxy.clear_rules();
    heals(&world, &site);
    assert_eq!(world.keys(), ["known", "large"]);
}

/// With include patterns a folder that had become a link was dropped before anybody heard of it, and what was
/// published below it was deleted.
#[test]
fn f9_link_in_place_of_an_included_folder_keeps_its_objects() {
    let world = World::new();
    let site = || world.orchestrator_with(RescanConfig::new().include("*.html"));
    for key in ["docs/a.html", "docs/b.html", "c.html", "notes.txt"] {
        world.write(key, "1");
    }
    assert_eq!(rescan_all(&world, &site()).uploaded_count, 3);
    let elsewhere = world.root().with_extension("elsewhere");
    fs::rename(world.path("docs"), &elsewhere).unwrap();
    symlink(&elsewhere, world.path("docs")).unwrap();
    let report = rescan_all(&world, &site());
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
    assert_eq!(kept, [("docs/a.html", KeptReason::Skipped), ("docs/b.html", KeptReason::Skipped)]);
    assert_eq!((report.deleted_count, world.keys().len()), (0, 3));
}

/// A rescan of a tree that is not published as a whole, which the oracle would miss.
fn rescan_all(world: &World, site: &RescanOrchestrator) -> RescanReport {
    let report = site.rescan().unwrap();
    assert_eq!(world.store.objects().len() as u64, site.cache().published_count().unwrap());
    report
}

/// After DIR was renamed, its files were unchanged, and what was removed later was kept for ever as another root's.
#[test]
fn f9_unchanged_file_under_a_renamed_root_belongs_to_it() {
    let world = World::new();
    for key in ["a", "b", "c"] {
        world.write(key, "1");
    }
    world.let_files_settle();
    world.orchestrator().rescan().unwrap();
    let renamed = world.root().with_extension("renamed");
    fs::rename(world.root(), &renamed).unwrap();
    let site = RescanOrchestrator::new(&world.engine, &renamed, world.backend(), world.cache()).unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.unchanged, report.metrics.requests), (RescanOutcome::Unchanged, 3, 0));
    fs::remove_file(renamed.join("b")).unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.deleted, report.kept_count), (vec!["b".to_owned()], 0));
    assert_eq!(site.rescan().unwrap().metrics.commits, 0, "I5");
}

/// A multipart upload was resumed under other headers than it was begun with: its object had the old ones, and the
/// run said that the new ones were published.
#[test]
fn multipart_upload_is_begun_anew_where_the_headers_differ() {
    let world = World::new();
    world.write_random("large", 17 * MIB, 1);
    world.let_files_settle();
    let with = |cache_control: &str| {
        let config = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let config = config.retry(RetryPolicy::default().with_attempts(1));
        site_with(&world, config.header("cache-control", cache_control))
    };
    world.proxy.add(of_key("PUT", "partNumber=3", answer(500, "InternalError")));
    assert_eq!(rescan(&world, &with("max-age=1")).open_uploads, 1);
    world.proxy.clear_rules();
    // The same again is resumed.
    world.proxy.add(of_key("PUT", "partNumber=3", answer(500, "InternalError")));
    world.proxy.clear_counts();
    rescan(&world, &with("max-age=1"));
    let initiated = || world.proxy.requests().iter().filter(|seen| seen.target.contains("?uploads=")).count();
    assert_eq!(initiated(), 0);
    world.proxy.clear_rules();
    let report = rescan(&world, &with("max-age=2"));
    assert_eq!((report.outcome, initiated()), (RescanOutcome::Published, 1));
    let object = world.store.get(&format!("{PREFIX}large")).unwrap();
    assert_eq!(object.cache_control.as_deref(), Some("max-age=2"));
    assert!(world.store.uploads().is_empty(), "I4");
}

/// What a site on a store that keeps folders as files publishes.
struct OnAFolder {
    world: World,
    backend: Arc<S3Backend>,
    site: RescanOrchestrator,
    objects: PathBuf,
    _folder: tempfile::TempDir,
    _server: S3Server,
}

fn on_a_folder() -> OnAFolder {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start(store_on_a_folder(folder.path(), crate::support::BUCKET));
    let config = s3_config_at(&server.endpoint()).retry(RetryPolicy::default().with_attempts(2));
    let backend = Arc::new(S3Backend::new(&world.engine, config).unwrap());
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    let objects = folder.path().join(crate::support::BUCKET).join("site");
    OnAFolder { world, backend, site, objects, _folder: folder, _server: server }
}

impl OnAFolder {
    /// One rescan makes the store hold what the tree does.
    #[track_caller]
    fn converges(&self) -> RescanReport {
        let report = self.site.rescan().unwrap();
        assert_eq!(report.outcome, RescanOutcome::Published, "{:?}", report.failed);
        assert_eq!(published(&self.objects), files_below(&self.world.root()));
        report
    }
}

/// The objects in the folder of such a store; it keeps what belongs to them in hidden files.
fn published(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    files_below(folder)
        .into_iter()
        .filter(|(key, _)| !key.split('/').any(|name| name.starts_with('.')))
        .collect()
}

/// K5: a file became a folder on a store that keeps folders as files: the upload was refused for the
/// object that was to be deleted, the delete waited for the upload, and it never ended.
#[test]
fn k05_file_becomes_a_folder_on_a_store_that_keeps_folders_as_files() {
    let on = on_a_folder();
    on.world.write("a", "a file");
    on.world.write("keep", "x");
    on.converges();
    on.world.remove("a");
    on.world.write("a/b", "in a folder");
    on.world.write("a/c/d", "deeper");
    let report = on.converges();
    assert_eq!((report.uploaded_count, report.deleted), (2, vec!["a".to_owned()]));
}

/// The same both ways, for small files and multipart uploads, on a store that refuses as MinIO does.
#[test]
fn k05_file_becomes_a_folder_and_back_on_a_store_that_refuses_as_minio_does() {
    for size in [10, 9 * MIB] {
        let world = World::new();
        world.store.keeps_folders_as_files();
        let config = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
        let site = site_with(&world, config);
        world.write_random("a", size, 1);
        world.write("keep", "x");
        rescan(&world, &site);
        for round in 0..2 {
            world.remove("a");
            world.write_random("a/b", size, 2 + round);
            world.write("a/c/d", "deeper");
            let report = rescan(&world, &site);
            assert_eq!((report.outcome, report.deleted), (RescanOutcome::Published, vec!["a".to_owned()]));
            fs::remove_dir_all(world.path("a")).unwrap();
            world.write_random("a", size, 4 + round);
            let report = rescan(&world, &site);
            assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 2));
            assert_eq!(world.keys(), ["a", "keep"]);
        }
        assert!(world.store.uploads().is_empty(), "I4");
    }
}

/// What was refused for an object that stays all the same fails as ever.
#[test]
fn k05_object_of_somebody_else_in_the_way_is_not_deleted() {
    let world = World::new();
    world.store.keeps_folders_as_files();
    world.stranger("a", "theirs");
    world.write("a/b", "ours");
    world.write("keep", "x");
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 0));
    assert_eq!(
        (report.failed[0].key(), report.failed[0].code()),
        (Some("a/b"), Some("XMinioParentIsObject"))
    );
    assert_eq!(world.keys(), ["a", "keep"]);
}

/// The guard stands before such a delete, too (I3).
#[test]
fn i3_object_in_the_way_is_not_deleted_where_deletes_are_refused() {
    let on = on_a_folder();
    on.world.write("a", "a file");
    on.world.write("keep", "x");
    on.converges();
    on.world.remove("a");
    on.world.write("a/b", "in a folder");
    let none = RescanConfig::new().max_delete(MaxDelete::Count(0));
    let (cache, backend) = (on.site.cache().clone(), on.backend.clone());
    let site = RescanOrchestrator::with_config(&on.world.engine, on.world.root(), backend, cache, none);
    let report = site.unwrap().rescan().unwrap();
    assert_eq!((report.outcome, report.deleted_count, report.failed_count), (RescanOutcome::Partial, 0, 1));
    assert_eq!(report.failed[0].key(), Some("a/b"));
    assert_eq!(published(&on.objects)["a"], b"a file");
}

/// A dry run foretold the upload of a file that no store takes.
#[test]
fn dry_run_tells_of_a_file_that_is_too_large() {
    let world = World::new();
    world.write("small", "x");
    fs::File::create(world.path("huge")).unwrap().set_len((5 << 40) + 1).unwrap();
    let site = world.orchestrator();
    let plan = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    let run = site.rescan().unwrap();
    for report in [plan, run] {
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, 1));
        assert_eq!((report.failed[0].kind(), report.failed[0].key()), (ErrorKind::TooLarge, Some("huge")));
    }
}

/// The second verification called a missing object good, and another's content in its place unknown: the first had
/// forgotten that they were published.
#[test]
fn verification_is_not_good_until_what_it_found_is_published_again() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    for key in ["a", "b", "c", "d"] {
        world.write(key, "right");
    }
    rescan(&world, &site);
    world.store.remove_raw(&format!("{PREFIX}a"));
    world.store.put_raw(&format!("{PREFIX}b"), "other");
    world.store.corrupt(&format!("{PREFIX}c"), b"wrong");
    let engine = &world.engine;
    let backend: Arc<dyn bucket_brigade::StorageBackend> = world.backend();
    let verify = |how| site.cache().verify(engine, &backend, &Run::new().verify(how)).unwrap();
    let found = verify(Verify::Content);
    assert_eq!(
        (found.missing.clone(), found.different.clone()),
        (vec!["a".into()], vec!["b".into(), "c".into()])
    );
    assert_eq!((found.matching, found.unsettled_count, found.is_good()), (1, 0, false));
    // The list alone cannot tell that the content of c is wrong: it is not believed all the same.
    let again = verify(Verify::List);
    assert_eq!(
        (again.missing.clone(), again.different.clone(), again.unsettled.clone()),
        (vec!["a".into()], vec!["b".into()], vec!["c".into()])
    );
    assert_eq!((again.matching, again.unknown_count, again.is_good()), (1, 0, false));
    assert!(site.cache().resolve("c").unwrap().unwrap().digest.is_none());
    let again = verify(Verify::Content);
    assert_eq!((again.missing_count, again.different_count, again.unsettled_count), (1, 1, 1));
    assert_eq!((again.matching, again.contents, again.is_good()), (1, 1, false));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 3));
    assert!(verify(Verify::Content).is_good());
    check_idle(&world, &site);
}

/// A store that lists no tags: only sizes were compared, and nothing said so.
#[test]
fn verification_says_where_only_sizes_were_compared() {
    let on = on_a_folder();
    on.world.write("a", "1");
    on.world.write("b", "2");
    on.converges();
    let found = verified(&on.site).verified.unwrap();
    assert_eq!((found.matching, found.sizes_only, found.is_good()), (2, 2, true));
    let world = World::new();
    world.write("a", "1");
    let site = world.orchestrator();
    rescan(&world, &site);
    assert_eq!(verified(&site).verified.unwrap().sizes_only, 0);
}

/// An outage was told without host or reason: the try that was not made hid why the ones before it had failed.
#[test]
fn n14_outage_names_host_and_reason_wherever_it_is_told() {
    let world = World::new();
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    let host = world.proxy.endpoint().trim_start_matches("http://").to_owned();
    world.proxy.refuse();
    let report = rescan(&world, &site);
    let outage = report.outage.as_ref().unwrap();
    assert_eq!((report.outcome, outage.kind()), (RescanOutcome::LocalOnly, ErrorKind::Connect));
    let text = outage.to_string();
    assert!(text.contains(&host) && text.contains("refused") && outage.attempts() > 1, "{text}");
    let said = |needle: &str| {
        let events = world.events.lock().unwrap();
        events.iter().any(|event| format!("{event:?}").contains(needle))
    };
    assert!(said("Cloud sync failed") && said(&format!("{host}: Connection refused")));
    world.proxy.accept_again();
    // It breaks down in the middle: those that were under way say why, and so does the report.
    world.proxy.add(Rule::new(Fault::ResetBefore).method("PUT"));
    let report = rescan(&world, &site);
    let outage = report.outage.unwrap();
    assert!(outage.to_string().contains(&host) && outage.attempts() > 1, "{outage}");
    for error in &report.failed {
        assert!(error.to_string().contains(&host), "{error}");
    }
}

/// A name that does not resolve, on a run that never reached its store, was an outage: exit code 3 for ever.
#[test]
fn n14_name_that_never_resolved_is_a_wrong_setting() {
    let world = World::new();
    world.write("a", "1");
    let once = RetryPolicy::default().with_attempts(1);
    let elsewhere = world.s3_config().endpoint("http://no-such-host.invalid").retry(once);
    let site = site_with(&world, elsewhere);
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(text.contains("endpoint: no-such-host.invalid") && text.contains("does not resolve"), "{text}");
    assert_eq!(text.matches("does not resolve").count(), 1, "{text}");
}

/// Another folder took the root's place during a run: with a high `max_delete` everything was deleted on the evidence of
/// a folder that had nothing to do with it.
#[test]
fn f05_root_that_is_replaced_during_a_run_deletes_nothing() {
    for by_link in [false, true] {
        let world = World::with_workers(1);
        let all = || RescanConfig::new().max_delete(MaxDelete::Count(1000));
        for n in 0..20 {
            world.write(&format!("f{n:02}"), "x");
        }
        let site = world.orchestrator_with(all());
        rescan(&world, &site);
        for n in 0..10 {
            world.remove(&format!("f{n:02}"));
        }
        world.write("new", "y");
        let (root, away) = (world.root(), world.root().with_extension("away"));
        world.proxy.on_request(move |seen| {
            if seen.method == "PUT" && root.join("new").exists() {
                fs::rename(&root, &away).unwrap();
                let other = root.with_extension("other");
                fs::create_dir(&other).unwrap();
                if by_link { symlink(&other, &root).unwrap() } else { fs::rename(&other, &root).unwrap() }
            }
        });
        let report = site.rescan().unwrap();
        assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 0));
        assert!(report.failed.iter().any(|error| error.to_string().contains("root was removed or replaced")));
        assert_eq!(world.keys().len(), 21);
    }
}

/// S5: a folder was swapped for a link while the run went on, and what lies outside of the root was read by its path.
#[test]
fn s5_folder_swapped_for_a_link_leads_nowhere_while_files_are_opened_and_looked_at() {
    let world = World::with_workers(1);
    let site = site_with(&world, world.s3_config());
    acquainted(&world, &site);
    world.write("a first", "x");
    world.write("d/f", "the file of the tree");
    let (folder, outside) = (world.path("d"), world.root().with_extension("outside"));
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" && !outside.exists() {
            // The very same file, outside: no stat tells it from the one of the tree.
            fs::rename(&folder, &outside).unwrap();
            symlink(&outside, &folder).unwrap();
        }
    });
    let report = site.rescan().unwrap();
    assert!(!world.keys().contains(&"d/f".to_owned()), "{:?}", world.keys());
    assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::SourceChanged));
}

/// S5: a folder is swapped for a link while the parts of a file in it are sent. Outside lies another file of its name and size.
#[test]
fn s5_folder_swapped_for_a_link_while_parts_are_sent_brings_nothing_from_outside() {
    for at in 1..=4 {
        let world = World::with_workers(2);
        world.write_random("d/large", 33 * MIB, 1);
        let outside = world.root().with_extension("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("large"), vec![b'!'; 33 * MIB]).unwrap();
        let site = in_small_parts(&world);
        let (folder, away, parts) = (world.path("d"), world.root().with_extension("away"), AtomicU32::new(0));
        world.proxy.on_request(move |seen| {
            if seen.target.contains("partNumber") && parts.fetch_add(1, Ordering::SeqCst) + 1 == at {
                fs::rename(&folder, &away).unwrap();
                symlink(&outside, &folder).unwrap();
            }
        });
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        let is_from_outside = |bytes: &Vec<u8>| bytes.windows(64).any(|window| window == [b'!'; 64]);
        assert!(!world.objects().values().any(is_from_outside), "at part {at}");
        world.proxy.on_request(|_| ());
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert!(!world.objects().values().any(is_from_outside), "at part {at}");
    }
}

/// S5: somebody swaps a folder for a link to outside and back, as fast as possible, while runs walk, read, send and delete. Nothing
/// from outside is ever published, and what the tree had is not deleted. One of both is always there: a folder that is gone
/// whenever a run looks is gone, and its objects may be deleted.
#[test]
#[cfg(target_os = "linux")]
fn s5_folder_that_is_swapped_all_the_time_brings_nothing_from_outside() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let world = World::with_workers(4);
    let names: Vec<_> = (0..40).map(|n| format!("f{n:02}")).collect();
    world.write("other", "of the tree");
    let outside = world.root().with_extension("outside");
    fs::create_dir(&outside).unwrap();
    for name in &names {
        world.write(&format!("d/{name}"), "of the tree");
        // The same size, so that no look at it tells them apart.
        fs::write(outside.join(name), "of outside!").unwrap();
    }
    let (folder, link) = (world.path("d"), world.root().with_extension("link"));
    symlink(&outside, &link).unwrap();
    let swap = || renameat_with(CWD, &folder, CWD, &link, RenameFlags::EXCHANGE);
    if let Err(error) = swap() {
        println!("skipped: this file system does not exchange names: {error}");
        return;
    }
    swap().unwrap();
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|threads| {
        let swapper = threads.spawn(|| {
            let mut swaps = 0;
            while !done.load(Ordering::SeqCst) {
                swap().unwrap();
                std::thread::yield_now();
                swap().unwrap();
                swaps += 1;
            }
            swaps
        });
        let end = SetAtEnd(&done);
        for round in 0..60 {
            // All are sent again: whatever is read now is published.
            let site = site_with(&world, world.s3_config());
            let report = site.rescan_with(&Run::new().force(true)).unwrap();
            assert!(report.deleted.is_empty(), "round {round}: {report:?}");
            for (key, bytes) in world.objects() {
                assert_eq!(bytes, b"of the tree", "round {round}: {key}");
            }
        }
        drop(end);
        swapper.join().unwrap()
    });
    println!("{swaps} swaps");
    let site = site_with(&world, world.s3_config());
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, world.keys().len()), (RescanOutcome::Published, 41), "{report:?}");
}

/// S5: paths that are longer than any key, and longer than what the system takes in one call, with what moves a cursor in them: said,
/// escaped, and all others are published.
#[test]
fn s5_paths_longer_than_a_key_and_than_a_path_are_said_and_shown_escaped() {
    use rustix::fs::{CWD, Mode, OFlags};
    for levels in [6, 30] {
        let world = World::new();
        world.write("other", "x");
        // Made a level at a time.
        let name = format!("\u{1b}[2J{}", "n".repeat(196));
        let mut folder = rustix::fs::openat(CWD, world.root(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&folder, &*name, Mode::from(0o700)).unwrap();
            folder = rustix::fs::openat(&folder, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        drop(rustix::fs::openat(&folder, "f\u{202e}", flags, Mode::from(0o600)).unwrap());
        let site = site_with(&world, world.s3_config());
        let report = site.rescan().unwrap();
        assert_eq!(world.keys(), ["other"], "{levels}");
        assert_eq!(report.uploaded_count, 1, "{levels}");
        let said: Vec<_> = report.failed.iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|said| said.contains("longer than the 1019 bytes of a key")),
            "{levels}: {report:?}"
        );
        let shown = said.join(" ") + &world.logged(log::Level::Debug).join(" ");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{levels}: {shown}");
        assert!(shown.contains("\\u{1b}[2J"), "{levels}: {shown}");
        world.write("later", "x");
        let report = site.rescan().unwrap();
        assert_eq!((report.uploaded_count, world.keys().len()), (1, 2), "{levels}");
    }
}

/// A cache of a format before this one is read, and goes on, and one of this format is what later versions will have to
/// read. The first two were written by programs of their formats, and the third is the second one after an upgrade: six objects published, one of them a multipart upload;
/// one delete and one modified file pending, an added file that was refused, and a multipart upload that is open.
#[test]
fn caches_of_this_format_and_the_two_before_are_read_and_go_on() {
    let files = [
        &include_bytes!("../support/format2.cache")[..],
        include_bytes!("../support/format3.cache"),
        include_bytes!("../support/format4.cache"),
    ];
    for bytes in files {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(&path, bytes).unwrap();
        for _ in 0..2 {
            let cache = CacheManager::open(&path).unwrap();
            let published: Vec<_> =
                cache.published().unwrap().entries().map(|entry| entry.key.as_str().to_owned()).collect();
            assert_eq!(published, ["a.html", "b/c d.css", "gone.js", "index.html", "large.bin", "left.bin"]);
            let pending: Vec<_> =
                cache.pending().unwrap().into_iter().map(|file| (file.key, file.kind)).collect();
            let expected = [
                ("gone.js", PendingKind::Removed),
                ("index.html", PendingKind::Modified),
                ("open.bin", PendingKind::Added),
                ("refused.txt", PendingKind::Added),
            ];
            assert_eq!(pending, expected.map(|(key, kind)| (key.to_owned(), kind)));
            let summary = cache.summary().unwrap();
            assert_eq!((summary.published, summary.pending, summary.open_uploads), (6, 4, 1));
        }
    }
}

/// A large tree is marked a page at a time; all of it is sent, and nothing stays marked.
#[test]
fn more_files_than_are_marked_at_once_are_all_published_and_settled() {
    let world = World::new();
    for n in 0..2500 {
        world.write(&format!("d{}/f{n:04}", n % 9), "x");
    }
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2500));
    check_idle(&world, &site);
}

/// P4: the disk under the cache was full in the middle of a run. A worker took the recorder's failure away with it: the
/// run ended without its reason, and went on sending for as long as it had files.
///
/// A limit on the size of files, set after the first upload, is a disk that is full from then on. It holds for a
/// process, so this is one of its own.
#[test]
fn p04_full_disk_under_the_cache_stops_the_run_and_says_why() {
    const ROOT: &str = "BRIGADE_TEST_FULL_DISK_ROOT";
    const CACHE: &str = "BRIGADE_TEST_FULL_DISK_CACHE";
    const ENDPOINT: &str = "BRIGADE_TEST_FULL_DISK_ENDPOINT";
    if let (Ok(root), Ok(cache), Ok(endpoint)) =
        (std::env::var(ROOT), std::env::var(CACHE), std::env::var(ENDPOINT))
    {
        return publish_until_the_disk_is_full(&root, &cache, &endpoint);
    }
    let world = World::new();
    world.write("gone", "x");
    rescan(&world, &world.orchestrator());
    world.remove("gone");
    for n in 0..4000 {
        world.write(&format!("d{}/f{n:04}", n % 40), "x");
    }
    // Each of these is noted before it is begun: whoever notes it meets the failure first.
    for n in 0..12 {
        world.write_random(&format!("large{n:02}"), 9 * MIB, n);
    }
    let output = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "mends::p04_full_disk_under_the_cache_stops_the_run_and_says_why", "--nocapture"])
        .env(ROOT, world.root())
        .env(CACHE, world.cache_path())
        .env(ENDPOINT, world.proxy.endpoint())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("ended: Cache: cache ") && text.contains("File too large"), "{text}");
    let puts = world.store.puts().len();
    assert!(puts < 4000, "it went on sending: {puts}");
    assert!(world.keys().contains(&"gone".to_owned()), "I3");
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 1));
    check_idle(&world, &site);
}

fn publish_until_the_disk_is_full(root: &str, cache: &str, endpoint: &str) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let engine = bucket_brigade::Engine::new().unwrap();
    let config = s3_config_at(endpoint).part_threshold(8 << 20).part_size(8 << 20);
    let backend = Arc::new(S3Backend::new(&engine, config).unwrap());
    let cache = CacheManager::open(cache).unwrap();
    let site = RescanOrchestrator::new(&engine, root, backend, cache).unwrap();
    let full = Arc::new(|event: &bucket_brigade::Event| {
        if matches!(event, bucket_brigade::Event::UploadFinished { .. }) {
            setrlimit(Resource::Fsize, Rlimit { current: Some(4096), maximum: None }).unwrap();
        }
    });
    let error = site.rescan_with(&Run::new().observer(full)).unwrap_err();
    println!("ended: {:?}: {error}", error.kind());
}

/// A bucket was restored from a backup, or changed by hand: no request tells that for nothing, and a run that asks for
/// a list found it and left it to the next one.
#[test]
fn what_a_verification_finds_is_published_again_by_the_same_run() {
    for how in [Verify::List, Verify::Content] {
        let world = World::new();
        let site = site_with(&world, world.s3_config());
        for key in ["a", "b", "c"] {
            world.write(key, "right");
        }
        world.let_files_settle();
        rescan(&world, &site);
        assert_eq!(rescan(&world, &site).outcome, RescanOutcome::Unchanged);
        world.store.remove_raw(&format!("{PREFIX}a"));
        world.store.put_raw(&format!("{PREFIX}b"), "another");
        assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Unchanged, "nobody asked");
        let report = site.rescan_with(&Run::new().verify(how)).unwrap();
        check(&world, &site, &report);
        let found = report.verified.unwrap();
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2));
        assert_eq!((found.is_good(), found.repaired, found.matching), (true, 2, 3));
        assert_eq!((report.scanned, report.unchanged), (3, 1));
        check_idle(&world, &site);
    }
}

/// Errors of single keys in one answer were counted as an outage each: twenty-five of them ended a run whose store was
/// there all the time.
#[test]
fn answer_that_puts_off_many_keys_is_one_outage() {
    let world = World::new();
    let site = site_with(&world, world.s3_config().retry(RetryPolicy::default().with_attempts(2)));
    for n in 0..100 {
        world.write(&format!("f{n:03}"), "x");
    }
    rescan(&world, &site);
    for n in 0..40 {
        world.remove(&format!("f{n:03}"));
    }
    let errors: Vec<_> = (0..40)
        .map(|n| format!("<Error><Key>{PREFIX}f{n:03}</Key><Code>InternalError</Code></Error>"))
        .collect();
    let body = format!("<DeleteResult>{}</DeleteResult>", errors.concat()).into_bytes();
    world.proxy.add(Rule::new(Fault::Answer(200, Vec::new(), body)).method("POST"));
    let report = rescan(&world, &site);
    assert_eq!((report.outcome, report.stop_reason), (RescanOutcome::Partial, None));
    assert_eq!((report.failed_count, report.pending, report.deleted_count), (40, 40, 0));
    assert_eq!(report.metrics.retries, 1, "all of them with one request more");
    world.proxy.clear_rules();
    assert_eq!(rescan(&world, &site).deleted_count, 40);
}

/// A server that accepts and never answers held a first run for ten minutes: six tries of two minutes.
#[test]
fn n02_silent_server_is_found_out_by_the_preflight_with_one_try() {
    let world = World::new();
    let site = site_with(
        &world,
        world.s3_config().network(world.network().answer_timeout(std::time::Duration::from_millis(300))),
    );
    for n in 0..30 {
        world.write(&format!("f{n:02}"), "x");
    }
    world.proxy.add(Rule::new(Fault::Stall));
    let report = rescan(&world, &site);
    assert_eq!(
        (report.outcome, report.stop_reason),
        (RescanOutcome::LocalOnly, Some(StopReason::Unavailable))
    );
    let outage = report.outage.unwrap();
    assert_eq!((outage.kind(), outage.attempts(), world.proxy.requests().len()), (ErrorKind::Timeout, 1, 1));
}

/// Files that may be what is published are hashed before the store is asked. One that cannot be read then is tried once
/// more when it is its turn, and is told once.
#[test]
fn file_that_fails_while_it_is_compared_is_told_once() {
    let world = World::new();
    world.write("a", "1");
    world.write("b", "1");
    world.let_files_settle();
    let site = world.orchestrator();
    rescan(&world, &site);
    world.write("a", "2");
    let path = world.path("a");
    let vanish = Arc::new(move |event: &bucket_brigade::Event| {
        if matches!(event, bucket_brigade::Event::Planned { .. }) {
            fs::remove_file(&path).unwrap();
        }
    });
    world.events.lock().unwrap().clear();
    let report = site.rescan_with(&Run::new().observer(vanish)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.failed_count, report.metrics.uploads_failed), (1, 1));
    assert_eq!(report.failed[0].kind(), ErrorKind::SourceVanished);
    let told = |event: &&bucket_brigade::Event| matches!(event, bucket_brigade::Event::UploadFailed { .. });
    assert_eq!(world.events.lock().unwrap().iter().filter(told).count(), 1);
}
