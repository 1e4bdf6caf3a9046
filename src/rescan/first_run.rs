//! The survey of a first run: counts the objects that are already under the prefix.

use crate::backend::Transfers;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::report::{RescanReport, UnknownObjects};
use crate::state::cache::CacheManager;

/// Counts the unknown objects under the prefix, with one listing request, once in the life of a cache. The count goes
/// into the report and the log. It is an error only if `policy` says so.
pub(crate) fn survey_prefix(
    transfers: &dyn Transfers,
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    report: &mut RescanReport,
) -> Result<(), StorageError> {
    let unknown = count_unknown(transfers, &context.request_context(), cache)?;
    report.unknown_objects = Some(unknown);
    if unknown.count > 0 {
        refuse_or_warn(context, policy, unknown)?;
    }
    // Durable before the first upload, or the next run would count our own objects as unknown.
    cache.apply(&[CacheManager::survey_mark()])
}

fn refuse_or_warn(context: &Context, policy: FirstRun, unknown: UnknownObjects) -> Result<(), StorageError> {
    let more = if unknown.at_least { "at least " } else { "" };
    let what = format!("{more}{} objects under the prefix were not published by this cache", unknown.count);
    if policy == FirstRun::Refuse {
        let why = format!("{what}, and first_run is Refuse; use another prefix, or Overwrite");
        return Err(StorageError::new(ErrorKind::FirstRunRefused, Operation::Rescan, why));
    }
    context.session.trace.warn(
        &format!("{what}; they are never deleted, but files with the same key overwrite them"),
        &[("destination", &context.session.backend.destination())],
    );
    Ok(())
}

/// Sends one listing request and counts the objects that the cache has no record of.
fn count_unknown(
    transfers: &dyn Transfers,
    request_context: &RequestContext<'_>,
    cache: &CacheManager,
) -> Result<UnknownObjects, StorageError> {
    let page = transfers.list(request_context, None)?;
    let mut count = 0;
    for object in &page.objects {
        count += u64::from(cache.published_record(&object.key)?.is_none());
    }
    Ok(UnknownObjects { count, at_least: page.next.is_some() })
}
