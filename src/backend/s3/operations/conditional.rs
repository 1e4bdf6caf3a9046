//! The conditions of writes and deletes: their headers, and a look at the object after one failed.
//!
//! The status of a failed condition does not say what is there. A store may have executed an earlier try whose response
//! was lost, and stores answer 412 or 404 to `If-Match` where there is no object. A HEAD decides.

use http::HeaderMap;

use crate::backend::Condition;
use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::set_header;
use crate::backend::s3::operations::head_object::find_object;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;

/// The object under a key after the condition of a write failed.
pub(crate) enum Found<T> {
    /// It is the one that was to be written: an earlier try stored it.
    Ours(T),
    /// It is another one, with this `ETag` if it has one.
    Other(Option<String>),
    Missing,
}

/// Sets the header of a condition, if it has one.
pub(crate) fn set_condition(headers: &mut HeaderMap, condition: &Condition) -> Result<(), StorageError> {
    match condition.quoted_etag() {
        Some(etag) => set_header(headers, "if-match", &etag),
        None if *condition == Condition::Absent => set_header(headers, "if-none-match", "*"),
        None => Ok(()),
    }
}

/// Returns whether an error may mean that the condition failed. Where there is no object to match, some stores answer
/// 404.
pub(crate) fn is_refused(condition: &Condition, error: &StorageError) -> bool {
    let failed = error.kind() == ErrorKind::Conflict;
    match condition {
        Condition::None => false,
        Condition::Absent => failed,
        Condition::Matches(_) => failed || error.code() == Some("NoSuchKey"),
    }
}

/// Sends a write on its condition. If that fails, `find` looks for the object, and where there is none any more, the
/// write is sent once more, on the condition that there is still none.
pub(crate) fn write<T>(
    condition: &Condition,
    key: &RemoteKey,
    mut send: impl FnMut(&Condition) -> Result<T, StorageError>,
    find: impl Fn() -> Result<Found<T>, StorageError>,
) -> Result<T, StorageError> {
    let mut asked = condition;
    loop {
        let refusal = match send(asked) {
            Err(error) if is_refused(asked, &error) => error,
            result => return result,
        };
        match find() {
            Ok(Found::Ours(done)) => return Ok(done),
            Ok(Found::Missing) if matches!(asked, Condition::Matches(_)) => asked = &Condition::Absent,
            Ok(Found::Missing) => return Err(conflict(condition, key, None, &refusal)),
            Ok(Found::Other(etag)) => {
                let now = etag.unwrap_or_else(|| "unknown".to_owned());
                return Err(conflict(condition, key, Some(&now), &refusal));
            }
            Err(error) => return Err(undecided(error, &refusal)),
        }
    }
}

/// Returns success if the object of a refused delete is gone, else the conflict.
pub(crate) fn check_deleted(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    condition: &Condition,
    refusal: &StorageError,
) -> Result<(), StorageError> {
    match find_object(s3, context, key, Operation::Delete) {
        Ok(None) => Ok(()),
        Ok(Some(found)) => {
            let now = found.etag.unwrap_or_else(|| "unknown".to_owned());
            Err(conflict(condition, key, Some(&now), refusal))
        }
        Err(error) => Err(undecided(error, refusal)),
    }
}

/// Returns the error of a failed condition. `now` is the object's `ETag`; `None` if there is no object.
fn conflict(
    condition: &Condition,
    key: &RemoteKey,
    now: Option<&str>,
    refusal: &StorageError,
) -> StorageError {
    let was = match condition {
        Condition::Matches(etag) => etag.as_str(),
        Condition::None | Condition::Absent => "none",
    };
    let now = now.unwrap_or("none");
    let what = format!(
        "somebody else changed the object since it was published: its ETag was {was}, and is {now} now"
    );
    StorageError::new(ErrorKind::Conflict, refusal.operation(), what)
        .with_key(key.as_str())
        .with_code(refusal.code().map(str::to_owned))
        .with_request_id(refusal.request_id().map(str::to_owned))
        .unsettled(refusal.may_have_taken_effect())
}

/// Returns the error of a failed condition where the object cannot be looked at. The request may have taken effect if
/// an earlier try may have.
fn undecided(error: StorageError, refusal: &StorageError) -> StorageError {
    let unsettled = refusal.may_have_taken_effect();
    let error = match error.kind() {
        // Not a permission for the write: without it nobody can say who changed the object.
        ErrorKind::AccessDenied => {
            let what = "somebody else may have changed the object since it was published; \
                        s3:GetObject and s3:ListBucket are needed to look at it";
            StorageError::new(ErrorKind::Conflict, refusal.operation(), what).with_source(error)
        }
        _ => error.with_operation(refusal.operation()),
    };
    error.unsettled(unsettled)
}
