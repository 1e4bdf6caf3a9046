//! Verification: what the store lists, and on request holds, compared with what it acknowledged.

mod contents;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::backend::pagination::Pages;
use crate::backend::{Listed, StorageBackend, Transfers};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::config::Verify;
use crate::rescan::context::panicked;
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
    /// Compares what the store lists under the prefix with what it acknowledged; with [`Verify::Content`]
    /// every published object is downloaded and hashed, too, by all workers. What is missing or different
    /// counts as not published from then on, and the next rescan publishes it.
    ///
    /// Of `run` the cancel token, the deadline, the verification, the observer and the progress are used.
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if the cache belongs to another destination, [`ErrorKind::CacheLocked`] while a
    /// rescan of this process uses it, [`ErrorKind::Unsupported`] for a backend that cannot list, those of the
    /// cache and those of the store. What single objects had is in the report; also what ended the comparison
    /// after something was found, which is then not [`complete`](VerifyReport::complete).
    pub fn verify(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        engine.refuse_own_worker()?;
        let _lock = self.lock()?;
        let all = || self.verify_locked(engine, backend, run);
        // No panic of a backend's getters, or of ours, crosses into the host.
        catch_unwind(AssertUnwindSafe(all)).unwrap_or_else(|panic| Err(panicked(Operation::List, &*panic)))
    }

    fn verify_locked(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        let destination = backend.destination();
        let binding = self.bind(&destination)?;
        if let Some(binding) = binding.filter(|_| !self.is_read_only()) {
            self.apply(&[binding])?;
        }
        let trace = engine.trace().for_run(run.observer.clone(), run.progress.clone());
        let session = Session::new(engine, backend, &trace, run, engine.clock().now());
        let mut report = VerifyReport::default();
        let compared = compare(engine, &Arc::new(session), self, run.verify, &mut report);
        if let Err(error) = catalog::follow(self, engine.clock().wall()) {
            report.add_failed(error);
        }
        match compared {
            Err(error) if report.is_empty() || error.is_about_the_cache() => Err(error),
            Err(error) => {
                report.add_failed(error);
                Ok(report)
            }
            Ok(()) => Ok(report),
        }
    }
}

/// The verification at the end of a rescan; a run that is stopped meanwhile says so.
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

/// Lists the prefix and compares it with the cache, then the contents, if that is asked for. What was found
/// before an error is in the report and in the cache.
pub(crate) fn compare(
    engine: &Engine,
    session: &Arc<Session>,
    cache: &CacheManager,
    how: Verify,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let Some(transfers) = session.backend.transfers() else {
        let why = "this backend cannot list; use Verify::Ack";
        return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, why));
    };
    let mut findings = Findings { cache, unrecorded: HashSet::new() };
    let seen = listed(transfers, session, &mut findings, report)?;
    lacking(&mut findings, &seen, report)?;
    drop(seen);
    if how == Verify::Content {
        contents::announce(session, &findings)?;
        contents::compare(engine, session, &mut findings, report)?;
    }
    report.complete = true;
    Ok(())
}

/// What a verification finds goes into the cache; beside one that is open for reading only it is kept for as long as
/// the verification takes.
pub(crate) struct Findings<'a> {
    pub(crate) cache: &'a CacheManager,
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

    /// A published object whose record is believed. Of the others it is known that they are to be published anew.
    pub(crate) fn believed(&self, row: Row) -> Option<(String, Published)> {
        let Row { key, published, pending, .. } = row;
        let attempted = pending.is_some_and(|pending| pending.attempted) || self.unrecorded.contains(&key);
        published.filter(|_| !attempted).map(|published| (key, published))
    }
}

/// Keys that were listed, as hashes: 16 bytes a key, whatever its length.
struct Seen {
    hasher: (RandomState, RandomState),
    hashes: HashSet<(u64, u64)>,
}

impl Seen {
    fn hash(&self, key: &str) -> (u64, u64) {
        (self.hasher.0.hash_one(key), self.hasher.1.hash_one(key))
    }
}

fn listed(
    transfers: &dyn Transfers,
    session: &Session,
    findings: &mut Findings<'_>,
    report: &mut VerifyReport,
) -> Result<Seen, StorageError> {
    let mut seen = Seen { hasher: (RandomState::new(), RandomState::new()), hashes: HashSet::new() };
    let (mut from, mut pages) = (None, Pages::new());
    loop {
        let page = transfers.list(&session.exchange(), from.as_deref())?;
        pages.follow(page.next.as_ref(), page.objects.iter().map(|object| object.key.as_str()))?;
        let mut writes = Vec::new();
        for object in page.objects {
            let (published, pending) = findings.cache.records(&object.key)?;
            if published.is_none() && pending.is_none() {
                report.add_unknown(object.key);
                continue;
            }
            let news = seen.hashes.insert(seen.hash(&object.key));
            if !news {
                let what = "the listing names a key twice";
                return Err(StorageError::new(ErrorKind::Protocol, Operation::List, what)
                    .with_key(object.key)
                    .retryable(false));
            }
            match published {
                None => report.add_unknown(object.key),
                Some(published) => writes.extend(compared(object, &published, pending, report)),
            }
        }
        findings.record(&writes)?;
        from = page.next;
        if from.is_none() {
            return Ok(seen);
        }
    }
}

/// What a listed object that was published means, and what is to be recorded of it.
fn compared(
    object: Listed,
    published: &Published,
    pending: Option<Pending>,
    report: &mut VerifyReport,
) -> Option<Write> {
    let tags = object.etag.as_deref().map(|tag| tag.trim_matches('"')).zip(published.etag.as_deref());
    if object.size != published.stat.size || tags.is_some_and(|(listed, given)| listed != given) {
        report.add_different(object.key.clone());
        return Some(lost(object.key, published, pending));
    }
    match pending {
        // Nothing is to be done for it, and here it is, as it was.
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

fn lacking(findings: &mut Findings<'_>, seen: &Seen, report: &mut VerifyReport) -> Result<(), StorageError> {
    let mut writes = Vec::new();
    for row in findings.cache.rows() {
        let Row { key, published, pending, .. } = row?;
        if seen.hashes.contains(&seen.hash(&key)) {
            continue;
        }
        let kind = pending.as_ref().map(|pending| pending.kind);
        match published {
            // Its file is gone, and so is its object.
            _ if matches!(kind, Some(PendingKind::Removed | PendingKind::Unsettled)) => {
                writes.push(Write::Deleted(key));
            }
            Some(published) => {
                report.add_missing(key.clone());
                writes.push(lost(key, &published, pending));
            }
            None => {}
        }
        if writes.len() == WRITES_AT_ONCE {
            findings.record(&std::mem::take(&mut writes))?;
        }
    }
    findings.record(&writes)
}

/// A published object that is not there as it was acknowledged: its record is not believed any more, and stays
/// until it is published again.
pub(crate) fn lost(key: String, published: &Published, pending: Option<Pending>) -> Write {
    let on_disk = pending.unwrap_or(Pending {
        kind: PendingKind::Modified,
        stat: published.stat,
        settled: published.settled,
        digest: Some(published.digest),
        attempted: true,
    });
    Write::Pending(key, Pending { attempted: true, ..on_disk })
}
