//! The durable cache: what the store has acknowledged, and what is still to be done.

pub(crate) mod binding;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use crate::backend::{SentPart, StorageBackend};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::metrics::Metrics;
use crate::state::records::{OpenUpload, Pending, PendingKind, Published};
use crate::state::redb::RedbStore;
use crate::state::resolve::{Known, Places, Resolved};
use crate::state::rows::{Row, Rows};
use crate::state::store::{META_CHANGES, Store, Write};
use crate::state::summary::CacheSummary;
use crate::tree::version::{FileEntry, Version};

const META_SYNCED: &str = "synced";
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
    store: Box<dyn Store>,
    rescanning: AtomicBool,
    places: RwLock<Option<Places>>,
}

/// Held while a rescan runs.
pub(crate) struct RescanLock(Arc<Inner>);

impl Drop for RescanLock {
    fn drop(&mut self) {
        self.0.rescanning.store(false, Ordering::Release);
    }
}

impl CacheManager {
    /// Opens the cache, or creates it (mode 0600, a missing parent folder 0700), and checks the whole
    /// file: about 0.3 s for a million records. One of the format before is upgraded in place. A cache that
    /// anybody may write or replace is refused, and one that its group may write is warned of.
    ///
    /// Where the process has a limit on the size of files (`RLIMIT_FSIZE`), the system answers a write beyond it with
    /// SIGXFSZ, which ends a process that neither handles nor ignores it; this library installs no handler. A host
    /// that ignores the signal gets the error instead.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] if another process has it open for writing, [`ErrorKind::CacheDamaged`] if it is no
    /// cache, is damaged or is from a newer version, [`ErrorKind::Cache`] if it cannot be read or
    /// written, is a symbolic link, or may be written by anybody, [`ErrorKind::Config`] if it is a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_waiting(path, Duration::ZERO)
    }

    /// The same, but waits so long for another process to close the cache.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_waiting(path: impl AsRef<Path>, wait: Duration) -> Result<Self, StorageError> {
        let path = path.as_ref();
        RedbStore::open_waiting(path, wait).and_then(|store| Self::of(path, store))
    }

    /// Opens a cache that is there for reading, beside a process that may have it open for writing, and follows what
    /// that records. Neither the file nor its folder need be writable. Rescans that find something to do fail,
    /// dry runs do not; what a [verification](Self::verify) finds is not recorded.
    ///
    /// A cache that a killed process left is put right first, and one of the format before is upgraded; where it
    /// cannot be written, in memory. One in which nothing was ever recorded is empty.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::Cache`] if there is no such file. [`ErrorKind::CacheLocked`] only
    /// where a process of an earlier version has it open, or the file system has no locks on parts of files.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        RedbStore::open_read_only_waiting(path).and_then(|store| Self::of(path, store))
    }

    fn of(path: &Path, store: RedbStore) -> Result<Self, StorageError> {
        let store = store.in_this_format(path)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            store: Box::new(store),
            rescanning: AtomicBool::new(false),
            places: RwLock::new(None),
        })))
    }

    /// Whether it was [opened for reading](Self::open_read_only).
    pub fn is_read_only(&self) -> bool {
        self.0.store.is_read_only()
    }

    /// Compares the open file with what its path leads to now. A rescan does so at every commit and at its end.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file was removed or replaced: what is recorded from then on would be lost.
    pub fn check_file(&self) -> Result<(), StorageError> {
        self.0.store.check()
    }

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

    /// Every key that is published or on disk, in the order of their bytes, and where it is to be read now. Changes
    /// meanwhile may be seen.
    ///
    /// # Errors
    /// Once, as an item: those of [`resolve`](Self::resolve).
    pub fn entries(&self) -> impl Iterator<Item = Result<(String, Resolved), StorageError>> + '_ {
        let (places, failed) = match self.places() {
            Ok(places) => (Some(places), None),
            Err(error) => (None, Some(Err(error))),
        };
        let known = places.into_iter().flat_map(|places| {
            self.rows().filter_map(move |row| match row {
                Ok(Row { key, published, pending, .. }) => {
                    let known = Known::new(published.as_ref(), pending.as_ref());
                    known.resolved(&key, &places).map(|resolved| Ok((key, resolved)))
                }
                Err(error) => Some(Err(error)),
            })
        });
        failed.into_iter().chain(known)
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

    /// Everything in a few numbers; reads the whole file, about 1 s for a million records.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn summary(&self) -> Result<CacheSummary, StorageError> {
        let (mut published, mut published_bytes, mut pending) = (0, 0, 0);
        for row in self.rows() {
            let Row { published: there, pending: to_do, .. } = row?;
            published += u64::from(there.is_some());
            published_bytes += there.map_or(0, |there| there.stat.size);
            pending += u64::from(to_do.is_some());
        }
        Ok(CacheSummary {
            destination: self.destination()?,
            published,
            published_bytes,
            pending,
            open_uploads: self.open_upload_count()?,
            synced: self.is_synced()?,
        })
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

    /// Notes whether the store is as the tree was, and whether the run left nothing to be done; commits only what
    /// is news.
    pub(crate) fn note_end(&self, synced: bool, complete: bool) -> Result<(), StorageError> {
        let (value, mut writes) = (vec![u8::from(synced)], Vec::new());
        if self.0.store.meta(META_SYNCED)?.as_ref() != Some(&value) {
            writes.push(Write::Meta(META_SYNCED, value));
        }
        if complete && self.0.store.completion_is_news()? {
            writes.push(Write::Complete);
        }
        self.apply(&writes)
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
        Rows::new(&*self.0.store, true)
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
        Rows::new(&*self.0.store, false)
    }

    /// The same behind a key.
    pub(crate) fn pending_rows_behind(&self, key: &str) -> Rows<'_> {
        Rows::behind(&*self.0.store, key)
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

    /// How many multipart uploads are recorded whose upload IDs are known.
    pub(crate) fn open_upload_count(&self) -> Result<u64, StorageError> {
        let (mut count, mut after) = (0, None);
        loop {
            let keys = self.keys_with_uploads(after.as_deref())?;
            let Some(last) = keys.last() else { return Ok(count) };
            after = Some(last.clone());
            for key in keys {
                let named = self.open_uploads(&key)?.into_iter().filter(|open| open.upload_id.is_some());
                count += named.count() as u64;
            }
        }
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
