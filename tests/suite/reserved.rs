//! The reserved name `.brigade`: what has it in a tree is not published, and what has it in a bucket is a publisher's
//! state.

use std::path::Path;

use bucket_brigade::{
    ErrorKind, Event, FirstRun, RescanConfig, RescanOutcome, RescanReport, Run, SkipReason, UnknownObjects,
    Verify,
};

use crate::network::rescan;
use crate::support::World;
use crate::support::oracle::check_idle;

/// The objects of another publisher below `blog/`, one of which is listed before the head.
const BLOG: [&str; 5] = ["blog/!a", "blog/.brigade/delta/1", "blog/.brigade/head", "blog/a/b", "blog/z"];

fn first_run(policy: FirstRun) -> RescanConfig {
    RescanConfig::new().first_run(policy)
}

/// A world with some files, all of which are published without its cache, and with objects of others.
fn filled(others: &[&str]) -> World {
    let world = World::new();
    for n in 0..6 {
        world.write(&format!("d{}/f{n}", n % 2), format!("content {n}"));
        world.stranger(&format!("d{}/f{n}", n % 2), &format!("content {n}"));
    }
    for key in others {
        world.stranger(key, "theirs");
    }
    world.let_files_settle();
    world
}

/// Runs a test on listings in every order, in pages of several sizes.
fn in_any_listing(others: &[&str], test: impl Fn(World)) {
    for unordered in [false, true] {
        for keys in [1, 3, 1000] {
            let world = filled(others);
            world.store.lists_out_of_order(unordered);
            world.store.page_limit(keys);
            test(world);
        }
    }
}

/// The names of other publishers' folders in the log, once for each time they were logged.
fn warned_of(world: &World) -> Vec<String> {
    let events = world.events.lock().unwrap();
    let of_others = |event: &Event| match event {
        Event::Log { message, fields, .. } if message.contains("belong to other publishers") => {
            fields.iter().find(|(name, _)| *name == "folders").map(|(_, value)| value.clone())
        }
        _ => None,
    };
    events.iter().filter_map(of_others).collect()
}

fn skipped(report: &RescanReport) -> Vec<(&Path, SkipReason)> {
    report.skipped.iter().map(|skip| (skip.path.as_path(), skip.reason)).collect()
}

#[test]
fn reserved_names_are_not_published_whatever_includes_them() {
    for config in [RescanConfig::new(), RescanConfig::new().include("**/.brigade/**").include("*")] {
        let world = World::new();
        for key in [".brigade/head", ".brigade/delta/1", "a/b/.brigade/x", "c/.brigade", "c/.brigade-no", "d"]
        {
            world.write(key, "x");
        }
        world.let_files_settle();
        let site = world.orchestrator_with(config);
        let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
        let report = rescan(&world, &site);
        let expected = [".brigade", "a/b/.brigade", "c/.brigade"];
        let expected = expected.map(|path| (Path::new(path), SkipReason::Reserved));
        assert_eq!((skipped(&report), skipped(&planned)), (expected.to_vec(), expected.to_vec()));
        assert_eq!((report.scanned, report.skipped_count, planned.uploaded_count), (2, 3, 2));
        assert_eq!(world.keys(), ["c/.brigade-no", "d"]);
        check_idle(&world, &site);
    }
}

/// A folder that becomes reserved by its name is gone like any other, and one that loses the name is published.
#[test]
fn renamed_folders_come_and_go() {
    let world = World::new();
    world.write("a/x", "x");
    world.write(".brigade/y", "y");
    let site = world.orchestrator();
    rescan(&world, &site);
    std::fs::rename(world.path("a"), world.path(".brigade-old")).unwrap();
    std::fs::rename(world.path(".brigade"), world.path("b")).unwrap();
    std::fs::rename(world.path(".brigade-old"), world.path(".brigade")).unwrap();
    world.remember("b/y", b"y");
    let report = rescan(&world, &site);
    assert_eq!((report.deleted, world.keys()), (vec!["a/x".to_owned()], vec!["b/y".to_owned()]));
}

#[test]
fn own_state_is_neither_taken_over_nor_counted_nor_deleted() {
    // A head itself ends a run that keeps its state on its machine.
    let state = [".brigade", ".brigade/delta/1", ".brigade/snapshot/1", ".brigade/x/.brigade/head"];
    for policy in [FirstRun::Adopt, FirstRun::Mirror, FirstRun::Overwrite, FirstRun::Refuse] {
        let world = World::new();
        world.write(".brigade/head", "theirs");
        world.write("f", "x");
        for key in state {
            world.stranger(key, "theirs");
        }
        world.let_files_settle();
        let site = world.orchestrator_with(first_run(policy));
        let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        for report in [&planned, &report] {
            assert_eq!(
                (report.uploaded_count, report.deleted_count, report.kept_count),
                (1, 0, 0),
                "{policy:?}"
            );
            assert_eq!(report.adoption.map_or(0, |found| found.listed), 0, "{policy:?}");
        }
        assert_eq!(report.unknown_objects.map_or(0, |unknown| unknown.count), 0);
        let verified = report.verified.as_ref().unwrap();
        assert_eq!((verified.matching, verified.unknown_count, verified.is_good()), (1, 0, true));
        assert_eq!(warned_of(&world), [""; 0]);
        check_idle(&world, &site);
    }
}

#[test]
fn mirror_leaves_the_folders_of_other_publishers_alone() {
    let others = [&BLOG[..], &["old/1", "old/2", "x/y/1", "x/y/.brigade/head", "x/1"]].concat();
    in_any_listing(&others, |world| {
        // A file in their folder is sent, although its object holds it.
        world.write("blog/z", "theirs");
        world.let_files_settle();
        let site = world.orchestrator_with(first_run(FirstRun::Mirror));
        let planned = site.rescan_with(&Run::new().dry_run(true)).unwrap();
        for key in ["old/1", "old/2", "x/1"] {
            world.strangers.lock().unwrap().remove(key);
        }
        let report = rescan(&world, &site);
        for report in [&planned, &report] {
            let mut deleted = report.deleted.clone();
            deleted.sort_unstable();
            assert_eq!(deleted, ["old/1", "old/2", "x/1"]);
            let sent: Vec<_> = report.uploaded.iter().map(|file| file.key.as_str()).collect();
            assert_eq!((sent, report.adopted_count), (vec!["blog/z"], 6));
            let found = report.adoption.unwrap();
            assert_eq!((found.listed, found.without_file, found.different), (9, 3, 0));
        }
        assert_eq!(warned_of(&world), ["blog/ x/y/", "blog/ x/y/"]);
        check_idle(&world, &site);
        assert!(BLOG.iter().all(|key| world.objects().contains_key(*key)));
        // What we stored there is ours, and is deleted with its file.
        world.remove("blog/z");
        world.strangers.lock().unwrap().remove("blog/z");
        assert_eq!(rescan(&world, &site).deleted, ["blog/z"]);
    });
}

#[test]
fn objects_of_other_publishers_are_not_adopted_or_counted() {
    in_any_listing(&[&BLOG[..], &["theirs", "blogs/x"]].concat(), |world| {
        for key in ["blog/!a", "blog/z"] {
            world.write(key, "theirs");
        }
        world.write("blog/new", "x");
        world.let_files_settle();
        let site = world.orchestrator();
        let report = rescan(&world, &site);
        assert_eq!((report.adopted_count, report.uploaded_count), (6, 3));
        assert_eq!(report.unknown_objects.unwrap().count, 2);
        let found = report.adoption.unwrap();
        assert_eq!((found.listed, found.without_file, found.different), (8, 2, 0));
        assert_eq!(warned_of(&world), ["blog/"]);
        let report = site.rescan_with(&Run::new().verify(Verify::List)).unwrap();
        let verified = report.verified.unwrap();
        assert!(verified.is_good() && verified.matching == 9);
        check_idle(&world, &site);
    });
}

#[test]
fn other_publishers_are_no_reason_to_refuse() {
    in_any_listing(&BLOG, |world| {
        world.strangers.lock().unwrap().clear();
        for n in 0..6 {
            world.store.remove_raw(&format!("site/d{}/f{n}", n % 2));
        }
        for key in BLOG {
            world.stranger(key, "theirs");
        }
        let site = world.orchestrator_with(first_run(FirstRun::Refuse));
        let report = rescan(&world, &site);
        assert_eq!(report.unknown_objects.map(|unknown| unknown.count), Some(0));
        assert_eq!(report.uploaded_count, 6);
    });
    in_any_listing(&[&BLOG[..], &["e/theirs"]].concat(), |world| {
        let site = world.orchestrator_with(first_run(FirstRun::Refuse));
        assert_eq!(site.rescan().unwrap_err().kind(), ErrorKind::FirstRunRefused);
        assert!(world.store.puts().is_empty());
    });
}

/// One page tells all; of several, those up to the first one that has an unknown object.
#[test]
fn unknown_objects_are_counted_without_those_of_other_publishers() {
    for (keys, expected) in [(1000, (7, false)), (5, (5, true))] {
        let world = filled(&[&BLOG[..], &["theirs"]].concat());
        world.store.page_limit(keys);
        let site = world.orchestrator_with(first_run(FirstRun::Overwrite));
        let report = rescan(&world, &site);
        let UnknownObjects { count, at_least, .. } = report.unknown_objects.unwrap();
        assert_eq!((count, at_least), expected);
        assert_eq!((report.uploaded_count, report.outcome), (6, RescanOutcome::Published));
    }
}

/// A page that has only objects of a state looks empty, and a thousand of those looked like a listing without end.
#[test]
fn pages_of_nothing_but_a_state_are_no_endless_listing() {
    let world = filled(&[]);
    for n in 0..1010 {
        world.stranger(&format!(".brigade/delta/{n}"), "x");
    }
    world.store.page_limit(1);
    let site = world.orchestrator();
    let report = rescan(&world, &site);
    assert_eq!((report.adopted_count, report.uploaded_count), (6, 0));
    let verified = site.rescan_with(&Run::new().verify(Verify::List)).unwrap().verified.unwrap();
    assert_eq!((verified.matching, verified.unknown_count), (6, 0));
}

#[cfg(feature = "cli")]
#[test]
fn command_says_that_the_name_is_reserved() {
    let world = World::new();
    world.write("a/.brigade/x", "x");
    world.write("b", "x");
    let shell = crate::command::Shell::of(&world);
    let why = "a/.brigade: the name .brigade is reserved for the state in the bucket";
    let planned = shell.plan(&world, &["--json"]).code(0).json();
    assert_eq!(planned["skipped_list"][0].as_str(), Some(why));
    shell.sync(&world, &[]).code(0).says(&format!("skipped {why}")).shows("1 skipped");
}
