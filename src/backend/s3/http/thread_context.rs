//! What a thread is sending for, where the HTTP layer passes nothing through: counters, the token that ends it, and
//! secrets that only the wire sees.

use std::cell::RefCell;
use std::sync::Arc;

use memchr::memmem;
use ureq::unversioned::transport::Buffers;
use zeroize::Zeroizing;

use crate::backend::s3::redaction::Secrets;
use crate::clock::CancelToken;
use crate::observe::metrics::Metrics;

/// What the thread is sending for.
pub(crate) struct ThreadContext {
    pub(crate) metrics: Metrics,
    pub(crate) cancel: CancelToken,
    pub(crate) hidden: Vec<Hidden>,
    /// What an answer must not repeat.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) censored: Censored,
    /// The request has a body.
    pub(crate) has_body: bool,
    /// Its connection is open for certain: made for it, or asked.
    pub(crate) certain: bool,
    /// The server takes no more of what is sent.
    pub(crate) cut_off: bool,
}

impl ThreadContext {
    /// Writes over what the answer repeats of the secrets, but not in an object's content.
    pub(crate) fn censor(&mut self, buffers: &mut dyn Buffers) {
        let input = buffers.input();
        let mut end = input.len();
        if self.censored == Censored::Nothing {
            return;
        }
        if self.censored == Censored::Head
            && let Some(head) = memmem::find(input, b"\r\n\r\n")
        {
            (self.censored, end) = (Censored::Nothing, head);
        }
        if !self.secrets.are_among(&input[..end]) {
            return;
        }
        let mut input = input.to_vec();
        self.secrets.write_over(&mut input[..end]);
        // Input can be taken out and put in, but not changed.
        buffers.input_consume(input.len());
        buffers.input_append_buf()[..input.len()].copy_from_slice(&input);
        buffers.input_appended(input.len());
    }
}

/// How much of what is still to come of an answer is looked through for secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Censored {
    All,
    /// Not the body, which is an object's content.
    Head,
    Nothing,
}

/// Whether the server takes no more of what this thread is sending: the rest need not be read from disk.
pub(crate) fn is_cut_off() -> bool {
    THREAD_CONTEXT.with_borrow(|scope| scope.as_ref().is_some_and(|scope| scope.cut_off))
}

thread_local! {
    pub(crate) static THREAD_CONTEXT: RefCell<Option<ThreadContext>> = const { RefCell::new(None) };
}

pub(crate) fn count(add: impl FnOnce(&Metrics)) {
    THREAD_CONTEXT.with_borrow(|scope| {
        if let Some(scope) = scope {
            add(&scope.metrics);
        }
    });
}

/// A header value that the HTTP layer must not see, as that layer writes what it sends to the log at
/// TRACE level. It gets a placeholder of the same length.
pub(crate) struct Hidden {
    placeholder: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
}

impl Hidden {
    /// `name` only keeps the placeholders of one request apart.
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

    pub(crate) fn reveal(&self, output: &mut [u8]) -> bool {
        let Some(at) = output.windows(self.placeholder.len()).position(|window| window == self.placeholder)
        else {
            return false;
        };
        output[at..at + self.value.len()].copy_from_slice(&self.value);
        true
    }
}

#[cfg(test)]
mod tests {
    use ureq::unversioned::transport::LazyBuffers;

    use super::*;
    use crate::backend::s3::auth::credentials::Credentials;

    /// What comes in by pieces, and what is left of it.
    fn heard(censored: Censored, pieces: &[&[u8]]) -> String {
        let credentials = Credentials::new("key", "a-secret-of-19-byte");
        let secrets = Arc::new(Secrets::new(&credentials, ""));
        let (metrics, cancel, hidden) = (Metrics::default(), CancelToken::new(), Vec::new());
        let (has_body, certain, cut_off) = (false, false, false);
        let mut scope =
            ThreadContext { metrics, cancel, hidden, secrets, censored, has_body, certain, cut_off };
        let mut buffers = LazyBuffers::new(256, 256);
        for piece in pieces {
            buffers.input_append_buf()[..piece.len()].copy_from_slice(piece);
            buffers.input_appended(piece.len());
            scope.censor(&mut buffers);
        }
        String::from_utf8_lossy(buffers.input()).into_owned()
    }

    #[test]
    fn i7_secrets_that_come_back_are_written_over_but_not_in_the_content_of_an_object() {
        let (head, body) = (&b"id: a-secret-of-19-byte\r\n\r\n"[..], &b"a-secret-of-19-byte"[..]);
        let cut = "[secret]***********";
        assert_eq!(heard(Censored::All, &[head, body]), format!("id: {cut}\r\n\r\n{cut}"));
        assert_eq!(heard(Censored::All, &[&head[..9], &head[9..]]), format!("id: {cut}\r\n\r\n"));
        let kept = format!("id: {cut}\r\n\r\na-secret-of-19-byte");
        assert_eq!(heard(Censored::Head, &[&[head, body].concat()]), kept);
        assert_eq!(heard(Censored::Head, &[head, body]), kept);
    }

    #[test]
    fn a_placeholder_is_as_long_as_its_secret_and_gives_way_to_it_once() {
        let hidden = Hidden::new("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let mut wire = [b"authorization: ", hidden.placeholder(), b"\r\n"].concat();
        assert!(!wire.windows(4).any(|window| window == b"AWS4"));
        assert!(hidden.reveal(&mut wire));
        assert_eq!(wire, b"authorization: AWS4-HMAC-SHA256 Credential=x\r\n");
        assert!(!hidden.reveal(&mut wire));
        let short = Hidden::new("token", "t");
        let mut wire = short.placeholder().to_vec();
        assert!(short.reveal(&mut wire));
        assert_eq!(wire, b"t      ");
    }
}
