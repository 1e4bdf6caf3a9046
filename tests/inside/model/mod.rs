//! A model of rescans: random edits of a tree, random faults and several rescans, on the real parts and the virtual clock.
//! After each rescan the bucket, the cache, the catalog and the report must be what the reference says.
//!
//! # Architecture
//! - `steps`: what a case is made of, and how it is drawn.
//! - `reference`, `course`, `judge`: the specification, pure. The first has the plan of a run, the second what its
//!   requests and their answers make of it, the third what must be true after it.
//! - `memory`, `s3`: two stores whose requests fail on demand. `watched`: writes down what a run sends.
//! - `world`: does the steps and looks at what came of them.
//! - `kept`: cases that were bugs of the library.
//!
//! `BRIGADE_TEST_MODEL_CASES` is the number of cases (500), `BRIGADE_TEST_MODEL_SEED` draws others.

mod course;
mod judge;
mod kept;
mod memory;
mod reference;
mod s3;
mod steps;
mod watched;
mod world;

use std::env;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::s3::{Behind, can_fail};
use self::steps::{Fault, KEYS, Key, Mode, Step, is_large};
use self::world::World;

/// The name of a key as the model has it.
fn known(key: &str) -> Key {
    if key.is_empty() {
        return "";
    }
    KEYS.iter().find(|known| **known == key).unwrap_or_else(|| panic!("{key} is no name of the tree"))
}

fn number_of(variable: &str) -> Option<u64> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: not a number")))
}

/// Draws cases and plays them; prints the shortest that fails.
fn explore(cases: u64, play: impl Fn(&[Step]) -> Result<(), String>) {
    let seed = number_of("BRIGADE_TEST_MODEL_SEED").unwrap_or(21);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let result = runner.run(&steps::steps(), |steps| play(&steps).map_err(TestCaseError::fail));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => {
            let steps: Vec<_> = steps.iter().map(|step| format!("    {step:?},")).collect();
            panic!("BRIGADE_TEST_MODEL_SEED={seed}\n[\n{}\n]\n{why}", steps.join("\n"));
        }
        Err(TestError::Abort(why)) => panic!("BRIGADE_TEST_MODEL_SEED={seed}: {why}"),
    }
}

fn play(steps: &[Step]) -> Result<(), String> {
    World::new(None).play(steps)
}

/// The same on S3, without what its store cannot do there.
fn play_on_s3(steps: &[Step]) -> Result<(), String> {
    let steps: Vec<_> = steps.iter().map(|step| for_s3(*step)).collect();
    World::new(Some(Behind::new())).play(&steps)
}

/// A step for S3: with small files, and faults that a proxy can tell apart.
fn for_s3(step: Step) -> Step {
    let small = |content| if is_large(content) { content - 4 } else { content };
    match step {
        Step::Write(key, content) => Step::Write(key, small(content)),
        Step::Replace(key, content) => Step::Replace(key, small(content)),
        Step::Stranger(key, content) => Step::Stranger(key, small(content)),
        Step::Rescan(mut run) => {
            for fault in &mut run.faults {
                let possible = fault.filter(|fault| can_fail(fault.op, fault.key));
                *fault = possible.map(|fault| Fault { mode: behind_a_proxy(fault.mode), ..fault });
            }
            // Its rules are all tried, the first of them only once.
            if run.faults[0].map(|fault| fault.op) == run.faults[1].map(|fault| fault.op) {
                run.faults[1] = None;
            }
            run.outage = run.outage.map(|(from, mode)| (from, behind_a_proxy(mode)));
            run.edited = run.edited.map(|(key, content, moment)| (key, small(content), moment));
            Step::Rescan(run)
        }
        other => other,
    }
}

/// The fault in place of one that a proxy cannot inject: it is there, so it can only break connections.
fn behind_a_proxy(mode: Mode) -> Mode {
    if mode == Mode::Unreachable { Mode::Broken } else { mode }
}

#[test]
fn every_rescan_does_what_the_reference_says() {
    explore(number_of("BRIGADE_TEST_MODEL_CASES").unwrap_or(500), play);
}

#[test]
fn every_rescan_on_s3_does_what_the_reference_says() {
    explore(number_of("BRIGADE_TEST_MODEL_CASES").unwrap_or(500) / 10, play_on_s3);
}
