//! The flow of work through the engine: what is pending goes in, what was recorded comes out. The
//! caller's thread feeds and waits; workers never wait for each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::batch::Batches;
use super::cache::{CacheManager, Row, Rows, Write};
use super::larges::Larges;
use super::mailbox::Mailbox;
use super::parts::Outcome;
use super::record::{Pending, PendingKind, Published};
use super::recorder::Recorder;
use super::report::{RescanReport, StopReason};
use super::tally::Tally;
use super::work::{self, Context, Ending, Item, Worked};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::tree::digest::PartPlan;

/// Files in a row that found the store not working, before any was taken, after which the rest is
/// not tried.
const OUTAGES_AT_FIRST: u64 = 3;
/// How often the feeding thread looks at what has waited for its batch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many are in flight, and what is to be known of the store.
pub(crate) struct Limits {
    pub(crate) batch_size: usize,
    pub(crate) delete_chunk: usize,
    /// Parts that are hashed or sent at a time.
    pub(crate) parts_in_flight: usize,
    /// Large files get a plain digest too.
    pub(crate) whole_file_digest: bool,
    /// During an outage files are hashed all the same: URLs lead to a fallback.
    pub(crate) has_fallback: bool,
}

/// One run's uploads and deletes.
pub(crate) struct Flow<'a> {
    pub(super) engine: &'a Engine,
    pub(super) context: Arc<Context>,
    pub(super) cache: &'a CacheManager,
    pub(super) recorder: &'a Arc<Recorder>,
    pub(super) limits: Limits,
    batches: Batches,
    parked: VecDeque<Item>,
    pub(super) larges: Larges,
    pub(crate) tally: Tally,
}

/// Where one kind's files come from, and where what became of them goes.
pub(super) struct Feed<'a> {
    pub(super) kind: PendingKind,
    files: Rows<'a>,
    pub(super) larges: Rows<'a>,
    /// No small file is left to be fed.
    pub(super) files_ended: bool,
    files_under_way: usize,
    pub(super) results: Mailbox<Done>,
}

/// Work that is done.
pub(super) enum Done {
    /// A file, with what was pending for it before.
    File(Box<(Worked, Pending)>),
    /// A task of a large file, by its number.
    Part(u64, Outcome),
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
        recorder: &'a Arc<Recorder>,
        limits: Limits,
    ) -> Self {
        let batches = Batches::new(limits.batch_size);
        let (parked, larges, tally) = (VecDeque::new(), Larges::default(), Tally::default());
        Self { engine, context, cache, recorder, limits, batches, parked, larges, tally }
    }

    /// Files fed and not settled, at most: as many as a batch holds are worked on; where the pool is
    /// no larger than that, as many again wait before it, so that no worker ever does.
    pub(super) fn window(&self) -> usize {
        let (batch, workers) = (self.limits.batch_size, self.engine.workers());
        if workers <= batch { batch + workers } else { batch }
    }

    /// Uploads everything of one kind that is pending, and returns when all of it is settled. Small files
    /// and large ones are two streams over what is pending, so that neither waits behind the other.
    pub(crate) fn upload(&mut self, kind: PendingKind, report: &mut RescanReport) {
        let cache = self.cache;
        let mut feed = Feed {
            kind,
            files: cache.pending_rows(),
            larges: cache.pending_rows(),
            files_ended: false,
            files_under_way: 0,
            results: Mailbox::new(),
        };
        loop {
            self.feed_files(&mut feed);
            self.feed_parts(&mut feed, report);
            let in_flight = feed.files_under_way + self.larges.under_way;
            if in_flight == 0 {
                break;
            }
            for done in self.wait(&feed.results, in_flight) {
                match done {
                    Done::File(worked) => {
                        feed.files_under_way -= 1;
                        self.settle_upload(*worked, report);
                    }
                    Done::Part(number, outcome) => self.settle_part(number, outcome, report),
                }
            }
        }
        debug_assert!(self.larges.is_empty(), "a large file is left with nothing to do");
        let rest = self.batches.rest();
        self.recorder.record(rest);
    }

    fn feed_files(&mut self, feed: &mut Feed<'_>) {
        while feed.files_under_way + self.parked.len() < self.window() || self.may_unpark() {
            let Some(item) = self.fed(|flow| flow.next_item(feed.kind, &mut feed.files)) else {
                feed.files_ended = true;
                return;
            };
            self.start(item, &feed.results);
            feed.files_under_way += 1;
        }
    }

    /// What is parked when the run stops stays pending, with what is known of it by now.
    fn unpark_for_good(&mut self) {
        let parked = self.parked.drain(..).map(|item| Write::Pending(item.key.into_string(), item.pending));
        self.recorder.record(parked.collect());
    }

    /// The next piece of work. An error of the cache ends the feeding, and what is in flight is waited
    /// for: no job outlives its run.
    pub(super) fn fed<T>(
        &mut self,
        next: impl FnOnce(&mut Self) -> Result<Option<T>, StorageError>,
    ) -> Option<T> {
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
        if self.may_unpark() {
            return Ok(self.parked.pop_front());
        }
        let Some((key, pending, published)) = self.next_row(kind, rows, false)? else {
            return Ok(None);
        };
        let batch = Some(self.batches.assign());
        Ok(Some(Item { key, pending, published, batch, is_probe: false }))
    }

    /// The next file of a kind, large or not, that is to be sent; after an outage, that is to be hashed.
    pub(super) fn next_row(
        &mut self,
        kind: PendingKind,
        rows: &mut Rows<'_>,
        large: bool,
    ) -> Result<Option<(RemoteKey, Pending, Option<Published>)>, StorageError> {
        let hash_only = self.tally.is_stopped();
        for row in rows {
            let Row { key, pending: Some(pending), .. } = row? else {
                continue;
            };
            let unwanted = pending.kind != kind || self.plan_of(&pending).is_some() != large;
            if unwanted || (hash_only && pending.known().is_some()) {
                continue;
            }
            let published = match kind {
                PendingKind::Added => None,
                _ => self.cache.published_record(&key)?,
            };
            return Ok(Some((RemoteKey::new(key)?, pending, published)));
        }
        Ok(None)
    }

    /// How a file is cut, if it goes up in parts. One that is too large for the store ends as a small one
    /// does, with an error.
    pub(super) fn plan_of(&self, pending: &Pending) -> Option<PartPlan> {
        self.context.reach.backend.transfers()?.part_plan(pending.stat.size).ok().flatten()
    }

    /// During an outage files are hashed all the same where URLs lead to a fallback.
    pub(super) fn goes_on_hashing(&self) -> bool {
        self.limits.has_fallback
            && self.tally.stop == Some(StopReason::Unavailable)
            && self.tally.fatal.is_none()
            && self.context.exchange().check(Operation::Read).is_ok()
    }

    fn start(&self, item: Item, results: &Mailbox<Done>) {
        let (context, results) = (self.context.clone(), results.clone());
        self.engine.submit(move || {
            let before = item.pending.clone();
            results.push(Done::File(Box::new((work::publish(&context, item), before))));
        });
    }

    /// Results, as soon as there are enough of them: while more wait before the pool than it has workers,
    /// there is no hurry to feed it. Records what is due either way.
    pub(super) fn wait<T>(&mut self, results: &Mailbox<T>, in_flight: usize) -> Vec<T> {
        let spare = in_flight.saturating_sub(self.engine.workers());
        let results = results.take((spare / 2).max(1), LOOK_EVERY);
        self.look_for_stop();
        // Nothing is added to a batch any more: what is settled is recorded at once.
        let now = self.context.reach.clock.now();
        let due = if self.tally.is_stopped() { self.batches.rest() } else { self.batches.due(now) };
        self.recorder.record(due);
        results
    }

    pub(super) fn settle_upload(&mut self, (worked, before): (Worked, Pending), report: &mut RescanReport) {
        let write = worked.to_write(&before);
        let Worked { item, ending } = worked;
        let (key, batch) = (item.key.as_str().to_owned(), item.batch);
        match ending {
            Ending::Parked => {
                self.parked.push_back(item);
                return;
            }
            Ending::Uploaded(published, receipt) => {
                report.add_uploaded(key, receipt.url, published.stat.size, item.pending.kind);
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
        let now = self.context.reach.clock.now();
        self.recorder.record(match batch {
            Some(batch) => self.batches.settle(batch, write, now),
            None => write.into_iter().collect(),
        });
    }

    /// Whether the error only says that the run had stopped: its file is pending, as before.
    pub(super) fn not_tried(&mut self, error: &StorageError) -> bool {
        let reason = StopReason::of(error);
        if let Some(reason) = reason {
            self.stop(reason);
        }
        reason.is_some()
    }

    /// What a failure means for the rest of the run.
    pub(super) fn judge(&mut self, error: StorageError, report: &mut RescanReport) {
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
        if matches!(reason, StopReason::Unavailable | StopReason::Credentials) {
            self.context.offline.store(true, Relaxed);
        }
        self.tally.stop.get_or_insert(reason);
    }

    pub(super) fn look_for_stop(&mut self) {
        if let Err(error) = self.context.exchange().check(Operation::Rescan) {
            self.not_tried(&error);
        }
        if self.context.reach.gate.is_circuit_open() {
            self.stop(StopReason::Unavailable);
        }
        if self.recorder.has_failed() && self.tally.fatal.is_none() {
            self.tally.fatal = self.recorder.sync().err();
        }
    }
}
