//! Compares the catalog beside a cache with what the cache knows of it. A backup that puts back the cache alone leaves a
//! catalog of a later run beside it; one that puts back both leaves the catalog in another file.

use std::fs;

use crate::error::StorageError;
use crate::state::cache::CacheManager;
use crate::state::catalog::file::read_verified_tail;
use crate::state::catalog::path_for;
use crate::state::file_mark::FileMark;

/// Returns true if the catalog beside the cache shows that the cache was put back. A catalog that is missing or cannot be
/// read shows nothing.
pub(crate) fn shows_a_restore(cache: &CacheManager) -> Result<bool, StorageError> {
    let path = path_for(cache.path());
    let Some(file) = file_of(cache) else { return Ok(false) };
    if cache.knows_catalog(file)? {
        return Ok(false);
    }
    let Ok((checksum, tail)) = read_verified_tail(&path) else { return Ok(false) };
    // It was there before this cache got its name.
    if tail.destination != cache.destination()? {
        return Ok(false);
    }
    // Somebody who only reads the cache may have written it, or a run that was killed before it noted the new catalog.
    Ok(cache.is_its_catalog(checksum)? || tail.changes != cache.changes()?)
}

/// Returns the file of the catalog beside the cache, if there is one.
pub(crate) fn file_of(cache: &CacheManager) -> Option<FileMark> {
    fs::metadata(path_for(cache.path())).ok().map(|found| FileMark::of(&found))
}
