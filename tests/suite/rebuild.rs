//! P5: a damaged or lost cache is made anew, from the tree and the objects or from the state in the bucket, and a cache is
//! bound to another endpoint. Neither writes to the bucket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket_brigade::{
    CacheFound, CacheManager, CancelToken, Catalog, ErrorKind, PendingKind, Rebuild, RebuildReport,
    RemoteState, RescanConfig, RescanOutcome, Run, S3Backend, StorageBackend, StorageError,
};

use crate::shared_state::{Machine, published, requests};
use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, FaultProxy, Rule};
use crate::support::{PREFIX, World, s3_config_at};

const FILES: usize = 20;

fn tree() -> World {
    let world = World::with_workers(2);
    for n in 0..FILES {
        world.write(&format!("f{n:02}"), format!("content of {n}"));
    }
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    world
}

fn rebuild(world: &World) -> Result<RebuildReport, StorageError> {
    Rebuild::new(world.cache_path()).from_tree(
        &world.engine,
        world.root(),
        &backend(world),
        RescanConfig::new(),
    )
}

fn backend(world: &World) -> Arc<dyn StorageBackend> {
    world.backend()
}

fn beside(world: &World, suffix: &str) -> PathBuf {
    let mut path = world.cache_path().into_os_string();
    path.push(suffix);
    path.into()
}

/// The names of the files in the folder of the cache.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.cache_path().parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Makes the cache one of a later version.
pub(crate) fn of_later_version(path: &Path) {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format", [9].as_slice()).unwrap();
    transaction.commit().unwrap();
}

/// Makes a published record one that cannot be decoded: the file is whole, and its content is not.
fn with_damaged_record(path: &Path) {
    const PUBLISHED: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("published");
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(PUBLISHED).unwrap().insert("f03", [1, 2].as_slice()).unwrap();
    transaction.commit().unwrap();
}

fn is_damaged(found: &CacheFound) -> bool {
    matches!(found, CacheFound::Damaged(_))
}

type Row = (&'static str, fn(&World), fn(&CacheFound) -> bool);

/// Each way in which a cache is lost.
const DAMAGES: [Row; 6] = [
    ("no cache", |world| fs::write(world.cache_path(), "no cache at all").unwrap(), is_damaged),
    (
        "truncated",
        |world| {
            let bytes = fs::read(world.cache_path()).unwrap();
            fs::write(world.cache_path(), &bytes[..bytes.len() / 2]).unwrap();
        },
        is_damaged,
    ),
    ("of a later version", |world| of_later_version(&world.cache_path()), is_damaged),
    ("a damaged record", |world| with_damaged_record(&world.cache_path()), is_damaged),
    ("empty", |world| fs::write(world.cache_path(), "").unwrap(), |found| matches!(found, CacheFound::Empty)),
    (
        "missing",
        |world| fs::remove_file(world.cache_path()).unwrap(),
        |found| matches!(found, CacheFound::Missing),
    ),
];

#[test]
fn p5_damaged_cache_is_made_anew_from_the_tree() {
    for (what, damage, expected) in DAMAGES {
        let world = tree();
        world.stranger("not ours", "x");
        world.write("f00", "version 2");
        world.remove("f01");
        damage(&world);
        let bytes = fs::read(world.cache_path()).ok();
        world.proxy.clear_counts();
        world.store.clear_logs();
        let made = rebuild(&world).unwrap();
        assert!(expected(&made.found), "{what}: {made:?}");
        assert_eq!((made.published, made.pending, made.failed_count), (FILES as u64 - 2, 1, 0), "{what}");
        let found = made.adoption.unwrap();
        assert_eq!((found.listed, found.different, found.without_file), (FILES as u64 + 1, 1, 2), "{what}");
        let writes: Vec<_> = world.proxy.requests().into_iter().filter(|seen| seen.method != "GET").collect();
        assert!(writes.is_empty() && world.store.puts().is_empty(), "{what}: {writes:?}");
        let kept = made.kept_as.as_deref().map(|path| fs::read(path).unwrap());
        assert_eq!(kept.is_some(), bytes.is_some(), "{what}");
        // What can be opened is changed by that.
        assert!(kept == bytes || !matches!(what, "no cache" | "truncated"), "{what}");
        assert_eq!(fs::metadata(world.cache_path()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Catalog::open(Catalog::path_for(world.cache_path())).unwrap().len() >= FILES - 1, "{what}");
        assert!(!names(&world).iter().any(|name| name.contains("rebuilding")), "{:?}", names(&world));

        // Nobody knows any more that it is ours.
        world.strangers.lock().unwrap().insert("f01".to_owned(), b"content of 1".to_vec());
        // The next run sends what is left, and deletes nothing that only looks like ours.
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(
            (report.outcome, report.uploaded_count, report.deleted_count),
            (RescanOutcome::Published, 1, 0)
        );
        assert!(report.copied_cache.is_none() && report.adoption.is_none(), "{what}");
        world.let_files_settle();
        site.rescan().unwrap();
        check_idle(&world, &site);
    }
}

/// A byte flipped anywhere: where the cache is refused, a rebuild mends it.
#[test]
fn p5_cache_with_a_flipped_byte_is_made_anew() {
    let world = tree();
    let good = fs::read(world.cache_path()).unwrap();
    let mut mended = 0;
    for at in (0..good.len()).step_by(4096) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        fs::write(world.cache_path(), &bytes).unwrap();
        let made = match rebuild(&world) {
            Ok(made) => made,
            // It lies in slack.
            Err(error) => {
                assert!(error.to_string().contains("it can be used as it is"), "byte {at}: {error}");
                continue;
            }
        };
        assert!(is_damaged(&made.found) && made.published == FILES as u64, "byte {at}: {made:?}");
        assert_eq!(fs::read(made.kept_as.unwrap()).unwrap(), bytes, "byte {at}");
        mended += 1;
    }
    assert!(mended > 3, "{mended}");
    assert_eq!(world.orchestrator().rescan().unwrap().outcome, RescanOutcome::Unchanged);
}

#[test]
fn p5_damaged_cache_is_made_anew_from_the_state_in_the_bucket() {
    for damage in 0..5 {
        let world = World::new();
        let one = Machine::new(&world, &[("a", "1"), ("b/c", "2")]);
        one.publish();
        let path = one.cache_path();
        let good = fs::read(&path).unwrap();
        match damage {
            0 => fs::write(&path, "no cache at all").unwrap(),
            1 => fs::write(&path, &good[..good.len() / 2]).unwrap(),
            2 => of_later_version(&path),
            3 => fs::write(&path, "").unwrap(),
            _ => fs::remove_file(&path).unwrap(),
        }
        // Another machine goes on meanwhile.
        let two = Machine::new(&world, &[("a", "1"), ("b/c", "3")]);
        two.publish();
        let before = world.objects();
        let made = Rebuild::new(&path)
            .from_state(&one.engine, &(one.backend() as Arc<dyn StorageBackend>), &RemoteState::new())
            .unwrap();
        assert_eq!((made.published, made.pending, made.state.unwrap().generation), (2, 0, 2));
        assert_eq!(made.kept_as.is_some(), damage < 4);
        assert_eq!(world.objects(), before, "nothing is written");
        assert_eq!(Catalog::open(Catalog::path_for(&path)).unwrap().len(), 2);
        // It publishes from there, and knows what the other has published.
        one.write("b/c", "3");
        requests(&world);
        let report = one.publish();
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
        assert_eq!(requests(&world), ["GET .brigade/head"]);
        one.remove("a");
        assert_eq!(one.publish().deleted, ["a"]);
        assert_eq!(published(&world).len(), 1);
    }
}

#[test]
fn cache_that_can_be_used_is_only_replaced_by_force() {
    let world = tree();
    let error = rebuild(&world).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Cache, Some(world.cache_path().as_path())));
    assert!(error.to_string().contains("--force"), "{error}");
    for number in 1..3 {
        let made = Rebuild::new(world.cache_path()).force(true);
        let made =
            made.from_tree(&world.engine, world.root(), &backend(&world), RescanConfig::new()).unwrap();
        let kept = made.kept_as.unwrap();
        assert_eq!(kept, beside(&world, &format!(".old-{number}")));
        assert_eq!(CacheManager::open(kept).unwrap().published_count().unwrap(), FILES as u64);
        assert!(matches!(made.found, CacheFound::Healthy) && made.published == FILES as u64);
    }
    assert_eq!(world.orchestrator().rescan().unwrap().outcome, RescanOutcome::Unchanged);
}

/// The cache of another destination is not replaced, not even by force.
#[test]
fn cache_of_another_destination_is_left_alone() {
    let world = tree();
    let backend = S3Backend::new(&world.engine, world.s3_config().bucket_prefix("other/")).unwrap();
    let backend: Arc<dyn StorageBackend> = Arc::new(backend);
    let forced = Rebuild::new(world.cache_path()).force(true);
    let error = forced.from_tree(&world.engine, world.root(), &backend, RescanConfig::new());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::CacheForeign);
    assert_eq!(names(&world), ["cache", "cache.catalog"]);
    assert_eq!(world.orchestrator().rescan().unwrap().outcome, RescanOutcome::Unchanged);
}

/// A cache that is open elsewhere is not replaced, also if it was damaged since, and neither are two rebuilds made at once.
#[test]
fn p3_cache_that_is_in_use_is_not_replaced() {
    let world = tree();
    let holder = world.cache();
    let forced = Rebuild::new(world.cache_path()).force(true);
    let again = || forced.from_tree(&world.engine, world.root(), &backend(&world), RescanConfig::new());
    assert_eq!(again().unwrap_err().kind(), ErrorKind::CacheLocked);
    let good = fs::read(world.cache_path()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(world.cache_path()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0x55; good.len() - 64], 64).unwrap();
    assert_eq!(rebuild(&world).unwrap_err().kind(), ErrorKind::CacheLocked);
    drop(holder);
    let other = CacheManager::open(beside(&world, ".rebuilding")).unwrap();
    assert_eq!(rebuild(&world).unwrap_err().kind(), ErrorKind::CacheLocked);
    drop(other);
    // What a killed rebuild has left is no hindrance.
    assert!(is_damaged(&rebuild(&world).unwrap().found));
    assert_eq!(names(&world), ["cache", "cache.catalog", "cache.damaged-1"]);
}

/// A rebuild that fails leaves what was there, and says why: the store is out of reach, refuses to list, or the run is
/// cancelled; and the state in the bucket is no matter of the tree.
#[test]
fn rebuild_that_fails_changes_nothing() {
    let world = tree();
    fs::write(world.cache_path(), "no cache at all").unwrap();
    let unchanged = |what: &str| {
        assert_eq!(fs::read(world.cache_path()).unwrap(), b"no cache at all", "{what}");
        assert_eq!(names(&world), ["cache", "cache.catalog"], "{what}");
    };
    world.proxy.refuse();
    assert!(rebuild(&world).unwrap_err().kind().is_outage());
    unchanged("out of reach");
    world.proxy.accept_again();
    let denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_vec();
    world.proxy.add(Rule::new(Fault::Answer(403, Vec::new(), denied)).path_contains("list-type=2"));
    assert_eq!(rebuild(&world).unwrap_err().kind(), ErrorKind::AccessDenied);
    unchanged("may not list");
    world.proxy.clear_rules();
    let cancel = CancelToken::new();
    cancel.cancel();
    let cancelled = Rebuild::new(world.cache_path()).run(Run::new().cancel(cancel));
    let error = cancelled.from_tree(&world.engine, world.root(), &backend(&world), RescanConfig::new());
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
    unchanged("cancelled");
    let state = RescanConfig::new().state(RemoteState::new());
    let error = Rebuild::new(world.cache_path())
        .from_tree(&world.engine, world.root(), &backend(&world), state)
        .unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("from_state"), "{error}");
    let error = Rebuild::new(world.cache_path())
        .from_state(&world.engine, &backend(&world), &RemoteState::new())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    unchanged("without state");
}

/// Another process made a cache while the rebuild ran, or replaced the damaged one: what is there now stays.
#[test]
fn cache_that_changes_during_a_rebuild_is_not_replaced() {
    for was_there in [false, true] {
        let world = tree();
        fs::remove_file(world.cache_path()).unwrap();
        if was_there {
            fs::write(world.cache_path(), "no cache at all").unwrap();
        }
        let (path, new) = (world.cache_path(), world.cache_path().with_extension("new"));
        world.proxy.on_request(move |seen| {
            if seen.target.contains("list-type=2") {
                fs::write(&new, "somebody else's").unwrap();
                fs::rename(&new, &path).unwrap();
            }
        });
        let error = rebuild(&world).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CacheLocked, "{error}");
        world.proxy.on_request(|_| ());
        assert_eq!(fs::read(world.cache_path()).unwrap(), b"somebody else's");
        assert_eq!(names(&world), ["cache", "cache.catalog"]);
    }
}

/// An old copy of a cache whose state lies in the bucket: the head decides, in the one request of every run.
#[test]
fn p5_old_copy_of_the_cache_with_the_state_in_the_bucket_is_decided_by_the_head() {
    let world = World::new();
    let one = Machine::new(&world, &[("a", "1"), ("b", "1")]);
    one.publish();
    one.let_files_settle();
    one.publish();
    let old = fs::read(one.cache_path()).unwrap();
    one.write("a", "2");
    one.remove("b");
    one.publish();
    fs::remove_file(one.cache_path()).unwrap();
    fs::write(one.cache_path(), old).unwrap();
    fs::set_permissions(one.cache_path(), fs::Permissions::from_mode(0o600)).unwrap();
    requests(&world);
    let report = one.publish();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
    assert!(report.copied_cache.is_none());
    assert_eq!(requests(&world), ["GET .brigade/head"]);
    assert_eq!(published(&world).len(), 1);
}

/// A second endpoint of the world's store.
struct Moved {
    proxy: FaultProxy,
    backend: Arc<dyn StorageBackend>,
}

impl Moved {
    fn new(world: &World) -> Self {
        let proxy = FaultProxy::start(world.server.as_ref().unwrap().addr());
        let backend = S3Backend::new(&world.engine, s3_config_at(&proxy.endpoint())).unwrap();
        Self { proxy, backend: Arc::new(backend) }
    }

    fn site(&self, world: &World, config: RescanConfig) -> bucket_brigade::RescanOrchestrator {
        world.orchestrator_on(self.backend.clone(), config)
    }
}

#[test]
fn cache_is_bound_to_the_endpoint_that_has_its_objects_now() {
    let world = tree();
    world.let_files_settle();
    world.orchestrator().rescan().unwrap();
    let moved = Moved::new(&world);
    let cache = world.cache();
    let error = cache.check_destination(&moved.backend.destination()).unwrap_err();
    assert!(error.kind() == ErrorKind::CacheForeign && error.to_string().contains("--rebind"), "{error}");
    // Not all of it was copied.
    world.store.remove_raw(&format!("{PREFIX}f00"));
    world.store.put_raw(&format!("{PREFIX}f01"), "content of 2");
    world.remember("f01", b"content of 2");
    let found = cache.rebind(&world.engine, &moved.backend, &Run::new()).unwrap();
    assert!(found.complete && found.matching == FILES as u64 - 2, "{found:?}");
    assert_eq!(
        (found.missing.as_slice(), found.different.as_slice()),
        (&["f00".to_owned()][..], &["f01".to_owned()][..])
    );
    assert_eq!(moved.proxy.requests().len(), 1, "one listing");
    let summary = cache.summary().unwrap();
    assert_eq!(summary.destination.unwrap(), moved.backend.destination());
    let catalog = Catalog::open(Catalog::path_for(world.cache_path())).unwrap();
    assert!(catalog.get("f05").unwrap().url.starts_with(&moved.backend.get_url("")));
    drop(cache);

    let site = moved.site(&world, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2), "{report:?}");
    assert!(report.copied_cache.is_none() && report.deleted.is_empty());
    world.let_files_settle();
    site.rescan().unwrap();
    moved.proxy.clear_counts();
    assert_eq!(site.rescan().unwrap().outcome, RescanOutcome::Unchanged);
    assert!(moved.proxy.requests().is_empty(), "I5");
    // It knows its place for good: the old one is foreign now.
    let old = world.backend().destination();
    assert_eq!(site.cache().check_destination(&old).unwrap_err().kind(), ErrorKind::CacheForeign);
}

/// A place that has none of the objects is not the one that moved, and a listing that fails binds nothing.
#[test]
fn cache_is_not_bound_to_another_place() {
    let world = tree();
    let moved = Moved::new(&world);
    let cache = world.cache();
    let before = (cache.summary().unwrap(), cache.pending().unwrap());
    let unbound = |what: &str| {
        assert_eq!((cache.summary().unwrap(), cache.pending().unwrap()), before, "{what}");
    };
    let other = s3_config_at(&moved.proxy.endpoint()).bucket_prefix("other/");
    let other: Arc<dyn StorageBackend> = Arc::new(S3Backend::new(&world.engine, other).unwrap());
    let error = cache.rebind(&world.engine, &other, &Run::new()).unwrap_err();
    assert!(
        error.kind() == ErrorKind::CacheForeign && error.to_string().contains("none of its 20"),
        "{error}"
    );
    unbound("an empty place");
    world.store.page_limit(7);
    for page in 0..3 {
        let rule = Rule::new(Fault::Answer(403, Vec::new(), Vec::new())).path_contains("list-type=2");
        moved.proxy.add(rule.skip(page));
        assert_eq!(
            cache.rebind(&world.engine, &moved.backend, &Run::new()).unwrap_err().kind(),
            ErrorKind::AccessDenied
        );
        moved.proxy.clear_rules();
        unbound("a listing that fails");
    }
    assert!(cache.rebind(&world.engine, &moved.backend, &Run::new()).unwrap().is_good());
    // Once more does no harm.
    assert!(cache.rebind(&world.engine, &moved.backend, &Run::new()).unwrap().is_good());
}

/// A file that is gone is only deleted at the new place if its object is the one that is recorded.
#[test]
fn i3_bound_cache_deletes_only_what_it_has_proven() {
    let world = tree();
    let moved = Moved::new(&world);
    world.store.put_raw(&format!("{PREFIX}f01"), "another publisher's");
    world.strangers.lock().unwrap().insert("f01".to_owned(), b"another publisher's".to_vec());
    world.cache().rebind(&world.engine, &moved.backend, &Run::new()).unwrap();
    world.remove("f00");
    world.remove("f01");
    let site = moved.site(&world, RescanConfig::new());
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!(report.deleted, ["f00"]);
    assert!(world.keys().contains(&"f01".to_owned()));
    assert!(site.cache().pending().unwrap().iter().all(|file| file.kind != PendingKind::Removed));
}

/// With its state in the bucket a bound cache is pulled again, and nothing is sent.
#[test]
fn cache_with_its_state_in_the_bucket_is_bound_and_pulled_again() {
    let world = World::new();
    world.write("a", "1");
    world.write("b", "2");
    let state = || RescanConfig::new().state(RemoteState::new());
    world.orchestrator_with(state()).rescan().unwrap();
    let moved = Moved::new(&world);
    let cache = world.cache();
    assert!(cache.rebind(&world.engine, &moved.backend, &Run::new()).unwrap().is_good());
    drop(cache);
    let report = moved.site(&world, state()).rescan().unwrap();
    assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Unchanged, 0), "{report:?}");
}
