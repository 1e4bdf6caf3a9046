//! Caches of the format before this one are written anew when they are opened.

use serde::Deserialize;

use crate::error::StorageError;
use crate::state::records::{OpenUpload, Pending, encode};
use crate::state::redb::{Definition, META, PENDING, RedbStore, UPLOADS};
use crate::state::store::{FORMAT, META_FORMAT, Store as _};
use crate::tree::version::FileStat;

/// The format that is upgraded.
pub(crate) const FROM: u8 = 2;

/// In format 2: whether a run that was sending did not come to its end.
const META_SENDING: &str = "sending";

/// Records read at a time.
const PAGE: usize = 1024;

/// An open upload as format 2 has it: without the headers that it was begun with.
#[derive(Deserialize)]
struct OpenUpload2 {
    token: String,
    stat: FileStat,
    settled: bool,
    part_size: u64,
    upload_id: Option<String>,
    lost: bool,
}

impl From<OpenUpload2> for OpenUpload {
    fn from(old: OpenUpload2) -> Self {
        let OpenUpload2 { token, stat, settled, part_size, upload_id, lost } = old;
        Self { token, stat, settled, part_size, headers: None, upload_id, lost }
    }
}

/// Writes format 3, in one transaction. `doubt` of a pending record has become `attempted`, which is no other
/// layout; what a run that was cut off had still to send counts as attempted.
pub(crate) fn run(store: &RedbStore) -> Result<(), StorageError> {
    let interrupted = store.meta(META_SENDING)?.as_deref() == Some(&[1]);
    let mut rows = Vec::new();
    each(store, UPLOADS, |key, bytes| {
        let uploads: Vec<OpenUpload2> = store.decoded(&key, &bytes)?;
        let uploads: Vec<OpenUpload> = uploads.into_iter().map(Into::into).collect();
        rows.push((UPLOADS, key.clone(), store.encoded(&key, encode(&key, &uploads))?));
        Ok(())
    })?;
    each(store, PENDING, |key, bytes| {
        let pending: Pending = store.decoded(&key, &bytes)?;
        if interrupted && !pending.attempted {
            let pending = Pending { attempted: true, ..pending };
            rows.push((PENDING, key.clone(), store.encoded(&key, encode(&key, &pending))?));
        }
        Ok(())
    })?;
    rows.push((META, META_FORMAT.to_owned(), vec![FORMAT]));
    store.put_raw(&rows)
}

fn each(
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
