//! The contents of a cache in a few numbers.

use crate::state::records::PendingKind;

/// The contents of a cache in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSummary {
    /// The destination that the cache is bound to; `None` until its first rescan.
    pub destination: Option<String>,
    /// The number of published objects.
    pub published: u64,
    /// Their total size in bytes.
    pub published_bytes: u64,
    /// The number of keys for which something is still to be done.
    pub pending: u64,
    /// The number of unfinished multipart uploads.
    pub open_uploads: u64,
    /// Set if the last rescan left the store as the tree was.
    pub synced: bool,
}

/// A key with work left to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingFile {
    /// The key.
    pub key: String,
    /// The work to do.
    pub kind: PendingKind,
    /// The size in bytes on disk; for a removed file the published one.
    pub size: u64,
}
