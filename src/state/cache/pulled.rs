//! Makes the cache a copy of what the bucket's state says is published. What is known of a file's stat stays where the
//! bucket holds the version that this cache knows; any other file is hashed by the next plan.

use crate::error::StorageError;
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::of_segment;
use crate::state::records::Published;
use crate::state::remote::segment::{KeyState, Row as SegmentRow, SegmentError};
use crate::state::rows::Row;
use crate::state::store::Write;
use crate::tree::diff::merge;
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// Changes written in one transaction.
const WRITES_AT_ONCE: usize = 4096;

type SegmentItem = Result<SegmentRow<KeyState>, SegmentError>;

/// The root that pulled rows belong to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PulledInto {
    pub(crate) root: u32,
    pub(crate) root_device: u64,
}

impl PulledInto {
    /// The record of a key as a row says that it is published.
    fn published(self, content: KeyState) -> Option<Published> {
        match content {
            KeyState::Published { size, digest, etag } => Some(self.record(size, digest, etag)),
            KeyState::Removed | KeyState::Open { .. } => None,
        }
    }

    fn record(self, size: u64, digest: Option<Digest>, etag: Option<String>) -> Published {
        Published {
            stat: FileStat { size, device: self.root_device, ..FileStat::default() },
            not_racy: false,
            digest: digest.unwrap_or(Digest::UNKNOWN),
            whole: None,
            etag,
            root: self.root,
            with_root: true,
        }
    }
}

impl CacheManager {
    /// Applies the rows of newer deltas. Returns the number of keys that changed.
    pub(crate) fn apply_deltas(
        &self,
        rows: impl Iterator<Item = SegmentItem>,
        into: PulledInto,
    ) -> Result<u64, StorageError> {
        let mut writes = Gathered::new(self);
        for row in rows.filter(is_of_object) {
            let SegmentRow { key, content } = row.map_err(of_segment)?;
            let there = self.published_record(key.as_str())?;
            writes.settle(key.into_string(), there, into.published(content))?;
        }
        writes.flush()
    }

    /// Replaces everything that is published by the rows of a snapshot, in key order.
    pub(crate) fn apply_snapshot(
        &self,
        rows: impl Iterator<Item = SegmentItem>,
        into: PulledInto,
    ) -> Result<u64, StorageError> {
        let order = |own: &Result<Row, StorageError>, row: &SegmentItem| match (own, row) {
            (Ok(own), Ok(row)) => own.key.as_str().cmp(row.key.as_str()),
            // An error has no key: it is returned at once.
            (Err(_), _) => std::cmp::Ordering::Less,
            (_, Err(_)) => std::cmp::Ordering::Greater,
        };
        let mut writes = Gathered::new(self);
        for (own, row) in merge(self.rows(), rows.filter(is_of_object), order) {
            let own = own.transpose()?;
            let row = row.transpose().map_err(of_segment)?;
            let key = match (&own, &row) {
                (Some(own), _) => own.key.clone(),
                (None, Some(row)) => row.key.as_str().to_owned(),
                (None, None) => continue,
            };
            let pulled = row.and_then(|row| into.published(row.content));
            let is_marked = own.as_ref().is_some_and(|own| own.recent || own.left);
            let (published, pending) = own.map_or((None, None), |own| (own.published, own.pending));
            // What got no answer stays in doubt here, also if the state says nothing new of it.
            let attempted = pending.as_ref().is_some_and(|pending| pending.attempted);
            let is_same = match (&pulled, &published) {
                (Some(pulled), Some(there)) => is_same_object(pulled, there),
                (None, None) => true,
                _ => false,
            };
            if is_same && (attempted || (pending.is_none() && !is_marked)) {
                continue;
            }
            if pulled.is_none() && published.is_none() {
                writes.push(Write::Settled(key))?;
                continue;
            }
            writes.settle(key, published, pulled)?;
        }
        let changed = writes.flush()?;
        // The bucket holds all of it.
        self.record_all_pushed()?;
        Ok(changed)
    }
}

/// Returns true if a pulled record is of the object that the cache knows.
fn is_same_object(pulled: &Published, there: &Published) -> bool {
    pulled.is_same_object(&Published { whole: None, ..there.clone() })
}

/// Returns false for the row of an open upload.
fn is_of_object(row: &SegmentItem) -> bool {
    !matches!(row, Ok(SegmentRow { content: KeyState::Open { .. }, .. }))
}

/// Gathers writes, and applies them some at a time.
struct Gathered<'a> {
    cache: &'a CacheManager,
    writes: Vec<Write>,
    changed: u64,
}

impl<'a> Gathered<'a> {
    fn new(cache: &'a CacheManager) -> Self {
        Self { cache, writes: Vec::new(), changed: 0 }
    }

    fn settle(
        &mut self,
        key: String,
        there: Option<Published>,
        pulled: Option<Published>,
    ) -> Result<(), StorageError> {
        let write = match (pulled, there) {
            // What is known of the file's stat stays.
            (Some(pulled), Some(there)) if is_same_object(&pulled, &there) => Write::Pulled(key, there),
            (Some(pulled), _) => {
                self.changed += 1;
                Write::Pulled(key, pulled)
            }
            (None, Some(_)) => {
                self.changed += 1;
                Write::PulledRemoved(key)
            }
            (None, None) => return Ok(()),
        };
        self.push(write)
    }

    fn push(&mut self, write: Write) -> Result<(), StorageError> {
        self.writes.push(write);
        if self.writes.len() >= WRITES_AT_ONCE {
            self.cache.apply(&std::mem::take(&mut self.writes))?;
        }
        Ok(())
    }

    fn flush(self) -> Result<u64, StorageError> {
        self.cache.apply(&self.writes)?;
        Ok(self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::cache::copy::HeadCopy;
    use crate::state::records::{Pending, PendingKind};
    use crate::state::remote::segment::{Bounds, Merged, Reader, Written};

    const INTO: PulledInto = PulledInto { root: 0, root_device: 1 };

    fn published(name: u8, stat: bool) -> Published {
        let (mtime, inode) = if stat { (5, 7) } else { (0, 0) };
        Published {
            stat: FileStat { size: 3, mtime, inode, device: 1, ..FileStat::default() },
            not_racy: stat,
            digest: Digest::whole([name; 32]),
            whole: None,
            etag: Some(format!("\"{}\"", hex::encode([name; 16]))),
            root: 0,
            with_root: true,
        }
    }

    /// A cache that is a copy of some head, on which these are published.
    fn copy(folder: &tempfile::TempDir, name: &str, rows: &[(&str, u8)]) -> CacheManager {
        let cache = CacheManager::open(folder.path().join(name)).unwrap();
        let head = HeadCopy { etag: "\"1\"".to_owned(), modified: 1, bytes: vec![1], for_reading: false };
        cache.apply(&[cache.copy_of(&head).unwrap()]).unwrap();
        let rows = rows.iter().map(|(key, name)| Write::Published((*key).to_owned(), published(*name, true)));
        cache.apply(&rows.collect::<Vec<_>>()).unwrap();
        cache
    }

    fn bounds(written: &Written) -> Bounds {
        Bounds { rows: written.rows, unpacked: written.unpacked }
    }

    fn keys(cache: &CacheManager) -> Vec<(String, bool)> {
        let rows = cache.rows().map(Result::unwrap);
        rows.map(|row| (row.key, row.published.is_some_and(|there| there.not_racy))).collect()
    }

    fn marks(cache: &CacheManager) -> Vec<String> {
        cache.unpushed().map(|mark| mark.unwrap().0).collect()
    }

    #[test]
    fn snapshot_keeps_stats_of_equal_versions_and_what_got_no_answer_and_drops_everything_else() {
        let folder = tempfile::tempdir().unwrap();
        let there = copy(&folder, "there", &[("a", 1), ("b", 2), ("d", 4), ("e", 5)]);
        let (bytes, written) = there.write_snapshot(Vec::new()).unwrap();
        // Here a is the same, b another version, c unknown to the bucket, d not here, e and z without an answer, y new.
        let here = copy(&folder, "here", &[("a", 1), ("b", 9), ("c", 3), ("e", 5)]);
        let pending = Pending {
            kind: PendingKind::Added,
            stat: FileStat::default(),
            not_racy: true,
            digest: None,
            attempted: true,
        };
        let new = Pending { attempted: false, ..pending.clone() };
        let keys_here = [("e", &pending), ("y", &new), ("z", &pending)];
        let writes = keys_here.map(|(key, pending)| Write::Pending(key.to_owned(), pending.clone()));
        here.apply(&writes).unwrap();
        let rows = Reader::snapshot(bytes.as_slice(), bounds(&written));
        assert_eq!(here.apply_snapshot(rows, INTO).unwrap(), 3);
        let expected = [("a", true), ("b", false), ("d", false), ("e", true), ("z", false)];
        assert_eq!(keys(&here), expected.map(|(key, stat)| (key.to_owned(), stat)));
        assert_eq!((here.pending_count().unwrap(), marks(&here)), (2, Vec::new()));
        here.apply(&[Write::Pending("y".into(), new)]).unwrap();
        here.drop_pending().unwrap();
        assert_eq!(here.pending_count().unwrap(), 2);
        assert_eq!(here.published_record("b").unwrap(), Some(published(2, false)));
    }

    #[test]
    fn deltas_carry_what_changed_and_marks_end_with_the_push() {
        let folder = tempfile::tempdir().unwrap();
        let there = copy(&folder, "there", &[("a", 1), ("b", 2)]);
        let (first, written, changes) = there.write_delta(Vec::new()).unwrap();
        assert_eq!(changes.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        // b changes again while the first delta is being stored: its mark stays.
        there.apply(&[Write::Deleted("b".into())]).unwrap();
        there.record_pushed(changes).unwrap();
        assert_eq!(marks(&there), ["b"]);
        // The same object with another stat is no change for the bucket.
        let touched =
            Published { stat: FileStat { mtime: 99, ..published(1, true).stat }, ..published(1, true) };
        there.apply(&[Write::Published("a".into(), touched)]).unwrap();
        assert_eq!(marks(&there), ["b"]);
        let (second, after, _) = there.write_delta(Vec::new()).unwrap();
        let here = copy(&folder, "here", &[("a", 1), ("b", 2)]);
        let deltas = vec![
            Reader::delta(first.as_slice(), bounds(&written)),
            Reader::delta(second.as_slice(), bounds(&after)),
        ];
        assert_eq!(here.apply_deltas(Merged::delta(deltas), INTO).unwrap(), 1);
        assert_eq!(keys(&here), [("a".to_owned(), true)]);
    }

    /// A cache of local state marks nothing.
    #[test]
    fn changes_are_marked_only_in_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheManager::open(folder.path().join("cache")).unwrap();
        cache.apply(&[Write::Published("a".into(), published(1, true)), Write::Deleted("b".into())]).unwrap();
        assert!(marks(&cache).is_empty() && cache.head_copy().unwrap().is_none());
    }
}
