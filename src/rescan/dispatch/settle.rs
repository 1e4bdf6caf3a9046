//! Puts the result of a file into the report, the log and the records.

use crate::backend::{Journal, Transfers};
use crate::observe::trace::RequestEnd;
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::multipart::file::{MultipartOutcome, Settled};
use crate::rescan::report::RescanReport;
use crate::rescan::upload::{Ending, Worked};
use crate::state::records::Pending;
use crate::tree::walk::Skip;

impl Dispatcher<'_> {
    pub(super) fn settle_upload(&mut self, (worked, recorded): (Worked, Pending), report: &mut RescanReport) {
        let write = worked.to_write(&recorded);
        let Worked { item, ending } = worked;
        let (key, batch) = (item.key.as_str().to_owned(), item.batch);
        match ending {
            Ending::Uploaded(published, receipt) => {
                let (kind, bytes) = (item.pending.kind, published.stat.size);
                report.add_uploaded(key, receipt.url, bytes, kind);
                self.succeeded(report);
            }
            Ending::Confirmed(_) => self.tally.confirmed += 1,
            Ending::HeadersUpdated(_) => {
                report.add_headers_updated(key);
                self.succeeded(report);
            }
            Ending::Skipped(reason) => report.add_skipped(Skip { path: key.into(), reason }),
            // It is sent, or fails once more, when it is its turn.
            Ending::Failed(_) if self.confirming => {}
            Ending::Failed(error) if self.not_tried(&error) => {}
            Ending::Failed(error) => {
                if let Some(error) = self.unless_obstructed(&key, error) {
                    self.tally.failed_uploads += 1;
                    self.apply_failure(error, report);
                }
            }
        }
        let now = self.context.session.clock.now();
        self.recorder.record(match batch {
            Some(batch) => self.batches.settle(batch, write, now),
            None => write.into_iter().collect(),
        });
    }

    pub(super) fn settle_multipart(
        &mut self,
        number: u64,
        outcome: MultipartOutcome,
        report: &mut RescanReport,
    ) {
        self.multipart.end(number);
        let settled = match outcome {
            MultipartOutcome::Settled(settled) => settled,
            MultipartOutcome::Differs(file) => {
                self.compared.insert(file.item.key.as_str().to_owned());
                return self.differing.push_back(file);
            }
        };
        self.log_end(&settled);
        let Settled { item, recorded, ending, closed, .. } = settled;
        let worked = Worked { item, ending };
        worked.report_ending(&self.context);
        self.settle_upload((worked, recorded), report);
        // After the receipt: an upload that is recorded for too long is found to be gone, no more.
        if let Some(upload) = closed {
            self.recorder.closed(&upload.key, &upload.token);
        }
    }

    /// Logs the end of an upload whose start was logged.
    fn log_end(&self, settled: &Settled) {
        let Some(began) = settled.began else {
            return;
        };
        let outcome = match &settled.ending {
            Ending::Failed(error) => error.to_string(),
            _ => "ok".to_owned(),
        };
        let session = &self.context.session;
        session.trace.ended(
            log::Level::Info,
            &RequestEnd {
                operation: "upload",
                key: settled.item.key.as_str(),
                bucket: session.backend.transfers().map(Transfers::bucket).unwrap_or_default(),
                bytes: settled.item.pending.stat.size,
                attempts: 1,
                elapsed: session.clock.now().saturating_sub(began),
                outcome: &outcome,
                request_id: &settled.request_id,
            },
        );
    }
}
