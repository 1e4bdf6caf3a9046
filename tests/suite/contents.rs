//! Verification that reads what the store holds, and which files of a tree are published.

use std::fs;
use std::sync::Arc;

use bucket_brigade::{
    CancelToken, ErrorKind, KeptReason, Progress, RescanConfig, RescanOutcome, Run, S3Backend,
    StorageBackend, Verify,
};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule};
use crate::support::{PREFIX, World};

const MIB: usize = 1024 * 1024;

fn kept(report: &bucket_brigade::RescanReport) -> Vec<(&str, KeptReason)> {
    report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect()
}

/// The store lists what it should, and holds something else: only reading it tells.
#[test]
fn contents_that_differ_are_found_and_published_again() {
    let world = World::new();
    for n in 0..30 {
        world.write(&format!("f{n:02}"), format!("content {n:02}"));
    }
    world.write_random("large", 9 * MIB, 1);
    world.write("empty", "");
    let s3 = world.s3_config().part_threshold(8 << 20).part_size(8 << 20);
    let backend: Arc<dyn StorageBackend> = Arc::new(S3Backend::new(&world.engine, s3).unwrap());
    let site = world.orchestrator_on(backend.clone(), RescanConfig::new());
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    check(&world, &site, &report);
    let found = report.verified.unwrap();
    assert_eq!((found.matching, found.contents, found.is_good()), (32, 32, true));
    world.store.corrupt(&format!("{PREFIX}f07"), b"CONTENT 07");
    let mut damaged = world.objects()["large"].clone();
    damaged[8 * MIB + 5] ^= 1;
    world.store.corrupt(&format!("{PREFIX}large"), &damaged);
    let listed = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    assert_eq!(listed.outcome, RescanOutcome::Unchanged, "sizes and tags are as they were");
    let progress = Progress::new();
    let run = Run::new().verify(Verify::Content).progress(progress.clone());
    let found = site.cache().verify(&world.engine, &backend, &run).unwrap();
    let mut different = found.different.clone();
    different.sort();
    assert_eq!((different, found.matching), (vec!["f07".to_owned(), "large".to_owned()], 30));
    assert_eq!((progress.snapshot().files_done, progress.snapshot().files_total), (32, 32));
    assert_eq!(progress.snapshot().bytes_done, 9 * MIB as u64 + 30 * 10);
    assert_eq!(progress.snapshot().bytes_sent, 0, "what is downloaded is not sent");
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2));
    check_idle(&world, &site);
}

/// One object that may not be read does not hide what is wrong with the others.
#[test]
fn object_that_cannot_be_read_is_reported_beside_the_others() {
    let world = World::new();
    for n in 0..20 {
        world.write(&format!("f{n:02}"), "x");
    }
    let site = world.orchestrator();
    site.rescan().unwrap();
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), Vec::new())).method("GET").path_contains("f05"));
    world.proxy.add(Rule::new(Fault::DropAnswer).method("GET").path_contains("f06").times(1));
    world.store.corrupt(&format!("{PREFIX}f19"), b"y");
    let backend: Arc<dyn StorageBackend> = world.backend();
    let run = Run::new().verify(Verify::Content);
    let found = site.cache().verify(&world.engine, &backend, &run).unwrap();
    assert_eq!((found.contents, found.different.as_slice()), (18, ["f19".to_owned()].as_slice()));
    assert_eq!((found.failed[0].key(), found.failed[0].kind()), (Some("f05"), ErrorKind::AccessDenied));
    assert!(found.failed[0].to_string().contains("s3:GetObject"), "{}", found.failed[0]);
}

/// A store that goes away, or a caller who has had enough, ends it; nothing is taken for lost.
#[test]
fn contents_stop_with_the_store_and_with_the_caller() {
    let world = World::new();
    for n in 0..50 {
        world.write(&format!("f{n:02}"), "x");
    }
    let site = world.orchestrator();
    site.rescan().unwrap();
    let backend: Arc<dyn StorageBackend> = world.backend();
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("GET").path_contains("/f"));
    let run = Run::new().verify(Verify::Content);
    let found = site.cache().verify(&world.engine, &backend, &run).unwrap();
    assert!(!found.complete && !found.is_good() && found.contents == 0, "{found:?}");
    assert!(found.failed.iter().all(|error| error.kind() == ErrorKind::Server) && found.failed_count < 50);
    world.proxy.clear_rules();
    let cancel = CancelToken::new();
    cancel.cancel();
    let error = site.cache().verify(&world.engine, &backend, &run.cancel(cancel)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(site.cache().published_count().unwrap(), 50);
    check_idle(&world, &site);
}

/// A new exclude rule deletes nothing: what is published is kept, said, and taken up again without being
/// sent when the rule goes.
#[test]
fn f9_excluded_files_are_not_published_and_published_ones_are_kept() {
    let world = World::new();
    for key in ["index.html", "app.js", "app.js.map", "src/a.map", "src/b.rs", "node_modules/x/y.js"] {
        world.write(key, key);
    }
    let some = || RescanConfig::new().exclude("*.map");
    let site = world.orchestrator_with(some());
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.scanned), (RescanOutcome::Published, 4));
    assert_eq!(world.keys(), ["app.js", "index.html", "node_modules/x/y.js", "src/b.rs"]);
    drop(site);

    let site = world.orchestrator_with(some().exclude("node_modules/"));
    let report = site.rescan().unwrap();
    assert_eq!(report.outcome, RescanOutcome::Unchanged);
    assert_eq!(kept(&report), [("node_modules/x/y.js", KeptReason::Excluded)]);
    fs::remove_dir_all(world.path("node_modules")).unwrap();
    world.remove("src/b.rs");
    let report = site.rescan().unwrap();
    assert_eq!((report.deleted, report.kept_count), (vec!["src/b.rs".to_owned()], 1));
    assert!(world.keys().contains(&"node_modules/x/y.js".to_owned()));
    drop(site);

    let site = world.orchestrator_with(RescanConfig::new().include("*.html").include("/src"));
    let report = site.rescan().unwrap();
    assert_eq!((report.uploaded[0].key.as_str(), report.uploaded_count), ("src/a.map", 1));
    assert_eq!(report.kept_count, 2, "app.js, node_modules/x/y.js");
    drop(site);

    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.uploaded_count, report.deleted_count), (1, 1));
    check_idle(&world, &site);
}

/// An excluded folder is not even looked into: it may be unreadable, or hold what is left of a mount.
#[test]
fn f9_a_root_with_nothing_but_excluded_files_counts_as_empty() {
    let world = World::new();
    world.write("a", "1");
    world.write("lost+found/x", "1");
    let site = world.orchestrator_with(RescanConfig::new().exclude("lost+found"));
    site.rescan().unwrap();
    world.remove("a");
    let error = site.rescan().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RootEmpty);
    assert_eq!(world.keys(), ["a"]);
}

#[test]
fn a_wrong_pattern_is_refused_before_anything_is_done() {
    let world = World::new();
    let config = RescanConfig::new().exclude("[");
    let made = bucket_brigade::RescanOrchestrator::with_config(
        &world.engine,
        world.root(),
        world.backend(),
        world.cache(),
        config,
    );
    let error = made.unwrap_err();
    assert!(error.to_string().contains("exclude: \"[\""), "{error}");
}
