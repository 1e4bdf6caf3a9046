//! Where a key is to be read now.

use std::sync::Arc;

use super::super::record::{Pending, PendingKind, Published};
use crate::backend::StorageBackend;
use crate::tree::digest::Digest;

/// Where a key is to be read, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The URL to use now.
    pub url: String,
    /// The size in bytes of what the URL serves, if it serves anything yet.
    pub size: Option<u64>,
    /// The digest of what the URL serves, where it is known.
    pub digest: Option<Digest>,
    /// The plain SHA-256 of the whole: the same as `digest` for a file that goes in one request, and for a
    /// larger one where [`whole_file_digest`](crate::RescanConfig::whole_file_digest) asked for it.
    pub whole_digest: Option<Digest>,
    /// How the key stands.
    pub state: KeyState,
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// The store holds what was on disk at the last scan.
    Published,
    /// The store does not hold what is on disk; the URL is the fallback's, or nothing is there yet.
    Pending,
    /// The store holds an older version, which the URL serves; or the file is gone from disk and its
    /// object is still to be deleted.
    Stale,
}

/// The URLs of both places.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) store: Arc<dyn StorageBackend>,
    pub(super) fallback: Option<Arc<dyn StorageBackend>>,
}

/// What the cache's two records of a key mean for its readers.
pub(super) fn resolved(
    key: &str,
    places: &Places,
    published: Option<Published>,
    pending: Option<&Pending>,
) -> Option<Resolved> {
    let store_url = || places.store.get_url(key);
    let on_disk = pending.filter(|pending| pending.kind != PendingKind::Removed);
    let plain = |digest: Option<Digest>| digest.filter(|digest| digest.part_size().is_none());
    Some(match (published, on_disk, &places.fallback) {
        (_, Some(disk), Some(fallback)) => Resolved {
            url: fallback.get_url(key),
            size: Some(disk.stat.size),
            digest: disk.digest,
            whole_digest: plain(disk.digest),
            state: KeyState::Pending,
        },
        (Some(there), _, _) => Resolved {
            url: store_url(),
            size: Some(there.stat.size),
            digest: Some(there.digest),
            whole_digest: there.whole.map(Digest::whole).or(plain(Some(there.digest))),
            state: if pending.is_none() { KeyState::Published } else { KeyState::Stale },
        },
        (None, Some(_), None) => Resolved {
            url: store_url(),
            size: None,
            digest: None,
            whole_digest: None,
            state: KeyState::Pending,
        },
        (None, None, _) => return None,
    })
}
