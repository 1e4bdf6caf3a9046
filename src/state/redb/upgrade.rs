//! Upgrades caches of earlier formats when they are opened.

use std::io;
use std::ops::RangeInclusive;

use redb::WriteTransaction;
use serde::Deserialize;

use crate::error::StorageError;
use crate::state::records::{OpenUpload, Pending, Published, encode};
use crate::state::redb::{Definition, META, PENDING, PUBLISHED, RedbStore, UPLOADS};
use crate::state::store::{FORMAT, META_FORMAT, Store as _};
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// The formats that are upgraded.
pub(crate) const FROM: RangeInclusive<u8> = 2..=3;

/// In format 2: set while a run was sending, so it is still set if that run was killed.
const META_SENDING: &str = "sending";

/// The number of records read in one transaction.
const PAGE: usize = 1024;

/// An open multipart upload in format 2, which does not record the headers of the upload.
#[derive(Deserialize)]
struct OpenUpload2 {
    token: String,
    stat: FileStat,
    not_racy: bool,
    part_size: u64,
    upload_id: Option<String>,
    lost: bool,
}

impl From<OpenUpload2> for OpenUpload {
    fn from(old: OpenUpload2) -> Self {
        let OpenUpload2 { token, stat, not_racy, part_size, upload_id, lost } = old;
        Self { token, stat, not_racy, part_size, headers: None, upload_id, lost }
    }
}

/// A published version in formats 2 and 3, which do not record the headers of the object.
#[derive(Deserialize)]
struct Published3 {
    stat: FileStat,
    not_racy: bool,
    digest: Digest,
    whole: Option<[u8; 32]>,
    etag: Option<String>,
    root: u32,
    with_root: bool,
}

impl From<Published3> for Published {
    fn from(old: Published3) -> Self {
        let Published3 { stat, not_racy, digest, whole, etag, root, with_root } = old;
        Self { stat, not_racy, digest, whole, etag, root, with_root, headers: None }
    }
}

/// The reason why an upgrade stopped.
enum Failure {
    Database(redb::Error),
    Record(StorageError),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Record(error)
    }
}

impl From<redb::TableError> for Failure {
    fn from(error: redb::TableError) -> Self {
        Self::Database(error.into())
    }
}

impl From<redb::StorageError> for Failure {
    fn from(error: redb::StorageError) -> Self {
        Self::Database(error.into())
    }
}

/// Rewrites the records of format `from` in the current one. All of it is one transaction, so a crash leaves either
/// format whole.
pub(crate) fn upgrade_records(store: &RedbStore, from: u8) -> Result<(), StorageError> {
    let mut damage = None;
    let upgraded = store.write(|transaction| match rewrite_all(store, transaction, from) {
        Ok(()) => Ok(()),
        Err(Failure::Database(error)) => Err(error),
        Err(Failure::Record(error)) => {
            damage = Some(error);
            Err(redb::Error::Io(io::Error::other("a record cannot be upgraded")))
        }
    });
    damage.map_or(upgraded, Err)
}

fn rewrite_all(store: &RedbStore, transaction: &WriteTransaction, from: u8) -> Result<(), Failure> {
    if from == 2 {
        rewrite_format_2(store, transaction)?;
    }
    rewrite(store, transaction, PUBLISHED, |key, bytes| {
        let published: Published = store.decoded::<Published3>(key, bytes)?.into();
        store.encoded(key, encode(key, &published)).map(Some)
    })?;
    transaction.open_table(META)?.insert(META_FORMAT, [FORMAT].as_slice())?;
    Ok(())
}

/// Rewrites what format 3 changed. The field `doubt` of a pending record is now `attempted`, with the same encoding. If
/// a run was killed, its pending keys count as attempted.
fn rewrite_format_2(store: &RedbStore, transaction: &WriteTransaction) -> Result<(), Failure> {
    let interrupted = store.meta(META_SENDING)?.as_deref() == Some(&[1]);
    rewrite(store, transaction, UPLOADS, |key, bytes| {
        let uploads: Vec<OpenUpload2> = store.decoded(key, bytes)?;
        let uploads: Vec<OpenUpload> = uploads.into_iter().map(Into::into).collect();
        store.encoded(key, encode(key, &uploads)).map(Some)
    })?;
    rewrite(store, transaction, PENDING, |key, bytes| {
        let pending: Pending = store.decoded(key, bytes)?;
        // Format 2 did not mark single keys: any of them may have been sent.
        if !interrupted || pending.attempted {
            return Ok(None);
        }
        let pending = Pending { attempted: true, ..pending };
        store.encoded(key, encode(key, &pending)).map(Some)
    })
}

/// Replaces the records of a table, a page at a time; those stay for which `record` returns `None`.
fn rewrite(
    store: &RedbStore,
    transaction: &WriteTransaction,
    table: Definition,
    record: impl Fn(&str, &[u8]) -> Result<Option<Vec<u8>>, StorageError>,
) -> Result<(), Failure> {
    let (mut after, mut to) = (None, transaction.open_table(table)?);
    loop {
        // Read as it was before this transaction.
        let page = store.rows(table, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, bytes) in page {
            if let Some(bytes) = record(&key, &bytes)? {
                to.insert(key.as_str(), bytes.as_slice())?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::state::cache::CacheManager;

    const FORMATS: [(&[u8], u8); 3] = [
        (include_bytes!("../../../tests/support/format2.cache"), 2),
        (include_bytes!("../../../tests/support/format3.cache"), 3),
        (include_bytes!("../../../tests/support/format4.cache"), 4),
    ];

    fn published(path: &Path) -> Vec<Published> {
        let cache = CacheManager::open(path).unwrap();
        cache.rows().filter_map(|row| row.unwrap().published).collect()
    }

    #[test]
    fn headers_are_unknown_after_an_upgrade_and_everything_else_is_as_it_was() {
        for (bytes, format) in FORMATS {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("cache");
            fs::write(&path, bytes).unwrap();
            let records = published(&path);
            assert_eq!((records.len(), published(&path)), (6, records.clone()), "format {format}");
            // The file of format 4 has a record of a file that was sent in that format.
            let known: Vec<_> = records.iter().filter_map(|record| record.headers).collect();
            assert_eq!(known, if format == 4 { vec![[1, 2, 3, 4, 5, 6, 7, 8]] } else { Vec::new() });
            assert!(records.iter().all(|record| record.known_digest().is_some() && record.etag.is_some()));
        }
    }

    /// A record that cannot be read leaves the file as it is.
    #[test]
    fn upgrade_is_one_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        fs::write(&path, FORMATS[1].0).unwrap();
        let store = RedbStore::open(&path).unwrap();
        let damage = |transaction: &WriteTransaction| -> Result<(), redb::Error> {
            transaction.open_table(PUBLISHED)?.insert("zz", [1, 2].as_slice())?;
            Ok(())
        };
        store.write(damage).unwrap();
        let before = store.rows(PUBLISHED, None, 10).unwrap();
        assert!(upgrade_records(&store, 3).is_err());
        assert_eq!(store.rows(PUBLISHED, None, 10).unwrap(), before);
        assert_eq!(store.meta(META_FORMAT).unwrap(), Some(vec![3]));
    }
}
