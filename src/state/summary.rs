//! The contents of a cache in a few numbers.

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
