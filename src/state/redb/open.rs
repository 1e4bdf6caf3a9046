//! Opening the cache: one writer at a time, beside whom any number of processes read.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, DatabaseError};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::redb::RedbStore;
use crate::state::redb::access::{Access, failed, guarded};
use crate::state::redb::file::OpenFile;
use crate::state::redb::overlay::Overlay;
use crate::state::redb::upgrade;
use crate::state::store::{FORMAT, META_FORMAT, Store, Write};

/// Pages that redb may keep in memory.
const PAGE_CACHE: usize = 16 * 1024 * 1024;

/// A writer and readers side by side; where the file system has no locks on parts of files, one after another.
const MODES: [ConcurrencyMode; 2] = [ConcurrencyMode::SingleWriter, ConcurrencyMode::ExclusiveWriter];

/// How long a reader waits for a writer to have begun, or for the writer of another version to end.
const READERS_WAIT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

impl RedbStore {
    /// For writing, once no other process has it open, or after so long.
    pub(crate) fn open_waiting(path: &Path, wait: Duration) -> Result<Self, StorageError> {
        waiting(wait, || Self::open(path))
    }

    /// For reading, once a writer that has begun is through with that.
    pub(crate) fn open_read_only_waiting(path: &Path) -> Result<Self, StorageError> {
        waiting(READERS_WAIT, || Self::open_read_only(path))
    }

    /// Brings the records to the format of this version; fails for any but the one before.
    pub(crate) fn in_this_format(self, path: &Path) -> Result<Self, StorageError> {
        self.file().warn_of_group();
        match self.meta(META_FORMAT)?.as_deref() {
            None => {
                self.apply(&[Write::Meta(META_FORMAT, vec![FORMAT])])?;
                Ok(self)
            }
            Some([FORMAT]) => Ok(self),
            Some([upgrade::FROM]) => self.upgraded(path),
            Some(other) => {
                let why = format!(
                    "its format {other:?} is not {FORMAT}: it was written by another version of this library; use that, or a new cache file"
                );
                Err(StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path))
            }
        }
    }

    /// For writing.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
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

    pub(crate) fn open_read_only(path: &Path) -> Result<Self, StorageError> {
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

/// Tries until the lock is free, or for so long.
fn waiting(
    wait: Duration,
    open: impl Fn() -> Result<RedbStore, StorageError>,
) -> Result<RedbStore, StorageError> {
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
