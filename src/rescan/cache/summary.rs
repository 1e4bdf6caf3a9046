//! What the cache holds, in a few numbers.

use std::path::Path;

use super::super::cache::{CacheManager, META_DESTINATION, Row};
use crate::error::{ErrorKind, Operation, StorageError};

/// What a cache holds. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSummary {
    /// What it is bound to; `None` until its first rescan.
    pub destination: Option<String>,
    /// Objects that are published.
    pub published: u64,
    /// Their sizes together.
    pub published_bytes: u64,
    /// Keys with something still to be done.
    pub pending: u64,
    /// Uploads in parts that are open.
    pub open_uploads: u64,
    /// Whether the last rescan left the store as the tree was.
    pub synced: bool,
}

/// The record at `path` is that of another destination.
pub(crate) fn foreign(path: &Path, bound: &str, destination: &str) -> StorageError {
    let why = format!(
        "it records what is published at {bound}, not at {destination}; use another cache file for another destination"
    );
    StorageError::new(ErrorKind::CacheForeign, Operation::Cache, why).with_path(path)
}

impl CacheManager {
    /// What the cache is bound to.
    pub(crate) fn destination(&self) -> Result<Option<String>, StorageError> {
        let destination = self.0.store.meta(META_DESTINATION)?;
        Ok(destination.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Everything in a few numbers; reads the whole file, about 1 s for a million records.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn summary(&self) -> Result<CacheSummary, StorageError> {
        let (mut published, mut published_bytes, mut pending) = (0, 0, 0);
        for row in self.rows() {
            let Row { published: there, pending: to_do, .. } = row?;
            published += u64::from(there.is_some());
            published_bytes += there.map_or(0, |there| there.stat.size);
            pending += u64::from(to_do.is_some());
        }
        Ok(CacheSummary {
            destination: self.destination()?,
            published,
            published_bytes,
            pending,
            open_uploads: self.open_upload_count()?,
            synced: self.is_synced()?,
        })
    }
}
