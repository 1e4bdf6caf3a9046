//! The flow of work through the engine: what is pending goes in, what was recorded comes out. The
//! caller's thread feeds and waits; workers never wait for each other.

pub(crate) mod attempts;
mod batch;
mod failures;
mod multipart;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::context::Context;
use crate::rescan::dispatch::attempts::{Attempts, Wanted};
use crate::rescan::dispatch::batch::Batches;
use crate::rescan::multipart::queue::MultipartQueue;
use crate::rescan::multipart::task::TaskResult;
use crate::rescan::outcome::Tally;
use crate::rescan::report::{RescanReport, StopReason};
use crate::rescan::upload;
use crate::rescan::upload::{Ending, Item, Worked};
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::{Pending, PendingKind};
use crate::tree::digest::PartPlan;
use crate::tree::walk::Skip;

/// How often the feeding thread looks at what has waited for its batch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many are in flight, and what is to be known of the store.
pub(crate) struct DispatchLimits {
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
pub(crate) struct Dispatcher<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) context: Arc<Context>,
    pub(crate) cache: &'a CacheManager,
    pub(crate) recorder: &'a Arc<Recorder>,
    pub(crate) limits: DispatchLimits,
    batches: Batches,
    pub(crate) larges: MultipartQueue,
    /// Files are hashed to be compared, and nothing is sent.
    pub(crate) confirming: bool,
    /// Large files that were hashed so, differ, and wait for their turn.
    hashed: BTreeSet<String>,
    /// Only these keys are uploaded.
    pub(crate) only: Option<BTreeSet<String>>,
    pub(crate) tally: Tally,
}

/// Where one kind's files come from, and where what became of them goes.
pub(crate) struct Feed<'a> {
    files: Attempts<'a>,
    pub(crate) larges: Attempts<'a>,
    /// No small file is left to be fed.
    pub(crate) files_ended: bool,
    files_under_way: usize,
    pub(crate) results: BatchQueue<Done>,
}

/// Work that is done.
pub(crate) enum Done {
    /// A file, with what was pending for it before.
    File(Box<(Worked, Pending)>),
    /// A task of a large file, by its number.
    Part(u64, TaskResult),
}

/// However a run ends, also by a panic: what still waits in the queue sends nothing any more.
impl Drop for Dispatcher<'_> {
    fn drop(&mut self) {
        self.context.offline.store(true, Relaxed);
    }
}

impl<'a> Dispatcher<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        context: Arc<Context>,
        cache: &'a CacheManager,
        recorder: &'a Arc<Recorder>,
        limits: DispatchLimits,
    ) -> Self {
        let batches = Batches::new(limits.batch_size);
        // A flow before this one, of the same run, has closed it behind itself.
        context.offline.store(false, Relaxed);
        let (larges, tally) = (MultipartQueue::default(), Tally::default());
        Self {
            engine,
            context,
            cache,
            recorder,
            limits,
            batches,
            larges,
            confirming: false,
            hashed: BTreeSet::new(),
            only: None,
            tally,
        }
    }

    /// Files fed and not settled, at most: as many as a batch holds are worked on; where the pool is
    /// no larger than that, as many again wait before it, so that no worker ever does.
    pub(crate) fn window(&self) -> usize {
        let (batch, workers) = (self.limits.batch_size, self.engine.workers());
        if workers <= batch { batch + workers } else { batch }
    }

    /// Hashes what may be published as it is, and sends nothing: a tree that was only touched, or is too young
    /// to be trusted, needs no store.
    pub(crate) fn confirm(&mut self, report: &mut RescanReport) {
        self.confirming = true;
        self.context.hash_only.store(true, Relaxed);
        self.upload(PendingKind::Modified, report);
        self.context.hash_only.store(false, Relaxed);
        self.confirming = false;
        self.hashed = self.larges.keys().collect();
    }

    /// Uploads everything of one kind that is pending, and returns when all of it is settled. Small files
    /// and large ones are two streams over what is pending, so that neither waits behind the other.
    pub(crate) fn upload(&mut self, kind: PendingKind, report: &mut RescanReport) {
        let cache = self.cache;
        let mut feed = Feed {
            files: Attempts::new(cache, kind).forced(self.context.is_forced()),
            larges: Attempts::new(cache, kind).forced(self.context.is_forced()),
            files_ended: false,
            files_under_way: 0,
            results: BatchQueue::new(),
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
        if !self.larges.is_empty() && !self.confirming {
            let what = "a large file was left with nothing to do: this is a fault of bucket-brigade";
            self.fail(StorageError::new(ErrorKind::Other, Operation::Upload, what));
        }
        self.recorder.record(feed.files.unmark());
        let rest = self.batches.rest();
        self.recorder.record(rest);
    }

    fn feed_files(&mut self, feed: &mut Feed<'_>) {
        while feed.files_under_way < self.window() {
            let Some((item, recorded)) = self.fed(|flow| flow.next_item(&mut feed.files)) else {
                feed.files_ended = true;
                return;
            };
            self.start(item, recorded, &feed.results);
            feed.files_under_way += 1;
        }
    }

    /// The next piece of work. An error of the cache ends the feeding, and what is in flight is waited
    /// for: no job outlives its run.
    pub(crate) fn fed<T>(
        &mut self,
        next: impl FnOnce(&mut Self) -> Result<Option<T>, StorageError>,
    ) -> Option<T> {
        match next(self) {
            Ok(next) => next,
            Err(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// The next small file, and what is recorded of it.
    fn next_item(&mut self, files: &mut Attempts<'_>) -> Result<Option<(Item, Pending)>, StorageError> {
        self.look_for_stop();
        let wanted = if self.confirming && self.may_read() {
            files.next(|key, pending| self.is_wanted(key, pending, false))?
        } else if !self.tally.is_stopped() {
            files.next_marked(|key, pending| self.is_wanted(key, pending, false))?
        } else if self.goes_on_hashing() {
            self.recorder.record(files.unmark());
            files.next(|key, pending| self.is_wanted(key, pending, false))?
        } else {
            None
        };
        let Some(wanted) = wanted else { return Ok(None) };
        let (batch, recorded) = (Some(self.batches.assign()), wanted.recorded());
        let Wanted { key, pending, published, .. } = wanted;
        Ok(Some((Item { key, pending, published, batch }, recorded)))
    }

    /// Whether a file, large or not, is to be sent; after an outage, whether it is to be hashed.
    pub(crate) fn is_wanted(&self, key: &str, pending: &Pending, large: bool) -> Result<bool, StorageError> {
        if self.plan_of(pending).is_some() != large || self.hashed.contains(key) {
            return Ok(false);
        }
        if self.confirming {
            let there = self.cache.published_record(key)?;
            return Ok(!pending.attempted && there.is_some_and(|there| there.stat.size == pending.stat.size));
        }
        let hash_only = self.tally.is_stopped();
        Ok(!(hash_only && pending.digest.is_some())
            && self.only.as_ref().is_none_or(|only| only.contains(key)))
    }

    /// How a file is cut, if it goes up in parts. One that is too large for the store ends as a small one
    /// does, with an error.
    pub(crate) fn plan_of(&self, pending: &Pending) -> Option<PartPlan> {
        self.context.session.backend.transfers()?.part_plan(pending.stat.size).ok().flatten()
    }

    /// During an outage files are hashed all the same where URLs lead to a fallback.
    pub(crate) fn goes_on_hashing(&self) -> bool {
        (self.confirming || self.limits.has_fallback && self.tally.stop == Some(StopReason::Unavailable))
            && self.may_read()
    }

    fn may_read(&self) -> bool {
        self.tally.fatal.is_none() && self.context.exchange().check(Operation::Read).is_ok()
    }

    fn start(&self, item: Item, recorded: Pending, results: &BatchQueue<Done>) {
        let context = self.context.clone();
        results
            .submit(self.engine, move || Done::File(Box::new((upload::publish(&context, item), recorded))));
    }

    /// Results, as soon as there are enough of them: while more wait before the pool than it has workers,
    /// there is no hurry to feed it. Records what is due either way.
    pub(crate) fn wait<T>(&mut self, results: &BatchQueue<T>, in_flight: usize) -> Vec<T> {
        let spare = in_flight.saturating_sub(self.engine.workers());
        let results = results.take((spare / 2).max(1), LOOK_EVERY);
        self.look_for_stop();
        // Nothing is added to a batch any more: what is settled is recorded at once.
        let now = self.context.session.clock.now();
        let due = if self.tally.is_stopped() { self.batches.rest() } else { self.batches.due(now) };
        self.recorder.record(due);
        results
    }

    pub(crate) fn settle_upload(&mut self, (worked, before): (Worked, Pending), report: &mut RescanReport) {
        let write = worked.to_write(&before);
        let Worked { item, ending } = worked;
        let (key, batch) = (item.key.as_str().to_owned(), item.batch);
        match ending {
            Ending::Uploaded(published, receipt) => {
                report.add_uploaded(key, receipt.url, published.stat.size, item.pending.kind);
                self.succeeded(report);
            }
            Ending::Confirmed(_) => self.tally.confirmed += 1,
            Ending::Skipped(reason) => report.add_skipped(Skip { path: key.into(), reason }),
            // It is sent, or fails once more, when it is its turn.
            Ending::Failed(_) if self.confirming => {}
            Ending::Failed(error) if self.not_tried(&error) => {}
            Ending::Failed(error) => {
                if let Some(error) = self.unless_obstructed(&key, error) {
                    self.tally.failed_uploads += 1;
                    self.judge(error, report);
                }
            }
        }
        let now = self.context.session.clock.now();
        self.recorder.record(match batch {
            Some(batch) => self.batches.settle(batch, write, now),
            None => write.into_iter().collect(),
        });
    }
}
