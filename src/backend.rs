//! Where it goes: the contract of a store, in four methods, and the steps of stores that can more.

pub(crate) mod adapter;
mod journal;
pub(crate) mod local;
pub(crate) mod pagination;
pub(crate) mod s3;
mod transfers;

use std::path::Path;

pub(crate) use self::journal::Intent;
pub use self::journal::Journal;
pub(crate) use self::transfers::{
    Assembly, Begun, Finished, ListedPart, ListedUpload, PartUpload, Reconciled, SentPart, UploadMarker,
    UploadName, UploadPage, new_token, sealed,
};
pub use self::transfers::{Deleted, Listed, Page, Receipt, Transfers, Upload};
use crate::error::StorageError;

/// A place that files are published to. Four methods are the whole contract; they block, and may be
/// called from any thread at once.
///
/// The example `custom_backend` publishes to a folder on a mounted share.
pub trait StorageBackend: Send + Sync {
    /// Stores the file under the key, whole or not at all, and returns its public URL. The key is
    /// without any prefix; storing over an existing object replaces it.
    ///
    /// # Errors
    /// Built with [`StorageError::new`]; [`StorageError::is_retryable`] decides whether the caller
    /// tries again.
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError>;

    /// Removes the object. One that is gone already is success.
    ///
    /// # Errors
    /// As for [`upload_file`](Self::upload_file).
    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError>;

    /// The public URL of a key, whether or not it is published.
    fn get_url(&self, remote_key: &str) -> String;

    /// Whether objects live elsewhere than the files: false means that publishing moves no bytes.
    fn is_remote(&self) -> bool;

    /// The steps of a store that can more than four methods; see [`Transfers`].
    fn transfers(&self) -> Option<&dyn Transfers> {
        None
    }

    /// What a cache is bound to: one string for one place. By default the URL of the empty key.
    fn destination(&self) -> String {
        self.get_url("")
    }
}
