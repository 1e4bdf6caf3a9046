//! An S3 server inside the process, for callers without an async runtime.
#![allow(dead_code, unreachable_pub, reason = "each binary uses a part")]
#![allow(clippy::expect_used, reason = "support code ends the test that it cannot support")]

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as ConnectionBuilder;
use rustls::ServerConfig;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Result, s3_error};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

/// The access key that the services of this module accept.
pub const ACCESS_KEY: &str = "support-access-key";
/// The secret key that belongs to [`ACCESS_KEY`].
pub const SECRET_KEY: &str = "support-secret-key-0123456789";

/// The longest wait for a port that is still in use.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait of a plain GET for the next bytes.
const GET_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Dropping it stops it, like [`S3Server::stop`].
#[derive(Debug)]
pub struct S3Server {
    addr: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    scheme: &'static str,
}

impl S3Server {
    /// Serves on a free port of 127.0.0.1.
    pub fn start(service: S3Service) -> Self {
        Self::start_on(0, service)
    }

    /// Serves on this port of 127.0.0.1, which may be the port of a stopped server.
    pub fn start_on(port: u16, service: S3Service) -> Self {
        Self::start_with(port, service, None)
    }

    /// Serves over TLS on a free port of 127.0.0.1.
    pub fn start_tls(service: S3Service, config: Arc<ServerConfig>) -> Self {
        Self::start_with(0, service, Some(config))
    }

    fn start_with(port: u16, service: S3Service, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = bind(port);
        let addr = listener.local_addr().expect("a bound listener has an address");
        listener.set_nonblocking(true).expect("the listener can be made non-blocking");
        let (stop, stopped) = oneshot::channel();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let thread = thread::Builder::new()
            .name(format!("s3-server-{}", addr.port()))
            .spawn(move || run(listener, &service, tls, stopped))
            .expect("the server's thread starts");
        Self { addr, stop: Some(stop), thread: Some(thread), scheme }
    }

    /// The address that the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port that the server listens on.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// The server's URL, without a slash at its end.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// Stops listening and ends all open connections. When this returns, connections are refused.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server's thread was printed; a second panic here would abort the process.
            let _ = thread.join();
        }
    }
}

/// A service that keeps objects as files below `root`; creates the bucket's folder.
pub fn fs(root: &Path, bucket: &str) -> S3Service {
    std::fs::create_dir_all(root.join(bucket)).expect("the bucket's folder can be created");
    guarded(s3s_fs::FileSystem::new(root).expect("the root is a folder"))
}

/// A service on any store that demands valid signatures, except for reading single objects.
pub fn guarded(store: impl S3) -> S3Service {
    guarded_by(store, SECRET_KEY)
}

/// The same for another secret key.
pub fn guarded_by(store: impl S3, secret_key: &str) -> S3Service {
    let mut builder = S3ServiceBuilder::new(store);
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, secret_key));
    builder.set_access(AnonymousRead);
    builder.build()
}

/// Lets unsigned requests read single objects, as a public bucket does.
struct AnonymousRead;

#[async_trait::async_trait]
impl S3Access for AnonymousRead {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_some() || matches!(cx.s3_op().name(), "GetObject" | "HeadObject") {
            return Ok(());
        }
        Err(s3_error!(AccessDenied, "Signature is required"))
    }
}

fn bind(port: u16) -> TcpListener {
    let deadline = Instant::now() + BIND_TIMEOUT;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.expect("the port can be bound"),
        }
    }
}

fn run(
    listener: TcpListener,
    service: &S3Service,
    tls: Option<Arc<ServerConfig>>,
    stopped: oneshot::Receiver<()>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let runtime = runtime();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is registered");
        tokio::select! {
            () = accept(&listener, service, tls) => {}
            _ = stopped => {}
        }
    });
    // Drops the connections' tasks, and the sockets with them.
    runtime.shutdown_timeout(Duration::from_secs(2));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("s3-server-worker")
        .enable_all()
        .build()
        .expect("the server's runtime starts")
}

async fn accept(listener: &tokio::net::TcpListener, service: &S3Service, tls: Option<TlsAcceptor>) {
    let http = ConnectionBuilder::new(TokioExecutor::new());
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            // Probably out of file descriptors: others may be closed soon.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let (http, service, tls) = (http.clone(), service.clone(), tls.clone());
        tokio::spawn(async move {
            // Clients that disconnect early, or reject the certificate, are part of the tests.
            let _ = match tls {
                None => http.serve_connection(TokioIo::new(socket), service).await,
                Some(tls) => match tls.accept(socket).await {
                    Ok(socket) => http.serve_connection(TokioIo::new(socket), service).await,
                    Err(error) => Err(error.into()),
                },
            };
        });
    }
}

/// Fetches `http://HOST:PORT/PATH` with an unsigned GET and returns the status and the body.
pub fn http_get(url: &str) -> (u16, Vec<u8>) {
    try_http_get(url).expect("the GET is answered")
}

/// As [`http_get`], for servers that may not answer, or not completely.
pub fn try_http_get(url: &str) -> io::Result<(u16, Vec<u8>)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| invalid("not an http:// URL"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (status, _, body) = exchange(host, request.as_bytes())?;
    Ok((status, body))
}

/// A status, headers by their names in lower case, and a body.
pub type PlainAnswer = (u16, BTreeMap<String, String>, Vec<u8>);

/// Sends these bytes, which are one request, to `HOST:PORT`, and reads the answer.
pub fn exchange(host: &str, request: &[u8]) -> io::Result<PlainAnswer> {
    exchange_on(&mut connect(host)?, request)
}

/// A connection to `HOST:PORT` for [`exchange_on`].
pub fn connect(host: &str) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(GET_TIMEOUT))?;
    Ok(BufReader::new(stream))
}

/// As [`exchange`], on a connection that may have had requests before.
pub fn exchange_on(reader: &mut BufReader<TcpStream>, request: &[u8]) -> io::Result<PlainAnswer> {
    reader.get_mut().write_all(request)?;
    let status_line = read_line(reader)?;
    let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| invalid("no status in the answer"))?;
    let headers = read_headers(reader)?;
    let empty = request.starts_with(b"HEAD ") || matches!(status, 204 | 304);
    let body = if empty { Vec::new() } else { read_body(reader, &headers)? };
    Ok((status, headers, body))
}

fn read_headers(reader: &mut BufReader<TcpStream>) -> io::Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            return Ok(headers);
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
}

fn read_body(reader: &mut BufReader<TcpStream>, headers: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let chunked = headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let length = headers.get("content-length").and_then(|value| value.parse().ok());
    let mut body = Vec::new();
    if chunked {
        read_chunks(reader, &mut body)?;
    } else if let Some(length) = length {
        read_exactly(reader, length, &mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_chunks(reader: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(reader)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| invalid("no chunk size"))?;
        read_exactly(reader, size, body)?;
        // The end of the line after a chunk; after the last chunk, the empty trailer.
        read_line(reader)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(reader: &mut BufReader<TcpStream>, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if reader.take(length).read_to_end(body)? as u64 == length {
        return Ok(());
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn read_line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
