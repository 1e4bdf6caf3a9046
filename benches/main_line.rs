//! Measures the main line: many small files.
//!
//! ```text
//! cargo bench --bench main_line                 # files, adopt, latency, lookups
//! cargo bench --bench main_line -- million      # a cache of 1,000,000 entries (creates that many files)
//! ```

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, Credentials, Engine, LocalBackend, RescanOrchestrator, RescanReport, S3Backend, S3Config,
    StorageBackend,
};

mod common;
#[path = "../tests/support/memory_store.rs"]
mod memory_store;
#[path = "../tests/support/proxy.rs"]
mod proxy;
#[path = "../tests/support/server.rs"]
mod server;
use common::{
    BUCKET, Measured, Result, Server, make_tree, path_arg, print_figures, show, wait_out_racy_window,
};
use memory_store::{ETags, MemoryStore};
use proxy::{Fault, FaultProxy, Rule};
use server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// In place of a folder: a store in memory that makes `ETag`s as S3 does.
const MD5: &str = "md5";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", root, delay] => serve(Path::new(root), delay.parse()?),
        ["client", root, cache, endpoint] => client(root, cache, endpoint),
        [] => ["files", "adopt", "latency", "lookups"].into_iter().try_for_each(run),
        names => names.iter().try_for_each(|name| run(name)),
    }
}

fn run(name: &str) -> Result<()> {
    match name {
        "files" => files(),
        "adopt" => adopt(),
        "latency" => latency(),
        "lookups" => lookups(),
        "million" => million(),
        other => Err(format!("no benchmark {other}: files, adopt, latency, lookups, million").into()),
    }
}

/// Publishes 10,000 files of 1 to 16 KiB in 100 folders, then the unchanged tree again.
fn files() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = make_tree(scratch.path(), 100, 100, 1024..=16 * 1024)?;
    let server = start_server(&scratch.path().join("objects"), 0)?;
    wait_out_racy_window();
    let cache = scratch.path().join("cache");
    println!("10,000 files of 1 to 16 KiB to s3s-fs, then the same again");
    for title in ["first", "again"] {
        show(title, &measure(&tree, &cache, &server.endpoint)?);
    }
    Ok(())
}

/// Publishes 10,000 files, removes the cache, gives all files new times, and publishes again: to a store whose listing has
/// `ETag`s, and to s3s-fs, whose listing has none, so that a HEAD asks for each object.
fn adopt() -> Result<()> {
    for objects in [MD5, "objects"] {
        let scratch = tempfile::tempdir()?;
        let tree = make_tree(scratch.path(), 100, 100, 1024..=16 * 1024)?;
        let path = if objects == MD5 { Path::new(MD5).to_owned() } else { scratch.path().join(objects) };
        let server = start_server(&path, 0)?;
        let cache = scratch.path().join("cache");
        println!(
            "10,000 files of 1 to 16 KiB without their cache; {}",
            if objects == MD5 { "a store in memory that lists ETags" } else { "s3s-fs, which lists none" }
        );
        show("first", &measure(&tree, &cache, &server.endpoint)?);
        fs::remove_file(&cache)?;
        touch(Path::new(&tree))?;
        wait_out_racy_window();
        show("adopt", &measure(&tree, &cache, &server.endpoint)?);
        show("again", &measure(&tree, &cache, &server.endpoint)?);
    }
    Ok(())
}

/// Gives all files below a folder new times, as a checkout does.
fn touch(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            touch(&path)?;
        } else {
            fs::File::options().append(true).open(path)?.set_modified(std::time::SystemTime::now())?;
        }
    }
    Ok(())
}

/// Publishes 5,000 files with each answer delayed by 20 ms: ten in flight allow at most 500 a second. One store is in
/// memory, so that the time it takes does not add to the delay; the other is s3s-fs.
fn latency() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = make_tree(scratch.path(), 50, 100, 1024..=16 * 1024)?;
    for (store, objects) in [("memory", Path::new("").to_owned()), ("s3s-fs", scratch.path().join("objects"))]
    {
        let server = start_server(&objects, 20)?;
        println!(
            "5,000 files of 1 to 16 KiB to {store}, each answer 20 ms late, 10 in flight (bound: 500 files/s)"
        );
        let measured = measure(&tree, &scratch.path().join(format!("cache-{store}")), &server.endpoint)?;
        show("first", &measured);
        println!("  files/s: {:.0}", 5000.0 / measured.wall);
    }
    Ok(())
}

/// Publishes 1,000 files to a host name, which must be looked up.
fn lookups() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = make_tree(scratch.path(), 10, 100, 1024..=1024)?;
    let server = start_server(&scratch.path().join("objects"), 0)?;
    let by_name = server.endpoint.replace("127.0.0.1", "localhost");
    println!("1,000 uploads to a host name");
    show("first", &measure(&tree, &scratch.path().join("cache"), &by_name)?);
    Ok(())
}

/// Publishes a million empty files with a backend that sends no bytes, then rescans the unchanged tree.
fn million() -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let began = Instant::now();
    let tree = make_tree(scratch.path(), 1000, 1000, 0..=0)?;
    println!("1,000,000 entries (files made in {:.0} s)", began.elapsed().as_secs_f64());
    let cache = scratch.path().join("cache");
    show("first", &measure(&tree, &cache, "local")?);
    wait_out_racy_window();
    // The first rescan found racy stats. This one hashes those files again, and the next one trusts them.
    show("settle", &measure(&tree, &cache, "local")?);
    show("again", &measure(&tree, &cache, "local")?);
    println!("  cache file: {:.0} MiB", fs::metadata(&cache)?.len() as f64 / 1_048_576.0);
    Ok(())
}

fn start_server(objects: &Path, delay_ms: u64) -> Result<Server> {
    Server::start(&["serve", path_arg(objects)?, &delay_ms.to_string()])
}

fn serve(objects: &Path, delay_ms: u64) -> Result<()> {
    let with_md5 = objects.as_os_str() == MD5;
    let in_memory = with_md5 || objects.as_os_str().is_empty();
    let store = MemoryStore::with_bucket(BUCKET);
    // Real ones would cost the store an MD5 of each object.
    store.etags(if with_md5 { ETags::Md5 } else { ETags::MadeUp });
    let service = if in_memory { store.service() } else { server::fs(objects, BUCKET) };
    let server = S3Server::start(service);
    let proxy = (delay_ms > 0).then(|| FaultProxy::start(server.addr()));
    match &proxy {
        Some(proxy) => {
            proxy.add(Rule::new(Fault::Delay(Duration::from_millis(delay_ms))));
            println!("{}", proxy.endpoint());
        }
        None => println!("{}", server.endpoint()),
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Runs and measures one rescan in a process of its own.
fn measure(tree: &str, cache: &Path, endpoint: &str) -> Result<Measured> {
    common::measure(&["client", tree, path_arg(cache)?, endpoint])
}

fn client(root: &str, cache: &str, endpoint: &str) -> Result<()> {
    let engine = Engine::new()?;
    let began = Instant::now();
    let cache = CacheManager::open(cache)?;
    let opened = began.elapsed();
    let backend: Arc<dyn StorageBackend> = if endpoint == "local" {
        Arc::new(LocalBackend::new("http://127.0.0.1", root))
    } else {
        let config = S3Config::new(BUCKET)
            .endpoint(endpoint)
            .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
            .bucket_prefix("w1");
        Arc::new(S3Backend::new(&engine, config)?)
    };
    let report = RescanOrchestrator::new(&engine, root, backend, cache)?.rescan()?;
    print_report(&report, opened);
    Ok(())
}

fn print_report(report: &RescanReport, opened: Duration) {
    let metrics = &report.metrics;
    let text = format!(
        "{}: {} uploaded, {} adopted ({} by HEAD), {} unchanged; {} requests, {} connections, {} look-ups, {} bytes hashed, {} commits; cache opened in {:.3} s",
        report.outcome.as_str(),
        report.uploaded_count,
        report.adopted_count,
        report.adoption.map_or(0, |found| found.head_requests),
        report.unchanged,
        metrics.requests,
        metrics.connections,
        metrics.lookups,
        metrics.bytes_hashed,
        metrics.commits,
        opened.as_secs_f64(),
    );
    print_figures(report.elapsed.as_secs_f64(), &text);
}
