//! The JSON of reports. Field names are part of the interface: fields are added, never renamed or removed.
//! A report is serialized without a copy of its lists, which may hold 100,000 items each.

mod counts;
pub(crate) mod events;
pub(crate) mod queries;
pub(crate) mod rebuild;
pub(crate) mod state;

use std::io;
use std::path::Path;

use bucket_brigade::{
    Adoption, DeletesRefused, Kept, MetricsSnapshot, PendingKind, RescanReport, Skip, StorageError, TooMany,
    Uploaded, VerifyReport,
};
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;
use serde_json::{Value, json};

use self::counts::{Report, counts_at_error, report_counts};
use crate::printable::{PrintablePath, is_hidden};

/// Writes an object as JSON, with invisible characters escaped.
pub(crate) fn write_json(out: impl io::Write, object: &impl Serialize) -> io::Result<()> {
    object.serialize(&mut serde_json::Serializer::with_formatter(out, EscapeInvisible)).map_err(Into::into)
}

/// Escapes the characters that [`Printable`](crate::printable::Printable) escapes, as `\uXXXX`: a reader of the JSON
/// gets the original text.
struct EscapeInvisible;

impl Formatter for EscapeInvisible {
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
            // JSON writes a character beyond U+FFFF as two escapes.
            for unit in last.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }
}

/// A list that is serialized item by item, each converted when its turn comes.
struct List<'a, T, U>(&'a [T], fn(&'a T) -> U);

impl<T, U: Serialize> Serialize for List<'_, T, U> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// A failure: its place, its reason, and whether it may go away without a change.
#[derive(Serialize)]
struct Failure {
    path: Option<String>,
    error: String,
    retryable: bool,
}

type Failures<'a> = List<'a, StorageError, Failure>;

fn to_failure(error: &StorageError) -> Failure {
    let path = error.key().map(str::to_owned);
    Failure {
        path: path.or_else(|| error.path().map(path_text)),
        error: error.to_string(),
        retryable: error.may_go_away(),
    }
}

/// Returns a path as text; one that is not UTF-8 is escaped as in the error's text.
fn path_text(path: &Path) -> String {
    path.to_str().map_or_else(|| PrintablePath(path).to_string(), str::to_owned)
}

fn failures(errors: &[StorageError]) -> Failures<'_> {
    List(errors, to_failure)
}

pub(crate) fn adoption_json(found: &Adoption) -> Value {
    let Adoption { listed, different, without_file, head_requests, .. } = found;
    json!({
        "listed": listed, "different": different, "without_file": without_file, "head_requests": head_requests,
    })
}

fn refusal_json(refused: &DeletesRefused) -> Value {
    let (reason, limit) = match refused.reason {
        TooMany::Shrunk => ("shrunk", None),
        TooMany::NoneInCommon => ("none_in_common", None),
        TooMany::Cap(limit) => ("cap", Some(limit)),
        _ => ("other", None),
    };
    let DeletesRefused { removed, files, published, .. } = refused;
    json!({ "reason": reason, "limit": limit, "removed": removed, "files": files, "published": published })
}

/// The work of a run up to the error that ended it.
#[derive(Default)]
pub(crate) struct PartialRun {
    pub(crate) scanned: u64,
    pub(crate) metrics: MetricsSnapshot,
    pub(crate) elapsed_s: f64,
    pub(crate) sent: Vec<Sent>,
    pub(crate) deleted: Vec<String>,
    pub(crate) headers_updated: Vec<String>,
    pub(crate) adopted: Vec<String>,
    pub(crate) adopted_count: u64,
    pub(crate) adopted_bytes: u64,
}

/// A file that was sent before an error ended its run.
pub(crate) struct Sent {
    pub(crate) key: String,
    pub(crate) bytes: u64,
    pub(crate) url: String,
    pub(crate) replaced: bool,
}

/// Returns the object of a sync that an error ended: its outcome is `error`, and `failed` holds the error.
pub(crate) fn failed_sync<'a>(error: &'a StorageError, done: &'a PartialRun) -> SyncReport<'a> {
    let to_file = |sent: &'a Sent| File {
        key: &sent.key,
        bytes: sent.bytes,
        kind: kind_name(if sent.replaced { PendingKind::Modified } else { PendingKind::Added }),
        url: &sent.url,
    };
    SyncReport {
        report: counts_at_error(error, done),
        uploaded_list: Files::Sent(List(&done.sent, to_file)),
        deleted_list: &done.deleted,
        kept_list: List(&[], kept_key),
        skipped_list: List(&[], ToString::to_string),
        headers_updated_list: &done.headers_updated,
        adopted_list: &done.adopted,
    }
}

/// Returns the object of a sync that an error ended before it began.
pub(crate) fn failed_sync_early(error: &StorageError) -> SyncReport<'_> {
    SyncReport {
        report: counts_at_error(error, &PartialRun::default()),
        uploaded_list: Files::Uploaded(List(&[], uploaded_file)),
        deleted_list: &[],
        kept_list: List(&[], kept_key),
        skipped_list: List(&[], ToString::to_string),
        headers_updated_list: &[],
        adopted_list: &[],
    }
}

/// Returns the object of a plan that an error ended.
pub(crate) fn failed_plan(error: &StorageError) -> PlanReport<'_> {
    PlanReport {
        report: counts_at_error(error, &PartialRun::default()),
        upload_list: List(&[], uploaded_file),
        delete_list: &[],
        kept_list: List(&[], kept_key),
        skipped_list: List(&[], ToString::to_string),
        headers_updated_list: &[],
        adopted_list: &[],
    }
}

/// Returns the object of another command that an error ended.
pub(crate) fn failed_query(error: &StorageError) -> Report<'_> {
    counts_at_error(error, &PartialRun::default())
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

fn uploaded_file(file: &Uploaded) -> File<'_> {
    File { key: &file.key, bytes: file.bytes, kind: kind_name(file.kind), url: &file.url }
}

fn kept_key(kept: &Kept) -> KeptKey<'_> {
    KeptKey { key: &kept.key, reason: kept.reason.as_str() }
}

/// Uploaded files: of a report, or of a run that an error ended.
#[derive(Serialize)]
#[serde(untagged)]
enum Files<'a> {
    Uploaded(List<'a, Uploaded, File<'a>>),
    Sent(List<'a, Sent, File<'a>>),
}

/// The object of `sync --json`: counts, and lists of what was done.
#[derive(Serialize)]
pub(crate) struct SyncReport<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    uploaded_list: Files<'a>,
    deleted_list: &'a [String],
    kept_list: List<'a, Kept, KeptKey<'a>>,
    skipped_list: List<'a, Skip, String>,
    headers_updated_list: &'a [String],
    adopted_list: &'a [String],
}

pub(crate) fn sync_report(done: &RescanReport) -> SyncReport<'_> {
    SyncReport {
        report: report_counts(done),
        uploaded_list: Files::Uploaded(List(&done.uploaded, uploaded_file)),
        deleted_list: &done.deleted,
        kept_list: List(&done.kept, kept_key),
        skipped_list: List(&done.skipped, ToString::to_string),
        headers_updated_list: &done.headers_updated,
        adopted_list: &done.adopted,
    }
}

/// The object of `plan --json`: counts, and lists of what would be done.
#[derive(Serialize)]
pub(crate) struct PlanReport<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    upload_list: List<'a, Uploaded, File<'a>>,
    delete_list: &'a [String],
    kept_list: List<'a, Kept, KeptKey<'a>>,
    skipped_list: List<'a, Skip, String>,
    headers_updated_list: &'a [String],
    adopted_list: &'a [String],
}

pub(crate) fn plan_report(planned: &RescanReport) -> PlanReport<'_> {
    PlanReport {
        report: report_counts(planned),
        upload_list: List(&planned.uploaded, uploaded_file),
        delete_list: &planned.deleted,
        kept_list: List(&planned.kept, kept_key),
        skipped_list: List(&planned.skipped, ToString::to_string),
        headers_updated_list: &planned.headers_updated,
        adopted_list: &planned.adopted,
    }
}

fn kind_name(kind: PendingKind) -> &'static str {
    match kind {
        PendingKind::Added => "added",
        PendingKind::Modified => "modified",
        PendingKind::Headers => "headers",
        PendingKind::Removed => "removed",
        PendingKind::Unsettled => "unsettled",
        _ => "other",
    }
}

/// The object of `verify --json`, and of `verified` in a report.
#[derive(Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are the interface's")]
pub(crate) struct VerifiedObject<'a> {
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

pub(crate) fn verify_report(found: &VerifyReport) -> VerifiedObject<'_> {
    VerifiedObject {
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
    fn s2_invisible_characters_are_escaped_and_read_back_unchanged() {
        let text = "a\u{202e}b\u{9b}\u{200f}\n\"\\\u{e0041}é\u{1f600}";
        let mut written = Vec::new();
        write_json(&mut written, &json!({ "name": text })).unwrap();
        let written = String::from_utf8(written).unwrap();
        let expected = "{\"name\":\"a\\u202eb\\u009b\\u200f\\n\\\"\\\\\\udb40\\udc41é\u{1f600}\"}";
        assert_eq!(written, expected);
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap()["name"], text);
    }
}
