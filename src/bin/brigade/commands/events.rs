//! `--json-events`: every event of a run as a line.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bucket_brigade::{Event, Observer};
use serde_json::{Value, json};

use crate::json;

/// Every event as a line, on the thread where it happens: a slow reader slows the run, and loses nothing.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Option<io::Error>>>);

impl Events {
    pub(crate) fn before(self, also: Arc<dyn Observer>) -> Arc<dyn Observer> {
        Arc::new(move |event: &Event| {
            also.event(event);
            let mut line = Vec::new();
            let made = json::write(&mut line, &object(event));
            line.push(b'\n');
            if let Err(error) = made.and_then(|()| io::stdout().lock().write_all(&line)) {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        })
    }

    /// Why lines are missing, if any are.
    pub(crate) fn written(&self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

/// A line of `--json-events`: the event's name, and its fields.
fn object(event: &Event) -> Value {
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
