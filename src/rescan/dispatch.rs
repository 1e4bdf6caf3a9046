//! The uploads of a run: what is pending goes into the engine, what was recorded comes out.
//!
//! # Architecture
//! - [`Dispatcher`]: owned by the caller's thread, which feeds and waits; workers never wait for each other.
//! - `feed`: picks the next file and starts it. A small file is one job; a large file gets a coordinating
//!   thread ([`crate::rescan::multipart::file`]) that hands its parts to the workers.
//! - `settle`: puts the result of a file into the report, the log and the records.
//! - `failures`: decides what a failure means for the rest of the run.
//! - [`attempts`]: the pending keys, marked as attempted before anything is sent. `batch`: what is recorded
//!   together.

pub(crate) mod attempts;
mod batch;
mod failures;
mod feed;
pub(crate) mod heads;
mod settle;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::StorageError;
use crate::rescan::context::Context;
use crate::rescan::dispatch::batch::Batches;
use crate::rescan::dispatch::feed::Feed;
use crate::rescan::multipart::file::{MultipartFile, MultipartOutcome};
use crate::rescan::multipart::queue::MultipartQueue;
use crate::rescan::outcome::Tally;
use crate::rescan::report::RescanReport;
use crate::rescan::upload::Worked;
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::{Pending, PendingKind};

/// The feeding thread looks this often for receipts that have waited for their batch.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Limits of what is in flight, and settings of the run.
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
    multipart: MultipartQueue,
    results: BatchQueue<Done>,
    /// Files are hashed to be compared, and nothing is sent.
    confirming: bool,
    /// Large files that were compared so, differ, and wait for their turn.
    differing: VecDeque<MultipartFile>,
    /// The keys of all files that ever waited so: they are not fed again.
    compared: BTreeSet<String>,
    /// Only these keys are uploaded.
    pub(crate) only: Option<BTreeSet<String>>,
    pub(crate) tally: Tally,
}

/// A message to the feeding thread.
enum Done {
    /// A small file is done; with the pending record that the cache holds for it.
    File(Box<(Worked, Pending)>),
    /// A large file is done; by its number.
    Multipart(u64, Box<MultipartOutcome>),
    /// The parts of the large files on their way fill the workers no more.
    Room,
}

/// However a run ends, also by a panic: jobs that still wait in the queue send nothing, and no job outlives it.
impl Drop for Dispatcher<'_> {
    fn drop(&mut self) {
        self.context.offline.store(true, Relaxed);
        self.results.wait_for_jobs();
    }
}

/// Where the feeding thread panics, stops the threads of large files, which the panic waits for, and lets jobs that wait for a
/// worker send nothing.
pub(crate) struct StopOnPanic(Arc<Context>, MultipartQueue);

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.1.set_hash_on(false);
            self.0.offline.store(true, Relaxed);
        }
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
        let (batches, results) = (Batches::new(limits.batch_size), BatchQueue::new());
        // A dispatcher before this one, of the same run, has left it set.
        context.offline.store(false, Relaxed);
        let room = results.clone();
        let multipart = MultipartQueue::new(limits.parts_in_flight, move || room.push_urgent(Done::Room));
        Self {
            engine,
            context,
            cache,
            recorder,
            limits,
            batches,
            multipart,
            results,
            confirming: false,
            differing: VecDeque::new(),
            compared: BTreeSet::new(),
            only: None,
            tally: Tally::default(),
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
        self.set_confirming(true);
        self.upload(PendingKind::Modified, report);
        self.set_confirming(false);
    }

    pub(crate) fn stop_on_panic(&self) -> StopOnPanic {
        StopOnPanic(self.context.clone(), self.multipart.clone())
    }

    fn set_confirming(&mut self, confirming: bool) {
        self.confirming = confirming;
        self.context.hash_only.store(confirming, Relaxed);
        self.multipart.set_hash_on(self.goes_on_hashing());
    }

    /// Uploads everything of one kind that is pending, and returns when all of it is settled. Small files
    /// and large ones are two streams over what is pending, so that neither waits behind the other.
    pub(crate) fn upload(&mut self, kind: PendingKind, report: &mut RescanReport) {
        let mut feed = Feed::new(self.cache, kind, self.context.is_forced());
        let results = self.results.clone();
        let stop = self.stop_on_panic();
        // The scope joins the threads of large files, however it ends.
        thread::scope(|threads| {
            let _stop = stop;
            loop {
                self.feed_files(&mut feed);
                self.feed_multipart(&mut feed, threads);
                if feed.files_under_way == 0 && self.multipart.is_empty() {
                    return;
                }
                for done in self.wait(&results, feed.files_under_way) {
                    match done {
                        Done::File(worked) => {
                            feed.files_under_way -= 1;
                            self.settle_upload(*worked, report);
                        }
                        Done::Multipart(number, outcome) => self.settle_multipart(number, *outcome, report),
                        Done::Room => {}
                    }
                }
            }
        });
        self.recorder.record(feed.files.unmark());
        let rest = self.batches.rest();
        self.recorder.record(rest);
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
}
