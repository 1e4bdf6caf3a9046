//! The rows that a run puts into the bucket: what it is about to do, what it did, and everything that is published.

use std::io::Write as Output;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::state::cache::CacheManager;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::remote::segment::{
    KeyIntent, KeyState, Planned, Row as SegmentRow, SegmentError, Writer, Written,
};
use crate::state::rows::{Marks, Row};
use crate::state::store::{Table, Write};

/// Changes of keys by number, as the cache has marked them.
pub(crate) type Changes = Vec<(String, u64)>;

/// The most changes that one delta takes from the cache. A run with more makes a snapshot in the end.
pub(crate) const MAX_CHANGES: usize = 100_000;

impl CacheManager {
    /// Writes a segment with the keys that are pending, and what is to be done with each. `is_large` tells which files
    /// are sent as multipart uploads.
    pub(crate) fn write_intent<W: Output>(
        &self,
        to: W,
        is_large: impl Fn(u64) -> bool,
    ) -> Result<(W, Written), StorageError> {
        let mut writer = Writer::intent(to);
        for row in self.pending_rows() {
            let Row { key, pending: Some(pending), .. } = row? else { continue };
            let Some(planned) = planned_for(&pending, &is_large) else { continue };
            let before = self.published_record(&key)?.and_then(|there| there.etag);
            let content = KeyIntent { planned, before };
            writer.write(&SegmentRow { key: RemoteKey::new(key)?, content }).map_err(of_segment)?;
        }
        writer.finish().map_err(of_segment)
    }

    /// Writes a delta with the changes that the bucket does not hold yet, and returns them. The head under our claim has
    /// this generation.
    pub(crate) fn write_delta<W: Output>(
        &self,
        to: W,
        generation: u64,
    ) -> Result<(W, Written, Changes), StorageError> {
        let mut writer = Writer::delta(to);
        let changes = self.unpushed().take(MAX_CHANGES).collect::<Result<Changes, _>>()?;
        // Read after the changes: workers go on, and the mark of a change is there as soon as the change is.
        let mut recent = Marks::new(&*self.0.store, Table::Recent);
        for (key, _) in &changes {
            let recent = recent.has(key)?.then_some(generation);
            let content =
                self.published_record(key)?.map_or(KeyState::Removed, |there| state_of(&there, recent));
            writer.write(&SegmentRow { key: RemoteKey::new(key.clone())?, content }).map_err(of_segment)?;
        }
        let (to, written) = writer.finish().map_err(of_segment)?;
        Ok((to, written, changes))
    }

    /// Records that the bucket holds these changes.
    pub(crate) fn record_pushed(&self, changes: Changes) -> Result<(), StorageError> {
        let pushed = changes.into_iter().map(|(key, number)| Write::Pushed(key, number));
        self.apply(&pushed.collect::<Vec<_>>())
    }

    /// Records that the bucket holds every change. Nothing else may write the cache meanwhile.
    pub(crate) fn record_all_pushed(&self) -> Result<(), StorageError> {
        loop {
            let changes = self.unpushed().take(MAX_CHANGES).collect::<Result<Changes, _>>()?;
            if changes.is_empty() {
                return Ok(());
            }
            self.record_pushed(changes)?;
        }
    }

    /// Writes a snapshot with everything that is published. The head under our claim has this generation.
    pub(crate) fn write_snapshot<W: Output>(
        &self,
        to: W,
        generation: u64,
    ) -> Result<(W, Written), StorageError> {
        let mut writer = Writer::snapshot(to);
        for row in self.rows() {
            let Row { key, published: Some(published), recent, .. } = row? else { continue };
            let content = state_of(&published, recent.then_some(generation));
            writer.write(&SegmentRow { key: RemoteKey::new(key)?, content }).map_err(of_segment)?;
        }
        writer.finish().map_err(of_segment)
    }
}

fn planned_for(pending: &Pending, is_large: impl Fn(u64) -> bool) -> Option<Planned> {
    match pending.kind {
        // Headers may have to be changed by sending the file again.
        PendingKind::Added | PendingKind::Modified | PendingKind::Headers if is_large(pending.stat.size) => {
            Some(Planned::Multipart)
        }
        PendingKind::Added | PendingKind::Modified | PendingKind::Headers => Some(Planned::Put),
        PendingKind::Removed => Some(Planned::Delete),
        PendingKind::Unsettled => None,
    }
}

/// The row of a key. `recent`: the generation of the head, if an incomplete run has added the key since.
fn state_of(published: &Published, recent: Option<u64>) -> KeyState {
    KeyState::Published {
        size: published.stat.size,
        digest: published.known_digest(),
        etag: published.etag.clone(),
        recent,
        headers: published.headers,
    }
}

/// The error for a segment that cannot be read or written.
pub(crate) fn of_segment(error: SegmentError) -> StorageError {
    StorageError::new(ErrorKind::StateDamaged, Operation::State, error.to_string()).with_source(error)
}
