//! The flow of work through the engine: what is pending goes in, what was recorded comes out. The
//! caller's thread feeds and waits; workers never wait for each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::batch::Batches;
use super::cache::{CacheManager, Row, Rows, Write};
use super::mailbox::Mailbox;
use super::plan::is_absent;
use super::record::{Pending, PendingKind};
use super::recorder::Recorder;
use super::report::{RescanReport, StopReason};
use super::work::{self, Context, Ending, Item, Worked};
use crate::backend::Deleted;
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;

/// Files in a row that found the store not working, before any was taken, after which the rest is
/// not tried.
const OUTAGES_AT_FIRST: u64 = 3;
/// Deletes noted in one transaction: what one request of S3 deletes.
const DELETES_MARKED_AT_ONCE: usize = 1000;
/// How often the feeding thread looks at what has waited for its batch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many are in flight, and what is to be known of the store.
pub(crate) struct Limits {
    pub(crate) batch_size: usize,
    pub(crate) delete_chunk: usize,
    /// During an outage files are hashed all the same: URLs lead to a fallback.
    pub(crate) has_fallback: bool,
}

/// One run's uploads and deletes.
pub(crate) struct Flow<'a> {
    engine: &'a Engine,
    context: Arc<Context>,
    cache: &'a CacheManager,
    recorder: &'a Recorder,
    limits: Limits,
    batches: Batches,
    parked: VecDeque<Item>,
    pub(crate) tally: Tally,
}

/// What became of the work so far.
#[derive(Default)]
pub(crate) struct Tally {
    /// Files that the store took, and objects that it deleted.
    pub(crate) done: u64,
    pub(crate) confirmed: u64,
    pub(crate) failed_uploads: u64,
    pub(crate) failed_deletes: u64,
    /// Failures that were the store's outage.
    pub(crate) outages: u64,
    outages_in_a_row: u64,
    pub(crate) stop: Option<StopReason>,
    /// Every other request would end like this one.
    pub(crate) fatal: Option<StorageError>,
}

impl Tally {
    pub(crate) fn stopped(reason: StopReason) -> Self {
        Self { stop: Some(reason), ..Self::default() }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some() || self.fatal.is_some()
    }
}

/// However a run ends, also by a panic: what still waits in the queue sends nothing any more.
impl Drop for Flow<'_> {
    fn drop(&mut self) {
        self.context.offline.store(true, Relaxed);
    }
}

impl<'a> Flow<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        context: Arc<Context>,
        cache: &'a CacheManager,
        recorder: &'a Recorder,
        limits: Limits,
    ) -> Self {
        let batches = Batches::new(limits.batch_size);
        let (parked, tally) = (VecDeque::new(), Tally::default());
        Self { engine, context, cache, recorder, limits, batches, parked, tally }
    }

    /// Files fed and not settled, at most: as many as a batch holds are worked on; where the pool is
    /// no larger than that, as many again wait before it, so that no worker ever does.
    fn window(&self) -> usize {
        let (batch, workers) = (self.limits.batch_size, self.engine.workers());
        if workers <= batch { batch + workers } else { batch }
    }

    /// Uploads everything of one kind that is pending, and returns when all of it is settled.
    pub(crate) fn upload(&mut self, kind: PendingKind, report: &mut RescanReport) {
        let results = Mailbox::new();
        let cache = self.cache;
        let (mut rows, mut in_flight) = (cache.pending_rows(), 0);
        loop {
            while in_flight + self.parked.len() < self.window() || self.may_unpark() {
                let Some(item) = self.fed(|flow| flow.next_item(kind, &mut rows)) else {
                    break;
                };
                self.start(item, &results);
                in_flight += 1;
            }
            if in_flight == 0 {
                break;
            }
            for worked in self.wait(&results, in_flight) {
                in_flight -= 1;
                self.settle_upload(worked, report);
            }
        }
        let rest = self.batches.rest();
        self.recorder.record(rest);
    }

    /// What is parked when the run stops stays pending, with what is known of it by now.
    fn unpark_for_good(&mut self) {
        let parked = self.parked.drain(..).map(|item| Write::Pending(item.key.into_string(), item.pending));
        self.recorder.record(parked.collect());
    }

    /// The next piece of work. An error of the cache ends the feeding, and what is in flight is waited
    /// for: no job outlives its run.
    fn fed<T>(&mut self, next: impl FnOnce(&mut Self) -> Result<Option<T>, StorageError>) -> Option<T> {
        match next(self) {
            Ok(next) => next,
            Err(error) => {
                self.tally.fatal.get_or_insert(error);
                None
            }
        }
    }

    fn may_unpark(&self) -> bool {
        !self.parked.is_empty() && !self.context.probe.is_probing() && !self.tally.is_stopped()
    }

    fn next_item(&mut self, kind: PendingKind, rows: &mut Rows<'_>) -> Result<Option<Item>, StorageError> {
        self.look_for_stop();
        if self.tally.is_stopped() {
            self.unpark_for_good();
            if !self.goes_on_hashing() {
                return Ok(None);
            }
        }
        let hash_only = self.tally.is_stopped();
        if self.may_unpark() {
            return Ok(self.parked.pop_front());
        }
        for row in rows {
            let Row { key, pending: Some(pending), .. } = row? else {
                continue;
            };
            if pending.kind != kind || (hash_only && pending.known().is_some()) {
                continue;
            }
            let published = match kind {
                PendingKind::Added => None,
                _ => self.cache.published_record(&key)?,
            };
            let batch = self.batches.assign();
            return Ok(Some(Item { key: RemoteKey::new(key)?, pending, published, batch, is_probe: false }));
        }
        Ok(None)
    }

    /// During an outage files are hashed all the same where URLs lead to a fallback.
    fn goes_on_hashing(&self) -> bool {
        self.limits.has_fallback
            && self.tally.stop == Some(StopReason::Unavailable)
            && self.tally.fatal.is_none()
            && self.context.exchange().check(Operation::Read).is_ok()
    }

    fn start(&self, item: Item, results: &Mailbox<(Worked, Pending)>) {
        let (context, results) = (self.context.clone(), results.clone());
        self.engine.submit(move || {
            let before = item.pending.clone();
            results.push((work::publish(&context, item), before));
        });
    }

    /// Results, as soon as there are enough of them: while more wait before the pool than it has workers,
    /// there is no hurry to feed it. Records what is due either way.
    fn wait<T>(&mut self, results: &Mailbox<T>, in_flight: usize) -> Vec<T> {
        let spare = in_flight.saturating_sub(self.engine.workers());
        let results = results.take((spare / 2).max(1), LOOK_EVERY);
        self.recorder.record(self.batches.due(self.context.clock.now()));
        results
    }

    fn settle_upload(&mut self, (worked, before): (Worked, Pending), report: &mut RescanReport) {
        let write = worked.to_write(&before);
        let Worked { item, ending } = worked;
        let (key, batch) = (item.key.as_str().to_owned(), item.batch);
        match ending {
            Ending::Parked => {
                self.parked.push_back(item);
                return;
            }
            Ending::Uploaded(published, receipt) => {
                report.add_uploaded(key, receipt.url, published.stat.size);
                self.tally.done += 1;
                self.tally.outages_in_a_row = 0;
            }
            Ending::Confirmed(_) => self.tally.confirmed += 1,
            Ending::Failed(error) => {
                if !self.not_tried(&error) {
                    self.tally.failed_uploads += 1;
                    self.judge(error, report);
                }
                if item.is_probe && !self.tally.is_stopped() {
                    self.context.probe.try_another();
                }
            }
        }
        let now = self.context.clock.now();
        self.recorder.record(self.batches.settle(batch, write, now));
    }

    /// Whether the error only says that the run had stopped: its file is pending, as before.
    fn not_tried(&mut self, error: &StorageError) -> bool {
        let reason = StopReason::of(error);
        if let Some(reason) = reason {
            self.stop(reason);
        }
        reason.is_some()
    }

    /// What a failure means for the rest of the run.
    fn judge(&mut self, error: StorageError, report: &mut RescanReport) {
        let kind = error.kind();
        let proven = self.context.probe.is_proven();
        if kind.is_transient() {
            self.tally.outages += 1;
            self.tally.outages_in_a_row += 1;
            let most = if proven { self.window() as u64 } else { OUTAGES_AT_FIRST };
            if self.tally.outages_in_a_row >= most {
                self.stop(StopReason::Unavailable);
            }
        } else {
            self.tally.outages_in_a_row = 0;
        }
        let denied_delete = kind == ErrorKind::AccessDenied && error.operation() == Operation::Delete;
        if !proven && kind.is_fatal_at_first() && !denied_delete {
            self.tally.fatal.get_or_insert(error);
            return;
        }
        if kind == ErrorKind::Credentials {
            self.stop(StopReason::Credentials);
        }
        report.add_failed(error);
    }

    /// The store could not be reached at all.
    pub(crate) fn give_up(&mut self) {
        self.tally.outages += 1;
        self.stop(StopReason::Unavailable);
    }

    pub(crate) fn stop(&mut self, reason: StopReason) {
        if reason == StopReason::Unavailable {
            self.context.offline.store(true, Relaxed);
        }
        self.tally.stop.get_or_insert(reason);
    }

    fn look_for_stop(&mut self) {
        if let Err(error) = self.context.exchange().check(Operation::Rescan) {
            self.not_tried(&error);
        }
        if self.context.gate.is_circuit_open() {
            self.stop(StopReason::Unavailable);
        }
        if self.recorder.has_failed() && self.tally.fatal.is_none() {
            self.tally.fatal = self.recorder.sync().err();
        }
    }

    /// Deletes everything that is pending to be deleted.
    pub(crate) fn delete(&mut self, report: &mut RescanReport) {
        let results = Mailbox::new();
        let cache = self.cache;
        let (mut rows, mut marked, mut in_flight) = (cache.pending_rows(), VecDeque::new(), 0);
        loop {
            // The first request of a run goes alone, also where it is a delete.
            let most = if self.context.probe.is_proven() { self.window() } else { 1 };
            while in_flight < most {
                let Some(keys) = self.fed(|flow| flow.next_keys(&mut rows, &mut marked)) else {
                    break;
                };
                let (context, results) = (self.context.clone(), results.clone());
                self.engine.submit(move || results.push(work::delete(&context, &keys)));
                in_flight += 1;
            }
            if in_flight == 0 {
                return;
            }
            for deleted in self.wait(&results, in_flight) {
                in_flight -= 1;
                self.settle_deletes(deleted, report);
            }
        }
    }

    fn next_keys(
        &mut self,
        rows: &mut Rows<'_>,
        marked: &mut VecDeque<RemoteKey>,
    ) -> Result<Option<Vec<RemoteKey>>, StorageError> {
        self.look_for_stop();
        if self.tally.is_stopped() {
            return Ok(None);
        }
        if marked.is_empty() {
            self.mark_deletes(rows, marked)?;
        }
        let count = marked.len().min(self.limits.delete_chunk);
        Ok((count > 0).then(|| marked.drain(..count).collect()))
    }

    /// Takes keys that are to be deleted, and notes durably that they may be deleted from now on: should
    /// their files come back after a crash, or after an answer that was lost, they are sent again.
    fn mark_deletes(
        &self,
        rows: &mut Rows<'_>,
        marked: &mut VecDeque<RemoteKey>,
    ) -> Result<(), StorageError> {
        let mut marks = Vec::new();
        for row in rows {
            let Row { key, pending: Some(pending), .. } = row? else {
                continue;
            };
            if pending.kind != PendingKind::Removed || !self.is_ours_and_gone(&key)? {
                continue;
            }
            marked.push_back(RemoteKey::new(key.clone())?);
            marks.push(Write::Pending(key, Pending { doubt: true, ..pending }));
            if marked.len() == DELETES_MARKED_AT_ONCE {
                break;
            }
        }
        self.cache.apply(&marks)
    }

    /// The last look before a delete: this cache published it (its record's checksum holds), and no
    /// file of its name is there.
    fn is_ours_and_gone(&self, key: &str) -> Result<bool, StorageError> {
        let ours = self.cache.published_record(key)?.is_some();
        let path = self.context.root.join(key);
        let gone = std::fs::symlink_metadata(path).map_or_else(|e| is_absent(&e), |found| found.is_dir());
        Ok(ours && gone)
    }

    fn settle_deletes(&mut self, results: Deleted, report: &mut RescanReport) {
        let mut writes = Vec::new();
        for (key, result) in results {
            let key = key.into_string();
            let context = self.context.clone();
            let trace = &context.trace;
            match result {
                Ok(()) => {
                    context.probe.succeeded();
                    trace.metrics.deletes(1);
                    trace.progress.delete_done();
                    trace.emit(|| Event::Deleted { key: key.clone() });
                    self.tally.done += 1;
                    self.tally.outages_in_a_row = 0;
                    report.add_deleted(key.clone());
                    writes.push(Write::Deleted(key));
                }
                Err(error) if self.not_tried(&error) => {}
                Err(error) => {
                    trace.metrics.deletes_failed(1);
                    trace.emit(|| Event::DeleteFailed { key, reason: error.to_string() });
                    self.tally.failed_deletes += 1;
                    self.judge(error, report);
                }
            }
        }
        self.recorder.record(writes);
    }
}
