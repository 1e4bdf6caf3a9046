//! A request to the store, and its response.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, Method, StatusCode};

use crate::backend::s3::auth::sign::EMPTY_SHA256;
use crate::backend::s3::redaction::{self, Secrets, truncated};
use crate::error::{Operation, StorageError};

/// A request before it is signed.
pub(crate) struct S3Request<'a> {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    /// The key without the prefix, for log records; empty if the request has none.
    pub(crate) key: &'a str,
    /// Percent-encoded, from the leading slash.
    pub(crate) path: String,
    /// Percent-encoded and sorted, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// Hexadecimal SHA-256 of the body.
    pub(crate) payload: &'a str,
    pub(crate) length: u64,
    /// The time limit of the response, if it differs from the backend's.
    pub(crate) timeout: Option<Duration>,
    /// The most bytes of a response that is streamed; 0 for all others.
    pub(crate) expected: u64,
    /// The content of the body that is sent, or of the response that is streamed.
    pub(crate) content: BodyContent,
    pub(crate) changed: Changed,
}

/// The content of a body, which decides how it counts for the progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyContent {
    FileSent,
    FileReceived,
    /// Of the protocol, or of the state that lies with the bucket.
    Internal,
}

/// The parts of a request that were changed after a refusal. Each is changed once, or the retries would not end.
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) credentials: Cell<bool>,
    pub(crate) time: Cell<bool>,
}

impl<'a> S3Request<'a> {
    /// Builds a request without a body and without headers of its own.
    pub(crate) fn plain(
        operation: Operation,
        method: Method,
        key: &'a str,
        path: String,
        query: String,
    ) -> Self {
        let headers = HeaderMap::new();
        Self {
            operation,
            method,
            key,
            path,
            query,
            headers,
            payload: EMPTY_SHA256,
            length: 0,
            timeout: None,
            expected: 0,
            content: BodyContent::Internal,
            changed: Changed::default(),
        }
    }
}

/// A successful response.
pub(crate) struct S3Response {
    pub(crate) status: StatusCode,
    /// Redacted: secrets that the store repeated are removed.
    pub(crate) headers: HeaderMap,
    /// Not redacted: [`xml`](crate::backend::s3::xml) does that as it reads it.
    pub(crate) body: Vec<u8>,
    /// The secrets of the request.
    pub(crate) secrets: Arc<Secrets>,
}

impl S3Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns the `ETag` in the form in which it is stored and compared.
    pub(crate) fn etag(&self, operation: Operation) -> Result<Option<String>, StorageError> {
        self.header("etag").map(|tag| redaction::normalize_etag(tag, operation)).transpose()
    }

    /// Returns the store's ID of the request, for people; empty if it sent none.
    pub(crate) fn request_id(&self) -> String {
        truncated(self.header(REQUEST_ID).unwrap_or_default())
    }
}

/// Returns a header that is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns a time of a header in seconds since 1970.
pub(crate) fn http_date(text: Option<&str>) -> Option<u64> {
    let time = httpdate::parse_http_date(text?.trim()).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The header that makes a PUT a `CopyObject`.
pub(crate) const COPY_SOURCE: &str = "x-amz-copy-source";

/// The header with the store's ID of a request.
pub(crate) const REQUEST_ID: &str = "x-amz-request-id";
