//! The explorations: the rules hold, and each broken rule is found.

use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model as _};

use super::{Broken, Publishers, Tree};

/// Publishers with these trees. The clock can move past half of the lease, past its end, and past the time in which
/// requests land.
fn publishers(trees: &[&[Tree]], crashes: u8, lost: u8) -> Publishers {
    Publishers {
        trees: trees.iter().map(|trees| trees.to_vec()).collect(),
        broken: Broken::Nothing,
        crashes,
        lost,
        short: 2,
        long: 0,
        tick: 200,
        removed: false,
        alone: false,
    }
}

/// Two publishers: one adds a key and changes one; the other deletes one and adds one, and later brings back what
/// was there at first, so that a condition that names the first content becomes true again.
fn two(crashes: u8, lost: u8) -> Publishers {
    publishers(&[&[[2, 2]], &[[0, 3], [1, 0]]], crashes, lost)
}

fn three(crashes: u8, lost: u8) -> Publishers {
    publishers(&[&[[2, 2]], &[[0, 3]], &[[1, 0]]], crashes, lost)
}

fn explore(name: &str, model: Publishers) -> impl Checker<Publishers> {
    let start = Instant::now();
    let most = std::env::var("MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.target_state_count(most).spawn_bfs().join();
    println!(
        "{name}: {} steps to {} states, at most {} deep, {:.1?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    checker
}

/// Explores everything, and fails with the events that led to a broken rule, or if nothing happened that the rules
/// are about.
fn holds(name: &str, model: Publishers) {
    explore(name, model).assert_properties();
}

/// Returns the rule that the exploration finds broken.
fn finds(model: Publishers) -> &'static str {
    let broken = format!("{:?}", model.broken);
    let checker = explore(&broken, model);
    let found = checker.discoveries().into_keys().find(|name| name.starts_with('R'));
    println!("{broken}: breaks {found:?}");
    found.unwrap_or_else(|| panic!("{broken} is not found"))
}

#[test]
fn r2_r3_r5_r8_hold_for_two_publishers_that_stall() {
    holds("two, stalls", Publishers { long: 1, ..two(0, 0) });
}

#[test]
fn r2_r3_r5_r8_hold_for_two_publishers_and_a_crash() {
    holds("two, a crash", two(1, 0));
}

#[test]
fn r2_r3_r5_r8_hold_for_two_publishers_and_a_lost_answer() {
    holds("two, a lost answer", two(0, 1));
}

#[test]
fn r2_r3_r5_r8_hold_for_three_publishers_that_stall() {
    holds("three, stalls", three(0, 0));
}

/// Takes minutes and gigabytes.
#[test]
#[ignore = "long: run with --ignored, in release"]
fn r2_r3_r5_r8_hold_for_two_publishers_with_everything() {
    holds("two, everything", Publishers { long: 1, ..two(1, 1) });
}

/// Takes minutes and gigabytes.
#[test]
#[ignore = "long: run with --ignored, in release"]
fn r2_r3_r5_r8_hold_for_three_publishers_with_a_crash_and_a_lost_answer() {
    holds("three, a crash, a lost answer", three(1, 1));
}

/// Paths that are longer than those that can all be explored, taken at random: three publishers of two runs each,
/// crashes, lost answers, a clock that moves on and on, and with `removed` a head that somebody removes.
fn walk(removed: bool, seed: u64, steps: usize) {
    let trees: [&[Tree]; 3] = [&[[2, 2], [1, 0]], &[[0, 3], [1, 0]], &[[1, 2], [2, 0]]];
    let model = Publishers { removed, short: 6, long: 2, tick: 140 + seed % 80, ..publishers(&trees, 2, 3) };
    let (start, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
    let (mut taken, mut deepest, mut met) = (0, 0, Vec::new());
    while taken < steps {
        let depth = walk_once(&model, &mut random, &mut met);
        taken += depth;
        deepest = deepest.max(depth);
    }
    println!(
        "walks, removed {removed}, seed {seed}: {taken} steps, at most {deepest} deep, {:.1?}; {} cases met",
        start.elapsed(),
        met.len()
    );
}

/// Walks until nothing more can happen, and returns the number of steps. (The walks of `stateright` 0.31 cannot show
/// the path to a failure if some actions change nothing.)
fn walk_once(model: &Publishers, random: &mut fastrand::Rng, met: &mut Vec<&'static str>) -> usize {
    let properties = model.properties();
    let mut world = random.choice(model.init_states()).unwrap();
    let mut path = Vec::new();
    loop {
        for property in &properties {
            let holds = (property.condition)(model, &world);
            let is_rule = matches!(property.expectation, Expectation::Always);
            assert!(holds || !is_rule, "{}: {world:#?} after {path:?}", property.name);
            if holds && !is_rule && !met.contains(&property.name) {
                met.push(property.name);
            }
        }
        let mut actions = Vec::new();
        model.actions(&world, &mut actions);
        random.shuffle(&mut actions);
        let next = actions.into_iter().find_map(|action| Some((action, model.next_state(&world, action)?)));
        let Some((action, next)) = next else { return path.len() };
        path.push(action);
        world = next;
    }
}

#[test]
fn r2_r3_r5_r8_hold_on_random_walks_of_three_publishers() {
    (0..4).for_each(|seed| walk(false, seed, 100_000));
}

#[test]
fn d13_the_rules_hold_on_random_walks_when_the_head_is_removed() {
    (0..4).for_each(|seed| walk(true, seed, 100_000));
}

/// Takes minutes.
#[test]
#[ignore = "long: run with --ignored, in release"]
fn r2_r3_r5_r8_hold_on_many_random_walks() {
    (100..140).for_each(|seed| walk(seed % 2 == 0, seed, 500_000));
}

#[test]
fn d13_the_rules_hold_when_the_head_is_removed() {
    let checker = explore("two, the head removed", Publishers { removed: true, ..two(0, 0) });
    let found: Vec<_> = checker.discoveries().into_keys().filter(|name| name.starts_with('R')).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn without_conditions_the_rules_hold_only_for_a_single_writer() {
    let ignoring = Publishers { broken: Broken::Conditions, ..two(1, 0) };
    finds(ignoring.clone());
    let alone = explore("a single writer", Publishers { alone: true, ..ignoring });
    let found: Vec<_> = alone.discoveries().into_keys().filter(|name| name.starts_with('R')).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn each_broken_rule_is_found() {
    let cases = [
        (Broken::Intent, two(0, 0)),
        (Broken::TakeoverDoubt, two(0, 0)),
        (Broken::Lease, two(0, 0)),
        (Broken::JudgedByOwnLease, Publishers { tick: 100, ..two(0, 0) }),
        (Broken::Settling, two(0, 0)),
        (Broken::Unanswered, two(0, 1)),
        (Broken::Retried, two(0, 1)),
        (Broken::LostDoubt, Publishers { removed: true, ..two(0, 0) }),
        (Broken::LostWait, Publishers { removed: true, ..two(0, 0) }),
    ];
    for (broken, model) in cases {
        finds(Publishers { broken, ..model });
    }
}
