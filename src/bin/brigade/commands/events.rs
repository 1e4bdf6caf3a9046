//! `--json-events`: every event of a run as a line of JSON.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bucket_brigade::{Event, Observer};

use crate::json;

/// Writes every event as a line, on the thread where it happens: a slow reader slows the run, and no event is lost.
/// Keeps the first error.
#[derive(Clone, Default)]
pub(crate) struct EventWriter(Arc<Mutex<Option<io::Error>>>);

impl EventWriter {
    /// Returns an observer that passes each event on and writes it.
    pub(crate) fn observer(self, next: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(move |event: &Event| {
            next.event(event);
            let mut line = Vec::new();
            let encoded = json::write_json(&mut line, &json::events::event_json(event));
            line.push(b'\n');
            if let Err(error) = encoded.and_then(|()| io::stdout().lock().write_all(&line)) {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        })
    }

    /// Returns the first error of a write, if one failed.
    pub(crate) fn take_result(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}
