//! The catalog: lookups without a lock, a request or a thread. It goes on working after a fork.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

use crate::capi::boundary::{
    Place, access, access_text, c_text, free, key as read_key, key_bytes, os_text, required, write_known,
};
use crate::capi::error::bb_error;
use crate::capi::guard::{guard, guard_status};
use crate::capi::resolved::bb_resolved;
use crate::capi::status::bb_status;
use crate::state::catalog::{Catalog, Entries};

/// The catalog of a cache, mapped into memory. Any number of threads may read it at once, but not while one
/// of them refreshes or frees it: give each thread a clone. Processes that are forked may go on using it.
pub struct bb_catalog(Arc<Catalog>);

/// Opens a catalog and verifies its checksum. `bb_rescan` and `bb_pull` write it beside the cache, as
/// CACHE.catalog.
///
/// @param path the path of the catalog
/// @param catalog receives a handle; free it with `bb_catalog_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_open(
    path: *const c_char,
    catalog: *mut *mut bb_catalog,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: a text; NULL or a place for a pointer.
        let (path, place) = unsafe { (os_text(path, "path")?, Place::new(catalog, "catalog")?) };
        place.give(bb_catalog(Arc::new(Catalog::open(Path::new(path))?)));
        Ok(())
    })
}

/// Makes another handle on the same catalog, for another thread. Costs little: the file is mapped once.
///
/// @param clone receives a handle; free it with `bb_catalog_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_clone(
    catalog: *const bb_catalog,
    clone: *mut *mut bb_catalog,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let (catalog, place) =
            unsafe { (required(catalog.as_ref(), "catalog")?, Place::new(clone, "clone")?) };
        place.give(bb_catalog(catalog.0.clone()));
        Ok(())
    })
}

/// Looks up where a key is to be read now. `BB_ERR_NOT_FOUND`, without an error, if the key is neither
/// published nor on disk.
///
/// @param key without the prefix, as in the URL path before it is encoded; one that is not UTF-8 is not found
/// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
/// @param found receives the answer; free it with `bb_resolved_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_get(
    catalog: *const bb_catalog,
    key: *const c_char,
    key_length: usize,
    found: *mut *mut bb_resolved,
    error: *mut *mut bb_error,
) -> bb_status {
    guard_status(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let (catalog, place) =
            unsafe { (required(catalog.as_ref(), "catalog")?, Place::new(found, "found")?) };
        // SAFETY: bytes of this length.
        let key = unsafe { key_bytes(key, key_length, "key") }?;
        let resolved = std::str::from_utf8(key).ok().and_then(|key| catalog.0.get(key));
        Ok(place.give_found(resolved.map(bb_resolved::from)))
    })
}

/// Checks with one stat for a newer version of the file and maps it. On an error the current version stays.
/// No other thread may use this handle meanwhile; clones and iterators keep their version.
///
/// @param changed receives true if there was a newer version; may be NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_refresh(
    catalog: *mut bb_catalog,
    changed: *mut bool,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        let catalog = required(unsafe { catalog.as_mut() }, "catalog")?;
        let mut newer = Catalog::clone(&catalog.0);
        let is_newer = newer.refresh()?;
        if is_newer {
            catalog.0 = Arc::new(newer);
        }
        // SAFETY: NULL or a place for a bool.
        unsafe { write_known(changed, Some(is_newer)) };
        Ok(())
    })
}

/// Returns the number of keys; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_count(catalog: *const bb_catalog) -> u64 {
    // SAFETY: NULL or a live handle.
    access(unsafe { catalog.as_ref() }, 0, |catalog| catalog.0.len() as u64)
}

/// Returns true if a lookup found damage, so that answers may be incomplete. The next rescan that changes
/// something writes the file anew.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_is_damaged(catalog: *const bb_catalog) -> bool {
    // SAFETY: NULL or a live handle.
    access(unsafe { catalog.as_ref() }, false, |catalog| catalog.0.is_damaged())
}

/// Frees a catalog. NULL is fine. Iterators over it go on working.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_free(catalog: *mut bb_catalog) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(catalog) };
}

/// Goes through keys of a catalog in the order of their bytes. One thread at a time may use it.
pub struct bb_iter {
    /// Borrows from `_catalog`. Dropped first, because it is declared first.
    entries: Entries<'static>,
    _catalog: Arc<Catalog>,
    now: Option<(CString, bb_resolved)>,
}

/// Begins to go through the keys that start with a prefix. It is before the first key: call `bb_iter_next`.
///
/// @param prefix of the keys; "" for all
/// @param prefix_length its length in bytes, or `BB_NUL_TERMINATED`
/// @param iter receives a handle; free it with `bb_iter_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_catalog_iter(
    catalog: *const bb_catalog,
    prefix: *const c_char,
    prefix_length: usize,
    iter: *mut *mut bb_iter,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; bytes of this length; NULL or a place for a pointer.
        let (catalog, prefix, place) = unsafe {
            (
                required(catalog.as_ref(), "catalog")?,
                read_key(prefix, prefix_length, "prefix")?,
                Place::new(iter, "iter")?,
            )
        };
        let catalog = catalog.0.clone();
        // SAFETY: the catalog does not move and lives as long as the iterator, which owns a share of it and never changes it.
        let borrowed: &'static Catalog = unsafe { &*Arc::as_ptr(&catalog) };
        place.give(bb_iter { entries: borrowed.prefix(prefix), _catalog: catalog, now: None });
        Ok(())
    })
}

/// Goes to the next key. `BB_DONE` if there are no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_iter_next(iter: *mut bb_iter, error: *mut *mut bb_error) -> bb_status {
    guard_status(error, || {
        // SAFETY: NULL or a live handle that no other thread uses.
        let iter = required(unsafe { iter.as_mut() }, "iter")?;
        iter.now = iter.entries.next().map(|(key, resolved)| (c_text(key), bb_resolved::from(resolved)));
        Ok(if iter.now.is_some() { bb_status::BB_OK } else { bb_status::BB_DONE })
    })
}

/// Returns the current key; NULL before the first and after the last. Lives until the next call of
/// `bb_iter_next` or `bb_iter_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_iter_key(iter: *const bb_iter) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { iter.as_ref() }, |iter| iter.now.as_ref().map(|(key, _)| key.as_c_str()))
}

/// Returns where the current key is to be read; NULL as above. The iterator lends it until the next call: do
/// not free it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_iter_resolved(iter: *const bb_iter) -> *const bb_resolved {
    // SAFETY: NULL or a live handle.
    access(unsafe { iter.as_ref() }, std::ptr::null(), |iter| {
        iter.now.as_ref().map_or(std::ptr::null(), |(_, resolved)| &raw const *resolved)
    })
}

/// Frees an iterator. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_iter_free(iter: *mut bb_iter) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(iter) };
}
