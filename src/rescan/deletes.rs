//! The deletes of a run: marked as doubtful, looked at once more, sent, recorded.

use std::collections::VecDeque;

use super::cache::{Row, Rows, Write};
use super::flow::Flow;
use super::mailbox::Mailbox;
use super::plan::is_absent;
use super::record::{Pending, PendingKind};
use super::report::RescanReport;
use super::work;
use crate::backend::Deleted;
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::observe::event::Event;

/// Deletes noted in one transaction: what one request of S3 deletes.
const DELETES_MARKED_AT_ONCE: usize = 1000;

impl Flow<'_> {
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
            let trace = &context.reach.trace;
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
