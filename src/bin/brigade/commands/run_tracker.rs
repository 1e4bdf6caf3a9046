//! The work of a run so far, for the JSON of a run that an error ends.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bucket_brigade::{Engine, Event, Observer, REPORT_LIST_LIMIT};

use crate::json::{PartialRun, Sent};

/// Records what a run does, from its events.
pub(crate) struct RunTracker {
    began: Instant,
    pub(crate) engine: OnceLock<Engine>,
    /// True if the names of files are recorded, too.
    with_lists: bool,
    work: Arc<Mutex<Work>>,
}

#[derive(Default)]
struct Work {
    scanned: u64,
    sent: Vec<Sent>,
    deleted: Vec<String>,
    headers_updated: Vec<String>,
    adopted: Vec<String>,
    adopted_count: u64,
    adopted_bytes: u64,
}

impl RunTracker {
    /// With `with_lists`, records which files were sent and deleted, and not only how many.
    pub(crate) fn new(with_lists: bool) -> Self {
        Self { began: Instant::now(), engine: OnceLock::new(), with_lists, work: Arc::default() }
    }

    /// Takes what was recorded.
    pub(crate) fn take_partial_run(&self) -> PartialRun {
        let work = std::mem::take(&mut *self.work.lock().unwrap_or_else(PoisonError::into_inner));
        PartialRun {
            scanned: work.scanned,
            sent: work.sent,
            deleted: work.deleted,
            headers_updated: work.headers_updated,
            adopted: work.adopted,
            adopted_count: work.adopted_count,
            adopted_bytes: work.adopted_bytes,
            metrics: self.engine.get().map(Engine::metrics).unwrap_or_default(),
            elapsed_s: self.began.elapsed().as_secs_f64(),
        }
    }

    /// Returns an observer that records each event and passes it on.
    pub(crate) fn observer(&self, next: Arc<dyn Observer>) -> Arc<dyn Observer> {
        let (work, with_lists) = (self.work.clone(), self.with_lists);
        Arc::new(move |event: &Event| {
            work.lock().unwrap_or_else(PoisonError::into_inner).record(event, with_lists);
            next.event(event);
        })
    }
}

impl Work {
    fn record(&mut self, event: &Event, with_lists: bool) {
        match event {
            Event::Planned { scanned, .. } => self.scanned = *scanned,
            Event::UploadFinished { key, bytes, url, replaced, .. }
                if with_lists && self.sent.len() < REPORT_LIST_LIMIT =>
            {
                let (key, url) = (key.clone(), url.clone());
                self.sent.push(Sent { key, bytes: *bytes, url, replaced: *replaced });
            }
            Event::Adopted { key, bytes } => {
                self.adopted_count += 1;
                self.adopted_bytes += bytes;
                if with_lists && self.adopted.len() < REPORT_LIST_LIMIT {
                    self.adopted.push(key.clone());
                }
            }
            Event::HeadersUpdated { key } if with_lists && self.headers_updated.len() < REPORT_LIST_LIMIT => {
                self.headers_updated.push(key.clone());
            }
            Event::Deleted { key } if with_lists && self.deleted.len() < REPORT_LIST_LIMIT => {
                self.deleted.push(key.clone());
            }
            _ => {}
        }
    }
}
