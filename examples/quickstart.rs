//! Publishes a tree and keeps it published, against an S3 server inside this process:
//!
//! ```text
//! cargo run --release --example quickstart [DIR]
//! ```
//!
//! Works on a copy of DIR (by default the sources of this crate). Changes nothing outside of a temporary folder.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Credentials, Engine, LocalBackend, RescanConfig, RescanOrchestrator, RescanReport,
    S3Backend, S3Config,
};

#[path = "../tests/support/server.rs"]
mod server;
use server::{ACCESS_KEY, S3Server, SECRET_KEY, http_get};

const BUCKET: &str = "demo";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn"))
        .format_target(false)
        .format_timestamp(None)
        .init();
    let own_sources = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let source = std::env::args_os().nth(1).map_or(own_sources, PathBuf::from);
    let scratch = tempfile::tempdir()?;
    let (tree, objects) = (scratch.path().join("tree"), scratch.path().join("objects"));
    copy_tree(&source, &tree)?;

    step("An S3 server starts inside this process");
    let server = S3Server::start(server::fs(&objects, BUCKET));
    println!("   {}, bucket \"{BUCKET}\"", server.endpoint());

    let engine = Engine::new()?;
    let config = S3Config::new(BUCKET)
        .endpoint(server.endpoint())
        .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
        .bucket_prefix("site")
        .header("Cache-Control", "public, max-age=60");
    let backend = Arc::new(S3Backend::new(&engine, config)?);
    let fallback = Arc::new(LocalBackend::new("http://127.0.0.1/files", &tree));
    let cache = CacheManager::open(scratch.path().join("site.cache"))?;
    let config = RescanConfig::new().fallback(fallback);
    let site = RescanOrchestrator::with_config(&engine, &tree, backend, cache, config)?;

    step(&format!("First rescan: {} is published", source.display()));
    show(&site.rescan()?);

    step("One file changed, one added, one removed");
    let (changed, removed) = edit(&tree)?;
    println!("   changed {changed}, added new file.txt, removed {removed}");
    show(&site.rescan()?);

    step("Rescan of an unchanged tree: no request");
    show(&site.rescan()?);

    step("The server stops; a file is added; rescan");
    let port = server.port();
    server.stop();
    fs::write(tree.join("written during the outage.txt"), "not lost\n")?;
    show(&site.rescan()?);
    show_url(&site, "written during the outage.txt")?;

    step("The server is back; the next rescan catches up");
    let server = S3Server::start_on(port, server::fs(&objects, BUCKET));
    show(&site.rescan()?);
    show_url(&site, "written during the outage.txt")?;

    step("Everything is read back over HTTP and compared");
    let (files, bytes) = compare(&site, &tree)?;
    println!("   {files} files, {bytes} bytes: all equal");
    server.stop();
    Ok(())
}

fn step(title: &str) {
    println!("\n== {title}");
}

fn show(report: &RescanReport) {
    for file in report.uploaded.iter().take(5) {
        println!("   up   {:>8} B  {}", file.bytes, file.url);
    }
    if report.uploaded_count > 5 {
        println!("   up   … and {} more", report.uploaded_count - 5);
    }
    for key in &report.deleted {
        println!("   gone              {key}");
    }
    println!(
        "   {}: {} uploaded ({} bytes), {} deleted, {} unchanged, {} pending; {} requests over {} new connections, {:.2} s",
        report.outcome.as_str(),
        report.uploaded_count,
        report.uploaded_bytes,
        report.deleted_count,
        report.unchanged,
        report.pending,
        report.metrics.requests,
        report.metrics.connections,
        report.elapsed.as_secs_f64(),
    );
}

fn show_url(site: &RescanOrchestrator, key: &str) -> Result<()> {
    let resolved = site.cache().resolve(key)?.ok_or("the key is unknown")?;
    println!("   to be read at {} ({:?})", resolved.url, resolved.state);
    Ok(())
}

/// Changes the first file, adds a new one, and removes the last.
fn edit(tree: &Path) -> Result<(String, String)> {
    let keys = files(tree, tree)?;
    let (Some(first), Some(last)) = (keys.first(), keys.last()) else {
        return Err("the tree is empty".into());
    };
    fs::write(tree.join(first), "changed\n")?;
    fs::write(tree.join("new file.txt"), "new\n")?;
    if first != last {
        fs::remove_file(tree.join(last))?;
    }
    Ok((first.clone(), last.clone()))
}

fn compare(site: &RescanOrchestrator, tree: &Path) -> Result<(usize, usize)> {
    let (mut count, mut bytes) = (0, 0);
    for key in files(tree, tree)? {
        let resolved = site.cache().resolve(&key)?.ok_or_else(|| format!("{key} is not published"))?;
        let (status, body) = http_get(&resolved.url);
        if status != 200 || body != fs::read(tree.join(&key))? {
            return Err(format!("{} is not what is on disk (status {status})", resolved.url).into());
        }
        count += 1;
        bytes += body.len();
    }
    Ok((count, bytes))
}

/// The keys of all files below `folder`.
fn files(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            keys.extend(files(root, &entry.path())?);
        } else if let Some(key) = entry.path().strip_prefix(root)?.to_str() {
            keys.push(key.to_owned());
        }
    }
    keys.sort();
    Ok(keys)
}

/// Copies regular files, except those in `target` and `.git`.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        if kind.is_dir() && name != "target" && name != ".git" {
            copy_tree(&entry.path(), &to.join(name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(name))?;
        }
    }
    Ok(())
}
