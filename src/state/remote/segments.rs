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
