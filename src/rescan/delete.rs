//! The deletes of a run: marked as attempted, looked at once more, sent, recorded.

pub(crate) mod evidence;
pub(crate) mod guard;
mod obstacles;

use crate::backend::adapter;
use crate::key::RemoteKey;
use crate::rescan::context::{Context, given_up, panicked};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::backend::Deleted;
use crate::engine::batch_queue::BatchQueue;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::event::Event;
use crate::rescan::delete::guard::Refusal;
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::dispatch::attempts::{Attempts, Wanted};
use crate::rescan::plan::Plan;
use crate::rescan::report::{RescanReport, StopReason};
use crate::state::records::{Pending, PendingKind};
use crate::state::store::Write;
use crate::tree::folder::{Folder, file_type, is_absent};

/// What was pending for the keys of a request, before they were marked, and what became of them.
type Request = (HashMap<String, Pending>, Deleted);

impl Dispatcher<'_> {
    /// Deletes everything that is pending to be deleted.
    pub(crate) fn delete(&mut self, report: &mut RescanReport) {
        let results = BatchQueue::new();
        let cache = self.cache;
        let (mut rows, mut in_flight) = (Attempts::new(cache, PendingKind::Removed), 0);
        loop {
            // The first request of a run goes alone, also where it is a delete.
            let most = if self.tally.reached { self.window() } else { 1 };
            while in_flight < most {
                let Some(wanted) = self.fed(|flow| flow.next_deletes(&mut rows, report)) else {
                    break;
                };
                let context = self.context.clone();
                results.submit(self.engine, move || {
                    let keys: Vec<_> = wanted.iter().map(|wanted| wanted.key.clone()).collect();
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

    /// Says why nothing is deleted, where that is news.
    pub(crate) fn refuse_deletes(
        &mut self,
        refusal: Refusal,
        plan: &Plan,
        root: &Path,
        report: &mut RescanReport,
    ) {
        let waiting = match refusal {
            Refusal::NothingToDelete | Refusal::Stopped => return,
            Refusal::Blocked => "something could not be read",
            Refusal::UploadsFailed => "uploads failed, and what is published may still refer to what is gone",
            Refusal::TooMany(refused) => {
                self.stop(StopReason::DeletesRefused);
                report.deletes_refused = Some(refused);
                self.context.session.trace.warn(
                    "too many files are gone: nothing was deleted; look at the tree, and set max_delete if that is right",
                    &[("why", &refused), ("gone", &refused.removed), ("published", &refused.published)],
                );
                return;
            }
            Refusal::RootReplaced => {
                let why = "another folder, or none, has taken the root's place during the run: nothing was \
                    deleted; the next rescan looks at what is there now";
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

    /// The keys of the next request. Should their files come back after a crash, or after an answer that was
    /// lost, they are sent again.
    fn next_deletes(
        &mut self,
        rows: &mut Attempts<'_>,
        report: &mut RescanReport,
    ) -> Result<Option<Vec<Wanted>>, StorageError> {
        self.look_for_stop();
        let mut wanted = Vec::new();
        while !self.tally.is_stopped() && wanted.len() < self.limits.delete_chunk {
            let Some(next) = rows.next_marked(|key, _| self.may_be_deleted(key, report))? else { break };
            wanted.push(next);
        }
        Ok((!wanted.is_empty()).then_some(wanted))
    }

    /// The last look before a delete: this cache published it (its record's checksum holds), and no
    /// file of its name is there. What cannot be looked at is a failure, and is not deleted.
    fn may_be_deleted(&mut self, key: &str, report: &mut RescanReport) -> Result<bool, StorageError> {
        let is_ours = self.cache.published_record(key)?.is_some();
        let is_its_turn = self.only.as_ref().is_none_or(|only| only.contains(key));
        // The disk is not asked about what is not deleted anyway.
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

    fn settle_deletes(&mut self, (mut before, results): Request, report: &mut RescanReport) {
        let (mut writes, mut told) = (Vec::new(), false);
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
            let pending = before.remove(&key).filter(|before| !before.attempted);
            if let Some(pending) = pending.filter(|_| !error.may_have_taken_effect()) {
                writes.push(Write::Pending(key.clone(), pending));
            }
            if self.not_tried(&error) {
                continue;
            }
            trace.metrics.deletes_failed(1);
            trace.emit(|| Event::delete_failed(key, &error));
            self.tally.failed_deletes += 1;
            // However many keys an answer names, it is one outage.
            if error.kind().is_transient() && std::mem::replace(&mut told, true) {
                report.add_failed(error);
            } else {
                self.judge(error, report);
            }
        }
        self.recorder.record(writes);
    }
}

/// Whether no file of this very name is there. A file system that ignores case finds another one by it.
fn is_gone(root: &Folder, key: &Path) -> Result<bool, StorageError> {
    let looked = match root.stat(key) {
        Ok(stat) if file_type(&stat).is_dir() => Ok(true),
        Ok(_) => root.lists(key).map(|listed| !listed),
        Err(error) if is_absent(error) => Ok(true),
        Err(error) => Err(error),
    };
    looked.map_err(|error| {
        let path = root.path().join(key);
        StorageError::io(ErrorKind::SourceUnreadable, Operation::Delete, &path, error.into())
    })
}

/// Deletes keys. Never panics; one result for each key.
fn delete_keys(context: &Context, keys: &[RemoteKey]) -> Deleted {
    let exchange = context.exchange();
    if context.is_offline() {
        return keys.iter().map(|key| (key.clone(), Err(given_up(Operation::Delete)))).collect();
    }
    let attempt =
        catch_unwind(AssertUnwindSafe(|| adapter::delete_many(&*context.session.backend, &exchange, keys)));
    let failed = |error: &dyn Fn() -> StorageError| {
        keys.iter().map(|key| (key.clone(), Err(error().with_key(key.as_str())))).collect()
    };
    match attempt {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => failed(&|| error.repeated()),
        Err(panic) => failed(&|| panicked(Operation::Delete, &*panic)),
    }
}
