//! Measures the catalog with a million keys such as build tools make: `d042/f007.9c3e11d0.js`.
//!
//! ```text
//! cargo bench --bench catalog                  # creates 1,000,000 files
//! cargo bench --bench catalog -- folders=100   # 100,000 keys
//! ```

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, Catalog, Engine, LocalBackend, RescanConfig, RescanOrchestrator, StorageBackend,
};

mod common;
use common::{Result, measure, path_arg, print_figures, show, this_benchmark};

const READERS: usize = 8;
const RUNS: usize = 11;
const LOOKUPS: usize = 200_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["publish", root, cache] => publish(root, cache),
        ["write", cache] => write(cache),
        ["read", catalog] => read(catalog),
        arguments => {
            let folders = arguments.iter().find_map(|word| word.strip_prefix("folders="));
            run_all(folders.map_or(Ok(1000), str::parse)?)
        }
    }
}

fn store() -> Arc<dyn StorageBackend> {
    Arc::new(LocalBackend::new("https://cdn.example.com/site", "/"))
}

fn run_all(folders: usize) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    for folder in 0..folders {
        fs::create_dir_all(tree.join(format!("d{folder:03}")))?;
        for file in 0..1000 {
            fs::write(tree.join(key(folder, file)), "")?;
        }
    }
    let cache = scratch.path().join("cache");
    measure(&["publish", path_arg(&tree)?, path_arg(&cache)?])?;
    println!("{} keys", folders * 1000);
    show("write", &measure(&["write", path_arg(&cache)?])?);
    let path = Catalog::path_for(&cache);
    println!("  file: {:.1} MB", fs::metadata(&path)?.len() as f64 / 1e6);
    measure_open(&path)?;
    measure_get(&path, folders)?;
    measure_readers(&path)
}

/// A key with eight pseudo-random digits, like the content hash that a build tool adds.
fn key(folder: usize, file: usize) -> String {
    let content = fastrand::Rng::with_seed((folder * 1000 + file) as u64).u32(..);
    format!("d{folder:03}/f{file:03}.{content:08x}.js")
}

/// Publishes the tree into a new cache, without a catalog.
fn publish(root: &str, cache: &str) -> Result<()> {
    let config = RescanConfig::new().catalog(false);
    let cache = CacheManager::open(cache)?;
    RescanOrchestrator::with_config(&Engine::new()?, root, store(), cache, config)?.rescan()?;
    print_figures(0.0, "");
    Ok(())
}

fn write(cache: &str) -> Result<()> {
    let cache = CacheManager::open(cache)?;
    cache.use_urls_of(store(), None);
    let began = Instant::now();
    Catalog::write(&cache)?;
    print_figures(began.elapsed().as_secs_f64(), "(CPU and peak include opening the cache)");
    Ok(())
}

fn measure_open(path: &Path) -> Result<()> {
    let mut times = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            let catalog = Catalog::open(path)?;
            let took = began.elapsed();
            assert!(!catalog.is_empty());
            Ok(took)
        })
        .collect::<Result<Vec<_>>>()?;
    times.sort_unstable();
    println!(
        "  open with its checksum verified: {:.1} ms (median of {RUNS}, warm)",
        milliseconds(times[RUNS / 2])
    );
    Ok(())
}

fn measure_get(path: &Path, folders: usize) -> Result<()> {
    let catalog = Catalog::open(path)?;
    let mut random = fastrand::Rng::with_seed(1);
    let keys: Vec<String> =
        (0..LOOKUPS).map(|_| key(random.usize(..folders), random.usize(..1000))).collect();
    // The same loop without a look-up measures the clock, whose share is subtracted.
    let median = |f: &dyn Fn(&str) -> bool| {
        let mut times: Vec<_> = keys
            .iter()
            .map(|key| {
                let began = Instant::now();
                let found = f(key);
                let took = began.elapsed();
                assert!(found);
                took
            })
            .collect();
        times.sort_unstable();
        times[LOOKUPS / 2].as_nanos()
    };
    let clock = median(&|_| true);
    let got = median(&|key| catalog.get(key).is_some_and(|resolved| resolved.url.ends_with(key)));
    println!(
        "  get: {} ns (median of {LOOKUPS} random keys, warm, less {clock} ns of the clock)",
        got - clock
    );
    let mut catalog = catalog;
    let began = Instant::now();
    for _ in 0..LOOKUPS {
        catalog.refresh()?;
    }
    println!("  refresh that finds nothing new: {} ns", began.elapsed().as_nanos() / LOOKUPS as u128);
    Ok(())
}

/// A reader process: reads every key, then waits until its input ends.
fn read(path: &str) -> Result<()> {
    let catalog = Catalog::open(path)?;
    println!("{}", catalog.iter().count());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Measures the memory of one and of several readers. PSS divides shared pages among them, RSS does not.
fn measure_readers(path: &Path) -> Result<()> {
    for count in [1, READERS] {
        let mut readers = (0..count).map(|_| start_reader(path)).collect::<Result<Vec<_>>>()?;
        let mut sums = [0.0; 2];
        for child in &readers {
            let held = fs::read_to_string(format!("/proc/{}/smaps_rollup", child.id()))?;
            for (sum, name) in sums.iter_mut().zip(["Pss:", "Rss:"]) {
                let line = held.lines().find_map(|line| line.strip_prefix(name)).ok_or("no figure")?;
                *sum += line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0;
            }
        }
        println!("  {count} readers: PSS {:.1} MiB together, RSS {:.1} MiB", sums[0], sums[1]);
        for child in &mut readers {
            drop(child.stdin.take());
            child.wait()?;
        }
    }
    Ok(())
}

fn start_reader(path: &Path) -> Result<Child> {
    let mut child = this_benchmark()?
        .args(["read", path_arg(path)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    BufReader::new(output).read_line(&mut String::new())?;
    Ok(child)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
