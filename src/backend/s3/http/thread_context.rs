//! The state of the request that a thread is sending.
//!
//! # Architecture
//! [`Connections::run_request`] sets the [`ThreadContext`] of the calling thread for the time of one request. The
//! transports below ureq read and change it: ureq passes nothing through to them, but calls them on the same thread.
//!
//! [`Connections::run_request`]: crate::backend::s3::http::transport::Connections::run_request

use std::cell::RefCell;
use std::sync::Arc;

use memchr::memmem;
use ureq::unversioned::transport::Buffers;
use zeroize::Zeroizing;

use crate::backend::s3::redaction::Secrets;
use crate::clock::CancelToken;
use crate::observe::metrics::Metrics;

/// The state of one request.
pub(crate) struct ThreadContext {
    pub(crate) metrics: Metrics,
    pub(crate) cancel: CancelToken,
    pub(crate) hidden: Vec<HiddenHeader>,
    /// The secrets that the response must not repeat.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) redacted: Redacted,
    /// The request has a body.
    pub(crate) has_body: bool,
    /// The connection is known to be open: it is new, or was checked.
    pub(crate) known_open: bool,
    /// The server closed the connection before it read the whole request body.
    pub(crate) cut_off: bool,
}

impl ThreadContext {
    /// Overwrites the secrets that a response repeats, but not in an object's content.
    pub(crate) fn redact_input(&mut self, buffers: &mut dyn Buffers) {
        let input = buffers.input();
        let mut end = input.len();
        if self.redacted == Redacted::Nothing {
            return;
        }
        // The blank line ends the headers; what follows is the object, or an error: AWS repeats the session token in one.
        if self.redacted == Redacted::Head
            && let Some(head) = memmem::find(input, b"\r\n\r\n")
        {
            let is_object = is_success(input);
            (self.redacted, end) =
                if is_object { (Redacted::Nothing, head) } else { (Redacted::All, input.len()) };
        }
        // The usual case, without a copy of the input.
        if !self.secrets.occur_in_input(&input[..end]) {
            return;
        }
        let mut input = input.to_vec();
        self.secrets.overwrite_in(&mut input[..end]);
        // ureq's input buffer cannot be changed in place: the input is taken out and put back.
        buffers.input_consume(input.len());
        buffers.input_append_buf()[..input.len()].copy_from_slice(&input);
        buffers.input_appended(input.len());
    }
}

/// Returns whether the status line of a response tells a success: `HTTP/1.1 200 OK`.
fn is_success(response: &[u8]) -> bool {
    let status = response.iter().position(|byte| *byte == b' ').map(|at| at + 1);
    status.and_then(|at| response.get(at)) == Some(&b'2')
}

/// The part of the remaining response in which secrets are overwritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redacted {
    All,
    /// The headers only, if it is a success: then the body is an object's content.
    Head,
    Nothing,
}

/// Returns whether the server closed the connection of this thread's request: the rest of the body need not be read
/// from disk.
pub(crate) fn is_cut_off() -> bool {
    context_is(|current| current.cut_off)
}

thread_local! {
    pub(crate) static THREAD_CONTEXT: RefCell<Option<ThreadContext>> = const { RefCell::new(None) };
}

/// Returns whether this thread sends a request for which `check` holds.
pub(crate) fn context_is(check: impl FnOnce(&ThreadContext) -> bool) -> bool {
    THREAD_CONTEXT.with_borrow(|current| current.as_ref().is_some_and(check))
}

/// Changes the state of this thread's request, if there is one.
pub(crate) fn update_context(change: impl FnOnce(&mut ThreadContext)) {
    THREAD_CONTEXT.with_borrow_mut(|current| {
        if let Some(current) = current {
            change(current);
        }
    });
}

/// Counts for the run whose request this thread is sending.
pub(crate) fn count_metric(add: impl FnOnce(&Metrics)) {
    THREAD_CONTEXT.with_borrow(|current| {
        if let Some(current) = current {
            add(&current.metrics);
        }
    });
}

/// A secret header value. The HTTP layer, which logs what it sends at TRACE level, gets a placeholder of the same
/// length.
pub(crate) struct HiddenHeader {
    placeholder: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
}

impl HiddenHeader {
    /// Hides `value`. `name` tells the placeholders of one request apart.
    pub(crate) fn new(name: &str, value: &str) -> Self {
        let placeholder = format!("{{{name}}}").into_bytes();
        let length = value.len().max(placeholder.len());
        let pad = |bytes: &[u8], with: u8| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, with);
            bytes
        };
        // White space at the end of a header's value is not part of it (RFC 9110, 5.5).
        Self { placeholder: pad(&placeholder, b'*'), value: Zeroizing::new(pad(value.as_bytes(), b' ')) }
    }

    pub(crate) fn placeholder(&self) -> &[u8] {
        &self.placeholder
    }

    /// Replaces the placeholder with the value. Returns whether it was there.
    pub(crate) fn reveal(&self, output: &mut [u8]) -> bool {
        let Some(at) = output.windows(self.placeholder.len()).position(|window| window == self.placeholder)
        else {
            return false;
        };
        output[at..at + self.value.len()].copy_from_slice(&self.value);
        true
    }
}

/// Takes the state of the request under way on this thread away, until it is dropped.
#[cfg(feature = "profiles")]
pub(crate) struct OutsideOfRequest(Option<ThreadContext>);

#[cfg(feature = "profiles")]
impl OutsideOfRequest {
    pub(crate) fn enter() -> Self {
        Self(THREAD_CONTEXT.take())
    }
}

#[cfg(feature = "profiles")]
impl Drop for OutsideOfRequest {
    fn drop(&mut self) {
        THREAD_CONTEXT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use ureq::unversioned::transport::LazyBuffers;

    use super::*;
    use crate::backend::s3::auth::credentials::Credentials;

    /// Returns what is left of input that comes in pieces.
    fn received(redacted: Redacted, pieces: &[&[u8]]) -> String {
        let credentials = Credentials::new("key", "a-secret-of-19-byte");
        let secrets = Arc::new(Secrets::new(&credentials, ""));
        let (metrics, cancel, hidden) = (Metrics::default(), CancelToken::new(), Vec::new());
        let (has_body, known_open, cut_off) = (false, false, false);
        let mut context =
            ThreadContext { metrics, cancel, hidden, secrets, redacted, has_body, known_open, cut_off };
        let mut buffers = LazyBuffers::new(256, 256);
        for piece in pieces {
            buffers.input_append_buf()[..piece.len()].copy_from_slice(piece);
            buffers.input_appended(piece.len());
            context.redact_input(&mut buffers);
        }
        String::from_utf8_lossy(buffers.input()).into_owned()
    }

    #[test]
    fn i7_secrets_that_come_back_are_written_over_but_not_in_the_content_of_an_object() {
        let (head, body) = (&b"id: a-secret-of-19-byte\r\n\r\n"[..], &b"a-secret-of-19-byte"[..]);
        let cut = "[secret]***********";
        assert_eq!(received(Redacted::All, &[head, body]), format!("id: {cut}\r\n\r\n{cut}"));
        assert_eq!(received(Redacted::All, &[&head[..9], &head[9..]]), format!("id: {cut}\r\n\r\n"));
        for (status, is_object) in
            [("200 OK", true), ("206 Partial Content", true), ("400 No", false), ("307 T", false)]
        {
            let line = format!("HTTP/1.1 {status}\r\n");
            let head = [line.as_bytes(), head].concat();
            let content = if is_object { "a-secret-of-19-byte" } else { cut };
            let kept = format!("{line}id: {cut}\r\n\r\n{content}");
            assert_eq!(received(Redacted::Head, &[&[&head, body].concat()]), kept);
            assert_eq!(received(Redacted::Head, &[&head, body]), kept);
            assert_eq!(received(Redacted::Head, &[&head[..5], &head[5..20], &head[20..], body]), kept);
        }
    }

    #[test]
    fn a_placeholder_is_as_long_as_its_secret_and_gives_way_to_it_once() {
        let hidden = HiddenHeader::new("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let mut wire = [b"authorization: ", hidden.placeholder(), b"\r\n"].concat();
        assert!(!wire.windows(4).any(|window| window == b"AWS4"));
        assert!(hidden.reveal(&mut wire));
        assert_eq!(wire, b"authorization: AWS4-HMAC-SHA256 Credential=x\r\n");
        assert!(!hidden.reveal(&mut wire));
        let short = HiddenHeader::new("token", "t");
        let mut wire = short.placeholder().to_vec();
        assert!(short.reveal(&mut wire));
        assert_eq!(wire, b"t      ");
    }
}
