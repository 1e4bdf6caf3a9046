//! The operations on the objects of the state that lies with the bucket, and their types.

use std::fs::File;

use crate::backend::condition::Condition;
use crate::backend::listing::Page;
use crate::backend::sealed;
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::tree::digest::Digest;
use crate::tree::source::Source;

/// The folder of the state's objects, below the prefix.
pub(crate) const STATE_FOLDER: &str = ".brigade/";

/// The key of the head: the one object of the state that is overwritten.
pub(crate) const HEAD_KEY: &str = ".brigade/head";

/// The operations on the objects of the state. They retry by the backend's policy, keep no state and bound what they
/// read. Sealed, as [`Transfers`](crate::Transfers) is.
#[doc(hidden)]
pub trait StateObjects: Send + Sync + sealed::Sealed {
    /// Returns where the objects lie.
    fn place(&self) -> StatePlace;

    /// Looks for the head by one small GET, for a run that has no use for it; `None` if the store says that there is
    /// none. Whatever lies there counts, also if it cannot be read as a head. A server that does not answer within
    /// 30 s is asked once.
    fn find_head(&self, context: &RequestContext<'_>) -> Result<Option<FoundState>, StorageError>;

    /// Reads an object of at most `limit` bytes, past all caches, unless its `ETag` is `if_none_match`. An object that is
    /// longer, or has a weak `ETag` or none, is an error; so is a refusal, which is not
    /// [`Missing`](Fetched::Missing).
    fn get_small(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        limit: u64,
        if_none_match: Option<&str>,
    ) -> Result<Fetched, StorageError>;

    /// Stores a small object on a condition. A try that had no answer is repeated with the same bytes and the same
    /// condition, so [`Refused`](PutSmall::Refused) may be the answer to our own earlier try.
    fn put_small(
        &self,
        context: &RequestContext<'_>,
        object: &SmallObject<'_>,
    ) -> Result<PutSmall, StorageError>;

    /// Returns the `ETag` of an object and when it was stored, by the store's clock; `None` if there is none.
    fn modified_of(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
    ) -> Result<Option<Modified>, StorageError>;

    /// Writes an object of exactly `size` bytes into a file, from its start, and returns its SHA-256. An object that is
    /// missing is an error of the kind [`NotFound`](crate::ErrorKind::NotFound), one of another size an error of the
    /// kind [`Integrity`](crate::ErrorKind::Integrity).
    fn get_to_file(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        file: &mut File,
    ) -> Result<[u8; 32], StorageError>;

    /// Stores a file whose SHA-256 is known, streamed, without a condition. Returns its `ETag`.
    fn put_file(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        source: &Source,
        digest: &Digest,
    ) -> Result<String, StorageError>;

    /// Deletes an object. One that is gone already is success.
    fn delete_small(&self, context: &RequestContext<'_>, key: &RemoteKey) -> Result<(), StorageError>;

    /// Returns one page of the objects whose keys begin with `under`.
    fn list_keys(
        &self,
        context: &RequestContext<'_>,
        under: &str,
        from: Option<&str>,
    ) -> Result<Page, StorageError>;

    /// Returns the `Date` of the store's last answer, in seconds since 1970. A proxy may have set it.
    fn store_date(&self) -> Option<u64>;

    /// Finds out whether the store keeps the conditions of writes and deletes, by some 40 requests. Its objects lie
    /// under `.brigade/probe-` and are deleted again.
    fn probe(&self, context: &RequestContext<'_>) -> Result<ProbeResult, StorageError>;

    /// Finds out by four requests whether the store looks at the conditions of writes. Returns the reason if it does
    /// not.
    fn probe_cheaply(&self, context: &RequestContext<'_>) -> Result<Option<String>, StorageError>;
}

/// A place in a store.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePlace {
    /// The host, with its port.
    pub endpoint: String,
    pub bucket: String,
    /// Empty, or it ends in a slash.
    pub prefix: String,
}

/// The place of a state that lies in a bucket.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Under the prefix, with the objects.
    Here,
    /// Where the marker under the prefix says: `s3://BUCKET/PREFIX`.
    Elsewhere(String),
}

/// A small object to store.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct SmallObject<'a> {
    pub key: &'a RemoteKey,
    pub bytes: &'a [u8],
    pub content_type: &'a str,
    pub condition: &'a Condition,
}

/// The result of reading a small object.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The object still has the `ETag` that the caller knows.
    NotModified,
    /// The store says that there is no object.
    Missing,
    /// The object.
    Found {
        bytes: Vec<u8>,
        /// A strong `ETag`, without quotes.
        etag: String,
        /// `Last-Modified`, in seconds since 1970.
        modified: u64,
    },
}

/// The result of storing a small object on a condition.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutSmall {
    /// The store has it.
    Stored {
        /// A strong `ETag`, without quotes.
        etag: String,
        /// At least one try had no answer.
        unanswered: bool,
    },
    /// The condition failed.
    Refused {
        /// At least one try had no answer, and may be what the store holds now.
        unanswered: bool,
    },
}

/// The `ETag` of an object, and when it was stored.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modified {
    /// A strong `ETag`, without quotes.
    pub etag: String,
    /// `Last-Modified`, in seconds since 1970.
    pub at: u64,
}

/// The conditions that a store keeps.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeResult {
    /// Of racing creates one wins.
    pub create: bool,
    /// A PUT with a stale `If-Match` is refused.
    pub replace: bool,
    /// A delete of a stale `ETag` is refused, alone and together with others.
    pub delete: bool,
    /// A sentence that says what the store did; `None` if it keeps them all.
    pub why: Option<String>,
}
