//! The first request of a run that has work. It finds what would be wrong with every other request.

use crate::error::{ErrorKind, StorageError};
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::state::cache::CacheManager;

/// The result of the preflight.
pub(crate) enum Preflight {
    /// Endpoint, certificate, credentials, bucket and clock are good.
    Passed,
    /// The same, but these credentials may not list objects.
    Denied,
    /// The backend has no request for this, or the store does not support it.
    Unknown,
    /// The run was stopped before there was an answer.
    Stopped,
    /// The store could not be reached, or is out of order.
    Unreachable(StorageError),
}

/// Sends one small signed request from this thread.
///
/// # Errors
/// Those that every other request would end with, too; and on the first run of a cache, if the credentials may not list
/// what `policy` is about.
pub(crate) fn preflight(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
) -> Result<Preflight, StorageError> {
    let Some(transfers) = context.session.backend.transfers() else { return Ok(Preflight::Unknown) };
    judge(context, cache, policy, transfers.preflight(&context.request_context()))
}

/// Returns what the first request of a run says about all others.
///
/// # Errors
/// As [`preflight`].
pub(crate) fn judge(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    result: Result<(), StorageError>,
) -> Result<Preflight, StorageError> {
    let reached_before = cache.is_surveyed()?;
    let Err(error) = result else { return Ok(Preflight::Passed) };
    let trace = &context.session.trace;
    match error.kind() {
        // Cancelled, or out of time: the dispatcher notices that by itself.
        _ if error.is_not_tried() => Ok(Preflight::Stopped),
        // The host name was never resolved for this cache: a typing error, not an outage.
        _ if error.is_without_address() && !reached_before => {
            let why = format!("{}; check the host name in the endpoint", error.message());
            Err(StorageError::config("endpoint", why).with_source(error))
        }
        kind if kind.is_transient() => {
            trace.warn("the store cannot be reached", &[("error", &error)]);
            Ok(Preflight::Unreachable(error))
        }
        kind if kind.is_fatal_at_first() => Err(error),
        // Without a listing nobody knows that the prefix is empty, or what else is there.
        _ if !reached_before && matches!(policy, FirstRun::Refuse | FirstRun::Mirror) => Err(error),
        kind => {
            // The credentials may not list, which publishing does not need.
            if !reached_before {
                trace.warn("what lies under the prefix cannot be listed", &[("error", &error)]);
            }
            Ok(if kind == ErrorKind::AccessDenied { Preflight::Denied } else { Preflight::Unknown })
        }
    }
}
