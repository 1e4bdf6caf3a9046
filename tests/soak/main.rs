//! A long run: publishers that are killed, stalled and started again at random, against a store behind the fault proxy.
//!
//! ```sh
//! cargo test --test soak -- --hours 2
//! ```
//!
//! `--minutes N` and `--seconds N` are shorter; without any it takes 20 seconds. `--seed N` repeats the choices of a run,
//! though not the moments at which they meet the publishers.
//!
//! # Architecture
//!
//! - `site`: prefixes in one bucket, with one machine each, or three that share the state in the bucket.
//! - `machine`: a tree that changes all the time, a cache, and a process that publishes it (`publisher`: this binary as
//!   its own child). It is killed, stalled and started again; its cache is lost, or put back from an old copy.
//! - `weather`: the faults of the proxy, which change every few seconds.
//! - `checks`: while it runs, that each object is one whole version of its file. At the end, that every bucket is its
//!   tree, that nothing is left over, and that nothing grew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of tests are small")]
#![allow(unreachable_pub, reason = "support is shared with examples and benchmarks")]

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod counts;
mod machine;
mod publisher;
mod site;
mod tree;
mod weather;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::checks::Audit;
use crate::site::{Site, sites};
use crate::support::BUCKET;
use crate::support::memory_store::MemoryStore;
use crate::weather::Weather;

const USAGE: &str = "usage: soak [--hours N | --minutes N | --seconds N] [--seed N]";
/// Without arguments, as `cargo test` runs it.
const DEFAULT_TIME: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(20);
const AUDIT_EVERY: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(60);

struct Settings {
    time: Duration,
    seed: u64,
}

/// What the arguments ask for; `None` where they ask for other tests, or for the list of them.
fn settings() -> Result<Option<Settings>, String> {
    let mut settings = Settings { time: DEFAULT_TIME, seed: fastrand::u64(..) };
    let mut arguments = std::env::args().skip(1);
    let mut wanted = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a number\n{USAGE}"));
        let wrong = |text: String| format!("{argument} {text}: not a number that is possible here\n{USAGE}");
        let time = |text: String, unit: f64| {
            let seconds = text.parse::<f64>().ok().map(|number| Duration::try_from_secs_f64(number * unit));
            seconds.and_then(Result::ok).ok_or_else(|| wrong(text))
        };
        match argument.as_str() {
            "--hours" => settings.time = time(value()?, 3600.0)?,
            "--minutes" => settings.time = time(value()?, 60.0)?,
            "--seconds" => settings.time = time(value()?, 1.0)?,
            "--seed" => {
                let text = value()?;
                settings.seed = text.parse().map_err(|_| wrong(text))?;
            }
            // What the harness of the other tests understands.
            "--list" => {
                println!("soak: test");
                return Ok(None);
            }
            "--skip" if value()?.contains("soak") => return Ok(None),
            "--skip" => {}
            "--test-threads" | "--format" | "--color" => drop(value()?),
            "--ignored" => return Ok(None),
            flag if flag.starts_with('-') => {}
            filter => wanted.push(filter.to_owned()),
        }
    }
    Ok((wanted.is_empty() || wanted.iter().any(|filter| "soak".contains(filter.as_str())))
        .then_some(settings))
}

fn main() -> ExitCode {
    if publisher::acted_as_one() {
        return ExitCode::SUCCESS;
    }
    match settings() {
        Ok(Some(settings)) => soak(&settings),
        Ok(None) => {}
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn soak(settings: &Settings) {
    println!("soak: {} s, --seed {}", settings.time.as_secs(), settings.seed);
    support::logs::watch();
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let folder = tempfile::tempdir().unwrap();
    let store = MemoryStore::with_bucket(BUCKET);
    let mut weather = Weather::new(&store, random.fork());
    let mut sites = sites(&store, &weather.endpoint(), folder.path(), &mut random);
    let mut audit = Audit::new(&store);

    let (began, mut audited, mut told) = (Instant::now(), Instant::now(), Instant::now());
    while began.elapsed() < settings.time {
        weather.pass();
        sites.iter_mut().for_each(Site::live);
        if audited.elapsed() > AUDIT_EVERY {
            audit.look(&sites);
            weather.forget_requests();
            audited = Instant::now();
        }
        if told.elapsed() > TELL_EVERY {
            println!("{:>5} s: {}", began.elapsed().as_secs(), counts::line(&sites, &weather, &audit));
            told = Instant::now();
        }
        std::thread::sleep(TICK);
    }

    sites.iter_mut().for_each(Site::end);
    weather.clear();
    checks::at_the_end(&mut sites, &store, &mut weather, &mut audit);
    println!("{}", counts::table(&sites, &weather, &audit));
    checks::nothing_is_unexplained(&sites);
}
