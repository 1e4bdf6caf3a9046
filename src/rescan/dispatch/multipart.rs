//! Feeding the workers with the tasks of large files.

use crate::backend::{Journal, Transfers};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::RequestEnd as Ended;
use crate::rescan::context::given_up;
use crate::rescan::dispatch::attempts::Wanted;
use crate::rescan::dispatch::{Dispatcher, Done, Feed};
use crate::rescan::multipart::file::{MultipartFile, Settled};
use crate::rescan::multipart::task::{Job, Task, TaskResult};
use crate::rescan::report::{RescanReport, StopReason};
use crate::rescan::upload::{Ending, Item, Worked};

impl Dispatcher<'_> {
    /// Gives tasks to the workers: of the file that was begun first, as long as it has any. Another file is
    /// begun when the parts of those on their way do not fill the workers any more.
    pub(crate) fn feed_parts(&mut self, feed: &mut Feed<'_>, report: &mut RescanReport) {
        self.look_for_stop();
        if self.tally.is_stopped() {
            self.stop_larges(report);
        }
        while self.larges.under_way < self.room_for_parts(feed) {
            match self.next_task() {
                Some((number, task)) => self.start_task(number, task, feed),
                None if self.begin_large(feed) => {}
                None => return,
            }
        }
    }

    /// While small files wait, half of the workers are theirs.
    fn room_for_parts(&self, feed: &Feed<'_>) -> usize {
        let most = self.limits.parts_in_flight;
        if feed.files_ended { most } else { most.min((self.engine.workers() / 2).max(1)) }
    }

    fn next_task(&mut self) -> Option<(u64, Task)> {
        let may_send = !self.confirming;
        let mut files = self.larges.files.iter_mut();
        files.find_map(|(number, large)| large.next_task(may_send).map(|task| (*number, task)))
    }

    fn begin_large(&mut self, feed: &mut Feed<'_>) -> bool {
        let to_come: usize = self.larges.files.values().map(MultipartFile::parts_to_come).sum();
        if to_come >= self.limits.parts_in_flight || (self.tally.is_stopped() && !self.goes_on_hashing()) {
            return false;
        }
        // It is marked as attempted before the request that makes an object of its parts.
        let larges = &mut feed.larges;
        let next = self.fed(|flow| larges.next(|key, pending| flow.is_wanted(key, pending, true)));
        let Some(Wanted { key, pending, published, .. }) = next else {
            return false;
        };
        let Some(plan) = self.plan_of(&pending) else {
            return false;
        };
        let item = Item { key, pending, published, batch: None };
        let large = MultipartFile::new(item, plan, self.limits.whole_file_digest);
        self.larges.files.insert(self.larges.begun, large);
        self.larges.begun += 1;
        true
    }

    fn start_task(&mut self, number: u64, task: Task, feed: &Feed<'_>) {
        let Some(large) = self.larges.files.get(&number) else {
            return;
        };
        let (source, upload) = large.tools();
        let job = Job {
            context: self.context.clone(),
            cache: self.cache.clone(),
            recorder: self.recorder.clone(),
            key: large.item.key.clone(),
            source,
            upload,
        };
        self.larges.under_way += 1;
        feed.results.submit(self.engine, move || Done::Part(number, job.run(task)));
    }

    pub(crate) fn settle_part(&mut self, number: u64, outcome: TaskResult, report: &mut RescanReport) {
        self.larges.under_way -= 1;
        let Some(large) = self.larges.files.get_mut(&number) else {
            return;
        };
        large.absorb(outcome, &self.context);
        if large.is_ended() {
            self.settle_large(number, report);
        }
    }

    fn stop_larges(&mut self, report: &mut RescanReport) {
        let hash_on = self.goes_on_hashing();
        let mut ended = Vec::new();
        for (number, large) in &mut self.larges.files {
            large.stop(stopped(self.tally.stop), hash_on, &self.context);
            if large.is_ended() {
                ended.push(*number);
            }
        }
        for number in ended {
            self.settle_large(number, report);
        }
    }

    fn settle_large(&mut self, number: u64, report: &mut RescanReport) {
        let Some(large) = self.larges.files.remove(&number) else {
            return;
        };
        let settled = large.settled(&self.context);
        self.tell_end(&settled);
        let Settled { item, before, ending, closed, .. } = settled;
        let worked = Worked { item, ending };
        worked.tell(&self.context);
        self.settle_upload((worked, before), report);
        // Behind the receipt: an upload that is recorded for too long is found to be gone, no more.
        if let Some(upload) = closed {
            self.recorder.closed(&upload.key, &upload.token);
        }
    }

    /// The record that ends the one of the upload's beginning.
    fn tell_end(&self, settled: &Settled) {
        let Some(began) = settled.began else {
            return;
        };
        let outcome = match &settled.ending {
            Ending::Failed(error) => error.to_string(),
            _ => "ok".to_owned(),
        };
        let clock = &self.context.session.clock;
        self.context.session.trace.ended(
            log::Level::Info,
            &Ended {
                operation: "upload",
                key: settled.item.key.as_str(),
                bucket: self.context.session.backend.transfers().map(Transfers::bucket).unwrap_or_default(),
                bytes: settled.item.pending.stat.size,
                attempts: 1,
                elapsed: clock.now().saturating_sub(began),
                outcome: &outcome,
                request_id: &settled.request_id,
            },
        );
    }
}

/// Why a file of a run that has stopped is not gone on with.
fn stopped(reason: Option<StopReason>) -> StorageError {
    let of = |kind, what: &str| StorageError::new(kind, Operation::Upload, what);
    match reason {
        Some(StopReason::Cancelled) => of(ErrorKind::Cancelled, "cancelled"),
        Some(StopReason::Deadline) => of(ErrorKind::Deadline, "the run's deadline has passed"),
        _ => given_up(Operation::Upload),
    }
}
