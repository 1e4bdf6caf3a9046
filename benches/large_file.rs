//! Measures the upload of a large file: one file of random bytes, from the page cache, to s3s-fs, hashing included.
//!
//! ```text
//! cargo bench --bench large_file                        # memory, killed, chunks, compare: each with 2 GiB
//! cargo bench --bench large_file -- parts size=512      # part sizes, with 512 MiB
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, Credentials, Engine, NetworkConfig, PartPlan, RescanOrchestrator, S3Backend, S3Config,
};

mod common;
#[path = "../tests/support/server.rs"]
mod server;
#[path = "../tests/support/tls.rs"]
mod tls;
use common::{
    BUCKET, Measured, Result, Server, path_arg, print_figures, this_benchmark, wait_out_racy_window,
};
use server::{ACCESS_KEY, S3Server, SECRET_KEY};
use tls::TestCa;

const MIB: u64 = 1024 * 1024;
const PART: u64 = 16 * MIB;
const CHUNK: u64 = 8 * 1024;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["serve", objects, ca] => serve(Path::new(objects), ca),
        ["client", root, cache, endpoint, ca, chunk, part] => {
            client(root, cache, endpoint, ca, chunk.parse()?, part.parse()?)
        }
        ["rust-s3", call, path, endpoint] => rust_s3(call, path, endpoint),
        arguments => {
            let size = arguments.iter().find_map(|word| word.strip_prefix("size="));
            let size = size.map_or(Ok(2048), str::parse::<u64>)? * MIB;
            let mut names: Vec<_> =
                arguments.iter().filter(|word| !word.starts_with("size=")).copied().collect();
            if names.is_empty() {
                names = vec!["memory", "killed", "chunks", "compare"];
            }
            names.into_iter().try_for_each(|name| run(name, size))
        }
    }
}

fn run(name: &str, size: u64) -> Result<()> {
    match name {
        "memory" => memory(size),
        "killed" => killed(size),
        "chunks" => chunks(size),
        "parts" => parts(size),
        "compare" => compare(size),
        other => Err(format!("no benchmark {other}: memory, killed, chunks, parts, compare").into()),
    }
}

/// A tree of one large file, with scratch space for caches and objects.
struct Scene {
    scratch: tempfile::TempDir,
    runs: AtomicU32,
}

impl Scene {
    fn new(size: u64) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        fs::create_dir(scratch.path().join("tree"))?;
        let mut file = File::create(scratch.path().join("tree/large"))?;
        let mut random = fastrand::Rng::with_seed(42);
        let mut block = vec![0; usize::try_from(MIB)?];
        for _ in 0..size / MIB {
            random.fill(&mut block);
            file.write_all(&block)?;
        }
        file.sync_all()?;
        wait_out_racy_window();
        Ok(Self { scratch, runs: AtomicU32::new(0) })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Starts a server with an empty bucket.
    fn server(&self, tls: bool) -> Result<Server> {
        let objects = self.path("objects");
        if objects.exists() {
            fs::remove_dir_all(&objects)?;
        }
        let ca = self.path("ca");
        fs::create_dir_all(&ca)?;
        Server::start(&["serve", path_arg(&objects)?, if tls { path_arg(&ca)? } else { "" }])
    }

    /// Runs a client that publishes the tree, with a new cache each time.
    fn client(&self, server: &Server, chunk: u64, part: u64) -> Result<Measured> {
        let cache = self.path(&format!("cache{}", self.runs.fetch_add(1, Ordering::Relaxed)));
        let arguments = self.arguments(&cache, server, chunk, part)?;
        common::measure(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn arguments(&self, cache: &Path, server: &Server, chunk: u64, part: u64) -> Result<[String; 7]> {
        let tls = server.endpoint.starts_with("https");
        let ca = if tls { path_arg(&self.path("ca/ca.pem"))?.to_owned() } else { String::new() };
        Ok([
            "client".to_owned(),
            path_arg(&self.path("tree"))?.to_owned(),
            path_arg(cache)?.to_owned(),
            server.endpoint.clone(),
            ca,
            chunk.to_string(),
            part.to_string(),
        ])
    }
}

fn show(title: &str, size: u64, measured: &Measured) {
    let Measured { cpu, peak_mib, wall, text } = measured;
    let gib = size as f64 / (1024 * MIB) as f64;
    println!(
        "  {title:28} CPU {cpu:.2} s, peak {peak_mib:.1} MiB, wall {wall:.1} s, {:.2} CPU s a GiB; {text}",
        cpu / gib
    );
}

/// Shows that memory does not grow with the size of the file.
fn memory(size: u64) -> Result<()> {
    println!("memory: files of different sizes, 10 parts of 16 MiB in flight, chunks of 8 KiB");
    for size in [size / 8, size, 4 * size] {
        let scene = Scene::new(size)?;
        let measured = scene.client(&scene.server(false)?, CHUNK, PART)?;
        show(&format!("{} MiB", size / MIB), size, &measured);
    }
    Ok(())
}

/// Measures chunk sizes, plain and over TLS.
fn chunks(size: u64) -> Result<()> {
    println!("chunks: {} MiB, 10 parts of 16 MiB in flight", size / MIB);
    let scene = Scene::new(size)?;
    for tls in [false, true] {
        for chunk in [8, 16, 64, 256] {
            let measured = scene.client(&scene.server(tls)?, chunk * 1024, PART)?;
            show(&format!("{}, {chunk} KiB", if tls { "TLS" } else { "plain" }), size, &measured);
        }
    }
    Ok(())
}

/// Measures part sizes.
fn parts(size: u64) -> Result<()> {
    println!("parts: {} MiB, 10 in flight, chunks of 8 KiB", size / MIB);
    let scene = Scene::new(size)?;
    for part in [8, 16, 32, 64] {
        let measured = scene.client(&scene.server(false)?, CHUNK, part * MIB)?;
        show(&format!("parts of {part} MiB"), size, &measured);
    }
    Ok(())
}

/// Kills the client (SIGKILL) when the store has half of the file, then measures a second run, which resumes it.
fn killed(size: u64) -> Result<()> {
    println!("killed: {} MiB, parts of 16 MiB, killed at half", size / MIB);
    let scene = Scene::new(size)?;
    let server = scene.server(false)?;
    let arguments = scene.arguments(&scene.path("cache"), &server, CHUNK, PART)?;
    let mut child = this_benchmark()?.args(&arguments).stdout(std::process::Stdio::null()).spawn()?;
    while bytes_below(&scene.path("objects")) < size / 2 {
        if child.try_wait()?.is_some() {
            return Err("the client ended before it was killed".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    let there = bytes_below(&scene.path("objects"));
    let measured = common::measure(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    show("the second run", size, &measured);
    let allowed = size / 2 + 10 * PART;
    println!(
        "  at the store when it was killed: {} MiB; allowed to be sent: {} MiB",
        there / MIB,
        allowed / MIB
    );
    Ok(())
}

fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Compares with rust-s3's own calls on the same file.
fn compare(size: u64) -> Result<()> {
    println!("compare: {} MiB, plain, 10 parts of 16 MiB in flight where there are parts", size / MIB);
    let scene = Scene::new(size)?;
    let measured = scene.client(&scene.server(false)?, CHUNK, PART)?;
    show("bucket-brigade, 8 KiB", size, &measured);
    let measured = scene.client(&scene.server(false)?, 64 * 1024, PART)?;
    show("bucket-brigade, 64 KiB", size, &measured);
    let path = scene.path("tree/large");
    for call in ["put_object_stream", "put_multipart_chunk"] {
        let server = scene.server(false)?;
        let measured = common::measure(&["rust-s3", call, path_arg(&path)?, &server.endpoint])?;
        show(&format!("rust-s3, {call}"), size, &measured);
    }
    Ok(())
}

fn serve(objects: &Path, ca: &str) -> Result<()> {
    let service = server::fs(objects, BUCKET);
    let server = if ca.is_empty() {
        S3Server::start(service)
    } else {
        let authority = TestCa::new();
        authority.write_into(Path::new(ca));
        S3Server::start_tls(service, authority.server_config())
    };
    println!("{}", server.endpoint());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn client(root: &str, cache: &str, endpoint: &str, ca: &str, chunk: usize, part: u64) -> Result<()> {
    let engine = Engine::new()?;
    let config = S3Config::new(BUCKET)
        .endpoint(endpoint)
        .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
        .chunk_size(chunk)
        .part_size(part);
    let config = if ca.is_empty() { config } else { config.network(NetworkConfig::new().ca_file(ca)) };
    let backend = Arc::new(S3Backend::new(&engine, config)?);
    let site = RescanOrchestrator::new(&engine, root, backend, CacheManager::open(cache)?)?;
    let report = site.rescan()?;
    let metrics = &report.metrics;
    let text = format!(
        "{}; {} requests, {} connections, {} MiB sent in {} writes, {} MiB hashed, {} commits",
        report.outcome.as_str(),
        metrics.requests,
        metrics.connections,
        metrics.bytes_sent / MIB,
        metrics.sends,
        metrics.bytes_hashed / MIB,
        metrics.commits
    );
    print_figures(report.elapsed.as_secs_f64(), &text);
    Ok(())
}

/// Uploads the file with rust-s3's blocking calls.
fn rust_s3(call: &str, path: &str, endpoint: &str) -> Result<()> {
    let credentials = s3::creds::Credentials::new(Some(ACCESS_KEY), Some(SECRET_KEY), None, None, None)?;
    let region = s3::Region::Custom { region: "us-east-1".to_owned(), endpoint: endpoint.to_owned() };
    let bucket = s3::Bucket::new(BUCKET, region, credentials)?.with_path_style();
    let began = Instant::now();
    match call {
        "put_object_stream" => {
            bucket.put_object_stream(&mut File::open(path)?, "large")?;
        }
        _ => rust_s3_multipart(&bucket, Path::new(path))?,
    }
    print_figures(began.elapsed().as_secs_f64(), "");
    Ok(())
}

/// Uploads the file with rust-s3's multipart calls, on ten threads that each take the next part.
fn rust_s3_multipart(bucket: &s3::Bucket, path: &Path) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (kind, file) = ("application/octet-stream", File::open(path)?);
    let plan = PartPlan::new(file.metadata()?.len(), PART).ok_or("an empty file")?;
    let upload = bucket.initiate_multipart_upload("large", kind)?;
    let next = AtomicU32::new(1);
    let send = || -> std::result::Result<Vec<s3::serde_types::Part>, String> {
        let mut sent = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some((offset, length)) = plan.part(number) else {
                return Ok(sent);
            };
            let mut chunk = vec![0; usize::try_from(length).map_err(|error| error.to_string())?];
            file.read_exact_at(&mut chunk, offset).map_err(|error| error.to_string())?;
            let part = bucket.put_multipart_chunk(&chunk, "large", number, &upload.upload_id, kind);
            sent.push(part.map_err(|error| error.to_string())?);
        }
    };
    let mut parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(send)).collect();
        let ended = threads.into_iter().map(|thread| thread.join().map_err(|_| "a panic".to_owned())?);
        ended.collect::<std::result::Result<Vec<_>, _>>()
    })?
    .concat();
    parts.sort_by_key(|part| part.part_number);
    bucket.complete_multipart_upload("large", &upload.upload_id, parts)?;
    Ok(())
}
