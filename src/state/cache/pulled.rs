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

/// The root of rows that were pulled without a tree.
pub(crate) const NO_ROOT: u32 = u32::MAX;

/// The root that pulled rows belong to, unless the cache knows another one of the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PulledInto {
    pub(crate) root: u32,
    pub(crate) root_device: u64,
}

impl PulledInto {
    /// What a row says of a key's object, under a head of this generation; none if nothing is published. `there` is the
    /// record that the cache has of the key.
    fn object(self, content: KeyState, there: Option<&Published>, generation: u64) -> Option<PulledObject> {
        let KeyState::Published { size, digest, etag, recent, headers } = content else { return None };
        let record = Published { headers, ..self.record(size, digest, etag, there) };
        // A complete run since then has made it part of its tree.
        Some(PulledObject { record, is_recent: recent == Some(generation) })
    }

    fn record(
        self,
        size: u64,
        digest: Option<Digest>,
        etag: Option<String>,
        there: Option<&Published>,
    ) -> Published {
        // The disk of a file is this machine's own affair, whoever has published a new version of it.
        let own = there.filter(|there| there.root != NO_ROOT);
        let (root, with_root, device) =
            own.map_or((self.root, true, self.root_device), |own| (own.root, own.with_root, own.stat.device));
        Published {
            stat: FileStat { size, device, ..FileStat::default() },
            not_racy: false,
            digest: digest.unwrap_or(Digest::UNKNOWN),
            whole: None,
            etag,
            root,
            with_root,
            headers: None,
        }
    }
}

/// An object as the state in the bucket describes it.
struct PulledObject {
    record: Published,
    /// It is not part of the last complete tree.
    is_recent: bool,
}

impl CacheManager {
    /// Applies the rows of newer deltas of a head of this generation. Returns the number of keys that changed.
    ///
    /// Marks of recent keys stay where no row says otherwise: those of an earlier generation are to be cleared before.
    pub(crate) fn apply_deltas(
        &self,
        rows: impl Iterator<Item = SegmentItem>,
        into: PulledInto,
        generation: u64,
    ) -> Result<u64, StorageError> {
        let mut writes = Gathered::new(self);
        for row in rows.filter(is_of_object) {
            let SegmentRow { key, content } = row.map_err(of_segment)?;
            let there = self.published_record(key.as_str())?;
            let pulled = into.object(content, there.as_ref(), generation);
            writes.settle(key.into_string(), there, pulled)?;
        }
        writes.flush()
    }

    /// Replaces everything that is published by the rows of a snapshot, in key order, of a head of this generation.
    pub(crate) fn apply_snapshot(
        &self,
        rows: impl Iterator<Item = SegmentItem>,
        into: PulledInto,
        generation: u64,
    ) -> Result<u64, StorageError> {
        let order = |own: &Result<Row, StorageError>, row: &SegmentItem| match (own, row) {
            (Ok(own), Ok(row)) => own.key.as_str().cmp(row.key.as_str()),
            // An error has no key: it is returned at once.
            (Err(_), _) => std::cmp::Ordering::Less,
            (_, Err(_)) => std::cmp::Ordering::Greater,
        };
        let mut writes = Gathered::new(self);
        for (own, row) in merge(self.rows(), rows.filter(is_of_object), order) {
            let row = row.transpose().map_err(of_segment)?;
            let own = match (own.transpose()?, &row) {
                (Some(own), _) => own,
                (None, Some(row)) => nothing_of(row.key.as_str()),
                (None, None) => continue,
            };
            let there = own.published.as_ref();
            let pulled = row.and_then(|row| into.object(row.content, there, generation));
            writes.replace(own, pulled)?;
        }
        let changed = writes.flush()?;
        // The bucket holds all of it.
        self.record_all_pushed()?;
        Ok(changed)
    }
}

/// The row of a key that the cache does not know.
fn nothing_of(key: &str) -> Row {
    Row { key: key.to_owned(), published: None, pending: None, recent: false, left: false }
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

    /// Puts what the state says in place of everything that the cache knows of a key.
    fn replace(&mut self, own: Row, pulled: Option<PulledObject>) -> Result<(), StorageError> {
        let Row { key, published, pending, recent, left } = own;
        // What got no answer stays in doubt here, also if the state says nothing new of it.
        let attempted = pending.as_ref().filter(|pending| pending.attempted);
        match (pulled, published) {
            (None, None) if attempted.is_some() => Ok(()),
            (None, None) => self.push([Write::Settled(key)]),
            (Some(pulled), Some(there)) if is_same_object(&pulled.record, &there) => {
                let is_marked_so = recent == pulled.is_recent && there.headers == pulled.record.headers;
                if is_marked_so && (attempted.is_some() || (pending.is_none() && !left)) {
                    return Ok(());
                }
                let Some(pending) = pending.filter(|pending| pending.attempted) else {
                    return self.settle(key, Some(there), Some(pulled));
                };
                // The marks change, the doubt stays.
                let marks = [
                    pulled.is_recent.then(|| Write::Recent(key.clone())),
                    left.then(|| Write::Left(key.clone())),
                ];
                let there = Published { headers: pulled.record.headers, ..there };
                let records = [Write::Pulled(key.clone(), there), Write::Pending(key, pending)];
                self.push(records.into_iter().chain(marks.into_iter().flatten()))
            }
            (pulled, published) => self.settle(key, published, pulled),
        }
    }

    fn settle(
        &mut self,
        key: String,
        there: Option<Published>,
        pulled: Option<PulledObject>,
    ) -> Result<(), StorageError> {
        let Some(PulledObject { record, is_recent }) = pulled else {
            self.changed += u64::from(there.is_some());
            return self.push(there.map(|_| Write::PulledRemoved(key)));
        };
        // What is known of the file's stat stays.
        let there = there.filter(|there| is_same_object(&record, there));
        let there = there.map(|there| Published { headers: record.headers, ..there });
        self.changed += u64::from(there.is_none());
        let mark = is_recent.then(|| Write::Recent(key.clone()));
        self.push([Write::Pulled(key, there.unwrap_or(record))].into_iter().chain(mark))
    }

    /// Adds writes of one key, which are applied together.
    fn push(&mut self, writes: impl IntoIterator<Item = Write>) -> Result<(), StorageError> {
        self.writes.extend(writes);
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
    const GENERATION: u64 = 7;

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
            headers: Some([name; 8]),
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
        let (bytes, written) = there.write_snapshot(Vec::new(), GENERATION).unwrap();
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
        assert_eq!(here.apply_snapshot(rows, INTO, GENERATION).unwrap(), 3);
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
        let (first, written, changes) = there.write_delta(Vec::new(), GENERATION).unwrap();
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
        let (second, after, _) = there.write_delta(Vec::new(), GENERATION).unwrap();
        let here = copy(&folder, "here", &[("a", 1), ("b", 2)]);
        let deltas = vec![
            Reader::delta(first.as_slice(), bounds(&written)),
            Reader::delta(second.as_slice(), bounds(&after)),
        ];
        assert_eq!(here.apply_deltas(Merged::delta(deltas), INTO, GENERATION).unwrap(), 1);
        assert_eq!(keys(&here), [("a".to_owned(), true)]);
    }

    fn recent(cache: &CacheManager) -> Vec<String> {
        cache.rows().map(Result::unwrap).filter(|row| row.recent).map(|row| row.key).collect()
    }

    fn mark_recent(cache: &CacheManager, keys: &[&str]) {
        let marks = keys.iter().map(|key| Write::Recent((*key).to_owned()));
        cache.apply(&marks.collect::<Vec<_>>()).unwrap();
    }

    #[test]
    fn i3_marks_of_recent_keys_are_those_of_the_state_until_a_run_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)];
        let there = copy(&folder, "there", &rows);
        mark_recent(&there, &["b", "d", "e"]);
        let (delta, of_delta, _) = there.write_delta(Vec::new(), GENERATION).unwrap();
        let (snapshot, of_snapshot) = there.write_snapshot(Vec::new(), GENERATION).unwrap();
        for (generation, expected) in [(GENERATION, ["b", "d", "e"].as_slice()), (GENERATION + 1, &[])] {
            for is_whole in [true, false] {
                // Here a, c and d have marks of their own, e is another version, and c and d have got no answer.
                let here = copy(&folder, &format!("here {generation} {is_whole}"), &rows[..4]);
                here.apply(&[Write::Published("e".into(), published(9, true))]).unwrap();
                mark_recent(&here, &["a", "c", "d"]);
                let pending = Pending {
                    kind: PendingKind::Modified,
                    stat: FileStat::default(),
                    not_racy: true,
                    digest: None,
                    attempted: true,
                };
                here.apply(&["c", "d"].map(|key| Write::Pending(key.to_owned(), pending.clone()))).unwrap();
                let changed = if is_whole {
                    let rows = Reader::snapshot(snapshot.as_slice(), bounds(&of_snapshot));
                    here.apply_snapshot(rows, INTO, generation)
                } else {
                    here.apply_deltas(Reader::delta(delta.as_slice(), bounds(&of_delta)), INTO, generation)
                };
                assert_eq!(
                    (
                        changed.unwrap(),
                        recent(&here).iter().map(String::as_str).collect::<Vec<_>>().as_slice()
                    ),
                    (1, expected)
                );
                assert_eq!(keys(&here), rows.map(|(key, _)| (key.to_owned(), key != "e")));
                let in_doubt = if is_whole { 2 } else { 0 };
                assert_eq!(here.pending_count().unwrap(), in_doubt);
            }
        }
    }

    #[test]
    fn a_recent_key_that_changes_again_stays_recent_in_the_next_delta() {
        let folder = tempfile::tempdir().unwrap();
        let there = copy(&folder, "there", &[("a", 1)]);
        there.apply(&[Write::Complete]).unwrap();
        there.apply(&[Write::Published("b".into(), published(2, true))]).unwrap();
        let (.., changes) = there.write_delta(Vec::new(), GENERATION).unwrap();
        there.record_pushed(changes).unwrap();
        there.apply(&["a", "b"].map(|key| Write::Published(key.into(), published(3, true)))).unwrap();
        let (bytes, written, _) = there.write_delta(Vec::new(), GENERATION).unwrap();
        let here = copy(&folder, "here", &[]);
        let rows = Reader::delta(bytes.as_slice(), bounds(&written));
        assert_eq!(here.apply_deltas(rows, INTO, GENERATION).unwrap(), 2);
        assert_eq!(recent(&here), ["b"]);
    }

    /// A version that another machine had published was recorded on the root's own device, whatever disk its file was on:
    /// where that was not mounted any more, the object was deleted.
    #[test]
    fn i3_pulled_version_keeps_the_root_and_the_device_of_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [("disk/a", 1), ("disk/b", 2), ("new", 3), ("unknown", 4)];
        let there = copy(&folder, "there", &rows);
        let (delta, of_delta, _) = there.write_delta(Vec::new(), GENERATION).unwrap();
        let (snapshot, of_snapshot) = there.write_snapshot(Vec::new(), GENERATION).unwrap();
        for is_whole in [true, false] {
            let here = copy(&folder, &format!("here {is_whole}"), &[]);
            // The other version, the same one, and another one that was pulled without a tree.
            for (key, name, root, device) in
                [("disk/a", 9, 3, 55), ("disk/b", 2, 3, 55), ("unknown", 9, NO_ROOT, 0)]
            {
                let there = published(name, true);
                let stat = FileStat { device, ..there.stat };
                let record = Published { stat, root, with_root: false, ..there };
                here.apply(&[Write::Published(key.to_owned(), record)]).unwrap();
            }
            let changed = if is_whole {
                let rows = Reader::snapshot(snapshot.as_slice(), bounds(&of_snapshot));
                here.apply_snapshot(rows, INTO, GENERATION)
            } else {
                here.apply_deltas(Reader::delta(delta.as_slice(), bounds(&of_delta)), INTO, GENERATION)
            };
            assert_eq!(changed.unwrap(), 3);
            for (key, name, expected) in [
                ("disk/a", 1, (3, false, 55)),
                ("disk/b", 2, (3, false, 55)),
                ("new", 3, (0, true, 1)),
                ("unknown", 4, (0, true, 1)),
            ] {
                let record = here.published_record(key).unwrap().unwrap();
                assert_eq!((record.root, record.with_root, record.stat.device), expected, "{key}");
                let stat = FileStat { device: expected.2, ..published(name, key == "disk/b").stat };
                assert_eq!((record.stat, record.digest), (stat, Digest::whole([name; 32])), "{key}");
            }
        }
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
