//! A plain HTTP server that answers `GET /KEY` with a redirect to the URL of the file. A fixed number of workers each
//! serve one connection at a time. One more thread rescans on a timer; the workers read the catalog and never wait for
//! a rescan.
//!
//! ```text
//! cargo run --release --example embed_in_server                 # demo: a new tree, an S3 server in this process
//! cargo run --release --example embed_in_server DIR s3://BUCKET/PREFIX [ENDPOINT]   # credentials: AWS_* variables
//! curl -i http://127.0.0.1:8080/index.html
//! wrk -c 8 -t 2 -d 10 http://127.0.0.1:8080/index.html
//! ```

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, Catalog, Credentials, Engine, KeyState, LocalBackend, RescanConfig, RescanOrchestrator,
    Resolved, S3Backend, S3Config,
};
use percent_encoding::percent_decode_str;

#[path = "../tests/support/server.rs"]
mod server;
use server::{ACCESS_KEY, S3Server, SECRET_KEY};

const ADDRESS: &str = "127.0.0.1:8080";
const WORKERS: usize = 8;
const RESCAN_EVERY: Duration = Duration::from_secs(30);
/// The interval at which a worker checks for a newer catalog, with one `stat`.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// The idle timeout of a connection, after which its worker is free again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const MAX_HEAD_BYTES: u64 = 16 * 1024;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let scratch = tempfile::tempdir()?;
    // In the demo, the store stops when `_store` is dropped.
    let (tree, config, _store) = match words.as_slice() {
        [] => demo(scratch.path())?,
        [dir, dest, endpoint @ ..] => {
            let config = S3Config::for_url(dest)?.credentials(Credentials::from_env()?);
            let config = endpoint.iter().fold(config, |config, endpoint| config.endpoint(*endpoint));
            (PathBuf::from(dir), config, None)
        }
        _ => return Err("usage: embed_in_server [DIR s3://BUCKET/PREFIX [ENDPOINT]]".into()),
    };
    let cache = scratch.path().join("site.cache");
    let site = publisher(&tree, config, &cache)?;
    // Writes the first catalog. If the store cannot be reached, it has the fallback's URLs.
    println!("{:?}", site.rescan()?.outcome);
    let catalog = Catalog::open(Catalog::path_for(&cache))?;
    let listener = TcpListener::bind(ADDRESS)?;
    println!("http://{ADDRESS}/KEY: {} keys, {WORKERS} workers", catalog.len());
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (listener, catalog) = (listener.try_clone()?, catalog.clone());
            Ok(thread::spawn(move || serve_connections(&listener, catalog)))
        })
        .collect::<Result<_>>()?;
    thread::spawn(move || rescan_forever(&site));
    for worker in workers {
        worker.join().map_err(|_| "a worker panicked")?;
    }
    Ok(())
}

fn demo(scratch: &Path) -> Result<(PathBuf, S3Config, Option<S3Server>)> {
    let tree = scratch.join("tree");
    for n in 0..1000 {
        let folder = tree.join(format!("assets/{:02}", n % 50));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("file {n:04}.txt")), format!("file {n}\n"))?;
    }
    std::fs::write(tree.join("index.html"), "<h1>It works</h1>\n")?;
    let store = S3Server::start(server::fs(&scratch.join("objects"), "demo"));
    let config = S3Config::new("demo")
        .endpoint(store.endpoint())
        .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
        .bucket_prefix("site");
    Ok((tree, config, Some(store)))
}

fn publisher(tree: &Path, config: S3Config, cache: &Path) -> Result<RescanOrchestrator> {
    let engine = Engine::new()?;
    let backend = Arc::new(S3Backend::new(&engine, config)?);
    // A file that is not published yet is read from a server on this machine.
    let fallback = Arc::new(LocalBackend::new("http://127.0.0.1:8081/files", tree));
    let (cache, config) = (CacheManager::open(cache)?, RescanConfig::new().fallback(fallback));
    Ok(RescanOrchestrator::with_config(&engine, tree, backend, cache, config)?)
}

fn rescan_forever(site: &RescanOrchestrator) {
    loop {
        thread::sleep(RESCAN_EVERY);
        match site.rescan() {
            Ok(report) => log::info!("{}: {} uploaded", report.outcome.as_str(), report.uploaded_count),
            Err(error) => log::error!("{error}"),
        }
    }
}

/// Serves one connection after another.
fn serve_connections(listener: &TcpListener, mut catalog: Catalog) {
    let mut looked = Instant::now();
    loop {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        // A broken connection concerns its client only.
        if let Err(error) = serve(&stream, &mut catalog, &mut looked) {
            log::debug!("{error}");
        }
    }
}

/// Answers the requests on a connection.
fn serve(stream: &TcpStream, catalog: &mut Catalog, looked: &mut Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let (mut line, mut answer) = (String::new(), String::new());
    loop {
        let mut head = (&mut reader).take(MAX_HEAD_BYTES);
        line.clear();
        if head.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let request = line.clone();
        // A request that may have a body is answered, and the connection closed, without reading the body.
        let mut close = !request.trim_end().ends_with("HTTP/1.1") || !request.starts_with(['G', 'H']);
        loop {
            line.clear();
            match head.read_line(&mut line)? {
                0 => return Ok(()),
                _ if line.trim_end().is_empty() => break,
                _ => close |= line.trim_end().eq_ignore_ascii_case("connection: close"),
            }
        }
        if looked.elapsed() >= REFRESH_EVERY {
            *looked = Instant::now();
            if let Err(error) = catalog.refresh() {
                log::warn!("cannot refresh the catalog, using the old one: {error}");
            }
        }
        answer.clear();
        respond(&request, catalog, close, &mut answer);
        writer.write_all(answer.as_bytes())?;
        if close {
            return Ok(());
        }
    }
}

fn respond(request: &str, catalog: &Catalog, close: bool, answer: &mut String) {
    let mut words = request.split(' ');
    let status = match (words.next(), words.next()) {
        (Some("GET" | "HEAD"), Some(target)) => {
            let path = target.split('?').next().unwrap_or_default().trim_start_matches('/');
            match percent_decode_str(path).decode_utf8().ok().and_then(|key| catalog.get(&key)) {
                // Neither the store nor a fallback can serve the file yet.
                Some(Resolved { state: KeyState::Pending, size: None, .. }) => {
                    "503 Service Unavailable\r\nRetry-After: 30".to_owned()
                }
                Some(found) => format!("302 Found\r\nLocation: {}", found.url),
                None => "404 Not Found".to_owned(),
            }
        }
        (_, Some(_)) => "405 Method Not Allowed\r\nAllow: GET, HEAD".to_owned(),
        _ => "400 Bad Request".to_owned(),
    };
    let connection = if close { "Connection: close\r\n" } else { "" };
    answer.push_str("HTTP/1.1 ");
    answer.push_str(&status);
    answer.push_str("\r\nContent-Length: 0\r\n");
    answer.push_str(connection);
    answer.push_str("\r\n");
}
