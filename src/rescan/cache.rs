//! The durable cache: what the store has acknowledged, and what is still to be done.

mod access;
mod file;
mod open;
mod overlay;
mod resolve;
mod rows;
mod store;
mod summary;
mod upgrade;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub(crate) use resolve::{Facts, Known, Places, Urls};
pub use resolve::{KeyState, Resolved};
pub(crate) use rows::{Row, Rows};
use serde::{Deserialize, Serialize};
use store::Store;
pub(crate) use store::Write;
pub use summary::CacheSummary;
pub(crate) use summary::foreign;

use super::record::{OpenUpload, Pending, PendingKind, Published, encode};
use crate::backend::{SentPart, StorageBackend};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::metrics::Metrics;
use crate::tree::version::{FileEntry, Version};

/// The version of the tables and records below.
const FORMAT: u8 = 3;

const META_FORMAT: &str = "format";
const META_DESTINATION: &str = "destination";
const META_ROOTS: &str = "roots";
const META_SURVEYED: &str = "surveyed";
const META_SYNCED: &str = "synced";
/// Another random number with every change of what is published or pending.
const META_CHANGES: &str = "changes";
/// The checksum of the catalog that was last written.
const META_CATALOG: &str = "catalog";

/// A key with something still to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingFile {
    /// The key.
    pub key: String,
    /// What is to be done.
    pub kind: PendingKind,
    /// The size in bytes on disk; of a removed file, as it was published.
    pub size: u64,
}

/// The durable record of what is published, in one file. Cheap to clone; clones share the file, which
/// one process at a time has open for writing, and any number [for reading](Self::open_read_only).
///
/// It says "published" only of what the store has acknowledged, and it is bound to the destination
/// that it was first used for.
#[derive(Clone)]
pub struct CacheManager(Arc<Inner>);

struct Inner {
    path: PathBuf,
    store: Store,
    rescanning: AtomicBool,
    places: RwLock<Option<Places>>,
}

/// A root, and what it was when it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) path: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A root as the cache knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownRoot {
    /// Its number among the roots that published through this cache.
    pub(crate) number: u32,
    /// It is another folder on another device than it was: perhaps a mount is missing.
    pub(crate) moved: bool,
}

/// Held while a rescan runs.
pub(crate) struct RescanLock(Arc<Inner>);

impl Drop for RescanLock {
    fn drop(&mut self) {
        self.0.rescanning.store(false, Ordering::Release);
    }
}

impl CacheManager {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Where a key is to be read now; `None` if it is neither published nor on disk.
    ///
    /// Published: the store's URL. Pending with a fallback: the fallback's URL and the digest on disk,
    /// where it is known. Pending without one: the store's URL, with size and digest of what it still
    /// serves; without them from before a request for the key is sent until the store acknowledges
    /// something. Never a digest of other bytes than the URL serves.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] before an orchestrator has used this cache in this process: until then
    /// it knows no URLs. [`ErrorKind::Cache`] if the file cannot be read.
    pub fn resolve(&self, key: &str) -> Result<Option<Resolved>, StorageError> {
        let places = self.places()?;
        let (published, pending) = self.0.store.get(key)?;
        Ok(Known::new(published.as_ref(), pending.as_ref()).resolved(key, &places))
    }

    /// What is still to be done, in key order.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn pending(&self) -> Result<Vec<PendingFile>, StorageError> {
        self.pending_rows()
            .filter_map(|row| match row {
                Ok(Row { key, pending: Some(pending), .. }) => {
                    Some(Ok(PendingFile { key, kind: pending.kind, size: pending.stat.size }))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    /// How many keys are pending.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn pending_count(&self) -> Result<u64, StorageError> {
        self.0.store.lengths().map(|(_, pending)| pending)
    }

    /// How many objects are published.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn published_count(&self) -> Result<u64, StorageError> {
        self.0.store.lengths().map(|(published, _)| published)
    }

    /// Whether the last rescan left the store as the tree was.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn is_synced(&self) -> Result<bool, StorageError> {
        let flag = self.0.store.meta(META_SYNCED)?.as_deref() == Some(&[1]);
        Ok(flag && self.pending_count()? == 0)
    }

    /// What is published, in memory: about 200 bytes a file.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn published(&self) -> Result<Version, StorageError> {
        let entries = self.rows().filter_map(|row| match row {
            Ok(Row { key, published: Some(published), .. }) => {
                Some(RemoteKey::new(key).map(|key| FileEntry {
                    key,
                    stat: published.stat,
                    digest: Some(published.digest),
                }))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(Version::new(entries.collect::<Result<Vec<_>, _>>()?))
    }

    pub(crate) fn lock(&self) -> Result<RescanLock, StorageError> {
        if self.0.rescanning.swap(true, Ordering::Acquire) {
            let why = "a rescan of this process is using this cache; wait for it to end";
            return Err(
                StorageError::new(ErrorKind::CacheLocked, Operation::Rescan, why).with_path(self.path())
            );
        }
        // What was committed before is not this run's.
        self.0.store.take_commits();
        Ok(RescanLock(self.0.clone()))
    }

    /// What binds the cache to a destination, for good; nothing if it is bound to it already.
    pub(crate) fn bind(&self, destination: &str) -> Result<Option<Write>, StorageError> {
        match self.0.store.meta(META_DESTINATION)? {
            None => Ok(Some(Write::Meta(META_DESTINATION, destination.as_bytes().to_vec()))),
            Some(bound) if bound == destination.as_bytes() => Ok(None),
            Some(bound) => Err(foreign(self.path(), &String::from_utf8_lossy(&bound), destination)),
        }
    }

    /// [`ErrorKind::CacheForeign`] if this is the cache of another destination
    /// ([`StorageBackend::destination`]).
    ///
    /// # Errors
    /// That, and [`ErrorKind::Cache`] if the file cannot be read.
    pub fn check_destination(&self, destination: &str) -> Result<(), StorageError> {
        self.bind(destination).map(drop)
    }

    /// Lets [`resolve`](Self::resolve) answer with these places' URLs, in a process that makes no orchestrator
    /// with this cache; one does this by itself.
    pub fn use_urls_of(&self, store: Arc<dyn StorageBackend>, fallback: Option<Arc<dyn StorageBackend>>) {
        *self.0.places.write().unwrap_or_else(PoisonError::into_inner) = Some(Places { store, fallback });
    }

    pub(crate) fn places(&self) -> Result<Places, StorageError> {
        let places = self.0.places.read().unwrap_or_else(PoisonError::into_inner).clone();
        places.ok_or_else(|| {
            StorageError::config("cache", "it knows no URLs yet: make a RescanOrchestrator with it first")
        })
    }

    /// The id of the last change of what is published or pending; 0: there was none.
    pub(crate) fn changes(&self) -> Result<u64, StorageError> {
        let id = self.0.store.meta(META_CHANGES)?;
        Ok(id.and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// Whether a catalog of this checksum is the one that was last written.
    pub(crate) fn is_its_catalog(&self, checksum: u64) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_CATALOG)?.as_deref() == Some(&checksum.to_le_bytes()))
    }

    /// Notes the catalog that was written, where anything can be.
    pub(crate) fn note_catalog(&self, checksum: u64) -> Result<(), StorageError> {
        if self.is_read_only() {
            return Ok(());
        }
        self.apply(&[Write::Meta(META_CATALOG, checksum.to_le_bytes().to_vec())])
    }

    /// What the cache knows of a root, and what is to be recorded of it.
    pub(crate) fn root(
        &self,
        root: &Root,
        allow_new: bool,
    ) -> Result<(KnownRoot, Option<Write>), StorageError> {
        let mut roots: Vec<Root> = match self.0.store.meta(META_ROOTS)? {
            Some(stored) => self.0.store.decoded(META_ROOTS, &stored)?,
            None => Vec::new(),
        };
        let index = roots.iter().position(|known| known.path == root.path);
        let known = index.map(|index| &roots[index]);
        if known == Some(root) {
            return Ok((KnownRoot { number: number(index.unwrap_or_default()), moved: false }, None));
        }
        let moved = known.is_some_and(|known| known.device != root.device && known.inode != root.inode);
        let index = index.unwrap_or(roots.len());
        if moved && !allow_new {
            return Ok((KnownRoot { number: number(index), moved }, None));
        }
        if index == roots.len() {
            roots.push(root.clone());
        } else {
            roots[index] = root.clone();
        }
        let encoded = encode(META_ROOTS, &roots).map_err(|error| {
            StorageError::new(ErrorKind::Cache, Operation::Cache, "cannot encode").with_source(error)
        })?;
        Ok((KnownRoot { number: number(index), moved }, Some(Write::Meta(META_ROOTS, encoded))))
    }

    pub(crate) fn is_surveyed(&self) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_SURVEYED)?.is_some())
    }

    pub(crate) fn surveyed() -> Write {
        Write::Meta(META_SURVEYED, vec![1])
    }

    /// Notes whether the store is as the tree was; commits only what is news.
    pub(crate) fn set_synced(&self, synced: bool) -> Result<(), StorageError> {
        let value = vec![u8::from(synced)];
        if self.0.store.meta(META_SYNCED)?.as_ref() == Some(&value) {
            return Ok(());
        }
        self.apply(&[Write::Meta(META_SYNCED, value)])
    }

    /// What is published and what is pending for a key.
    pub(crate) fn records(&self, key: &str) -> Result<(Option<Published>, Option<Pending>), StorageError> {
        self.0.store.get(key)
    }

    pub(crate) fn published_record(&self, key: &str) -> Result<Option<Published>, StorageError> {
        self.0.store.get(key).map(|(published, _)| published)
    }

    pub(crate) fn pending_record(&self, key: &str) -> Result<Option<Pending>, StorageError> {
        self.0.store.get(key).map(|(_, pending)| pending)
    }

    /// Every key that is published or pending.
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::new(&self.0.store, true)
    }

    /// Whether anything is to be sent or deleted.
    pub(crate) fn has_work(&self) -> Result<bool, StorageError> {
        for row in self.pending_rows() {
            if row?.pending.is_some_and(|pending| pending.kind != PendingKind::Unsettled) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every key that is pending.
    pub(crate) fn pending_rows(&self) -> Rows<'_> {
        Rows::new(&self.0.store, false)
    }

    /// The same behind a key.
    pub(crate) fn pending_rows_behind(&self, key: &str) -> Rows<'_> {
        Rows::behind(&self.0.store, key)
    }

    /// Writes in one transaction, durable when this returns.
    pub(crate) fn apply(&self, writes: &[Write]) -> Result<(), StorageError> {
        self.0.store.apply(writes)
    }

    pub(crate) fn count_commits(&self, metrics: &Metrics) {
        metrics.commits(self.0.store.take_commits());
    }

    /// The uploads in parts of a key that are, or may be, open.
    pub(crate) fn open_uploads(&self, key: &str) -> Result<Vec<OpenUpload>, StorageError> {
        self.0.store.uploads(key)
    }

    /// Keys with open uploads behind `after`, a page of them, in key order.
    pub(crate) fn keys_with_uploads(&self, after: Option<&str>) -> Result<Vec<String>, StorageError> {
        self.0.store.keys_with_uploads(after)
    }

    /// The acknowledged parts of an upload, by number.
    pub(crate) fn sent_parts(&self, token: &str) -> Result<Vec<(u32, SentPart)>, StorageError> {
        self.0.store.sent_parts(token)
    }
}

impl fmt::Debug for CacheManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheManager").field("path", &self.0.path).finish_non_exhaustive()
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount is missing over a mount point that is not empty: the same path, another folder, another
    /// device. A swapped folder, or a device that was numbered anew, is still the same root.
    #[test]
    fn f9_root_is_another_one_when_both_its_folder_and_its_device_are() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheManager::open(folder.path().join("cache")).unwrap();
        let root = |device, inode| Root { path: b"/srv".to_vec(), device, inode };
        let look = |device, inode, allow| {
            let (known, write) = cache.root(&root(device, inode), allow).unwrap();
            cache.apply(&write.into_iter().collect::<Vec<_>>()).unwrap();
            (known.number, known.moved)
        };
        assert_eq!(look(1, 10, false), (0, false));
        assert_eq!(look(1, 11, false), (0, false), "the folder was swapped");
        assert_eq!(look(2, 11, false), (0, false), "the device was numbered anew");
        assert_eq!(look(3, 12, false), (0, true));
        assert_eq!(look(3, 12, false), (0, true), "not believed by being seen twice");
        assert_eq!(look(2, 11, false), (0, false), "mounted again");
        assert_eq!(look(3, 12, true), (0, true));
        assert_eq!(look(3, 12, false), (0, false), "allowed once");
        let other = Root { path: b"/other".to_vec(), device: 3, inode: 12 };
        assert_eq!(cache.root(&other, false).unwrap().0.number, 1);
    }
}
