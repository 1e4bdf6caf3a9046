//! The survey of a first run: what lies under the prefix already?

use super::cache::CacheManager;
use super::report::{RescanReport, UnknownObjects};
use super::work::Context;
use crate::backend::{Exchange, Transfers};
use crate::config::FirstRun;
use crate::error::{ErrorKind, Operation, StorageError};

/// What came of the survey.
pub(crate) enum Surveyed {
    /// The run may go on.
    Done,
    /// The store cannot be reached.
    Unreachable,
}

/// Asks once in the life of a cache, with one request. What is there is counted and said; it is an error
/// only where `policy` says so.
pub(crate) fn once(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    report: &mut RescanReport,
) -> Result<Surveyed, StorageError> {
    let Some(transfers) = context.reach.backend.transfers() else { return Ok(Surveyed::Done) };
    if cache.is_surveyed()? {
        return Ok(Surveyed::Done);
    }
    match count(transfers, &context.exchange(), cache) {
        Ok(unknown) => report.unknown_objects = Some(unknown),
        Err(error) if error.kind().is_transient() => {
            context.reach.trace.warn("the store cannot be reached", &[("error", &error)]);
            return Ok(Surveyed::Unreachable);
        }
        Err(error) if error.kind() == ErrorKind::AccessDenied && policy != FirstRun::Refuse => {
            context.reach.trace.warn("what lies under the prefix cannot be listed", &[("error", &error)]);
        }
        // The run finds out by itself that it is to stop, and asks again next time.
        Err(error) if error.is_not_tried() => return Ok(Surveyed::Done),
        Err(error) => return Err(error),
    }
    if let Some(unknown) = report.unknown_objects.filter(|unknown| unknown.count > 0) {
        judge(context, policy, unknown)?;
    }
    // Durable before the first upload, or a next run would take our own objects for others'.
    cache.apply(&[CacheManager::surveyed()])?;
    Ok(Surveyed::Done)
}

fn judge(context: &Context, policy: FirstRun, unknown: UnknownObjects) -> Result<(), StorageError> {
    let more = if unknown.at_least { "at least " } else { "" };
    let what = format!("{more}{} objects under the prefix were not published by this cache", unknown.count);
    if policy == FirstRun::Refuse {
        let why = format!("{what}, and first_run is Refuse; use another prefix, or Overwrite");
        return Err(StorageError::new(ErrorKind::FirstRunRefused, Operation::Rescan, why));
    }
    context.reach.trace.warn(
        &format!("{what}; they are never deleted, files of the same key overwrite them"),
        &[("destination", &context.reach.backend.destination())],
    );
    Ok(())
}

/// One listing request: how many objects lie under the prefix that the cache does not know.
fn count(
    transfers: &dyn Transfers,
    exchange: &Exchange<'_>,
    cache: &CacheManager,
) -> Result<UnknownObjects, StorageError> {
    let page = transfers.list(exchange, None)?;
    let mut count = 0;
    for object in &page.objects {
        count += u64::from(cache.published_record(&object.key)?.is_none());
    }
    Ok(UnknownObjects { count, at_least: page.next.is_some() })
}
