//! Picks the next file and starts it.

use std::sync::Arc;
use std::thread::Scope;

use crate::error::{Operation, StorageError};
use crate::rescan::dispatch::attempts::{Attempts, Wanted};
use crate::rescan::dispatch::{Dispatcher, Done};
use crate::rescan::multipart::file::{Coordinator, MultipartFile};
use crate::rescan::multipart::worker::{TaskRunner, Worker};
use crate::rescan::report::StopReason;
use crate::rescan::upload::{self, Item};
use crate::state::cache::CacheManager;
use crate::state::records::{Pending, PendingKind};
use crate::tree::digest::PartPlan;

/// The pending files of one kind, and how far they are fed.
pub(super) struct Feed<'a> {
    pub(super) files: Attempts<'a>,
    large_files: Attempts<'a>,
    /// No small file is left to be fed.
    files_ended: bool,
    pub(super) files_under_way: usize,
}

impl<'a> Feed<'a> {
    /// `forced`: no published record is believed.
    pub(super) fn new(cache: &'a CacheManager, kind: PendingKind, forced: bool) -> Self {
        let attempts = || Attempts::new(cache, kind).forced(forced);
        let (files, large_files) = (attempts(), attempts());
        Self { files, large_files, files_ended: false, files_under_way: 0 }
    }
}

impl Dispatcher<'_> {
    pub(super) fn feed_files(&mut self, feed: &mut Feed<'_>) {
        while feed.files_under_way < self.window() {
            let Some((item, recorded)) = self.fed(|dispatcher| dispatcher.next_item(&mut feed.files)) else {
                feed.files_ended = true;
                return;
            };
            self.start_file(item, recorded);
            feed.files_under_way += 1;
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
        // Where nothing is sent there is no condition.
        let there = match &published {
            _ if self.confirming || self.context.shared.is_none() => None,
            // It has no record.
            _ if pending.kind == PendingKind::Added => None,
            Some(there) => Some(there.clone()),
            None => self.cache.published_record(key.as_str())?,
        };
        Ok(Some((Item { key, pending, published, there, batch }, recorded)))
    }

    fn start_file(&self, item: Item, recorded: Pending) {
        let context = self.context.clone();
        let job = move || Done::File(Box::new((upload::publish(&context, item), recorded)));
        self.results.submit(self.engine, job);
    }

    /// Begins large files until their parts fill the workers.
    pub(super) fn feed_multipart<'scope>(&mut self, feed: &mut Feed<'_>, threads: &'scope Scope<'scope, '_>) {
        self.look_for_stop();
        self.multipart.set_limit(self.room_for_parts(feed));
        while let Some(file) = self.next_multipart(feed) {
            self.start_multipart(file, threads);
        }
    }

    /// While small files wait, half of the workers are theirs.
    fn room_for_parts(&self, feed: &Feed<'_>) -> usize {
        let most = self.limits.parts_in_flight;
        if feed.files_ended { most } else { most.min((self.engine.workers() / 2).max(1)) }
    }

    fn next_multipart(&mut self, feed: &mut Feed<'_>) -> Option<MultipartFile> {
        // Each file that waits for its turn is open: they count as long as none may be sent.
        let waiting = self.differing.iter().filter(|_| self.confirming).map(MultipartFile::part_count);
        if self.multipart.parts_left() + waiting.sum::<usize>() >= self.limits.parts_in_flight {
            return None;
        }
        if !self.confirming
            && let Some(file) = self.differing.pop_front()
        {
            return Some(file);
        }
        if self.tally.is_stopped() && !self.goes_on_hashing() {
            return None;
        }
        // It is marked as attempted later, before Complete.
        let rows = &mut feed.large_files;
        let next = self.fed(|dispatcher| rows.next(|key, pending| dispatcher.is_wanted(key, pending, true)));
        let Wanted { key, pending, published, .. } = next?;
        let plan = self.plan_of(&pending)?;
        Some(MultipartFile::new(Item { key, pending, published, there: None, batch: None }, plan))
    }

    fn start_multipart<'scope>(&mut self, file: MultipartFile, threads: &'scope Scope<'scope, '_>) {
        let worker = Worker {
            context: self.context.clone(),
            cache: self.cache.clone(),
            recorder: self.recorder.clone(),
            key: file.item.key.clone(),
        };
        let number = self.multipart.begin(file.part_count());
        let tasks = TaskRunner {
            number,
            queue: self.multipart.clone(),
            engine: self.engine.clone(),
            worker: Arc::new(worker),
            has_fallback: self.limits.has_fallback,
        };
        let coordinator = Coordinator { file, tasks, whole_file_digest: self.limits.whole_file_digest };
        let results = self.results.clone();
        coordinator.start(threads, move |outcome| {
            results.push_urgent(Done::Multipart(number, Box::new(outcome)));
        });
    }

    /// Returns whether a file, large or small, is to be sent; during an outage, whether it is to be hashed.
    fn is_wanted(&self, key: &str, pending: &Pending, large: bool) -> Result<bool, StorageError> {
        if self.plan_of(pending).is_some() != large || self.compared.contains(key) {
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

    /// The part plan of a file that is a multipart upload. One that is too large for the store ends as a small
    /// one does, with an error.
    fn plan_of(&self, pending: &Pending) -> Option<PartPlan> {
        self.context.session.backend.transfers()?.part_plan(pending.stat.size).ok().flatten()
    }

    /// During an outage files are hashed all the same where URLs lead to a fallback.
    pub(super) fn goes_on_hashing(&self) -> bool {
        (self.confirming || self.limits.has_fallback && self.tally.stop == Some(StopReason::Unavailable))
            && self.may_read()
    }

    fn may_read(&self) -> bool {
        self.tally.fatal.is_none() && self.context.request_context().check(Operation::Read).is_ok()
    }
}
