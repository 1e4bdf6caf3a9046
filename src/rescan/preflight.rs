//! The first request of a run that has work: it tells what would be wrong with all of them.

use crate::error::{ErrorKind, StorageError};
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::first_run;
use crate::rescan::report::RescanReport;
use crate::state::cache::CacheManager;

/// What is known of the store before anything is fed.
pub(crate) enum Preflight {
    /// Endpoint, certificate, credentials, bucket and clock are right.
    Passed,
    /// All of that, but these credentials may not list.
    Denied,
    /// There is no request to ask with, or the store does not know it.
    Unknown,
    /// The store could not be reached, or could not work.
    Unreachable(StorageError),
}

/// Sends one small signed request from this thread; on the first run of a cache also the one that surveys what
/// lies under the prefix.
///
/// # Errors
/// What every other request would end with, too.
pub(crate) fn preflight(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    report: &mut RescanReport,
) -> Result<Preflight, StorageError> {
    let Some(transfers) = context.session.backend.transfers() else { return Ok(Preflight::Unknown) };
    let reached_before = cache.is_surveyed()?;
    let asked = transfers.preflight(&context.exchange());
    let survey_is_due = asked.is_ok() && !reached_before;
    let result =
        if survey_is_due { first_run::take(transfers, context, cache, policy, report) } else { asked };
    let Err(error) = result else { return Ok(Preflight::Passed) };
    let trace = &context.session.trace;
    match error.kind() {
        // The run finds out by itself that it is to stop.
        _ if error.is_not_tried() => Ok(Preflight::Unknown),
        _ if error.is_without_address() && !reached_before => {
            let why = format!("{}: check its name", error.message());
            Err(StorageError::config("endpoint", why).with_source(error))
        }
        kind if kind.is_transient() => {
            trace.warn("the store cannot be reached", &[("error", &error)]);
            Ok(Preflight::Unreachable(error))
        }
        ErrorKind::FirstRunRefused => Err(error),
        kind if kind.is_fatal_at_first() || error.is_about_the_cache() => Err(error),
        _ if !reached_before && policy == FirstRun::Refuse => Err(error),
        kind => {
            if !reached_before {
                trace.warn("what lies under the prefix cannot be listed", &[("error", &error)]);
                cache.apply(&[CacheManager::surveyed()])?;
            }
            let denied = kind == ErrorKind::AccessDenied;
            Ok(if denied { Preflight::Denied } else { Preflight::Unknown })
        }
    }
}
