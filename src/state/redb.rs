//! The [`Store`] that keeps its records in a redb database, and what is made of redb's failures.
//!
//! # Architecture
//! - [`RedbStore`]: the open database and its file, owned by the cache. Any thread may call it; redb lets one thread at
//!   a time write.
//! - [`Access`]: how the database is open: for writing, for reading beside a writer, or with changes in memory only.
//! - [`OpenFile`]: the file on disk, compared with its path before each commit.
//! - [`Tables`]: the tables of one write transaction.
//! - `open` opens and repairs, `upgrade` converts earlier formats, `overlay` keeps changes in memory.
//!
//! Every call into redb is guarded against panics, because redb may panic on a damaged file.

mod access;
mod file;
mod open;
mod overlay;
mod tables;
mod upgrade;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};

use crate::backend::SentPart;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::file_mark::FileMark;
use crate::state::records::{OpenUpload, decode};
use crate::state::redb::access::{Access, damaged, guarded, is_damage};
use crate::state::redb::file::OpenFile;
use crate::state::redb::tables::{Tables, parts_of};
use crate::state::store::{KeyRecords, META_CHANGES, META_COMPLETE, META_HEAD, Store, Table, Write};

pub(crate) type Definition = TableDefinition<'static, &'static str, &'static [u8]>;
pub(crate) const META: Definition = TableDefinition::new("meta");
pub(crate) const PUBLISHED: Definition = TableDefinition::new("published");
pub(crate) const PENDING: Definition = TableDefinition::new("pending");
/// By key: its list of [`OpenUpload`].
pub(crate) const UPLOADS: Definition = TableDefinition::new("uploads");
/// By key, without a value: [`Table::Recent`].
pub(crate) const RECENT: Definition = TableDefinition::new("recent");
/// By key, without a value: [`Table::Left`].
pub(crate) const LEFT: Definition = TableDefinition::new("left");
/// By key: the number of its last change ([`Table::Unpushed`]).
pub(crate) const UNPUSHED: Definition = TableDefinition::new("unpushed");
/// By [`tables::part_key`].
pub(crate) const PARTS: Definition = TableDefinition::new("parts");

/// The number of keys with open multipart uploads on a page.
const UPLOADS_AT_ONCE: usize = 256;

/// Keeps records in a redb file.
pub(crate) struct RedbStore {
    access: Access,
    file: OpenFile,
    /// Commits since they were last asked for.
    commits: AtomicU64,
}

impl RedbStore {
    pub(crate) fn new(access: Access, file: OpenFile) -> Self {
        Self { access, file, commits: AtomicU64::new(0) }
    }

    pub(crate) fn file(&self) -> &OpenFile {
        &self.file
    }

    /// Returns true if the tables were created.
    pub(crate) fn has_tables(&self) -> Result<bool, StorageError> {
        self.read(|transaction| match transaction.open_table(META) {
            Ok(_) => Ok(true),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
            Err(error) => Err(error.into()),
        })
    }

    /// Creates the tables, with this as the first named value.
    pub(crate) fn create_tables(&self, name: &str, value: &[u8]) -> Result<(), StorageError> {
        self.write(|transaction| {
            for table in [PUBLISHED, PENDING, UPLOADS, PARTS, RECENT, LEFT, UNPUSHED] {
                transaction.open_table(table)?;
            }
            transaction.open_table(META)?.insert(name, value)?;
            Ok(())
        })
    }

    /// Returns up to `most` encoded records of a table that follow `after`, in key order.
    pub(crate) fn rows(
        &self,
        table: Definition,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.read(|transaction| {
            let table = match transaction.open_table(table) {
                Ok(table) => table,
                // Earlier versions of this library did not create every table.
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let range = table.range::<&str>((after.map_or(Unbounded, Excluded), Unbounded))?;
            range
                .take(most)
                .map(|entry| entry.map(|(key, value)| (key.value().to_owned(), value.value().to_vec())))
                .collect::<Result<Vec<_>, _>>()
                .map_err(Into::into)
        })
    }

    /// Returns the bytes of an encoded record, or the error with file and key.
    pub(crate) fn encoded(
        &self,
        key: &str,
        encoded: Result<Vec<u8>, postcard::Error>,
    ) -> Result<Vec<u8>, StorageError> {
        encoded.map_err(|error| {
            StorageError::new(ErrorKind::Cache, Operation::Cache, "a record cannot be encoded")
                .with_path(&self.file.path)
                .with_key(key)
                .with_source(error)
        })
    }

    /// Decodes a record. The error for a damaged one says what to do.
    pub(crate) fn decoded<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
        bytes: &[u8],
    ) -> Result<T, StorageError> {
        decode(key, bytes).ok_or_else(|| self.damaged(key))
    }

    /// Runs `work` in a read transaction.
    fn read<T>(
        &self,
        work: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        guarded(&self.file.path, || {
            let transaction = self.access.begin_read().map_err(redb::Error::from);
            transaction.and_then(|transaction| work(&transaction)).map_err(|error| self.failed(error))
        })
    }

    /// Runs `work` in a write transaction and commits it durably.
    fn write(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), StorageError> {
        let (Access::Writing(database) | Access::Overlaid(database)) = &self.access else {
            return Err(self.not_writable());
        };
        guarded(&self.file.path, || {
            let run = || -> Result<(), redb::Error> {
                let mut transaction = database.begin_write()?;
                // After a crash the file opens without a scan of all its pages.
                transaction.set_quick_repair(true);
                work(&transaction)?;
                transaction.commit()?;
                Ok(())
            };
            run().map_err(|error| self.failed(error))
        })?;
        self.commits.fetch_add(1, Relaxed);
        Ok(())
    }

    fn not_writable(&self) -> StorageError {
        let why = "it is open for reading only: open it for writing to publish or to abort uploads";
        StorageError::new(ErrorKind::Cache, Operation::Cache, why).with_path(&self.file.path)
    }

    fn failed(&self, error: redb::Error) -> StorageError {
        match error {
            redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. } => {
                damaged(&self.file.path, &error.to_string())
            }
            redb::Error::Io(error) if is_damage(&error) => damaged(&self.file.path, &error.to_string()),
            redb::Error::Io(error) => {
                StorageError::io(ErrorKind::Cache, Operation::Cache, &self.file.path, error)
            }
            error => StorageError::new(ErrorKind::Cache, Operation::Cache, error.to_string())
                .with_path(&self.file.path),
        }
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.access.close();
    }
}

impl Store for RedbStore {
    fn is_completion_due(&self) -> Result<bool, StorageError> {
        // The first complete run counts even if it published nothing.
        let is_first = self.meta(META_COMPLETE)?.is_none();
        Ok(is_first || !self.rows(RECENT, None, 1)?.is_empty())
    }

    fn is_read_only(&self) -> bool {
        !matches!(self.access, Access::Writing(_))
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|transaction| {
            let table = transaction.open_table(META)?;
            let value = table.get(name)?.map(|value| value.value().to_vec());
            Ok(value)
        })
    }

    fn get(&self, keys: &[&str]) -> Result<Vec<KeyRecords>, StorageError> {
        // One transaction, so that all records are of the same moment.
        let encoded = self.read(|transaction| {
            let (published, pending) = (transaction.open_table(PUBLISHED)?, transaction.open_table(PENDING)?);
            let records = keys.iter().map(|key| {
                let there = published.get(*key)?.map(|value| value.value().to_vec());
                let wanted = pending.get(*key)?.map(|value| value.value().to_vec());
                Ok((there, wanted))
            });
            records.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let decoded = keys.iter().zip(encoded).map(|(key, (published, pending))| {
            Ok((
                published.map(|bytes| self.decoded(key, &bytes)).transpose()?,
                pending.map(|bytes| self.decoded(key, &bytes)).transpose()?,
            ))
        });
        decoded.collect()
    }

    fn uploads(&self, key: &str) -> Result<Vec<OpenUpload>, StorageError> {
        let bytes = self.read(|transaction| {
            Ok(transaction.open_table(UPLOADS)?.get(key)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map_or(Ok(Vec::new()), |bytes| self.decoded(key, &bytes))
    }

    fn keys_with_uploads(&self, after: Option<&str>) -> Result<Vec<String>, StorageError> {
        let page = self.rows(UPLOADS, after, UPLOADS_AT_ONCE)?;
        Ok(page.into_iter().map(|(key, _)| key).collect())
    }

    fn sent_parts(&self, token: &str) -> Result<Vec<(u32, SentPart)>, StorageError> {
        let (first, end) = parts_of(token);
        let rows = self.read(|transaction| {
            let table = transaction.open_table(PARTS)?;
            let range = table.range(first.as_str()..end.as_str())?;
            range
                .map(|entry| entry.map(|(key, value)| (key.value().to_owned(), value.value().to_vec())))
                .collect::<Result<Vec<_>, _>>()
                .map_err(Into::into)
        })?;
        rows.into_iter().map(|(key, bytes)| self.decoded(&key, &bytes)).collect()
    }

    fn lengths(&self) -> Result<(u64, u64), StorageError> {
        self.read(|transaction| {
            Ok((transaction.open_table(PUBLISHED)?.len()?, transaction.open_table(PENDING)?.len()?))
        })
    }

    fn apply(&self, writes: &[Write]) -> Result<(), StorageError> {
        if writes.is_empty() {
            return Ok(());
        }
        // With an overlay a write would succeed in memory, and nothing durable would stand behind the upload.
        if self.is_read_only() {
            return Err(self.not_writable());
        }
        self.file.check()?;
        self.write(|transaction| {
            let mut tables = Tables {
                published: transaction.open_table(PUBLISHED)?,
                pending: transaction.open_table(PENDING)?,
                uploads: transaction.open_table(UPLOADS)?,
                parts: transaction.open_table(PARTS)?,
                meta: transaction.open_table(META)?,
                recent: transaction.open_table(RECENT)?,
                left: transaction.open_table(LEFT)?,
                unpushed: transaction.open_table(UNPUSHED)?,
                after_a_complete_run: false,
                change: None,
            };
            tables.after_a_complete_run = tables.meta.get(META_COMPLETE)?.is_some();
            // The catalog is out of date once this number has changed.
            if writes.iter().any(Write::is_about_files) {
                let change = fastrand::u64(1..).to_le_bytes();
                tables.meta.insert(META_CHANGES, change.as_slice())?;
                tables.change = tables.meta.get(META_HEAD)?.map(|_| change);
            }
            writes.iter().try_for_each(|write| tables.apply(write))
        })
    }

    fn take_commits(&self) -> u64 {
        self.commits.swap(0, Relaxed)
    }

    fn check(&self) -> Result<(), StorageError> {
        self.file.check()
    }

    fn mark(&self) -> FileMark {
        self.file.mark()
    }

    fn page(
        &self,
        table: Table,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StorageError> {
        let table = match table {
            Table::Published => PUBLISHED,
            Table::Pending => PENDING,
            Table::Recent => RECENT,
            Table::Left => LEFT,
            Table::Unpushed => UNPUSHED,
        };
        self.rows(table, after, most)
    }

    fn damaged(&self, key: &str) -> StorageError {
        damaged(&self.file.path, "a record is damaged").with_key(key)
    }
}
