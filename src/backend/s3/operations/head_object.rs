//! `HeadObject`: shows whose an object is, and what it holds.

use std::io::empty;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::backend::proof::hash_of_key;
use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{PROOF, UPLOAD_TOKEN};
use crate::backend::s3::request::{S3Request, S3Response};
use crate::backend::{Proof, Receipt, StoredChecksum, StoredObject, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// The upload that the object under a key came from.
pub(crate) enum Owner {
    /// The object has the token and the size of our upload.
    Ours(Receipt),
    /// It is another one, with this `ETag`.
    Foreign(Option<String>),
    Missing,
    /// The credentials do not permit the request.
    Unknown(StorageError),
}

/// Returns what a HEAD tells of an object; `None` if there is none. `with_checksum` asks for the checksum that the store
/// keeps, too.
pub(crate) fn head(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    with_checksum: bool,
) -> Result<Option<StoredObject>, StorageError> {
    let mut headers = HeaderMap::new();
    if with_checksum {
        let name = HeaderName::from_static("x-amz-checksum-mode");
        headers.insert(name, HeaderValue::from_static("ENABLED"));
    }
    send_head(s3, context, key, Operation::Head, headers).map_err(|error| error.with_key(key.as_str()))
}

/// Sends a HEAD for the object of an upload. Without permission to list, stores answer 403 for a missing object, too.
pub(crate) fn find_owner(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Owner, StorageError> {
    let found = match find_object(s3, context, &upload.key, Operation::Upload) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Owner::Missing),
        Err(error) if error.kind() == ErrorKind::AccessDenied => return Ok(Owner::Unknown(error)),
        Err(error) => return Err(error),
    };
    // The token is random, so it alone identifies the upload; the size shows that the object is whole.
    let ours = found.upload_token.as_ref() == Some(&upload.token) && found.size == size;
    if !ours {
        return Ok(Owner::Foreign(found.etag));
    }
    Ok(Owner::Ours(Receipt { url: s3.url(upload.key.as_str()), etag: found.etag }))
}

/// Returns what a HEAD tells of an object, on behalf of another operation; `None` if there is none.
pub(crate) fn find_object(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    operation: Operation,
) -> Result<Option<StoredObject>, StorageError> {
    send_head(s3, context, key, operation, HeaderMap::new())
}

fn send_head(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    operation: Operation,
    headers: HeaderMap,
) -> Result<Option<StoredObject>, StorageError> {
    let response = send_plain_head(s3, context, key, operation, headers)?;
    let object = s3.settings.address.prefix.join(key.as_str());
    response.map(|response| read_object(&response, operation, &object)).transpose()
}

/// Sends a HEAD and returns the response; `None` if there is no object.
pub(crate) fn send_plain_head(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    operation: Operation,
    headers: HeaderMap,
) -> Result<Option<S3Response>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let path = s3.object_path(&object);
    let request =
        S3Request { headers, ..S3Request::plain(operation, Method::HEAD, key.as_str(), path, String::new()) };
    let sent = retry::run(&s3.settings.retry, context, operation, |attempt| {
        s3.client.send(context, attempt, &request, &mut empty())
    });
    match sent {
        Ok(response) => Ok(Some(response)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_object(
    response: &S3Response,
    operation: Operation,
    object: &str,
) -> Result<StoredObject, StorageError> {
    let size: u64 =
        response.header("content-length").and_then(|length| length.parse().ok()).ok_or_else(|| {
            let what = "the response to HEAD has no Content-Length";
            StorageError::new(ErrorKind::Protocol, operation, what)
        })?;
    let proof = response.header(PROOF).and_then(Proof::parse);
    let is_as_stored =
        proof.as_ref().is_some_and(|proof| proof.size == size && proof.key == Some(hash_of_key(object)));
    Ok(StoredObject {
        size,
        etag: response.etag(operation)?,
        proof,
        is_as_stored,
        encrypted: is_encrypted(response),
        checksum: read_checksum(response),
        upload_token: response.header(UPLOAD_TOKEN).map(str::to_owned),
    })
}

/// Returns true if the `ETag` need not be an MD5. Encryption with keys of S3 itself (`AES256`) leaves it one.
pub(crate) fn is_encrypted(response: &S3Response) -> bool {
    let by_kms = response.header("x-amz-server-side-encryption").is_some_and(|how| how != "AES256");
    by_kms || response.header("x-amz-server-side-encryption-customer-algorithm").is_some()
}

/// Reads `x-amz-checksum-sha256`. That of a multipart upload ends in `-` and the number of parts.
fn read_checksum(response: &S3Response) -> Option<StoredChecksum> {
    let text = response.header("x-amz-checksum-sha256")?;
    let (encoded, of_parts) = match text.split_once('-') {
        Some((encoded, _)) => (encoded, true),
        None => (text, response.header("x-amz-checksum-type") == Some("COMPOSITE")),
    };
    let sha256 = BASE64_STANDARD.decode(encoded).ok()?.try_into().ok()?;
    Some(if of_parts { StoredChecksum::OfParts(sha256) } else { StoredChecksum::Whole(sha256) })
}

/// Builds a request for the object of a multipart upload.
pub(crate) fn upload_request<'a>(
    s3: &S3Backend,
    method: Method,
    upload: &'a UploadName,
    query: String,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(&upload.key)?;
    Ok(S3Request::plain(Operation::Upload, method, upload.key.as_str(), s3.object_path(&object), query))
}
