//! What is asked of the store, and what it answers.

use std::cell::Cell;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::sign::EMPTY_SHA256;
use crate::error::Operation;

/// What is asked of the store, before it is signed.
pub(crate) struct Ask<'a> {
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

impl<'a> Ask<'a> {
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
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
