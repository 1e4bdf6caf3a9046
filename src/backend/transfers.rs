//! The operations of a store with receipts, multipart uploads, bulk deletes and listings, and their types.

use serde::{Deserialize, Serialize};

use crate::backend::condition::Condition;
use crate::backend::due_headers::DueHeaders;
use crate::backend::listing::Page;
use crate::backend::proof::Proof;
use crate::backend::sealed;
use crate::backend::state_objects::StateObjects;
use crate::error::StorageError;
use crate::key::{MAX_KEY_BYTES, RemoteKey};
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// The store's acknowledgement that it holds an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The public URL of the object.
    pub url: String,
    /// The `ETag`, an opaque string; `None` if the store sent none.
    pub etag: Option<String>,
}

/// The result of each key of a delete.
#[doc(hidden)]
pub type Deleted = Vec<(RemoteKey, Result<(), StorageError>)>;

/// The operations of a store with receipts, multipart uploads, bulk deletes and listings. They retry by the backend's
/// policy and keep no state: the caller schedules them and records their results. Sealed for now: only the backends of
/// this crate implement it.
pub trait Transfers: Send + Sync + sealed::Sealed {
    /// Returns the name of the bucket for log records.
    #[doc(hidden)]
    fn bucket(&self) -> &str;

    /// Returns the parts of a file of this size; `None` if it goes in one request. An error if the store does not take
    /// such a file.
    #[doc(hidden)]
    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError>;

    /// Reads an object and returns its digest, plain or by parts of `part_size` bytes; `None` if it does not have this
    /// size.
    #[doc(hidden)]
    fn content(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError>;

    /// Lists one object, with a short time limit. If that succeeds, endpoint, certificate, credentials, bucket and clock
    /// are right, and the credentials may list.
    #[doc(hidden)]
    fn preflight(&self, context: &RequestContext<'_>) -> Result<(), StorageError>;

    /// Returns the headers that the object of a key gets.
    #[doc(hidden)]
    fn headers_of(&self, key: &RemoteKey) -> Result<DueHeaders, StorageError>;

    /// Uploads a file whose digest is known, in one request.
    #[doc(hidden)]
    fn put(&self, context: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError>;

    /// Returns whether an object of this size may be copied in place, as far as is known.
    #[doc(hidden)]
    fn may_copy(&self, size: u64) -> bool;

    /// Gives an object the headers that it is due, by a copy onto itself.
    #[doc(hidden)]
    fn copy_in_place(
        &self,
        context: &RequestContext<'_>,
        object: &HeaderCopy<'_>,
    ) -> Result<Copied, StorageError>;

    /// Returns what a HEAD tells of the object under a key; `None` if there is none. `with_checksum` also asks for the
    /// SHA-256 that the store keeps, which needs the permission to decrypt an object that is encrypted by KMS. Without permission to read it,
    /// and with most stores also without permission to list, the error is
    /// [`AccessDenied`](crate::ErrorKind::AccessDenied), also for an object that is missing.
    #[doc(hidden)]
    fn head(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        with_checksum: bool,
    ) -> Result<Option<StoredObject>, StorageError>;

    /// Creates a multipart upload.
    #[doc(hidden)]
    fn begin(&self, context: &RequestContext<'_>, key: &RemoteKey, creation: &Creation<'_>) -> Begun;

    /// Uploads a part whose SHA-256 is known. Returns its `ETag`.
    #[doc(hidden)]
    fn part(&self, context: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError>;

    /// Completes a multipart upload.
    #[doc(hidden)]
    fn finish(&self, context: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError>;

    /// Aborts a multipart upload. One that is gone already is success.
    #[doc(hidden)]
    fn abort(&self, context: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError>;

    /// Returns the state of an upload that an earlier run created.
    #[doc(hidden)]
    fn reconcile(
        &self,
        context: &RequestContext<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError>;

    /// Returns one page of the unfinished uploads of a key, whoever created them. It may hold those of other keys, too.
    #[doc(hidden)]
    fn list_uploads(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError>;

    /// Deletes up to [`delete_limit`](Self::delete_limit) keys, each on its condition. The outer error means that none
    /// was tried.
    #[doc(hidden)]
    fn delete_many(
        &self,
        context: &RequestContext<'_>,
        keys: &[(RemoteKey, Condition)],
    ) -> Result<Deleted, StorageError>;

    /// Returns one page of the objects under the prefix, without those of publishers' states.
    #[doc(hidden)]
    fn list(&self, context: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError>;

    /// Returns the operations on the objects of the state.
    #[doc(hidden)]
    fn state_objects(&self) -> &dyn StateObjects;

    /// Returns the most keys of one [`delete_many`](Self::delete_many).
    #[doc(hidden)]
    fn delete_limit(&self) -> usize {
        1000
    }

    /// Returns the most bytes of a key without the prefix.
    #[doc(hidden)]
    fn key_room(&self) -> usize {
        MAX_KEY_BYTES
    }
}

/// A file to upload: open, with its key and digest.
#[doc(hidden)]
pub struct Upload<'a> {
    pub(crate) source: &'a Source,
    pub(crate) key: &'a RemoteKey,
    pub(crate) digest: &'a Digest,
    /// The token of the run.
    pub(crate) run: &'a str,
    pub(crate) condition: &'a Condition,
}

/// An object that is to get the headers that it is due.
#[doc(hidden)]
pub struct HeaderCopy<'a> {
    pub(crate) key: &'a RemoteKey,
    /// The digest and the size of its content, which stays.
    pub(crate) digest: &'a Digest,
    pub(crate) size: u64,
    /// The `ETag` that it has as far as is known. It must be a strong one.
    pub(crate) etag: &'a str,
    /// The token of the run.
    pub(crate) run: &'a str,
}

/// The result of a copy in place.
#[doc(hidden)]
#[derive(Debug)]
pub enum Copied {
    /// The object has the headers. Its `ETag` may be another one than before.
    Done(Receipt),
    /// It is gone, or another object than the one with this `ETag`.
    Changed,
    /// The store does not copy this object: its file has to be sent again.
    Refused,
}

/// A multipart upload to create. Both fields are stored with its object.
#[doc(hidden)]
pub struct Creation<'a> {
    /// The token that later proves that the object came from this upload.
    pub(crate) token: &'a str,
    pub(crate) proof: &'a Proof,
}

/// An object, as a HEAD shows it.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredObject {
    pub(crate) size: u64,
    pub(crate) etag: Option<String>,
    pub(crate) proof: Option<Proof>,
    /// The proof names this very key, and the size that the object has.
    pub(crate) is_as_stored: bool,
    /// The `ETag` may be something else than an MD5: the object is encrypted with a key of KMS or of the client.
    pub(crate) encrypted: bool,
    /// The SHA-256 that the store keeps with the object: of its bytes, or of its parts' SHA-256s.
    pub(crate) checksum: Option<StoredChecksum>,
    /// The token of the multipart upload of ours that it came from.
    pub(crate) upload_token: Option<String>,
}

/// A SHA-256 that a store keeps with an object.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredChecksum {
    /// The SHA-256 of the object's bytes.
    Whole([u8; 32]),
    /// The SHA-256 of the SHA-256s of its parts.
    OfParts([u8; 32]),
}

/// The names of a multipart upload: its key, our token and the store's upload ID.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadName {
    pub(crate) key: RemoteKey,
    pub(crate) token: String,
    pub(crate) upload_id: String,
}

/// Returns a token for a new upload: 128 random bits.
pub(crate) fn new_token() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// The result of creating a multipart upload.
#[doc(hidden)]
#[derive(Debug)]
pub struct Begun {
    /// The store's upload ID.
    pub(crate) upload_id: Result<String, StorageError>,
    /// A try whose response was lost may have created another upload, whose ID is unknown.
    pub(crate) lost: bool,
}

/// A part to upload.
#[doc(hidden)]
pub struct PartUpload<'a> {
    pub(crate) upload: &'a UploadName,
    pub(crate) source: &'a Source,
    /// The part number, from 1.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) sha256: &'a [u8; 32],
}

/// A part that the store acknowledged.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPart {
    pub(crate) etag: String,
    pub(crate) sha256: [u8; 32],
}

/// An upload with all parts acknowledged, ready to complete.
#[doc(hidden)]
pub struct Assembly<'a> {
    pub(crate) upload: &'a UploadName,
    pub(crate) parts: &'a [SentPart],
    /// The size of the object in bytes.
    pub(crate) size: u64,
    pub(crate) condition: &'a Condition,
}

/// A completed upload.
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
    /// `None` if the store lists none.
    pub(crate) etag: Option<String>,
}

/// The state of an upload that an earlier run created.
#[doc(hidden)]
#[derive(Debug)]
pub enum Reconciled {
    /// The upload is open and has these parts.
    Open(Vec<ListedPart>),
    /// The upload may be open; the store does not list its parts.
    Unlisted,
    /// The upload was completed: its object is there.
    Finished(Receipt),
    /// The upload is gone.
    Gone,
}

/// An unfinished upload as the store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedUpload {
    /// The key without the prefix.
    pub(crate) key: String,
    pub(crate) upload_id: String,
    /// When it was created, in seconds since 1970 by the store's clock, if the store says so.
    pub(crate) initiated: Option<u64>,
}

/// The position after which a page of unfinished uploads begins: a key and an upload ID.
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
