//! Ignore files and limits of size: what they leave out is not published, and what was published before is kept.

use std::fs;
use std::os::unix::fs::symlink;

use bucket_brigade::{
    ErrorKind, FirstRun, FollowSymlinks, KeptReason, RescanConfig, RescanOrchestrator, RescanOutcome,
    RescanReport, Run, StorageError, Verify,
};

use crate::network::rescan;
use crate::support::oracle::{check, check_idle};
use crate::support::{PREFIX, World};

fn world(files: &[(&str, &str)]) -> World {
    let world = World::new();
    for (key, text) in files {
        world.write(key, text);
    }
    world.let_files_settle();
    world
}

fn kept(report: &RescanReport) -> Vec<(&str, KeptReason)> {
    report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect()
}

/// The keys that a report says were sent, deleted and kept, each sorted.
fn done(report: &RescanReport) -> [Vec<String>; 3] {
    let mut done = [
        report.uploaded.iter().map(|uploaded| uploaded.key.clone()).collect(),
        report.deleted.clone(),
        report.kept.iter().map(|kept| format!("{}: {}", kept.key, kept.reason.as_str())).collect::<Vec<_>>(),
    ];
    for keys in &mut done {
        keys.sort();
    }
    done
}

/// A dry run, then the run: both say the same.
fn foreseen(site: &RescanOrchestrator) -> RescanReport {
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
    let report = site.rescan().unwrap();
    assert_eq!(done(&planned), done(&report));
    assert_eq!((planned.scanned, planned.outside_sizes), (report.scanned, report.outside_sizes));
    report
}

/// I5: nothing is sent, and nothing committed, however much is left out.
fn idle(world: &World, site: &RescanOrchestrator) {
    world.let_files_settle();
    site.rescan().unwrap();
    let report = site.rescan().unwrap();
    assert_eq!((report.outcome, report.pending), (RescanOutcome::Unchanged, 0), "{report:?}");
    assert_eq!(report.metrics.requests + report.metrics.bytes_hashed + report.metrics.commits, 0, "I5");
}

/// A rescan that must not do anything.
fn refused(world: &World, site: &RescanOrchestrator) -> StorageError {
    let before = world.objects();
    world.proxy.clear_counts();
    let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap_err();
    let error = site.rescan().unwrap_err();
    assert_eq!((planned.to_string(), error.kind()), (error.to_string(), ErrorKind::Config));
    assert_eq!(world.proxy.requests().len(), 0, "nothing was sent");
    assert_eq!(world.objects(), before);
    error
}

const BUILT: [(&str, &str); 9] = [
    (".brigadeignore", "# of the build\n*.log\n/cache/\ndrafts/\n!keep.log\n"),
    ("a.log", "1"),
    ("app.js", "2"),
    ("cache/x", "3"),
    ("docs/.brigadeignore", "!b.log\n*.tmp\n"),
    ("docs/b.log", "4"),
    ("docs/c.tmp", "5"),
    ("docs/cache/x", "6"),
    ("keep.log", "7"),
];

#[test]
fn nested_ignore_files_decide_what_is_published_and_are_not_published_themselves() {
    let world = world(&BUILT);
    let site = world.orchestrator();
    let report = foreseen(&site);
    assert_eq!((report.outcome, report.scanned, report.skipped_count), (RescanOutcome::Published, 4, 0));
    assert_eq!(world.keys(), ["app.js", "docs/b.log", "docs/cache/x", "keep.log"]);
    idle(&world, &site);
    drop(site);

    // Patterns come on top.
    let site = world.orchestrator_with(RescanConfig::new().include("docs").include("*.log").exclude("cache"));
    let report = foreseen(&site);
    assert_eq!((report.scanned, report.uploaded_count), (2, 0));
    assert_eq!(kept(&report), [("app.js", KeptReason::Excluded), ("docs/cache/x", KeptReason::Excluded)]);
    drop(site);

    // Without them, all files are.
    let site = world.orchestrator_with(RescanConfig::new().ignore_files(false));
    let report = foreseen(&site);
    assert_eq!((report.uploaded_count, world.keys().len()), (5, 9));
    check(&world, &site, &report);
    check_idle(&world, &site);
    drop(site);

    // The files that say it were published, and stay.
    let site = world.orchestrator();
    let report = foreseen(&site);
    assert_eq!((report.outcome, report.kept_count, world.keys().len()), (RescanOutcome::Unchanged, 5, 9));
    assert_eq!(kept(&report)[0], (".brigadeignore", KeptReason::Excluded));
}

/// I3: a published file that becomes ignored is kept and reported, also if it is gone, also with its folder. Taken back,
/// it is published again.
#[test]
fn i3_file_that_becomes_ignored_is_kept_until_its_rule_goes() {
    let world =
        world(&[("a/x.tmp", "1"), ("a/y.tmp", "2"), ("b/c/z.tmp", "3"), ("b/plain", "4"), ("index", "5")]);
    let site = world.orchestrator();
    rescan(&world, &site);
    world.write(".brigadeignore", "*.tmp\n");
    let report = foreseen(&site);
    let ignored = ["a/x.tmp", "a/y.tmp", "b/c/z.tmp"].map(|key| (key, KeptReason::Excluded));
    assert_eq!((report.outcome, kept(&report)), (RescanOutcome::Unchanged, ignored.to_vec()));
    idle(&world, &site);

    // Gone by now, with the file or with its folder.
    world.remove("a/y.tmp");
    fs::remove_dir_all(world.path("b")).unwrap();
    world.write("a/x.tmp", "changed");
    let report = foreseen(&site);
    assert_eq!((report.deleted.as_slice(), kept(&report)), (&["b/plain".to_owned()][..], ignored.to_vec()));
    idle(&world, &site);
    // A verification that finds an ignored object missing cannot repair it, and deletes nothing.
    let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
    assert!(report.verified.as_ref().unwrap().is_good() && report.deleted_count == 0, "{report:?}");
    assert_eq!(world.keys(), ["a/x.tmp", "a/y.tmp", "b/c/z.tmp", "index"]);

    // A deeper file takes one back.
    world.write("a/.brigadeignore", "!x.tmp\n");
    let report = foreseen(&site);
    assert_eq!((report.uploaded[0].key.as_str(), report.uploaded_count), ("a/x.tmp", 1));
    assert_eq!(kept(&report), ignored[1..]);
    // Without any, what is gone is deleted.
    world.remove(".brigadeignore");
    world.remove("a/.brigadeignore");
    let report = foreseen(&site);
    assert_eq!(
        (report.deleted_count, report.kept_count, world.keys()),
        (2, 0, vec!["a/x.tmp".to_owned(), "index".to_owned()])
    );
    check_idle(&world, &site);
}

/// A wrong rule may be the one that holds back a secret: the run ends before anything is sent, uploaded or deleted.
#[test]
fn ignore_file_that_cannot_be_used_blocks_the_run_and_is_named_with_its_line() {
    let world = world(&[("a", "1"), ("m/a", "1"), ("z", "1")]);
    let site = world.orchestrator();
    rescan(&world, &site);
    world.write("b", "new");
    world.write("zz", "new");
    world.remove("z");
    world.write("m/.brigadeignore", "# rules\n\nsecret[\n");
    let error = refused(&world, &site);
    let place = format!("ignore_files: {}, line 3: \"secret[\"", world.path("m/.brigadeignore").display());
    let place = place.replace(", line", ": line");
    assert!(error.to_string().contains(&place), "{error}");

    // What cannot be read as a file: a folder, and a FIFO that nobody writes to.
    world.remove("m/.brigadeignore");
    fs::create_dir(world.path("m/.brigadeignore")).unwrap();
    assert!(refused(&world, &site).to_string().contains("it is not a regular file"));
    fs::remove_dir(world.path("m/.brigadeignore")).unwrap();
    let (fifo, kind) = (world.path("m/.brigadeignore"), rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(refused(&world, &site).to_string().contains("it is not a regular file"));
    world.remove("m/.brigadeignore");

    // A link is followed only where links are.
    symlink("../rules", world.path("m/.brigadeignore")).unwrap();
    world.write("rules", "a\n");
    assert!(refused(&world, &site).to_string().contains("it is a symbolic link"));
    drop(site);
    let site = world.orchestrator_with(RescanConfig::new().follow_symlinks(FollowSymlinks::Inside));
    let report = foreseen(&site);
    assert_eq!(kept(&report), [("m/a", KeptReason::Excluded)]);
    assert_eq!(world.keys(), ["a", "b", "m/a", "rules", "zz"]);
}

/// The first entry of the tree tells nothing: the whole tree is looked through before a new cache sends its first file.
#[test]
fn wrong_rule_at_the_end_of_a_new_tree_blocks_its_beginning() {
    let world = world(&[("a", "1"), ("b/c", "1"), ("z/z/.brigadeignore", "\\"), ("z/z/z", "1")]);
    let site = world.orchestrator();
    assert!(refused(&world, &site).to_string().contains("line 1"));
    assert_eq!(world.keys(), [""; 0]);
    world.write("z/z/.brigadeignore", "\\\\");
    foreseen(&site);
    assert_eq!(world.keys(), ["a", "b/c", "z/z/z"]);
    idle(&world, &site);
}

#[test]
fn tree_of_which_every_file_is_left_out_counts_as_empty() {
    for (rules, config) in [("*\n", RescanConfig::new()), ("", RescanConfig::new().min_size(2))] {
        let world = world(&[("a", "1")]);
        let site = world.orchestrator();
        rescan(&world, &site);
        drop(site);
        world.write(".brigadeignore", rules);
        let site = world.orchestrator_with(config);
        let error = site.rescan().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RootEmpty);
        assert!(error.to_string().contains("patterns, ignore files and sizes leave no file"), "{error}");
        assert_eq!(world.keys(), ["a"]);
    }
}

/// Both paths of what is reached through a link count, also for what was published before.
#[test]
fn link_to_what_is_ignored_is_not_published_and_what_was_is_kept() {
    let world = world(&[("private/a", "1"), ("private/b", "2"), ("z", "3")]);
    fs::create_dir(world.path("links")).unwrap();
    symlink("../private", world.path("links/all")).unwrap();
    symlink("../private/a", world.path("links/one")).unwrap();
    let site = world.orchestrator_with(RescanConfig::new().follow_symlinks(FollowSymlinks::Inside));
    assert_eq!(foreseen(&site).uploaded_count, 6);
    world.write("private/.brigadeignore", "a\n");
    let report = foreseen(&site);
    let ignored = ["links/all/a", "links/one", "private/a"].map(|key| (key, KeptReason::Excluded));
    assert_eq!(
        (report.outcome, report.scanned, kept(&report)),
        (RescanOutcome::Unchanged, 3, ignored.to_vec())
    );
    idle(&world, &site);
    world.remove("private/a");
    let mut left = ignored;
    // It leads nowhere now.
    left[1].1 = KeptReason::Skipped;
    assert_eq!(kept(&foreseen(&site)), left);
}

/// I3: a file that grows too large keeps its old version in the store until it fits again.
#[test]
fn i3_sizes_leave_out_files_and_keep_what_was_published_of_them() {
    let world = world(&[("empty", ""), ("large", "123456"), ("max", "12345"), ("min", "12"), ("small", "1")]);
    let sized = || RescanConfig::new().min_size(2).max_size(5);
    let site = world.orchestrator_with(sized());
    let report = foreseen(&site);
    assert_eq!((report.outcome, report.scanned, report.outside_sizes), (RescanOutcome::Published, 2, 3));
    assert_eq!(world.keys(), ["max", "min"]);
    idle(&world, &site);

    world.write("max", "123456");
    world.write("min", "1");
    world.write("small", "12");
    let report = foreseen(&site);
    let outside = ["max", "min"].map(|key| (key, KeptReason::OutsideSizes));
    assert_eq!((report.uploaded_count, report.outside_sizes, kept(&report)), (1, 4, outside.to_vec()));
    assert_eq!(world.objects()["max"], b"12345", "the old version");
    idle(&world, &site);
    let report = site.rescan_with(&Run::new().verify(Verify::Content)).unwrap();
    assert_eq!((report.outcome, report.kept_count), (RescanOutcome::Unchanged, 2));
    assert_eq!(report.outside_sizes, 4);

    // One fits again, the other is gone.
    world.write("max", "abc");
    world.remove("min");
    let report = foreseen(&site);
    assert_eq!((report.uploaded_count, report.deleted.as_slice()), (1, &["min".to_owned()][..]));
    assert_eq!((world.objects()["max"].as_slice(), report.kept_count), (&b"abc"[..], 0));
    drop(site);

    let site = world.orchestrator();
    let report = foreseen(&site);
    assert_eq!((report.uploaded_count, report.outside_sizes), (2, 0));
    check_idle(&world, &site);
}

#[test]
fn range_of_sizes_that_holds_none_is_refused() {
    let world = World::new();
    let config = RescanConfig::new().min_size(5).max_size(4);
    let made =
        RescanOrchestrator::with_config(&world.engine, world.root(), world.backend(), world.cache(), config);
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("max_size: 4 is less than min_size, 5"), "{error}");
}

/// A bucket that somebody filled: what is left out is neither taken over, nor sent, nor deleted by a mirror.
#[test]
fn first_run_leaves_what_is_ignored_or_too_large_as_it_is() {
    for policy in [FirstRun::Adopt, FirstRun::Mirror] {
        let world = world(&[
            (".brigadeignore", "*.log\n"),
            ("a", "1"),
            ("b.log", "2"),
            ("d/.brigadeignore", "!c.log\n"),
            ("d/c.log", "3"),
            ("large", "1234567890"),
            ("new", "4"),
        ]);
        let there = ["a", "b.log", "d/c.log", "d/gone.log", "gone", "gone.log", ".brigadeignore", "large"];
        for key in there {
            // Objects of the files that they have the names of, or of files that are gone.
            let bytes = fs::read(world.path(key)).unwrap_or_else(|_| b"left".to_vec());
            world.store.put_raw(&format!("{PREFIX}{key}"), String::from_utf8(bytes).unwrap());
        }
        let site = world.orchestrator_with(RescanConfig::new().first_run(policy).max_size(9));
        let report = foreseen(&site);
        let mut adopted = report.adopted.clone();
        adopted.sort();
        assert_eq!((adopted, report.uploaded_count), (vec!["a".to_owned(), "d/c.log".to_owned()], 1));
        let mut expected = there.to_vec();
        let mut left = Vec::new();
        if policy == FirstRun::Mirror {
            expected.retain(|key| *key != "gone");
            left = [".brigadeignore", "b.log", "d/gone.log", "gone.log"]
                .map(|key| (key, KeptReason::Excluded))
                .to_vec();
            left.push(("large", KeptReason::OutsideSizes));
        }
        expected.push("new");
        expected.sort_unstable();
        let mut kept = kept(&report);
        kept.sort_unstable_by_key(|(key, _)| *key);
        assert_eq!(
            (world.keys(), kept),
            (expected.into_iter().map(str::to_owned).collect(), left),
            "{policy:?}"
        );
        idle(&world, &site);
    }
}
