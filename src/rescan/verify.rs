//! Verification: compares the store's listing, and on request the contents, with what the store acknowledged.
//!
//! # Architecture
//! - [`CacheManager::verify`]: the entry for hosts. It takes the cache's lock.
//! - [`after_run`]: the entry for a rescan, which holds the lock already.
//! - [`compare`] does the work on the calling thread: [`compare_listing`] page by page, then [`find_missing`] over the
//!   cache, then [`contents`], which downloads objects on the engine's workers.
//! - [`Seen`]: the hashes of all listed keys, owned by the calling thread and dropped before the downloads.
//! - [`Findings`]: writes what was found to the cache. Only the calling thread uses it; workers return results.

mod contents;
pub(crate) mod recheck;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::backend::pagination::Pages;
use crate::backend::{Listed, StorageBackend, Transfers};
use crate::engine::Engine;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::is_reserved;
use crate::rescan::config::Verify;
use crate::rescan::options::Run;
use crate::rescan::report::{RescanReport, StopReason, VerifyReport};
use crate::rescan::session::Session;
use crate::state::cache::CacheManager;
use crate::state::catalog;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::Row;
use crate::state::store::Write;

/// Changes recorded in one transaction.
const WRITES_AT_ONCE: usize = 4096;

impl CacheManager {
    /// Compares the objects under the prefix with what the store acknowledged. With [`Verify::Content`] the engine's
    /// workers also download and hash every published object. Missing and different objects count as not published
    /// from then on, and the next rescan publishes them.
    ///
    /// Only the cancel token, the deadline, the verification, the observer and the progress of `run` are used.
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if the cache belongs to another destination, [`ErrorKind::CacheLocked`] while a
    /// rescan of this process uses it, [`ErrorKind::Unsupported`] for a backend that cannot list, those of the
    /// cache and those of the store. Errors of single objects are in the report. So is an error that ends the
    /// comparison after something was found; the report is then not [`complete`](VerifyReport::complete).
    pub fn verify(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        engine.refuse_own_worker()?;
        let _lock = self.lock()?;
        let all = || self.verify_locked(engine, backend, run);
        caught(Operation::List, all)
    }

    fn verify_locked(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        let destination = backend.destination();
        let binding = self.bind(&destination)?;
        // A cache that was never used is bound now, unless it is open for reading only.
        if let Some(binding) = binding.filter(|_| !self.is_read_only()) {
            self.apply(&[binding])?;
        }
        let trace = engine.trace().for_run(run.observer.clone(), run.progress.clone());
        let session = Session::new(engine, backend, &trace, run, engine.clock().now());
        let mut report = VerifyReport::default();
        let compared = compare(engine, &Arc::new(session), self, run.verify, &mut report);
        // Readers of the catalog must see what was found missing, also if the comparison failed.
        if let Err(error) = catalog::follow(self, engine.clock().wall()) {
            report.add_failed(error);
        }
        match compared {
            // Nothing was found: the caller gets the error itself, not an empty report.
            Err(error) if report.is_empty() || error.is_about_the_cache() => Err(error),
            Err(error) => {
                report.add_failed(error);
                Ok(report)
            }
            Ok(()) => Ok(report),
        }
    }
}

/// Verifies at the end of a rescan. Returns the stop reason if the run was stopped meanwhile.
pub(crate) fn after_run(
    engine: &Engine,
    session: &Session,
    cache: &CacheManager,
    how: Verify,
    report: &mut RescanReport,
) -> Result<Option<StopReason>, StorageError> {
    let found = report.verified.insert(VerifyReport::default());
    match compare(engine, &Arc::new(session.clone()), cache, how, found) {
        Ok(()) => Ok(None),
        Err(error) if error.is_about_the_cache() => Err(error),
        Err(error) => {
            let stop = StopReason::of(&error).or(match error.kind() {
                ErrorKind::Credentials => Some(StopReason::Credentials),
                kind if kind.is_transient() && error.is_retryable() => Some(StopReason::Unavailable),
                _ => None,
            });
            if !error.is_not_tried() {
                report.add_failed(error);
            }
            Ok(stop)
        }
    }
}

/// Compares the listing with the cache, then the contents if `how` asks for it. Findings from before an error are in
/// the report and in the cache.
pub(crate) fn compare(
    engine: &Engine,
    session: &Arc<Session>,
    cache: &CacheManager,
    how: Verify,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let Some(transfers) = session.backend.transfers() else {
        let why = "this backend cannot list objects, so nothing can be verified; use Verify::Ack";
        return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, why));
    };
    let mut findings = Findings { cache, unrecorded: HashSet::new() };
    let seen = compare_listing(transfers, session, &mut findings, report)?;
    find_missing(&mut findings, &seen, report)?;
    // Up to 16 bytes a key, which the downloads do not need.
    drop(seen);
    if how == Verify::Content {
        contents::plan_progress(session, &findings)?;
        contents::compare(engine, session, &mut findings, report)?;
    }
    report.complete = true;
    Ok(())
}

/// Records what a verification finds in the cache. If the cache is open for reading only, the findings are kept in
/// memory until the verification ends.
pub(crate) struct Findings<'a> {
    pub(crate) cache: &'a CacheManager,
    /// Keys found missing or different that cannot be recorded.
    unrecorded: HashSet<String>,
}

impl Findings<'_> {
    pub(crate) fn record(&mut self, writes: &[Write]) -> Result<(), StorageError> {
        if !self.cache.is_read_only() {
            return self.cache.apply(writes);
        }
        let lost = writes.iter().filter_map(|write| match write {
            Write::Pending(key, _) => Some(key.clone()),
            _ => None,
        });
        self.unrecorded.extend(lost);
        Ok(())
    }

    /// Returns the published record if it is trusted and can be verified. Other keys are to be published again anyway, or
    /// have a reserved name.
    pub(crate) fn trusted_record(&self, row: Row) -> Option<(String, Published)> {
        let Row { key, published, pending, .. } = row;
        let attempted = pending.is_some_and(|pending| pending.attempted) || self.unrecorded.contains(&key);
        // Of an object that was taken over unread, no content is known.
        let known =
            published.filter(|there| !attempted && !is_reserved(&key) && there.known_digest().is_some());
        known.map(|published| (key, published))
    }
}

/// The listed keys as hashes: 16 bytes for each key, however long it is.
struct Seen {
    hasher: (RandomState, RandomState),
    hashes: HashSet<(u64, u64)>,
}

impl Seen {
    fn hash(&self, key: &str) -> (u64, u64) {
        (self.hasher.0.hash_one(key), self.hasher.1.hash_one(key))
    }
}

/// Lists the prefix page by page and compares each object with the cache. Returns the listed keys.
fn compare_listing(
    transfers: &dyn Transfers,
    session: &Session,
    findings: &mut Findings<'_>,
    report: &mut VerifyReport,
) -> Result<Seen, StorageError> {
    let mut seen = Seen { hasher: (RandomState::new(), RandomState::new()), hashes: HashSet::new() };
    let (mut from, mut pages) = (None, Pages::new());
    loop {
        let page = transfers.list(&session.request_context(), from.as_deref())?;
        pages.follow(page.next.as_ref(), page.keys())?;
        let mut writes = Vec::new();
        for object in page.objects {
            let (published, pending) = findings.cache.records(&object.key)?;
            if published.is_none() && pending.is_none() {
                report.add_unknown(object.key);
                continue;
            }
            let is_new = seen.hashes.insert(seen.hash(&object.key));
            if !is_new {
                let what = "the store's listing contains this key twice";
                return Err(StorageError::new(ErrorKind::Protocol, Operation::List, what)
                    .with_key(object.key)
                    .retryable(false));
            }
            match published {
                // Pending only: an upload without a response may have stored it.
                None => report.add_unknown(object.key),
                Some(published) => writes.extend(compare_object(object, &published, pending, report)),
            }
        }
        findings.record(&writes)?;
        from = page.next;
        if from.is_none() {
            return Ok(seen);
        }
    }
}

/// Compares a listed object with its published record. Returns the record to write, if there is one.
fn compare_object(
    object: Listed,
    published: &Published,
    pending: Option<Pending>,
    report: &mut VerifyReport,
) -> Option<Write> {
    let tags = object.etag.as_deref().map(|tag| tag.trim_matches('"')).zip(published.etag.as_deref());
    if object.size != published.stat.size || tags.is_some_and(|(listed, given)| listed != given) {
        report.add_different(object.key.clone());
        return Some(mark_lost(object.key, published, pending));
    }
    match pending {
        // A delete without a response was not carried out, and the object is as it was: nothing is left to settle.
        Some(Pending { kind: PendingKind::Unsettled, .. }) => {
            report.matching += 1;
            Some(Write::Settled(object.key))
        }
        Some(pending) if pending.attempted => {
            report.add_unsettled(object.key);
            None
        }
        _ => {
            report.matching += 1;
            report.sizes_only += u64::from(tags.is_none());
            None
        }
    }
}

/// Finds published keys that were not listed.
fn find_missing(
    findings: &mut Findings<'_>,
    seen: &Seen,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let mut writes = Vec::new();
    for row in findings.cache.rows() {
        let Row { key, published, pending, .. } = row?;
        // A listing leaves out reserved names, which earlier versions may have published.
        if is_reserved(&key) || seen.hashes.contains(&seen.hash(&key)) {
            continue;
        }
        let kind = pending.as_ref().map(|pending| pending.kind);
        match published {
            // The file is gone, and so is the object: nothing is left to do.
            _ if matches!(kind, Some(PendingKind::Removed | PendingKind::Unsettled)) => {
                writes.push(Write::Deleted(key));
            }
            Some(published) => {
                report.add_missing(key.clone());
                writes.push(mark_lost(key, &published, pending));
            }
            None => {}
        }
        if writes.len() == WRITES_AT_ONCE {
            findings.record(&std::mem::take(&mut writes))?;
        }
    }
    findings.record(&writes)
}

/// Returns the write that marks a published object as missing or different: its record is not trusted until it is
/// published again.
pub(crate) fn mark_lost(key: String, published: &Published, pending: Option<Pending>) -> Write {
    let on_disk = pending.unwrap_or(Pending {
        kind: PendingKind::Modified,
        stat: published.stat,
        not_racy: published.not_racy,
        digest: published.known_digest(),
        attempted: true,
    });
    Write::Pending(key, Pending { attempted: true, ..on_disk })
}
