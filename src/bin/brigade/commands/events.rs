//! `--json-events`: every event of a run as a line of JSON.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bucket_brigade::{Event, Observer};
use serde_json::{Value, json};

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
            let encoded = json::write_json(&mut line, &event_json(event));
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

/// Returns the JSON of an event: its name, and its fields.
fn event_json(event: &Event) -> Value {
    match event {
        Event::RunStarted { destination } => json!({ "event": "run_started", "destination": destination }),
        Event::Planned { scanned, to_upload, bytes, to_delete } => json!({
            "event": "planned", "scanned": scanned, "to_upload": to_upload, "bytes": bytes, "to_delete": to_delete,
        }),
        Event::UploadStarted { key, bytes } => {
            json!({ "event": "upload_started", "key": key, "bytes": bytes })
        }
        Event::PartFinished { key, number, bytes, of, resumed } => json!({
            "event": "part_finished", "key": key, "number": number, "bytes": bytes, "of": of,
            "resumed": resumed,
        }),
        Event::UploadFinished { key, bytes, url, replaced } => json!({
            "event": "upload_finished", "key": key, "bytes": bytes, "url": url, "replaced": replaced,
        }),
        Event::UploadFailed { key, reason, kind, retryable } => json!({
            "event": "upload_failed", "key": key, "reason": reason, "code": kind.code(), "retryable": retryable,
        }),
        Event::Confirmed { key } => json!({ "event": "confirmed", "key": key }),
        Event::Adopted { key, bytes } => json!({ "event": "adopted", "key": key, "bytes": bytes }),
        Event::HeadersUpdated { key } => json!({ "event": "headers_updated", "key": key }),
        Event::Deleted { key } => json!({ "event": "deleted", "key": key }),
        Event::DeleteFailed { key, reason, kind, retryable } => json!({
            "event": "delete_failed", "key": key, "reason": reason, "code": kind.code(), "retryable": retryable,
        }),
        Event::Retrying { reason, attempt, wait } => json!({
            "event": "retrying", "reason": reason, "attempt": attempt, "wait_s": wait.as_secs_f64(),
        }),
        Event::Log { level, message, fields } => {
            let fields: serde_json::Map<String, Value> =
                fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
            json!({ "event": "log", "level": level.as_str().to_lowercase(), "message": message, "fields": fields })
        }
        Event::RunFinished { outcome } => json!({ "event": "run_finished", "outcome": outcome }),
        other => json!({ "event": "other", "text": format!("{other:?}") }),
    }
}
