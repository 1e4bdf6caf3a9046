//! redb: how it is open, and what is made of its failures.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::{Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};

use crate::error::{ErrorKind, Operation, StorageError};

/// How the database is open.
pub(crate) enum Access {
    Writing(Database),
    /// Beside whoever writes it.
    Reading(ReadOnlyDatabase),
    /// In memory what a repair changed, or made: nothing of it reaches the file.
    Overlaid(Database),
}

impl Access {
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, redb::TransactionError> {
        match self {
            Self::Writing(database) | Self::Overlaid(database) => database.begin_read(),
            Self::Reading(database) => database.begin_read(),
        }
    }
}

/// redb may panic on a damaged file; that must not reach the host.
pub(crate) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(damaged(path, "the database panicked on it")))
}

/// Whether the file holds less than it says.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

pub(crate) fn damaged(path: &Path, what: &str) -> StorageError {
    let why = format!(
        "{what}; nothing was deleted on its word. Move the file away: the next rescan publishes everything once more, and deletes nothing that it did not publish itself"
    );
    StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path)
}

/// Why it could not be opened.
pub(crate) fn failed(path: &Path, error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            let why = "another process or orchestrator holds this cache; one at a time";
            StorageError::new(ErrorKind::CacheLocked, Operation::Cache, why).with_path(path)
        }
        // A writer is about to put it right.
        DatabaseError::RepairAborted => {
            let why = "another process has begun to open this cache";
            StorageError::new(ErrorKind::CacheLocked, Operation::Cache, why).with_path(path)
        }
        DatabaseError::Storage(redb::StorageError::Io(error)) if !is_damage(&error) => {
            StorageError::io(ErrorKind::Cache, Operation::Cache, path, error)
        }
        error => damaged(path, &error.to_string()),
    }
}
