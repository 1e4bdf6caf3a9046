//! Objects that are kept, and why.

/// A published object that is kept although its file was not found, or is left out now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// The reason.
    pub reason: KeptReason,
}

/// The reason why an object is kept although its file was not found, or is left out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptReason {
    /// Its path, or a folder above it, is now a symbolic link or a special file.
    Skipped,
    /// Its folder is on another device than before: probably a file system is not mounted.
    OtherDevice,
    /// Another root published it, or the root is now another folder on another device. Set `allow_new_root` to
    /// delete it.
    OtherRoot,
    /// Deletes are switched off ([`RescanConfig::delete`](crate::RescanConfig::delete)).
    DeletesOff,
    /// Its path is excluded now, ignored by a `.brigadeignore`, no longer included, or has the reserved name `.brigade`.
    Excluded,
    /// Its file is there, but smaller than [`min_size`](crate::RescanConfig::min_size) or larger than
    /// [`max_size`](crate::RescanConfig::max_size). The object is what was published last.
    OutsideSizes,
    /// An upload of it got no response, and its file is gone. The object may exist, and nothing proves that it is ours.
    Unsettled,
    /// An upload of it got no response, and its file is gone. The key holds an object that no run of this cache stored.
    NotOurs,
    /// Its file is gone, and the cache was copied or put back by a backup. The key holds another version than the cache
    /// knows, so nothing proves that it is ours.
    NotAsRecorded,
}

impl KeptReason {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "its path is now a link or a special file",
            Self::OtherDevice => "its folder is on another device than before",
            Self::OtherRoot => "another root published it",
            Self::DeletesOff => "deletes are switched off",
            Self::Excluded => "its path is excluded now",
            Self::OutsideSizes => {
                "its file is now smaller or larger than is published; the old version stays"
            }
            Self::Unsettled => {
                "its file is gone, and an upload without a response may have stored the object; run verify to find out"
            }
            Self::NotOurs => "its file is gone, and the object was stored by somebody else",
            Self::NotAsRecorded => {
                "its file is gone, and the object is not the version that the copied cache knows"
            }
        }
    }
}
