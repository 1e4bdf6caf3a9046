//! Real proxies: tinyproxy (HTTP) and microsocks (SOCKS5), each test its own, which end when the test does.
//!
//! `BRIGADE_TEST_TINYPROXY` and `BRIGADE_TEST_MICROSOCKS` name their binaries (Debian: tinyproxy-bin, microsocks); `.ci/run`
//! fetches them. Without the variables the tests that need them say that they were skipped.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::NEXT_TOKEN;

/// The user of proxies that ask for one. tinyproxy takes letters, digits, dots and dashes.
pub const USER: &str = "user.proxy";
/// Their password: every log record is searched for it.
pub const PASSWORD: &str = NEXT_TOKEN;
/// Below the ports that systems give to whoever asks for any, and beside those of `SeaweedFS`.
const PORTS: std::ops::Range<u16> = 15_000..20_000;
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Ends the proxy by its process ID when the pipe to it closes, as the death of the test process closes it.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT
log=$1; shift
exec 3<&0 </dev/null >>"$log" 2>&1
"$@" 3<&- & server=$!
{ read -r _ <&3; kill -9 "$server"; } & reader=$!
wait "$server"
kill -9 "$reader"
"#;

/// A running proxy.
#[derive(Debug)]
pub struct RealProxy {
    port: u16,
    folder: TempDir,
    watchdog: Child,
}

impl RealProxy {
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL with this scheme, with or without the right user and password.
    pub fn url(&self, scheme: &str, with_login: bool) -> String {
        let login = format!("{}:{PASSWORD}@", USER.replace('.', "%2E"));
        format!("{scheme}://{}{}", if with_login { &login } else { "" }, self.addr())
    }

    /// The lines of its log so far that have this text.
    pub fn logged(&self, text: &str) -> usize {
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }

    fn start(command: impl Fn(u16, &TempDir) -> Command) -> Self {
        // Others may take its port before it does.
        let started = (0..3).find_map(|_| Self::try_start(&command));
        started.expect("the proxy starts within 30 s")
    }

    fn try_start(command: impl Fn(u16, &TempDir) -> Command) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let wanted = command(port, &folder);
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "proxy"])
            .arg(folder.path().join("log"))
            .arg(wanted.get_program())
            .args(wanted.get_args())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + READY_TIMEOUT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > deadline || watchdog.try_wait().unwrap().is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self { port, folder, watchdog })
    }
}

impl Drop for RealProxy {
    fn drop(&mut self) {
        // Closes the pipe.
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn binary(variable: &str) -> Option<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    if found.is_none() {
        println!("skipped: {variable} names no binary");
    }
    found.map(|path| fs::canonicalize(path).expect("the binary exists"))
}

/// An HTTP proxy with these lines in its configuration. `%DIR%` in them is its folder.
pub fn tinyproxy(lines: &str) -> Option<RealProxy> {
    let program = binary("BRIGADE_TEST_TINYPROXY")?;
    Some(RealProxy::start(|port, folder| {
        let folder = folder.path().to_str().unwrap();
        let lines = lines.replace("%DIR%", folder);
        let config = format!(
            "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 100\nLogLevel Info\nLogFile \"{folder}/log\"\n{lines}\n"
        );
        fs::write(format!("{folder}/filter"), "^nowhere\\.invalid$\n").unwrap();
        fs::write(format!("{folder}/conf"), config).unwrap();
        let mut command = Command::new(&program);
        command.args(["-d", "-c", &format!("{folder}/conf")]);
        command
    }))
}

/// The line of a tinyproxy that asks for a user and a password.
pub fn basic_auth() -> String {
    format!("BasicAuth {USER} {PASSWORD}")
}

/// A SOCKS5 proxy that asks for a user and a password.
pub fn microsocks() -> Option<RealProxy> {
    let program = binary("BRIGADE_TEST_MICROSOCKS")?;
    Some(RealProxy::start(|port, _| {
        let mut command = Command::new(&program);
        command.args(["-i", "127.0.0.1", "-p", &port.to_string(), "-u", USER, "-P", PASSWORD]);
        command
    }))
}

fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A peer that does to each connection what `serve` does, on a thread of its own; returns its address.
pub fn peer(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A peer that reads all that it gets, and says nothing.
pub fn silent() -> SocketAddr {
    peer(|mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {})
}

/// Ends the TLS of clients of a proxy that has none.
pub fn tls_front(proxy: SocketAddr, config: Arc<ServerConfig>) -> SocketAddr {
    peer(move |client| {
        let tls = ServerConnection::new(config.clone()).unwrap();
        let _ = relay(StreamOwned::new(tls, client), TcpStream::connect(proxy).unwrap());
    })
}

/// Copies both ways, on one thread: rustls has no halves.
fn relay(mut client: StreamOwned<ServerConnection, TcpStream>, mut proxy: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 8 * 1024];
    client.conn.complete_io(&mut client.sock)?;
    client.sock.set_read_timeout(Some(Duration::from_millis(1)))?;
    proxy.set_read_timeout(Some(Duration::from_millis(1)))?;
    let is_idle = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => proxy.write_all(&buffer[..count])?,
            Err(error) if is_idle(&error) => {}
            Err(error) => return Err(error),
        }
        match proxy.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => client.write_all(&buffer[..count])?,
            Err(error) if is_idle(&error) => {}
            Err(error) => return Err(error),
        }
    }
}
