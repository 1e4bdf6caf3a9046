//! `GetObject` and `HeadObject` on the objects of the state. What they read is bounded, and comes from no cache.

use std::fs::File;
use std::io::{self, Read, Seek, Write, empty};

use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::set_header;
use crate::backend::s3::operations::head_object::send_plain_head;
use crate::backend::s3::request::{S3Request, S3Response, http_date};
use crate::backend::{Fetched, Modified, is_weak, quoted};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// The bytes that are copied to a file at a time.
const CHUNK: usize = 64 * 1024;

/// Reads a small object, unless the caller has it.
pub(crate) fn get_small(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    limit: u64,
    if_none_match: Option<&str>,
) -> Result<Fetched, StorageError> {
    let mut request = get_request(s3, key, limit)?;
    if let Some(etag) = if_none_match {
        set_header(&mut request.headers, "if-none-match", &quoted(etag))?;
    }
    let fetched = retry::run(&s3.settings.retry, context, Operation::Download, |attempt| {
        let mut bytes = Vec::new();
        let mut sink = |body: &mut dyn Read| {
            bytes.clear();
            body.take(request.expected).read_to_end(&mut bytes).map(drop)
        };
        let response = s3.client.send_with_sink(context, attempt, &request, &mut empty(), Some(&mut sink))?;
        if response.status.is_success() {
            return read_found(&response, bytes, limit);
        }
        // All other statuses are errors: this is 304.
        check_not_modified(&response, if_none_match)
    });
    match fetched {
        // Only a store sends this code: any other 404 comes from a proxy in between.
        Err(error) if error.code() == Some("NoSuchKey") => Ok(Fetched::Missing),
        other => other.map_err(|error| with_advice(error).with_key(key.as_str())),
    }
}

/// Builds a request for an object of at most `limit` bytes.
pub(crate) fn get_request<'a>(
    s3: &S3Backend,
    key: &'a RemoteKey,
    limit: u64,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let mut headers = HeaderMap::new();
    set_header(&mut headers, "accept-encoding", "identity")?;
    set_header(&mut headers, "cache-control", "no-cache")?;
    let path = s3.object_path(&object);
    Ok(S3Request {
        headers,
        // One byte more shows that the object is longer.
        expected: limit.saturating_add(1),
        ..S3Request::plain(Operation::Download, Method::GET, key.as_str(), path, String::new())
    })
}

fn read_found(response: &S3Response, bytes: Vec<u8>, limit: u64) -> Result<Fetched, StorageError> {
    if bytes.len() as u64 > limit {
        let what = format!("the object has more than {limit} bytes");
        return Err(StorageError::new(ErrorKind::TooLarge, Operation::Download, what));
    }
    if let Some(encoding) = response.header("content-encoding").filter(|encoding| *encoding != "identity") {
        return Err(unusable(Operation::Download, &format!("a Content-Encoding: {encoding}")));
    }
    let Modified { etag, at } = read_modified(response, Operation::Download)?;
    Ok(Fetched::Found { bytes, etag, modified: at })
}

fn check_not_modified(response: &S3Response, known: Option<&str>) -> Result<Fetched, StorageError> {
    match response.etag(Operation::Download)? {
        Some(etag) if Some(etag.as_str()) != known => {
            Err(unusable(Operation::Download, &format!("status 304 and another ETag: {etag}")))
        }
        _ => Ok(Fetched::NotModified),
    }
}

/// Reads the `ETag`, which must identify the bytes, and `Last-Modified`.
fn read_modified(response: &S3Response, operation: Operation) -> Result<Modified, StorageError> {
    let etag = strong_etag(response, operation)?;
    match http_date(response.header("last-modified")) {
        Some(at) => Ok(Modified { etag, at }),
        None => Err(unusable(operation, "no Last-Modified")),
    }
}

/// Returns the `ETag` of a response. Conditions need a strong one.
pub(crate) fn strong_etag(response: &S3Response, operation: Operation) -> Result<String, StorageError> {
    match response.etag(operation)? {
        Some(etag) if is_weak(&etag) => Err(unusable(operation, &format!("a weak ETag: {etag}"))),
        Some(etag) if !etag.is_empty() => Ok(etag),
        _ => Err(unusable(operation, "no ETag")),
    }
}

fn unusable(operation: Operation, what: &str) -> StorageError {
    let what = format!("the response has {what}; is a proxy in between that changes it?");
    StorageError::new(ErrorKind::Protocol, operation, what).retryable(false)
}

fn with_advice(error: StorageError) -> StorageError {
    match error.kind() {
        ErrorKind::AccessDenied => {
            error.advise("without s3:ListBucket this is also the answer where there is no object")
        }
        _ => error,
    }
}

/// Returns the `ETag` of an object and when it was stored; `None` if there is none.
pub(crate) fn modified_of(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
) -> Result<Option<Modified>, StorageError> {
    let mut headers = HeaderMap::new();
    set_header(&mut headers, "cache-control", "no-cache")?;
    let response = send_plain_head(s3, context, key, Operation::Head, headers).map_err(with_advice)?;
    let modified = response.map(|response| read_modified(&response, Operation::Head)).transpose();
    modified.map_err(|error| error.with_key(key.as_str()))
}

/// Writes an object of exactly `size` bytes into a file and returns its SHA-256.
pub(crate) fn get_to_file(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    size: u64,
    file: &mut File,
) -> Result<[u8; 32], StorageError> {
    let request = get_request(s3, key, size)?;
    retry::run(&s3.settings.retry, context, Operation::Download, |attempt| {
        let (mut sha256, mut count) = (Sha256::new(), 0);
        let mut sink = |body: &mut dyn Read| {
            // What an earlier try wrote is not part of this one.
            file.rewind().and_then(|()| file.set_len(0)).map_err(not_written)?;
            count = copy(&mut body.take(request.expected), file, &mut sha256)?;
            Ok(())
        };
        s3.client.send_with_sink(context, attempt, &request, &mut empty(), Some(&mut sink))?;
        if count != size {
            let more = if count > size { "more than " } else { "" };
            let count = count.min(size);
            let what = format!("the object has {more}{count} bytes instead of {size}");
            return Err(StorageError::new(ErrorKind::Integrity, Operation::Download, what));
        }
        Ok(sha256.finalize().into())
    })
    .map_err(|error| with_advice(error).with_key(key.as_str()))
}

/// Copies a body to a file and to a hash. Returns the number of bytes.
fn copy(body: &mut dyn Read, file: &mut File, sha256: &mut Sha256) -> io::Result<u64> {
    let (mut buffer, mut count) = (vec![0; CHUNK], 0);
    loop {
        let length = match body.read(&mut buffer) {
            Ok(0) => return Ok(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length?,
        };
        sha256.update(&buffer[..length]);
        file.write_all(&buffer[..length]).map_err(not_written)?;
        count += length as u64;
    }
}

/// Returns the error of the file, so that it does not look like one of the network.
fn not_written(error: io::Error) -> io::Error {
    let what = format!("the object cannot be written to disk: {error}");
    io::Error::other(StorageError::new(ErrorKind::Cache, Operation::Download, what).with_source(error))
}
