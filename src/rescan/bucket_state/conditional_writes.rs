//! Writes of objects while other publishers may take over: each has a condition, and asks the guard.

use crate::backend::{Condition, StoredObject, is_weak};
use crate::error::{ErrorKind, StorageError};
use crate::key::RemoteKey;
use crate::request_context::{Fence, RequestContext};
use crate::rescan::bucket_state::settings::OnConflict;
use crate::rescan::bucket_state::shared_writes::SharedWrites;
use crate::rescan::bucket_state::write_guard::{KeyFence, PartFence};
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
    let condition = shared.condition_of(key.as_str(), there.as_ref());
    let mut condition = match condition {
        Condition::None if shared.is_conditional() => asked_condition(context, key)?,
        known => known,
    };
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

/// Sends what changes no object: under the claim, where the state lies in the bucket.
pub(crate) fn write_part<T>(context: &Context, send: impl FnOnce(&RequestContext<'_>) -> T) -> T {
    let fence = context.shared.as_ref().map(|shared| PartFence(&shared.guard));
    let fence = fence.as_ref().map(|fence| fence as &dyn Fence);
    send(&RequestContext { fence, ..context.request_context() })
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
    let overwrites =
        shared.on_conflict == OnConflict::Overwrite || (is_unknown && shared.overwrites_unknown());
    let found = find(context, key)?;
    match found {
        None => Ok(Condition::Absent),
        Some(found) if overwrites || is_late(shared, &found) => {
            found.etag.map(Condition::Matches).ok_or(conflict)
        }
        Some(_) => Err(conflict),
    }
}

/// Returns the condition under which a delete is tried again after its condition failed: a request of a run that ended has
/// landed after we had looked. `None` if the object is somebody else's.
pub(crate) fn after_late_landing(
    shared: &SharedWrites,
    context: &Context,
    key: &RemoteKey,
) -> Result<Option<Condition>, StorageError> {
    let late = find(context, key)?.filter(|found| is_late(shared, found));
    Ok(late.and_then(|found| found.etag).map(Condition::Matches))
}

fn find(context: &Context, key: &RemoteKey) -> Result<Option<StoredObject>, StorageError> {
    let Some(transfers) = context.session.backend.transfers() else { return Ok(None) };
    transfers.head(&context.request_context(), key, false)
}

/// Returns true for an object that a run stored whose claim has ended, and whose requests may still land.
fn is_late(shared: &SharedWrites, found: &StoredObject) -> bool {
    let (Some(claim), Some(proof)) = (shared.claim(), &found.proof) else { return false };
    let is_dead = |run: &str| claim.head().doubt.iter().any(|doubt| doubt.token.to_string() == run);
    found.is_as_stored && is_dead(&proof.run)
}

/// Returns the condition for an object whose ETag is not recorded, or is a weak one.
fn asked_condition(context: &Context, key: &RemoteKey) -> Result<Condition, StorageError> {
    let strong = |etag: &String| !is_weak(etag);
    Ok(match find(context, key)? {
        None => Condition::Absent,
        Some(found) => found.etag.filter(strong).map_or(Condition::None, Condition::Matches),
    })
}
