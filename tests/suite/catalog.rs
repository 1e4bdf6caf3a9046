//! The catalog: the same as the cache, whole in every reader, and never a fault.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bucket_brigade::{
    CacheManager, Catalog, Engine, EngineConfig, ErrorKind, KeyState, LocalBackend, Operation, RescanConfig,
    RescanOrchestrator, RescanOutcome, Run, StorageBackend, StorageError, Verify, VirtualClock,
};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::support::oracle::check;
use crate::support::proxy::{Fault, Rule};
use crate::support::{PREFIX, World, random_bytes};

/// A store that holds nothing, and refuses some keys.
#[derive(Default)]
struct Picky {
    refused: Mutex<BTreeSet<String>>,
    /// Its URLs are no base and a key.
    signed: bool,
}

impl Picky {
    fn look(&self, operation: Operation, key: &str) -> Result<(), StorageError> {
        let refused = self.refused.lock().unwrap().contains(key);
        if refused { Err(StorageError::new(ErrorKind::Rejected, operation, "not this one")) } else { Ok(()) }
    }
}

impl StorageBackend for Picky {
    fn upload_file(&self, _: &Path, key: &str) -> Result<String, StorageError> {
        self.look(Operation::Upload, key).map(|()| self.get_url(key))
    }

    fn delete_file(&self, key: &str) -> Result<(), StorageError> {
        self.look(Operation::Delete, key)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn get_url(&self, key: &str) -> String {
        let query = if self.signed { "?for=me" } else { "" };
        format!("{}{query}", LocalBackend::new("https://cdn.example/site", "/").get_url(key))
    }
}

/// A tree, a cache and a picky store, on a clock of their own.
struct Site {
    folder: TempDir,
    clock: Arc<VirtualClock>,
    engine: Engine,
    store: Arc<Picky>,
}

impl Site {
    fn new() -> Self {
        Self::on(Picky::default())
    }

    fn on(store: Picky) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tree")).unwrap();
        let clock = Arc::new(VirtualClock::new());
        let engine = EngineConfig::new().workers(2).clock(clock.clone()).build().unwrap();
        Self { folder, clock, engine, store: Arc::new(store) }
    }

    fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("tree").join(key)
    }

    fn cache_path(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn catalog_path(&self) -> PathBuf {
        Catalog::path_for(self.cache_path())
    }

    fn orchestrator(&self, config: RescanConfig) -> RescanOrchestrator {
        let (root, cache) = (self.folder.path().join("tree"), CacheManager::open(self.cache_path()).unwrap());
        let config = config.allow_empty(true);
        RescanOrchestrator::with_config(&self.engine, root, self.store.clone(), cache, config).unwrap()
    }

    fn identity(&self) -> (u64, i64, i64) {
        let metadata = fs::metadata(self.catalog_path()).unwrap();
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    }
}

fn with_fallback() -> RescanConfig {
    RescanConfig::new().fallback(Arc::new(LocalBackend::new("http://local/files", "/srv")))
}

/// Every key that may be known, in any state: the catalog says what the cache says.
fn equals_the_cache(catalog: &Catalog, cache: &CacheManager, keys: &[&str]) {
    let mut expected = Vec::new();
    for key in keys {
        let resolved = cache.resolve(key).unwrap();
        assert_eq!(catalog.get(key), resolved, "{key}");
        expected.extend(resolved.map(|resolved| ((*key).to_owned(), resolved)));
    }
    expected.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(catalog.iter().collect::<Vec<_>>(), expected);
    for prefix in ["", "a", "a/", "b c", "zzz"] {
        let below: Vec<_> = expected.iter().filter(|(key, _)| key.starts_with(prefix)).cloned().collect();
        assert_eq!(catalog.prefix(prefix).collect::<Vec<_>>(), below, "{prefix:?}");
    }
    assert_eq!(catalog.summary(), cache.summary().unwrap());
    assert_eq!(catalog.pending(), cache.pending().unwrap());
}

const KEYS: [&str; 8] = ["a", "a.b", "a/x", "a/y z", "b c", "b+c%", "ü", "z"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Files come, change and go; the store refuses some; there is a fallback or none.
    #[test]
    fn catalog_equals_the_cache_after_random_rescans(
        runs in prop::collection::vec((prop::collection::vec(0..4_u8, 7), any::<u8>(), any::<bool>()), 1..5),
    ) {
        // Without "a" itself: on disk it is the folder of others.
        let keys = &KEYS[1..];
        let site = Site::new();
        let mut reader: Option<Catalog> = None;
        for (number, (edits, refused, fallback)) in runs.into_iter().enumerate() {
            for (key, edit) in keys.iter().zip(edits) {
                let path = site.file(key);
                match edit {
                    0 => drop(fs::remove_file(path)),
                    1 => {
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::write(path, random_bytes(number * 7 + key.len(), number as u64)).unwrap();
                    }
                    _ => {}
                }
            }
            let refused = keys.iter().enumerate().filter(|(n, _)| refused >> n & 1 == 1);
            *site.store.refused.lock().unwrap() = refused.map(|(_, key)| (*key).to_owned()).collect();
            let config = if fallback { with_fallback() } else { RescanConfig::new() };
            let orchestrator = site.orchestrator(config);
            let _ = orchestrator.rescan();
            let fresh = Catalog::open(site.catalog_path()).unwrap();
            equals_the_cache(&fresh, orchestrator.cache(), &KEYS);
            if let Some(reader) = &mut reader {
                reader.refresh().unwrap();
                equals_the_cache(reader, orchestrator.cache(), &KEYS);
                prop_assert!(!reader.refresh().unwrap());
            }
            reader = Some(fresh);
            site.clock.step_wall(10);
        }
    }
}

/// Sizes, digests of parts and of the whole, states and URLs as the store gives them.
#[test]
fn large_files_have_both_digests_and_an_outage_has_both_versions() {
    let world = World::new();
    world.write_random("film", 17 << 20, 1);
    world.write("small", "1");
    world.write("old", "1");
    let config = || with_fallback().whole_file_digest(true);
    let site = world.orchestrator_with(config());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    let path = Catalog::path_for(world.cache_path());
    let mut catalog = Catalog::open(&path).unwrap();
    let all = ["film", "small", "old", "new"];
    equals_the_cache(&catalog, site.cache(), &all);
    let film = catalog.get("film").unwrap();
    assert!(film.digest.unwrap().part_size().is_some() && film.whole_digest.unwrap().part_size().is_none());
    assert_eq!(film.modified.unwrap(), fs::metadata(world.path("film")).unwrap().modified().unwrap());
    assert_eq!((film.state, film.url), (KeyState::Published, world.backend().get_url("film")));
    let before = catalog.clone();
    world.write_random("film", 18 << 20, 2);
    world.write("new", "2");
    world.remove("old");
    world.proxy.refuse();
    let report = site.rescan().unwrap();
    assert_eq!(report.outcome, RescanOutcome::LocalOnly);
    assert!(catalog.refresh().unwrap());
    equals_the_cache(&catalog, site.cache(), &all);
    let states = all.map(|key| catalog.get(key).unwrap().state);
    assert_eq!(states, [KeyState::Pending, KeyState::Published, KeyState::Stale, KeyState::Pending]);
    assert!(catalog.get("new").unwrap().url.starts_with("http://local/files/"));
    assert!(!catalog.summary().synced && catalog.created() >= SystemTime::UNIX_EPOCH);
    // Whoever has the version before has it still.
    assert_eq!((before.get("film").unwrap().size, before.get("new")), (Some(17 << 20), None));
    world.proxy.accept_again();
    site.rescan().unwrap();
    assert!(catalog.refresh().unwrap() && catalog.summary().synced);
    equals_the_cache(&catalog, site.cache(), &all);
}

/// What a verification finds is in the catalog, too; and an upload that is given up.
#[test]
fn catalog_follows_what_no_rescan_changed() {
    let world = World::new();
    world.write("kept", "1");
    world.write("lost", "1");
    world.write_random("large", 17 << 20, 1);
    world.proxy.add(
        Rule::new(Fault::Answer(500, Vec::new(), Vec::new())).method("POST").path_contains("?uploadId="),
    );
    let site = world.orchestrator_with(with_fallback());
    assert_eq!(site.rescan().unwrap().open_uploads, 1);
    world.proxy.clear_rules();
    let mut catalog = Catalog::open(Catalog::path_for(world.cache_path())).unwrap();
    assert_eq!(catalog.summary().open_uploads, 1);
    world.store.remove_raw(&format!("{PREFIX}lost"));
    // Another process knows no URLs but those that the catalog has.
    drop(site);
    let cache = world.cache();
    let backend: Arc<dyn StorageBackend> = world.backend();
    let found = cache.verify(&world.engine, &backend, &Run::new().verify(Verify::List)).unwrap();
    assert_eq!((found.missing_count, found.failed_count), (1, 0));
    assert!(catalog.refresh().unwrap());
    cache.use_urls_of(backend.clone(), Some(Arc::new(LocalBackend::new("http://local/files", "/srv"))));
    equals_the_cache(&catalog, &cache, &["kept", "lost", "large"]);
    assert_eq!(catalog.get("lost").unwrap().url, "http://local/files/lost");
    let aborted = cache.abort_uploads(&world.engine, &*backend).unwrap();
    assert_eq!((aborted.aborted.len(), aborted.failed.len()), (1, 0));
    assert!(catalog.refresh().unwrap() && catalog.summary().open_uploads == 0);
}

/// Written where something changed, or where it is missing; read-only; nothing left beside it.
#[test]
fn catalog_is_written_where_something_changed_and_only_then() {
    let site = Site::new();
    fs::write(site.file("b c"), "1").unwrap();
    let orchestrator = site.orchestrator(RescanConfig::new());
    orchestrator.rescan().unwrap();
    site.clock.step_wall(10);
    orchestrator.rescan().unwrap();
    let first = site.identity();
    assert_eq!(orchestrator.rescan().unwrap().metrics.commits, 0);
    assert_eq!(site.identity(), first, "nothing changed");
    assert_eq!(fs::metadata(site.catalog_path()).unwrap().permissions().mode() & 0o777, 0o444);
    fs::write(site.file("b c"), "22").unwrap();
    orchestrator.rescan().unwrap();
    assert_ne!(site.identity(), first);
    fs::remove_file(site.catalog_path()).unwrap();
    // A link that somebody planted is not followed.
    let planted = site.folder.path().join("cache.catalog.tmp");
    std::os::unix::fs::symlink(site.file("b c"), planted).unwrap();
    orchestrator.rescan().unwrap();
    assert_eq!(fs::read(site.file("b c")).unwrap(), b"22");
    assert_eq!(Catalog::open(site.catalog_path()).unwrap().get("b c").unwrap().size, Some(2));
    drop(orchestrator);
    // Other URLs are another catalog.
    site.orchestrator(with_fallback()).rescan().unwrap();
    *site.store.refused.lock().unwrap() = BTreeSet::from(["b c".to_owned()]);
    fs::write(site.file("b c"), "333").unwrap();
    site.orchestrator(with_fallback()).rescan().unwrap();
    let catalog = Catalog::open(site.catalog_path()).unwrap();
    assert_eq!(catalog.get("b c").unwrap().url, "http://local/files/b%20c");
    let mut left: Vec<_> =
        fs::read_dir(site.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["cache", "cache.catalog", "tree"]);
}

#[test]
fn catalog_can_be_left_out_and_asked_for() {
    let site = Site::new();
    fs::write(site.file("a"), "1").unwrap();
    let orchestrator = site.orchestrator(RescanConfig::new().catalog(false));
    orchestrator.rescan().unwrap();
    let missing = Catalog::open(site.catalog_path()).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Cache);
    assert!(missing.to_string().contains("a rescan writes it"), "{missing}");
    let path = Catalog::write(orchestrator.cache()).unwrap();
    assert_eq!((path.clone(), Catalog::open(path).unwrap().len()), (site.catalog_path(), 1));
    drop(orchestrator);
    let unknown = Catalog::write(&CacheManager::open(site.cache_path()).unwrap()).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Config, "nobody told the cache its URLs");
}

/// I6: what cannot be written is said, and done by the next run; the store is right either way.
#[test]
fn catalog_that_cannot_be_written_is_a_failure_that_heals() {
    let site = Site::new();
    fs::write(site.file("a"), "1").unwrap();
    fs::create_dir_all(site.catalog_path().join("in the way")).unwrap();
    let orchestrator = site.orchestrator(RescanConfig::new());
    let report = orchestrator.rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, 1));
    assert!(report.failed[0].to_string().contains("cache.catalog"), "{}", report.failed[0]);
    fs::remove_dir_all(site.catalog_path()).unwrap();
    assert_eq!(orchestrator.rescan().unwrap().outcome, RescanOutcome::Unchanged);
    assert_eq!(Catalog::open(site.catalog_path()).unwrap().len(), 1);
}

#[test]
fn urls_that_are_no_base_and_key_need_their_backend() {
    let site = Site::on(Picky { signed: true, ..Picky::default() });
    fs::write(site.file("a"), "1").unwrap();
    site.orchestrator(RescanConfig::new()).rescan().unwrap();
    let error = Catalog::open(site.catalog_path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("open_with"), "{error}");
    let catalog = Catalog::open_with(site.catalog_path(), site.store.clone(), None).unwrap();
    assert_eq!(catalog.get("a").unwrap().url, site.store.get_url("a"));
}

/// Whatever happened to the file: an error that says what to do, never a panic and never a wrong answer.
#[test]
fn damaged_catalogs_are_errors() {
    let site = Site::new();
    for key in ["a b", "c"] {
        fs::write(site.file(key), key).unwrap();
    }
    *site.store.refused.lock().unwrap() = BTreeSet::from(["c".to_owned()]);
    site.orchestrator(with_fallback()).rescan().unwrap();
    let whole = fs::read(site.catalog_path()).unwrap();
    let path = site.folder.path().join("damaged");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Catalog::open(&path).map(|catalog| catalog.len())
    };
    assert_eq!(open(&whole).unwrap(), 2);
    let damaged = |bytes: &[u8], what: String| {
        let error = open(bytes).expect_err(&what);
        assert_eq!(error.kind(), ErrorKind::CacheDamaged, "{what}: {error}");
        error.to_string()
    };
    for length in 0..whole.len() {
        damaged(&whole[..length], format!("{length} bytes of {}", whole.len()));
    }
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            damaged(&bytes, format!("byte {at} of {} is another", whole.len()));
        }
    }
    damaged(&[&whole[..], b"more"].concat(), "longer".to_owned());
    let newer = [&whole[..8], &[7, 0, 0, 0], &whole[12..]].concat();
    let error = damaged(&newer, "newer".to_owned());
    assert!(error.contains("version 7 is newer"), "{error}");
    let cache = fs::read(site.cache_path()).unwrap();
    assert!(damaged(&cache, "a cache".to_owned()).contains("CACHE.catalog"));
    let error = Catalog::open(site.folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CacheDamaged, "a folder: {error}");
}

/// The sections of a catalog: its head, records, details, keys and tail.
fn sections(bytes: &[u8]) -> [std::ops::Range<usize>; 5] {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let (records, details) = (64 + number(32) * 56, number(40) * 96);
    let (keys, tail) = (records + details + number(48), bytes.len());
    [16..64, 64..records, records..records + details, records + details..keys, keys..tail]
}

/// Gives a changed catalog the checksum that it would have if it had been written so.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[16..24].fill(0);
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&bytes[64..]);
    hasher.update(&bytes[..64]);
    let checksum = hasher.digest();
    bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Keys in every state: published, new, changed, gone, and changed since; gives their names.
fn in_every_state(site: &Site) -> Vec<String> {
    let keys: Vec<_> =
        (0..60).map(|n| format!("d{}/e{}/f{n:02}.{}", n % 3, n % 7, "x".repeat(n % 5))).collect();
    let orchestrator = site.orchestrator(with_fallback());
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 4 != 0) {
        fs::create_dir_all(site.file(key).parent().unwrap()).unwrap();
        fs::write(site.file(key), "1".repeat(n)).unwrap();
    }
    orchestrator.rescan().unwrap();
    *site.store.refused.lock().unwrap() = keys.iter().cloned().collect();
    for (n, key) in keys.iter().enumerate() {
        fs::create_dir_all(site.file(key).parent().unwrap()).unwrap();
        match n % 4 {
            0 | 1 => fs::write(site.file(key), "2".repeat(99)).unwrap(),
            2 => fs::remove_file(site.file(key)).unwrap(),
            _ => {}
        }
    }
    orchestrator.rescan().unwrap();
    keys
}

/// Everything that can be asked of a catalog.
fn exercise(path: &Path, keys: &[String]) -> bool {
    let Ok(mut catalog) = Catalog::open(path) else {
        return false;
    };
    for key in keys.iter().map(String::as_str).chain(["", "d", "d1/", "zz", "d1/e1/f01.xx"]) {
        catalog.get(key);
        let below = catalog.prefix(key).inspect(|(found, _)| assert!(found.starts_with(key))).count();
        assert!(below <= catalog.len(), "{below} of {}", catalog.len());
    }
    let names: Vec<_> = catalog.iter().map(|(key, _)| key).collect();
    assert!(names.len() <= catalog.len() && names.is_sorted());
    assert!(catalog.pending().len() <= catalog.len());
    let _ = (catalog.summary(), catalog.created(), catalog.refresh(), catalog.is_damaged(), catalog.clone());
    true
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What panics in here is not printed: a hook is called for those that are caught, too.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                before(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

/// S7: a catalog that somebody made has the right checksum, and addresses that lead anywhere: 136 of 750 such files
/// ended the process that asked for a key, in the code of a dependency. Each access is fenced, and whatever it comes
/// upon is damage.
#[test]
fn s7_crafted_catalogs_never_panic_and_never_hang() {
    let site = Site::new();
    let keys = in_every_state(&site);
    let whole = fs::read(site.catalog_path()).unwrap();
    assert_eq!(sealed(whole.clone()), whole);
    let path = site.folder.path().join("crafted");
    let mut opened = 0;
    for (number, section) in sections(&whole).into_iter().enumerate() {
        assert!(!section.is_empty());
        // The others are numbers and texts.
        let seeds = if number == 3 { 600 } else { 100 };
        for seed in 0..seeds {
            let mut random = fastrand::Rng::with_seed(seed + 1000 * number as u64);
            let mut bytes = whole.clone();
            for _ in 0..random.usize(1..5) {
                let at = random.usize(section.clone());
                let values = [0, 1, 0x7f, 0x80, 0xc0, 0xff, random.u8(..), bytes[at] ^ 1];
                bytes[at] = values[random.usize(..values.len())];
            }
            fs::write(&path, sealed(bytes)).unwrap();
            let result = quietly(|| std::panic::catch_unwind(|| exercise(&path, &keys)));
            opened += u32::from(result.unwrap_or_else(|_| panic!("section {number}, seed {seed}")));
        }
    }
    assert!(opened > 400, "{opened} were opened at all");
}

/// A catalog that was damaged stayed as it was until something in the tree changed: whether it shows what the cache
/// holds was all that was asked, of its last bytes.
#[test]
fn s7_damaged_catalog_is_written_anew_by_the_next_run_of_an_unchanged_tree() {
    let site = Site::new();
    let keys = in_every_state(&site);
    site.store.refused.lock().unwrap().clear();
    let orchestrator = site.orchestrator(with_fallback());
    for _ in 0..3 {
        orchestrator.rescan().unwrap();
        site.clock.step_wall(10);
    }
    let whole = fs::read(site.catalog_path()).unwrap();
    let expected: Vec<_> = Catalog::open(site.catalog_path()).unwrap().iter().collect();
    let replace = |bytes: &[u8]| {
        fs::remove_file(site.catalog_path()).unwrap();
        fs::write(site.catalog_path(), bytes).unwrap();
    };
    let [_, records, _, names, tail] = sections(&whole);
    for (at, seal) in [
        (records.start + 5, false),
        (tail.start + 9, false),
        // Another digest, which only the cache can tell from the right one.
        (records.start + 5, true),
        (names.end - 12, true),
        (names.start + names.len() / 2, true),
    ] {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xa5;
        replace(&if seal { sealed(bytes) } else { bytes });
        let before =
            quietly(|| Catalog::open(site.catalog_path()).map(|catalog| (catalog.iter().count(), catalog)));
        quietly(|| orchestrator.rescan().unwrap());
        let after = Catalog::open(site.catalog_path()).unwrap();
        assert_eq!(after.iter().collect::<Vec<_>>(), expected, "byte {at}");
        assert!(!after.is_damaged() && after.get(&keys[1]).is_some());
        assert!(after.is_current(orchestrator.cache()).unwrap());
        // Whoever has the damaged one open learns of it, and of the new one.
        if let Ok((count, mut damaged)) = before {
            assert!(!damaged.is_current(orchestrator.cache()).unwrap());
            assert_eq!(damaged.is_damaged(), count < expected.len(), "byte {at}: {count}");
            assert!(damaged.refresh().unwrap() && !damaged.is_damaged());
        }
    }
    // What is whole is left alone.
    let identity = site.identity();
    orchestrator.rescan().unwrap();
    assert_eq!(site.identity(), identity);
}

/// An access that comes upon damage gives nothing; that it was damage is told by the next look for a newer version.
#[test]
fn s7_damage_is_told_by_refresh() {
    let site = Site::new();
    let keys = in_every_state(&site);
    let whole = fs::read(site.catalog_path()).unwrap();
    let [_, _, _, names, _] = sections(&whole);
    let mut bytes = whole;
    // The address of the first node.
    bytes[names.end - 12..names.end - 4].copy_from_slice(&u64::MAX.to_le_bytes());
    let path = site.folder.path().join("crafted");
    fs::write(&path, sealed(bytes)).unwrap();
    let mut catalog = Catalog::open(&path).unwrap();
    assert!(!catalog.refresh().unwrap() && !catalog.is_damaged());
    quietly(|| assert_eq!((catalog.get(&keys[1]), catalog.iter().next()), (None, None)));
    assert!(catalog.is_damaged() && catalog.clone().is_damaged());
    let error = catalog.refresh().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::CacheDamaged, Some(path.as_path())));
}

/// A bad file in its place keeps the version that was there.
#[test]
fn refresh_that_fails_keeps_what_was_there() {
    let site = Site::new();
    fs::write(site.file("a"), "1").unwrap();
    let orchestrator = site.orchestrator(RescanConfig::new());
    orchestrator.rescan().unwrap();
    let mut catalog = Catalog::open(site.catalog_path()).unwrap();
    fs::remove_file(site.catalog_path()).unwrap();
    assert_eq!(catalog.refresh().unwrap_err().kind(), ErrorKind::Cache);
    fs::write(site.catalog_path(), "no catalog").unwrap();
    assert_eq!(catalog.refresh().unwrap_err().kind(), ErrorKind::CacheDamaged);
    assert_eq!(catalog.get("a").unwrap().size, Some(1));
    orchestrator.rescan().unwrap();
    assert!(catalog.refresh().unwrap());
    assert_eq!(catalog.get("a").unwrap().size, Some(1));
}

#[test]
fn threads_share_one_catalog_and_refresh_their_own() {
    fn shared<T: Send + Sync + Clone>(value: &T) -> T {
        value.clone()
    }
    let world = World::new();
    for n in 0..200 {
        world.write(&format!("f{n:03}"), format!("{n}"));
    }
    world.proxy.add(Rule::new(Fault::Answer(404, Vec::new(), Vec::new())).method("HEAD"));
    world.orchestrator().rescan().unwrap();
    let catalog = Catalog::open(Catalog::path_for(world.cache_path())).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut mine = shared(&catalog);
            let theirs = &catalog;
            scope.spawn(move || {
                for (key, resolved) in theirs {
                    assert_eq!(mine.get(&key), Some(resolved));
                }
                assert!(!mine.refresh().unwrap());
            });
        }
    });
}

const READ: &str = "BRIGADE_TEST_CATALOG";
/// Files of the tree that changes as a whole.
const FILES: u64 = 12;
const VERSIONS: u64 = 100;
/// How often the catalog of each is put into the place of the one before.
const TIMES: u64 = 10;

/// Where this process was started to read: looks until the last version is there.
fn acted_as_reader() -> bool {
    let Ok(path) = std::env::var(READ) else {
        return false;
    };
    let mut catalog = Catalog::open(path).unwrap();
    let (mut seen, mut last) = (1_u64, 0);
    println!("ready");
    while last < VERSIONS {
        seen += u64::from(catalog.refresh().unwrap());
        let sizes: Vec<_> = catalog.iter().map(|(_, resolved)| resolved.size.unwrap()).collect();
        assert_eq!(sizes.len() as u64, FILES);
        assert!(sizes.iter().all(|size| *size == sizes[0]), "two versions in one: {sizes:?}");
        assert!(sizes[0] >= last, "{last}, then {}", sizes[0]);
        last = sizes[0];
    }
    println!("saw {seen}");
    true
}

/// Eight processes read while one replaces the catalog a thousand times: each sees whole versions only, in order.
#[test]
fn readers_of_other_processes_see_whole_versions_only() {
    use std::io::{BufRead, BufReader};
    if acted_as_reader() {
        return;
    }
    let site = Site::new();
    let grow = |size: u64| {
        for n in 0..FILES {
            let file =
                fs::File::options().create(true).append(true).open(site.file(&format!("f{n}"))).unwrap();
            file.set_len(size).unwrap();
        }
    };
    grow(1);
    let orchestrator = site.orchestrator(RescanConfig::new());
    orchestrator.rescan().unwrap();
    let mut readers: Vec<_> = (0..8)
        .map(|_| {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "catalog::readers_of_other_processes_see_whole_versions_only",
                    "--nocapture",
                ])
                .env(READ, site.catalog_path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.by_ref().any(|line| line.unwrap().contains("ready")));
            (child, lines)
        })
        .collect();
    for version in 2..=VERSIONS {
        grow(version);
        assert_eq!(orchestrator.rescan().unwrap().outcome, RescanOutcome::Published);
        for _ in 1..TIMES {
            Catalog::write(orchestrator.cache()).unwrap();
        }
    }
    for (child, lines) in &mut readers {
        let saw: Vec<_> = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success(), "{saw:?}");
        let saw = saw.iter().find_map(|line| line.split_once("saw ")).unwrap().1.parse::<u64>().unwrap();
        assert!(saw > 10, "it was replaced under its reader's eyes: {saw}");
    }
}

/// A prefork server opens the catalog once, and its children read it and take notice of a newer one.
#[test]
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "there is no other way to fork")]
fn catalog_may_be_inherited_over_fork() {
    let site = Site::new();
    for n in 0..100 {
        fs::write(site.file(&format!("f{n}")), "1").unwrap();
    }
    let orchestrator = site.orchestrator(RescanConfig::new());
    orchestrator.rescan().unwrap();
    let mut catalog = Catalog::open(site.catalog_path()).unwrap();
    let newer = site.folder.path().join("go");
    let children: Vec<_> = (0..4)
        .map(|_| {
            // SAFETY: the child takes no lock but the allocator's, which the C library hands over, and leaves by _exit.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let before = catalog.iter().filter(|(_, found)| found.size == Some(1)).count();
                // The limit only ends a hang.
                for _ in 0..60_000 {
                    if newer.exists() {
                        break;
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                let after = catalog.refresh().is_ok_and(|news| news)
                    && catalog.get("f7").is_some_and(|found| found.size == Some(2));
                // SAFETY: ends this process, and nothing of the parent's.
                unsafe { libc::_exit(i32::from(before != 100 || !after)) };
            }
            rustix::process::Pid::from_raw(pid).unwrap()
        })
        .collect();
    fs::write(site.file("f7"), "22").unwrap();
    orchestrator.rescan().unwrap();
    fs::write(newer, "").unwrap();
    for child in children {
        let (_, status) =
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(status.exit_status(), Some(0));
    }
    assert_eq!(catalog.get("f7").unwrap().size, Some(1));
}
