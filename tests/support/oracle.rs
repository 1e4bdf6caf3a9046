//! The oracle: checks DESIGN's invariants against the real contents of the store, the cache and the log.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;

use bucket_brigade::{
    Catalog, ErrorKind, Operation, RescanOrchestrator, RescanOutcome, RescanReport, StorageError,
};
use sha2::{Digest, Sha256};

use super::{World, files_below, logs};

/// Checks everything that must be true after any rescan, however it ended.
pub fn check(world: &World, site: &RescanOrchestrator, report: &RescanReport) {
    whole_versions_only(world);
    published_is_acknowledged(world, site);
    strangers_stand(world);
    deletes_come_after_all_else_went_well(report);
    no_upload_is_left(world, site, report);
    outcome_is_the_truth(world, site, report);
    no_secret_is_seen(world, report);
    if !report.dry_run {
        catalog_is_the_cache_s(site);
    }
}

/// Checks that other processes read from the catalog what the cache contains.
fn catalog_is_the_cache_s(site: &RescanOrchestrator) {
    let cache = site.cache();
    let catalog = Catalog::open(Catalog::path_for(cache.path())).unwrap();
    let entries: Vec<_> = cache.entries().map(Result::unwrap).collect();
    assert_eq!(catalog.iter().collect::<Vec<_>>(), entries, "the catalog differs from the cache");
    assert_eq!(catalog.summary(), cache.summary().unwrap());
}

/// I1: an object is always one whole version of its file.
fn whole_versions_only(world: &World) {
    let strangers = world.strangers.lock().unwrap();
    for (key, bytes) in world.objects() {
        let foreign = strangers.get(&key) == Some(&bytes);
        assert!(foreign || world.was_a_version(&key, &bytes), "I1: {key} holds no version of its file");
    }
}

/// I2: the cache says "published" only of what the store holds, byte for byte.
fn published_is_acknowledged(world: &World, site: &RescanOrchestrator) {
    let objects = world.objects();
    let pending: BTreeSet<_> = site.cache().pending().unwrap().into_iter().map(|file| file.key).collect();
    for entry in site.cache().published().unwrap().entries() {
        let key = entry.key.as_str();
        let Some(bytes) = objects.get(key) else {
            // A delete may have taken effect although its answer was lost.
            assert!(pending.contains(key), "I2: {key} is recorded as published and not in the store");
            continue;
        };
        // Taken over by a mirror, which looks at no content.
        let Some(digest) = entry.digest else {
            assert_eq!(entry.stat.size, bytes.len() as u64, "I2: {key}");
            continue;
        };
        let real: [u8; 32] = match digest.part_size() {
            None => Sha256::digest(bytes).into(),
            Some(bytes_each) => {
                let parts = bytes.chunks(usize::try_from(bytes_each).unwrap()).map(Sha256::digest);
                Sha256::digest(parts.collect::<Vec<_>>().concat()).into()
            }
        };
        // If the key is pending, a newer version may have arrived although the answer was lost.
        if *digest.as_bytes() != real && pending.contains(key) && world.was_a_version(key, bytes) {
            continue;
        }
        assert_eq!(*digest.as_bytes(), real, "I2: {key} has other content");
        assert_eq!(entry.stat.size, bytes.len() as u64, "I2: {key}");
    }
}

/// I3: objects of others are never deleted; a file of the same key may replace one.
fn strangers_stand(world: &World) {
    let objects = world.objects();
    let deleted: BTreeSet<String> = world.store.deletes().into_iter().collect();
    for key in world.strangers.lock().unwrap().keys() {
        let full = format!("{}{key}", super::PREFIX);
        let ours_now = objects.get(key).is_some_and(|bytes| world.was_a_version(key, bytes));
        assert!(ours_now || !deleted.contains(&full), "I3: {key} of somebody else was deleted");
        assert!(objects.contains_key(key), "I3: {key} of somebody else is gone");
    }
}

/// I3: a run that failed to send or read something deletes nothing.
fn deletes_come_after_all_else_went_well(report: &RescanReport) {
    let blocks = |error: &&StorageError| {
        // A file without a valid key was never published.
        error.kind() != ErrorKind::InvalidKey
            && matches!(error.operation(), Operation::Upload | Operation::Walk | Operation::Read)
    };
    let blocking = report.failed.iter().find(blocks);
    assert!(report.deleted_count == 0 || blocking.is_none(), "I3: deleted although {blocking:?}");
}

/// I4: after a good outcome no unfinished upload is left whose upload ID we received; those of others are untouched.
/// One whose upload ID was lost is listed as such.
fn no_upload_is_left(world: &World, site: &RescanOrchestrator, report: &RescanReport) {
    let strange = world.strange_uploads.lock().unwrap();
    let open = world.store.uploads();
    for id in strange.iter() {
        assert!(open.iter().any(|(_, other)| other == id), "I4: upload {id} of somebody else is gone");
    }
    if !matches!(report.outcome, RescanOutcome::Unchanged | RescanOutcome::Published) {
        return;
    }
    let ours: Vec<_> = open.iter().map(|(_, id)| id).filter(|id| !strange.contains(id)).collect();
    if world.lost_begins.load(Ordering::SeqCst) && !ours.is_empty() {
        let listed = site.cache().unfinished_uploads(&world.engine, &*world.backend()).unwrap();
        let named = |id: &String| listed.iter().any(|one| one.upload_id.as_ref() == Some(id) && !one.certain);
        assert!(ours.into_iter().all(named), "I4: {open:?} are left, {listed:?} listed");
    } else {
        assert!(ours.len() as u64 <= report.open_uploads, "I4: {ours:?} are left");
    }
}

/// I6, and the other half of I2: after a good outcome the store equals the tree; after any other, each difference is
/// pending or reported.
fn outcome_is_the_truth(world: &World, site: &RescanOrchestrator, report: &RescanReport) {
    let cache = site.cache();
    let objects = world.objects();
    let differing: Vec<_> = files_below(&world.root())
        .into_iter()
        .filter(|(key, bytes)| objects.get(key) != Some(bytes))
        .filter(|(key, _)| !report.skipped.iter().any(|skip| Path::new(key).starts_with(&skip.path)))
        .map(|(key, _)| key)
        .collect();
    match report.outcome {
        RescanOutcome::Unchanged | RescanOutcome::Published => {
            nothing_gone_is_left(world, report);
            assert!(differing.is_empty(), "I6: {:?} although {differing:?} differ", report.outcome);
            assert!(cache.is_synced().unwrap() && report.pending == 0 && report.failed.is_empty());
        }
        _ => {
            let pending: BTreeSet<_> = cache.pending().unwrap().into_iter().map(|file| file.key).collect();
            let failed: BTreeSet<_> = report.failed.iter().filter_map(|error| error.key()).collect();
            for key in differing {
                let known = pending.contains(&key) || failed.contains(key.as_str());
                assert!(known || report.stop_reason.is_some(), "I2, I6: {key} differs and nobody says so");
            }
            assert!(!cache.is_synced().unwrap());
        }
    }
}

/// Checks that after a good outcome every object has its file, belongs to others, or was reported as kept.
fn nothing_gone_is_left(world: &World, report: &RescanReport) {
    let (files, strangers) = (files_below(&world.root()), world.strangers.lock().unwrap());
    for key in world.keys() {
        let kept = report.kept.iter().any(|kept| kept.key == key);
        assert!(files.contains_key(&key) || strangers.contains_key(&key) || kept, "I6: {key} was left");
    }
}

/// I7: no log record of any crate, no event and no report contains a secret.
fn no_secret_is_seen(world: &World, report: &RescanReport) {
    assert_eq!(logs::leaks(), Vec::<String>::new(), "I7");
    let seen = format!("{:?} {report:?}", world.events.lock().unwrap());
    assert_eq!(logs::leak_in(&seen), None, "I7");
}

/// I5: a rescan of an unchanged tree without racy stats sends nothing, reads nothing, commits nothing.
pub fn check_idle(world: &World, site: &RescanOrchestrator) {
    world.let_files_settle();
    site.rescan().unwrap();
    let (requests, connections) = (world.proxy.requests().len(), world.proxy.connections());
    let report = site.rescan().unwrap();
    let nameless = report.failed.iter().all(|error| error.kind() == ErrorKind::InvalidKey);
    let expected = if report.failed_count > 0 { RescanOutcome::Partial } else { RescanOutcome::Unchanged };
    assert!(report.outcome == expected && nameless, "I5: {report:?}");
    assert_eq!(report.metrics.requests + report.metrics.bytes_hashed + report.metrics.commits, 0, "I5");
    assert_eq!((world.proxy.requests().len(), world.proxy.connections()), (requests, connections), "I5");
    check(world, site, &report);
}
