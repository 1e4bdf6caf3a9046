//! What a run of this process has come to, for the case that an error ends it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bucket_brigade::{Engine, Event, Observer, REPORT_LIST_LIMIT};

use crate::json::{Done, Sent};

/// A run of this process.
pub(crate) struct Course {
    began: Instant,
    pub(crate) engine: OnceLock<Engine>,
    /// Lists are wanted, whatever the end.
    listing: bool,
    so_far: Arc<Mutex<SoFar>>,
}

#[derive(Default)]
struct SoFar {
    scanned: u64,
    sent: Vec<Sent>,
    deleted: Vec<String>,
}

impl Course {
    /// `listing`: the run tells which files it sent and deleted, also where an error ends it.
    pub(crate) fn new(listing: bool) -> Self {
        Self { began: Instant::now(), engine: OnceLock::new(), listing, so_far: Arc::default() }
    }

    /// What it has come to.
    pub(crate) fn done(&self) -> Done {
        let so_far = std::mem::take(&mut *self.so_far.lock().unwrap_or_else(PoisonError::into_inner));
        Done {
            scanned: so_far.scanned,
            sent: so_far.sent,
            deleted: so_far.deleted,
            metrics: self.engine.get().map(Engine::metrics).unwrap_or_default(),
            elapsed_s: self.began.elapsed().as_secs_f64(),
        }
    }

    pub(crate) fn before(&self, also: Arc<dyn Observer>) -> Arc<dyn Observer> {
        let (so_far, listing) = (self.so_far.clone(), self.listing);
        Arc::new(move |event: &Event| {
            so_far.lock().unwrap_or_else(PoisonError::into_inner).see(event, listing);
            also.event(event);
        })
    }
}

impl SoFar {
    fn see(&mut self, event: &Event, listing: bool) {
        match event {
            Event::Planned { scanned, .. } => self.scanned = *scanned,
            Event::UploadFinished { key, bytes, url, replaced, .. }
                if listing && self.sent.len() < REPORT_LIST_LIMIT =>
            {
                let (key, url) = (key.clone(), url.clone());
                self.sent.push(Sent { key, bytes: *bytes, url, replaced: *replaced });
            }
            Event::Deleted { key } if listing && self.deleted.len() < REPORT_LIST_LIMIT => {
                self.deleted.push(key.clone());
            }
            _ => {}
        }
    }
}
