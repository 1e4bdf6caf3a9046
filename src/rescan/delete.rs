//! The deletes of a run. Each key is marked as attempted, checked once more, deleted, and recorded.

pub(crate) mod evidence;
pub(crate) mod guard;
pub(crate) mod leftovers;
mod obstacles;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::backend::{Condition, Deleted, adapter};
use crate::engine::batch_queue::BatchQueue;
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::conditional_writes::after_late_landing;
use crate::rescan::bucket_state::write_guard::KeyFence;
use crate::rescan::context::{Context, given_up};
use crate::rescan::delete::guard::Refusal;
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::dispatch::attempts::{Attempts, Wanted};
use crate::rescan::plan::Plan;
use crate::rescan::report::{RescanReport, StopReason};
use crate::state::records::{Pending, PendingKind};
use crate::state::store::Write;
use crate::tree::folder::{Folder, file_type, is_absent};

/// A key to be deleted, and on which condition.
type ToDelete = (Wanted, (RemoteKey, Condition));

/// The pending records of a request's keys from before they were marked, and the result of each key.
type DeleteResults = (HashMap<String, Pending>, Deleted);

impl Dispatcher<'_> {
    /// Deletes every object that is pending to be deleted.
    pub(crate) fn delete(&mut self, report: &mut RescanReport) {
        let results = BatchQueue::new();
        let _end = results.wait_at_end();
        // Dropped first: what still waits for a worker sends nothing after a panic.
        let _stop = self.stop_on_panic();
        let cache = self.cache;
        let (mut rows, mut in_flight) = (Attempts::new(cache, PendingKind::Removed), 0);
        loop {
            // The first request of a run is sent alone, also if it is a delete: it may show that all would fail.
            let most = if self.tally.reached { self.window() } else { 1 };
            while in_flight < most {
                let Some(wanted) = self.fed(|dispatcher| dispatcher.next_deletes(&mut rows, report)) else {
                    break;
                };
                let context = self.context.clone();
                results.submit(self.engine, move || {
                    let (wanted, keys): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
                    let before = |wanted: Wanted| (wanted.key.into_string(), wanted.pending);
                    let before = wanted.into_iter().map(before).collect();
                    (before, delete_keys(&context, &keys))
                });
                in_flight += 1;
            }
            if in_flight == 0 {
                self.recorder.record(rows.unmark());
                return;
            }
            for deleted in self.wait(&results, in_flight) {
                in_flight -= 1;
                self.settle_deletes(deleted, report);
            }
        }
    }

    /// Logs or reports why nothing is deleted, unless the run has said so already.
    pub(crate) fn refuse_deletes(
        &mut self,
        refusal: Refusal,
        plan: &Plan,
        root: &Path,
        report: &mut RescanReport,
    ) {
        let waiting = match refusal {
            // Nothing to say, or the stop reason says it.
            Refusal::NothingToDelete | Refusal::Stopped => return,
            Refusal::Blocked => "part of the tree could not be read",
            Refusal::Unverified => {
                "the cache was copied, and its records could not be compared with the objects"
            }
            Refusal::UploadsFailed => {
                "some uploads failed, and published files may still refer to the deleted ones"
            }
            Refusal::TooMany(refused) => {
                self.stop(StopReason::DeletesRefused);
                report.deletes_refused = Some(refused);
                self.context.session.trace.warn(
                    "too many files are gone: nothing was deleted; check the tree, and set max_delete if the deletes \
                     are intended",
                    &[("why", &refused), ("gone", &refused.removed), ("published", &refused.published)],
                );
                return;
            }
            Refusal::RootReplaced => {
                let why = "the root was removed or replaced during the run: nothing was deleted; \
                    the next rescan reads the tree that is there now";
                let error = StorageError::new(ErrorKind::SourceChanged, Operation::Rescan, why);
                report.add_failed(error.with_path(root));
                return;
            }
        };
        self.context.session.trace.warn(
            "deletes wait for a run without errors",
            &[("pending_deletes", &plan.removed), ("reason", &waiting)],
        );
    }

    /// Returns the keys of the next request, marked as attempted. If a file comes back after a crash or a lost
    /// response, the mark makes the next run upload it again.
    fn next_deletes(
        &mut self,
        rows: &mut Attempts<'_>,
        report: &mut RescanReport,
    ) -> Result<Option<Vec<ToDelete>>, StorageError> {
        self.look_for_stop();
        let mut wanted = Vec::new();
        while !self.tally.is_stopped() && wanted.len() < self.limits.delete_chunk {
            let Some(next) = rows.next_marked(|key, _| self.may_be_deleted(key, report))? else { break };
            let condition = match &self.context.shared {
                Some(shared) => {
                    let there = self.cache.published_record(next.key.as_str())?;
                    shared.condition_of(next.key.as_str(), there.as_ref())
                }
                None => Condition::None,
            };
            let key = next.key.clone();
            wanted.push((next, (key, condition)));
        }
        Ok((!wanted.is_empty()).then_some(wanted))
    }

    /// The last check before a delete: this cache published the object (its record's checksum is good), and no file
    /// has its key. If the disk cannot be checked, that is a failure and nothing is deleted.
    fn may_be_deleted(&mut self, key: &str, report: &mut RescanReport) -> Result<bool, StorageError> {
        let is_ours = self.cache.published_record(key)?.is_some();
        let is_its_turn = self.only.as_ref().is_none_or(|only| only.contains(key));
        // No need to check the disk for a key that is not deleted anyway.
        if !guard::may_be_deleted(is_ours, is_its_turn, true) {
            return Ok(false);
        }
        let is_gone = is_gone(&self.context.root, Path::new(key)).unwrap_or_else(|error| {
            self.tally.failed_deletes += 1;
            report.add_failed(error.with_key(key));
            false
        });
        Ok(guard::may_be_deleted(is_ours, is_its_turn, is_gone))
    }

    fn settle_deletes(&mut self, (mut before, results): DeleteResults, report: &mut RescanReport) {
        let (mut writes, mut outage_counted) = (Vec::new(), false);
        let context = self.context.clone();
        let trace = &context.session.trace;
        for (key, result) in results {
            let key = key.into_string();
            let Err(error) = result else {
                trace.metrics.deletes(1);
                trace.progress.delete_done();
                trace.emit(|| Event::Deleted { key: key.clone() });
                self.succeeded(report);
                report.add_deleted(key.clone());
                writes.push(Write::Deleted(key));
                continue;
            };
            // A request that certainly did nothing leaves the record as it was, without the mark.
            let pending = before.remove(&key).filter(|before| !before.attempted);
            if let Some(pending) = pending.filter(|_| !error.may_have_taken_effect()) {
                writes.push(Write::Pending(key.clone(), pending));
            }
            // The object is somebody else's now: it is no longer ours to delete.
            if is_conflict(Some(&error)) {
                writes.push(Write::Deleted(key.clone()));
            }
            // The key stays pending, and the run's stop reason says why.
            if self.not_tried(&error) {
                continue;
            }
            trace.metrics.deletes_failed(1);
            trace.emit(|| Event::delete_failed(key, &error));
            self.tally.failed_deletes += 1;
            // A failed request counts as one outage, however many keys it had.
            if error.kind().is_transient() && std::mem::replace(&mut outage_counted, true) {
                report.add_failed(error);
            } else {
                self.apply_failure(error, report);
            }
        }
        self.recorder.record(writes);
    }
}

/// Returns true if no file has exactly this name. A case-insensitive file system also finds a file whose name differs
/// in case.
pub(crate) fn is_gone(root: &Folder, key: &Path) -> Result<bool, StorageError> {
    let is_gone = match root.stat(key) {
        // A folder in its place is not the file that was published.
        Ok(stat) if file_type(&stat).is_dir() => Ok(true),
        Ok(_) => root.lists_exactly(key).map(|listed| !listed),
        Err(error) if is_absent(error) => Ok(true),
        Err(error) => Err(error),
    };
    is_gone.map_err(|error| {
        let path = root.path().join(key);
        StorageError::io(ErrorKind::SourceUnreadable, Operation::Delete, &path, error.into())
    })
}

/// Deletes keys and returns one result for each. Never panics.
fn delete_keys(context: &Context, keys: &[(RemoteKey, Condition)]) -> Deleted {
    if context.is_offline() {
        return keys.iter().map(|(key, _)| (key.clone(), Err(given_up(Operation::Delete)))).collect();
    }
    let attempt = catch_unwind(AssertUnwindSafe(|| send_deletes(context, keys)));
    // Without an answer for single keys, each key has the request's error.
    let failed = |error: &dyn Fn() -> StorageError| {
        keys.iter().map(|(key, _)| (key.clone(), Err(error().with_key(key.as_str())))).collect()
    };
    match attempt {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => failed(&|| error.repeated()),
        Err(panic) => failed(&|| panicked(Operation::Delete, &*panic)),
    }
}

fn is_conflict(error: Option<&StorageError>) -> bool {
    error.is_some_and(|error| error.kind() == ErrorKind::Conflict)
}

/// Sends the deletes of these keys, under the claim where the state lies in the bucket.
fn send_deletes(context: &Context, keys: &[(RemoteKey, Condition)]) -> Result<Deleted, StorageError> {
    let backend = &*context.session.backend;
    let Some(shared) = &context.shared else {
        return adapter::delete_many(backend, &context.request_context(), keys);
    };
    let names: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
    let fence = KeyFence { guard: &shared.guard, keys: &names };
    let request_context = RequestContext { fence: Some(&fence), ..context.request_context() };
    let (mut results, keys) = shared.proved(&request_context, backend, keys)?;
    if !keys.is_empty() {
        results.extend(adapter::delete_many(backend, &request_context, &keys)?);
    }
    let is_conflict = |result: &Result<(), StorageError>| matches!(result, Err(error) if error.kind() == ErrorKind::Conflict);
    // It is a conflict only while the claim is ours: else the run that took over has changed them.
    if results.iter().any(|(_, result)| is_conflict(result))
        && let Err(error) = shared.check_still_ours(Operation::Delete)
    {
        for (_, result) in results.iter_mut().filter(|(_, result)| is_conflict(result)) {
            *result = Err(error.repeated());
        }
        return Ok(results);
    }
    for (key, result) in results.iter_mut().filter(|(_, result)| is_conflict(result)) {
        if let Some(condition) = after_late_landing(shared, context, key)? {
            let again = adapter::delete_many(backend, &request_context, &[(key.clone(), condition)])?;
            *result = again.into_iter().next().map_or(Ok(()), |(_, result)| result);
        }
    }
    Ok(results)
}
