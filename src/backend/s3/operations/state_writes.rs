//! `PutObject` on the objects of the state.

use std::io::Read;

use http::Method;
use sha2::{Digest as _, Sha256};

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{add_checksum, state_headers};
use crate::backend::s3::operations::conditional::{is_refused, set_condition};
use crate::backend::s3::operations::state_reads::strong_etag;
use crate::backend::s3::request::S3Request;
use crate::backend::{Condition, PutSmall, SmallObject, WRITES_RACED};
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::Digest;
use crate::tree::source::Source;

/// The type of the state's objects that are no JSON.
const BINARY: &str = "application/octet-stream";

/// Stores a small object on its condition. The same bytes and the same condition are sent again after a try that had no
/// answer, or that raced another write.
pub(crate) fn put_small(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &SmallObject<'_>,
) -> Result<PutSmall, StorageError> {
    let SmallObject { key, bytes, content_type, condition } = *object;
    let sha256: [u8; 32] = Sha256::digest(bytes).into();
    let payload = hex::encode(sha256);
    let put = Put { key, payload: &payload, length: bytes.len() as u64, content_type, condition };
    let mut unanswered = false;
    let sent = send(s3, context, &put, &sha256, |error| unanswered |= is_unanswered(error), || bytes);
    match sent {
        Ok(etag) => Ok(PutSmall::Stored { etag, unanswered }),
        Err(error) if is_refused(condition, &error) => Ok(PutSmall::Refused { unanswered }),
        Err(error) => Err(error),
    }
}

/// Returns whether the store may have stored the object in spite of the error of this try.
fn is_unanswered(error: &StorageError) -> bool {
    error.may_have_taken_effect() && error.code() != Some(WRITES_RACED)
}

/// Stores a file, streamed from disk.
pub(crate) fn put_file(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    source: &Source,
    digest: &Digest,
) -> Result<String, StorageError> {
    let (payload, condition) = (digest.to_hex(), &Condition::None);
    let put = Put { key, payload: &payload, length: source.stat().size, content_type: BINARY, condition };
    send(s3, context, &put, digest.as_bytes(), |_| (), || source.reader(s3.settings.chunk_size))
}

/// A `PutObject` of the state.
struct Put<'a> {
    key: &'a RemoteKey,
    /// The SHA-256 of the body in hexadecimal.
    payload: &'a str,
    length: u64,
    content_type: &'a str,
    condition: &'a Condition,
}

/// Sends a PUT, with retries. `failed` sees the error of each try, `body` yields the bytes anew. Returns the `ETag`.
fn send<R: Read>(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    put: &Put<'_>,
    sha256: &[u8; 32],
    mut failed: impl FnMut(&StorageError),
    body: impl Fn() -> R,
) -> Result<String, StorageError> {
    let object = s3.settings.address.prefix.join_checked(put.key)?;
    let (key, path) = (put.key.as_str(), s3.object_path(&object));
    let mut headers = state_headers(s3, put.content_type)?;
    add_checksum(s3, &mut headers, sha256)?;
    set_condition(&mut headers, put.condition)?;
    let request = S3Request {
        headers,
        payload: put.payload,
        length: put.length,
        ..S3Request::plain(Operation::Upload, Method::PUT, key, path, String::new())
    };
    let stored = retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
        let response = s3.client.send(context, attempt, &request, &mut body());
        response.and_then(|response| strong_etag(&response, Operation::Upload)).inspect_err(&mut failed)
    });
    stored.map_err(|error| error.with_key(key))
}
