//! Of what class a failure is, and what was being done.

use std::fmt;

/// What kind of failure this is. The numbers are part of the interface: other languages see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum ErrorKind {
    /// A setting is missing or wrong; the message names the field.
    Config = 1,
    /// A string that cannot be an object's key.
    InvalidKey = 2,
    /// The operation does not exist on this backend.
    Unsupported = 3,

    /// The host name does not resolve, or nobody accepts the connection.
    Connect = 10,
    /// No byte moved for the idle limit, or the request outlived its deadline.
    Timeout = 11,
    /// The server's certificate was not accepted.
    Tls = 12,
    /// The connection broke after it was made.
    Network = 13,
    /// The circuit is open: too many requests in a row found nobody there.
    Unavailable = 14,
    /// The answer is not what the protocol allows.
    Protocol = 15,

    /// The credentials were refused: unknown key, wrong signature, expired token.
    Credentials = 20,
    /// The credentials are known, and may not do this.
    AccessDenied = 21,
    /// There is no such bucket.
    BucketMissing = 22,
    /// There is no such object or upload.
    NotFound = 23,
    /// The bucket lives in another region or behind another endpoint.
    Region = 24,
    /// The store asks for fewer requests (429, 503, `SlowDown`).
    Throttled = 25,
    /// The store failed (5xx).
    Server = 26,
    /// The store refused this request (another 4xx).
    Rejected = 27,
    /// This machine's clock is too far from the store's.
    ClockSkew = 28,
    /// The store received other bytes than were hashed.
    Integrity = 29,

    /// The file changed while it was being published.
    SourceChanged = 40,
    /// The file is gone.
    SourceVanished = 41,
    /// The file or directory cannot be read.
    SourceUnreadable = 42,
    /// The object is larger than the store or this version can take.
    TooLarge = 43,

    /// The caller cancelled.
    Cancelled = 50,
    /// The run's deadline has passed.
    Deadline = 51,

    /// The cache file could not be read or written.
    Cache = 60,
    /// Another rescan or process holds the cache.
    CacheLocked = 61,
    /// The cache belongs to another destination.
    CacheForeign = 62,
    /// The cache is damaged, or was written by a newer version.
    CacheDamaged = 63,

    /// The root is missing.
    RootMissing = 70,
    /// The root is empty although files were published from it.
    RootEmpty = 71,
    /// The prefix already holds objects and the run was told to refuse that.
    FirstRunRefused = 72,

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

    /// Whether errors of this kind usually go away by themselves.
    pub fn is_transient(self) -> bool {
        self.is_outage() || self == Self::Throttled
    }

    /// Whether the store could not be reached or could not work at all.
    pub fn is_outage(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::Timeout | Self::Network | Self::Unavailable | Self::Server | Self::Protocol
        )
    }

    /// Whether a request that ends so before any other succeeded makes the whole run an error: every other
    /// one would end the same way. A refused permission may be that of one key.
    pub(crate) fn is_fatal_at_first(self) -> bool {
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

/// What was being done.
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
    /// Giving up an upload in parts.
    Abort = 9,
    /// Reading an object.
    Download = 10,
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
        })
    }
}
