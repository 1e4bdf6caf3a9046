//! The changes of the cache, written into the tables of redb.

use std::io;

use redb::ReadableTable;

use crate::state::records::{OpenUpload, Published, UploadStep, after, decode, encode};
use crate::state::store::{META_COMPLETE, Write};

const NOTHING: &[u8] = &[];

/// The tables of one write transaction.
pub(crate) struct Tables<'t> {
    pub(crate) published: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) pending: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) uploads: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) parts: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) meta: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) recent: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) left: redb::Table<'t, &'static str, &'static [u8]>,
    pub(crate) unpushed: redb::Table<'t, &'static str, &'static [u8]>,
    /// The number of this change, if the state lies in the bucket.
    pub(crate) change: Option<[u8; 8]>,
    /// A run was complete before: only then is a new key more than the last complete tree.
    pub(crate) after_a_complete_run: bool,
}

impl Tables<'_> {
    pub(crate) fn apply(&mut self, write: &Write) -> Result<(), redb::Error> {
        match write {
            Write::Published(key, record) => {
                // New since the last complete run: it does not count when deletes are judged.
                if self.after_a_complete_run && self.published.get(key.as_str())?.is_none() {
                    self.recent.insert(key.as_str(), NOTHING)?;
                }
                if self.change.is_some() && !self.is_published_so(key, record)? {
                    self.mark_unpushed(key)?;
                }
                put(&mut self.published, key, record)?;
                self.pending.remove(key.as_str())?;
            }
            Write::Pending(key, record) => put(&mut self.pending, key, record)?,
            Write::Settled(key) => drop(self.pending.remove(key.as_str())?),
            Write::Deleted(key) => {
                self.published.remove(key.as_str())?;
                self.pending.remove(key.as_str())?;
                self.recent.remove(key.as_str())?;
                self.left.remove(key.as_str())?;
                self.mark_unpushed(key)?;
            }
            Write::Pulled(key, record) => {
                put(&mut self.published, key, record)?;
                self.forget_changes(key)?;
            }
            Write::PulledRemoved(key) => {
                self.published.remove(key.as_str())?;
                self.forget_changes(key)?;
            }
            Write::Pushed(key, number) => self.end_push(key, *number)?,
            Write::Recent(key) => drop(self.recent.insert(key.as_str(), NOTHING)?),
            Write::Left(key) => drop(self.left.insert(key.as_str(), NOTHING)?),
            Write::Returned(key) => drop(self.left.remove(key.as_str())?),
            Write::Complete => {
                self.recent.retain(|_, _| false)?;
                self.meta.insert(META_COMPLETE, [1].as_slice())?;
            }
            Write::Upload(key, step) => self.apply_step(key, step)?,
            Write::Meta(name, value) => drop(self.meta.insert(*name, value.as_slice())?),
        }
        Ok(())
    }

    /// Returns true if the published version of a key is this one, with the same headers, whatever its file's stat.
    fn is_published_so(&self, key: &str, record: &Published) -> Result<bool, redb::Error> {
        let before = self.published.get(key)?.and_then(|bytes| decode::<Published>(key, bytes.value()));
        Ok(before.is_some_and(|before| before.is_same_object(record) && before.headers == record.headers))
    }

    fn mark_unpushed(&mut self, key: &str) -> Result<(), redb::Error> {
        if let Some(change) = self.change {
            self.unpushed.insert(key, change.as_slice())?;
        }
        Ok(())
    }

    /// Drops what was known of a key besides its published version.
    fn forget_changes(&mut self, key: &str) -> Result<(), redb::Error> {
        for table in [&mut self.pending, &mut self.recent, &mut self.left, &mut self.unpushed] {
            table.remove(key)?;
        }
        Ok(())
    }

    /// Removes the mark of a key, unless the key has changed again.
    fn end_push(&mut self, key: &str, number: u64) -> Result<(), redb::Error> {
        let is_last = self.unpushed.get(key)?.is_some_and(|mark| mark.value() == number.to_le_bytes());
        if is_last {
            self.unpushed.remove(key)?;
        }
        Ok(())
    }

    fn apply_step(&mut self, key: &str, step: &UploadStep) -> Result<(), redb::Error> {
        match step {
            UploadStep::Part(token, number, part) => {
                return put(&mut self.parts, &part_key(token, *number), &(*number, part));
            }
            // The parts of an upload that is over are of no use to any other.
            UploadStep::Closed(token) | UploadStep::Forgotten(token) => {
                let (first, end) = parts_of(token);
                self.parts.retain_in(first.as_str()..end.as_str(), |_, _| false)?;
            }
            UploadStep::Intended(_) | UploadStep::Begun { .. } => {}
        }
        let stored = self.uploads.get(key)?.map(|value| value.value().to_vec());
        // A damaged list is replaced: the step is all that is known for certain.
        let uploads: Vec<OpenUpload> = stored.and_then(|bytes| decode(key, &bytes)).unwrap_or_default();
        let uploads = after(uploads, step);
        if uploads.is_empty() {
            return self.uploads.remove(key).map(drop).map_err(Into::into);
        }
        put(&mut self.uploads, key, &uploads)
    }
}

/// The key of a part's record. The parts of an upload are neighbours, in order of their numbers.
pub(crate) fn part_key(token: &str, number: u32) -> String {
    format!("{token}/{number:05}")
}

/// The range of keys of an upload's parts: the first key, and the end after the last one.
pub(crate) fn parts_of(token: &str) -> (String, String) {
    // '0' is the byte after '/'.
    (format!("{token}/"), format!("{token}0"))
}

/// Encodes and writes a record.
fn put<T: serde::Serialize>(
    table: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    record: &T,
) -> Result<(), redb::Error> {
    let bytes = encode(key, record).map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    table.insert(key, bytes.as_slice())?;
    Ok(())
}
