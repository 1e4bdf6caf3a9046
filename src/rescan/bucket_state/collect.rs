//! Deletes segments that no head needs any more (R9). Failures cost nothing: what is left is found by a later listing.

use crate::backend::STATE_FOLDER;
use crate::error::StorageError;
use crate::rescan::bucket_state::access::StateAccess;
use crate::rescan::bucket_state::segment_objects;
use crate::state::remote::head::Head;
use crate::state::remote::name::SegmentName;
use crate::state::remote::segments::{collectable, strays};

/// The most segments that one run deletes.
const MOST: usize = 1000;

/// Deletes what neither this head, which has our claim, nor the one before needs; after a snapshot also what no head
/// ever referenced. Returns the names that are gone.
pub(crate) fn collect(access: &StateAccess, head: &Head, after_snapshot: bool) -> Vec<SegmentName> {
    let mut names = collectable(head);
    if after_snapshot {
        match listed(access) {
            Ok(listed) => names.extend(strays(head, listed)),
            Err(error) => access.trace.log(
                log::Level::Debug,
                "old segments of the state cannot be listed",
                &[("error", &error)],
            ),
        }
    }
    names.sort_unstable();
    names.dedup();
    names.truncate(MOST);
    names.retain(|name| match segment_objects::delete(access, *name) {
        Ok(()) => true,
        Err(error) => {
            access.trace.log(
                log::Level::Debug,
                "an old segment of the state cannot be deleted",
                &[("error", &error)],
            );
            false
        }
    });
    names
}

/// Returns the names of all segments in the bucket.
pub(crate) fn listed(access: &StateAccess) -> Result<Vec<SegmentName>, StorageError> {
    let (mut names, mut from) = (Vec::new(), None);
    // A listing without an end is cut off: what is left is found by the next one.
    for _ in 0..MOST {
        let page = access.objects()?.list_keys(&access.context(), STATE_FOLDER, from.as_deref())?;
        let found = page.objects.iter().filter_map(|object| object.key.strip_prefix(STATE_FOLDER));
        names.extend(found.filter_map(SegmentName::parse));
        match page.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    Ok(names)
}
