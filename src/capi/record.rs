//! What a site tells of itself: pending files, a summary of the cache, counters.

use std::ffi::{CString, c_char};

use crate::capi::boundary::{Fault, Place, access, access_text, c_text, free, required, write_known};
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::site::bb_site;
use crate::capi::status::bb_status;
use crate::observe::metrics::MetricsSnapshot;
use crate::state::records::PendingKind;
use crate::state::summary::{CacheSummary, PendingFile};

/// The files with work left to do. Threads may share it.
pub struct bb_pending(Vec<(CString, PendingFile)>);

/// The work that is left for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_pending_kind {
    /// No such file in the list.
    BB_PENDING_NONE = 0,
    /// It is not published yet.
    BB_PENDING_ADDED = 1,
    /// It changed, or may have changed.
    BB_PENDING_MODIFIED = 2,
    /// It is gone; its object is to be deleted.
    BB_PENDING_REMOVED = 3,
    /// A request for it got no answer, and it is gone.
    BB_PENDING_UNSETTLED = 4,
    /// Its object is to get other headers.
    BB_PENDING_HEADERS = 5,
}

impl From<PendingKind> for bb_pending_kind {
    fn from(kind: PendingKind) -> Self {
        match kind {
            PendingKind::Added => Self::BB_PENDING_ADDED,
            PendingKind::Modified => Self::BB_PENDING_MODIFIED,
            PendingKind::Removed => Self::BB_PENDING_REMOVED,
            PendingKind::Unsettled => Self::BB_PENDING_UNSETTLED,
            PendingKind::Headers => Self::BB_PENDING_HEADERS,
        }
    }
}

/// Gets the files with work left to do, as of the last rescan, in the order of their keys.
///
/// @param pending receives a handle; free it with `bb_pending_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_pending(
    site: *const bb_site,
    pending: *mut *mut bb_pending,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let (site, place) = unsafe { (required(site.as_ref(), "site")?, Place::new(pending, "pending")?) };
        let files = site.enter()?.cache.pending()?;
        place.give(bb_pending(files.into_iter().map(|file| (c_text(file.key.as_str()), file)).collect()));
        Ok(())
    })
}

/// Returns the number of files; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pending_count(pending: *const bb_pending) -> usize {
    // SAFETY: NULL or a live handle.
    access(unsafe { pending.as_ref() }, 0, |pending| pending.0.len())
}

/// Returns the key of a file; NULL beyond the last one. Lives as long as the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pending_key(pending: *const bb_pending, index: usize) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { pending.as_ref() }, |pending| pending.0.get(index).map(|(key, _)| key.as_c_str()))
}

/// Returns the work that is left for a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pending_kind_at(pending: *const bb_pending, index: usize) -> bb_pending_kind {
    // SAFETY: NULL or a live handle.
    access(unsafe { pending.as_ref() }, bb_pending_kind::BB_PENDING_NONE, |pending| {
        pending.0.get(index).map_or(bb_pending_kind::BB_PENDING_NONE, |(_, file)| file.kind.into())
    })
}

/// Returns the size of a file in bytes; of a removed one that of its object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pending_bytes(pending: *const bb_pending, index: usize) -> u64 {
    // SAFETY: NULL or a live handle.
    access(unsafe { pending.as_ref() }, 0, |pending| pending.0.get(index).map_or(0, |(_, file)| file.size))
}

/// Frees a list. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pending_free(pending: *mut bb_pending) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(pending) };
}

/// The contents of a cache in a few numbers. Threads may share it.
pub struct bb_summary {
    summary: CacheSummary,
    destination: Option<CString>,
}

/// A number of `bb_summary`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_summary_value {
    /// Published objects.
    BB_SUMMARY_PUBLISHED = 1,
    /// Their bytes.
    BB_SUMMARY_PUBLISHED_BYTES = 2,
    /// Keys with work left to do.
    BB_SUMMARY_PENDING = 3,
    /// Unfinished multipart uploads.
    BB_SUMMARY_OPEN_UPLOADS = 4,
}

/// Gets what the cache records, as `brigade status` does. Sends no request.
///
/// @param summary receives a handle; free it with `bb_summary_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_summary(
    site: *const bb_site,
    summary: *mut *mut bb_summary,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let (site, place) = unsafe { (required(site.as_ref(), "site")?, Place::new(summary, "summary")?) };
        let summary = site.enter()?.cache.summary()?;
        let destination = summary.destination.as_deref().map(c_text);
        place.give(bb_summary { summary, destination });
        Ok(())
    })
}

/// Returns a number of the summary; 0 for one that is not known.
///
/// @param value a bb_summary_value
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_summary_count(summary: *const bb_summary, value: u32) -> u64 {
    // SAFETY: NULL or a live handle.
    access(unsafe { summary.as_ref() }, 0, |summary| match value {
        1 => summary.summary.published,
        2 => summary.summary.published_bytes,
        3 => summary.summary.pending,
        4 => summary.summary.open_uploads,
        _ => 0,
    })
}

/// Returns true if the last rescan left the store as the tree was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_summary_is_synced(summary: *const bb_summary) -> bool {
    // SAFETY: NULL or a live handle.
    access(unsafe { summary.as_ref() }, false, |summary| summary.summary.synced)
}

/// Returns the destination that the cache is bound to; NULL until its first rescan. Lives as long as the
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_summary_destination(summary: *const bb_summary) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { summary.as_ref() }, |summary| summary.destination.as_deref())
}

/// Frees a summary. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_summary_free(summary: *mut bb_summary) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(summary) };
}

/// A counter of a site. They begin with 0 when it is opened and only grow, except `BB_METRIC_PENDING_FILES`
/// and `BB_METRIC_LAST_RESCAN_MS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_metric {
    /// Files uploaded and acknowledged.
    BB_METRIC_UPLOADS = 1,
    /// Files whose upload failed after all retries.
    BB_METRIC_UPLOADS_FAILED = 2,
    /// Bytes of the files uploaded and acknowledged.
    BB_METRIC_UPLOAD_BYTES = 3,
    /// Objects that got other headers by a copy in place.
    BB_METRIC_HEADERS_UPDATED = 4,
    /// Objects deleted and acknowledged.
    BB_METRIC_DELETES = 5,
    /// Objects whose delete failed after all retries.
    BB_METRIC_DELETES_FAILED = 6,
    /// Retries of requests.
    BB_METRIC_RETRIES = 7,
    /// Requests started, retries included.
    BB_METRIC_REQUESTS = 8,
    /// Connections opened.
    BB_METRIC_CONNECTIONS = 9,
    /// Look-ups of host names.
    BB_METRIC_LOOKUPS = 10,
    /// Bytes written to sockets, headers and TLS included.
    BB_METRIC_BYTES_SENT = 11,
    /// Writes to sockets.
    BB_METRIC_SENDS = 12,
    /// Bytes read from sockets, headers and TLS included.
    BB_METRIC_BYTES_RECEIVED = 13,
    /// Transactions committed to the cache.
    BB_METRIC_COMMITS = 14,
    /// Bytes of files read for hashing.
    BB_METRIC_BYTES_HASHED = 15,
    /// Rescans that ended, in whatever way.
    BB_METRIC_RESCANS = 16,
    /// Files pending after the last rescan (a gauge).
    BB_METRIC_PENDING_FILES = 17,
    /// Milliseconds spent in rescans.
    BB_METRIC_RESCAN_MS = 18,
    /// Milliseconds that the last rescan took.
    BB_METRIC_LAST_RESCAN_MS = 19,
}

/// Gets a counter of the site.
///
/// @param metric a bb_metric
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_metric(
    site: *const bb_site,
    metric: u32,
    value: *mut u64,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle.
        let site = required(unsafe { site.as_ref() }, "site")?;
        if value.is_null() {
            return Err(Fault::argument("value", "is NULL"));
        }
        let now = site.enter()?.engine.metrics();
        let known = value_of(&now, metric).ok_or_else(|| Fault::argument("metric", "is no bb_metric"))?;
        // SAFETY: a place for a number.
        unsafe { write_known(value, Some(known)) };
        Ok(())
    })
}

fn value_of(now: &MetricsSnapshot, metric: u32) -> Option<u64> {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(match metric {
        1 => now.uploads,
        2 => now.uploads_failed,
        3 => now.upload_bytes,
        4 => now.headers_updated,
        5 => now.deletes,
        6 => now.deletes_failed,
        7 => now.retries,
        8 => now.requests,
        9 => now.connections,
        10 => now.lookups,
        11 => now.bytes_sent,
        12 => now.sends,
        13 => now.bytes_received,
        14 => now.commits,
        15 => now.bytes_hashed,
        16 => now.rescans,
        17 => now.pending_files,
        18 => milliseconds(now.rescan_time),
        19 => milliseconds(now.last_rescan_time),
        _ => return None,
    })
}
