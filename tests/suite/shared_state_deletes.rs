//! What is deleted where several machines publish one tree (I3): the state in the bucket must tell each of them what the
//! others knew.

use std::collections::BTreeSet;

#[cfg(target_os = "linux")]
use bucket_brigade::KeptReason;
use bucket_brigade::{RescanOutcome, RescanReport, StopReason, TooMany};

use crate::shared_state::{Machine, published};
use crate::support::World;
use crate::support::proxy::{Fault, Rule};

/// Files of a tree: more than are ever deleted without a further check.
const FILES: usize = 31;

fn keys(tree: &str) -> Vec<String> {
    (0..FILES).map(|number| format!("{tree}-{number}")).collect()
}

/// A machine without a cache, with a tree of that name.
fn machine<'a>(world: &'a World, tree: &str) -> Machine<'a> {
    let machine = Machine::new(world, &[]);
    for key in keys(tree) {
        machine.write(&key, tree);
    }
    machine
}

fn assert_holds(world: &World, trees: &[&str]) {
    let expected: BTreeSet<_> = trees.iter().flat_map(|tree| keys(tree)).collect();
    assert_eq!(published(world).into_keys().collect::<BTreeSet<_>>(), expected);
}

fn assert_refused(report: &RescanReport) {
    let refused = report.deletes_refused.map(|refused| refused.reason);
    assert_eq!(refused, Some(TooMany::NoneInCommon), "{report:?}");
    let end = (report.outcome, report.stop_reason, report.deleted_count);
    assert_eq!(end, (RescanOutcome::Partial, Some(StopReason::DeletesRefused), 0), "{report:?}");
}

/// The keys that an incomplete run had added were marked in the cache of its machine alone. A wrong tree whose deletes
/// were refused there passed on its second run from a fresh machine: it found its own files published, and the right
/// tree was deleted. The rows of the state have the marks now.
#[test]
fn i3_wrong_tree_that_was_refused_is_refused_on_every_other_machine() {
    let world = World::new();
    let first = machine(&world, "right");
    assert_eq!(first.publish().outcome, RescanOutcome::Published);
    let wrong = machine(&world, "wrong");
    assert_refused(&wrong.publish());
    assert_refused(&wrong.publish());
    for _ in 0..2 {
        let fresh = machine(&world, "wrong");
        assert_refused(&fresh.publish());
        // The same rows, changed by this machine.
        fresh.write("wrong-0", "changed");
        assert_refused(&fresh.publish());
        assert_holds(&world, &["right", "wrong"]);
    }
    // Another wrong tree is added by a machine that has never seen a complete run.
    assert_refused(&machine(&world, "other").publish());
    assert_refused(&machine(&world, "other").publish());
    assert_holds(&world, &["right", "wrong", "other"]);
    // Any machine may clear away what incomplete runs have added.
    let report = machine(&world, "right").publish();
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 62), "{report:?}");
    assert_holds(&world, &["right"]);
    assert_eq!(first.publish().outcome, RescanOutcome::Unchanged);
}

/// Keys that an incomplete run has added belong to the tree once a run with them was complete, also for a machine that
/// learns of both later: it compares the next tree with them.
#[test]
fn i3_what_a_complete_run_has_kept_is_part_of_the_tree_on_every_machine() {
    let world = World::new();
    let first = machine(&world, "old");
    assert_eq!(first.publish().outcome, RescanOutcome::Published);
    let second = machine(&world, "new");
    assert_refused(&second.publish());
    // It knows the new keys as those of an incomplete run.
    let third = machine(&world, "new");
    assert_refused(&third.publish());
    // With the old files beside them the new ones are a complete tree, and then they are one alone.
    for key in keys("old") {
        second.write(&key, "old");
    }
    second.write("new-0", "changed");
    assert_eq!(second.publish().outcome, RescanOutcome::Published);
    for key in keys("old") {
        second.remove(&key);
    }
    assert_eq!(second.publish().deleted_count, FILES as u64);
    // Now another tree is the wrong one, for a machine that has followed and for one that has not.
    assert_refused(&machine(&world, "wrong").publish());
    for key in keys("new") {
        third.remove(&key);
    }
    for key in keys("wrong") {
        third.write(&key, "wrong");
    }
    assert_refused(&third.publish());
    assert_holds(&world, &["new", "wrong"]);
}

/// A run that found nothing to do was complete for its own cache, and left no trace in the bucket: for all others the
/// keys of its tree stayed those of an incomplete run, which may be deleted without a further check.
#[test]
fn i3_run_that_finds_the_tree_published_by_an_incomplete_one_makes_it_the_complete_one() {
    let world = World::new();
    let first = Machine::new(&world, &[("index", "1")]);
    assert_eq!(first.publish().outcome, RescanOutcome::Published);
    add_files(&first);
    // One file cannot be sent, and goes away.
    first.write("bad", "1");
    world
        .proxy
        .add(Rule::new(Fault::Answer(400, Vec::new(), Vec::new())).method("PUT").path_contains("/bad"));
    assert_eq!(first.publish().outcome, RescanOutcome::Partial);
    first.remove("bad");
    let report = first.publish();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
    assert_eq!(report.state.unwrap().generation, 2);
    assert_keeps_files(&world);
}

const ADDED: u64 = 40;

fn add_files(machine: &Machine<'_>) {
    (0..ADDED).map(|number| format!("late-{number}")).for_each(|key| machine.write(&key, "1"));
}

/// The disk with all files but one is missing on a fresh machine.
fn assert_keeps_files(world: &World) {
    let report = Machine::new(world, &[("index", "1")]).publish();
    let refused = report.deletes_refused.map(|refused| refused.reason);
    assert_eq!((refused, report.deleted_count), (Some(TooMany::Shrunk), 0), "{report:?}");
    assert_eq!(published(world).len() as u64, ADDED + 1);
}

#[cfg(target_os = "linux")]
fn run(program: &str, args: &[&str], place: &std::path::Path) -> bool {
    let output = std::process::Command::new(program).args(args).arg(place).output();
    output.is_ok_and(|output| output.status.success())
}

/// A row that another machine had changed was recorded as one of the root's own device. Once the disk was not mounted
/// any more, its object was deleted. The record keeps the device now. Where nothing may be mounted, there is nothing to
/// be seen.
#[test]
#[cfg(target_os = "linux")]
fn i3_file_on_a_disk_that_is_gone_is_kept_although_another_machine_has_changed_it() {
    let world = World::new();
    let one = Machine::new(&world, &[("b", "1")]);
    let disk = one.root().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if !run("mount", &["-t", "tmpfs", "tmpfs"], &disk) {
        eprintln!("nothing may be mounted here");
        return;
    }
    one.write("disk/a", "1");
    let report = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one.publish()));
    assert!(run("umount", &[], &disk));
    assert_eq!(report.unwrap().uploaded_count, 2);
    let two = Machine::new(&world, &[("b", "1"), ("disk/a", "2")]);
    assert_eq!(two.publish().uploaded_count, 1);
    let report = one.publish();
    let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
    assert_eq!((kept, report.deleted_count), (vec![("disk/a", KeptReason::OtherDevice)], 0));
    assert_eq!(published(&world)["disk/a"], "2");
}
