//! The open redb database, and the translation of its errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};

use crate::error::{ErrorKind, Operation, StorageError};

/// An open database.
pub(crate) enum Access {
    Writing(Database),
    /// Only for reading, while another process may write it.
    Reading(ReadOnlyDatabase),
    /// On an [`Overlay`](crate::state::redb::overlay::Overlay): the changes of a repair stay in memory.
    Overlaid(Database),
    /// Being dropped.
    Closed,
}

impl Access {
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::Writing(database) | Self::Overlaid(database) => database.begin_read(),
            Self::Reading(database) => database.begin_read(),
            Self::Closed => Err(redb::StorageError::DatabaseClosed.into()),
        }
    }

    /// Closes the database: redb commits once more then, and may panic on a file that was damaged while it was open. What
    /// the cache has acknowledged is durable already.
    pub(crate) fn close(&mut self) {
        let open = std::mem::replace(self, Self::Closed);
        // Nobody is left to tell.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(open)));
    }
}

/// Runs `work` and turns a panic into an error: redb may panic on a damaged file, and that must not reach the host.
pub(crate) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "the database code panicked while using it")))
}

/// Returns true if the error shows that the file is shorter than it claims, or has invalid content.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// The error for a damaged cache, with the way out.
pub(crate) fn damaged(path: &Path, what: &str) -> StorageError {
    let why = format!(
        "{what}; nothing was deleted because of it. Make the cache anew with Rebuild (brigade rebuild), which keeps the damaged file"
    );
    StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path)
}

/// The error for a database that could not be opened.
pub(crate) fn failed(path: &Path, error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            let why = "another process or orchestrator is using this cache: try again when it has finished";
            StorageError::new(ErrorKind::CacheLocked, Operation::Cache, why).with_path(path)
        }
        // That process repairs the file. Afterwards it can be read.
        DatabaseError::RepairAborted => {
            let why = "another process is opening this cache: try again";
            StorageError::new(ErrorKind::CacheLocked, Operation::Cache, why).with_path(path)
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) if !is_damage(&error) => {
            StorageError::io(ErrorKind::Cache, Operation::Cache, path, error)
        }
        // The errors that are left come from the content of the file.
        error => damaged(path, &error.to_string()),
    }
}
