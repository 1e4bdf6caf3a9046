//! The counts of a report.

use bucket_brigade::{RescanReport, StopReason, StorageError};
use serde::Serialize;
use serde_json::Value;

use super::state::{StateObject, state_object};
use super::{
    Failure, Failures, PartialRun, VerifiedObject, adoption_json, failures, refusal_json, to_failure,
    verify_report,
};

/// The counts that `sync --json` and `plan --json` print.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    outcome: &'static str,
    stop_reason: Option<&'static str>,
    deletes_refused: Option<Value>,
    scanned: u64,
    unchanged: u64,
    uploaded: u64,
    uploaded_bytes: u64,
    headers_updated: u64,
    headers_resent: u64,
    adopted: u64,
    adopted_bytes: u64,
    adoption: Option<Value>,
    deleted: u64,
    kept: u64,
    skipped: u64,
    outside_sizes: u64,
    failed: Failures<'a>,
    failed_count: u64,
    pending: Option<u64>,
    open_uploads: Option<u64>,
    outage: Option<Failure>,
    verified: Option<VerifiedObject<'a>>,
    copied_cache: Option<VerifiedObject<'a>>,
    state: Option<StateObject<'a>>,
    requests: u64,
    connections: u64,
    retries: u64,
    elapsed_s: f64,
}

pub(super) fn report_counts(report: &RescanReport) -> Report<'_> {
    Report {
        outcome: report.outcome.as_str(),
        stop_reason: report.stop_reason.map(StopReason::as_str),
        deletes_refused: report.deletes_refused.as_ref().map(refusal_json),
        scanned: report.scanned,
        unchanged: report.unchanged,
        uploaded: report.uploaded_count,
        uploaded_bytes: report.uploaded_bytes,
        headers_updated: report.headers_updated_count,
        headers_resent: report.headers_resent_count,
        adopted: report.adopted_count,
        adopted_bytes: report.adopted_bytes,
        adoption: report.adoption.as_ref().map(adoption_json),
        deleted: report.deleted_count,
        kept: report.kept_count,
        skipped: report.skipped_count,
        outside_sizes: report.outside_sizes,
        failed: failures(&report.failed),
        failed_count: report.failed_count,
        pending: Some(report.pending),
        open_uploads: Some(report.open_uploads),
        outage: report.outage.as_ref().map(to_failure),
        verified: report.verified.as_ref().map(verify_report),
        copied_cache: report.copied_cache.as_ref().map(verify_report),
        state: report.state.as_ref().map(state_object),
        requests: report.metrics.requests,
        connections: report.metrics.connections,
        retries: report.metrics.retries,
        elapsed_s: report.elapsed.as_secs_f64(),
    }
}

/// Returns the counts of a run that an error ended.
pub(super) fn counts_at_error<'a>(error: &'a StorageError, done: &PartialRun) -> Report<'a> {
    let PartialRun { scanned, metrics, elapsed_s, .. } = done;
    Report {
        outcome: "error",
        stop_reason: None,
        deletes_refused: None,
        scanned: *scanned,
        unchanged: 0,
        uploaded: metrics.uploads,
        uploaded_bytes: metrics.upload_bytes,
        headers_updated: metrics.headers_updated,
        headers_resent: 0,
        adopted: done.adopted_count,
        adopted_bytes: done.adopted_bytes,
        adoption: None,
        deleted: metrics.deletes,
        kept: 0,
        skipped: 0,
        outside_sizes: 0,
        failed: failures(std::slice::from_ref(error)),
        failed_count: 1 + metrics.uploads_failed + metrics.deletes_failed,
        pending: None,
        open_uploads: None,
        outage: None,
        verified: None,
        copied_cache: None,
        state: None,
        requests: metrics.requests,
        connections: metrics.connections,
        retries: metrics.retries,
        elapsed_s: *elapsed_s,
    }
}
