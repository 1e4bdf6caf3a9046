//! Several machines publish one tree, with the state in the bucket.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Catalog, Engine, EngineConfig, RemoteState, RescanConfig, RescanOrchestrator,
    RescanOutcome, RescanReport, Run, S3Backend, StorageBackend, Verify, VirtualClock,
};

use crate::support::proxy::Seen;
use crate::support::{PREFIX, World, logs};

/// A machine with a tree and a cache of its own.
pub(crate) struct Machine<'a> {
    pub(crate) world: &'a World,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<VirtualClock>,
    folder: tempfile::TempDir,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let state = self.folder.path().join("state");
            assert_eq!(logs::files_with_secrets(&state), Vec::<String>::new(), "I7");
        }
    }
}

impl<'a> Machine<'a> {
    pub(crate) fn new(world: &'a World, files: &[(&str, &str)]) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let engine = EngineConfig::new().workers(3).clock(clock.clone()).build().unwrap();
        let machine = Self { world, engine, clock, folder: tempfile::tempdir().unwrap() };
        fs::create_dir(machine.root()).unwrap();
        for (key, content) in files {
            machine.write(key, content);
        }
        machine
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub(crate) fn write(&self, key: &str, content: &str) {
        let path = self.root().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn remove(&self, key: &str) {
        fs::remove_file(self.root().join(key)).unwrap();
    }

    pub(crate) fn cache_path(&self) -> PathBuf {
        self.folder.path().join("state/cache")
    }

    pub(crate) fn site(&self, state: RemoteState) -> RescanOrchestrator {
        self.site_with(RescanConfig::new().state(state))
    }

    pub(crate) fn site_with(&self, config: RescanConfig) -> RescanOrchestrator {
        let cache = CacheManager::open(self.cache_path()).unwrap();
        RescanOrchestrator::with_config(&self.engine, self.root(), self.backend(), cache, config).unwrap()
    }

    pub(crate) fn backend(&self) -> Arc<S3Backend> {
        Arc::new(S3Backend::new(&self.engine, self.world.s3_config()).unwrap())
    }

    /// Makes every file older than the racy window.
    pub(crate) fn let_files_settle(&self) {
        self.clock.step_wall(10);
    }

    pub(crate) fn publish(&self) -> RescanReport {
        self.site(RemoteState::new()).rescan().unwrap()
    }
}

/// The objects that are no part of the state.
pub(crate) fn published(world: &World) -> BTreeMap<String, String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let objects = world.objects().into_iter().filter(|(key, _)| !key.contains(".brigade/"));
    objects.map(|(key, bytes)| (key, text(bytes))).collect()
}

pub(crate) fn tree(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(key, content)| ((*key).to_owned(), (*content).to_owned())).collect()
}

/// The requests since the last call, without the query: `GET .brigade/head`.
pub(crate) fn requests(world: &World) -> Vec<String> {
    let line = |seen: &Seen| {
        let path = seen.target.split('?').next().unwrap().rsplit_once(PREFIX).map_or("", |(_, key)| key);
        format!("{} {path}", seen.method).trim_end().to_owned()
    };
    let lines = world.proxy.requests().iter().map(line).collect();
    world.proxy.clear_counts();
    lines
}

#[test]
fn one_machine_publishes_and_another_goes_on_from_there() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b/c", "2")]);
    let report = one.publish();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2), "{report:?}");
    let state = report.state.unwrap();
    assert_eq!((state.generation, state.epoch, state.in_doubt, state.claimed_by), (1, 1, 0, None));
    // The same tree on an empty machine: the head, and nothing is sent.
    requests(&world);
    let two = Machine::new(&world, &[("a", "1"), ("b/c", "2")]);
    let report = two.publish();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    assert_eq!(report.state.unwrap().pulled, 2);
    // A change there, which deletes what the other one published.
    two.remove("a");
    two.write("d", "4");
    let report = two.publish();
    assert_eq!((report.outcome, report.deleted_count), (RescanOutcome::Published, 1), "{report:?}");
    assert_eq!(published(&world), tree(&[("b/c", "2"), ("d", "4")]));
    // The first one learns it, and restores its tree.
    let report = one.publish();
    assert_eq!(
        (report.outcome, report.uploaded_count, report.deleted_count),
        (RescanOutcome::Published, 1, 1)
    );
    assert_eq!(published(&world), tree(&[("a", "1"), ("b/c", "2")]));
    assert_eq!(report.state.unwrap().generation, 3);
}

#[test]
fn r6_unchanged_tree_and_head_cost_one_request() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    one.let_files_settle();
    let site = one.site(RemoteState::new());
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Published);
    requests(&world);
    for _ in 0..2 {
        assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Unchanged);
        assert_eq!(requests(&world), ["GET .brigade/head"]);
    }
    // A change costs the claim, the object and the push.
    one.write("b", "3");
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Published);
    let expected = ["GET .brigade/head", "PUT .brigade/head", "PUT b", "PUT .brigade/head"];
    assert_eq!(requests(&world), expected);
}

#[test]
fn a_machine_without_a_tree_pulls() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    let folder = tempfile::tempdir().unwrap();
    let cache = CacheManager::open(folder.path().join("cache")).unwrap();
    let backend: Arc<dyn StorageBackend> = world.backend();
    let pull = || cache.pull(&world.engine, &backend, &RemoteState::new(), &Run::new());
    assert_eq!(pull().unwrap_err().kind(), bucket_brigade::ErrorKind::NotFound);
    one.publish();
    let state = pull().unwrap();
    assert_eq!((state.generation, state.pulled, cache.published_count().unwrap()), (1, 2, 2));
    requests(&world);
    assert_eq!(pull().unwrap().pulled, 0);
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    let catalog = Catalog::open(Catalog::path_for(folder.path().join("cache"))).unwrap();
    assert_eq!(catalog.len(), 2);
}

#[test]
fn a_verification_that_finds_an_object_lost_publishes_it_again_under_the_same_claim() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "2")]);
    one.publish();
    for changed in [false, true] {
        assert!(world.store.remove_raw("site/b"));
        if changed {
            one.write("a", "3");
        }
        let run = Run::new().verify(Verify::List);
        let report = one.site(RemoteState::new()).rescan_with(&run).unwrap();
        assert_eq!(report.outcome, RescanOutcome::Published, "{report:?}");
        assert_eq!(report.verified.unwrap().repaired, 1);
        let state = report.state.unwrap();
        assert_eq!((state.claimed_by, state.in_doubt), (None, 0));
        assert_eq!(published(&world)["b"], "2");
        let two = Machine::new(&world, &[("a", if changed { "3" } else { "1" }), ("b", "2")]);
        assert_eq!(two.publish().outcome, RescanOutcome::Unchanged);
    }
}

/// Whenever an object is stored or deleted, the head in the bucket has a claim that names keys.
#[test]
fn r02_nothing_is_written_without_a_claim_and_an_intent() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1"), ("c", "1")]);
    let (store, seen) = (world.store.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let writes = seen.clone();
    world.proxy.on_request(move |request| {
        let is_state = request.target.contains("/.brigade/");
        if is_state || !matches!(request.method.as_str(), "PUT" | "DELETE" | "POST") {
            return;
        }
        // Also the keys of the probe lie under the folder of the state, but DeleteObjects names them in its body.
        let head = store.get("site/.brigade/head").map(|head| head.bytes);
        let head = head.map(|head| serde_json::from_slice::<serde_json::Value>(&head).unwrap());
        let intents = head.map_or(0, |head| head["claim"]["intents"].as_array().map_or(0, Vec::len));
        writes.lock().unwrap().push((format!("{} {}", request.method, request.target), intents));
    });
    one.publish();
    one.write("a", "2");
    one.remove("b");
    one.remove("c");
    assert_eq!(one.publish().deleted_count, 2);
    world.proxy.on_request(|_| ());
    let seen = seen.lock().unwrap();
    let of_objects = seen.iter().filter(|(line, _)| line.starts_with("PUT") || line.starts_with("DELETE "));
    assert_eq!(of_objects.clone().count(), 4, "{seen:?}");
    assert!(of_objects.clone().all(|(_, intents)| *intents > 0), "{seen:?}");
    let (last, intents) = seen.iter().rfind(|(line, _)| line.starts_with("POST")).unwrap();
    assert!(*intents > 0, "the deletes: {last}");
}
