//! What the cache records: pending files and a summary.

use std::ffi::{CString, c_char};

use crate::capi::boundary::{Place, access, access_text, c_text, free, required};
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::site::bb_site;
use crate::capi::status::bb_status;
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
