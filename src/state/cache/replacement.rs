//! Puts a new cache in the place of one that is damaged or lost. The file that was there is kept under another name.
//!
//! The new cache is made beside the path, and gets its name when it is complete. At every moment before that the path leads
//! to what was there, and afterwards to the new cache.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::cache::CacheManager;
use crate::state::file_mark::FileMark;

/// Appended to the path of the cache for the new one.
const TEMPORARY: &str = ".rebuilding";

/// What lies at the path of a cache.
#[derive(Debug)]
#[non_exhaustive]
pub enum CacheFound {
    /// Nothing.
    Missing,
    /// A file that is no cache, is damaged, or was written by a newer version. With the error that says so.
    Damaged(StorageError),
    /// A cache without any record of a destination.
    Empty,
    /// A cache that can be used.
    Healthy,
}

/// A cache that is about to be replaced.
pub(crate) struct Replacement {
    pub(crate) path: PathBuf,
    pub(crate) found: CacheFound,
    /// The file that is replaced.
    file: Option<FileMark>,
    /// The cache that is replaced, if it can be opened: nobody else writes it meanwhile.
    _held: Option<CacheManager>,
}

impl Replacement {
    /// Finds out what lies at the path. Waits up to `wait` for another process to close it.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] if another process has it open, [`ErrorKind::CacheForeign`] if it belongs to another
    /// destination, [`ErrorKind::Cache`] if it cannot be read or written.
    pub(crate) fn find(path: &Path, destination: &str, wait: Duration) -> Result<Self, StorageError> {
        let path = path.to_owned();
        let file = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, found: CacheFound::Missing, file: None, _held: None });
            }
            Err(error) => return Err(failed(&path, error)),
            Ok(metadata) => Some(FileMark::of(&metadata)),
        };
        let cache = match CacheManager::open_waiting(&path, wait) {
            Ok(cache) => cache,
            Err(error) if error.kind() == ErrorKind::CacheDamaged => {
                return Ok(Self { path, found: CacheFound::Damaged(error), file, _held: None });
            }
            Err(error) => return Err(error),
        };
        let found = match cache.read_all() {
            Ok(()) if cache.destination()?.is_none() && cache.published_count()? == 0 => CacheFound::Empty,
            Ok(()) => CacheFound::Healthy,
            Err(error) if error.kind() == ErrorKind::CacheDamaged => CacheFound::Damaged(error),
            Err(error) => return Err(error),
        };
        if !matches!(found, CacheFound::Damaged(_)) {
            cache.check_destination(destination)?;
        }
        Ok(Self { path, found, file, _held: Some(cache) })
    }

    /// Creates the new cache beside the path.
    pub(crate) fn begin(&self) -> Result<CacheManager, StorageError> {
        let temporary = self.temporary();
        // A rebuild that was killed may have left one; one that is running holds it.
        if fs::symlink_metadata(&temporary).is_ok() {
            match CacheManager::open(&temporary) {
                Err(error) if error.kind() != ErrorKind::CacheDamaged => return Err(error),
                _ => fs::remove_file(&temporary).map_err(|error| failed(&temporary, error))?,
            }
        }
        CacheManager::open(&temporary)
    }

    /// Removes the new cache, which is not complete.
    pub(crate) fn give_up(&self) {
        // Ignored: the next rebuild removes it.
        let _ = fs::remove_file(self.temporary());
    }

    /// Gives the new cache, which is closed, its name, or removes it. Returns what was there, and where it is now.
    pub(crate) fn finish(self) -> Result<(CacheFound, Option<PathBuf>), StorageError> {
        let kept_as = self.place().inspect_err(|_| self.give_up())?;
        Ok((self.found, kept_as))
    }

    fn place(&self) -> Result<Option<PathBuf>, StorageError> {
        self.check_unchanged()?;
        let (temporary, failed) = (self.temporary(), |error| failed(&self.path, error));
        let kept_as = self.file.map(|_| self.keep_aside()).transpose()?;
        if kept_as.is_some() {
            fs::rename(&temporary, &self.path).map_err(failed)?;
        } else {
            // A link replaces nothing, if a cache was made since.
            match link_or_rename(&temporary, &self.path) {
                Ok(true) => fs::remove_file(&temporary).map_err(failed)?,
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(self.changed_meanwhile());
                }
                Err(error) => return Err(failed(error)),
            }
        }
        File::open(folder_of(&self.path)).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(kept_as)
    }

    /// Checks that the path still leads to the file that was found there, or to none.
    fn check_unchanged(&self) -> Result<(), StorageError> {
        let now = fs::symlink_metadata(&self.path).ok().map(|metadata| FileMark::of(&metadata));
        let is_same = match (self.file, now) {
            (Some(then), Some(now)) => then.is_same_file(now),
            (then, now) => then.is_none() && now.is_none(),
        };
        if is_same { Ok(()) } else { Err(self.changed_meanwhile()) }
    }

    fn changed_meanwhile(&self) -> StorageError {
        let why = "another process has created, replaced or removed the cache meanwhile: try again";
        StorageError::new(ErrorKind::CacheLocked, Operation::Cache, why).with_path(&self.path)
    }

    /// Gives the file that is there a second name, or, where a file has one name only, another name.
    fn keep_aside(&self) -> Result<PathBuf, StorageError> {
        let is_damaged = matches!(self.found, CacheFound::Damaged(_));
        let what = if is_damaged { "damaged" } else { "old" };
        for number in 1.. {
            let aside = with_suffix(&self.path, &format!(".{what}-{number}"));
            match link_or_rename(&self.path, &aside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|_| aside).map_err(|error| failed(&self.path, error)),
            }
        }
        // The numbers do not end.
        Err(failed(&self.path, io::ErrorKind::AlreadyExists.into()))
    }

    fn temporary(&self) -> PathBuf {
        with_suffix(&self.path, TEMPORARY)
    }
}

impl CacheManager {
    /// Reads every record, to find one that is damaged.
    fn read_all(&self) -> Result<(), StorageError> {
        self.rows().try_for_each(|row| row.map(drop))?;
        self.open_upload_count()?;
        self.head_copy()?;
        self.unpushed().try_for_each(|mark| mark.map(drop))?;
        self.runs()?;
        self.origin().map(drop)
    }
}

/// Gives a file a name that no file has. Returns true if the file has its old name as well.
fn link_or_rename(from: &Path, to: &Path) -> io::Result<bool> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // The file system has no hard links.
        Err(_) if fs::symlink_metadata(to).is_err() => fs::rename(from, to).map(|()| false),
        Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, error: io::Error) -> StorageError {
    StorageError::io(ErrorKind::Cache, Operation::Cache, path, error)
}
