//! The reason why an upload request failed, where a second look finds it.

use crate::backend::s3::S3Backend;
use crate::backend::s3::operations::list_objects;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;

/// Returns the error of a failed PUT, or a more precise one.
///
/// `reread` says whether the source was read again before: once a request. `is_same` reads it and returns whether it
/// still has the digest that the request was signed with.
pub(crate) fn explain_failure(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    attempt: u32,
    error: StorageError,
    reread: &mut bool,
    is_same: impl FnOnce() -> Result<bool, StorageError>,
) -> StorageError {
    // Only after the first try: a store that refuses everything refuses that one.
    if error.is_cut_off() && attempt == 1 {
        return find_general_refusal(s3, context, &error).unwrap_or(error);
    }
    // Reading a large file again takes long: once is enough to tell.
    if error.kind() == ErrorKind::Integrity && !std::mem::replace(reread, true) {
        return check_source(error, is_same);
    }
    error
}

/// Asks the store, with one small request, whether it refuses everything from here.
///
/// A server that closes the connection during a body may have sent a refusal that was lost. If the credentials may not
/// list, that says nothing about the upload.
fn find_general_refusal(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    error: &StorageError,
) -> Option<StorageError> {
    let refusal = list_objects::list_one_object(s3, context).err()?;
    let holds_for_all = matches!(
        refusal.kind(),
        ErrorKind::Credentials | ErrorKind::ClockSkew | ErrorKind::BucketMissing | ErrorKind::Region
    );
    holds_for_all.then(|| refusal.with_operation(error.operation()))
}

/// Reads the source again after the store received other bytes than were hashed. If the source is the same, they were
/// damaged on the way, and a retry may help. Otherwise the file was rewritten.
fn check_source(error: StorageError, is_same: impl FnOnce() -> Result<bool, StorageError>) -> StorageError {
    match is_same() {
        Ok(true) => error.retryable(true),
        Ok(false) => StorageError::new(
            ErrorKind::SourceChanged,
            Operation::Read,
            "the file was rewritten during its upload; the next rescan publishes it",
        )
        .with_source(error),
        Err(unreadable) => unreadable,
    }
}
