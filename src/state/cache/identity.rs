//! The file that the records belong to. A copy of the cache, or one that a backup has put back, says what was published
//! once, and is found out by this.

use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::state::cache::CacheManager;
use crate::state::file_mark::FileMark;
use crate::state::records::decode;
use crate::state::store::Write;

const META_FILE: &str = "file";
/// The file of the catalog that was last written.
const META_CATALOG_FILE: &str = "catalog_file";

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct OwnFile {
    mark: FileMark,
    /// Not set while the records wait for a comparison with the objects.
    verified: bool,
}

/// The relation of the records to the file that they are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// They were written to this file.
    Own,
    /// They were written to another file.
    Copied,
    /// They were written to this file, and are not to be believed until they are compared with the objects.
    Unverified,
    /// No run has recorded it yet.
    Unrecorded,
}

impl CacheManager {
    pub(crate) fn origin(&self) -> Result<Origin, StorageError> {
        let Some(stored) = self.0.store.meta(META_FILE)? else { return Ok(Origin::Unrecorded) };
        let own: OwnFile = decode(META_FILE, &stored).ok_or_else(|| self.0.store.damaged(META_FILE))?;
        Ok(match own {
            OwnFile { mark, .. } if !mark.is_same_file(self.0.store.mark()) => Origin::Copied,
            OwnFile { verified: false, .. } => Origin::Unverified,
            OwnFile { .. } => Origin::Own,
        })
    }

    /// Returns the write that makes the open file the one that the records belong to.
    pub(crate) fn own_file(&self, verified: bool) -> Result<Write, StorageError> {
        self.meta_write(META_FILE, &OwnFile { mark: self.0.store.mark(), verified })
    }

    /// Returns true if the catalog that was written last is this file, or if it is not known which one it is.
    pub(crate) fn knows_catalog(&self, file: FileMark) -> Result<bool, StorageError> {
        let Some(stored) = self.0.store.meta(META_CATALOG_FILE)? else { return Ok(true) };
        let known: FileMark =
            decode(META_CATALOG_FILE, &stored).ok_or_else(|| self.0.store.damaged(META_CATALOG_FILE))?;
        Ok(known.is_same_file(file))
    }

    /// Returns the write that records the file of the catalog.
    pub(crate) fn catalog_mark(&self, file: FileMark) -> Result<Write, StorageError> {
        self.meta_write(META_CATALOG_FILE, &file)
    }
}
