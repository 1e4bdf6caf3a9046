//! A page of a listing of objects.

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The object's name without the prefix.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// The `ETag`, if the listing has one.
    pub etag: Option<String>,
}

/// A page of a listing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Page {
    /// The objects, in the store's order.
    pub objects: Vec<Listed>,
    /// The continuation token of the next page; `None` at the end.
    pub next: Option<String>,
}
