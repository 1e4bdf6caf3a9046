//! Single files and keys.

use std::ffi::c_char;
use std::path::Path;

use crate::backend::StorageBackend;
use crate::backend::s3::S3Backend;
use crate::capi::boundary::{Fault, Place, c_text, key as read_key, key_bytes, os_text, required};
use crate::capi::error::bb_error;
use crate::capi::guard::{guard, guard_status};
use crate::capi::host::apart;
use crate::capi::resolved::bb_resolved;
use crate::capi::site::bb_site;
use crate::capi::status::bb_status;
use crate::clock::CancelToken;
use crate::error::StorageError;
use crate::key::RemoteKey;

/// Does the work of a call that can be cancelled.
fn apart_of<T: Send>(
    site: &bb_site,
    work: impl FnOnce(&S3Backend, &CancelToken) -> Result<T, StorageError> + Send,
) -> Result<T, Fault> {
    let (open, call) = (site.enter()?, site.begin());
    Ok(apart(|| work(&open.backend, &call.cancel))?)
}

/// Uploads one file, whether or not it is in the tree. The cache does not record it: `bb_rescan` looks after
/// the files of the tree.
///
/// @param path the file
/// @param key without the prefix
/// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
/// @param url receives the public URL; free it with `bb_string_free`. May be NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_upload_file(
    site: *const bb_site,
    path: *const c_char,
    key: *const c_char,
    key_length: usize,
    url: *mut *mut c_char,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; a text; bytes of this length.
        let (site, path, key) = unsafe {
            (required(site.as_ref(), "site")?, os_text(path, "path")?, read_key(key, key_length, "key")?)
        };
        let uploaded =
            apart_of(site, |backend, cancel| backend.upload_file_until(cancel, Path::new(path), key))?;
        if !url.is_null() {
            // SAFETY: a place for a pointer.
            unsafe { Place::new(url, "url") }?.give_text(Some(c_text(uploaded)));
        }
        Ok(())
    })
}

/// Deletes one object, whoever stored it. One that does not exist is `BB_OK`.
///
/// @param key without the prefix
/// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_delete_file(
    site: *const bb_site,
    key: *const c_char,
    key_length: usize,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; bytes of this length.
        let (site, key) = unsafe { (required(site.as_ref(), "site")?, read_key(key, key_length, "key")?) };
        apart_of(site, |backend, cancel| backend.delete_file_until(cancel, key))
    })
}

/// Gets the public URL that a key has or would have, whether or not it is published.
///
/// @param key without the prefix
/// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
/// @param url receives the URL; free it with `bb_string_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_url(
    site: *const bb_site,
    key: *const c_char,
    key_length: usize,
    url: *mut *mut c_char,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; bytes of this length; NULL or a place for a pointer.
        let (site, key, place) = unsafe {
            (required(site.as_ref(), "site")?, read_key(key, key_length, "key")?, Place::new(url, "url")?)
        };
        RemoteKey::new(key)?;
        place.give_text(Some(c_text(site.enter()?.backend.get_url(key))));
        Ok(())
    })
}

/// Looks up where a key is to be read now, in the cache. Servers with many readers use `bb_catalog_get`.
/// `BB_ERR_NOT_FOUND`, without an error, if the key is neither published nor on disk.
///
/// @param key without the prefix
/// @param key_length its length in bytes, or `BB_NUL_TERMINATED`
/// @param found receives the answer; free it with `bb_resolved_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_resolve(
    site: *const bb_site,
    key: *const c_char,
    key_length: usize,
    found: *mut *mut bb_resolved,
    error: *mut *mut bb_error,
) -> bb_status {
    guard_status(error, || {
        // SAFETY: NULL or a live handle; bytes of this length; NULL or a place for a pointer.
        let (site, key, place) = unsafe {
            (
                required(site.as_ref(), "site")?,
                key_bytes(key, key_length, "key")?,
                Place::new(found, "found")?,
            )
        };
        let open = site.enter()?;
        let resolved = match std::str::from_utf8(key) {
            Ok(key) => open.cache.resolve(key)?,
            Err(_) => None,
        };
        Ok(place.give_found(resolved.map(bb_resolved::from)))
    })
}
