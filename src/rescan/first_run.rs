//! The survey of a first run: what lies under the prefix already?

use crate::backend::Transfers;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::report::{RescanReport, UnknownObjects};
use crate::state::cache::CacheManager;

/// Asks once in the life of a cache, with one request. What is there is counted and said; it is an error
/// only where `policy` says so.
pub(crate) fn take(
    transfers: &dyn Transfers,
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    report: &mut RescanReport,
) -> Result<(), StorageError> {
    let unknown = count(transfers, &context.exchange(), cache)?;
    report.unknown_objects = Some(unknown);
    if unknown.count > 0 {
        judge(context, policy, unknown)?;
    }
    // Durable before the first upload, or a next run would take our own objects for others'.
    cache.apply(&[CacheManager::surveyed()])
}

fn judge(context: &Context, policy: FirstRun, unknown: UnknownObjects) -> Result<(), StorageError> {
    let more = if unknown.at_least { "at least " } else { "" };
    let what = format!("{more}{} objects under the prefix were not published by this cache", unknown.count);
    if policy == FirstRun::Refuse {
        let why = format!("{what}, and first_run is Refuse; use another prefix, or Overwrite");
        return Err(StorageError::new(ErrorKind::FirstRunRefused, Operation::Rescan, why));
    }
    context.session.trace.warn(
        &format!("{what}; they are never deleted, files of the same key overwrite them"),
        &[("destination", &context.session.backend.destination())],
    );
    Ok(())
}

/// One listing request: how many objects lie under the prefix that the cache does not know.
fn count(
    transfers: &dyn Transfers,
    exchange: &RequestContext<'_>,
    cache: &CacheManager,
) -> Result<UnknownObjects, StorageError> {
    let page = transfers.list(exchange, None)?;
    let mut count = 0;
    for object in &page.objects {
        count += u64::from(cache.published_record(&object.key)?.is_none());
    }
    Ok(UnknownObjects { count, at_least: page.next.is_some() })
}
