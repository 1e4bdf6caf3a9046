//! The seam of the state: what the cache asks of whatever keeps its records.

use crate::backend::SentPart;
use crate::error::StorageError;
use crate::state::records::{OpenUpload, Pending, Published, UploadStep};

/// The version of the tables and of the records in them.
pub(crate) const FORMAT: u8 = 3;

pub(crate) const META_FORMAT: &str = "format";
/// Another random number with every change of what is published or pending.
pub(crate) const META_CHANGES: &str = "changes";
/// Whether any run was complete.
pub(crate) const META_COMPLETE: &str = "complete";

/// One change of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// The store acknowledged the object: published, and nothing is pending for it.
    Published(String, Published),
    /// Something is to be done.
    Pending(String, Pending),
    /// Nothing is to be done (any more).
    Settled(String),
    /// The object is deleted, and nothing is pending for it.
    Deleted(String),
    /// A step of a multipart upload.
    Upload(String, UploadStep),
    /// A run that deletes nothing left the object, although its file is gone.
    Left(String),
    /// The file of such an object is there again.
    Returned(String),
    /// The store holds the tree: what was published since it did so before is a part of that from now on.
    Complete,
    /// A fact of the whole cache.
    Meta(&'static str, Vec<u8>),
}

impl Write {
    pub(crate) fn is_about_files(&self) -> bool {
        matches!(self, Self::Published(..) | Self::Pending(..) | Self::Settled(_) | Self::Deleted(_))
    }
}

/// A table of records by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Published,
    Pending,
    /// Published keys that no complete run has had in its tree: those that runs which came to no good end have added.
    Recent,
    /// Published keys that runs which delete nothing have left.
    Left,
}

/// Keeps records, durably. One process at a time writes them; every call may come from any thread.
///
/// Every method fails with the kinds [`Cache`](crate::ErrorKind::Cache) or
/// [`CacheDamaged`](crate::ErrorKind::CacheDamaged), and names the store.
pub(crate) trait Store: Send + Sync {
    /// Whether nothing can be written.
    fn is_read_only(&self) -> bool;

    /// Fails where the store is no longer in its place: what is written from then on would be lost.
    fn check(&self) -> Result<(), StorageError>;

    /// Returns a fact of the whole.
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Returns what is published and what is pending for a key.
    fn get(&self, key: &str) -> Result<(Option<Published>, Option<Pending>), StorageError>;

    /// Returns up to `most` encoded records of a table whose keys are behind `after`, in key order.
    fn page(
        &self,
        table: Table,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError>;

    /// Returns the multipart uploads of a key that are, or may be, open.
    fn uploads(&self, key: &str) -> Result<Vec<OpenUpload>, StorageError>;

    /// Returns keys with open multipart uploads behind `after`, a page of them, in key order.
    fn keys_with_uploads(&self, after: Option<&str>) -> Result<Vec<String>, StorageError>;

    /// Returns the acknowledged parts of a multipart upload, by number.
    fn sent_parts(&self, token: &str) -> Result<Vec<(u32, SentPart)>, StorageError>;

    /// Returns how many keys are published and how many are pending.
    fn lengths(&self) -> Result<(u64, u64), StorageError>;

    /// Returns whether a run that is complete now would be news.
    fn completion_is_news(&self) -> Result<bool, StorageError>;

    /// Writes in one transaction, durable when this returns.
    fn apply(&self, writes: &[Write]) -> Result<(), StorageError>;

    /// Returns how many transactions were committed since this was last asked.
    fn take_commits(&self) -> u64;

    /// Returns the error that a record which cannot be decoded is.
    fn damaged(&self, key: &str) -> StorageError;
}
