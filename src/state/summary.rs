//! What the cache holds, in a few numbers.

/// What a cache holds. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheSummary {
    /// What it is bound to; `None` until its first rescan.
    pub destination: Option<String>,
    /// Objects that are published.
    pub published: u64,
    /// Their sizes together.
    pub published_bytes: u64,
    /// Keys with something still to be done.
    pub pending: u64,
    /// Uploads in parts that are open.
    pub open_uploads: u64,
    /// Whether the last rescan left the store as the tree was.
    pub synced: bool,
}
