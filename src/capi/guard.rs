//! What every function that can fail goes through: a panic or a fault becomes a status and an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::capi::boundary::{Fault, give};
use crate::capi::error::bb_error;
use crate::capi::status::bb_status;
use crate::error::Operation;
use crate::error::caught::panicked;

/// Runs a function that can fail. Its error goes through `error`, unless that is NULL.
pub(super) fn guard(error: *mut *mut bb_error, call: impl FnOnce() -> Result<(), Fault>) -> bb_status {
    guard_status(error, || call().map(|()| bb_status::BB_OK))
}

/// As [`guard`], for a function with more than one good result.
pub(super) fn guard_status(
    error: *mut *mut bb_error,
    call: impl FnOnce() -> Result<bb_status, Fault>,
) -> bb_status {
    let give = |fault: Fault| {
        let failed = bb_error::from(fault);
        let status = failed.status;
        if !error.is_null() {
            // SAFETY: the caller passes NULL or a place for a pointer.
            unsafe { give(error, failed) };
        }
        status
    };
    let all = catch_unwind(AssertUnwindSafe(|| call().unwrap_or_else(give)));
    all.unwrap_or_else(|panic| {
        let told = || give(panicked(Operation::Configure, &*panic).into());
        catch_unwind(AssertUnwindSafe(told)).unwrap_or(bb_status::BB_ERR_PANICKED)
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::ptr;

    use super::*;
    use crate::capi::error::{bb_error_free, bb_error_text};

    #[test]
    fn a_panic_becomes_a_status_and_an_error() {
        let mut error = ptr::null_mut();
        let status = guard(&raw mut error, || panic!("by design"));
        assert_eq!(status, bb_status::BB_ERR_PANICKED);
        // SAFETY: `guard` gave an error.
        let text = unsafe { CStr::from_ptr(bb_error_text(error)) }.to_str().unwrap();
        assert!(text.ends_with("panicked: by design"), "{text}");
        // SAFETY: as above.
        unsafe { bb_error_free(error) };
        assert_eq!(guard(ptr::null_mut(), || panic!("without a place")), bb_status::BB_ERR_PANICKED);
    }
}
