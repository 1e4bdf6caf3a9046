//! The trait [`Store`]: the operations that the cache needs from the database that keeps its records.

use crate::backend::SentPart;
use crate::error::StorageError;
use crate::state::file_mark::FileMark;
use crate::state::records::{OpenUpload, Pending, Published, UploadStep};

/// The version of the tables and of the records in them.
pub(crate) const FORMAT: u8 = 4;

pub(crate) const META_FORMAT: &str = "format";
/// A random number that changes with every change of a published or pending record.
pub(crate) const META_CHANGES: &str = "changes";
/// The head that this cache is a copy of, if its state lies in the bucket ([`HeadCopy`](crate::state::cache::copy::HeadCopy)).
pub(crate) const META_HEAD: &str = "head";
/// Set once a run was complete.
pub(crate) const META_COMPLETE: &str = "complete";

/// One change of the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Write {
    /// The object store acknowledged the version: it is published, and nothing is pending for its key.
    Published(String, Published),
    /// There is work to do for the key.
    Pending(String, Pending),
    /// Nothing is left to do for the key.
    Settled(String),
    /// The object was deleted, and nothing is pending for its key.
    Deleted(String),
    /// A step of a multipart upload.
    Upload(String, UploadStep),
    /// An interrupted run has stored the object: it is not part of the last complete tree.
    Recent(String),
    /// A run with deletes switched off left the object, although its file is gone.
    Left(String),
    /// The file of such an object exists again.
    Returned(String),
    /// The object store holds exactly the tree. Keys that were published since the last complete run now belong to the
    /// last complete tree.
    Complete,
    /// The state in the bucket says that the version is published. Nothing is pending for its key.
    Pulled(String, Published),
    /// The state in the bucket says that the key is not published. Nothing is pending for it.
    PulledRemoved(String),
    /// The state in the bucket holds the change of a key that was marked with this number.
    Pushed(String, u64),
    /// A named value of the whole cache.
    Meta(&'static str, Vec<u8>),
}

impl Write {
    /// Returns true if the write changes the published or the pending record of a key.
    pub(crate) fn is_about_files(&self) -> bool {
        matches!(
            self,
            Self::Published(..)
                | Self::Pending(..)
                | Self::Settled(_)
                | Self::Deleted(_)
                | Self::Pulled(..)
                | Self::PulledRemoved(_)
        )
    }
}

/// The published and the pending record of a key.
pub(crate) type KeyRecords = (Option<Published>, Option<Pending>);

/// A table of records by key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Published,
    Pending,
    /// Published keys that are not part of the last complete tree: incomplete runs have added them since.
    Recent,
    /// Published keys whose files are gone and that runs with deletes switched off have left.
    Left,
    /// Keys whose last change the state in the bucket does not hold yet, each with the number of that change.
    Unpushed,
}

/// Keeps records durably. One process at a time writes them. Every method may be called from any thread.
///
/// Every method fails with the kinds [`Cache`](crate::ErrorKind::Cache) or
/// [`CacheDamaged`](crate::ErrorKind::CacheDamaged), and names the file.
pub(crate) trait Store: Send + Sync {
    /// Returns true if nothing can be written.
    fn is_read_only(&self) -> bool;

    /// Fails if the file was removed or replaced: later writes would be lost.
    fn check(&self) -> Result<(), StorageError>;

    /// Returns the identity of the open file.
    fn mark(&self) -> FileMark;

    /// Returns a named value of the whole cache.
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Returns the published and the pending record of each key.
    fn get(&self, keys: &[&str]) -> Result<Vec<KeyRecords>, StorageError>;

    /// Returns up to `most` encoded records of a table whose keys follow `after`, in key order.
    fn page(
        &self,
        table: Table,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError>;

    /// Returns the multipart uploads of a key that are open, or may be.
    fn uploads(&self, key: &str) -> Result<Vec<OpenUpload>, StorageError>;

    /// Returns a page of the keys after `after` that have open multipart uploads, in key order.
    fn keys_with_uploads(&self, after: Option<&str>) -> Result<Vec<String>, StorageError>;

    /// Returns the acknowledged parts of a multipart upload, by part number.
    fn sent_parts(&self, token: &str) -> Result<Vec<(u32, SentPart)>, StorageError>;

    /// Returns the number of published and the number of pending keys.
    fn lengths(&self) -> Result<(u64, u64), StorageError>;

    /// Returns true if a [`Write::Complete`] would change anything.
    fn is_completion_due(&self) -> Result<bool, StorageError>;

    /// Writes all changes in one transaction. They are durable when this returns.
    fn apply(&self, writes: &[Write]) -> Result<(), StorageError>;

    /// Returns the number of commits since the last call.
    fn take_commits(&self) -> u64;

    /// Returns the error for a record that cannot be decoded.
    fn damaged(&self, key: &str) -> StorageError;
}
