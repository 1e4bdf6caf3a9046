//! Measures the C ABI as a C host has it: programs in C, built with `cc -O2` against the release library.
//!
//! ```text
//! cargo rustc --release --lib --features capi --crate-type staticlib,cdylib
//! cargo bench --features capi --bench capi                  # creates 1,000,000 files
//! cargo bench --features capi --bench capi -- folders=100   # 100,000 keys
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Catalog, Engine, LocalBackend, RescanConfig, RescanOrchestrator, StorageBackend,
};

mod common;
use common::{Result, measure, path_arg, print_figures};

const LOOKUPS: usize = 200_000;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["publish", root, cache] => publish(root, cache),
        arguments => {
            let folders = arguments.iter().find_map(|word| word.strip_prefix("folders="));
            run_all(folders.map_or(Ok(1000), str::parse)?)
        }
    }
}

fn run_all(folders: usize) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path();
    measure_sizes(folder)?;
    measure_site(folder)?;
    let tree = folder.join("tree");
    for number in 0..folders {
        fs::create_dir_all(tree.join(format!("d{number:03}")))?;
        for file in 0..1000 {
            fs::write(tree.join(key(number, file)), "")?;
        }
    }
    let cache = folder.join("cache");
    measure(&["publish", path_arg(&tree)?, path_arg(&cache)?])?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut keys = String::new();
    for _ in 0..LOOKUPS {
        writeln!(keys, "{}", key(random.usize(..folders), random.usize(..1000)))?;
    }
    fs::write(folder.join("keys"), keys)?;
    run(Command::new(compile("benches/c/catalog_get.c", folder)?)
        .arg(Catalog::path_for(&cache))
        .arg(folder.join("keys")))
}

/// A key with eight pseudo-random digits, like the content hash that a build tool adds.
fn key(folder: usize, file: usize) -> String {
    let content = fastrand::Rng::with_seed((folder * 1000 + file) as u64).u32(..);
    format!("d{folder:03}/f{file:03}.{content:08x}.js")
}

/// Publishes the tree into a new cache and writes its catalog.
fn publish(root: &str, cache: &str) -> Result<()> {
    let store: Arc<dyn StorageBackend> = Arc::new(LocalBackend::new("https://cdn.example.com/site", "/"));
    let cache = CacheManager::open(cache)?;
    RescanOrchestrator::with_config(&Engine::new()?, root, store, cache, RescanConfig::new())?.rescan()?;
    print_figures(0.0, "");
    Ok(())
}

/// A file of `target/release`, where this benchmark runs.
fn library(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let path = this.ancestors().nth(2).ok_or("no target folder")?.join(name);
    let line = "cargo rustc --release --lib --features capi --crate-type staticlib,cdylib";
    if path.exists() { Ok(path) } else { Err(format!("{} is missing: {line}", path.display()).into()) }
}

/// Compiles and links a program, and strips it.
fn compile(source: &str, into: &Path) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = into.join(Path::new(source).file_stem().ok_or("no name")?);
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-I"]).arg(root.join("src/capi"));
    command.arg(root.join(source)).arg("-o").arg(&program).arg(library("libbucket_brigade.a")?);
    run(command.args(["-lpthread", "-ldl", "-lm"]))?;
    Ok(program)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn measure_sizes(folder: &Path) -> Result<()> {
    let publish = fs::metadata(compile("examples/c/publish.c", folder)?)?.len();
    let shared =
        fs::metadata(library(&format!("libbucket_brigade.{}", std::env::consts::DLL_EXTENSION))?)?.len();
    println!("  publish, linked statically and stripped: {:.2} MB", publish as f64 / 1e6);
    println!("  shared library, stripped: {:.2} MB", shared as f64 / 1e6);
    Ok(())
}

/// A site with a cache of nothing yet. Opening it sends no request.
fn measure_site(folder: &Path) -> Result<()> {
    let file = folder.join("brigade.toml");
    let text = "[destination.live]\nroot = \"tree\"\ncache = \"site-cache\"\nbucket = \"bucket\"\nregion = \"eu-central-1\"\n\
                access_key_id = { file = \"id\" }\nsecret_access_key = { file = \"secret\" }\n";
    fs::write(&file, text)?;
    fs::write(folder.join("id"), "AKIAIOSFODNN7EXAMPLE")?;
    fs::write(folder.join("secret"), "secret")?;
    fs::create_dir_all(folder.join("tree"))?;
    run(Command::new(compile("benches/c/idle_site.c", folder)?).arg(&file))
}
