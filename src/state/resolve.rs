//! Where a key is to be read now.

use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::StorageBackend;
use crate::state::records::{Pending, PendingKind, Published};
use crate::tree::digest::Digest;
use crate::tree::version::{FileStat, moment_of};

/// Where a key is to be read, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The URL to use now.
    pub url: String,
    /// The size in bytes of what the URL serves, if that is known.
    pub size: Option<u64>,
    /// The modification time of that file, as it was on disk.
    pub modified: Option<SystemTime>,
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

/// Where objects and files are read.
pub(crate) trait Urls {
    /// Of the object.
    fn store(&self, key: &str) -> String;
    /// Of the file on disk, where there is a fallback.
    fn fallback(&self, key: &str) -> Option<String>;
}

/// The URLs of both places.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) store: Arc<dyn StorageBackend>,
    pub(crate) fallback: Option<Arc<dyn StorageBackend>>,
}

impl Urls for Places {
    fn store(&self, key: &str) -> String {
        self.store.get_url(key)
    }

    fn fallback(&self, key: &str) -> Option<String> {
        self.fallback.as_ref().map(|fallback| fallback.get_url(key))
    }
}

/// A version of a file, as far as readers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) digest: Option<Digest>,
    pub(crate) whole: Option<[u8; 32]>,
}

impl From<&Published> for Facts {
    fn from(there: &Published) -> Self {
        let FileStat { size, mtime, .. } = there.stat;
        Self { size, mtime, digest: Some(there.digest), whole: there.whole }
    }
}

impl From<&Pending> for Facts {
    fn from(wanted: &Pending) -> Self {
        let FileStat { size, mtime, .. } = wanted.stat;
        Self { size, mtime, digest: wanted.digest, whole: None }
    }
}

/// What is known of a key: what the store holds, and what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) published: Option<Facts>,
    pub(crate) pending: Option<(PendingKind, Facts)>,
    /// A request for it may have changed what the store holds.
    pub(crate) attempted: bool,
}

impl Known {
    pub(crate) fn new(published: Option<&Published>, pending: Option<&Pending>) -> Self {
        let attempted = pending.is_some_and(|pending| pending.attempted);
        let pending = pending.map(|pending| (pending.kind, pending.into()));
        Self { published: published.map(Into::into), pending, attempted }
    }

    /// What it means for readers of the key.
    pub(crate) fn resolved(&self, key: &str, urls: &impl Urls) -> Option<Resolved> {
        let on_disk =
            self.pending.filter(|(kind, _)| matches!(kind, PendingKind::Added | PendingKind::Modified));
        if let Some((_, disk)) = on_disk
            && let Some(url) = urls.fallback(key)
        {
            return Some(serving(url, &disk, KeyState::Pending));
        }
        let unknown = |state| Resolved {
            url: urls.store(key),
            size: None,
            modified: None,
            digest: None,
            whole_digest: None,
            state,
        };
        if let Some(there) = &self.published {
            if self.attempted {
                return Some(unknown(KeyState::Stale));
            }
            let state = if self.pending.is_none() { KeyState::Published } else { KeyState::Stale };
            return Some(serving(urls.store(key), there, state));
        }
        on_disk.map(|_| unknown(KeyState::Pending))
    }
}

fn serving(url: String, facts: &Facts, state: KeyState) -> Resolved {
    let plain = facts.digest.filter(|digest| digest.part_size().is_none());
    Resolved {
        url,
        size: Some(facts.size),
        modified: Some(moment_of(facts.mtime)),
        digest: facts.digest,
        whole_digest: facts.whole.map(Digest::whole).or(plain),
        state,
    }
}
