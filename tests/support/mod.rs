//! Shared by the tests: stores, the fault proxy, a tree to publish, the oracle.

#![allow(dead_code, reason = "each test uses a part")]

pub mod http;
pub mod jumping_clock;
pub mod logs;
pub mod memory_store;
pub mod oracle;
pub mod proxies;
pub mod proxy;
pub mod seaweedfs;
pub mod server;
pub mod signed;
pub mod tls;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bucket_brigade::{
    CacheManager, Credentials, Engine, EngineConfig, Event, NetworkConfig, Observer, RescanConfig,
    RescanOrchestrator, S3Backend, S3Config, StorageBackend, VirtualClock,
};
use tempfile::TempDir;

use memory_store::MemoryStore;
use proxy::FaultProxy;
use server::{ACCESS_KEY, S3Server, SECRET_KEY};
use tls::TestCa;

pub const BUCKET: &str = "bucket";
pub const PREFIX: &str = "site/";
/// The key of the head of a state that lies with the bucket. A run with work asks for it first: a rule whose
/// `path_contains` this meets that request, and no other.
pub const HEAD: &str = ".brigade/head";
/// The session token. It is part of every request, and must never show up in a log, an event or a report.
pub const SESSION_TOKEN: &str = "support-session-token-CANARY";
/// The session token of renewed credentials, which must not show up either.
pub const NEXT_TOKEN: &str = "support-next-token-CANARY";

/// A tree, a store behind a fault proxy, an engine on a virtual clock, a cache.
pub struct World {
    pub store: MemoryStore,
    pub server: Option<S3Server>,
    pub proxy: FaultProxy,
    pub clock: Arc<VirtualClock>,
    pub engine: Engine,
    pub events: Arc<Mutex<Vec<Event>>>,
    ca_file: Option<PathBuf>,
    folder: TempDir,
    /// Every version that a file ever had, by key.
    versions: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    /// The objects that others stored, by key.
    pub(crate) strangers: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The upload IDs of multipart uploads that others created, or that we created and never received.
    pub(crate) strange_uploads: Mutex<Vec<String>>,
    /// Set if answers to `CreateMultipartUpload` get lost, so that uploads are left whose ID nobody knows.
    pub lost_begins: AtomicBool,
}

/// I7, after every test that has a world: no record of the log had a secret, no file beside the tree has one, and no object of a
/// state, nor the metadata of any object.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let state = self.folder.path().join("state");
        assert_eq!(logs::leaks(), Vec::<String>::new(), "I7");
        assert_eq!(logs::files_with_secrets(&state), Vec::<String>::new(), "I7");
        assert_eq!(self.store.keys_of_ours(logs::holds_secret), Vec::<String>::new(), "I7");
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_workers(10)
    }

    pub fn with_workers(workers: usize) -> Self {
        Self::with(workers, false)
    }

    /// A world whose proxy is reached over TLS, with its own certificate authority.
    pub fn over_tls(workers: usize) -> Self {
        Self::with(workers, true)
    }

    fn with(workers: usize, tls: bool) -> Self {
        logs::watch();
        let store = MemoryStore::with_bucket(BUCKET);
        let server = S3Server::start(store.service());
        let folder = tempfile::tempdir().unwrap();
        let ca = tls.then(TestCa::new);
        let proxy = match &ca {
            Some(ca) => FaultProxy::start_tls(server.addr(), ca.server_config()),
            None => FaultProxy::start(server.addr()),
        };
        let clock = Arc::new(VirtualClock::new());
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = events.clone();
        let observer: Arc<dyn Observer> =
            Arc::new(move |event: &Event| sink.lock().unwrap().push(event.clone()));
        let config = EngineConfig::new().workers(workers).clock(clock.clone()).observer(observer);
        let world = Self {
            store,
            server: Some(server),
            proxy,
            clock,
            engine: config.build().unwrap(),
            events,
            ca_file: ca.map(|ca| ca.write_into(folder.path())),
            folder,
            versions: Mutex::default(),
            strangers: Mutex::default(),
            strange_uploads: Mutex::default(),
            lost_begins: AtomicBool::new(false),
        };
        fs::create_dir(world.root()).unwrap();
        world
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.root().join(key)
    }

    pub fn cache_path(&self) -> PathBuf {
        self.folder.path().join("state/cache")
    }

    /// Writes a file of the tree.
    pub fn write(&self, key: &str, bytes: impl AsRef<[u8]>) {
        self.remember(key, bytes.as_ref());
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes a file of random bytes, the same for the same seed, and returns them.
    pub fn write_random(&self, key: &str, size: usize, seed: u64) -> Vec<u8> {
        let bytes = random_bytes(size, seed);
        self.write(key, &bytes);
        bytes
    }

    /// Notes a version that the file has, or may have at some moment.
    pub fn remember(&self, key: &str, bytes: &[u8]) {
        self.versions.lock().unwrap().entry(key.to_owned()).or_default().push(bytes.to_vec());
    }

    /// Forgets the versions and events before now: every object is the file that is on disk.
    pub fn forget_earlier_versions(&self) {
        let now = files_below(&self.root()).into_iter().map(|(key, bytes)| (key, vec![bytes]));
        *self.versions.lock().unwrap() = now.collect();
        self.events.lock().unwrap().clear();
    }

    pub fn remove(&self, key: &str) {
        fs::remove_file(self.path(key)).unwrap();
    }

    /// Stores an object under the prefix as another program would.
    pub fn stranger(&self, key: &str, bytes: &str) {
        self.strangers.lock().unwrap().insert(key.to_owned(), bytes.as_bytes().to_vec());
        self.store.put_raw(&format!("{PREFIX}{key}"), bytes.to_owned());
    }

    /// Creates a multipart upload under the prefix as another program would; returns its upload ID.
    pub fn strange_upload(&self, key: &str) -> String {
        let id = self.store.begin_raw(&format!("{PREFIX}{key}"));
        self.strange_uploads.lock().unwrap().push(id.clone());
        id
    }

    /// Counts all unfinished uploads at the store as those of others: their upload IDs were lost, so nobody can tell
    /// whose they are.
    pub fn lose_names_of_uploads(&self) {
        let ids = self.store.uploads().into_iter().map(|(_, id)| id);
        self.strange_uploads.lock().unwrap().extend(ids);
    }

    pub fn was_a_version(&self, key: &str, bytes: &[u8]) -> bool {
        self.versions.lock().unwrap().get(key).is_some_and(|all| all.iter().any(|one| one == bytes))
    }

    /// Makes every file older than the racy window.
    pub fn let_files_settle(&self) {
        self.clock.step_wall(10);
    }

    pub fn s3_config(&self) -> S3Config {
        s3_config_at(&self.proxy.endpoint()).network(self.network())
    }

    /// The certificate of the authority that the proxy's is of; empty without TLS.
    pub fn ca_pem(&self) -> String {
        self.ca_file.as_ref().map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default()
    }

    /// The settings of connections to the proxy.
    pub fn network(&self) -> NetworkConfig {
        self.ca_file.iter().fold(NetworkConfig::new(), NetworkConfig::ca_file)
    }

    pub fn backend(&self) -> Arc<S3Backend> {
        Arc::new(S3Backend::new(&self.engine, self.s3_config()).unwrap())
    }

    pub fn cache(&self) -> CacheManager {
        CacheManager::open(self.cache_path()).unwrap()
    }

    /// A new orchestrator on the same cache file, as after a restart.
    pub fn orchestrator(&self) -> RescanOrchestrator {
        self.orchestrator_with(RescanConfig::new())
    }

    pub fn orchestrator_with(&self, config: RescanConfig) -> RescanOrchestrator {
        self.orchestrator_on(self.backend(), config)
    }

    pub fn orchestrator_on(
        &self,
        backend: Arc<dyn StorageBackend>,
        config: RescanConfig,
    ) -> RescanOrchestrator {
        RescanOrchestrator::with_config(&self.engine, self.root(), backend, self.cache(), config).unwrap()
    }

    /// The objects under the prefix, by their keys without it.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let under = |(key, bytes): (String, Vec<u8>)| Some((key.strip_prefix(PREFIX)?.to_owned(), bytes));
        self.store.objects().into_iter().filter_map(under).collect()
    }

    pub fn keys(&self) -> Vec<String> {
        self.objects().into_keys().collect()
    }

    /// The messages of the log records at `level` so far.
    pub fn logged(&self, level: log::Level) -> Vec<String> {
        let of_level = |event: &Event| match event {
            Event::Log { level: at, message, .. } if *at == level => Some(message.clone()),
            _ => None,
        };
        self.events.lock().unwrap().iter().filter_map(of_level).collect()
    }

    /// Starts the store's server again, with the same objects.
    pub fn restart_server(&mut self) {
        self.server.take();
        let server = S3Server::start(self.store.service());
        self.proxy.set_upstream(server.addr());
        self.server = Some(server);
    }
}

/// Sets a flag when it is dropped, also by a panic: other threads of the test may wait for it.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The configuration for a world's store at this endpoint.
pub fn s3_config_at(endpoint: &str) -> S3Config {
    S3Config::new(BUCKET)
        .endpoint(endpoint)
        .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY).with_session_token(SESSION_TOKEN))
        .bucket_prefix(PREFIX)
}

/// Random bytes, the same for the same seed.
pub fn random_bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// The regular files below `root`, by key.
pub fn files_below(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that cannot be read has no files that could be published.
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Some(key) = entry.path().strip_prefix(root).unwrap().to_str()
            {
                found.insert(key.to_owned(), fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}
