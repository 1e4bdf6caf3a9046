//! The counters of a site.

use crate::capi::boundary::{Fault, required};
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::site::bb_site;
use crate::capi::status::bb_status;
use crate::observe::metrics::MetricsSnapshot;

/// A counter of a site. They begin with 0 when it is opened and only grow, except `BB_METRIC_PENDING_FILES`.
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
        // SAFETY: NULL or a live handle; NULL or a place for a number.
        let (site, place) = unsafe { (required(site.as_ref(), "site")?, required(value.as_mut(), "value")?) };
        let now = site.enter()?.engine.metrics();
        *place = value_of(&now, metric).ok_or_else(|| Fault::argument("metric", "is no bb_metric"))?;
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
