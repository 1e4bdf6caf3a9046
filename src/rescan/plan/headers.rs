//! The headers of an object, compared with those that it is due by the settings.

use crate::backend::{DueHeaders, StorageBackend, Transfers, is_weak};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::state::records::{Pending, PendingKind, Published};

/// Returns the headers that the object of a key is due; `None` from a backend that stores none.
pub(crate) fn due_headers(
    backend: &dyn StorageBackend,
    key: &RemoteKey,
) -> Result<Option<DueHeaders>, StorageError> {
    backend.transfers().map(|transfers| transfers.headers_of(key)).transpose()
}

/// Returns true if a published object has other headers than it is due.
pub(crate) fn have_changed(due: Option<DueHeaders>, there: &Published) -> bool {
    due.is_some_and(|due| due.differ_from(there.headers))
}

/// Returns the work for an object that was just taken over, if it is due headers by the settings.
pub(crate) fn headers_to_do(backend: &dyn StorageBackend, key: &str, taken: &Published) -> Option<Pending> {
    let key = RemoteKey::new(key).ok()?;
    let due = due_headers(backend, &key).ok()?;
    let Published { stat, not_racy, digest, .. } = *taken;
    let kind = PendingKind::Headers;
    have_changed(due, taken).then_some(Pending {
        kind,
        stat,
        not_racy,
        digest: Some(digest),
        attempted: false,
    })
}

/// Returns the `ETag` on which an object can be copied in place; `None` if its file has to be sent again.
pub(crate) fn copyable_etag<'a>(transfers: &dyn Transfers, there: &'a Published) -> Option<&'a str> {
    // Without a condition the copy could be one of somebody else's object.
    let etag = there.etag.as_deref().filter(|etag| !is_weak(etag))?;
    (there.known_digest().is_some() && transfers.may_copy(there.stat.size)).then_some(etag)
}
