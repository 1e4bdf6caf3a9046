//! The JSON forms of reports and events. Their names are part of the interface: fields are added, never
//! renamed or taken away. A report is written as it is read: it may hold 100,000 failures.

pub(crate) mod inquiry;

use std::io;
use std::path::Path;

use bucket_brigade::{
    DeletesRefused, Kept, MetricsSnapshot, PendingKind, RescanReport, Skip, StopReason, StorageError,
    TooMany, Uploaded, VerifyReport,
};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use serde_json::{Value, json};

use crate::printable::{PrintablePath, is_hidden};

/// Writes an object, with what nobody can see escaped.
pub(crate) fn write(out: impl io::Write, object: &impl Serialize) -> io::Result<()> {
    object.serialize(&mut serde_json::Serializer::with_formatter(out, Visible)).map_err(Into::into)
}

/// Escapes what [`Printable`](crate::printable::Printable) does; whoever reads the JSON gets the same text.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for part in fragment.split_inclusive(is_hidden) {
            let Some(last) = part.chars().next_back().filter(|last| is_hidden(*last)) else {
                writer.write_all(part.as_bytes())?;
                continue;
            };
            writer.write_all(&part.as_bytes()[..part.len() - last.len_utf8()])?;
            for unit in last.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// A list whose items are made one after another.
struct List<'a, T, U>(&'a [T], fn(&'a T) -> U);

impl<T, U: Serialize> Serialize for List<'_, T, U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// What failed: where, why, and whether it may go away by itself.
#[derive(Serialize)]
struct Failure {
    path: Option<String>,
    error: String,
    retryable: bool,
}

type Failures<'a> = List<'a, StorageError, Failure>;

fn failure(error: &StorageError) -> Failure {
    let path = error.key().map(str::to_owned);
    Failure {
        path: path.or_else(|| error.path().map(path_of)),
        error: error.to_string(),
        retryable: error.may_go_away(),
    }
}

/// A path that is not UTF-8 is shown as it is in the error.
fn path_of(path: &Path) -> String {
    path.to_str().map_or_else(|| PrintablePath(path).to_string(), str::to_owned)
}

fn failures(errors: &[StorageError]) -> Failures<'_> {
    List(errors, failure)
}

/// The counts that `sync --json` and `plan --json` print.
#[derive(Serialize)]
struct Report<'a> {
    outcome: &'static str,
    stop_reason: Option<&'static str>,
    deletes_refused: Option<Value>,
    scanned: u64,
    unchanged: u64,
    uploaded: u64,
    uploaded_bytes: u64,
    adopted: u64,
    deleted: u64,
    kept: u64,
    skipped: u64,
    failed: Failures<'a>,
    failed_count: u64,
    pending: Option<u64>,
    open_uploads: Option<u64>,
    outage: Option<Failure>,
    verified: Option<Verified<'a>>,
    requests: u64,
    connections: u64,
    retries: u64,
    elapsed_s: f64,
}

fn report(report: &RescanReport) -> Report<'_> {
    Report {
        outcome: report.outcome.as_str(),
        stop_reason: report.stop_reason.map(StopReason::as_str),
        deletes_refused: report.deletes_refused.as_ref().map(deletes_refused),
        scanned: report.scanned,
        unchanged: report.unchanged,
        uploaded: report.uploaded_count,
        uploaded_bytes: report.uploaded_bytes,
        adopted: report.adopted_count,
        deleted: report.deleted_count,
        kept: report.kept_count,
        skipped: report.skipped_count,
        failed: failures(&report.failed),
        failed_count: report.failed_count,
        pending: Some(report.pending),
        open_uploads: Some(report.open_uploads),
        outage: report.outage.as_ref().map(failure),
        verified: report.verified.as_ref().map(verified),
        requests: report.metrics.requests,
        connections: report.metrics.connections,
        retries: report.metrics.retries,
        elapsed_s: report.elapsed.as_secs_f64(),
    }
}

fn deletes_refused(refused: &DeletesRefused) -> Value {
    let (reason, limit) = match refused.reason {
        TooMany::Shrunk => ("shrunk", None),
        TooMany::NoneInCommon => ("none_in_common", None),
        TooMany::Cap(limit) => ("cap", Some(limit)),
        _ => ("other", None),
    };
    let DeletesRefused { removed, files, published, .. } = refused;
    json!({ "reason": reason, "limit": limit, "removed": removed, "files": files, "published": published })
}

/// What a run had done when an error ended it.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) scanned: u64,
    pub(crate) metrics: MetricsSnapshot,
    pub(crate) elapsed_s: f64,
    pub(crate) sent: Vec<Sent>,
    pub(crate) deleted: Vec<String>,
}

/// A file that was sent before an error ended its run.
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) url: String,
    pub(crate) replaced: bool,
}

/// The same object for a run that an error ended: its outcome is `error`, and what failed says why.
pub(crate) fn refusal<'a>(error: &'a StorageError, done: &'a Done) -> Synced<'a> {
    let listed = |sent: &'a Sent| File {
        key: &sent.key,
        bytes: sent.bytes,
        kind: kind(if sent.replaced { PendingKind::Modified } else { PendingKind::Added }),
        url: &sent.url,
    };
    Synced {
        report: counts_at_error(error, done),
        uploaded_list: Files::Sent(List(&done.sent, listed)),
        deleted_list: &done.deleted,
        kept_list: List(&[], kept_key),
        skipped_list: List(&[], ToString::to_string),
        adopted_list: &[],
    }
}

/// The object of a plan that was refused.
pub(crate) fn refused_plan<'a>(error: &'a StorageError, done: &Done) -> Plan<'a> {
    Plan {
        report: counts_at_error(error, done),
        upload_list: List(&[], file),
        delete_list: &[],
        kept_list: List(&[], kept_key),
        skipped_list: List(&[], ToString::to_string),
    }
}

/// The object of a question that was refused.
pub(crate) fn refused(error: &StorageError) -> impl Serialize {
    counts_at_error(error, &Done::default())
}

fn counts_at_error<'a>(error: &'a StorageError, done: &Done) -> Report<'a> {
    let Done { scanned, metrics, elapsed_s, .. } = done;
    Report {
        outcome: "error",
        stop_reason: None,
        deletes_refused: None,
        scanned: *scanned,
        unchanged: 0,
        uploaded: metrics.uploads,
        uploaded_bytes: metrics.upload_bytes,
        adopted: 0,
        deleted: metrics.deletes,
        kept: 0,
        skipped: 0,
        failed: failures(std::slice::from_ref(error)),
        failed_count: 1 + metrics.uploads_failed + metrics.deletes_failed,
        pending: None,
        open_uploads: None,
        outage: None,
        verified: None,
        requests: metrics.requests,
        connections: metrics.connections,
        retries: metrics.retries,
        elapsed_s: *elapsed_s,
    }
}

#[derive(Serialize)]
struct File<'a> {
    key: &'a str,
    bytes: u64,
    kind: &'static str,
    url: &'a str,
}

#[derive(Serialize)]
struct KeptKey<'a> {
    key: &'a str,
    reason: &'static str,
}

fn file(file: &Uploaded) -> File<'_> {
    File { key: &file.key, bytes: file.bytes, kind: kind(file.kind), url: &file.url }
}

fn kept_key(kept: &Kept) -> KeptKey<'_> {
    KeptKey { key: &kept.key, reason: kept.reason.as_str() }
}

/// Files of a report, or of a run that has none.
#[derive(Serialize)]
#[serde(untagged)]
enum Files<'a> {
    Uploaded(List<'a, Uploaded, File<'a>>),
    Sent(List<'a, Sent, File<'a>>),
}

/// What `sync --json` prints: the report of what was done, and the lists of it.
#[derive(Serialize)]
pub(crate) struct Synced<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    uploaded_list: Files<'a>,
    deleted_list: &'a [String],
    kept_list: List<'a, Kept, KeptKey<'a>>,
    skipped_list: List<'a, Skip, String>,
    adopted_list: &'a [String],
}

pub(crate) fn synced(done: &RescanReport) -> Synced<'_> {
    Synced {
        report: report(done),
        uploaded_list: Files::Uploaded(List(&done.uploaded, file)),
        deleted_list: &done.deleted,
        kept_list: List(&done.kept, kept_key),
        skipped_list: List(&done.skipped, ToString::to_string),
        adopted_list: &done.adopted,
    }
}

/// What `plan --json` prints: the report of what would be done, and the lists of it.
#[derive(Serialize)]
pub(crate) struct Plan<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    upload_list: List<'a, Uploaded, File<'a>>,
    delete_list: &'a [String],
    kept_list: List<'a, Kept, KeptKey<'a>>,
    skipped_list: List<'a, Skip, String>,
}

pub(crate) fn plan(planned: &RescanReport) -> Plan<'_> {
    Plan {
        report: report(planned),
        upload_list: List(&planned.uploaded, file),
        delete_list: &planned.deleted,
        kept_list: List(&planned.kept, kept_key),
        skipped_list: List(&planned.skipped, ToString::to_string),
    }
}

fn kind(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Added => "added",
        PendingKind::Modified => "modified",
        PendingKind::Removed => "removed",
        PendingKind::Unsettled => "unsettled",
        _ => "other",
    }
}

/// What `verify --json` prints, and what a report has where it was asked for.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are the interface's")]
pub(crate) struct Verified<'a> {
    good: bool,
    complete: bool,
    matching: u64,
    contents: u64,
    missing: &'a [String],
    missing_count: u64,
    different: &'a [String],
    different_count: u64,
    unsettled: &'a [String],
    unsettled_count: u64,
    unknown: &'a [String],
    unknown_count: u64,
    sizes_only: u64,
    repaired: u64,
    failed: Failures<'a>,
    failed_count: u64,
}

pub(crate) fn verified(found: &VerifyReport) -> Verified<'_> {
    Verified {
        good: found.is_good(),
        complete: found.complete,
        matching: found.matching,
        contents: found.contents,
        missing: &found.missing,
        missing_count: found.missing_count,
        different: &found.different,
        different_count: found.different_count,
        unsettled: &found.unsettled,
        unsettled_count: found.unsettled_count,
        unknown: &found.unknown,
        unknown_count: found.unknown_count,
        sizes_only: found.sizes_only,
        repaired: found.repaired,
        failed: failures(&found.failed),
        failed_count: found.failed_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s2_what_nobody_can_see_is_escaped_and_read_back_as_it_was() {
        let text = "a\u{202e}b\u{9b}\u{200f}\n\"\\\u{e0041}é\u{1f600}";
        let mut written = Vec::new();
        write(&mut written, &json!({ "name": text })).unwrap();
        let written = String::from_utf8(written).unwrap();
        let expected = "{\"name\":\"a\\u202eb\\u009b\\u200f\\n\\\"\\\\\\udb40\\udc41é\u{1f600}\"}";
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap()["name"], text);
    }
}
