//! The kinds of failures, and the operations that can fail.

use std::fmt;

/// The kind of a failure. The numbers are part of the interface: bindings for other languages use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum ErrorKind {
    /// A setting is missing or wrong; the message names the field.
    Config = 1,
    /// A string is not a valid object key.
    InvalidKey = 2,
    /// The operation does not exist on this backend.
    Unsupported = 3,

    /// The host name does not resolve, or no connection could be made.
    Connect = 10,
    /// No byte was transferred within the idle timeout, or the request exceeded its deadline.
    Timeout = 11,
    /// The server's certificate was not accepted.
    Tls = 12,
    /// The connection broke after it was made.
    Network = 13,
    /// The circuit is open: too many connections failed in a row.
    Unavailable = 14,
    /// The answer violates the protocol.
    Protocol = 15,

    /// The credentials were refused (unknown key, wrong signature, expired token), or could not be fetched.
    Credentials = 20,
    /// The credentials are valid, but are not allowed to do this.
    AccessDenied = 21,
    /// The bucket does not exist.
    BucketMissing = 22,
    /// The object or the upload ID does not exist.
    NotFound = 23,
    /// The bucket is in another region or behind another endpoint.
    Region = 24,
    /// The store asks for fewer requests (429, 503, `SlowDown`).
    Throttled = 25,
    /// The store failed (5xx).
    Server = 26,
    /// The store rejected this request (any other 4xx).
    Rejected = 27,
    /// This machine's clock differs too much from the store's.
    ClockSkew = 28,
    /// The store received other bytes than those that were hashed.
    Integrity = 29,
    /// Somebody else stored or deleted the object since it was published: the condition of the request failed.
    Conflict = 30,

    /// The file changed while it was being published.
    SourceChanged = 40,
    /// The file no longer exists.
    SourceVanished = 41,
    /// The file or directory cannot be read.
    SourceUnreadable = 42,
    /// The object is larger than the store or this version supports.
    TooLarge = 43,

    /// The caller cancelled the run.
    Cancelled = 50,
    /// The run's deadline has passed.
    Deadline = 51,
    /// Another run has taken over, so that this one may send nothing more.
    Superseded = 52,

    /// The cache file could not be read or written.
    Cache = 60,
    /// Another rescan or process is using the cache.
    CacheLocked = 61,
    /// The cache belongs to another destination.
    CacheForeign = 62,
    /// The cache is damaged, or was written by a newer version.
    CacheDamaged = 63,

    /// The root does not exist.
    RootMissing = 70,
    /// The root is empty although files were published from it.
    RootEmpty = 71,
    /// The prefix already contains objects, and the configuration says to refuse that on a first run.
    FirstRunRefused = 72,

    /// The state in the bucket is damaged, needs a newer version, or belongs to another bucket, prefix or tree.
    StateDamaged = 73,

    /// A backend or an observer panicked.
    Panicked = 80,
    /// Anything else; the source says what.
    Other = 99,
}

impl ErrorKind {
    /// The number of this kind, the same in every version.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Returns true if errors of this kind usually go away without anybody's help.
    pub fn is_transient(self) -> bool {
        self.is_outage() || self == Self::Throttled
    }

    /// Returns true if the store could not be reached or could not serve any request.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::Network | Self::Unavailable | Self::Server | Self::Protocol
        )
    }

    /// Returns true if the run fails as a whole when its first request ends with this kind: every other request
    /// would end the same way. `AccessDenied` is not among them: a permission may be missing for one key only.
    pub(crate) fn is_fatal_at_first(self) -> bool {
        // Network and server errors are not here: such an outage ends the run as `LocalOnly`, not as an error.
        matches!(
            self,
            Self::Config
                | Self::Tls
                | Self::Credentials
                | Self::BucketMissing
                | Self::Region
                | Self::ClockSkew
        )
    }
}

/// An operation that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Operation {
    /// Checking a configuration.
    Configure = 1,
    /// Walking the tree.
    Walk = 2,
    /// Reading a file.
    Read = 3,
    /// Sending a file.
    Upload = 4,
    /// Deleting an object.
    Delete = 5,
    /// Listing objects.
    List = 6,
    /// Reading or writing the cache.
    Cache = 7,
    /// A rescan as a whole.
    Rescan = 8,
    /// Aborting a multipart upload.
    Abort = 9,
    /// Reading an object.
    Download = 10,
    /// Asking for an object's size, `ETag` and metadata.
    Head = 11,
    /// Reading or writing the state in the bucket.
    State = 12,
    /// Giving an object other headers, by a copy onto itself.
    Copy = 13,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Walk => "walk",
            Self::Read => "read",
            Self::Upload => "upload",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Cache => "cache",
            Self::Rescan => "rescan",
            Self::Abort => "abort",
            Self::Download => "download",
            Self::Head => "head",
            Self::State => "state",
            Self::Copy => "copy",
        })
    }
}
