//! The JSON forms of reports and events. Their names are part of the interface: fields are added, never
//! renamed or taken away.

use bucket_brigade::{
    AbortedUploads, CacheSummary, Event, PendingFile, PendingKind, RescanReport, StopReason, StorageError,
    UnfinishedUpload, VerifyReport,
};
use serde_json::{Value, json};

/// What failed: where, why, and whether it may go away by itself.
pub(crate) fn failure(error: &StorageError) -> Value {
    let path = error.key().map(str::to_owned);
    let path = path.or_else(|| error.path().map(|path| path.to_string_lossy().into_owned()));
    json!({ "path": path, "error": error.to_string(), "retryable": error.is_retryable() || error.kind().is_transient() })
}

fn failures(errors: &[StorageError]) -> Vec<Value> {
    errors.iter().map(failure).collect()
}

/// The object that `sync --json` prints.
pub(crate) fn report(report: &RescanReport) -> Value {
    json!({
        "outcome": report.outcome.as_str(),
        "stop_reason": report.stop_reason.map(StopReason::as_str),
        "scanned": report.scanned,
        "unchanged": report.unchanged,
        "uploaded": report.uploaded_count,
        "uploaded_bytes": report.uploaded_bytes,
        "deleted": report.deleted_count,
        "kept": report.kept_count,
        "skipped": report.skipped_count,
        "failed": failures(&report.failed),
        "failed_count": report.failed_count,
        "pending": report.pending,
        "open_uploads": report.open_uploads,
        "verified": report.verified.as_ref().map(verified),
        "requests": report.metrics.requests,
        "connections": report.metrics.connections,
        "retries": report.metrics.retries,
        "elapsed_s": report.elapsed.as_secs_f64(),
    })
}

/// The same object for a run that could not be made: its outcome is `error`, and what failed says why.
pub(crate) fn refusal(error: &StorageError) -> Value {
    json!({
        "outcome": "error",
        "stop_reason": null,
        "scanned": 0,
        "unchanged": 0,
        "uploaded": 0,
        "uploaded_bytes": 0,
        "deleted": 0,
        "kept": 0,
        "skipped": 0,
        "failed": [failure(error)],
        "failed_count": 1,
        "pending": null,
        "open_uploads": null,
        "verified": null,
        "requests": 0,
        "connections": 0,
        "retries": 0,
        "elapsed_s": 0.0,
    })
}

/// What `plan --json` prints: the report of what would be done, and the lists of it.
pub(crate) fn plan(planned: &RescanReport) -> Value {
    let upload: Vec<Value> = planned
        .uploaded
        .iter()
        .map(|file| json!({ "key": file.key, "bytes": file.bytes, "kind": kind(file.kind), "url": file.url }))
        .collect();
    let kept: Vec<Value> =
        planned.kept.iter().map(|kept| json!({ "key": kept.key, "reason": kept.reason.as_str() })).collect();
    let skipped: Vec<String> = planned.skipped.iter().map(ToString::to_string).collect();
    let mut object = report(planned);
    for (name, list) in [
        ("upload_list", json!(upload)),
        ("delete_list", json!(planned.deleted)),
        ("kept_list", json!(kept)),
        ("skipped_list", json!(skipped)),
    ] {
        object[name] = list;
    }
    object
}

fn kind(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Added => "added",
        PendingKind::Modified => "modified",
        PendingKind::Removed => "removed",
        _ => "other",
    }
}

/// What `status --json` prints.
pub(crate) fn status(destination: &str, cache: &str, held: Option<(&CacheSummary, &[PendingFile])>) -> Value {
    let pending: Vec<Value> = held
        .map(|(_, pending)| pending.iter())
        .unwrap_or_default()
        .map(|file| json!({ "key": file.key, "kind": kind(file.kind), "bytes": file.size }))
        .collect();
    let summary = held.map(|(summary, _)| summary);
    json!({
        "destination": destination,
        "cache": cache,
        "cache_exists": summary.is_some(),
        "synced": summary.is_some_and(|summary| summary.synced),
        "published": summary.map_or(0, |summary| summary.published),
        "published_bytes": summary.map_or(0, |summary| summary.published_bytes),
        "open_uploads": summary.map_or(0, |summary| summary.open_uploads),
        "pending": pending,
    })
}

/// What `verify --json` prints, and what a report has where it was asked for.
pub(crate) fn verified(found: &VerifyReport) -> Value {
    json!({
        "good": found.is_good(),
        "complete": found.complete,
        "matching": found.matching,
        "contents": found.contents,
        "missing": found.missing,
        "missing_count": found.missing_count,
        "different": found.different,
        "different_count": found.different_count,
        "unknown": found.unknown,
        "unknown_count": found.unknown_count,
        "failed": failures(&found.failed),
        "failed_count": found.failed_count,
    })
}

fn unfinished(upload: &UnfinishedUpload) -> Value {
    json!({
        "key": upload.key,
        "upload_id": upload.upload_id,
        "bytes": upload.size,
        "sent_bytes": upload.sent,
        "certain": upload.certain,
    })
}

/// What `uploads --json` prints.
pub(crate) fn uploads(open: &[UnfinishedUpload]) -> Value {
    json!({ "open": open.iter().map(unfinished).collect::<Vec<_>>() })
}

/// What `uploads --abort --json` prints.
pub(crate) fn aborted(result: &AbortedUploads) -> Value {
    json!({
        "aborted": result.aborted.iter().map(unfinished).collect::<Vec<_>>(),
        "left": result.left.iter().map(unfinished).collect::<Vec<_>>(),
        "failed": failures(&result.failed),
    })
}

/// A line of `--json-events`: the event's name, and its fields.
pub(crate) fn event(event: &Event) -> Value {
    match event {
        Event::RunStarted { destination } => json!({ "event": "run_started", "destination": destination }),
        Event::Planned { scanned, to_upload, bytes, to_delete } => json!({
            "event": "planned", "scanned": scanned, "to_upload": to_upload, "bytes": bytes, "to_delete": to_delete,
        }),
        Event::UploadStarted { key, bytes } => {
            json!({ "event": "upload_started", "key": key, "bytes": bytes })
        }
        Event::PartFinished { key, number, bytes, of } => json!({
            "event": "part_finished", "key": key, "number": number, "bytes": bytes, "of": of,
        }),
        Event::UploadFinished { key, bytes, url } => {
            json!({ "event": "upload_finished", "key": key, "bytes": bytes, "url": url })
        }
        Event::UploadFailed { key, reason } => {
            json!({ "event": "upload_failed", "key": key, "reason": reason })
        }
        Event::Confirmed { key } => json!({ "event": "confirmed", "key": key }),
        Event::Deleted { key } => json!({ "event": "deleted", "key": key }),
        Event::DeleteFailed { key, reason } => {
            json!({ "event": "delete_failed", "key": key, "reason": reason })
        }
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
