//! Upgrades caches of the previous format when they are opened.

use serde::Deserialize;

use crate::error::StorageError;
use crate::state::records::{OpenUpload, Pending, encode};
use crate::state::redb::{Definition, META, PENDING, RedbStore, UPLOADS};
use crate::state::store::{FORMAT, META_FORMAT, Store as _};
use crate::tree::version::FileStat;

/// The format that is upgraded.
pub(crate) const FROM: u8 = 2;

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

/// Rewrites the records in format 3, in one transaction. The field `doubt` of a pending record is now `attempted`, with
/// the same encoding. If a run was killed, its pending keys count as attempted.
pub(crate) fn upgrade_records(store: &RedbStore) -> Result<(), StorageError> {
    let interrupted = store.meta(META_SENDING)?.as_deref() == Some(&[1]);
    let mut rows = Vec::new();
    for_each_record(store, UPLOADS, |key, bytes| {
        let uploads: Vec<OpenUpload2> = store.decoded(&key, &bytes)?;
        let uploads: Vec<OpenUpload> = uploads.into_iter().map(Into::into).collect();
        rows.push((UPLOADS, key.clone(), store.encoded(&key, encode(&key, &uploads))?));
        Ok(())
    })?;
    for_each_record(store, PENDING, |key, bytes| {
        let pending: Pending = store.decoded(&key, &bytes)?;
        // Format 2 did not mark single keys: any of them may have been sent.
        if interrupted && !pending.attempted {
            let pending = Pending { attempted: true, ..pending };
            rows.push((PENDING, key.clone(), store.encoded(&key, encode(&key, &pending))?));
        }
        Ok(())
    })?;
    // In the same transaction, so a crash leaves either format whole.
    rows.push((META, META_FORMAT.to_owned(), vec![FORMAT]));
    store.put_encoded(&rows)
}

/// Calls `record` for each record of a table, a page at a time.
fn for_each_record(
    store: &RedbStore,
    table: Definition,
    mut record: impl FnMut(String, Vec<u8>) -> Result<(), StorageError>,
) -> Result<(), StorageError> {
    let mut after = None;
    loop {
        let page = store.rows(table, after.as_deref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = Some(last.clone());
        page.into_iter().try_for_each(|(key, bytes)| record(key, bytes))?;
    }
}
