//! Backends: the contract of a store.
//!
//! # Architecture
//! - [`StorageBackend`]: four blocking methods. Anyone can implement it.
//! - [`Transfers`]: the operations of a store with receipts, multipart uploads, bulk deletes and listings. Only
//!   [`S3Backend`](crate::S3Backend) has them.
//! - [`StateObjects`]: the operations on the small objects of the state that lies with the bucket.
//! - `probe`: finds out whether a store keeps conditions.
//! - `adapter`: drives either of the two for a rescan.
//! - [`Journal`]: where a rescan records the steps of multipart uploads.

pub(crate) mod adapter;
mod condition;
mod due_headers;
mod journal;
mod listing;
pub(crate) mod local;
pub(crate) mod pagination;
mod probe;
pub(crate) mod proof;
pub(crate) mod s3;
mod state_objects;
mod transfers;

use std::path::Path;

pub(crate) use self::condition::{Condition, WRITES_RACED, is_weak, quoted};
pub(crate) use self::due_headers::DueHeaders;
pub(crate) use self::due_headers::HeadersDigest;
pub(crate) use self::journal::Intent;
pub use self::journal::Journal;
pub(crate) use self::listing::STATE_HEAD;
pub use self::listing::{Listed, Page};
pub(crate) use self::proof::Proof;
pub(crate) use self::state_objects::{
    Fetched, FoundState, HEAD_KEY, Modified, ProbeResult, PutSmall, STATE_FOLDER, SmallObject, StateObjects,
    StatePlace,
};
pub(crate) use self::transfers::{
    Assembly, Begun, Copied, Creation, Finished, HeaderCopy, ListedPart, ListedUpload, PartUpload,
    Reconciled, SentPart, StoredChecksum, StoredObject, UploadMarker, UploadName, UploadPage, new_token,
};
pub use self::transfers::{Deleted, Receipt, Transfers, Upload};
use crate::error::StorageError;

/// A destination that files are published to. Four methods are the whole contract. They block, and several threads
/// may call them at once.
///
/// The example `custom_backend` publishes to a folder on a mounted share.
pub trait StorageBackend: Send + Sync {
    /// Uploads the file under the key, whole or not at all, replacing an existing object. Returns its public URL. The
    /// key has no prefix.
    ///
    /// # Errors
    /// Built with [`StorageError::new`]. The caller retries if [`StorageError::is_retryable`] says so.
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError>;

    /// Deletes the object. One that is gone already is success.
    ///
    /// # Errors
    /// As for [`upload_file`](Self::upload_file).
    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError>;

    /// Returns the public URL of a key, published or not.
    fn get_url(&self, remote_key: &str) -> String;

    /// Returns whether objects are stored elsewhere than the files. False means that publishing sends no bytes.
    fn is_remote(&self) -> bool;

    /// Returns the operations beyond these methods, if the backend has them; see [`Transfers`].
    fn transfers(&self) -> Option<&dyn Transfers> {
        None
    }

    /// Returns the name of the destination, to which a cache is bound: one string for one destination. By default the
    /// URL of the empty key.
    fn destination(&self) -> String {
        self.get_url("")
    }
}

pub(crate) mod sealed {
    /// Keeps `Transfers` and `StateObjects` within the crate.
    pub trait Sealed {}
}
