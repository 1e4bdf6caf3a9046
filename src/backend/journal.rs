//! How the steps of a multipart upload are remembered.

use crate::backend::transfers::{SentPart, UploadName};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::tree::version::FileStat;

/// What an upload is begun with: enough to go on with it after a crash.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub(crate) token: String,
    /// Of the file when it was opened.
    pub(crate) stat: FileStat,
    /// Whether the stat may stand for the content.
    pub(crate) settled: bool,
    pub(crate) part_size: u64,
    /// Names the headers that the object gets.
    pub(crate) headers: [u8; 32],
}

/// How the steps of a multipart upload are remembered, without knowing where. The recorder of a
/// rescan implements it; what it remembers outlives the process.
#[doc(hidden)]
pub trait Journal: Send + Sync {
    /// An upload is about to be begun; returns once that is durable.
    fn intend(&self, key: &RemoteKey, intent: &Intent) -> Result<(), StorageError>;
    /// The store named it, or (`lost`) may also have named another; returns once that is durable.
    fn begun(&self, upload: &UploadName, lost: bool) -> Result<(), StorageError>;
    /// A part was acknowledged. Fire and forget.
    fn part(&self, upload: &UploadName, number: u32, part: &SentPart);
    /// The upload of this token was completed or aborted, or never came to be.
    fn closed(&self, key: &RemoteKey, token: &str);
}
