//! What is asked of the store, and what it answers.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use crate::backend::s3::auth::sign::EMPTY_SHA256;
use crate::backend::s3::redaction;
use crate::backend::s3::redaction::{Secrets, clipped};
use crate::error::{Operation, StorageError};

/// What is asked of the store, before it is signed.
pub(crate) struct S3Request<'a> {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    /// The key before the prefix, for records; empty where there is none.
    pub(crate) key: &'a str,
    /// Percent-encoded, from the leading slash.
    pub(crate) path: String,
    /// Percent-encoded and sorted, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    /// Hexadecimal SHA-256 of the body.
    pub(crate) payload: &'a str,
    pub(crate) length: u64,
    /// How long the answer may take, where that is longer than the backend's limits.
    pub(crate) patience: Option<Duration>,
    /// Bytes that are expected in an answer which is read as it comes.
    pub(crate) expected: u64,
    pub(crate) changed: Changed,
}

/// What was changed of a request since it was refused: each once, or it would be tried for ever.
#[derive(Default)]
pub(crate) struct Changed {
    pub(crate) credentials: Cell<bool>,
    pub(crate) time: Cell<bool>,
}

impl<'a> S3Request<'a> {
    /// A request without a body or headers of its own.
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
            patience: None,
            expected: 0,
            changed: Changed::default(),
        }
    }
}

/// What the store answered, with success.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Without what they repeat of our secrets.
    pub(crate) headers: HeaderMap,
    /// As it came: [`xml`](crate::backend::s3::xml) reads it.
    pub(crate) body: Vec<u8>,
    /// Those of the request.
    pub(crate) secrets: Arc<Secrets>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The store's tag, as it is kept and compared.
    pub(crate) fn etag(&self, operation: Operation) -> Result<Option<String>, StorageError> {
        self.header("etag").map(|tag| redaction::etag(tag, operation)).transpose()
    }

    /// The store's ID of the request, for people; empty where it gave none.
    pub(crate) fn request_id(&self) -> String {
        clipped(self.header(REQUEST_ID).unwrap_or_default())
    }
}

/// A header that is text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(crate) const REQUEST_ID: &str = "x-amz-request-id";
