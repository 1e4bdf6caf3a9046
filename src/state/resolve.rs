//! Decides from which URL a key is to be read now.

use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::StorageBackend;
use crate::state::records::{Pending, PendingKind, Published};
use crate::tree::digest::Digest;
use crate::tree::version::{FileStat, moment_of};

/// The URL of a key, and the version that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolved {
    /// The URL to use now.
    pub url: String,
    /// The size in bytes of the version that the URL serves, if known.
    pub size: Option<u64>,
    /// The modification time of that version's file on disk, if known.
    pub modified: Option<SystemTime>,
    /// The digest of that version, if known.
    pub digest: Option<Digest>,
    /// The plain SHA-256 of the whole file, if known. For a file sent in one request it is the same as `digest`; for a
    /// multipart upload [`whole_file_digest`](crate::RescanConfig::whole_file_digest) has to ask for it.
    pub whole_digest: Option<Digest>,
    /// The state of the key.
    pub state: KeyState,
}

/// The state of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyState {
    /// The store holds the version that was on disk at the last scan.
    Published,
    /// The store does not hold the version on disk. The URL is the fallback's, or leads to nothing yet.
    Pending,
    /// The store holds an older version, which the URL serves; or the file is gone and its object is still to be
    /// deleted.
    Stale,
}

/// The URLs of a key.
pub(crate) trait Urls {
    /// The URL of its object in the store.
    fn store(&self, key: &str) -> String;
    /// The URL of its file on disk, if there is a fallback.
    fn fallback(&self, key: &str) -> Option<String>;
}

/// The backends whose URLs are used: the store's and the fallback's.
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

/// A version of a file, reduced to what readers get to know.
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
        Self { size, mtime, digest: there.known_digest(), whole: there.whole }
    }
}

impl From<&Pending> for Facts {
    fn from(wanted: &Pending) -> Self {
        let FileStat { size, mtime, .. } = wanted.stat;
        Self { size, mtime, digest: wanted.digest, whole: None }
    }
}

/// All that is known about a key: the published version, and the work that is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) published: Option<Facts>,
    pub(crate) pending: Option<(PendingKind, Facts)>,
    /// Set if a request without an answer may have changed the object.
    pub(crate) attempted: bool,
}

impl Known {
    pub(crate) fn new(published: Option<&Published>, pending: Option<&Pending>) -> Self {
        let attempted = pending.is_some_and(|pending| pending.attempted);
        // With other headers the object is still the version on disk.
        let pending = pending.filter(|pending| published.is_none() || pending.kind != PendingKind::Headers);
        let pending = pending.map(|pending| (pending.kind, pending.into()));
        Self { published: published.map(Into::into), pending, attempted }
    }

    /// The URL to read the key from; `None` if it is neither published nor on disk.
    pub(crate) fn resolved(&self, key: &str, urls: &impl Urls) -> Option<Resolved> {
        let on_disk =
            self.pending.filter(|(kind, _)| matches!(kind, PendingKind::Added | PendingKind::Modified));
        // The newest version is on disk, and the fallback serves it from there.
        if let Some((_, disk)) = on_disk
            && let Some(url) = urls.fallback(key)
        {
            return Some(resolved_to(url, &disk, KeyState::Pending));
        }
        // The object's URL, without a word about what it serves.
        let unknown = |state| Resolved {
            url: urls.store(key),
            size: None,
            modified: None,
            digest: None,
            whole_digest: None,
            state,
        };
        // Without a fallback, readers get the published version even if it is an older one.
        if let Some(there) = &self.published {
            // The object may be the old version or the new one, so nothing can be said about its content.
            if self.attempted {
                return Some(unknown(KeyState::Stale));
            }
            let state = if self.pending.is_none() { KeyState::Published } else { KeyState::Stale };
            return Some(resolved_to(urls.store(key), there, state));
        }
        // The URL that the object will have; it leads to nothing yet.
        on_disk.map(|_| unknown(KeyState::Pending))
    }
}

fn resolved_to(url: String, facts: &Facts, state: KeyState) -> Resolved {
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
