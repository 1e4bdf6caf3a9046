//! Writes of objects while other publishers may take over: each has a condition, and asks the guard.

use crate::backend::Condition;
use crate::error::{ErrorKind, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::settings::OnConflict;
use crate::rescan::bucket_state::shared_writes::SharedWrites;
use crate::rescan::bucket_state::write_guard::KeyFence;
use crate::rescan::context::Context;
use crate::state::records::Published;

/// The tries of a write whose condition fails.
const TRIES: usize = 3;

/// Sends a write of one key: on its condition and under the claim, where the state lies in the bucket.
pub(crate) fn write_key<T>(
    context: &Context,
    key: &RemoteKey,
    published: impl FnOnce() -> Result<Option<Published>, StorageError>,
    mut send: impl FnMut(&RequestContext<'_>, &Condition) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let Some(shared) = &context.shared else {
        return send(&context.request_context(), &Condition::None);
    };
    let keys = [key.as_str()];
    let fence = KeyFence { guard: &shared.guard, keys: &keys };
    let request_context = RequestContext { fence: Some(&fence), ..context.request_context() };
    let there = published()?;
    let mut condition = shared.condition_of(key.as_str(), there.as_ref());
    let mut tries = 1;
    loop {
        match send(&request_context, &condition) {
            Err(error) if error.kind() == ErrorKind::Conflict && tries < TRIES => {
                condition = after_conflict(shared, context, key, there.is_none(), error)?;
                tries += 1;
            }
            result => return result.inspect(|_| shared.guard.note_write()),
        }
    }
}

/// Decides what follows a failed condition: the next one to try, or the conflict.
fn after_conflict(
    shared: &SharedWrites,
    context: &Context,
    key: &RemoteKey,
    is_unknown: bool,
    conflict: StorageError,
) -> Result<Condition, StorageError> {
    shared.check_still_ours(conflict.operation())?;
    let (Some(claim), Some(transfers)) = (shared.claim(), context.session.backend.transfers()) else {
        return Err(conflict);
    };
    let Some(found) = transfers.head(&context.request_context(), key, false)? else {
        return Ok(Condition::Absent);
    };
    let head = claim.head();
    let is_dead = |run: &str| head.doubt.iter().any(|doubt| doubt.token.to_string() == run);
    // A request of a run that ended landed after we had looked.
    let late = found.is_as_stored && found.proof.as_ref().is_some_and(|proof| is_dead(&proof.run));
    let overwrites =
        shared.on_conflict == OnConflict::Overwrite || (is_unknown && shared.overwrites_unknown());
    match found.etag {
        Some(etag) if late || overwrites => Ok(Condition::Matches(etag)),
        _ => Err(conflict),
    }
}
