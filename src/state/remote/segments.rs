//! The life of segments: when deltas are merged, when a snapshot is due, and what may be deleted.

use crate::state::remote::head::{Head, MAX_DELTAS, MAX_RETIRED, Retired, Segment};
use crate::state::remote::name::SegmentName;

/// Deltas of less than this together do not call for a snapshot, in bytes before compression.
const SMALL: u64 = 256 * 1024;

/// A change of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Change {
    /// No new rows.
    #[default]
    None,
    /// A delta that follows the first `keep` of the head's. It has their successors' rows as well as the new ones.
    Delta { keep: usize, delta: Segment },
    /// A snapshot with every row, in place of the old one and of all deltas.
    Snapshot(Segment),
}

/// Returns how many deltas stay in front of a new one of so many bytes before compression; it is to take in the
/// rows of the others.
///
/// Neighbours that are no larger than the new one are merged into it, as in a binary counter: each row is written
/// again only as often as the number of rows doubles, and there are never many deltas.
pub(crate) fn deltas_to_keep(head: &Head, unpacked: u64) -> usize {
    let mut sum = unpacked;
    let mut keep = head.deltas.len();
    for delta in head.deltas.iter().rev() {
        if keep < MAX_DELTAS && delta.unpacked() > sum {
            break;
        }
        sum = sum.saturating_add(delta.unpacked());
        keep -= 1;
    }
    keep
}

/// Returns true if a snapshot is to replace the deltas: with a new one of so many bytes before compression they are
/// more than half as large as the snapshot, or no longer small.
pub(crate) fn is_snapshot_due(head: &Head, unpacked: u64) -> bool {
    let deltas = head.deltas.iter().fold(unpacked, |sum, delta| sum.saturating_add(delta.unpacked()));
    let snapshot = head.snapshot.as_ref().map_or(0, Segment::unpacked);
    deltas > SMALL.max(snapshot / 2)
}

/// Returns the segments that may be deleted under a claim of this head's epoch: those that were not referenced at
/// any time in this epoch, so that neither this head nor the one before it needs them. [`Head::retired`] forgets
/// them with the next update that names them.
pub(crate) fn collectable(head: &Head) -> Vec<SegmentName> {
    let old = head.retired.iter().filter(|retired| retired.epoch < head.epoch);
    old.map(|retired| retired.name).collect()
}

/// Returns those of the listed segments that may be deleted under a claim of this head's epoch, the ones that no
/// head ever referenced included. What this epoch made or retired stays.
pub(crate) fn strays(head: &Head, listed: impl IntoIterator<Item = SegmentName>) -> Vec<SegmentName> {
    let mut kept: Vec<_> = head.names().collect();
    kept.extend(
        head.retired.iter().filter(|retired| retired.epoch >= head.epoch).map(|retired| retired.name),
    );
    kept.sort_unstable();
    let listed = listed.into_iter();
    listed.filter(|name| name.epoch < head.epoch && kept.binary_search(name).is_err()).collect()
}

/// Notes which segments of the head before are not referenced any more, and forgets those that were deleted.
pub(super) fn retire(before: &Head, after: &mut Head, deleted: &[SegmentName]) {
    let mut kept: Vec<_> = after.names().collect();
    kept.sort_unstable();
    // A deleted name is forgotten only if it was one that could be: what is referenced is never deleted.
    let may_go = collectable(before);
    after.retired.retain(|retired| !(deleted.contains(&retired.name) && may_go.contains(&retired.name)));
    let gone = before.names().filter(|name| kept.binary_search(name).is_err());
    let epoch = after.epoch;
    after.retired.extend(gone.map(|name| Retired { name, epoch }));
    // Those that no longer fit in are found by listing.
    let surplus = after.retired.len().saturating_sub(MAX_RETIRED);
    after.retired.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::remote::head::{Inline, Target};

    fn head(snapshot: Option<u64>, deltas: &[u64]) -> Head {
        let segment = |unpacked: u64| Segment::Inline(Inline { rows: 1, unpacked, bytes: vec![1] });
        let mut head = Head::empty(Target { bucket: "b".to_owned(), prefix: String::new() }, None);
        head.snapshot = snapshot.map(segment);
        head.deltas = deltas.iter().copied().map(segment).collect();
        head
    }

    #[test]
    fn like_sized_deltas_are_merged() {
        // The deltas, the new one, the number that stays.
        let cases: [(&[u64], u64, usize); 8] = [
            (&[], 5, 0),
            (&[5], 5, 0),
            (&[6], 5, 1),
            (&[100, 10, 5], 5, 1),
            (&[100, 10, 6], 5, 3),
            (&[16, 8, 4, 2, 1], 1, 0),
            (&[1000, 8, 4], 2, 3),
            (&[1, 1, 1], 1_000_000, 0),
        ];
        for (deltas, new, keep) in cases {
            assert_eq!(deltas_to_keep(&head(None, deltas), new), keep, "{deltas:?} {new}");
        }
        let shrinking: Vec<u64> = (0..16).map(|at| 1 << (40 - at)).collect();
        assert_eq!(deltas_to_keep(&head(None, &shrinking), 1), 15);
    }

    #[test]
    fn r9_a_thousand_checkpoints_leave_few_deltas_and_write_each_row_a_few_times() {
        for sizes in [[1, 1, 1], [1, 1000, 1], [500, 20, 3]] {
            let (mut deltas, mut written, mut new) = (Vec::new(), 0, 0);
            for size in sizes.iter().cycle().take(1000) {
                let keep = deltas_to_keep(&head(None, &deltas), *size);
                let merged = deltas.drain(keep..).sum::<u64>() + size;
                deltas.push(merged);
                (written, new) = (written + merged, new + size);
                assert!(deltas.len() <= MAX_DELTAS);
            }
            assert!(written <= new * 11, "{sizes:?}: {written} for {new}");
        }
    }

    #[test]
    fn a_snapshot_is_due_when_deltas_are_large_beside_it() {
        // The snapshot, the deltas, the new one.
        let cases: [(Option<u64>, &[u64], u64, bool); 7] = [
            (None, &[], SMALL, false),
            (None, &[], SMALL + 1, true),
            (None, &[SMALL], 1, true),
            (Some(10), &[SMALL / 2], SMALL / 2, false),
            (Some(10 * SMALL), &[SMALL], 4 * SMALL, false),
            (Some(10 * SMALL), &[SMALL], 4 * SMALL + 1, true),
            (Some(10), &[u64::MAX], u64::MAX, true),
        ];
        for (snapshot, deltas, new, due) in cases {
            assert_eq!(is_snapshot_due(&head(snapshot, deltas), new), due, "{snapshot:?} {deltas:?} {new}");
        }
    }
}
