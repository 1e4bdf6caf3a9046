//! The first request of a run that has work. It finds what would be wrong with every other request.

use crate::backend::{FoundState, HEAD_KEY, Transfers};
use crate::error::{ErrorKind, StorageError};
use crate::request_context::RequestContext;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::state::cache::CacheManager;

/// The result of the preflight.
pub(crate) enum Preflight {
    /// Endpoint, certificate, credentials, bucket and clock are good.
    Passed,
    /// The same, but these credentials may neither read nor list objects.
    Denied,
    /// The backend has no request for this, or the store does not support it.
    Unknown,
    /// The run was stopped before there was an answer.
    Stopped,
    /// The store could not be reached, or is out of order.
    Unreachable(StorageError),
}

/// Sends one small signed request from this thread: a GET of the head that a state in the bucket would have.
///
/// # Errors
/// If there is a head, because this run keeps its state elsewhere; and those of [`classify_first_result`].
pub(crate) fn preflight(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
) -> Result<Preflight, StorageError> {
    let Some(transfers) = context.session.backend.transfers() else { return Ok(Preflight::Unknown) };
    let result = look_for_head(transfers, &context.request_context());
    classify_first_result(context, cache, policy, result)
}

/// Passes if there is no head. If the store refuses to say, the small listing decides.
fn look_for_head(transfers: &dyn Transfers, context: &RequestContext<'_>) -> Result<(), StorageError> {
    match transfers.state_objects().find_head(context) {
        Ok(None) => Ok(()),
        Ok(Some(place)) => Err(state_lies_in_bucket(&place)),
        // The permission to list may be there where the one to read is missing.
        Err(error) if is_about_one_request(&error) => transfers.preflight(context),
        Err(error) => Err(error),
    }
}

/// Decides what the result of a run's first request means for the run, whichever request that was.
///
/// # Errors
/// Those that every other request would end with, too; and on the first run of a cache, if the credentials may not list
/// what `policy` is about.
pub(crate) fn classify_first_result(
    context: &Context,
    cache: &CacheManager,
    policy: FirstRun,
    result: Result<(), StorageError>,
) -> Result<Preflight, StorageError> {
    let Err(error) = result else { return Ok(Preflight::Passed) };
    let reached_before = cache.is_surveyed()?;
    let trace = &context.session.trace;
    match error.kind() {
        // Cancelled, or out of time: the dispatcher notices that by itself.
        _ if error.is_not_tried() => Ok(Preflight::Stopped),
        // The host name was never resolved for this cache: a typing error, not an outage.
        _ if error.is_without_address() && !reached_before => Err(wrong_name(&error)),
        kind if kind.is_transient() => {
            trace.warn("the store cannot be reached", &[("error", &error)]);
            Ok(Preflight::Unreachable(error))
        }
        kind if kind.is_fatal_at_first() => Err(error),
        // The credentials may not list, which publishing does not need.
        _ if reached_before => Ok(without_listing(&error)),
        _ => go_on_without_listing(context, policy, error),
    }
}

/// Returns the error of the setting that has a name without an address.
fn wrong_name(error: &StorageError) -> StorageError {
    let what = error.message();
    if error.is_proxy_without_address() {
        let what = what.strip_prefix("proxy ").unwrap_or(what);
        return StorageError::config("proxy", format!("{what}; check the proxy's name"));
    }
    StorageError::config("endpoint", format!("{what}; check the host name in the endpoint"))
}

/// Returns the result of a first run whose prefix cannot be listed.
///
/// # Errors
/// The refusal itself, if `policy` is about what lies under the prefix, or if it is not one of this request alone.
pub(crate) fn go_on_without_listing(
    context: &Context,
    policy: FirstRun,
    refusal: StorageError,
) -> Result<Preflight, StorageError> {
    // Without a listing nobody knows that the prefix is empty, or what else is there.
    if matches!(policy, FirstRun::Refuse | FirstRun::Mirror) || !is_about_one_request(&refusal) {
        return Err(refusal);
    }
    context.session.trace.warn("what lies under the prefix cannot be listed", &[("error", &refusal)]);
    Ok(without_listing(&refusal))
}

fn without_listing(refusal: &StorageError) -> Preflight {
    if refusal.kind() == ErrorKind::AccessDenied { Preflight::Denied } else { Preflight::Unknown }
}

/// Returns whether the store refused this request and may accept others.
fn is_about_one_request(error: &StorageError) -> bool {
    let kind = error.kind();
    !error.is_not_tried() && !kind.is_transient() && !kind.is_fatal_at_first()
}

fn state_lies_in_bucket(place: &FoundState) -> StorageError {
    let (at, value) = match place {
        FoundState::Here => ("in its bucket".to_owned(), "bucket"),
        FoundState::Elsewhere(place) => (format!("at {place}"), place.as_str()),
    };
    let what = format!(
        "the state of this destination lies {at}, and this run keeps it on this machine: set the state to the bucket \
         (RescanConfig::state, --state {value}); if nobody publishes that way any more, delete the object {HEAD_KEY}"
    );
    StorageError::config("state", what)
}
