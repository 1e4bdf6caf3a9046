//! The durable cache: the versions that the store has acknowledged, and the work that is still to be done.

pub(crate) mod binding;
pub(crate) mod copy;
pub(crate) mod identity;
pub(crate) mod pulled;
pub(crate) mod pushed;
pub(crate) mod replacement;
pub(crate) mod runs;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;

use crate::backend::{SentPart, StorageBackend};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::metrics::Metrics;
use crate::state::file_mark::FileMark;
use crate::state::records::{OpenUpload, Pending, PendingKind, Published, encode};
use crate::state::redb::RedbStore;
use crate::state::resolve::{Known, Places, Resolved};
use crate::state::rows::{Row, Rows};
use crate::state::store::{KeyRecords, META_CHANGES, Store, Write};
use crate::state::summary::{CacheSummary, PendingFile};
use crate::tree::version::{FileEntry, Version};

/// The checksum of the catalog that was last written.
const META_CATALOG: &str = "catalog";

/// The durable record of all published files, in one file on disk. Cheap to clone; clones share the file. One process
/// at a time has it open for writing, and any number of processes [for reading](Self::open_read_only).
///
/// A version counts as published only after the store has acknowledged it. The cache is bound to the destination that
/// it was first used for.
#[derive(Clone)]
pub struct CacheManager(Arc<Inner>);

struct Inner {
    path: PathBuf,
    store: Box<dyn Store>,
    /// A rescan or verification of this process holds the cache.
    rescanning: AtomicBool,
    places: RwLock<Option<Places>>,
}

/// Held while a rescan or verification uses the cache. Dropping it lets the next one start.
pub(crate) struct RescanLock(Arc<Inner>);

impl Drop for RescanLock {
    fn drop(&mut self) {
        self.0.rescanning.store(false, Ordering::Release);
    }
}

impl CacheManager {
    /// Opens the cache for writing, or creates it (mode 0600; a missing parent folder gets 0700). Checks the whole
    /// file: about 0.3 s for a million records. A cache of one of the two formats before is upgraded in place. A cache that
    /// anybody may write or replace is refused; if its group may write it, the log has a warning.
    ///
    /// If the process has a limit on file sizes (`RLIMIT_FSIZE`), a write beyond it raises SIGXFSZ, which ends a
    /// process that neither handles nor ignores the signal. This library installs no handler. A host that ignores the
    /// signal gets an error instead.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] if another process has it open for writing, [`ErrorKind::CacheDamaged`] if it is not
    /// a cache, is damaged or was written by a newer version, [`ErrorKind::Cache`] if it cannot be read or
    /// written, is a symbolic link, or may be written by anybody, [`ErrorKind::Config`] if it is a folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_waiting(path, Duration::ZERO)
    }

    /// As [`open`](Self::open), but waits up to `wait` for another process to close the cache.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_waiting(path: impl AsRef<Path>, wait: Duration) -> Result<Self, StorageError> {
        let path = path.as_ref();
        RedbStore::open_waiting(path, wait).and_then(|store| Self::from_store(path, store))
    }

    /// Opens an existing cache for reading. Another process may have it open for writing meanwhile; its changes are
    /// seen. Neither the file nor its folder has to be writable. A rescan with work to do fails; dry runs succeed. The
    /// findings of a [verification](Self::verify) are not recorded.
    ///
    /// A cache that a killed process left behind is repaired first, and one of the two formats before is upgraded. If the
    /// file cannot be written, that is done in memory. A file without any record is an empty cache.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::Cache`] if there is no such file. [`ErrorKind::CacheLocked`] only
    /// if a process with an earlier version has it open, or the file system has no byte-range locks.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        RedbStore::open_read_only_waiting(path).and_then(|store| Self::from_store(path, store))
    }

    fn from_store(path: &Path, store: RedbStore) -> Result<Self, StorageError> {
        let store = store.in_current_format(path)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            store: Box::new(store),
            rescanning: AtomicBool::new(false),
            places: RwLock::new(None),
        })))
    }

    /// Returns true if the cache was [opened for reading](Self::open_read_only).
    pub fn is_read_only(&self) -> bool {
        self.0.store.is_read_only()
    }

    /// Checks that the path still leads to the open file. A rescan does so at each commit and at its end.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file was removed or replaced: later records would be lost.
    pub fn check_file(&self) -> Result<(), StorageError> {
        self.0.store.check()
    }

    /// The path of the cache file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the URL to read a key from now; `None` if it is neither published nor on disk.
    ///
    /// - Published: the store's URL.
    /// - Pending, with a fallback: the fallback's URL, and the digest of the file on disk if it is known.
    /// - Pending, without a fallback: the store's URL, with size and digest of the version that it still serves. Both
    ///   are left out from before a request for the key is sent until the store acknowledges one.
    ///
    /// A digest is always that of the bytes that the URL serves.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if no orchestrator was created with this cache in this process: only then are its URLs
    /// known. [`ErrorKind::Cache`] if the file cannot be read.
    pub fn resolve(&self, key: &str) -> Result<Option<Resolved>, StorageError> {
        let places = self.places()?;
        let (published, pending) = self.records(key)?;
        Ok(Known::new(published.as_ref(), pending.as_ref()).resolved(key, &places))
    }

    /// Iterates over all keys that are published or on disk, in byte order, with the URL to read each from. Changes
    /// made meanwhile may be seen.
    ///
    /// # Errors
    /// Those of [`resolve`](Self::resolve), as one item.
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
        // Without known URLs the error is the only item.
        failed.into_iter().chain(known)
    }

    /// Returns the keys with work left to do, in key order.
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

    /// Returns a summary of the cache. Reads the whole file: about 1 s for a million records.
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

    /// Returns the number of keys that are pending.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn pending_count(&self) -> Result<u64, StorageError> {
        self.0.store.lengths().map(|(_, pending)| pending)
    }

    /// Returns the number of published objects.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn published_count(&self) -> Result<u64, StorageError> {
        self.0.store.lengths().map(|(published, _)| published)
    }

    /// Returns all published files. Takes about 200 bytes of memory for each.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn published(&self) -> Result<Version, StorageError> {
        let entries = self.rows().filter_map(|row| match row {
            Ok(Row { key, published: Some(published), .. }) => {
                Some(RemoteKey::new(key).map(|key| FileEntry {
                    key,
                    stat: published.stat,
                    digest: published.known_digest(),
                }))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        Ok(Version::new(entries.collect::<Result<Vec<_>, _>>()?))
    }

    /// Takes the cache for one rescan or verification of this process.
    pub(crate) fn lock(&self) -> Result<RescanLock, StorageError> {
        if self.0.rescanning.swap(true, Ordering::Acquire) {
            let why = "a rescan of this process is using this cache; wait for it to end";
            return Err(
                StorageError::new(ErrorKind::CacheLocked, Operation::Rescan, why).with_path(self.path())
            );
        }
        // Earlier commits do not count for this run's metrics.
        self.0.store.take_commits();
        Ok(RescanLock(self.0.clone()))
    }

    /// Sets the backends whose URLs [`resolve`](Self::resolve) returns. Only needed in a process that creates no
    /// orchestrator with this cache; an orchestrator does it by itself.
    pub fn use_urls_of(&self, store: Arc<dyn StorageBackend>, fallback: Option<Arc<dyn StorageBackend>>) {
        *self.0.places.write().unwrap_or_else(PoisonError::into_inner) = Some(Places { store, fallback });
    }

    /// Returns the backends whose URLs are used.
    pub(crate) fn places(&self) -> Result<Places, StorageError> {
        let places = self.0.places.read().unwrap_or_else(PoisonError::into_inner).clone();
        places.ok_or_else(|| {
            let why =
                "no URLs are known in this process: create a RescanOrchestrator with it, or call use_urls_of";
            StorageError::config("cache", why)
        })
    }

    /// Returns the ID of the last change of a published or pending record; 0 if there was none.
    pub(crate) fn changes(&self) -> Result<u64, StorageError> {
        let id = self.0.store.meta(META_CHANGES)?;
        Ok(id.and_then(|id| id.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// Returns true if the catalog that was written last has this checksum.
    pub(crate) fn is_its_catalog(&self, checksum: u64) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_CATALOG)?.as_deref() == Some(&checksum.to_le_bytes()))
    }

    /// Records the checksum and the file of the catalog that was written, unless the cache is open for reading only.
    pub(crate) fn note_catalog(&self, checksum: u64, file: FileMark) -> Result<(), StorageError> {
        if self.is_read_only() {
            return Ok(());
        }
        let checksum = Write::Meta(META_CATALOG, checksum.to_le_bytes().to_vec());
        self.apply(&[checksum, self.catalog_mark(file)?])
    }

    /// Returns the published and the pending record of a key.
    pub(crate) fn records(&self, key: &str) -> Result<KeyRecords, StorageError> {
        Ok(self.records_of(&[key])?.pop().unwrap_or_default())
    }

    /// Returns the published and the pending record of each key.
    pub(crate) fn records_of(&self, keys: &[&str]) -> Result<Vec<KeyRecords>, StorageError> {
        self.0.store.get(keys)
    }

    pub(crate) fn published_record(&self, key: &str) -> Result<Option<Published>, StorageError> {
        self.records(key).map(|(published, _)| published)
    }

    pub(crate) fn pending_record(&self, key: &str) -> Result<Option<Pending>, StorageError> {
        self.records(key).map(|(_, pending)| pending)
    }

    /// Iterates over all keys that are published or pending, in key order.
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::new(&*self.0.store, true)
    }

    /// Returns true if anything is to be uploaded or deleted.
    pub(crate) fn has_work(&self) -> Result<bool, StorageError> {
        for row in self.pending_rows() {
            // For unsettled keys no request is to be sent.
            if row?.pending.is_some_and(|pending| pending.kind != PendingKind::Unsettled) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Iterates over all keys that are pending, in key order.
    pub(crate) fn pending_rows(&self) -> Rows<'_> {
        Rows::new(&*self.0.store, false)
    }

    /// Iterates over the pending keys that follow `key`.
    pub(crate) fn pending_rows_after(&self, key: &str) -> Rows<'_> {
        Rows::pending_after(&*self.0.store, key)
    }

    /// Returns the write of a named value of the whole cache.
    fn meta_write<T: Serialize>(&self, name: &'static str, value: &T) -> Result<Write, StorageError> {
        let encoded = encode(name, value).map_err(|error| {
            let what = format!("the value {name:?} cannot be encoded");
            StorageError::new(ErrorKind::Cache, Operation::Cache, what)
                .with_path(self.path())
                .with_source(error)
        })?;
        Ok(Write::Meta(name, encoded))
    }

    /// Writes all records in one transaction. They are durable when this returns.
    pub(crate) fn apply(&self, writes: &[Write]) -> Result<(), StorageError> {
        self.0.store.apply(writes)
    }

    /// Adds the commits since the run began to its metrics.
    pub(crate) fn count_commits(&self, metrics: &Metrics) {
        metrics.commits(self.0.store.take_commits());
    }

    /// Returns the multipart uploads of a key that are open, or may be.
    pub(crate) fn open_uploads(&self, key: &str) -> Result<Vec<OpenUpload>, StorageError> {
        self.0.store.uploads(key)
    }

    /// Returns a page of the keys after `after` that have open multipart uploads, in key order.
    pub(crate) fn keys_with_uploads(&self, after: Option<&str>) -> Result<Vec<String>, StorageError> {
        self.0.store.keys_with_uploads(after)
    }

    /// Returns the number of recorded multipart uploads whose upload IDs are known.
    pub(crate) fn open_upload_count(&self) -> Result<u64, StorageError> {
        let (mut count, mut after) = (0, None);
        loop {
            let keys = self.keys_with_uploads(after.as_deref())?;
            let Some(last) = keys.last() else { return Ok(count) };
            after = Some(last.clone());
            for key in keys {
                // Without an upload ID an upload may never have been created.
                let named = self.open_uploads(&key)?.into_iter().filter(|open| open.upload_id.is_some());
                count += named.count() as u64;
            }
        }
    }

    /// Returns the acknowledged parts of a multipart upload, by part number.
    pub(crate) fn sent_parts(&self, token: &str) -> Result<Vec<(u32, SentPart)>, StorageError> {
        self.0.store.sent_parts(token)
    }
}

impl fmt::Debug for CacheManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheManager").field("path", &self.0.path).finish_non_exhaustive()
    }
}
