//! Sending a file in one request.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest as _, Sha256};

use crate::backend::s3::S3Backend;
use crate::backend::s3::content_type::content_type;
use crate::backend::s3::operations::list_objects;
use crate::backend::s3::request::{Answer, S3Request};
use crate::backend::{Receipt, Upload};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// Stores a file with one PUT, streamed from disk, repeated where that may help.
pub(crate) fn put(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let length = file.source.stat().size;
    let object = s3.settings.address.prefix.join_checked(file.key)?;
    let payload = file.digest.to_hex();
    let key = file.key.as_str();
    let mut headers = object_headers(s3, file.key)?;
    add_checksum(s3, &mut headers, file.digest.as_bytes())?;
    let ask = S3Request {
        headers,
        payload: &payload,
        length,
        ..S3Request::plain(Operation::Upload, Method::PUT, key, s3.object_path(&object), String::new())
    };
    let mut reread = false;
    s3.watched(exchange, Operation::Upload, key, length, |attempts| {
        retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
            *attempts = attempt;
            let answer = send(s3, exchange, attempt, &ask, file).map_err(|error| {
                let same = || Ok(file.source.hash(|_| Ok(()))? == *file.digest);
                explained(s3, exchange, attempt, error, &mut reread, same)
            })?;
            let etag = answer.etag(Operation::Upload).map_err(|error| error.with_key(key))?;
            Ok((Receipt { url: s3.url(key), etag }, answer.request_id()))
        })
    })
}

fn send(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    attempt: u32,
    ask: &S3Request<'_>,
    file: &Upload<'_>,
) -> Result<Answer, StorageError> {
    if ask.length == 0 {
        file.source.check_unchanged()?;
    }
    let mut body = file.source.reader(s3.settings.chunk_size);
    s3.client.exchange(exchange, attempt, ask, &mut body)
}

/// What is behind the failure of a body, where that can be found out.
pub(crate) fn explained(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    attempt: u32,
    error: StorageError,
    reread: &mut bool,
    same: impl FnOnce() -> Result<bool, StorageError>,
) -> StorageError {
    if error.is_cut_off() && attempt == 1 {
        return refused_altogether(s3, exchange, &error).unwrap_or(error);
    }
    if error.kind() == ErrorKind::Integrity && !std::mem::replace(reread, true) {
        return second_opinion(error, same);
    }
    error
}

/// The server hung up on a body, and its answer was lost: one small request finds out whether it refuses
/// whatever comes from here. Where that may not be asked, nothing is known.
fn refused_altogether(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    error: &StorageError,
) -> Option<StorageError> {
    let refused = list_objects::ask_for_one(s3, exchange).err()?;
    let altogether = matches!(
        refused.kind(),
        ErrorKind::Credentials | ErrorKind::ClockSkew | ErrorKind::BucketMissing | ErrorKind::Region
    );
    altogether.then(|| refused.with_operation(error.operation()))
}

/// The store received other bytes than were hashed: the file was rewritten meanwhile (a second reading
/// is not the `same`), or the bytes were damaged on their way, which is worth one more try.
fn second_opinion(error: StorageError, same: impl FnOnce() -> Result<bool, StorageError>) -> StorageError {
    match same() {
        Ok(true) => error.retryable(true),
        Ok(false) => StorageError::new(
            ErrorKind::SourceChanged,
            Operation::Read,
            "it was rewritten while it was being published; the next rescan publishes it",
        )
        .with_source(error),
        Err(unreadable) => unreadable,
    }
}

/// What is stored with an object besides its bytes.
pub(crate) fn object_headers(s3: &S3Backend, key: &RemoteKey) -> Result<HeaderMap, StorageError> {
    let mut headers = s3.settings.headers.clone();
    if !headers.contains_key(CONTENT_TYPE) {
        set(&mut headers, "content-type", &content_type(key.as_str()))?;
    }
    Ok(headers)
}

/// Names what [`object_headers`] gives, and whether checksums go with it.
pub(crate) fn headers_digest(s3: &S3Backend, key: &RemoteKey) -> Result<[u8; 32], StorageError> {
    let headers = object_headers(s3, key)?;
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat())
        .collect();
    lines.sort_unstable();
    lines.push(vec![u8::from(s3.settings.checksum_header)]);
    Ok(Sha256::digest(lines.concat()).into())
}

/// The checksum of a body, for the store to keep, where it is wanted.
pub(crate) fn add_checksum(
    s3: &S3Backend,
    headers: &mut HeaderMap,
    sha256: &[u8; 32],
) -> Result<(), StorageError> {
    if s3.settings.checksum_header {
        set(headers, "x-amz-checksum-sha256", &BASE64_STANDARD.encode(sha256))?;
    }
    Ok(())
}

pub(crate) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), StorageError> {
    let value = HeaderValue::from_str(value).map_err(|_| StorageError::config(name, "cannot be sent"))?;
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}
