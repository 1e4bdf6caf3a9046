//! Prefixes in one bucket, each with the machines that publish there.

use std::collections::BTreeMap;
use std::path::Path;

use bucket_brigade::{Engine, RescanOutcome};

use crate::machine::{Fate, Machine};
use crate::publisher::Task;
use crate::support::memory_store::MemoryStore;
use crate::tree::{Tree, Versions};
use crate::weather::{SHARED, SHIELDED};

/// An object and a multipart upload of somebody else, which must outlive everything.
pub struct Stranger {
    pub key: String,
    pub upload_id: String,
}

/// The content of the objects of others.
pub const STRANGER: &[u8] = b"of somebody else";

pub struct Site {
    pub name: &'static str,
    pub machines: Vec<Machine>,
    pub versions: Versions,
    pub stranger: Stranger,
    pub is_shared: bool,
    /// A cache that was lost, or replaced by an old copy, does not know all that it stored and began since.
    pub loses_caches: bool,
}

/// What distinguishes a site.
struct Plan {
    name: &'static str,
    machines: usize,
    files: usize,
    fate: Fate,
    /// Runs of a process.
    runs: u64,
}

const STEADY: Fate = Fate { is_killed: false, loses_cache: false };
const KILLED: Fate = Fate { is_killed: true, loses_cache: false };
const LOST: Fate = Fate { is_killed: true, loses_cache: true };

const PLANS: [Plan; 6] = [
    Plan { name: "steady", machines: 1, files: 120, fate: STEADY, runs: u64::MAX },
    Plan { name: "steady-shared", machines: 1, files: 120, fate: STEADY, runs: u64::MAX },
    Plan { name: "killed", machines: 1, files: 60, fate: KILLED, runs: 50 },
    Plan { name: "copied", machines: 1, files: 60, fate: LOST, runs: 10 },
    Plan { name: "shared-1", machines: 3, files: 40, fate: LOST, runs: 3 },
    Plan { name: "shared-2", machines: 3, files: 40, fate: LOST, runs: 1 },
];

/// All sites, each published once: an interrupted first run leaves objects that nobody but its cache knows.
pub fn sites(store: &MemoryStore, endpoint: &str, folder: &Path, random: &mut fastrand::Rng) -> Vec<Site> {
    PLANS.iter().map(|plan| Site::new(plan, store, endpoint, &folder.join(plan.name), random)).collect()
}

impl Site {
    fn new(
        plan: &Plan,
        store: &MemoryStore,
        endpoint: &str,
        folder: &Path,
        random: &mut fastrand::Rng,
    ) -> Self {
        let prefix = format!("{}/", plan.name);
        let is_shared = plan.name.contains(SHARED);
        let large = if is_shared { SHIELDED } else { "large" };
        let versions = Versions::default();
        let machine = |number: usize| {
            let name = format!("{} {number}", plan.name);
            let folder = folder.join(number.to_string());
            let tree = Tree::new(&folder, plan.files, large, &versions, random.fork());
            let task = Task {
                root: tree.root().to_owned(),
                cache: folder.join("state/cache"),
                endpoint: endpoint.to_owned(),
                prefix: prefix.clone(),
                shares_state_as: is_shared.then(|| name.clone()),
                wait: (number as u64 % 2) * 20,
                runs: plan.runs,
                pause_millis: 400,
            };
            Machine::new(&name, tree, task, plan.fate, random.fork())
        };
        let machines: Vec<_> = (0..plan.machines).map(machine).collect();
        // Before all claims: one that begins in the time of a claim that dies is taken for one of it.
        let stranger = Stranger {
            key: format!("{prefix}stranger"),
            upload_id: store.begin_raw(&format!("{prefix}{large}")),
        };
        let first = machines[0].task.site(&Engine::new().unwrap()).unwrap().rescan().unwrap();
        assert_eq!(first.outcome, RescanOutcome::Published, "{first:?}");
        store.put_raw(&stranger.key, STRANGER);
        let loses_caches = plan.fate.loses_cache;
        Self { name: plan.name, machines, versions, stranger, is_shared, loses_caches }
    }

    pub fn prefix(&self) -> String {
        format!("{}/", self.name)
    }

    pub fn live(&mut self) {
        self.machines.iter_mut().for_each(Machine::live);
    }

    pub fn end(&mut self) {
        self.machines.iter_mut().for_each(Machine::end);
    }

    /// The objects that are neither part of the state nor the stranger's, by their keys without the prefix.
    pub fn objects(&self, store: &MemoryStore) -> BTreeMap<String, Vec<u8>> {
        let prefix = self.prefix();
        let keys =
            store.sizes().into_keys().filter(|key| key.starts_with(&prefix) && *key != self.stranger.key);
        let keys = keys.filter(|key| !key.contains("/.brigade/"));
        keys.map(|key| (key[prefix.len()..].to_owned(), store.get(&key).unwrap().bytes.to_vec())).collect()
    }

    /// The objects of the state by what they are: `head`, `snapshot`, `delta`, `intent`, and `now` and `probe`, which killed
    /// runs leave.
    pub fn state_objects(&self, store: &MemoryStore) -> BTreeMap<String, usize> {
        let below = format!("{}.brigade/", self.prefix());
        let mut counts = BTreeMap::new();
        for key in store.sizes().into_keys() {
            if let Some(name) = key.strip_prefix(&below) {
                let kind = name.split(['/', '-']).next().unwrap_or_default();
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}
