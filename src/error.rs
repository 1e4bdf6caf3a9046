//! The one error type, and the error policy.
//!
//! An error holds its kind ([`ErrorKind`]), the operation that failed ([`Operation`]), its place (a key or a
//! path) and a message that says what to do. Whether a retry may help is decided where the error arises and is
//! stored in it; no caller guesses it from a text.

pub(crate) mod caught;
mod kind;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::error::kind::{ErrorKind, Operation};
use crate::text::{Printable, PrintablePath};

/// The retry that an error calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// At once, because the next request is a different one (renewed credentials, a corrected clock). Allowed once
    /// for each request.
    Anew,
    Backoff,
    /// After at least this wait, as the server asked (`Retry-After`).
    After(Duration),
}

/// A host that a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host {
    Server,
    Proxy,
}

/// The error of a failed operation.
///
/// ```
/// use bucket_brigade::{ErrorKind, Operation, StorageError};
/// let error = StorageError::new(ErrorKind::Rejected, Operation::Upload, "the share is read-only")
///     .with_key("a/b.txt");
/// assert_eq!(error.to_string(), "upload a/b.txt: the share is read-only");
/// assert!(!error.is_retryable());
/// ```
#[derive(Debug, thiserror::Error)]
#[error("{details}{}", Cause(details, source.as_deref()))]
pub struct StorageError {
    details: Box<Details>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Small, because a report may hold 100,000 of them.
#[derive(Debug, Clone)]
struct Details {
    kind: ErrorKind,
    operation: Operation,
    key: Option<Box<str>>,
    path: Option<Box<Path>>,
    message: String,
    /// `None` if no request was sent.
    request: Option<Box<Request>>,
    retry: Retry,
    /// The server closed the connection while a body was being sent.
    cut_off: bool,
    /// One of the attempts may have taken effect although its answer was lost.
    unsettled: bool,
    /// This host's name has no address.
    unresolved: Option<Host>,
}

/// The facts about a request that failed.
#[derive(Debug, Clone, Default)]
struct Request {
    code: Option<String>,
    id: Option<String>,
    attempts: u32,
    elapsed: Duration,
}

impl StorageError {
    /// An error of this kind. The message says what is wrong and, if possible, what to do.
    /// The error may be retried if its kind is transient ([`ErrorKind::is_transient`]).
    pub fn new(kind: ErrorKind, operation: Operation, message: impl Into<String>) -> Self {
        // With the circuit open a retry cannot help: only the next run closes it.
        let retry =
            if kind.is_transient() && kind != ErrorKind::Unavailable { Retry::Backoff } else { Retry::Never };
        let mut message = message.into();
        message.shrink_to_fit();
        let details = Box::new(Details {
            kind,
            operation,
            key: None,
            path: None,
            message,
            request: None,
            cut_off: false,
            unsettled: false,
            unresolved: None,
            retry,
        });
        Self { details, source: None }
    }

    /// A wrong or missing setting.
    pub fn config(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Config, Operation::Configure, format!("{field}: {problem}"))
    }

    pub(crate) fn io(kind: ErrorKind, operation: Operation, path: &Path, error: std::io::Error) -> Self {
        Self::new(kind, operation, error.to_string()).with_path(path).with_source(error)
    }

    /// Adds the key of the object.
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.details.key = Some(key.into().into());
        self
    }

    /// Adds the path of the file.
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.details.path = Some(path.into().into());
        self
    }

    /// Adds the error that caused this one.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Sets whether a retry may help.
    pub fn retryable(mut self, yes: bool) -> Self {
        self.details.retry = if yes { Retry::Backoff } else { Retry::Never };
        self
    }

    /// Sets whether the request gets one immediate retry, because the next request will be a different one.
    pub(crate) fn anew(mut self, yes: bool) -> Self {
        self.details.retry = if yes { Retry::Anew } else { Retry::Never };
        self
    }

    /// Allows a retry, but not before `wait` is over.
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.details.retry = Retry::After(wait);
        self
    }

    /// Marks that the server closed the connection while a body was being sent, and adds that to the message.
    pub(crate) fn while_sending(mut self) -> Self {
        self.details.cut_off = true;
        self.advise("the server closed the connection before it had received the whole body")
    }

    /// Returns true if the server closed the connection while a body was being sent.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.details.cut_off
    }

    /// Marks, if `yes`, that an earlier attempt at the same request may have taken effect.
    pub(crate) fn unsettled(mut self, yes: bool) -> Self {
        // Never taken back: a later attempt that fails for certain does not undo an earlier one.
        self.details.unsettled |= yes;
        self
    }

    /// Returns true if the request may have taken effect in spite of the error: an attempt was sent, and its
    /// answer was lost or is not conclusive. A store that refused, or that was not reached, did nothing.
    pub(crate) fn may_have_taken_effect(&self) -> bool {
        use ErrorKind::{Network, Other, Panicked, Protocol, Server, Timeout};
        self.details.unsettled
            || matches!(self.kind(), Timeout | Network | Protocol | Server | Panicked | Other)
    }

    /// Marks that the name of this host has no address.
    pub(crate) fn without_address(mut self, host: Host) -> Self {
        self.details.unresolved = Some(host);
        self
    }

    /// Returns true if the name of a host has no address.
    pub(crate) fn is_without_address(&self) -> bool {
        self.details.unresolved.is_some()
    }

    /// Returns true if the name of the proxy has no address.
    pub(crate) fn is_proxy_without_address(&self) -> bool {
        self.details.unresolved == Some(Host::Proxy)
    }

    /// A copy of this error, to report it in another place too. The source's text becomes part of the message.
    pub(crate) fn repeated(&self) -> Self {
        // The source itself cannot be cloned.
        let cause = Cause(&self.details, self.source.as_deref()).to_string();
        let mut details = self.details.clone();
        details.message.push_str(&cause);
        Self { details, source: None }
    }

    pub(crate) fn with_operation(mut self, operation: Operation) -> Self {
        self.details.operation = operation;
        self
    }

    fn with_request(mut self, change: impl FnOnce(&mut Request)) -> Self {
        change(self.details.request.get_or_insert_default());
        self
    }

    pub(crate) fn with_code(self, code: Option<String>) -> Self {
        self.with_request(|request| request.code = code)
    }

    pub(crate) fn with_request_id(self, id: Option<String>) -> Self {
        self.with_request(|request| request.id = id)
    }

    pub(crate) fn with_attempts(self, attempts: u32, elapsed: Duration) -> Self {
        self.with_request(|request| (request.attempts, request.elapsed) = (attempts, elapsed))
    }

    /// Appends advice to the message.
    pub(crate) fn advise(mut self, advice: &str) -> Self {
        // No spare capacity, because a report may hold many errors.
        self.details.message.reserve_exact("; ".len() + advice.len());
        self.details.message.push_str("; ");
        self.details.message.push_str(advice);
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.details.kind
    }

    /// The operation that failed.
    pub fn operation(&self) -> Operation {
        self.details.operation
    }

    /// The key of the object, without the bucket prefix, if the error is about one.
    pub fn key(&self) -> Option<&str> {
        self.details.key.as_deref()
    }

    /// The path of the file, if the error is about one.
    pub fn path(&self) -> Option<&Path> {
        self.details.path.as_deref()
    }

    /// The message, without operation and place.
    pub fn message(&self) -> &str {
        &self.details.message
    }

    /// The store's error code, such as `NoSuchBucket`.
    pub fn code(&self) -> Option<&str> {
        self.details.request.as_ref()?.code.as_deref()
    }

    /// The store's ID of the failed request, to give to its operator.
    pub fn request_id(&self) -> Option<&str> {
        self.details.request.as_ref()?.id.as_deref()
    }

    /// The number of attempts; 0 if no request was sent.
    pub fn attempts(&self) -> u32 {
        self.details.request.as_ref().map_or(0, |request| request.attempts)
    }

    /// Returns true if a retry may help.
    pub fn is_retryable(&self) -> bool {
        self.details.retry != Retry::Never
    }

    /// Returns true if the next run may succeed with nothing changed: a retry may help, or the store was unavailable.
    pub fn may_go_away(&self) -> bool {
        self.is_retryable() || self.kind().is_transient()
    }

    /// Returns true if the operation was never started because the run had stopped before.
    pub(crate) fn is_not_tried(&self) -> bool {
        use ErrorKind::{Cancelled, Deadline, Superseded, Unavailable};
        matches!(self.details.kind, Cancelled | Deadline | Unavailable | Superseded)
    }

    /// Returns true if the cache itself failed.
    pub(crate) fn is_about_the_cache(&self) -> bool {
        use ErrorKind::{Cache, CacheDamaged, CacheForeign, CacheLocked};
        matches!(self.kind(), Cache | CacheDamaged | CacheForeign | CacheLocked)
    }

    pub(crate) fn retry(&self) -> Retry {
        self.details.retry
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.operation)?;
        // The path is the better place to look at; the key can be derived from it.
        if let Some(path) = &self.path {
            write!(f, " {}", PrintablePath(path))?;
        } else if let Some(key) = &self.key {
            write!(f, " {}", Printable(key))?;
        }
        write!(f, ": {}", Printable(&self.message))?;
        let Some(request) = &self.request else {
            return Ok(());
        };
        // One attempt is the normal case and needs no words.
        if request.attempts > 1 {
            write!(f, " ({} attempts in {:.1} s)", request.attempts, request.elapsed.as_secs_f64())?;
        }
        if let Some(id) = &request.id {
            write!(f, " [request id {}]", Printable(id))?;
        }
        Ok(())
    }
}

/// The text that an error's source adds to the message: nothing if the message already contains it.
struct Cause<'a>(&'a Details, Option<&'a (dyn std::error::Error + Send + Sync)>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With no source the text is empty, which every message contains.
        let text = self.1.map(ToString::to_string).unwrap_or_default();
        if self.0.message.contains(&text) { Ok(()) } else { write!(f, ": {}", Printable(&text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_operation_place_message_attempts_and_request_id() {
        let error = StorageError::new(ErrorKind::Server, Operation::Upload, "500 InternalError")
            .with_key("a/b\nc")
            .with_attempts(6, Duration::from_millis(2500))
            .with_request_id(Some("R1".into()));
        assert_eq!(
            error.to_string(),
            "upload a/b\\nc: 500 InternalError (6 attempts in 2.5 s) [request id R1]"
        );
        assert!(error.is_retryable());
    }

    #[test]
    fn the_source_can_be_reached_and_is_said_once() {
        use std::error::Error;
        let cause = std::io::Error::other("disk full");
        let error = StorageError::new(ErrorKind::Cache, Operation::Cache, "cannot write").with_source(cause);
        assert_eq!(error.to_string(), "cache: cannot write: disk full");
        assert_eq!(error.source().unwrap().to_string(), "disk full");
        let error = StorageError::io(
            ErrorKind::Cache,
            Operation::Cache,
            Path::new("p"),
            std::io::Error::other("disk full"),
        );
        assert_eq!(error.to_string(), "cache p: disk full");
    }

    #[test]
    fn control_characters_and_ansi_codes_are_escaped() {
        assert_eq!(Printable("a\u{1b}[31mb\r\nü").to_string(), "a\\u{1b}[31mb\\r\\nü");
    }

    /// 100,000 errors in a report took 43 MiB.
    #[test]
    fn an_error_is_small() {
        let error =
            StorageError::new(ErrorKind::TooLarge, Operation::Upload, format!("{:5}", "x")).advise("y");
        assert_eq!(error.details.message.capacity(), error.details.message.len());
        assert!(size_of::<Details>() <= 96, "{}", size_of::<Details>());
    }

    #[test]
    fn an_open_circuit_is_an_outage_that_is_not_retried() {
        let error = StorageError::new(ErrorKind::Unavailable, Operation::Upload, "x");
        assert!(error.kind().is_outage() && !error.is_retryable());
    }
}
