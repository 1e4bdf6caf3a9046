//! The JSON of commands that only read: `status` and `uploads`.

use bucket_brigade::{AbortedUploads, CacheSummary, PendingFile, StateReport, UnfinishedUpload};
use serde::Serialize;
use serde_json::{Value, json};

use super::state::{StateObject, state_object};
use super::{Failures, List, failures, kind_name};

#[derive(Serialize)]
struct PendingKey<'a> {
    key: &'a str,
    kind: &'static str,
    bytes: u64,
}

/// The object of `status --json`.
#[derive(Serialize)]
pub(crate) struct Status<'a> {
    destination: &'a str,
    cache: &'a str,
    cache_exists: bool,
    synced: bool,
    published: u64,
    published_bytes: u64,
    open_uploads: u64,
    pending: List<'a, PendingFile, PendingKey<'a>>,
    state: Option<StateObject<'a>>,
}

pub(crate) fn status_object<'a>(
    destination: &'a str,
    cache: &'a str,
    held: Option<(&'a CacheSummary, &'a [PendingFile])>,
    state: Option<&'a StateReport>,
) -> Status<'a> {
    let summary = held.map(|(summary, _)| summary);
    let pending = held.map(|(_, pending)| pending).unwrap_or_default();
    Status {
        destination,
        cache,
        cache_exists: summary.is_some(),
        synced: summary.is_some_and(|summary| summary.synced),
        published: summary.map_or(0, |summary| summary.published),
        published_bytes: summary.map_or(0, |summary| summary.published_bytes),
        open_uploads: summary.map_or(0, |summary| summary.open_uploads),
        pending: List(pending, |file| PendingKey {
            key: &file.key,
            kind: kind_name(file.kind),
            bytes: file.size,
        }),
        state: state.map(state_object),
    }
}

fn upload_json(upload: &UnfinishedUpload) -> Value {
    json!({
        "key": upload.key,
        "upload_id": upload.upload_id,
        "bytes": upload.size,
        "sent_bytes": upload.sent,
        "certain": upload.certain,
    })
}

/// The object of `uploads --json`.
#[derive(Serialize)]
pub(crate) struct Uploads<'a> {
    open: List<'a, UnfinishedUpload, Value>,
}

pub(crate) fn uploads_object(open: &[UnfinishedUpload]) -> Uploads<'_> {
    Uploads { open: List(open, upload_json) }
}

/// The object of `uploads --abort --json`.
#[derive(Serialize)]
pub(crate) struct Aborted<'a> {
    aborted: List<'a, UnfinishedUpload, Value>,
    left: List<'a, UnfinishedUpload, Value>,
    failed: Failures<'a>,
}

pub(crate) fn aborted_object(result: &AbortedUploads) -> Aborted<'_> {
    Aborted {
        aborted: List(&result.aborted, upload_json),
        left: List(&result.left, upload_json),
        failed: failures(&result.failed),
    }
}
