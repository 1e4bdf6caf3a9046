//! Compares the content of a file with its published version.

use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;
use crate::state::records::Published;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// Returns true if the file has the published content. It is hashed the way it was sent: whole, or part by part.
pub(crate) fn matches_published(
    request_context: &RequestContext<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    if source.stat().size != there.stat.size {
        return Ok(false);
    }
    match there.digest.part_size() {
        None => Ok(hash_file(request_context, source)? == there.digest),
        Some(_) => matches_published_parts(request_context, source, there),
    }
}

/// Returns true if the published version was a multipart upload and the file still has the same content. The file
/// itself may be due in one request now, if the threshold has changed.
pub(crate) fn matches_published_parts(
    request_context: &RequestContext<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    let size = source.stat().size;
    let plan = there.digest.part_size().filter(|_| there.stat.size == size);
    // Published in one request, or with another size: nothing to compare part by part.
    let Some(plan) = plan.and_then(|part_size| PartPlan::exactly(size, part_size)) else {
        return Ok(false);
    };
    let hashes = (1..=plan.count()).filter_map(|number| plan.part(number)).map(|(offset, length)| {
        source.hash_range(offset, length, |count| {
            request_context.trace.bytes_hashed(count);
            request_context.check(Operation::Read)
        })
    });
    let digest = Digest::of_parts(&plan, &hashes.collect::<Result<Vec<_>, _>>()?);
    // A file that changed while it was read would have a digest of two versions.
    source.check_unchanged()?;
    Ok(digest == there.digest)
}

/// Returns the plain digest of a file.
pub(crate) fn hash_file(
    request_context: &RequestContext<'_>,
    source: &Source,
) -> Result<Digest, StorageError> {
    source.hash(|count| {
        request_context.trace.bytes_hashed(count);
        request_context.check(Operation::Read)
    })
}
