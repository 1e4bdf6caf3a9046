//! Whether a file holds what is published.

use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;
use crate::state::records::Published;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// Whether a file holds what is published, read as it was sent.
pub(crate) fn holds(
    exchange: &RequestContext<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    if source.stat().size != there.stat.size {
        return Ok(false);
    }
    match there.digest.part_size() {
        None => Ok(hash(exchange, source)? == there.digest),
        Some(_) => is_the_same_in_parts(exchange, source, there),
    }
}

/// Whether a file that goes in one request now is what was sent in parts before: the threshold has changed.
pub(crate) fn is_the_same_in_parts(
    exchange: &RequestContext<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    let size = source.stat().size;
    let plan = there.digest.part_size().filter(|_| there.stat.size == size);
    let Some(plan) = plan.and_then(|part_size| PartPlan::exactly(size, part_size)) else {
        return Ok(false);
    };
    let hashes = (1..=plan.count()).filter_map(|number| plan.part(number)).map(|(offset, length)| {
        source.hash_range(offset, length, |count| {
            exchange.trace.bytes_hashed(count);
            exchange.check(Operation::Read)
        })
    });
    let digest = Digest::of_parts(&plan, &hashes.collect::<Result<Vec<_>, _>>()?);
    source.check_unchanged()?;
    Ok(digest == there.digest)
}

/// Returns the plain digest of a file.
pub(crate) fn hash(exchange: &RequestContext<'_>, source: &Source) -> Result<Digest, StorageError> {
    source.hash(|count| {
        exchange.trace.bytes_hashed(count);
        exchange.check(Operation::Read)
    })
}
