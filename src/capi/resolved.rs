//! Where a key is to be read now.

use std::ffi::{CString, c_char};
use std::time::UNIX_EPOCH;

use crate::capi::boundary::{Lazy, access, access_text, c_text, free, write_known};
use crate::state::resolve::{KeyState, Resolved};

/// The URL of a key, and the version that it serves. Threads may share it.
pub struct bb_resolved {
    url: CString,
    resolved: Resolved,
    /// Texts are made when they are asked for.
    digest: Lazy<Option<CString>>,
    sha256: Lazy<Option<CString>>,
}

impl From<Resolved> for bb_resolved {
    fn from(mut resolved: Resolved) -> Self {
        let url = c_text(std::mem::take(&mut resolved.url));
        Self { url, resolved, digest: Lazy::new(), sha256: Lazy::new() }
    }
}

/// The state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_key_state {
    /// Not known.
    BB_KEY_UNKNOWN = 0,
    /// The store holds the version that was on disk at the last scan.
    BB_KEY_PUBLISHED = 1,
    /// The store does not hold the version on disk; the URL is that of `fallback_url`, or leads to nothing
    /// yet.
    BB_KEY_PENDING = 2,
    /// The store holds an older version, which the URL serves.
    BB_KEY_STALE = 3,
}

impl From<KeyState> for bb_key_state {
    fn from(state: KeyState) -> Self {
        match state {
            KeyState::Published => Self::BB_KEY_PUBLISHED,
            KeyState::Pending => Self::BB_KEY_PENDING,
            KeyState::Stale => Self::BB_KEY_STALE,
        }
    }
}

/// Returns the URL to use now. Lives as long as the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_url(found: *const bb_resolved) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { found.as_ref() }, |found| Some(&found.url))
}

/// Gets the size in bytes of the version that the URL serves. Returns false, and writes nothing, if it is not
/// known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_size(found: *const bb_resolved, size: *mut u64) -> bool {
    // SAFETY: NULL or a live handle.
    let known = access(unsafe { found.as_ref() }, None, |found| found.resolved.size);
    // SAFETY: NULL or a place for a number.
    unsafe { write_known(size, known) }
}

/// Gets the modification time of that version's file, in seconds since 1970. Returns false, and writes
/// nothing, if it is not known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_modified(found: *const bb_resolved, seconds: *mut i64) -> bool {
    // SAFETY: NULL or a live handle.
    let known = access(unsafe { found.as_ref() }, None, |found| {
        found.resolved.modified.map(|time| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |seconds| -seconds),
        })
    });
    // SAFETY: NULL or a place for a number.
    unsafe { write_known(seconds, known) }
}

/// Returns the digest of that version, as `brigade url --json` prints it: "sha256:" and 64 hex digits, or for
/// a multipart upload "sha256/PART_SIZE:" and those of its parts' SHA-256s. NULL if it is not known. Lives as
/// long as the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_digest(found: *const bb_resolved) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { found.as_ref() }, |found| {
        found
            .digest
            .get_or_init(|| Box::new(found.resolved.digest.map(|digest| c_text(digest.to_string()))))
            .as_deref()
    })
}

/// Returns the SHA-256 of the whole file as 64 hex digits; NULL if it is not known. For a multipart upload it
/// is known if `whole_file_digest` is set. Lives as long as the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_sha256(found: *const bb_resolved) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { found.as_ref() }, |found| {
        found
            .sha256
            .get_or_init(|| Box::new(found.resolved.whole_digest.map(|digest| c_text(digest.to_hex()))))
            .as_deref()
    })
}

/// Returns the state of the key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_state(found: *const bb_resolved) -> bb_key_state {
    // SAFETY: NULL or a live handle.
    access(unsafe { found.as_ref() }, bb_key_state::BB_KEY_UNKNOWN, |found| found.resolved.state.into())
}

/// Frees an answer. NULL is fine. Not for those that an iterator has lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolved_free(found: *mut bb_resolved) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(found) };
}
