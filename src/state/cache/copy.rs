//! The cache as a copy of the state in the bucket: the head that it was made from, and the changes that the bucket does
//! not hold yet.

use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::state::cache::CacheManager;
use crate::state::records::decode;
use crate::state::rows::{Marks, Row};
use crate::state::store::{META_HEAD, Table, Write};

/// Changes written in one transaction.
const WRITES_AT_ONCE: usize = 4096;

/// The head that a cache is a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeadCopy {
    /// The `ETag` of the head.
    pub(crate) etag: String,
    /// The `Last-Modified` of the head, in seconds since 1970.
    pub(crate) modified: u64,
    /// The head's bytes.
    pub(crate) bytes: Vec<u8>,
    /// The rows of a run that had not ended are left out, as for all who only read. A publisher needs them.
    pub(crate) for_reading: bool,
}

impl CacheManager {
    /// Returns the head that this cache is a copy of, if it is one.
    pub(crate) fn head_copy(&self) -> Result<Option<HeadCopy>, StorageError> {
        let Some(stored) = self.0.store.meta(META_HEAD)? else { return Ok(None) };
        let copy: HeadCopy = decode(META_HEAD, &stored).ok_or_else(|| self.0.store.damaged(META_HEAD))?;
        // Forgotten.
        Ok(Some(copy).filter(|copy| !copy.bytes.is_empty()))
    }

    /// Returns true if this cache is, or was, a copy of the state in the bucket.
    pub(crate) fn has_state_in_bucket(&self) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_HEAD)?.is_some())
    }

    /// Forgets which head the cache is a copy of: the next pull reads everything. Changes are numbered as before.
    pub(crate) fn forget_head(&self) -> Result<(), StorageError> {
        self.apply(&[self.no_head()?])
    }

    /// The write that does that.
    pub(crate) fn no_head(&self) -> Result<Write, StorageError> {
        self.copy_of(&HeadCopy { etag: String::new(), modified: 0, bytes: Vec::new(), for_reading: false })
    }

    /// Drops the work that is still to be done, except where a request got no answer: the next plan finds it again.
    pub(crate) fn drop_pending(&self) -> Result<(), StorageError> {
        let mut after = String::new();
        loop {
            let rows = self.pending_rows_after(&after).take(WRITES_AT_ONCE).collect::<Result<Vec<_>, _>>()?;
            let Some(last) = rows.last() else { return Ok(()) };
            after.clone_from(&last.key);
            let attempted = |row: &Row| row.pending.as_ref().is_some_and(|pending| pending.attempted);
            let settled = rows.into_iter().filter(|row| !attempted(row));
            self.apply(&settled.map(|row| Write::Settled(row.key)).collect::<Vec<_>>())?;
        }
    }

    /// Returns the write that makes the cache a copy of this head.
    pub(crate) fn copy_of(&self, head: &HeadCopy) -> Result<Write, StorageError> {
        self.meta_write(META_HEAD, head)
    }

    /// Returns true if incomplete runs have added keys since the last complete one.
    pub(crate) fn has_recent(&self) -> Result<bool, StorageError> {
        Ok(Marks::new(&*self.0.store, Table::Recent).next().transpose()?.is_some())
    }

    /// Iterates over the keys whose last change the bucket does not hold yet, in key order, with the number of that
    /// change.
    pub(crate) fn unpushed(&self) -> impl Iterator<Item = Result<(String, u64), StorageError>> + '_ {
        Marks::new(&*self.0.store, Table::Unpushed).map(|mark| {
            let (key, bytes) = mark?;
            let number = bytes.try_into().map(u64::from_le_bytes).map_err(|_| self.0.store.damaged(&key))?;
            Ok((key, number))
        })
    }
}
