//! Gives a published object the headers that it is due, without its content being sent.

use crate::backend::{Copied, HeaderCopy};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::rescan::bucket_state::conditional_writes::write_key;
use crate::rescan::context::Context;
use crate::rescan::plan::headers::copyable_etag;
use crate::state::records::Published;

/// Copies the object of a published version onto itself. Any result but [`Copied::Done`] means that its file has to be
/// sent.
pub(crate) fn update_headers(
    context: &Context,
    key: &RemoteKey,
    there: &Published,
) -> Result<Copied, StorageError> {
    let transfers = context.session.backend.transfers();
    let Some((transfers, etag)) =
        transfers.and_then(|transfers| Some((transfers, copyable_etag(transfers, there)?)))
    else {
        return Ok(Copied::Refused);
    };
    let (size, run) = (there.stat.size, context.token.as_str());
    let object = HeaderCopy { key, digest: &there.digest, size, etag, run };
    // The copy has a condition of its own, whether or not the store keeps those of other writes.
    let known = || Ok(Some(there.clone()));
    write_key(context, key, known, |request_context, _| transfers.copy_in_place(request_context, &object))
}
