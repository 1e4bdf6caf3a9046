//! D2: a publisher is killed (SIGKILL) at each of its requests. What it had claimed is taken over once the lease is over,
//! by another machine with another tree, or by the same machine with the same cache.

use std::time::{Duration, Instant};

use bucket_brigade::{RemoteState, StopReason};
use serde_json::Value;

use crate::crash::RandomInstants;
use crate::publishers::{LARGE, PUBLISHED, Place, Publisher, UNCHANGED, outcome, published, wait_for};
use crate::shared_state::requests;
use crate::shared_state_faults::{self, AFTER_LEASE, HEAD, LANDED};
use crate::support::proxy::{Fault, HeldRequest, Rule};
use crate::support::{World, random_bytes};

/// More requests than a run has.
const MOST: u64 = 100;

/// When the request arrives at the store at which the publisher is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lands {
    BeforeTakeover,
    AfterTakeover,
}

/// A world in which a first tree was published completely, and the machine that did it. Its tree has changed since: a
/// new file, a changed one, one that is gone, and a large one.
pub(super) fn changed_tree(world: &World) -> Publisher {
    let one = Publisher::new(
        &Place::of(world),
        &[("a", "1"), ("b", "1"), ("c", "1"), ("gone", "1"), ("large", "small")],
    );
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    one.write("a", "2");
    one.write("new", "2");
    one.write("large", random_bytes(LARGE, 1));
    one.remove("gone");
    requests(world);
    one
}

/// Another machine, whose tree has another large file or none.
pub(super) fn another(world: &World, with_large: bool) -> Publisher {
    let two = Publisher::new(&Place::of(world), &[("a", "3"), ("b", "1"), ("c", "3"), ("other", "3")]);
    if with_large {
        two.write("large", random_bytes(LARGE, 2));
    }
    two
}

/// The store's clock goes forward, and the dates of its answers.
pub(super) fn pass(world: &World, time: Duration) {
    // The first rule that applies counts.
    world.proxy.clear_rules();
    shared_state_faults::pass(world, time);
}

/// The head in the bucket.
pub(super) fn head(world: &World) -> Value {
    serde_json::from_slice(&world.store.get(HEAD).unwrap().bytes).unwrap()
}

/// Whether a run has named keys that it may write.
pub(super) fn has_intents(world: &World) -> bool {
    head(world)["claim"]["intents"].as_array().is_some_and(|intents| !intents.is_empty())
}

/// Nothing can land any more: the next run settles what is in doubt, and the one after it asks for the head.
pub(super) fn settles(world: &World, machine: &Publisher, case: &str) {
    pass(world, LANDED);
    let report = machine.publish();
    assert_eq!((report.failed_count, report.stop_reason), (0, None), "{case} {report:?}");
    assert_eq!(report.state.unwrap().in_doubt, 0, "{case}");
    assert!(published(world) == machine.tree(), "{case} {:?}", published(world).keys());
    requests(world);
    assert_eq!(outcome(&machine.publish()), UNCHANGED, "{case}");
    assert_eq!(requests(world), ["GET .brigade/head"], "{case}");
}

/// A publisher that was killed, and the request that it had sent last.
struct Killed {
    /// False if the run came to its end before.
    before_its_end: bool,
    held: HeldRequest,
    /// `POST large?uploads=` as it lands creates an upload after everybody has looked.
    begins_upload: bool,
}

/// Publishes in a process, which is killed when its k-th request is under way.
fn killed_at(world: &World, one: &Publisher, k: u64, lands: Lands) -> Killed {
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).skip(k - 1).times(1));
    let mut process = one.spawn(300, 0);
    let before_its_end = process.is_held(&held);
    let begins_upload = world.proxy.requests().get(k as usize - 1).is_some_and(|seen| {
        // The records are in the order of arrival, as the rule counts, or nearly.
        seen.target.contains("?uploads")
    });
    drop(process);
    if lands == Lands::BeforeTakeover {
        held.go.release();
    }
    // What else was sent has arrived.
    let still_held = usize::from(before_its_end && lands == Lands::AfterTakeover);
    wait_for("the connections to end", || world.proxy.open_connections() == still_held);
    Killed { before_its_end, held, begins_upload }
}

/// The last request of the killed publisher arrives, if it did not before.
fn last_one_lands(world: &World, killed: &Killed) {
    if killed.before_its_end {
        killed.held.go.release();
        assert!(killed.held.landed.wait());
    }
    wait_for("the connections to end", || world.proxy.open_connections() == 0);
}

/// Runs a case for each request of the publisher, until one comes to its end.
fn at_each_request(case: fn(u64, Lands) -> bool, lands: Lands) {
    let killed = (1..MOST).take_while(|k| case(*k, lands)).count();
    assert!((9..MOST as usize - 1).contains(&killed), "{killed}");
    println!("killed {killed} times, {lands:?}");
}

fn taken_over_by_another(k: u64, lands: Lands) -> bool {
    let case = format!("killed at {k}, {lands:?}");
    let world = World::new();
    let one = changed_tree(&world);
    let killed = killed_at(&world, &one, k, lands);
    let two = another(&world, k.is_multiple_of(2) == (lands == Lands::BeforeTakeover));
    let in_doubt = u64::from(has_intents(&world));
    pass(&world, AFTER_LEASE);
    let report = two.publish();
    assert_eq!(outcome(&report), PUBLISHED, "{case} {:?}", report.failed);
    assert_eq!(report.state.unwrap().in_doubt, in_doubt, "{case}");
    assert!(published(&world) == two.tree(), "{case} {:?}", published(&world).keys());
    assert_eq!(world.store.uploads(), [], "{case}");
    last_one_lands(&world, &killed);
    settles(&world, &two, &case);
    let left = world.store.uploads();
    assert!(left.is_empty() || killed.begins_upload && lands == Lands::AfterTakeover, "{case} {left:?}");
    let report = one.publish();
    assert_eq!(outcome(&report), PUBLISHED, "{case} {:?}", report.failed);
    assert!(published(&world) == one.tree(), "{case} {:?}", published(&world).keys());
    killed.before_its_end
}

fn restarted(k: u64, lands: Lands) -> bool {
    let case = format!("killed at {k}, {lands:?}");
    let world = World::new();
    let one = changed_tree(&world);
    let killed = killed_at(&world, &one, k, lands);
    if k.is_multiple_of(2) && !head(&world)["claim"].is_null() {
        let there = published(&world);
        let report = one.publish();
        assert_eq!(report.stop_reason, Some(StopReason::Claimed), "{case}");
        assert!(published(&world) == there, "{case}");
    }
    pass(&world, AFTER_LEASE);
    let report = one.publish();
    // Its cache may know that every object is there; then only the record of that was missing.
    assert!([PUBLISHED, UNCHANGED].contains(&outcome(&report)), "{case} {:?}", report.failed);
    assert_eq!(report.state.unwrap().generation, 2, "{case}");
    assert!(published(&world) == one.tree(), "{case} {:?}", published(&world).keys());
    assert_eq!(world.store.uploads(), [], "{case}");
    last_one_lands(&world, &killed);
    settles(&world, &one, &case);
    killed.before_its_end
}

#[test]
fn d02_another_machine_takes_over_from_one_that_was_killed_at_any_request() {
    at_each_request(taken_over_by_another, Lands::BeforeTakeover);
}

#[test]
fn d02_last_request_of_a_killed_machine_lands_after_the_takeover() {
    at_each_request(taken_over_by_another, Lands::AfterTakeover);
}

#[test]
fn d02_machine_that_was_killed_at_any_request_goes_on_after_the_lease() {
    at_each_request(restarted, Lands::BeforeTakeover);
}

#[test]
fn d02_last_request_before_the_kill_lands_after_the_restart() {
    at_each_request(restarted, Lands::AfterTakeover);
}

/// The first publication of all: with the probe of the store, and the first head.
fn first_of_all(k: u64) -> bool {
    let lands = if k.is_multiple_of(2) { Lands::BeforeTakeover } else { Lands::AfterTakeover };
    let case = format!("killed at {k}, {lands:?}");
    let world = World::new();
    let one = Publisher::new(&Place::of(&world), &[("a", "1"), ("b", "1"), ("c", "1")]);
    let killed = killed_at(&world, &one, k, lands);
    pass(&world, AFTER_LEASE);
    let two = another(&world, false);
    let report = two.publish_with(RemoteState::new().lease(Duration::from_secs(6)));
    assert_eq!(outcome(&report), PUBLISHED, "{case} {report:?}");
    assert!(published(&world) == two.tree(), "{case} {:?}", published(&world).keys());
    last_one_lands(&world, &killed);
    settles(&world, &two, &case);
    assert_eq!(outcome(&one.publish()), PUBLISHED, "{case}");
    assert!(published(&world) == one.tree(), "{case} {:?}", published(&world).keys());
    killed.before_its_end
}

#[test]
fn d02_first_publisher_of_all_may_be_killed_as_well() {
    let killed = (1..MOST).step_by(4).take_while(|k| first_of_all(*k)).count();
    assert!((8..MOST as usize / 4).contains(&killed), "{killed}");
    println!("killed {killed} times");
}

/// What a checkpoint has published is not sent again by whoever takes over.
#[test]
fn d02_what_was_acknowledged_before_the_last_checkpoint_is_not_sent_again() {
    let world = World::new();
    let place = Place::of(&world);
    let files = [("a", "1"), ("b", "1"), ("c", "1"), ("last", "1")];
    let one = Publisher::new(&place, &files);
    let held = HeldRequest::default();
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/last"));
    // A renewal each second.
    let process = one.spawn(5, 0);
    let rows = || {
        head(&world)["deltas"]
            .as_array()
            .map_or(0, |deltas| deltas.iter().map(|delta| delta["inline"]["rows"].as_u64().unwrap()).sum())
    };
    wait_for("a checkpoint with three files", || world.store.get(HEAD).is_some() && rows() >= 3);
    drop(process);
    pass(&world, Duration::from_secs(40));
    let two = Publisher::new(&place, &files);
    let report = two.publish();
    assert_eq!((outcome(&report), report.uploaded_count, report.state.unwrap().pulled), (PUBLISHED, 1, 3));
    assert_eq!(published(&world), two.tree());
}

/// Another state of a machine's tree: some files change, come and go, and the large one is another.
fn edit(machine: &Publisher, round: usize) {
    for (n, key) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        match (round + n) % 3 {
            0 => machine.write(key, format!("{round}")),
            1 if machine.root().join(key).exists() => machine.remove(key),
            _ => {}
        }
    }
    machine.write("large", random_bytes(LARGE, round as u64));
    if round.is_multiple_of(4) {
        machine.write("large", "small");
    }
}

/// P1, with the state in the bucket: killed (SIGKILL) at a random instant, again and again. Once the lease is over the same
/// machine, or another one with another tree, publishes: the bucket is its tree, and no upload is left.
#[test]
fn p1_killed_at_a_random_instant_with_the_state_in_the_bucket() {
    /// A world has so many kills: the store's clock goes forward with each.
    const EACH: usize = 20;
    let (wanted, mut kills, mut claimed, mut files, mut round) = (RandomInstants::wanted(), 0, 0, 0, 0);
    while kills < wanted {
        let world = World::new();
        let one = changed_tree(&world);
        let two = another(&world, true);
        let began = Instant::now();
        assert!(one.spawn(300, 0).end().is_some());
        let mut instants = RandomInstants::within(began.elapsed(), kills as u64);
        while kills + instants.kills() < wanted && instants.kills() < EACH {
            round += 1;
            let case = format!("round {round}");
            edit(&one, round);
            instants.kill(&mut one.spawn(300, 0).0);
            wait_for("the connections to end", || world.proxy.open_connections() == 0);
            claimed += usize::from(!head(&world)["claim"].is_null());
            pass(&world, AFTER_LEASE);
            let next = if round.is_multiple_of(2) { &one } else { &two };
            let report = next.publish();
            assert!([PUBLISHED, UNCHANGED].contains(&outcome(&report)), "{case} {report:?}");
            assert!(published(&world) == next.tree(), "{case} {:?}", published(&world).keys());
            assert_eq!(world.store.uploads(), [], "{case}");
            if round.is_multiple_of(3) {
                settles(&world, next, &case);
            }
            files += next.tree().len();
        }
        kills += instants.kills();
    }
    println!(
        "{kills} kills, {claimed} of them under a claim, {files} files in all, 0 lost, 0 objects and 0 uploads left"
    );
}
