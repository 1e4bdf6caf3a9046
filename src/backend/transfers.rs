//! The operations of a store that can more than four methods, and what they take and give.

use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::key::{MAX_KEY_BYTES, RemoteKey};
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// A store's acknowledgement that it holds an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Its public URL.
    pub url: String,
    /// The store's tag for it, an opaque string; `None` where the store gave none.
    pub etag: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// Its name behind the prefix.
    pub key: String,
    /// Bytes.
    pub size: u64,
    /// The store's tag for it, if the listing has one.
    pub etag: Option<String>,
}

/// A page of a listing.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Page {
    /// The objects, in the store's order.
    pub objects: Vec<Listed>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

/// What became of each key of a delete.
#[doc(hidden)]
pub type Deleted = Vec<(RemoteKey, Result<(), StorageError>)>;

/// The steps of a store that gives receipts, takes large files in parts, deletes many keys at once and
/// lists. Stateless: whoever drives them schedules them, records their outcome, and repeats what may be
/// repeated by the rules of one exchange. Sealed for now: only the backends of this crate implement it.
pub trait Transfers: Send + Sync + sealed::Sealed {
    /// What the log calls the place.
    #[doc(hidden)]
    fn bucket(&self) -> &str;

    /// How a file of this size is cut; `None`: it goes in one request. An error if the store cannot
    /// hold it.
    #[doc(hidden)]
    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError>;

    /// Reads an object and takes its digest, plain or in parts of so many bytes; `None`: it is not of this
    /// size.
    #[doc(hidden)]
    fn content(
        &self,
        exchange: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError>;

    /// One small signed request: endpoint, certificate, credentials, bucket and clock are right where it
    /// succeeds.
    #[doc(hidden)]
    fn preflight(&self, exchange: &RequestContext<'_>) -> Result<(), StorageError>;

    /// Names the headers that the object of a key gets: another digest, other headers.
    #[doc(hidden)]
    fn headers_of(&self, key: &RemoteKey) -> Result<[u8; 32], StorageError>;

    /// Stores a source whose digest is known, in one request.
    #[doc(hidden)]
    fn put(&self, exchange: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError>;

    /// Begins an upload in parts. The token is stored with the object: it will prove it ours.
    #[doc(hidden)]
    fn begin(&self, exchange: &RequestContext<'_>, key: &RemoteKey, token: &str) -> Begun;

    /// Sends a part whose SHA-256 is known; gives its `ETag`.
    #[doc(hidden)]
    fn part(&self, exchange: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError>;

    /// Makes the object of its parts.
    #[doc(hidden)]
    fn finish(&self, exchange: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError>;

    /// Gives up an upload and its parts. One that is gone already is success.
    #[doc(hidden)]
    fn abort(&self, exchange: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError>;

    /// What the store knows of an upload that was begun before.
    #[doc(hidden)]
    fn reconcile(
        &self,
        exchange: &RequestContext<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError>;

    /// One page of the unfinished uploads of a key, whoever began them; it may hold some of other keys, too.
    #[doc(hidden)]
    fn list_uploads(
        &self,
        exchange: &RequestContext<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError>;

    /// Deletes up to [`delete_limit`](Self::delete_limit) keys. The outer error: none was tried.
    #[doc(hidden)]
    fn delete_many(&self, exchange: &RequestContext<'_>, keys: &[RemoteKey])
    -> Result<Deleted, StorageError>;

    /// One page of what lies under the prefix.
    #[doc(hidden)]
    fn list(&self, exchange: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError>;

    /// The most keys of one [`delete_many`](Self::delete_many).
    #[doc(hidden)]
    fn delete_limit(&self) -> usize {
        1000
    }

    /// How many bytes a key may have before the prefix.
    #[doc(hidden)]
    fn key_room(&self) -> usize {
        MAX_KEY_BYTES
    }
}

/// A file on its way: where it is, open, under which key, with which content.
#[doc(hidden)]
pub struct Upload<'a> {
    pub(crate) source: &'a Source,
    pub(crate) key: &'a RemoteKey,
    pub(crate) digest: &'a Digest,
}

/// What names an upload in parts.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadName {
    pub(crate) key: RemoteKey,
    pub(crate) token: String,
    pub(crate) upload_id: String,
}

/// A token that no other upload has: 128 random bits.
pub(crate) fn new_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// How the beginning of an upload went.
#[doc(hidden)]
#[derive(Debug)]
pub struct Begun {
    /// The store's name for it.
    pub(crate) upload_id: Result<String, StorageError>,
    /// A try whose answer was lost may have begun another one, whose name nobody knows.
    pub(crate) lost: bool,
}

/// One part on its way.
#[doc(hidden)]
pub struct PartUpload<'a> {
    pub(crate) upload: &'a UploadName,
    pub(crate) source: &'a Source,
    /// From 1.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) sha256: &'a [u8; 32],
}

/// A part that the store took.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPart {
    pub(crate) etag: String,
    pub(crate) sha256: [u8; 32],
}

/// An upload all of whose parts were taken.
#[doc(hidden)]
pub struct Assembly<'a> {
    pub(crate) upload: &'a UploadName,
    pub(crate) parts: &'a [SentPart],
    /// Bytes of the whole.
    pub(crate) size: u64,
}

/// A finished upload.
#[doc(hidden)]
#[derive(Debug)]
pub struct Finished {
    pub(crate) receipt: Receipt,
    pub(crate) request_id: String,
}

/// A part as the store lists it.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    pub(crate) number: u32,
    pub(crate) size: u64,
    /// Some stores list none.
    pub(crate) etag: Option<String>,
}

/// What became of an upload that was begun before.
#[doc(hidden)]
#[derive(Debug)]
pub enum Reconciled {
    /// It is open and has these parts.
    Open(Vec<ListedPart>),
    /// It is open, as far as is known; what it has may not be listed.
    Unlisted,
    /// It was finished: the object there is ours.
    Finished(Receipt),
    /// It is gone.
    Gone,
}

/// An unfinished upload as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedUpload {
    /// Behind the prefix.
    pub(crate) key: String,
    pub(crate) upload_id: String,
}

/// Where a page of unfinished uploads begins: behind this key and id.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadMarker {
    pub(crate) key: String,
    pub(crate) upload_id: String,
}

/// A page of unfinished uploads.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct UploadPage {
    pub(crate) uploads: Vec<ListedUpload>,
    pub(crate) next: Option<UploadMarker>,
}

pub(crate) mod sealed {
    /// Keeps `Transfers` within the crate.
    pub trait Sealed {}
}
