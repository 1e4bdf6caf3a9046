//! Opening the cache: one writer at a time, beside whom any number of processes read.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, DatabaseError};

use super::access::{Access, failed, guarded};
use super::file::OpenFile;
use super::overlay::Overlay;
use super::store::{Store, Write};
use super::{CacheManager, FORMAT, Inner, META_FORMAT, upgrade};
use crate::error::{ErrorKind, Operation, StorageError};

/// Pages that redb may keep in memory.
const PAGE_CACHE: usize = 16 * 1024 * 1024;

/// How long a reader waits for a writer to have begun, or for the writer of another version to end.
const READERS_WAIT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// A writer and readers side by side; where the file system has no locks on parts of files, one after another.
const MODES: [ConcurrencyMode; 2] = [ConcurrencyMode::SingleWriter, ConcurrencyMode::ExclusiveWriter];

impl CacheManager {
    /// Opens the cache, or creates it (mode 0600, a missing parent folder 0700), and checks the whole
    /// file: about 0.3 s for a million records. One of the format before is upgraded in place. A cache that anybody may write or replace is refused, and one that
    /// its group may write is warned of.
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
        waiting(wait, || Store::open(path)).and_then(|store| Self::of(path, store))
    }

    /// Opens a cache that is there for reading, beside a process that may have it open for writing, and follows what
    /// that records. Neither the file nor its folder need be writable. Rescans that find something to do fail,
    /// dry runs do not; what a [verification](Self::verify) finds is not recorded.
    ///
    /// A cache that a killed process left is put right first, and one of the format before is upgraded; where it
    /// cannot be written, in memory. One in which nothing was ever recorded is empty.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::Cache`] if there is no such file. [`ErrorKind::CacheLocked`] only where a
    /// process of an earlier version has it open, or the file system has no locks on parts of files.
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref();
        waiting(READERS_WAIT, || Store::open_read_only(path)).and_then(|store| Self::of(path, store))
    }

    fn of(path: &Path, store: Store) -> Result<Self, StorageError> {
        store.file().warn_of_group();
        let store = match store.meta(META_FORMAT)?.as_deref() {
            None => {
                store.apply(&[Write::Meta(META_FORMAT, vec![FORMAT])])?;
                store
            }
            Some([FORMAT]) => store,
            Some([upgrade::FROM]) => store.upgraded(path)?,
            Some(other) => {
                let why = format!(
                    "its format {other:?} is not {FORMAT}: it was written by another version of this library; use that, or a new cache file"
                );
                return Err(StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path));
            }
        };
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            store,
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
        self.0.store.file().check()
    }
}

/// Tries until the lock is free, or for so long.
fn waiting(wait: Duration, open: impl Fn() -> Result<Store, StorageError>) -> Result<Store, StorageError> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match open() {
            Err(held) if held.kind() == ErrorKind::CacheLocked => {
                let left = wait.saturating_sub(began.elapsed());
                if left.is_zero() {
                    let waited = format!("waited {wait:?}");
                    return Err(if wait.is_zero() { held } else { held.advise(&waited) });
                }
                thread::sleep(pause.min(left));
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

impl Store {
    /// For writing.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let store = guarded(path, || Self::open_in_some_mode(path))?;
        // Whoever held it may have removed it meanwhile.
        store.file().check()?;
        if !store.is_made()? {
            store.make(META_FORMAT, &[FORMAT])?;
        }
        Ok(store)
    }

    fn open_in_some_mode(path: &Path) -> Result<Self, StorageError> {
        let [mode, other] = MODES;
        match Self::open_in(path, mode)? {
            Err(error) if is_unsupported(&error) => Self::open_in(path, other)?,
            result => result,
        }
        .map_err(|error| failed(path, error))
    }

    fn open_in(path: &Path, mode: ConcurrencyMode) -> Result<Result<Self, DatabaseError>, StorageError> {
        let (file, opened) = OpenFile::for_writing(path)?;
        let database = FileBackend::new(file).and_then(|file| {
            let mut builder = builder(mode);
            builder.set_check_integrity_on_open(true).create_with_backend(file)
        });
        Ok(database.map(|database| Self::new(Access::Writing(database), opened)))
    }

    pub(super) fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        let read = || guarded(path, || Self::read_in_some_mode(path));
        let store = match read()? {
            Ok(store) if store.is_made()? => return Ok(store),
            Err(DatabaseError::RepairAborted) => match Self::open(path) {
                Ok(repaired) => {
                    drop(repaired);
                    read()?.map_err(|error| failed(path, error))?
                }
                Err(error) if error.kind() == ErrorKind::Cache => Self::overlay(path)?,
                Err(error) => return Err(error),
            },
            Err(error) if !is_empty(path)? => return Err(failed(path, error)),
            _ => Self::overlay(path)?,
        };
        Ok(store)
    }

    fn read_in_some_mode(path: &Path) -> Result<Result<Self, DatabaseError>, StorageError> {
        let [mode, other] = MODES;
        match Self::read_in(path, mode)? {
            Err(error) if is_unsupported(&error) => Self::read_in(path, other),
            result => Ok(result),
        }
    }

    fn read_in(path: &Path, mode: ConcurrencyMode) -> Result<Result<Self, DatabaseError>, StorageError> {
        let (file, opened) = OpenFile::for_reading(path)?;
        let database =
            FileBackend::new(file).and_then(|file| builder(mode).open_read_only_with_backend(file));
        Ok(database.map(|database| Self::new(Access::Reading(database), opened)))
    }

    /// Writes the format before this one anew; where the file cannot be written, in memory.
    fn upgraded(self, path: &Path) -> Result<Self, StorageError> {
        if !self.is_read_only() {
            upgrade::run(&self)?;
            return Ok(self);
        }
        drop(self);
        match Self::open(path) {
            Ok(writing) => {
                upgrade::run(&writing)?;
                drop(writing);
                Self::open_read_only(path)
            }
            Err(error) if error.kind() == ErrorKind::Cache => {
                let overlaid = Self::overlay(path)?;
                upgrade::run(&overlaid)?;
                Ok(overlaid)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes it, or puts it right, in memory.
    fn overlay(path: &Path) -> Result<Self, StorageError> {
        let store = guarded(path, || {
            let (file, opened) = OpenFile::for_reading(path)?;
            let database = Overlay::new(file).and_then(|file| {
                let mut builder = builder(ConcurrencyMode::ExclusiveWriter);
                builder.set_check_integrity_on_open(true).create_with_backend(file)
            });
            let database = database.map_err(|error| failed(path, error))?;
            Ok(Self::new(Access::Overlaid(database), opened))
        })?;
        if !store.is_made()? {
            store.make(META_FORMAT, &[FORMAT])?;
        }
        Ok(store)
    }
}

fn builder(mode: ConcurrencyMode) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGE_CACHE).set_concurrency_mode(mode);
    builder
}

fn is_unsupported(error: &DatabaseError) -> bool {
    matches!(error, DatabaseError::Storage(redb::StorageError::Unsupported))
}

fn is_empty(path: &Path) -> Result<bool, StorageError> {
    let (file, _) = OpenFile::for_reading(path)?;
    let length = file.metadata().map(|found| found.len());
    length
        .map(|length| length == 0)
        .map_err(|error| StorageError::io(ErrorKind::Cache, Operation::Cache, path, error))
}
