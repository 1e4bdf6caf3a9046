//! The border: pointers become values, and values become pointers.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use once_cell::race::OnceBox;

use crate::capi::status::bb_status;
use crate::error::StorageError;

/// The length of a text that ends with a NUL (`BB_NUL_TERMINATED` in the header).
const NUL_TERMINATED: usize = usize::MAX;

/// The reason why a function failed.
pub(super) enum Fault {
    /// The library's own error.
    Library(StorageError),
    /// Misuse that only C callers are capable of.
    Misuse(bb_status, String),
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        Self::Library(error)
    }
}

impl Fault {
    pub(super) fn argument(name: &str, why: &str) -> Self {
        Self::Misuse(bb_status::BB_ERR_ARGUMENT, format!("argument {name}: {why}"))
    }

    pub(super) fn forked() -> Self {
        let why = "the site was opened by the process that this one was forked from, and its threads are there: open a \
                   site after the fork, or use a catalog";
        Self::Misuse(bb_status::BB_ERR_FORKED, why.to_owned())
    }

    pub(super) fn closed() -> Self {
        Self::Misuse(bb_status::BB_ERR_CLOSED, "the site was closed: open another one".to_owned())
    }

    pub(super) fn busy() -> Self {
        let why = "another thread is inside a call on this site: cancel it with bb_site_cancel, wait until it returns, and \
                   close the site then";
        Self::Misuse(bb_status::BB_ERR_BUSY, why.to_owned())
    }
}

/// Reads from a handle in a function that cannot fail: NULL, and a panic, give `otherwise`.
pub(super) fn access<T, R>(handle: Option<&T>, otherwise: R, read: impl FnOnce(&T) -> R) -> R {
    let read = AssertUnwindSafe(|| handle.map(read));
    catch_unwind(read).ok().flatten().unwrap_or(otherwise)
}

/// Returns a text of a handle, which lives as long as that; NULL if there is none.
pub(super) fn access_text<T>(handle: Option<&T>, read: impl FnOnce(&T) -> Option<&CStr>) -> *const c_char {
    access(handle, ptr::null(), |handle| read(handle).map_or(ptr::null(), CStr::as_ptr))
}

/// Refuses a NULL.
pub(super) fn required<T>(handle: Option<T>, name: &str) -> Result<T, Fault> {
    handle.ok_or_else(|| Fault::argument(name, "is NULL"))
}

/// Reads a text of the caller.
///
/// # Safety
/// NULL, or a text that ends with a NUL and outlives the call.
pub(super) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str, Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { key_bytes(pointer, NUL_TERMINATED, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Fault::argument(name, "is not UTF-8"))
}

/// Reads a value or path of the caller, which need not be UTF-8.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn os_text<'a>(pointer: *const c_char, name: &str) -> Result<&'a OsStr, Fault> {
    // SAFETY: the caller's promise.
    unsafe { key_bytes(pointer, NUL_TERMINATED, name) }.map(OsStr::from_bytes)
}

/// Reads a key of the caller.
///
/// # Safety
/// NULL, or `length` bytes that outlive the call; with a length of `BB_NUL_TERMINATED` as [`text`].
pub(super) unsafe fn key<'a>(pointer: *const c_char, length: usize, name: &str) -> Result<&'a str, Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { key_bytes(pointer, length, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Fault::argument(name, "is not UTF-8"))
}

/// Reads a key of the caller that need not be UTF-8.
///
/// # Safety
/// As [`key`].
pub(super) unsafe fn key_bytes<'a>(
    pointer: *const c_char,
    length: usize,
    name: &str,
) -> Result<&'a [u8], Fault> {
    if pointer.is_null() {
        // As the empty slices of some languages are.
        return if length == 0 { Ok(&[]) } else { Err(Fault::argument(name, "is NULL")) };
    }
    if length == NUL_TERMINATED {
        // SAFETY: the caller's promise.
        return Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes());
    }
    if isize::try_from(length).is_err() {
        return Err(Fault::argument(name, "is longer than memory"));
    }
    // SAFETY: the caller's promise; the length is one that a slice may have.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), length) })
}

/// A place of the caller for a result. It is checked before the work and written after it.
pub(super) struct Place<T>(*mut *mut T);

impl<T> Place<T> {
    /// # Safety
    /// NULL, or a place for a pointer that outlives the call.
    pub(super) unsafe fn new(place: *mut *mut T, name: &str) -> Result<Self, Fault> {
        if place.is_null() { Err(Fault::argument(name, "is NULL")) } else { Ok(Self(place)) }
    }

    /// Gives the caller what a look-up found. That there is nothing is an answer, too, and no error.
    pub(super) fn give_found(self, found: Option<T>) -> bb_status {
        let Some(found) = found else { return bb_status::BB_ERR_NOT_FOUND };
        self.give(found);
        bb_status::BB_OK
    }

    /// Gives the caller a handle.
    pub(super) fn give(self, value: T) {
        // SAFETY: checked in `new`.
        unsafe { give(self.0, value) };
    }
}

impl Place<c_char> {
    /// Gives the caller a text, or NULL.
    pub(super) fn give_text(self, text: Option<CString>) {
        // SAFETY: checked in `new`.
        unsafe { *self.0 = text.map_or(ptr::null_mut(), CString::into_raw) };
    }
}

/// Writes a value that is known through a pointer that may be NULL, and returns true if it did.
///
/// # Safety
/// NULL, or a place for a value, which need not be initialised.
pub(super) unsafe fn write_known<T>(place: *mut T, known: Option<T>) -> bool {
    match known {
        Some(known) if !place.is_null() => {
            // SAFETY: the caller's promise.
            unsafe { place.write(known) };
            true
        }
        _ => false,
    }
}

/// Gives the caller a handle.
///
/// # Safety
/// `place` is a place for a pointer.
pub(super) unsafe fn give<T>(place: *mut *mut T, value: T) {
    // SAFETY: the caller's promise.
    unsafe { *place = Box::into_raw(Box::new(value)) };
}

/// Takes a handle back and drops it; NULL is fine.
///
/// # Safety
/// What [`give`] gave, once.
pub(super) unsafe fn free<T>(handle: *mut T) {
    if handle.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    let handle = unsafe { Box::from_raw(handle) };
    // There is nobody to tell of a panic.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
}

/// What is made from a handle when it is first asked for. Two threads may make it at once; neither waits for the other, so that a
/// process that is forked meanwhile does not wait for ever.
pub(super) type Lazy<T> = OnceBox<T>;

/// Returns a text for C. Texts of this library have no NUL, as neither keys nor paths can; one would be left
/// out.
pub(super) fn c_text(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).unwrap_or_else(|error| {
        let mut bytes = error.into_vec();
        bytes.retain(|byte| *byte != 0);
        CString::new(bytes).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_for_c_has_no_nul_in_it() {
        assert_eq!(c_text("a\0b"), CString::new("ab").unwrap());
    }

    #[test]
    fn a_panic_while_reading_gives_the_other_value() {
        assert_eq!(access(Some(&1), 2, |_| panic!("by design")), 2);
    }
}
