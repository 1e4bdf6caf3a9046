//! Publishers that are processes of their own, with the state in the bucket: this binary as its own children.
//!
//! `killed`: at each of their requests. `stopped`: at each of their writes, while another takes over. `together`: three
//! at once. `steps`: one after another in one process. The last two run on the store in memory and on `SeaweedFS`.

mod killed;
mod steps;
mod stopped;
mod together;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, Credentials, Engine, EngineConfig, RemoteState, RescanConfig, RescanOrchestrator,
    RescanOutcome, RescanReport, S3Backend, S3Config, StopReason,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::proxy::HeldRequest;
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{BUCKET, PREFIX, World, files_below};

/// What a child is to publish, as JSON.
const TASK: &str = "BRIGADE_TEST_PUBLISHER";
/// Longer than any test takes; only there to end one that hangs.
const HANG_TIMEOUT: Duration = Duration::from_secs(120);
const MIB: usize = 1024 * 1024;
/// Two parts.
const LARGE: usize = 8 * MIB + 1;

const PUBLISHED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Published, None, 0);
const UNCHANGED: (RescanOutcome, Option<StopReason>, u64) = (RescanOutcome::Unchanged, None, 0);

/// The objects under the prefix that are no part of the state, or the files of a tree.
type Tree = BTreeMap<String, Vec<u8>>;

fn outcome(report: &RescanReport) -> (RescanOutcome, Option<StopReason>, u64) {
    (report.outcome, report.stop_reason, report.failed_count)
}

/// Waits for a condition. Fails if that hangs.
pub(crate) fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANG_TIMEOUT;
    while !met() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where objects go.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    endpoint: String,
    bucket: String,
    access_key: String,
}

impl Place {
    /// The store of a world, behind its proxy.
    fn of(world: &World) -> Self {
        Self {
            endpoint: world.proxy.endpoint(),
            bucket: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
        }
    }

    fn backend(&self, engine: &Engine) -> Arc<S3Backend> {
        let config = S3Config::new(&self.bucket)
            .endpoint(&self.endpoint)
            .credentials(Credentials::new(&self.access_key, SECRET_KEY))
            .bucket_prefix(PREFIX)
            .part_threshold(8 << 20)
            .part_size(8 << 20);
        Arc::new(S3Backend::new(engine, config).unwrap())
    }
}

/// A machine with a tree and a cache of its own, on real clocks.
struct Publisher {
    place: Place,
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Publisher {
    fn new(place: &Place, files: &[(&str, &str)]) -> Self {
        let engine = EngineConfig::new().workers(3).build().unwrap();
        let publisher = Self { place: place.clone(), engine, folder: tempfile::tempdir().unwrap() };
        fs::create_dir(publisher.root()).unwrap();
        for (key, content) in files {
            publisher.write(key, content);
        }
        publisher
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    fn cache_path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn write(&self, key: &str, content: impl AsRef<[u8]>) {
        fs::write(self.root().join(key), content).unwrap();
    }

    fn remove(&self, key: &str) {
        fs::remove_file(self.root().join(key)).unwrap();
    }

    fn tree(&self) -> Tree {
        files_below(&self.root())
    }

    fn publish(&self) -> RescanReport {
        self.publish_with(RemoteState::new())
    }

    fn publish_with(&self, state: RemoteState) -> RescanReport {
        let task = Task {
            root: self.root(),
            cache: self.cache_path(),
            place: self.place.clone(),
            lease: 0,
            wait: 0,
        };
        task.site(&self.engine, state).rescan().unwrap()
    }

    /// Publishes in a process of its own. The lease and the wait are in seconds.
    fn spawn(&self, lease: u64, wait: u64) -> Process {
        let (root, cache, place) = (self.root(), self.cache_path(), self.place.clone());
        let task = serde_json::to_string(&Task { root, cache, place, lease, wait }).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "publishers::a_child_says_how_its_run_ended", "--nocapture"])
            .env(TASK, task)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Process(child)
    }
}

/// What a process publishes, and where to.
#[derive(Serialize, Deserialize)]
struct Task {
    root: PathBuf,
    cache: PathBuf,
    place: Place,
    lease: u64,
    wait: u64,
}

impl Task {
    fn site(&self, engine: &Engine, state: RemoteState) -> RescanOrchestrator {
        let cache = CacheManager::open(&self.cache).unwrap();
        let (backend, config) = (self.place.backend(engine), RescanConfig::new().state(state));
        RescanOrchestrator::with_config(engine, &self.root, backend, cache, config).unwrap()
    }

    /// Publishes, and prints how that ended.
    fn carry_out(&self) {
        let engine = EngineConfig::new().workers(3).build().unwrap();
        let seconds = Duration::from_secs;
        let state = RemoteState::new().lease(seconds(self.lease)).wait(seconds(self.wait));
        let report = self.site(&engine, state).rescan().unwrap();
        let state = report.state.unwrap_or_default();
        let ended = json!({
            "outcome": report.outcome.as_str(),
            "stop_reason": report.stop_reason.map(StopReason::as_str),
            "failed": report.failed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "generation": state.generation,
        });
        println!("\nended {ended}");
    }
}

/// A child. It is killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits until the proxy holds a request of it. Returns false if it ended without that.
    fn is_held(&mut self, held: &HeldRequest) -> bool {
        let deadline = Instant::now() + HANG_TIMEOUT;
        while held.go.arrivals() == 0 {
            if self.has_ended() {
                return held.go.arrivals() > 0;
            }
            assert!(Instant::now() < deadline, "the child hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// It is not waited for yet, so the process ID is its own.
    fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end. Returns what it said, or `None` if it was killed.
    fn end(&mut self) -> Option<Value> {
        let deadline = Instant::now() + HANG_TIMEOUT;
        while !self.has_ended() {
            assert!(Instant::now() < deadline, "the child hangs");
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.0.wait().unwrap().success() {
            return None;
        }
        let mut text = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("ended ")).expect(&text);
        Some(serde_json::from_str(line).unwrap())
    }
}

/// How a process ended: outcome and reason.
fn said(ended: &Value) -> (&str, &str) {
    (ended["outcome"].as_str().unwrap(), ended["stop_reason"].as_str().unwrap_or("none"))
}

/// In a child: its run. Otherwise that of a child, which publishes a tree in parts.
#[test]
fn a_child_says_how_its_run_ended() {
    if let Ok(task) = std::env::var(TASK) {
        return serde_json::from_str::<Task>(&task).unwrap().carry_out();
    }
    let world = World::new();
    let one = Publisher::new(&Place::of(&world), &[("a", "1")]);
    one.write("large", crate::support::random_bytes(LARGE, 1));
    let ended = one.spawn(300, 0).end().unwrap();
    assert_eq!((said(&ended), ended["generation"].as_u64()), (("published", "none"), Some(1)), "{ended}");
    assert_eq!(published(&world), one.tree());
    assert_eq!(said(&one.spawn(300, 0).end().unwrap()), ("unchanged", "none"));
}

/// The objects of a world that are no part of the state.
fn published(world: &World) -> Tree {
    world.objects().into_iter().filter(|(key, _)| !key.contains(".brigade/")).collect()
}
