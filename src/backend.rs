//! Where it goes: the contract of a store, in four methods, and the steps of stores that can more.

pub(crate) mod local;
pub(crate) mod s3;
pub(crate) mod simple;

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{CancelToken, Clock};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::gate::Gate;
use crate::key::{MAX_KEY_BYTES, RemoteKey};
use crate::observe::trace::Trace;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;
use crate::tree::version::FileStat;

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

/// What one step needs of whoever drives it: how to be cancelled, until when, what time it is, the
/// gate before the destination, and where its records go.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    pub(crate) cancel: &'a CancelToken,
    pub(crate) deadline: Option<Duration>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) gate: &'a Gate,
    pub(crate) trace: &'a Trace,
}

impl Exchange<'_> {
    /// An error if the work was cancelled or is out of time.
    pub(crate) fn check(&self, operation: Operation) -> Result<(), StorageError> {
        if self.cancel.is_cancelled() {
            return Err(StorageError::new(ErrorKind::Cancelled, operation, "cancelled"));
        }
        if self.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return Err(StorageError::new(ErrorKind::Deadline, operation, "the run's deadline has passed"));
        }
        Ok(())
    }

    pub(crate) fn within_deadline(&self, wait: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => wait.min(deadline.saturating_sub(self.clock.now())),
            None => wait,
        }
    }
}

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
        exchange: &Exchange<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError>;

    /// One small signed request: endpoint, certificate, credentials, bucket and clock are right where it
    /// succeeds.
    #[doc(hidden)]
    fn preflight(&self, exchange: &Exchange<'_>) -> Result<(), StorageError>;

    /// Names the headers that the object of a key gets: another digest, other headers.
    #[doc(hidden)]
    fn headers_of(&self, key: &RemoteKey) -> Result<[u8; 32], StorageError>;

    /// Stores a source whose digest is known, in one request.
    #[doc(hidden)]
    fn put(&self, exchange: &Exchange<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError>;

    /// Begins an upload in parts. The token is stored with the object: it will prove it ours.
    #[doc(hidden)]
    fn begin(&self, exchange: &Exchange<'_>, key: &RemoteKey, token: &str) -> Begun;

    /// Sends a part whose SHA-256 is known; gives its `ETag`.
    #[doc(hidden)]
    fn part(&self, exchange: &Exchange<'_>, part: &PartUpload<'_>) -> Result<String, StorageError>;

    /// Makes the object of its parts.
    #[doc(hidden)]
    fn finish(&self, exchange: &Exchange<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError>;

    /// Gives up an upload and its parts. One that is gone already is success.
    #[doc(hidden)]
    fn abort(&self, exchange: &Exchange<'_>, upload: &UploadName) -> Result<(), StorageError>;

    /// What the store knows of an upload that was begun before.
    #[doc(hidden)]
    fn reconcile(
        &self,
        exchange: &Exchange<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError>;

    /// One page of the unfinished uploads of a key, whoever began them; it may hold some of other keys, too.
    #[doc(hidden)]
    fn list_uploads(
        &self,
        exchange: &Exchange<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError>;

    /// Deletes up to [`delete_limit`](Self::delete_limit) keys. The outer error: none was tried.
    #[doc(hidden)]
    fn delete_many(&self, exchange: &Exchange<'_>, keys: &[RemoteKey]) -> Result<Deleted, StorageError>;

    /// One page of what lies under the prefix.
    #[doc(hidden)]
    fn list(&self, exchange: &Exchange<'_>, from: Option<&str>) -> Result<Page, StorageError>;

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

mod sealed {
    /// Keeps `Transfers` within the crate.
    pub trait Sealed {}
}

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
