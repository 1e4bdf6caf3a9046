//! The JSON of events, and of the records of the log.

use bucket_brigade::Event;
use serde_json::{Map, Value, json};

/// Returns the JSON of an event: its name, and its fields.
pub(crate) fn event_json(event: &Event) -> Value {
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
            let fields = log_fields(fields);
            json!({ "event": "log", "level": level.as_str().to_lowercase(), "message": message, "fields": fields })
        }
        Event::RunFinished { outcome } => json!({ "event": "run_finished", "outcome": outcome }),
        other => json!({ "event": "other", "text": format!("{other:?}") }),
    }
}

/// Returns the key-values of a record of the log as an object.
pub(crate) fn log_fields(fields: &[(&'static str, String)]) -> Value {
    let pairs = fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value)));
    Value::Object(pairs.collect::<Map<_, _>>())
}
