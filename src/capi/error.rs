//! The error that a function gives beside its status.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;

use crate::capi::boundary::{Fault, access, access_text, c_text, free};
use crate::capi::status::bb_status;
use crate::error::StorageError;

/// An error: its status, its text, and where it happened. Threads may share it.
pub struct bb_error {
    pub(super) status: bb_status,
    text: CString,
    key: Option<CString>,
    path: Option<CString>,
    code: Option<CString>,
    request_id: Option<CString>,
    retryable: bool,
    attempts: u32,
}

impl From<Fault> for bb_error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Library(error) => Self::from(&error),
            Fault::Misuse(status, text) => Self {
                status,
                text: c_text(text),
                key: None,
                path: None,
                code: None,
                request_id: None,
                retryable: false,
                attempts: 0,
            },
        }
    }
}

impl From<&StorageError> for bb_error {
    fn from(error: &StorageError) -> Self {
        Self {
            status: error.kind().into(),
            text: c_text(error.to_string()),
            key: error.key().map(c_text),
            path: error.path().map(|path| c_text(path.as_os_str().as_bytes())),
            code: error.code().map(c_text),
            request_id: error.request_id().map(c_text),
            retryable: error.may_go_away(),
            attempts: error.attempts(),
        }
    }
}

/// Returns the status of an error; `BB_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_status(error: *const bb_error) -> bb_status {
    // SAFETY: NULL or a live handle.
    access(unsafe { error.as_ref() }, bb_status::BB_OK, |error| error.status)
}

/// Returns what is wrong and what to do, on one line; "no error" for NULL. The text lives as long as the
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_text(error: *const bb_error) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access(unsafe { error.as_ref() }, c"no error".as_ptr(), |error| error.text.as_ptr())
}

/// Returns the key that the error is about, without the prefix; NULL if it is about none. Lives as long as
/// the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_key(error: *const bb_error) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { error.as_ref() }, |error| error.key.as_deref())
}

/// Returns the path that the error is about, byte for byte; NULL if it is about none. Lives as long as the
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_path(error: *const bb_error) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { error.as_ref() }, |error| error.path.as_deref())
}

/// Returns the store's own code, such as "NoSuchBucket"; NULL if the store sent none. Lives as long as the
/// error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_code(error: *const bb_error) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { error.as_ref() }, |error| error.code.as_deref())
}

/// Returns the store's ID of the request that failed, to give to its operator; NULL if there is none. Lives
/// as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_request_id(error: *const bb_error) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { error.as_ref() }, |error| error.request_id.as_deref())
}

/// Returns true if the same call may succeed later with nothing changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_is_retryable(error: *const bb_error) -> bool {
    // SAFETY: NULL or a live handle.
    access(unsafe { error.as_ref() }, false, |error| error.retryable)
}

/// Returns how often the request was tried; 0 if none was sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_attempts(error: *const bb_error) -> u32 {
    // SAFETY: NULL or a live handle.
    access(unsafe { error.as_ref() }, 0, |error| error.attempts)
}

/// Frees an error. NULL is fine. Not for those that a report has lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_error_free(error: *mut bb_error) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(error) };
}
