//! What must be true all the time, and what must be true at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bucket_brigade::{Engine, RescanOrchestrator, RescanOutcome, RescanReport};
use sha2::{Digest, Sha256};

use crate::machine::{Machine, Sample, sizes_beside};
use crate::publisher::Task;
use crate::site::{STRANGER, Site};
use crate::support::logs;
use crate::support::memory_store::MemoryStore;
use crate::weather::Weather;

/// Nothing that was sent before can land any more, and every claim is dead.
const LANDED: Duration = Duration::from_secs(31 * 60);
/// Stats that are younger are not believed.
const RACY: Duration = Duration::from_millis(2500);
/// More objects than a state needs: a head, a snapshot, 16 deltas, the intents of a claim, and as many of the head before.
const MOST_STATE_OBJECTS: usize = 60;

/// Checks that each object is one whole version of its file (I1), and that nobody touches what is of others.
pub struct Audit {
    store: MemoryStore,
    checked: HashMap<String, String>,
    pub objects: u64,
    /// Files whose objects were compared with them at the end.
    pub files: u64,
    /// Objects that their caches could not know any more.
    pub left_objects: u64,
    /// Multipart uploads whose ID nobody received, and that are told of.
    pub left_uploads: u64,
    /// Objects of killed runs beside the state, which may be deleted by hand.
    pub left_of_state: u64,
    pub idle_requests: BTreeMap<&'static str, usize>,
    pub growth: BTreeMap<String, (Sample, Sample)>,
}

impl Audit {
    pub fn new(store: &MemoryStore) -> Self {
        Self {
            store: store.clone(),
            checked: HashMap::new(),
            objects: 0,
            files: 0,
            left_objects: 0,
            left_uploads: 0,
            left_of_state: 0,
            idle_requests: BTreeMap::new(),
            growth: BTreeMap::new(),
        }
    }

    /// Looks at all objects that are new since the last time.
    pub fn look(&mut self, sites: &[Site]) {
        let keys: Vec<_> = self.store.sizes().into_keys().collect();
        for site in sites {
            let prefix = site.prefix();
            self.strangers_stand(site);
            for key in keys.iter().filter(|key| key.starts_with(&prefix) && !key.contains("/.brigade/")) {
                if *key != site.stranger.key {
                    self.check_version(site, key, &key[prefix.len()..]);
                }
            }
        }
        self.store.clear_logs();
    }

    fn check_version(&mut self, site: &Site, key: &str, name: &str) {
        // It may be gone by now.
        let Some(object) = self.store.get(key) else { return };
        if self.checked.get(key) == Some(&object.etag) {
            return;
        }
        let digest: [u8; 32] = Sha256::digest(&object.bytes).into();
        let is_one = site.versions.lock().unwrap().get(name).is_some_and(|all| all.contains(&digest));
        assert!(is_one, "I1: {key} is no version of its file: {} bytes", object.bytes.len());
        self.checked.insert(key.to_owned(), object.etag);
        self.objects += 1;
    }

    fn strangers_stand(&self, site: &Site) {
        let stranger = &site.stranger;
        let object = self.store.get(&stranger.key);
        assert!(object.is_some_and(|object| object.bytes == STRANGER), "I3: {} is gone", stranger.key);
        let uploads = self.store.uploads();
        assert!(
            uploads.iter().any(|(_, id)| *id == stranger.upload_id),
            "I4: {}: an upload of somebody else is gone",
            site.name
        );
    }
}

/// Nothing is killed, stalled, edited or disturbed any more.
pub fn at_the_end(sites: &mut [Site], store: &MemoryStore, weather: &mut Weather, audit: &mut Audit) {
    audit.look(sites);
    weather.let_time_pass(LANDED);
    let engine = Engine::new().unwrap();
    for site in sites.iter() {
        for machine in &site.machines {
            converges(site, machine, &engine, store, audit);
        }
    }
    // A claim that was dead by now may have been taken over just then: its keys are in doubt until here.
    weather.let_time_pass(LANDED);
    let mut idle = Vec::new();
    for site in sites.iter() {
        let mut last = None;
        for machine in &site.machines {
            drop(last.take());
            let (publisher, report) = converges(site, machine, &engine, store, audit);
            assert_eq!(report.state.map_or(0, |state| state.in_doubt), 0, "{}", machine.name);
            last = Some(publisher);
        }
        let last = last.expect("a site has a machine");
        idle.push((site, no_upload_is_left(site, last, &engine, store, audit)));
    }
    audit.look(sites);
    std::thread::sleep(RACY);
    for (site, last) in idle {
        // Stats that were young at the last run are recorded.
        last.rescan().unwrap();
        weather.forget_requests();
        let report = last.rescan().unwrap();
        assert_eq!(report.outcome, RescanOutcome::Unchanged, "{} {report:?}", site.name);
        let requests = weather.take_requests();
        assert_eq!(requests.len(), usize::from(site.is_shared), "I5: {} {requests:?}", site.name);
        assert_eq!(report.metrics.bytes_hashed + report.metrics.commits, 0, "I5: {}", site.name);
        audit.idle_requests.insert(site.name, requests.len());
    }
    for site in sites.iter() {
        nothing_is_left_over(site, &engine, store, audit);
        site.machines.iter().for_each(|machine| nothing_grew(machine, audit));
    }
    assert_eq!(logs::leaks(), Vec::<String>::new(), "I7");
}

/// No failure that has nothing to do with the faults, and no process that panicked.
pub fn nothing_is_unexplained(sites: &[Site]) {
    let machines = sites.iter().flat_map(|site| &site.machines);
    let unexplained: Vec<_> = machines.flat_map(|machine| &machine.unexplained).collect();
    assert!(
        unexplained.is_empty(),
        "{} failures that no fault explains: {unexplained:#?}",
        unexplained.len()
    );
}

/// The next runs of a machine make the bucket its tree.
fn converges(
    site: &Site,
    machine: &Machine,
    engine: &Engine,
    store: &MemoryStore,
    audit: &mut Audit,
) -> (RescanOrchestrator, RescanReport) {
    let publisher = machine.task.site(engine).unwrap();
    let report = runs_until_good(&publisher, &machine.name);
    let (files, objects) = (machine.tree.files(), site.objects(store));
    let told = || {
        let head = store.get(&format!("{}.brigade/head", site.prefix()));
        let head = head.map(|head| String::from_utf8_lossy(&head.bytes).into_owned()).unwrap_or_default();
        format!("{report:?}\n{head}")
    };
    let lost: Vec<_> = files.iter().filter(|(key, bytes)| objects.get(*key) != Some(bytes)).collect();
    assert!(lost.is_empty(), "{}: {:?} differ or are missing\n{}", machine.name, keys_of(lost), told());
    audit.files += files.len() as u64;
    let left: Vec<_> = objects.keys().filter(|key| !files.contains_key(*key)).collect();
    assert!(
        left.is_empty() || (site.loses_caches && !site.is_shared),
        "{}: {left:?} are left\n{}",
        machine.name,
        told()
    );
    audit.left_objects += left.len() as u64;
    let version = publisher.cache().published().unwrap();
    let recorded: BTreeSet<_> = version.entries().map(|entry| entry.key.as_str().to_owned()).collect();
    assert!(recorded.iter().eq(files.keys()), "I2: {}: the cache has other files", machine.name);
    (publisher, report)
}

fn keys_of<'a>(files: impl IntoIterator<Item = (&'a String, &'a Vec<u8>)>) -> Vec<&'a str> {
    files.into_iter().map(|(key, _)| key.as_str()).collect()
}

fn runs_until_good(publisher: &RescanOrchestrator, name: &str) -> RescanReport {
    let mut report = publisher.rescan().unwrap();
    // What is in doubt may take a run of its own.
    for _ in 0..2 {
        if !is_good(&report) {
            report = publisher.rescan().unwrap();
        }
    }
    assert!(is_good(&report), "{name}: {report:?}");
    report
}

fn is_good(report: &RescanReport) -> bool {
    matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged)
}

/// I4. An upload whose answer was lost is told of by the cache of the machine that began it, if that is not lost, too.
fn no_upload_is_left(
    site: &Site,
    publisher: RescanOrchestrator,
    engine: &Engine,
    store: &MemoryStore,
    audit: &mut Audit,
) -> RescanOrchestrator {
    let mut open = store.uploads();
    open.retain(|(key, id)| key.starts_with(&site.prefix()) && *id != site.stranger.upload_id);
    if open.is_empty() {
        return publisher;
    }
    drop(publisher);
    let mut told = Vec::new();
    for machine in &site.machines {
        let publisher = machine.task.site(engine).unwrap();
        let backend = machine.task.backend(engine);
        let listed = publisher.cache().unfinished_uploads(engine, &*backend).unwrap();
        told.extend(listed.into_iter().filter(|one| !one.certain).filter_map(|one| one.upload_id));
    }
    for (_, id) in &open {
        assert!(told.contains(id) || site.loses_caches, "I4: {}: {id} is left, {told:?} told", site.name);
    }
    audit.left_uploads += open.len() as u64;
    site.machines.last().expect("a site has a machine").task.site(engine).unwrap()
}

/// An empty machine sends no file again. Its cache shows what belongs beside one.
fn nothing_is_left_over(site: &Site, engine: &Engine, store: &MemoryStore, audit: &mut Audit) {
    let state = site.state_objects(store);
    let of_killed = |kind: &str| state.get(kind).copied().unwrap_or_default();
    let left = of_killed("now") + of_killed("probe");
    let needed = state.values().sum::<usize>() - left;
    assert!(needed <= MOST_STATE_OBJECTS, "{}: {state:?}", site.name);
    audit.left_of_state += left as u64;
    let last = site.machines.last().expect("a site has a machine");
    let cache = last.task.cache.with_file_name("fresh").join("cache");
    let fresh = Task { cache: cache.clone(), ..last.task.clone() };
    let report = runs_until_good(&fresh.site(engine).unwrap(), site.name);
    assert_eq!(report.uploaded_count, 0, "{}: an empty machine sent files again", site.name);
    let expected = sizes_beside(&cache);
    for machine in &site.machines {
        for (name, bytes) in sizes_beside(&machine.task.cache) {
            let usual = expected.get(&name);
            assert!(usual.is_some() || name == "fresh", "{}: {name} is left beside the cache", machine.name);
            let most = usual.unwrap_or(&u64::MAX).saturating_mul(4).saturating_add(1 << 20);
            assert!(bytes <= most, "{}: {name} has {bytes} bytes, a fresh one {usual:?}", machine.name);
        }
    }
}

/// A process that is never killed needs no more at the end than at the beginning.
fn nothing_grew(machine: &Machine, audit: &mut Audit) {
    let third = machine.samples.len() / 3;
    if third == 0 {
        return;
    }
    let most = |samples: &[Sample]| Sample {
        descriptors: samples.iter().map(|sample| sample.descriptors).max().unwrap_or_default(),
        threads: samples.iter().map(|sample| sample.threads).max().unwrap_or_default(),
        resident_kib: samples.iter().map(|sample| sample.resident_kib).max().unwrap_or_default(),
    };
    let first = most(&machine.samples[..third]);
    let last = most(&machine.samples[machine.samples.len() - third..]);
    // There are connections and threads for requests and large files in flight.
    assert!(last.descriptors <= first.descriptors + 16, "{}: {first:?} {last:?}", machine.name);
    assert!(last.threads <= first.threads + 12, "{}: {first:?} {last:?}", machine.name);
    assert!(last.resident_kib <= first.resident_kib + 16 * 1024, "{}: {first:?} {last:?}", machine.name);
    audit.growth.insert(machine.name.clone(), (first, last));
}
