//! The report of a rescan.

use std::ffi::{CString, c_char};
use std::ptr;

use crate::capi::boundary::{Lazy, access, access_text, c_text, free};
use crate::capi::error::bb_error;
use crate::capi::state::bb_state;
use crate::json::{plan_report, sync_report, write_json};
use crate::rescan::report::{RescanOutcome, RescanReport, StopReason};

/// The report of a rescan or a plan. Keys are without the prefix, sizes in bytes. Threads may share it.
pub struct bb_report {
    report: RescanReport,
    outage: Option<bb_error>,
    state: Option<bb_state>,
    /// Made when they are asked for: lists may have 100,000 items.
    lists: [Lazy<Vec<CString>>; LISTS],
    failures: Lazy<Vec<bb_error>>,
    json: Lazy<CString>,
}

impl From<RescanReport> for bb_report {
    fn from(report: RescanReport) -> Self {
        let outage = report.outage.as_ref().map(bb_error::from);
        let state = report.state.clone().map(bb_state::from);
        let (lists, failures, json) = (Default::default(), Lazy::new(), Lazy::new());
        Self { report, outage, state, lists, failures, json }
    }
}

/// The outcome of a rescan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_outcome {
    /// There is no report.
    BB_OUTCOME_NONE = 0,
    /// There was nothing to do.
    BB_OUTCOME_UNCHANGED = 1,
    /// Everything was done.
    BB_OUTCOME_PUBLISHED = 2,
    /// Something failed, was refused or was skipped, and stays pending.
    BB_OUTCOME_PARTIAL = 3,
    /// The store was unavailable. The changes on disk are recorded, and nothing was published.
    BB_OUTCOME_LOCAL_ONLY = 4,
}

impl From<RescanOutcome> for bb_outcome {
    fn from(outcome: RescanOutcome) -> Self {
        match outcome {
            RescanOutcome::Unchanged => Self::BB_OUTCOME_UNCHANGED,
            RescanOutcome::Published => Self::BB_OUTCOME_PUBLISHED,
            RescanOutcome::Partial => Self::BB_OUTCOME_PARTIAL,
            RescanOutcome::LocalOnly => Self::BB_OUTCOME_LOCAL_ONLY,
        }
    }
}

/// The reason why a rescan stopped before everything was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_stop_reason {
    /// It did not stop early.
    BB_STOP_NONE = 0,
    /// It was cancelled.
    BB_STOP_CANCELLED = 1,
    /// The deadline passed.
    BB_STOP_DEADLINE = 2,
    /// Too many files are gone: nothing was deleted. `max_delete` and `allow_empty` allow it.
    BB_STOP_DELETES_REFUSED = 3,
    /// The store refused the credentials.
    BB_STOP_CREDENTIALS = 4,
    /// The store was unavailable.
    BB_STOP_UNAVAILABLE = 5,
    /// Another run is publishing, or a newer build was published.
    BB_STOP_CLAIMED = 6,
    /// Another run has taken over.
    BB_STOP_SUPERSEDED = 7,
}

impl From<StopReason> for bb_stop_reason {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Cancelled => Self::BB_STOP_CANCELLED,
            StopReason::Deadline => Self::BB_STOP_DEADLINE,
            StopReason::DeletesRefused => Self::BB_STOP_DELETES_REFUSED,
            StopReason::Credentials => Self::BB_STOP_CREDENTIALS,
            StopReason::Unavailable => Self::BB_STOP_UNAVAILABLE,
            StopReason::Claimed => Self::BB_STOP_CLAIMED,
            StopReason::Superseded => Self::BB_STOP_SUPERSEDED,
        }
    }
}

/// A count of a report. Counts are always whole, also where a list ends after 100,000 items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_count {
    /// Files found.
    BB_COUNT_SCANNED = 1,
    /// Files whose published version is up to date.
    BB_COUNT_UNCHANGED = 2,
    /// Files uploaded; of a plan, to be uploaded.
    BB_COUNT_UPLOADED = 3,
    /// Their bytes.
    BB_COUNT_UPLOADED_BYTES = 4,
    /// Objects that got other headers by a copy in place.
    BB_COUNT_HEADERS_UPDATED = 5,
    /// Objects that held the content of their files already, and were taken over.
    BB_COUNT_ADOPTED = 6,
    /// Their bytes.
    BB_COUNT_ADOPTED_BYTES = 7,
    /// Objects deleted; of a plan, to be deleted.
    BB_COUNT_DELETED = 8,
    /// Failures.
    BB_COUNT_FAILED = 9,
    /// Objects kept although their files were not found or are left out now.
    BB_COUNT_KEPT = 10,
    /// Directory entries that are not published, such as symbolic links.
    BB_COUNT_SKIPPED = 11,
    /// Keys with work left to do.
    BB_COUNT_PENDING = 12,
    /// Multipart uploads that are left open.
    BB_COUNT_OPEN_UPLOADS = 13,
    /// Requests sent.
    BB_COUNT_REQUESTS = 14,
    /// Retries of requests.
    BB_COUNT_RETRIES = 15,
    /// Milliseconds that it took.
    BB_COUNT_ELAPSED_MS = 16,
}

/// A list of keys in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_list {
    /// Files uploaded; of a plan, to be uploaded.
    BB_LIST_UPLOADED = 1,
    /// Objects deleted; of a plan, to be deleted.
    BB_LIST_DELETED = 2,
    /// Objects that got other headers.
    BB_LIST_HEADERS_UPDATED = 3,
    /// Objects that were taken over.
    BB_LIST_ADOPTED = 4,
    /// Objects kept although their files were not found.
    BB_LIST_KEPT = 5,
    /// Directory entries that are not published, each with the reason.
    BB_LIST_SKIPPED = 6,
    /// URLs of the files uploaded, in the order of `BB_LIST_UPLOADED`.
    BB_LIST_UPLOADED_URLS = 7,
}

const LISTS: usize = 7;

impl bb_report {
    fn count(&self, which: u32) -> u64 {
        let report = &self.report;
        match which {
            1 => report.scanned,
            2 => report.unchanged,
            3 => report.uploaded_count,
            4 => report.uploaded_bytes,
            5 => report.headers_updated_count,
            6 => report.adopted_count,
            7 => report.adopted_bytes,
            8 => report.deleted_count,
            9 => report.failed_count,
            10 => report.kept_count,
            11 => report.skipped_count,
            12 => report.pending,
            13 => report.open_uploads,
            14 => report.metrics.requests,
            15 => report.metrics.retries,
            16 => u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    /// Returns the items of a list; none for a number that is not known.
    fn list(&self, which: u32) -> &[CString] {
        let report = &self.report;
        let texts = || -> Vec<CString> {
            match which {
                1 => report.uploaded.iter().map(|file| c_text(file.key.as_str())).collect(),
                2 => report.deleted.iter().map(|key| c_text(key.as_str())).collect(),
                3 => report.headers_updated.iter().map(|key| c_text(key.as_str())).collect(),
                4 => report.adopted.iter().map(|key| c_text(key.as_str())).collect(),
                5 => report.kept.iter().map(|kept| c_text(kept.key.as_str())).collect(),
                6 => report.skipped.iter().map(|skip| c_text(skip.to_string())).collect(),
                _ => report.uploaded.iter().map(|file| c_text(file.url.as_str())).collect(),
            }
        };
        let number = (which as usize).checked_sub(1).and_then(|number| self.lists.get(number));
        number.map_or(&[], |list| list.get_or_init(|| Box::new(texts())))
    }

    fn failures(&self) -> &[bb_error] {
        self.failures.get_or_init(|| Box::new(self.report.failed.iter().map(bb_error::from).collect()))
    }

    fn json(&self) -> &CString {
        self.json.get_or_init(|| {
            let mut json = Vec::new();
            // Writing to memory cannot fail.
            let _ = if self.report.dry_run {
                write_json(&mut json, &plan_report(&self.report))
            } else {
                write_json(&mut json, &sync_report(&self.report))
            };
            Box::new(c_text(json))
        })
    }
}

/// Returns the outcome; `BB_OUTCOME_NONE` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_outcome(report: *const bb_report) -> bb_outcome {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, bb_outcome::BB_OUTCOME_NONE, |report| report.report.outcome.into())
}

/// Returns the name of an outcome: "unchanged", "published", "partial", "local_only" or "none". Lives as long
/// as the program.
///
/// @param outcome a bb_outcome
#[unsafe(no_mangle)]
pub extern "C" fn bb_outcome_name(outcome: u32) -> *const c_char {
    match outcome {
        1 => c"unchanged",
        2 => c"published",
        3 => c"partial",
        4 => c"local_only",
        _ => c"none",
    }
    .as_ptr()
}

/// Returns true if the bucket is now as the tree was: the outcome is unchanged or published. False for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_is_complete(report: *const bb_report) -> bool {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, false, |report| {
        matches!(report.report.outcome, RescanOutcome::Unchanged | RescanOutcome::Published)
    })
}

/// Returns the reason why it stopped early, if it did.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_stop_reason(report: *const bb_report) -> bb_stop_reason {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, bb_stop_reason::BB_STOP_NONE, |report| {
        report.report.stop_reason.map_or(bb_stop_reason::BB_STOP_NONE, Into::into)
    })
}

/// Returns a count of the report; 0 for one that is not known.
///
/// @param count a bb_count
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_count(report: *const bb_report, count: u32) -> u64 {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, 0, |report| report.count(count))
}

/// Returns the number of items of a list, at most 100,000.
///
/// @param list a bb_list
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_list_length(report: *const bb_report, list: u32) -> usize {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, 0, |report| report.list(list).len())
}

/// Returns an item of a list; NULL beyond the last one. Lives as long as the report.
///
/// @param list a bb_list
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_item(report: *const bb_report, list: u32, index: usize) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { report.as_ref() }, |report| report.list(list).get(index).map(CString::as_c_str))
}

/// Returns a failure; NULL beyond the last one. The report lends it: do not free it.
///
/// @param index less than `BB_COUNT_FAILED`, of which the first 100,000 are there
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_failure(report: *const bb_report, index: usize) -> *const bb_error {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, ptr::null(), |report| {
        report.failures().get(index).map_or(ptr::null(), |failure| &raw const *failure)
    })
}

/// Returns the first error that showed the store unreachable or out of order; NULL if none did. The report
/// lends it: do not free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_outage(report: *const bb_report) -> *const bb_error {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, ptr::null(), |report| {
        report.outage.as_ref().map_or(ptr::null(), |outage| &raw const *outage)
    })
}

/// Returns the state in the bucket; NULL if the state is local or was not read. The report lends it: do not
/// free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_state(report: *const bb_report) -> *const bb_state {
    // SAFETY: NULL or a live handle.
    access(unsafe { report.as_ref() }, ptr::null(), |report| {
        report.state.as_ref().map_or(ptr::null(), |state| &raw const *state)
    })
}

/// Returns all of it as JSON on one line, as `brigade sync --json` or `brigade plan --json` prints it; NULL
/// for NULL. Lives as long as the report.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_json(report: *const bb_report) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { report.as_ref() }, |report| Some(report.json()))
}

/// Frees a report and all that it has lent. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_report_free(report: *mut bb_report) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(report) };
}
