//! The record of multipart uploads, by which a later run resumes or aborts them.

use crate::backend::transfers::{SentPart, UploadName};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::tree::version::FileStat;

/// The facts that an upload is created with: enough to resume it after a crash.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub(crate) token: String,
    /// The stat of the file when it was opened.
    pub(crate) stat: FileStat,
    /// The stat identifies the content: it is not racy.
    pub(crate) not_racy: bool,
    pub(crate) part_size: u64,
    /// A digest of the headers that the object gets.
    pub(crate) headers: [u8; 32],
}

/// A durable record of multipart uploads. The recorder of a rescan implements it.
#[doc(hidden)]
pub trait Journal: Send + Sync {
    /// Records that an upload is about to be created. Returns once that is durable.
    fn intend(&self, key: &RemoteKey, intent: &Intent) -> Result<(), StorageError>;
    /// Records the upload ID. With `lost`, another upload with an unknown ID may exist. Returns once that is durable.
    fn begun(&self, upload: &UploadName, lost: bool) -> Result<(), StorageError>;
    /// Records a part that the store acknowledged. Does not wait.
    fn part(&self, upload: &UploadName, number: u32, part: &SentPart);
    /// Records that the upload with this token was completed or aborted, or never existed.
    fn closed(&self, key: &RemoteKey, token: &str);
}
