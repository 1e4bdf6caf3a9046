//! P5: a cache that was copied, or put back by a backup, says what was published once. It is found out, and compared with
//! one listing before anything is believed; nothing is deleted that the listing does not show to be ours.

use std::fs;
use std::path::Path;

use bucket_brigade::{
    Catalog, FirstRun, KeptReason, PendingKind, RescanConfig, RescanOrchestrator, RescanOutcome,
    RescanReport, Run, StopReason,
};

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Rule};
use crate::support::{PREFIX, World};

/// What the log says of such a cache, at its beginning.
const FOUND_OUT: &str = "the cache was copied, or put back by a backup";

/// A published tree of these files.
fn tree(keys: &[&str]) -> World {
    let world = World::with_workers(2);
    for key in keys {
        world.write(key, format!("{key} of version 1"));
    }
    publish(&world);
    world
}

fn publish(world: &World) -> RescanReport {
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(world, &site, &report);
    report
}

/// Makes every file older than the racy window, and lets a run see that.
fn settle(world: &World) {
    world.let_files_settle();
    assert_eq!(publish(world).outcome, RescanOutcome::Unchanged);
}

fn requests(world: &World) -> Vec<String> {
    let request = |seen: crate::support::proxy::Seen| format!("{} {}", seen.method, seen.target);
    world.proxy.requests().into_iter().map(request).collect()
}

fn is_listing(request: &str) -> bool {
    request.starts_with("GET ") && request.contains("list-type=2")
}

/// A backup of the cache, with or without its catalog.
struct Backup {
    cache: Vec<u8>,
    catalog: Vec<u8>,
}

impl Backup {
    fn of(world: &World) -> Self {
        let read = |path: &Path| fs::read(path).unwrap();
        Self { cache: read(&world.cache_path()), catalog: read(&Catalog::path_for(world.cache_path())) }
    }

    /// Writes a new file in the place of the cache, as tar and rsync do.
    fn replace(&self, world: &World) {
        let path = world.cache_path();
        let beside = path.with_extension("restored");
        fs::write(&beside, &self.cache).unwrap();
        fs::set_permissions(&beside, fs::metadata(&path).unwrap().permissions()).unwrap();
        fs::rename(beside, path).unwrap();
    }

    /// Overwrites the file, as cp does.
    fn overwrite(&self, world: &World) {
        fs::write(world.cache_path(), &self.cache).unwrap();
    }

    fn overwrite_both(&self, world: &World) {
        self.overwrite(world);
        let catalog = Catalog::path_for(world.cache_path());
        let permissions = fs::metadata(&catalog).unwrap().permissions();
        fs::set_permissions(&catalog, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(&catalog, &self.catalog).unwrap();
        fs::set_permissions(&catalog, permissions).unwrap();
    }
}

/// The ways in which a backup comes back.
const WAYS: [fn(&Backup, &World); 3] = [Backup::replace, Backup::overwrite, Backup::overwrite_both];

/// The warnings that a cache was found out, since the beginning.
fn times_found_out(world: &World) -> usize {
    world.logged(log::Level::Warn).iter().filter(|message| message.starts_with(FOUND_OUT)).count()
}

/// An old cache was believed: an object that another publisher had stored since under a key of ours was deleted, and what
/// had changed in the bucket stayed as it was.
#[test]
fn p5_old_copy_of_the_cache_is_found_out_and_only_proven_objects_are_deleted() {
    for restore in WAYS {
        let world = tree(&["same", "changed", "gone-ours", "gone-theirs", "gone-before"]);
        settle(&world);
        let old = Backup::of(&world);
        // What happens after the backup: two versions more, one file less, and somebody else's object.
        world.write("changed", "version 2");
        world.write("new", "since the backup");
        world.remove("gone-before");
        publish(&world);
        restore(&old, &world);
        world.remove("gone-ours");
        world.remove("gone-theirs");
        world.stranger("gone-theirs", "another publisher's");
        world.proxy.clear_counts();
        world.store.clear_logs();

        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, times_found_out(&world)), (RescanOutcome::Published, 1), "{report:?}");
        let found = report.copied_cache.as_ref().unwrap();
        assert!(found.complete && found.matching == 2, "{found:?}");
        assert_eq!(found.missing, ["gone-before"]);
        assert_eq!(found.different, ["changed", "gone-theirs"]);
        assert_eq!(found.unknown, ["new"]);
        assert_eq!(report.deleted, ["gone-ours"]);
        assert_eq!(world.store.deletes(), [format!("{PREFIX}gone-ours")]);
        let kept: Vec<_> = report.kept.iter().map(|kept| (kept.key.as_str(), kept.reason)).collect();
        assert_eq!(kept, [("gone-theirs", KeptReason::NotAsRecorded)]);
        // What the later run stored is recognized, and not sent again.
        assert_eq!((report.uploaded_count, report.adopted_count), (0, 2), "{:?}", report.uploaded);
        assert!(is_listing(&requests(&world)[0]), "{:?}", requests(&world));
        drop(site);

        // It is found out once.
        world.let_files_settle();
        let site = world.orchestrator();
        assert_eq!(site.rescan().unwrap().copied_cache.map(|found| found.complete), None);
        check_idle(&world, &site);
        assert_eq!(times_found_out(&world), 1);
    }
}

/// The tree was restored as well, to the day of the backup: the old cache took it for published.
#[test]
fn p5_old_copy_of_the_cache_with_the_tree_of_its_day_publishes_that_tree_again() {
    for first_run in [FirstRun::Adopt, FirstRun::Overwrite, FirstRun::Refuse] {
        let world = tree(&["a", "b", "c"]);
        settle(&world);
        let old = Backup::of(&world);
        // The files keep their stat while the bucket moves on.
        world.remember("a", b"a of version 2");
        world.store.put_raw(&format!("{PREFIX}a"), "a of version 2");
        world.store.remove_raw(&format!("{PREFIX}b"));
        old.replace(&world);
        let site = world.orchestrator_with(RescanConfig::new().first_run(first_run));
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Published, 2), "{first_run:?}");
        assert_eq!(world.objects()["a"], b"a of version 1");
        world.let_files_settle();
        site.rescan().unwrap();
        check_idle(&world, &site);
    }
}

/// I5: the copy of a cache that is up to date costs one listing, and from then on nothing.
#[test]
fn p5_copy_of_a_current_cache_costs_one_listing() {
    let world = tree(&["a", "b", "c"]);
    settle(&world);
    Backup::of(&world).replace(&world);
    world.proxy.clear_counts();
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(&world, &site, &report);
    assert_eq!((report.outcome, report.unchanged), (RescanOutcome::Unchanged, 3));
    assert!(report.copied_cache.unwrap().is_good());
    let sent = requests(&world);
    assert!(sent.len() == 1 && is_listing(&sent[0]), "{sent:?}");
    check_idle(&world, &site);
}

/// What is no copy costs nothing: a renamed cache, one whose catalog is gone, one whose owner and mode changed, one that a
/// reader wrote the catalog of.
#[test]
fn i5_renamed_cache_is_no_copy() {
    let world = tree(&["a", "b"]);
    settle(&world);
    let path = world.cache_path();
    let beside = path.with_extension("moved");
    let catalog = Catalog::path_for(&path);
    let quiet = |world: &World| {
        world.proxy.clear_counts();
        assert_eq!(publish(world).copied_cache.map(|found| found.complete), None);
        assert_eq!(requests(world), [""; 0]);
    };
    fs::rename(&path, &beside).unwrap();
    fs::rename(&beside, &path).unwrap();
    quiet(&world);
    fs::remove_file(&catalog).unwrap();
    quiet(&world);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    quiet(&world);
    {
        let reader = bucket_brigade::CacheManager::open_read_only(&path).unwrap();
        reader.use_urls_of(world.backend(), None);
        fs::remove_file(&catalog).unwrap();
        Catalog::write(&reader).unwrap();
    }
    quiet(&world);
    // A damaged one shows nothing either.
    fs::remove_file(&catalog).unwrap();
    fs::write(&catalog, "no catalog").unwrap();
    quiet(&world);
    assert_eq!(times_found_out(&world), 0);
}

/// The credentials may not list: nothing is deleted, uploads go on, and every run says so until one can list.
#[test]
fn p5_old_copy_that_cannot_be_compared_deletes_nothing() {
    let world = tree(&["a", "gone"]);
    settle(&world);
    Backup::of(&world).overwrite_both(&world);
    // Nothing has changed since the backup: this copy is not found out, and need not be.
    assert_eq!(publish(&world).copied_cache.map(|found| found.complete), None);
    Backup::of(&world).replace(&world);
    world.remove("gone");
    world.write("new", "x");
    let denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_vec();
    world
        .proxy
        .add(Rule::new(Fault::Answer(403, Vec::new(), denied)).method("GET").path_contains("list-type=2"));
    for uploaded in [1, 0] {
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!((report.outcome, report.uploaded_count), (RescanOutcome::Partial, uploaded), "{report:?}");
        assert!(report.deleted.is_empty() && world.keys().contains(&"gone".to_owned()));
        let pending = site.cache().pending().unwrap();
        assert_eq!((pending.len(), pending[0].kind), (1, PendingKind::Removed), "{pending:?}");
        let said = world.logged(log::Level::Warn);
        assert!(said.iter().any(|said| said.contains("nothing is deleted in this run")), "{said:?}");
    }
    world.proxy.clear_rules();
    let report = publish(&world);
    assert_eq!(
        (report.outcome, report.deleted.as_slice()),
        (RescanOutcome::Published, &["gone".to_owned()][..])
    );
    assert_eq!(times_found_out(&world), 3);
}

/// An outage is one, whether there is work or not, and the next run compares.
#[test]
fn p5_old_copy_during_an_outage_is_compared_by_the_next_run() {
    for has_work in [false, true] {
        let world = tree(&["a", "b"]);
        settle(&world);
        Backup::of(&world).replace(&world);
        if has_work {
            world.write("b", "version 2");
        }
        world.proxy.refuse();
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(
            (report.outcome, report.stop_reason),
            (RescanOutcome::LocalOnly, Some(StopReason::Unavailable)),
            "{report:?}"
        );
        drop(site);
        world.proxy.accept_again();
        let report = publish(&world);
        assert!(report.copied_cache.unwrap().complete);
        assert_eq!(report.uploaded_count, u64::from(has_work));
    }
}

/// A store that lists no `ETag`s proves nothing: what has a file is sent again or confirmed, what has none is kept.
#[test]
fn p5_old_copy_without_etags_deletes_nothing_and_confirms_what_has_a_file() {
    let world = tree(&["a", "gone"]);
    settle(&world);
    Backup::of(&world).replace(&world);
    world.remove("gone");
    world.store.lists_no_etags(true);
    // The object is ours all the same.
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    assert_eq!((report.deleted_count, report.adopted_count, report.uploaded_count), (0, 1, 0), "{report:?}");
    assert_eq!(report.kept[0].reason, KeptReason::NotAsRecorded);
    assert!(world.keys().contains(&"gone".to_owned()));
}

/// A dry run sends nothing for it, and says what a run would do.
#[test]
fn p5_dry_run_says_that_the_cache_is_an_old_copy() {
    let world = tree(&["a", "b"]);
    settle(&world);
    Backup::of(&world).replace(&world);
    world.proxy.clear_counts();
    let report = world.orchestrator().rescan_with(&Run::new().dry_run(true)).unwrap();
    assert_eq!((report.outcome, times_found_out(&world)), (RescanOutcome::Unchanged, 1));
    assert_eq!(requests(&world), [""; 0]);
    assert!(publish(&world).copied_cache.unwrap().is_good(), "and leaves it to be found out");
}

/// A run that ends before all is compared leaves the cache as one that is to be compared: fails at each page of the
/// listing in turn.
#[test]
fn p5_comparison_that_fails_at_any_page_changes_nothing() {
    let keys: Vec<_> = (0..12).map(|n| format!("f{n:02}")).collect();
    let world = tree(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    settle(&world);
    world.store.page_limit(3);
    Backup::of(&world).replace(&world);
    world.store.remove_raw(&format!("{PREFIX}f00"));
    let published = |site: &RescanOrchestrator| site.cache().published_count().unwrap();
    for page in 0..4 {
        let denied = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>".to_vec();
        let rule = Rule::new(Fault::Answer(403, Vec::new(), denied)).path_contains("list-type=2").skip(page);
        world.proxy.add(rule);
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        assert_eq!((published(&site), report.uploaded_count), (12, 0), "page {page}");
        assert!(!report.copied_cache.unwrap().complete);
        world.proxy.clear_rules();
    }
    let report = publish(&world);
    assert_eq!((report.copied_cache.unwrap().missing, report.uploaded_count), (vec!["f00".to_owned()], 1));
}

/// Caches of earlier formats do not know their file: they are no copies, and the next run records it.
#[test]
fn cache_of_an_earlier_format_is_believed_and_recorded() {
    for bytes in [
        include_bytes!("../support/format2.cache").as_slice(),
        include_bytes!("../support/format3.cache"),
        include_bytes!("../support/format4.cache"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let cache = bucket_brigade::CacheManager::open(&path).unwrap();
        let destination = cache.summary().unwrap().destination.unwrap();
        let root = folder.path().join("tree");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("x"), "x").unwrap();
        let engine = bucket_brigade::EngineConfig::new().workers(1).build().unwrap();
        let run = |cache| {
            let backend = Fixed(destination.clone());
            let config = RescanConfig::new().delete(false);
            let site =
                RescanOrchestrator::with_config(&engine, &root, std::sync::Arc::new(backend), cache, config);
            site.unwrap().rescan().unwrap()
        };
        assert!(run(cache).copied_cache.is_none());
        fs::copy(&path, folder.path().join("copy")).unwrap();
        let copy = bucket_brigade::CacheManager::open(folder.path().join("copy")).unwrap();
        assert!(!run(copy).copied_cache.unwrap().complete, "the copy of it is found out");
    }
}

/// A backend of four methods: it cannot list.
struct Fixed(String);

impl bucket_brigade::StorageBackend for Fixed {
    fn upload_file(&self, _: &Path, remote_key: &str) -> Result<String, bucket_brigade::StorageError> {
        Ok(self.get_url(remote_key))
    }

    fn delete_file(&self, _: &str) -> Result<(), bucket_brigade::StorageError> {
        panic!("nothing is deleted");
    }

    fn get_url(&self, key: &str) -> String {
        format!("https://example.com/{key}")
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn destination(&self) -> String {
        self.0.clone()
    }
}
