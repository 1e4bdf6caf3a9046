//! Requests that outlive their sender, answers that are lost, and leases that end.

use std::time::Duration;

use bucket_brigade::{ErrorKind, RescanReport, StopReason};

use crate::shared_state::{Machine, published, requests, tree};
use crate::shared_state_faults::{AFTER_LEASE, HEAD, LANDED, PUBLISHED, UNCHANGED, hold, outcome, pass};
use crate::support::World;
use crate::support::proxy::{Fault, HeldRequest, Rule};

/// A run whose PUT of `/a` is held by the proxy, while the store's time passes and `then` happens; then it lands.
fn with_held_put(world: &World, one: &Machine<'_>, then: impl FnOnce()) -> RescanReport {
    let held = hold(world, "/a");
    std::thread::scope(|threads| {
        let first = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        pass(world, AFTER_LEASE);
        then();
        held.go.release();
        assert!(held.landed.wait());
        first.join().unwrap()
    })
}

#[test]
fn d11_request_that_lands_after_a_takeover_is_found_while_it_is_in_doubt() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    let two = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    // Two does not touch a: the condition of the held request is still true.
    let report = with_held_put(&world, &one, || assert_eq!(outcome(&two.publish()), PUBLISHED));
    assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "2")]));
    world.proxy.clear_rules();
    // The next run of two finds it, although its tree has not changed, once nothing more can land.
    pass(&world, LANDED);
    let report = two.publish();
    assert_eq!((outcome(&report), report.uploaded_count), (PUBLISHED, 1), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2")]));
    assert_eq!(report.state.unwrap().in_doubt, 0);
    two.let_files_settle();
    two.publish();
    assert_eq!(outcome(&two.publish()), UNCHANGED);
    // One goes on from there.
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "1")]));
}

#[test]
fn d11_held_request_does_not_overwrite_what_the_next_run_stored() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    one.write("a", "2");
    let two = Machine::new(&world, &[("a", "3")]);
    let report = with_held_put(&world, &one, || assert_eq!(outcome(&two.publish()), PUBLISHED));
    assert_eq!(report.stop_reason, Some(StopReason::Superseded), "{report:?}");
    assert_eq!(published(&world), tree(&[("a", "3")]));
}

#[test]
fn unanswered_writes_stay_in_doubt_until_nothing_can_land() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    world.proxy.add(Rule::new(Fault::DropAnswer).method("PUT").path_contains("/a").times(1));
    let report = one.publish();
    assert_eq!(outcome(&report), PUBLISHED, "{report:?}");
    assert_eq!(report.state.unwrap().in_doubt, 1);
    one.let_files_settle();
    one.publish();
    // Until then an unchanged tree costs one request.
    requests(&world);
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    pass(&world, LANDED);
    let report = one.publish();
    assert_eq!((report.failed_count, report.state.unwrap().in_doubt), (0, 0));
    requests(&world);
    assert_eq!(outcome(&one.publish()), UNCHANGED);
    assert_eq!(requests(&world), ["GET .brigade/head"]);
}

#[test]
fn d12_three_publishers_leave_the_keys_of_both_dead_ones_in_doubt() {
    let world = World::new();
    let first = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    first.publish();
    first.write("a", "2");
    let second = Machine::new(&world, &[("a", "1"), ("b", "2"), ("c", "1")]);
    let third = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "3")]);
    let (one, two) = (HeldRequest::default(), HeldRequest::default());
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(one.clone())).method("PUT").path_contains("site/a").times(1));
    world
        .proxy
        .add(Rule::new(Fault::HoldRequest(two.clone())).method("PUT").path_contains("site/b").times(1));
    std::thread::scope(|threads| {
        let dead_one = threads.spawn(|| first.publish());
        assert!(one.go.wait_for_arrivals(1));
        pass(&world, AFTER_LEASE);
        let dead_two = threads.spawn(|| second.publish());
        assert!(two.go.wait_for_arrivals(1));
        pass(&world, AFTER_LEASE);
        let report = third.publish();
        assert_eq!(outcome(&report), PUBLISHED);
        assert_eq!(report.state.unwrap().in_doubt, 2);
        one.go.release();
        two.go.release();
        assert!(one.landed.wait() && two.landed.wait());
        assert_eq!(dead_one.join().unwrap().stop_reason, Some(StopReason::Superseded));
        assert_eq!(dead_two.join().unwrap().stop_reason, Some(StopReason::Superseded));
    });
    assert_eq!(published(&world), tree(&[("a", "2"), ("b", "2"), ("c", "3")]));
    world.proxy.clear_rules();
    pass(&world, LANDED);
    let report = third.publish();
    assert_eq!((outcome(&report), report.state.unwrap().in_doubt), (PUBLISHED, 0));
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "1"), ("c", "3")]));
}

#[test]
fn r08_run_that_cannot_renew_its_claim_begins_nothing_more() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1")]);
    one.publish();
    one.write("a", "2");
    for n in 0..20 {
        one.write(&format!("b{n}"), "2");
    }
    let held = HeldRequest::default();
    // Each worker has a request that is under way.
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/b"));
    world.proxy.add(Rule::new(Fault::HoldRequest(held.clone())).method("PUT").path_contains("site/a"));
    let report = std::thread::scope(|threads| {
        let run = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(3));
        world.proxy.clear_rules();
        world
            .proxy
            .add(Rule::new(crate::network::answer(500, "InternalError")).path_contains("/.brigade/head"));
        one.clock.advance(Duration::from_secs(200));
        held.go.release();
        run.join().unwrap()
    });
    assert!(published(&world).len() <= 4, "{:?}", published(&world));
    assert_eq!(report.stop_reason, Some(StopReason::Unavailable), "{report:?}");
    world.proxy.clear_rules();
    // Its claim is still there. Nobody has to wait for ever.
    let report = one.publish();
    assert_eq!(report.stop_reason, Some(StopReason::Claimed), "{report:?}");
    pass(&world, AFTER_LEASE);
    assert_eq!(outcome(&one.publish()), PUBLISHED);
    assert_eq!(published(&world).len(), 21);
}

/// A head of the same claim and beat with other rows is not the one that was to be stored.
#[test]
fn d04_checkpoint_that_lands_unseen_loses_no_row() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    one.write("b", "2");
    let held = hold(&world, "site/b");
    let report = std::thread::scope(|threads| {
        let run = threads.spawn(|| one.publish());
        assert!(held.go.wait_for_arrivals(1));
        // Each PUT of the head takes effect, and nothing is ever heard of it: a renewal, or the row of a.
        let lose = || Rule::new(Fault::DropAnswer).path_contains("/.brigade/head");
        world.proxy.add(lose());
        let before = world.store.get(HEAD).unwrap().bytes;
        one.clock.advance(Duration::from_secs(61));
        while world.store.get(HEAD).unwrap().bytes == before {
            std::thread::yield_now();
        }
        world.proxy.clear_rules();
        held.go.release();
        run.join().unwrap()
    });
    assert_eq!(outcome(&report), PUBLISHED, "{report:?}");
    let state = report.state.unwrap();
    assert_eq!((state.generation, state.claimed_by), (2, None));
    let two = Machine::new(&world, &[("a", "2"), ("b", "2")]);
    assert_eq!(outcome(&two.publish()), UNCHANGED);
}

/// The soak met a failure of the kind `Other` that named neither a key nor a reason: only the failures were counted. Now
/// the first of them is kept.
#[test]
fn d02_key_in_doubt_that_cannot_be_asked_for_is_told_with_its_reason() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.write("a", "2");
    let two = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    world.proxy.add(Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("HEAD").path_contains("/a"));
    with_held_put(&world, &one, || {
        let report = two.publish();
        let [error] = &report.failed[..] else { panic!("{report:?}") };
        assert_eq!((error.kind(), report.state.unwrap().in_doubt), (ErrorKind::Server, 1));
        let text = error.to_string();
        assert!(text.contains("could not be asked for: 1;") && text.contains("head a: "), "{text}");
    });
    world.proxy.clear_rules();
    pass(&world, LANDED);
    assert_eq!(outcome(&two.publish()), PUBLISHED);
    assert_eq!(published(&world), tree(&[("a", "1"), ("b", "2")]));
}
