//! Every seed, and some thousand changes of it, through its target: the fuzzing that runs with the tests.

use std::fs;
use std::path::{Path, PathBuf};

#[cfg(feature = "config")]
use super::TARGETS;
use super::find;
use super::mutator::Mutator;

/// The changed inputs of each target.
const CHANGED: usize = 4000;

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds")
}

/// Shows the input if the target panics.
struct Shown<'a> {
    seed: &'a Path,
    change: usize,
    input: &'a [u8],
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, change, input } = self;
            eprintln!("{}, change {change}: {}", seed.display(), input.escape_ascii());
        }
    }
}

fn run(name: &str) {
    let target = find(name).unwrap();
    let entries = fs::read_dir(folder().join(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let (mut mutator, each) = (Mutator::new(&seeds), CHANGED.div_ceil(seeds.len()));
    for (seed, bytes) in paths.iter().zip(&seeds) {
        for change in 0..=each {
            let input = if change == 0 { bytes.clone() } else { mutator.next_input(bytes) };
            let _shown = Shown { seed, change, input: &input };
            target(&input);
        }
    }
}

macro_rules! tests {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            run(stringify!($name).trim_start_matches("fuzz_"));
        }
    )* };
}

tests! {
    fuzz_catalog
    fuzz_globs
    fuzz_head
    fuzz_headers
    fuzz_http
    fuzz_ignore
    fuzz_keys
    fuzz_records
    fuzz_segment
    fuzz_tunnel
    fuzz_xml
}

#[cfg(feature = "profiles")]
tests! { fuzz_credentials fuzz_profiles }

#[cfg(feature = "config")]
tests! { fuzz_toml }

/// A target without seeds, seeds without a target, a target that cargo-fuzz does not know: each would go unnoticed.
#[cfg(feature = "config")]
#[test]
fn each_target_has_seeds_and_a_binary() {
    let mut folders: Vec<_> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    folders.sort();
    let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(folders, names);
    let manifest = folder().join("../libfuzzer/Cargo.toml");
    // It is no part of a published package.
    let Ok(manifest) = fs::read_to_string(manifest) else { return };
    for name in names {
        assert!(manifest.contains(&format!("[[bin]]\nname = \"{name}\"\npath = \"main.rs\"")), "{name}");
    }
}
