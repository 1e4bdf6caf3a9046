//! Opens the cache file: for one writer at a time, and for any number of readers beside it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, DatabaseError};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::redb::access::{Access, failed, guarded};
use crate::state::redb::file::OpenFile;
use crate::state::redb::overlay::Overlay;
use crate::state::redb::{RedbStore, upgrade};
use crate::state::store::{FORMAT, META_FORMAT, Store, Write};

/// The bytes of pages that redb may keep in memory.
const PAGE_CACHE: usize = 16 * 1024 * 1024;

/// The modes to try: readers beside one writer; if the file system has no byte-range locks, one process at a time.
const MODES: [ConcurrencyMode; 2] = [ConcurrencyMode::SingleWriter, ConcurrencyMode::ExclusiveWriter];

/// How long a reader waits while a writer opens the file, or while a writer of another version has it open.
const READERS_WAIT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl RedbStore {
    /// Opens the cache for writing. Waits up to `wait` while another process has it open for writing.
    pub(crate) fn open_waiting(path: &Path, wait: Duration) -> Result<Self, StorageError> {
        retry_while_locked(wait, || Self::open(path))
    }

    /// Opens the cache for reading. Waits a moment while a writer opens it.
    pub(crate) fn open_read_only_waiting(path: &Path) -> Result<Self, StorageError> {
        retry_while_locked(READERS_WAIT, || Self::open_read_only(path))
    }

    /// Returns the store with its records in the current format. Upgrades the two formats before; any other is an error.
    pub(crate) fn in_current_format(self, path: &Path) -> Result<Self, StorageError> {
        self.file().warn_of_group();
        match self.meta(META_FORMAT)?.as_deref() {
            None => {
                self.apply(&[Write::Meta(META_FORMAT, vec![FORMAT])])?;
                Ok(self)
            }
            Some([FORMAT]) => Ok(self),
            Some([from]) if upgrade::FROM.contains(from) => {
                let from = *from;
                self.upgrade(path, from)
            }
            Some(other) => {
                let why = format!(
                    "its format is {other:?}, and this version reads {FORMAT}: use the version that wrote it, or make \
                     the cache anew with Rebuild (brigade rebuild), which keeps this file"
                );
                Err(StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path))
            }
        }
    }

    /// Opens the cache for writing, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let store = guarded(path, || Self::open_in_supported_mode(path))?;
        // The process that held the lock before may have removed the file meanwhile.
        store.file().check()?;
        if !store.has_tables()? {
            store.create_tables(META_FORMAT, &[FORMAT])?;
        }
        Ok(store)
    }

    fn open_in_supported_mode(path: &Path) -> Result<Self, StorageError> {
        let [mode, other] = MODES;
        match Self::open_in(path, mode)? {
            Err(error) if is_unsupported(&error) => Self::open_in(path, other)?,
            result => result,
        }
        .map_err(|error| failed(path, error))
    }

    fn open_in(path: &Path, mode: ConcurrencyMode) -> Result<Result<Self, DatabaseError>, StorageError> {
        let (file, opened) = OpenFile::for_writing(path)?;
        // A full check now, so that no damaged record decides about a delete later.
        let database = FileBackend::new(file).and_then(|file| {
            let mut builder = builder(mode);
            builder.set_check_integrity_on_open(true).create_with_backend(file)
        });
        Ok(database.map(|database| Self::new(Access::Writing(database), opened)))
    }

    /// Opens the cache for reading. Repairs or completes it first where that is needed, on disk or else in memory.
    pub(crate) fn open_read_only(path: &Path) -> Result<Self, StorageError> {
        let read = || guarded(path, || Self::read_in_supported_mode(path));
        let store = match read()? {
            Ok(store) if store.has_tables()? => return Ok(store),
            // A process was killed while it wrote. A reader cannot repair the file, a writer does when it opens it.
            Err(DatabaseError::RepairAborted) => match Self::open(path) {
                Ok(repaired) => {
                    drop(repaired);
                    read()?.map_err(|error| failed(path, error))?
                }
                // The file cannot be written.
                Err(error) if error.kind() == ErrorKind::Cache => Self::open_overlaid(path)?,
                Err(error) => return Err(error),
            },
            // An empty file is a cache without records, anything else is no cache.
            Err(error) if !is_empty(path)? => return Err(failed(path, error)),
            _ => Self::open_overlaid(path)?,
        };
        Ok(store)
    }

    fn read_in_supported_mode(path: &Path) -> Result<Result<Self, DatabaseError>, StorageError> {
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

    /// Upgrades a format before in the file, or in memory if the file cannot be written.
    fn upgrade(self, path: &Path, from: u8) -> Result<Self, StorageError> {
        if !self.is_read_only() {
            upgrade::upgrade_records(&self, from)?;
            return Ok(self);
        }
        // A reader opens the file for writing just for the upgrade.
        drop(self);
        match Self::open(path) {
            Ok(writing) => {
                upgrade::upgrade_records(&writing, from)?;
                drop(writing);
                Self::open_read_only(path)
            }
            Err(error) if error.kind() == ErrorKind::Cache => {
                let overlaid = Self::open_overlaid(path)?;
                upgrade::upgrade_records(&overlaid, from)?;
                Ok(overlaid)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the file for reading and keeps all changes in memory, those of a repair included.
    fn open_overlaid(path: &Path) -> Result<Self, StorageError> {
        let store = guarded(path, || {
            let (file, opened) = OpenFile::for_reading(path)?;
            let database = Overlay::new(file).and_then(|file| {
                let mut builder = builder(ConcurrencyMode::ExclusiveWriter);
                builder.set_check_integrity_on_open(true).create_with_backend(file)
            });
            let database = database.map_err(|error| failed(path, error))?;
            Ok(Self::new(Access::Overlaid(database), opened))
        })?;
        if !store.has_tables()? {
            store.create_tables(META_FORMAT, &[FORMAT])?;
        }
        Ok(store)
    }
}

/// Calls `open` until the lock is free, for up to `wait`.
fn retry_while_locked(
    wait: Duration,
    open: impl Fn() -> Result<RedbStore, StorageError>,
) -> Result<RedbStore, StorageError> {
    let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match open() {
            Err(held) if held.kind() == ErrorKind::CacheLocked => {
                let left = wait.saturating_sub(began.elapsed());
                // Without a wait the error has nothing to add.
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

fn builder(mode: ConcurrencyMode) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGE_CACHE).set_concurrency_mode(mode);
    builder
}

/// Returns true if the file system has no byte-range locks.
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
