//! The status that every function that can fail returns.

use std::ffi::{CStr, c_char};

use crate::error::ErrorKind;

/// The result of a function. Numbers are explicit and are never used again for something else. Others may be
/// added: treat a number that you do not know as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_status {
    /// Done. Results were written through their pointers.
    BB_OK = 0,

    /// A setting is missing or wrong; the text names it.
    BB_ERR_CONFIG = 1,
    /// A text is not a valid object key.
    BB_ERR_INVALID_KEY = 2,
    /// There is no such operation on this destination.
    BB_ERR_UNSUPPORTED = 3,

    /// The host name does not resolve, or no connection could be made.
    BB_ERR_CONNECT = 10,
    /// No byte moved within the idle timeout, or a request exceeded its deadline.
    BB_ERR_TIMEOUT = 11,
    /// The server's certificate was not accepted.
    BB_ERR_TLS = 12,
    /// The connection broke after it was made.
    BB_ERR_NETWORK = 13,
    /// Too many connections failed in a row.
    BB_ERR_UNAVAILABLE = 14,
    /// The answer violates the protocol.
    BB_ERR_PROTOCOL = 15,

    /// The credentials were refused or could not be fetched.
    BB_ERR_CREDENTIALS = 20,
    /// The credentials are valid, but are not allowed to do this.
    BB_ERR_ACCESS_DENIED = 21,
    /// The bucket does not exist.
    BB_ERR_BUCKET_MISSING = 22,
    /// There is no such object, key, upload or state.
    BB_ERR_NOT_FOUND = 23,
    /// The bucket is in another region or behind another endpoint.
    BB_ERR_REGION = 24,
    /// The store asks for fewer requests.
    BB_ERR_THROTTLED = 25,
    /// The store failed (5xx).
    BB_ERR_SERVER = 26,
    /// The store rejected the request (any other 4xx).
    BB_ERR_REJECTED = 27,
    /// This machine's clock differs too much from the store's.
    BB_ERR_CLOCK_SKEW = 28,
    /// The store received other bytes than those that were hashed.
    BB_ERR_INTEGRITY = 29,
    /// Somebody else changed the object since it was published.
    BB_ERR_CONFLICT = 30,

    /// The file changed while it was being published.
    BB_ERR_SOURCE_CHANGED = 40,
    /// The file no longer exists.
    BB_ERR_SOURCE_VANISHED = 41,
    /// The file or directory cannot be read.
    BB_ERR_SOURCE_UNREADABLE = 42,
    /// The object is larger than the store or this version supports.
    BB_ERR_TOO_LARGE = 43,

    /// `bb_site_cancel` was called.
    BB_ERR_CANCELLED = 50,
    /// The deadline has passed.
    BB_ERR_DEADLINE = 51,
    /// Another run has taken over.
    BB_ERR_SUPERSEDED = 52,

    /// The cache or the catalog could not be read or written.
    BB_ERR_CACHE = 60,
    /// Another call or process is using the cache.
    BB_ERR_CACHE_LOCKED = 61,
    /// The cache belongs to another destination.
    BB_ERR_CACHE_FOREIGN = 62,
    /// The cache or the catalog is damaged, or was written by a newer version.
    BB_ERR_CACHE_DAMAGED = 63,

    /// The root does not exist.
    BB_ERR_ROOT_MISSING = 70,
    /// The root is empty although files were published from it.
    BB_ERR_ROOT_EMPTY = 71,
    /// The prefix already contains objects, and `first_run` says to refuse that.
    BB_ERR_FIRST_RUN_REFUSED = 72,
    /// The state in the bucket is damaged, newer, or that of another place or tree.
    BB_ERR_STATE_DAMAGED = 73,

    /// The library, or a callback below it, panicked. No panic crosses the border.
    BB_ERR_PANICKED = 80,
    /// Anything else; the text says what.
    BB_ERR_OTHER = 99,

    /// A handle with threads was used in a process that was forked from the one that opened it.
    BB_ERR_FORKED = 100,
    /// An argument is NULL, not UTF-8, or not a number of its kind; the text names it.
    BB_ERR_ARGUMENT = 101,
    /// The site was closed.
    BB_ERR_CLOSED = 102,
    /// Another thread is inside a call on the site that is to be closed.
    BB_ERR_BUSY = 103,

    /// `bb_iter_next`: there are no more keys. Not an error.
    BB_DONE = 200,
}

impl From<ErrorKind> for bb_status {
    /// Every kind of the library has its own status, with the same number. Exhaustive: a new kind does not
    /// compile without one.
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Config => Self::BB_ERR_CONFIG,
            ErrorKind::InvalidKey => Self::BB_ERR_INVALID_KEY,
            ErrorKind::Unsupported => Self::BB_ERR_UNSUPPORTED,
            ErrorKind::Connect => Self::BB_ERR_CONNECT,
            ErrorKind::Timeout => Self::BB_ERR_TIMEOUT,
            ErrorKind::Tls => Self::BB_ERR_TLS,
            ErrorKind::Network => Self::BB_ERR_NETWORK,
            ErrorKind::Unavailable => Self::BB_ERR_UNAVAILABLE,
            ErrorKind::Protocol => Self::BB_ERR_PROTOCOL,
            ErrorKind::Credentials => Self::BB_ERR_CREDENTIALS,
            ErrorKind::AccessDenied => Self::BB_ERR_ACCESS_DENIED,
            ErrorKind::BucketMissing => Self::BB_ERR_BUCKET_MISSING,
            ErrorKind::NotFound => Self::BB_ERR_NOT_FOUND,
            ErrorKind::Region => Self::BB_ERR_REGION,
            ErrorKind::Throttled => Self::BB_ERR_THROTTLED,
            ErrorKind::Server => Self::BB_ERR_SERVER,
            ErrorKind::Rejected => Self::BB_ERR_REJECTED,
            ErrorKind::ClockSkew => Self::BB_ERR_CLOCK_SKEW,
            ErrorKind::Integrity => Self::BB_ERR_INTEGRITY,
            ErrorKind::Conflict => Self::BB_ERR_CONFLICT,
            ErrorKind::SourceChanged => Self::BB_ERR_SOURCE_CHANGED,
            ErrorKind::SourceVanished => Self::BB_ERR_SOURCE_VANISHED,
            ErrorKind::SourceUnreadable => Self::BB_ERR_SOURCE_UNREADABLE,
            ErrorKind::TooLarge => Self::BB_ERR_TOO_LARGE,
            ErrorKind::Cancelled => Self::BB_ERR_CANCELLED,
            ErrorKind::Deadline => Self::BB_ERR_DEADLINE,
            ErrorKind::Superseded => Self::BB_ERR_SUPERSEDED,
            ErrorKind::Cache => Self::BB_ERR_CACHE,
            ErrorKind::CacheLocked => Self::BB_ERR_CACHE_LOCKED,
            ErrorKind::CacheForeign => Self::BB_ERR_CACHE_FOREIGN,
            ErrorKind::CacheDamaged => Self::BB_ERR_CACHE_DAMAGED,
            ErrorKind::RootMissing => Self::BB_ERR_ROOT_MISSING,
            ErrorKind::RootEmpty => Self::BB_ERR_ROOT_EMPTY,
            ErrorKind::FirstRunRefused => Self::BB_ERR_FIRST_RUN_REFUSED,
            ErrorKind::StateDamaged => Self::BB_ERR_STATE_DAMAGED,
            ErrorKind::Panicked => Self::BB_ERR_PANICKED,
            ErrorKind::Other => Self::BB_ERR_OTHER,
        }
    }
}

/// Returns the name of a status, such as "BB_ERR_CONNECT", or "unknown status". The text lives as long as the
/// program.
///
/// @param status a bb_status
#[unsafe(no_mangle)]
pub extern "C" fn bb_status_name(status: u32) -> *const c_char {
    name_of(status).as_ptr()
}

/// The statuses by number, with their names.
pub(crate) const NAMES: [(bb_status, &CStr); 43] = [
    (bb_status::BB_OK, c"BB_OK"),
    (bb_status::BB_ERR_CONFIG, c"BB_ERR_CONFIG"),
    (bb_status::BB_ERR_INVALID_KEY, c"BB_ERR_INVALID_KEY"),
    (bb_status::BB_ERR_UNSUPPORTED, c"BB_ERR_UNSUPPORTED"),
    (bb_status::BB_ERR_CONNECT, c"BB_ERR_CONNECT"),
    (bb_status::BB_ERR_TIMEOUT, c"BB_ERR_TIMEOUT"),
    (bb_status::BB_ERR_TLS, c"BB_ERR_TLS"),
    (bb_status::BB_ERR_NETWORK, c"BB_ERR_NETWORK"),
    (bb_status::BB_ERR_UNAVAILABLE, c"BB_ERR_UNAVAILABLE"),
    (bb_status::BB_ERR_PROTOCOL, c"BB_ERR_PROTOCOL"),
    (bb_status::BB_ERR_CREDENTIALS, c"BB_ERR_CREDENTIALS"),
    (bb_status::BB_ERR_ACCESS_DENIED, c"BB_ERR_ACCESS_DENIED"),
    (bb_status::BB_ERR_BUCKET_MISSING, c"BB_ERR_BUCKET_MISSING"),
    (bb_status::BB_ERR_NOT_FOUND, c"BB_ERR_NOT_FOUND"),
    (bb_status::BB_ERR_REGION, c"BB_ERR_REGION"),
    (bb_status::BB_ERR_THROTTLED, c"BB_ERR_THROTTLED"),
    (bb_status::BB_ERR_SERVER, c"BB_ERR_SERVER"),
    (bb_status::BB_ERR_REJECTED, c"BB_ERR_REJECTED"),
    (bb_status::BB_ERR_CLOCK_SKEW, c"BB_ERR_CLOCK_SKEW"),
    (bb_status::BB_ERR_INTEGRITY, c"BB_ERR_INTEGRITY"),
    (bb_status::BB_ERR_CONFLICT, c"BB_ERR_CONFLICT"),
    (bb_status::BB_ERR_SOURCE_CHANGED, c"BB_ERR_SOURCE_CHANGED"),
    (bb_status::BB_ERR_SOURCE_VANISHED, c"BB_ERR_SOURCE_VANISHED"),
    (bb_status::BB_ERR_SOURCE_UNREADABLE, c"BB_ERR_SOURCE_UNREADABLE"),
    (bb_status::BB_ERR_TOO_LARGE, c"BB_ERR_TOO_LARGE"),
    (bb_status::BB_ERR_CANCELLED, c"BB_ERR_CANCELLED"),
    (bb_status::BB_ERR_DEADLINE, c"BB_ERR_DEADLINE"),
    (bb_status::BB_ERR_SUPERSEDED, c"BB_ERR_SUPERSEDED"),
    (bb_status::BB_ERR_CACHE, c"BB_ERR_CACHE"),
    (bb_status::BB_ERR_CACHE_LOCKED, c"BB_ERR_CACHE_LOCKED"),
    (bb_status::BB_ERR_CACHE_FOREIGN, c"BB_ERR_CACHE_FOREIGN"),
    (bb_status::BB_ERR_CACHE_DAMAGED, c"BB_ERR_CACHE_DAMAGED"),
    (bb_status::BB_ERR_ROOT_MISSING, c"BB_ERR_ROOT_MISSING"),
    (bb_status::BB_ERR_ROOT_EMPTY, c"BB_ERR_ROOT_EMPTY"),
    (bb_status::BB_ERR_FIRST_RUN_REFUSED, c"BB_ERR_FIRST_RUN_REFUSED"),
    (bb_status::BB_ERR_STATE_DAMAGED, c"BB_ERR_STATE_DAMAGED"),
    (bb_status::BB_ERR_PANICKED, c"BB_ERR_PANICKED"),
    (bb_status::BB_ERR_OTHER, c"BB_ERR_OTHER"),
    (bb_status::BB_ERR_FORKED, c"BB_ERR_FORKED"),
    (bb_status::BB_ERR_ARGUMENT, c"BB_ERR_ARGUMENT"),
    (bb_status::BB_ERR_CLOSED, c"BB_ERR_CLOSED"),
    (bb_status::BB_ERR_BUSY, c"BB_ERR_BUSY"),
    (bb_status::BB_DONE, c"BB_DONE"),
];

fn name_of(status: u32) -> &'static CStr {
    let found = NAMES.iter().find(|(known, _)| *known as u32 == status);
    found.map_or(c"unknown status", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_kind_has_its_number() {
        for (status, name) in NAMES {
            assert_eq!(name.to_str().unwrap(), format!("{status:?}"));
        }
        let kinds = [
            ErrorKind::Config,
            ErrorKind::InvalidKey,
            ErrorKind::Unsupported,
            ErrorKind::Connect,
            ErrorKind::Timeout,
            ErrorKind::Tls,
            ErrorKind::Network,
            ErrorKind::Unavailable,
            ErrorKind::Protocol,
            ErrorKind::Credentials,
            ErrorKind::AccessDenied,
            ErrorKind::BucketMissing,
            ErrorKind::NotFound,
            ErrorKind::Region,
            ErrorKind::Throttled,
            ErrorKind::Server,
            ErrorKind::Rejected,
            ErrorKind::ClockSkew,
            ErrorKind::Integrity,
            ErrorKind::Conflict,
            ErrorKind::SourceChanged,
            ErrorKind::SourceVanished,
            ErrorKind::SourceUnreadable,
            ErrorKind::TooLarge,
            ErrorKind::Cancelled,
            ErrorKind::Deadline,
            ErrorKind::Superseded,
            ErrorKind::Cache,
            ErrorKind::CacheLocked,
            ErrorKind::CacheForeign,
            ErrorKind::CacheDamaged,
            ErrorKind::RootMissing,
            ErrorKind::RootEmpty,
            ErrorKind::FirstRunRefused,
            ErrorKind::StateDamaged,
            ErrorKind::Panicked,
            ErrorKind::Other,
        ];
        for kind in kinds {
            assert_eq!(bb_status::from(kind) as u32, u32::from(kind.code()), "{kind:?}");
        }
        assert_eq!(name_of(9_999), c"unknown status");
    }
}
