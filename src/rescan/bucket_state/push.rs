//! What a push puts into the bucket: the rows that changed, or all of them.

use std::io::{BufWriter, Write as _};

use crate::error::StorageError;
use crate::rescan::bucket_state::access::StateAccess;
use crate::rescan::bucket_state::pull::scratch_of;
use crate::rescan::bucket_state::segment_objects::{
    FetchedSegment, fetch, new_name, place_bytes, scratch_error, scratch_file, store_file,
};
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::{Changes, MAX_CHANGES, of_segment};
use crate::state::remote::head::{Head, MAX_DELTAS, Segment};
use crate::state::remote::name::SegmentKind;
use crate::state::remote::segment::{Bounds, KeyState, Merged, Row, SegmentError, Writer, Written};
use crate::state::remote::segments::{Change, deltas_to_keep, is_snapshot_due};

/// The longest delta that is made in memory, in bytes before compression.
const IN_MEMORY: u64 = 1024 * 1024;

/// A push that is ready: the change of the head, and the marks in the cache that it covers.
pub(crate) struct Push {
    pub(crate) change: Change,
    pub(crate) changes: Changes,
    /// It has everything that is published.
    pub(crate) is_snapshot: bool,
}

impl Push {
    /// A push without rows.
    pub(crate) fn nothing() -> Self {
        Self { change: Change::None, changes: Changes::new(), is_snapshot: false }
    }
}

/// Makes pushes of one cache.
pub(crate) struct Pusher<'a> {
    pub(crate) access: &'a StateAccess,
    pub(crate) cache: &'a CacheManager,
    /// The head under our claim.
    pub(crate) head: &'a Head,
}

impl Pusher<'_> {
    /// The rows that changed since the last push, or as many of them as a delta may hold. The first `base` deltas of the
    /// head stay.
    pub(crate) fn delta(&self, base: usize) -> Result<Push, StorageError> {
        let (bytes, written, changes) = self.cache.write_delta(Vec::new(), self.head.generation)?;
        self.place_delta(base, bytes, &written, changes)
    }

    /// The last push of a run: a snapshot if one is due, or if `whole` says that the bucket lacks more than what changed.
    pub(crate) fn last(&self, whole: bool) -> Result<Push, StorageError> {
        if whole || self.cache.unpushed().take(MAX_CHANGES).count() == MAX_CHANGES {
            return self.snapshot();
        }
        let (bytes, written, changes) = self.cache.write_delta(Vec::new(), self.head.generation)?;
        if !changes.is_empty() && is_snapshot_due(self.head, written.unpacked) {
            return self.snapshot();
        }
        let lacks_rows = !changes.is_empty();
        let push = self.place_delta(0, bytes, &written, changes)?;
        // Rows that fit in nowhere.
        if lacks_rows && push.change == Change::None { self.snapshot() } else { Ok(push) }
    }

    fn place_delta(
        &self,
        base: usize,
        bytes: Vec<u8>,
        written: &Written,
        changes: Changes,
    ) -> Result<Push, StorageError> {
        let keep = deltas_to_keep(self.head, written.unpacked).max(base);
        if changes.is_empty() || keep >= MAX_DELTAS {
            return Ok(Push::nothing());
        }
        let all = self.head.deltas.len();
        let merged = if keep < all { self.merged(keep, &bytes, written)? } else { None };
        let (keep, delta) = match merged {
            Some(delta) => (keep, delta),
            None if all >= MAX_DELTAS => return Ok(Push::nothing()),
            // There is none to be merged, or one of them is lost: the new one has a place of its own.
            None => {
                let name = new_name(SegmentKind::Delta, self.head.epoch);
                (all, place_bytes(self.access, Some(self.head), name, bytes, written)?)
            }
        };
        Ok(Push { change: Change::Delta { keep, delta }, changes, is_snapshot: false })
    }

    fn snapshot(&self) -> Result<Push, StorageError> {
        let scratch = scratch_of(self.cache);
        let file = scratch_file(&scratch)?;
        let (to, written) = self.cache.write_snapshot(BufWriter::new(file), self.head.generation)?;
        let file = to.into_inner().map_err(|error| scratch_error(&scratch, error.into_error()))?;
        let name = new_name(SegmentKind::Snapshot, self.head.epoch);
        let segment = if written.size <= IN_MEMORY {
            let bytes = std::fs::read(file.path()).map_err(|error| scratch_error(&scratch, error))?;
            // The room that the deltas take in the head becomes free.
            let emptied = Head { snapshot: None, deltas: Vec::new(), ..self.head.clone() };
            place_bytes(self.access, Some(&emptied), name, bytes, &written)?
        } else {
            store_file(self.access, name, &file, &written)?
        };
        Ok(Push { change: Change::Snapshot(segment), changes: Changes::new(), is_snapshot: true })
    }

    /// Merges the head's deltas after the first `keep` and the new one. `None`: one of them is missing.
    fn merged(&self, keep: usize, new: &[u8], written: &Written) -> Result<Option<Segment>, StorageError> {
        let scratch = scratch_of(self.cache);
        let (mut rows, mut unpacked) = (Vec::new(), 0);
        for delta in self.head.deltas.iter().skip(keep) {
            let Some(fetched) = fetch(self.access, &scratch, SegmentKind::Delta, delta)? else {
                return Ok(None);
            };
            unpacked += delta.unpacked();
            rows.push(Box::new(fetched.into_rows()) as Rows);
        }
        let own = FetchedSegment::of_own_delta(new.to_vec(), Bounds::from(written));
        rows.push(Box::new(own.into_rows()));
        let merged = Merged::delta(rows);
        let name = new_name(SegmentKind::Delta, self.head.epoch);
        let kept = Head { deltas: self.head.deltas[..keep].to_vec(), ..self.head.clone() };
        if unpacked + written.unpacked <= IN_MEMORY {
            let (bytes, written) = write_rows(Writer::delta(Vec::new()), merged)?;
            return place_bytes(self.access, Some(&kept), name, bytes, &written).map(Some);
        }
        let file = scratch_file(&scratch)?;
        let (to, written) = write_rows(Writer::delta(BufWriter::new(file)), merged)?;
        let mut file = to.into_inner().map_err(|error| scratch_error(&scratch, error.into_error()))?;
        file.flush().map_err(|error| scratch_error(&scratch, error))?;
        store_file(self.access, name, &file, &written).map(Some)
    }
}

type Rows = Box<dyn Iterator<Item = Result<Row<KeyState>, SegmentError>>>;

fn write_rows<W: std::io::Write>(
    mut writer: Writer<W, KeyState>,
    rows: impl Iterator<Item = Result<Row<KeyState>, SegmentError>>,
) -> Result<(W, Written), StorageError> {
    for row in rows {
        writer.write(&row.map_err(of_segment)?).map_err(of_segment)?;
    }
    writer.finish().map_err(of_segment)
}
