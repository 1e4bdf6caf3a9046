//! Measures the state in the bucket: requests, CPU and memory of machines that publish one tree, and of one that reads.
//!
//! ```text
//! cargo bench --bench state                     # 10,000 files
//! cargo bench --bench state -- million          # 1,000,000 files (creates that many; 8 GB in TMPDIR, 2 GB of memory)
//! ```

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bucket_brigade::{
    CacheManager, Credentials, Engine, RemoteState, RescanConfig, RescanOrchestrator, Run, S3Backend,
    S3Config, StorageBackend,
};

mod common;
#[path = "../tests/support/memory_store.rs"]
mod memory_store;
#[path = "../tests/support/server.rs"]
mod server;
use common::{
    BUCKET, Measured, Result, Server, make_tree, path_arg, print_figures, show, wait_out_racy_window,
};
use memory_store::{ETags, MemoryStore};
use server::{ACCESS_KEY, S3Server, SECRET_KEY};

const PREFIX: &str = "w1";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", objects] => serve(objects),
        ["publish", state, root, cache, endpoint] => publish(state, root, cache, endpoint),
        ["pull", cache, endpoint] => pull(cache, endpoint),
        [] => ten_thousand(),
        ["million"] => million(),
        other => Err(format!("no benchmark {other:?}: none for 10,000 files, or million").into()),
    }
}

/// Publishes 10,000 files of 1 to 16 KiB: the first time, unchanged, with ten changes, and on empty machines.
fn ten_thousand() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = make_tree(scratch.path(), 100, 100, 1024..=16 * 1024)?;
    let server = Server::start(&["serve", ""])?;
    let machine = |name: &str| scratch.path().join(name);
    wait_out_racy_window();
    println!("10,000 files of 1 to 16 KiB to a store in memory, with their state in the bucket");
    let (one, two) = (machine("one"), machine("two"));
    for title in ["first", "again"] {
        show(title, &measure("bucket", &tree, &one, &server)?);
    }
    change(&tree, 10)?;
    wait_out_racy_window();
    show("ten", &measure("bucket", &tree, &one, &server)?);
    show("again", &measure("bucket", &tree, &one, &server)?);
    show("empty", &measure("bucket", &tree, &two, &server)?);
    show("again", &measure("bucket", &tree, &two, &server)?);
    show("reader", &measure_pull(&machine("reader"), &server)?);
    println!("the same tree with the state in the cache alone, to another store");
    let server = Server::start(&["serve", ""])?;
    let local = machine("local");
    for title in ["first", "again"] {
        show(title, &measure("local", &tree, &local, &server)?);
    }
    Ok(())
}

/// Takes over 1,000,000 objects, moves their record into the bucket, and reads it on a machine that has nothing.
fn million() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let began = Instant::now();
    let tree = make_tree(scratch.path(), 1000, 1000, 8..=8)?;
    let server = Server::start(&["serve", &tree])?;
    println!("1,000,000 files (made in {:.0} s)", began.elapsed().as_secs_f64());
    let (one, reader) = (scratch.path().join("one"), scratch.path().join("reader"));
    wait_out_racy_window();
    show("adopt", &measure("local", &tree, &one, &server)?);
    show("walk", &measure("local", &tree, &one, &server)?);
    change(&tree, 1)?;
    wait_out_racy_window();
    // The walk, and a snapshot of all rows.
    show("move", &measure("alone", &tree, &one, &server)?);
    show("again", &measure("alone", &tree, &one, &server)?);
    show("pull", &measure_pull(&reader, &server)?);
    println!("  cache file: {:.0} MiB", fs::metadata(&reader)?.len() as f64 / 1_048_576.0);
    change(&tree, 100)?;
    wait_out_racy_window();
    show("change", &measure("alone", &tree, &one, &server)?);
    show("delta", &measure_pull(&reader, &server)?);
    show("same", &measure_pull(&reader, &server)?);
    Ok(())
}

/// Changes this many files, in different folders.
fn change(tree: &str, count: usize) -> Result<()> {
    for (n, folder) in fs::read_dir(tree)?.take(count).enumerate() {
        fs::write(folder?.path().join("f007.dat"), format!("changed {n} {}", fastrand::u64(..)))?;
    }
    Ok(())
}

/// Serves a store in memory; with the files of a tree as objects, if one is given.
fn serve(tree: &str) -> Result<()> {
    let store = MemoryStore::with_bucket(BUCKET);
    store.etags(ETags::Md5);
    let mut folders: Vec<PathBuf> = if tree.is_empty() { Vec::new() } else { vec![tree.into()] };
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let key = format!("{PREFIX}/{}", path_arg(path.strip_prefix(tree)?)?);
                store.put_raw(&key, fs::read(&path)?);
            }
        }
    }
    let server = S3Server::start(store.service());
    println!("{}", server.endpoint());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn measure(state: &str, tree: &str, cache: &Path, server: &Server) -> Result<Measured> {
    common::measure(&["publish", state, tree, path_arg(cache)?, &server.endpoint])
}

fn measure_pull(cache: &Path, server: &Server) -> Result<Measured> {
    common::measure(&["pull", path_arg(cache)?, &server.endpoint])
}

fn backend(engine: &Engine, endpoint: &str) -> Result<Arc<dyn StorageBackend>> {
    let config = S3Config::new(BUCKET)
        .endpoint(endpoint)
        .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
        .bucket_prefix(PREFIX);
    Ok(Arc::new(S3Backend::new(engine, config)?))
}

fn publish(state: &str, root: &str, cache: &str, endpoint: &str) -> Result<()> {
    let engine = Engine::new()?;
    let cache = CacheManager::open(cache)?;
    let config = match state {
        "bucket" => RescanConfig::new().state(RemoteState::new()),
        // Objects without a record would make it wait for other publishers.
        "alone" => RescanConfig::new().state(RemoteState::new().single_writer(true)),
        _ => RescanConfig::new(),
    };
    let site = RescanOrchestrator::with_config(&engine, root, backend(&engine, endpoint)?, cache, config)?;
    let report = site.rescan()?;
    let metrics = &report.metrics;
    let text = format!(
        "{}: {} uploaded, {} adopted, {} unchanged; {} requests, {} bytes of files sent, {} bytes received, {} commits",
        report.outcome.as_str(),
        report.uploaded_count,
        report.adopted_count,
        report.unchanged,
        metrics.requests,
        report.uploaded_bytes,
        metrics.bytes_received,
        metrics.commits,
    );
    print_figures(report.elapsed.as_secs_f64(), &text);
    Ok(())
}

fn pull(cache: &str, endpoint: &str) -> Result<()> {
    let engine = Engine::new()?;
    let cache = CacheManager::open(cache)?;
    let (backend, began) = (backend(&engine, endpoint)?, Instant::now());
    let state = cache.pull(&engine, &backend, &RemoteState::new(), &Run::new())?;
    let metrics = engine.metrics();
    let text = format!(
        "generation {}, {} keys learned; {} requests, {} bytes received",
        state.generation, state.pulled, metrics.requests, metrics.bytes_received
    );
    print_figures(began.elapsed().as_secs_f64(), &text);
    Ok(())
}
