//! What tools of this kind got wrong, each as a test named after the failure.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bucket_brigade::{
    ErrorKind, FirstRun, KeptReason, MaxDelete, RescanConfig, RescanOrchestrator, RescanOutcome, S3Backend,
    StopReason, StorageBackend, StorageError,
};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule, latch};
use crate::support::server::http_get;
use crate::support::{PREFIX, World};

/// A mirror told its users one address and stored under another: prefix and encoding were joined in
/// two places. Here one string serves the request's path and the URL.
#[test]
fn published_url_is_where_the_uploaded_key_lies() {
    let world = World::new();
    world.write("a b/c+d.txt", "x");
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(world.keys(), ["a b/c+d.txt"]);
    assert_eq!(http_get(&report.uploaded[0].url), (200, b"x".to_vec()));
}

/// A tool compared its first scan with itself and found nothing new.
#[test]
fn first_scan_uploads_everything() {
    let world = World::new();
    for n in 0..37 {
        world.write(&format!("d{}/f{n}", n % 4), format!("content {n}"));
    }
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 37));
    check_idle(&world, &site);
}

/// A tool stored the new scan as its state although an upload had failed, and never tried again.
#[test]
fn failed_upload_is_not_recorded_as_published() {
    let world = World::new();
    world.write("good", "1");
    world.write("bad", "2");
    world.store.refuse_put("/bad", "InvalidArgument");
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.failed_count), (RescanOutcome::Partial, 1));
    assert_eq!(report.failed[0].key(), Some("bad"));
    assert_eq!(site.cache().pending().unwrap()[0].key, "bad");
    world.store.clear_faults();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 1));
}

/// A tool skipped its deletes after an upload error, saved its state, and forgot them.
#[test]
fn deletes_are_not_forgotten_after_an_upload_error() {
    let world = World::new();
    world.write("old", "1");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.remove("old");
    world.write("new", "2");
    world.store.refuse_put("/new", "InvalidArgument");
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.deleted_count, world.keys()), (0, vec!["old".to_owned()]), "I3: deletes come last");
    world.store.clear_faults();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.deleted_count, world.keys()), (1, vec!["new".to_owned()]));
}

/// Folders below each other were deeper than the system opens (`ENAMETOOLONG`): an error that blocked all deletes
/// for ever. Nothing so deep can be a key: it is a failure of its own, and deletes go on. (What may not be read is row F4.)
#[test]
fn folder_too_deep_for_any_key_is_a_failure_and_blocks_nothing() {
    let world = World::new();
    world.write("keep/a", "1");
    world.write("other", "2");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.remove("other");
    make_too_deep(&world);
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Partial, 1), "{:?}", report.failed);
    assert_eq!((report.failed_count, report.failed[0].kind()), (1, ErrorKind::InvalidKey));
    assert!(
        report.failed[0].path().unwrap().starts_with(fs::canonicalize(world.root()).unwrap().join("deep"))
    );
    assert_eq!(world.keys(), ["keep/a"]);
}

/// Folders below each other until their path is longer than the system opens, made from within.
fn make_too_deep(world: &World) {
    let name = "n".repeat(200);
    let script = format!(
        "mkdir deep && cd deep && for i in $(seq 24); do mkdir {name} && cd -P {name}; done; echo x > file"
    );
    let made = std::process::Command::new("sh").arg("-c").arg(script).current_dir(world.root()).status();
    assert!(made.unwrap().success());
}

/// A disk was not mounted: the folder was missing, or an empty mount point, and the bucket was emptied.
#[test]
fn missing_or_empty_folder_does_not_empty_the_bucket() {
    let world = World::new();
    for n in 0..5 {
        world.write(&format!("f{n}"), "x");
    }
    let site = world.orchestrator();
    site.rescan().unwrap();
    fs::rename(world.root(), world.root().with_extension("away")).unwrap();
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootMissing);
    fs::create_dir(world.root()).unwrap();
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootEmpty);
    assert!(error.to_string().contains("allow_empty"), "{error}");
    assert_eq!((world.keys().len(), site.cache().pending_count().unwrap()), (5, 0));
    drop(site);
    let site = world.orchestrator_with(RescanConfig::new().allow_empty(true));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.deleted_count, world.keys().len()), (5, 0));
}

/// A scan that failed was stored as an empty version; the next one found everything new, or gone.
#[test]
fn failed_scan_leaves_the_cache_as_it_was() {
    let world = World::new();
    world.write("a", "1");
    let site = world.orchestrator();
    site.rescan().unwrap();
    let before = site.cache().published().unwrap();
    fs::rename(world.root(), world.root().with_extension("away")).unwrap();
    site.rescan().unwrap_err();
    fs::rename(world.root().with_extension("away"), world.root()).unwrap();
    assert_eq!(site.cache().published().unwrap(), before);
    world.let_files_settle();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0));
}

/// State lived in memory: after a restart everything was sent again, and nothing was deleted.
#[test]
fn state_survives_a_restart() {
    let world = World::new();
    world.write("a", "1");
    world.write("b", "2");
    world.orchestrator().rescan().unwrap();
    world.remove("b");
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.uploaded_count, report.deleted_count), (0, 1));
    drop(site);
    check_idle(&world, &world.orchestrator());
}

/// A file was rewritten between its hash and its upload, with the same size, and the mixture was
/// published under the old digest.
#[test]
fn file_changed_between_hash_and_upload_is_not_published_torn() {
    let world = World::new();
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 300_000]);
    world.write("f", &old);
    world.remember("f", &new);
    let path = world.path("f");
    let rewritten = new.clone();
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            fs::write(&path, &rewritten).unwrap();
        }
    });
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    // Its last bytes may have left before: then the whole first version was published, and is recorded.
    let published = world.objects().get("f").cloned();
    assert!(published.as_ref().is_none_or(|bytes| *bytes == old));
    assert_eq!(report.uploaded_count, u64::from(published.is_some()));
    assert!(report.failed.iter().all(|error| error.kind() == ErrorKind::SourceChanged));
    world.proxy.on_request(|_| ());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(world.objects()["f"], new);
}

/// The same, where size and mtime are put back: the change shows in the ctime, and before the last
/// bytes leave.
#[test]
fn i1_file_rewritten_in_place_while_it_is_sent_is_not_published_torn() {
    let world = World::new();
    let (old, new) = (vec![b'o'; 9_000_000], vec![b'n'; 9_000_000]);
    world.write("f", &old);
    world.remember("f", &new);
    let path = world.path("f");
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    let rewritten = new.clone();
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&rewritten, 0).unwrap();
            file.set_modified(times).unwrap();
        }
    });
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.failed[0].kind(), world.keys().len()), (ErrorKind::SourceChanged, 0));
}

/// N10: the store says that it received other bytes. An unchanged file is sent once more, and then it
/// is an error of its own kind.
#[test]
fn n10_refused_hash_of_an_unchanged_file_is_one_retry_and_then_integrity() {
    let refusal = || {
        let body = "<Error><Code>BadDigest</Code><Message>other bytes</Message></Error>";
        Rule::new(Fault::Answer(400, Vec::new(), body.into())).method("PUT")
    };
    let world = World::new();
    world.write("f", "x");
    let site = world.orchestrator();
    world.proxy.add(refusal().times(2));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.failed[0].kind(), report.failed[0].attempts()), (ErrorKind::Integrity, 2));
    world.proxy.clear_rules();
    world.proxy.add(refusal().times(1));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.metrics.retries), (RescanOutcome::Published, 1));
}

/// A prefix with a trailing slash made keys with two.
#[test]
fn prefix_with_a_trailing_slash_makes_no_double_slash() {
    for (prefix, expected) in [("", "k"), ("a", "a/k"), ("a/", "a/k"), ("/a/b/", "a/b/k")] {
        let world = World::new();
        let config = world.s3_config().bucket_prefix(prefix);
        let backend = S3Backend::new(&world.engine, config).unwrap();
        assert_eq!(backend.build_key("k"), expected);
        world.write("k", "x");
        let url = backend.upload_file(&world.path("k"), "k").unwrap();
        assert_eq!(world.store.objects().into_keys().collect::<Vec<_>>(), [expected]);
        assert!(url.ends_with(&format!("/bucket/{expected}")), "{url}");
    }
}

/// An index was replaced before the files that it named were there. All added go before any modified.
#[test]
fn replaced_index_is_not_live_before_the_new_file_it_names() {
    let world = World::new();
    world.write("index.html", "v1");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.write("index.html", "v2 names new files");
    for n in 0..25 {
        world.write(&format!("new/{n:02}"), format!("{n}"));
    }
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let puts = world.store.puts();
    assert_eq!(puts.len(), 27);
    assert_eq!(puts.last().unwrap(), &format!("{PREFIX}index.html"));
}

/// Batches ran one after the other, and one slow file of each idled nine workers. Here the slow one
/// is answered only when all others are settled.
#[test]
fn one_slow_file_does_not_hold_up_the_others() {
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("f{n:02}"), format!("{n}"));
    }
    let gate = latch();
    world.proxy.add(Rule::new(Fault::Hold(gate.clone())).method("PUT").path_contains("/f05"));
    let finished = Arc::new(Mutex::new(Vec::new()));
    let sink = finished.clone();
    let observer = Arc::new(move |event: &bucket_brigade::Event| {
        if let bucket_brigade::Event::UploadFinished { key, .. } = event {
            let mut finished = sink.lock().unwrap();
            finished.push(key.clone());
            if finished.len() == 59 {
                gate.release();
            }
        }
    });
    let site = world.orchestrator();
    let report = site.rescan_with(&bucket_brigade::Run::new().observer(observer)).unwrap();
    check(&world, &site, &report);
    assert_eq!(finished.lock().unwrap().last().unwrap(), "f05");
}

/// Half of a tree disappeared, for whatever reason, and was deleted without a question.
#[test]
fn too_many_deletes_are_refused_and_stay_pending() {
    let world = World::new();
    for n in 0..40 {
        world.write(&format!("f{n:02}"), "x");
    }
    let site = world.orchestrator();
    site.rescan().unwrap();
    for n in 0..25 {
        world.remove(&format!("f{n:02}"));
    }
    world.write("new", "y");
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.stop_reason, Some(StopReason::DeletesRefused));
    assert_eq!((report.uploaded_count, report.deleted_count, report.pending), (1, 0, 25));
    assert_eq!(world.keys().len(), 41);
    drop(site);
    let site = world.orchestrator_with(RescanConfig::new().max_delete(MaxDelete::Count(25)));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.deleted_count, world.keys().len()), (25, 16));
}

/// A tool took over a bucket that held other things, and its next sync deleted them.
#[test]
fn what_others_stored_is_counted_and_never_deleted() {
    let world = World::new();
    world.stranger("theirs/1", "a");
    world.stranger("theirs/2", "b");
    world.stranger("same", "theirs");
    world.write("same", "ours");
    world.write("mine", "x");
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let unknown = report.unknown_objects.unwrap();
    assert_eq!((unknown.count, unknown.at_least), (3, false));
    assert!(world.logged(log::Level::Warn).iter().any(|text| text.starts_with("3 objects under the prefix")));
    world.remove("mine");
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(
        (report.unknown_objects, world.keys()),
        (None, vec!["same".into(), "theirs/1".into(), "theirs/2".into()])
    );
}

#[test]
fn first_run_refuses_a_filled_prefix_when_told_to() {
    let world = World::new();
    world.stranger("theirs", "a");
    world.write("mine", "x");
    let site = world.orchestrator_with(RescanConfig::new().first_run(FirstRun::Refuse));
    for _ in 0..2 {
        assert_eq!(site.rescan().unwrap_err().kind(), ErrorKind::FirstRunRefused);
        assert_eq!(world.keys(), ["theirs"]);
    }
}

/// A folder became a link; its objects are kept, and said.
#[test]
fn f9_folder_replaced_by_a_link_keeps_its_objects() {
    let world = World::new();
    world.write("d/a", "1");
    world.write("d-", "2");
    world.write("e", "3");
    let site = world.orchestrator();
    site.rescan().unwrap();
    fs::rename(world.path("d"), world.root().with_extension("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.root().with_extension("elsewhere"), world.path("d")).unwrap();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.kept.len(), 1);
    assert_eq!((report.kept[0].key.as_str(), report.kept[0].reason), ("d/a", KeptReason::Skipped));
    assert_eq!(world.keys().len(), 3);
}

/// A new release in another folder goes to the same place; what only the old one had is kept until
/// that is allowed.
#[test]
fn f9_another_root_deletes_nothing_of_the_first_without_being_told() {
    let world = World::new();
    world.write("both", "1");
    world.write("only-in-1", "2");
    world.orchestrator().rescan().unwrap();
    let second = world.root().with_extension("v2");
    fs::create_dir(&second).unwrap();
    fs::write(second.join("both"), "1").unwrap();
    let rescan = |config: RescanConfig| {
        let site =
            RescanOrchestrator::with_config(&world.engine, &second, world.backend(), world.cache(), config);
        site.unwrap().rescan().unwrap()
    };
    let report = rescan(RescanConfig::new());
    assert_eq!((report.uploaded_count, report.kept[0].reason), (0, KeptReason::OtherRoot));
    assert_eq!(world.keys(), ["both", "only-in-1"]);
    let report = rescan(RescanConfig::new().allow_new_root(true));
    assert_eq!((report.deleted_count, world.keys()), (1, vec!["both".to_owned()]));
}

#[test]
fn deletes_that_are_switched_off_keep_objects_and_say_so() {
    let world = World::new();
    world.write("a", "1");
    world.write("b", "2");
    world.orchestrator().rescan().unwrap();
    world.remove("a");
    let site = world.orchestrator_with(RescanConfig::new().delete(false));
    let report = site.rescan().unwrap();
    assert_eq!((report.kept[0].reason, world.keys().len()), (KeptReason::DeletesOff, 2));
}

/// A cache of one bucket was used for another, and its deletes went there.
#[test]
fn cache_of_another_destination_is_refused_by_name() {
    let world = World::new();
    world.write("a", "1");
    world.orchestrator().rescan().unwrap();
    let other = Arc::new(S3Backend::new(&world.engine, world.s3_config().bucket_prefix("other")).unwrap());
    let refused = RescanOrchestrator::new(&world.engine, world.root(), other, world.cache());
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CacheForeign);
    assert!(error.to_string().contains("/bucket/other/"), "{error}");
}

/// A backend with four methods that fails at first, and one that panics.
#[test]
fn p7_backend_that_panics_costs_one_file_and_one_that_fails_is_tried_again() {
    struct Moody(Mutex<BTreeMap<String, u32>>);
    impl StorageBackend for Moody {
        fn upload_file(&self, _: &std::path::Path, key: &str) -> Result<String, StorageError> {
            assert!(key != "panics", "no mood for {key}");
            let tries =
                { *self.0.lock().unwrap().entry(key.to_owned()).and_modify(|n| *n += 1).or_insert(1) };
            if tries < 3 {
                return Err(StorageError::new(
                    ErrorKind::Network,
                    bucket_brigade::Operation::Upload,
                    "moody",
                ));
            }
            Ok(self.get_url(key))
        }
        fn delete_file(&self, _: &str) -> Result<(), StorageError> {
            Ok(())
        }
        fn get_url(&self, key: &str) -> String {
            format!("mem://{key}")
        }
        fn is_remote(&self) -> bool {
            true
        }
    }
    let world = World::new();
    for key in ["a", "panics", "z"] {
        world.write(key, key);
    }
    let backend = Arc::new(Moody(Mutex::default()));
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    let report = site.rescan().unwrap();
    assert_eq!((report.uploaded_count, report.failed_count), (2, 1));
    assert_eq!(report.failed[0].kind(), ErrorKind::Panicked);
    assert_eq!(backend.0.lock().unwrap()["a"], 3);
}

/// A delete took effect and its answer was lost; the file came back as it was, and the tool believed its
/// old record: published, and not there for ever after.
#[test]
fn i2_delete_in_doubt_is_sent_again_when_its_file_comes_back() {
    let world = World::new();
    for key in ["a", "b", "keep"] {
        world.write(key, key);
    }
    world.let_files_settle();
    let site = world.orchestrator();
    site.rescan().unwrap();
    let away = |key: &str| world.root().with_extension(key);
    for key in ["a", "b"] {
        fs::rename(world.path(key), away(key)).unwrap();
    }
    world.proxy.add(Rule::new(Fault::DropAnswer).method("POST"));
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, world.keys()), (RescanOutcome::Partial, vec!["keep".to_owned()]));
    world.proxy.clear_rules();
    for key in ["a", "b"] {
        fs::rename(away(key), world.path(key)).unwrap();
    }
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2));
    check_idle(&world, &site);
}

/// A file whose first version is published, its second on disk, and where its first can be had back with
/// the stat that it had.
fn published_and_replaced() -> (World, RescanOrchestrator, PathBuf) {
    let world = World::new();
    world.write("a", "v1");
    world.let_files_settle();
    let site = world.orchestrator();
    site.rescan().unwrap();
    let v1 = world.root().with_extension("v1");
    fs::rename(world.path("a"), &v1).unwrap();
    world.write("a", "v2");
    (world, site, v1)
}

/// A PUT took effect and its answer was lost; the file was rolled back, and the tool believed its old
/// record while the store kept the new version.
#[test]
fn i2_upload_in_doubt_is_sent_again_when_its_file_is_rolled_back() {
    let (world, site, v1) = published_and_replaced();
    world.proxy.add(Rule::new(Fault::DropAnswer).method("PUT"));
    site.rescan().unwrap();
    assert_eq!(world.objects()["a"], b"v2");
    world.proxy.clear_rules();
    fs::rename(&v1, world.path("a")).unwrap();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(
        (report.outcome, world.objects()["a"].as_slice()),
        (RescanOutcome::Published, b"v1".as_slice())
    );
    check_idle(&world, &site);
}

/// The same with a crash: the process is gone between the store's effect and its record.
#[test]
fn i2_run_that_was_cut_off_leaves_what_it_sent_in_doubt() {
    let (world, site, v1) = published_and_replaced();
    let saved = world.root().with_extension("cache");
    let (cache, copy) = (world.cache_path(), saved.clone());
    // What the disk held when the request was on its way is what a crash leaves.
    world.proxy.on_request(move |seen| {
        if seen.method == "PUT" {
            fs::copy(&cache, &copy).unwrap();
        }
    });
    site.rescan().unwrap();
    world.proxy.on_request(|_| ());
    drop(site);
    fs::copy(&saved, world.cache_path()).unwrap();
    fs::rename(&v1, world.path("a")).unwrap();
    let site = world.orchestrator();
    // A run that does not even come to the end of its plan takes nothing out of doubt.
    let cancel = bucket_brigade::CancelToken::new();
    cancel.cancel();
    site.rescan_with(&bucket_brigade::Run::new().cancel(cancel)).unwrap();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(world.objects()["a"], b"v1");
    check_idle(&world, &site);
}

/// A proxy in between answered 404 to everything, and every delete was taken for done.
#[test]
fn i2_a_404_of_somebody_in_between_is_no_deleted_object() {
    let world = World::new();
    world.write("a", "1");
    world.write("keep", "2");
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.remove("a");
    world.proxy.add(Rule::new(Fault::Answer(404, Vec::new(), b"default backend - 404".to_vec())));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count, report.pending), (RescanOutcome::LocalOnly, 0, 1));
    world.proxy.clear_rules();
    // Only the deletes meet it.
    let nothing_here = Fault::Answer(404, Vec::new(), b"default backend - 404".to_vec());
    world.proxy.add(Rule::new(nothing_here).method("DELETE"));
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.deleted_count, report.pending), (RescanOutcome::Partial, 0, 1));
    world.proxy.clear_rules();
    assert_eq!((site.rescan().unwrap().deleted_count, world.keys().len()), (1, 1));
}

/// A wrapper of four methods around the S3 backend: two gates before one destination must not wait for
/// each other.
#[test]
fn wrapper_around_a_backend_does_not_deadlock() {
    struct Wrapper(Arc<S3Backend>);
    impl StorageBackend for Wrapper {
        fn upload_file(&self, path: &std::path::Path, key: &str) -> Result<String, StorageError> {
            self.0.upload_file(path, key)
        }
        fn delete_file(&self, key: &str) -> Result<(), StorageError> {
            self.0.delete_file(key)
        }
        fn get_url(&self, key: &str) -> String {
            self.0.get_url(key)
        }
        fn is_remote(&self) -> bool {
            true
        }
        fn destination(&self) -> String {
            self.0.destination()
        }
    }
    let world = World::new();
    for n in 0..60 {
        world.write(&format!("f{n:02}"), "x");
    }
    let site = world.orchestrator_on(Arc::new(Wrapper(world.backend())), RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.uploaded_count, 60);
}

/// What the store cannot hold is said at once, and is not even read.
#[test]
fn file_larger_than_the_store_s_largest_object_is_a_clear_error_and_is_not_read() {
    let world = World::new();
    world.write("small", "x");
    fs::File::create(world.path("huge")).unwrap().set_len((5 << 40) + 1).unwrap();
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, 1));
    assert_eq!((report.failed[0].kind(), report.failed[0].key()), (ErrorKind::TooLarge, Some("huge")));
    let text = report.failed[0].to_string();
    assert!(text.contains("5497558138880") && text.contains("largest_object"), "{text}");
    assert!(report.metrics.bytes_hashed < 100 && report.metrics.requests <= 3);
}

/// The state file lay in the tree, was published, and changed with every run.
#[test]
fn cache_inside_the_root_is_refused() {
    let world = World::new();
    world.write("a", "1");
    let cache = bucket_brigade::CacheManager::open(world.path(".cache/state")).unwrap();
    let site = RescanOrchestrator::new(&world.engine, world.root(), world.backend(), cache);
    let error = site.unwrap().rescan().unwrap_err();
    assert!(
        error.kind() == ErrorKind::Config && error.to_string().contains("lies inside the root"),
        "{error}"
    );
    assert!(world.keys().is_empty());
}
