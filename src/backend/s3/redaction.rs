//! Removes the secrets that a store repeats from its responses, and bounds the texts that are kept.
//!
//! # Architecture
//! - [`Secrets`] holds the secrets of one request. The client makes it, and the response owns it.
//! - The transport overwrites secrets in the bytes that come in ([`Secrets::overwrite_in`]), before ureq logs them at
//!   TRACE level.
//! - The client redacts the headers of the response ([`Secrets::redact_headers`]).
//! - [`RawText`] is a text of the body. XML or URL encoding may have hidden a secret in it from the transport, so it
//!   gives out its text only through `Secrets`.

use http::{HeaderMap, HeaderValue};
use memchr::memchr_iter;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::redact;

/// Shorter secrets are not removed: they may be words that also occur in tags and texts.
const MIN_SECRET_BYTES: usize = 8;
/// The same for keys and continuation tokens, which are compared and sent back: a short password may be a word in them.
const MIN_SECRET_BYTES_IN_KEYS: usize = 16;
/// Replaces a secret, as in [`redact`].
const PLACEHOLDER: &str = "[secret]";

/// The bytes that are kept of a store's text: as many as a log can take.
const MAX_TEXT_BYTES: usize = 1024;
/// An `ETag` has 32 to 128 bytes; the cache stores one for each object.
pub(crate) const MAX_ETAG_BYTES: usize = 1024;
/// Upload IDs have up to 200 bytes at AWS, continuation tokens up to 3 KiB if they hold an encoded key. Both go into a
/// request line, of which servers take 8 KiB.
pub(crate) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The secrets of one request: the secret key, the session token, the signature, the `Authorization` header. The access
/// key ID is none: it may be shown.
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    pub(crate) fn new(credentials: &Credentials, authorization: &str) -> Self {
        let signature = authorization.rsplit_once("Signature=").map(|(_, signature)| signature);
        let all =
            [Some(credentials.secret_key()), credentials.session_token(), signature, Some(authorization)];
        Self::of(all.into_iter().flatten())
    }

    /// Makes a set of any secrets.
    pub(crate) fn of<'a>(all: impl IntoIterator<Item = &'a str>) -> Self {
        let long = all.into_iter().filter(|secret| secret.len() >= MIN_SECRET_BYTES);
        let mut all: Vec<_> = long.map(|secret| Zeroizing::new(secret.to_owned())).collect();
        // The signature is part of the header, so the longest is replaced first.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// Overwrites secrets in incoming bytes, keeping the length. Returns whether there were any.
    pub(crate) fn overwrite_in(&self, input: &mut [u8]) -> bool {
        let mut found = false;
        // The bytes may be part of a key, so short secrets are left to the readers of the texts.
        for secret in self.at_least(MIN_SECRET_BYTES_IN_KEYS) {
            let mut from = 0;
            while let Some(at) = find_secret(&input[from..], secret) {
                let place = &mut input[from + at..][..secret.len()];
                place.fill(b'*');
                place[..PLACEHOLDER.len()].copy_from_slice(PLACEHOLDER.as_bytes());
                (from, found) = (from + at + secret.len(), true);
            }
        }
        found
    }

    /// Returns whether secrets occur in incoming bytes.
    pub(crate) fn occur_in_input(&self, input: &[u8]) -> bool {
        self.at_least(MIN_SECRET_BYTES_IN_KEYS).any(|secret| find_secret(input, secret).is_some())
    }

    /// Returns the headers of a response without secrets.
    pub(crate) fn redact_headers(&self, headers: &HeaderMap) -> HeaderMap {
        let without = |value: &HeaderValue| {
            // Most headers hold no secret, and keep bytes that are not UTF-8.
            if !self.occurred_in(value.as_bytes(), MIN_SECRET_BYTES) {
                return value.clone();
            }
            let text = self.redact(&String::from_utf8_lossy(value.as_bytes()));
            HeaderValue::from_str(&text).unwrap_or(NOTHING)
        };
        headers.iter().map(|(name, value)| (name.clone(), without(value))).collect()
    }

    /// Returns a text for people, without secrets and truncated.
    pub(crate) fn redact_text(&self, text: &str) -> String {
        truncated(&self.redact(text))
    }

    fn redact(&self, text: &str) -> String {
        self.redact_at_least(text, MIN_SECRET_BYTES)
    }

    fn redact_at_least(&self, text: &str, shortest: usize) -> String {
        if !self.occurred_in(text.as_bytes(), shortest) {
            return text.to_owned();
        }
        let text = redact(text, &self.at_least(shortest).collect::<Vec<_>>());
        // A secret that was overwritten on the wire left asterisks behind the placeholder.
        let mut parts = text.split(PLACEHOLDER);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + PLACEHOLDER + part.trim_start_matches('*'))
    }

    /// Returns whether a secret of at least `shortest` bytes occurs in a text, or did before it was overwritten.
    fn occurred_in(&self, text: &[u8], shortest: usize) -> bool {
        let mut places = self.at_least(shortest).chain([PLACEHOLDER]).map(|secret| find_secret(text, secret));
        places.any(|place| place.is_some())
    }

    fn at_least(&self, bytes: usize) -> impl Iterator<Item = &str> {
        self.0.iter().map(|secret| secret.as_str()).filter(move |secret| secret.len() >= bytes)
    }
}

/// Finds a secret. Each request has other secrets, and building a substring searcher for each costs more than searching
/// for the first byte.
fn find_secret(text: &[u8], secret: &str) -> Option<usize> {
    let (first, last) = (*secret.as_bytes().first()?, text.len().checked_sub(secret.len())?);
    memchr_iter(first, &text[..=last]).find(|at| text[*at..].starts_with(secret.as_bytes()))
}

const NOTHING: HeaderValue = HeaderValue::from_static("");

/// A text of a response, not redacted.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct RawText(String);

impl RawText {
    /// Returns the text for people.
    pub(crate) fn text(&self, secrets: &Secrets) -> String {
        secrets.redact_text(&self.0)
    }

    /// Returns an object's key, to be compared.
    pub(crate) fn key(&self, secrets: &Secrets) -> String {
        secrets.redact_at_least(&self.0, MIN_SECRET_BYTES_IN_KEYS)
    }

    /// Decodes the text.
    pub(crate) fn decoded<E>(self, decode: impl FnOnce(String) -> Result<String, E>) -> Result<Self, E> {
        decode(self.0).map(Self)
    }

    /// Returns an object's `ETag`, to be stored and compared.
    pub(crate) fn etag(&self, secrets: &Secrets, operation: Operation) -> Result<String, StorageError> {
        normalize_etag(&secrets.redact(&self.0), operation)
    }

    /// Returns an upload ID, to be stored, shown and sent back as it is.
    pub(crate) fn upload_id(self, secrets: &Secrets, operation: Operation) -> Result<String, StorageError> {
        self.checked_to_send_back("an upload ID", MIN_SECRET_BYTES, secrets, operation)
    }

    /// Returns a continuation token or a marker, to be sent back as it is. `what` names it in errors.
    pub(crate) fn list_token(self, what: &str, secrets: &Secrets) -> Result<String, StorageError> {
        self.checked_to_send_back(what, MIN_SECRET_BYTES_IN_KEYS, secrets, Operation::List)
    }

    fn checked_to_send_back(
        self,
        what: &str,
        shortest: usize,
        secrets: &Secrets,
        operation: Operation,
    ) -> Result<String, StorageError> {
        if secrets.occurred_in(self.0.as_bytes(), shortest) {
            // Redacted, it could not be sent back; as it is, it would show the secret.
            let why =
                format!("the store sent {what} that repeats a secret of the request: is this your store?");
            return Err(protocol_error(operation, why));
        }
        check_length(what, self.0, MAX_TOKEN_BYTES, operation)
    }
}

/// Returns an `ETag` without the quotes that some responses leave out.
pub(crate) fn normalize_etag(tag: &str, operation: Operation) -> Result<String, StorageError> {
    check_length("an ETag", tag.trim_matches('"').to_owned(), MAX_ETAG_BYTES, operation)
}

fn check_length(what: &str, text: String, most: usize, operation: Operation) -> Result<String, StorageError> {
    if text.len() <= most {
        return Ok(text);
    }
    let why = format!("the store sent {what} of {} bytes; at most {most} are accepted", text.len());
    Err(protocol_error(operation, why))
}

fn protocol_error(operation: Operation, why: String) -> StorageError {
    StorageError::new(ErrorKind::Protocol, operation, why).retryable(false)
}

/// Truncates a text to a length that a log can take.
pub(crate) fn truncated(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    // A character must not be cut in two.
    let end = (0..=MAX_TEXT_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
impl Secrets {
    /// Returns the secrets of a request that had none, for tests.
    pub(crate) fn none() -> Self {
        Self::of([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        let credentials =
            Credentials::new("THEACCESSKEY", "secret78").with_session_token("a-token-of-23-bytes-all");
        Secrets::new(&credentials, "AWS4-HMAC-SHA256 Credential=THEACCESSKEY/x,Signature=0123456789abcdef")
    }

    #[test]
    fn i7_secrets_are_cut_out_of_texts_tags_and_headers_and_the_access_key_is_not() {
        let secrets = secrets();
        let said = "THEACCESSKEY secret78 a-token-of-23-bytes-all 0123456789abcdef";
        assert_eq!(secrets.redact_text(said), "THEACCESSKEY [secret] [secret] [secret]");
        let whole = "AWS4-HMAC-SHA256 Credential=THEACCESSKEY/x,Signature=0123456789abcdef.";
        assert_eq!(secrets.redact_text(whole), "[secret].");
        let tag = RawText("\"xsecret78\"".to_owned()).etag(&secrets, Operation::Upload).unwrap();
        assert_eq!(tag, "x[secret]");
        let headers = HeaderMap::from_iter([
            (http::header::ETAG, HeaderValue::from_static("secret78")),
            (http::header::DATE, HeaderValue::from_static("today")),
            (http::header::SERVER, HeaderValue::from_bytes(b"\xffsecret78").unwrap()),
        ]);
        let headers = secrets.redact_headers(&headers);
        assert_eq!(
            (&headers["etag"], &headers["date"]),
            (&HeaderValue::from_static("[secret]"), &HeaderValue::from_static("today"))
        );
        assert!(!String::from_utf8_lossy(headers["server"].as_bytes()).contains("secret78"));
    }

    #[test]
    fn i7_secrets_are_written_over_as_they_come_in_and_nothing_moves() {
        let secrets = secrets();
        let mut input = *b"x: a-token-of-23-bytes-all\r\ny: secret78 a-token-of-23-bytes-all";
        assert!(secrets.occur_in_input(&input) && secrets.overwrite_in(&mut input));
        assert_eq!(&input, b"x: [secret]***************\r\ny: secret78 [secret]***************");
        assert!(!secrets.occur_in_input(&input) && !secrets.overwrite_in(&mut input));
        // At the very end, behind what begins like it, and more than once.
        let mut input = *b"a-token-a-token-of-23-bytes-alla-token-of-23-bytes-all";
        assert!(secrets.occur_in_input(&input) && secrets.overwrite_in(&mut input));
        assert_eq!(&input, b"a-token-[secret]***************[secret]***************");
        assert_eq!(secrets.redact_text("[secret]*** and [secret]"), "[secret] and [secret]");
        assert!(
            secrets.occurred_in(b"an upload's ID [secret]***", MIN_SECRET_BYTES),
            "an overwritten secret counts"
        );
    }

    /// A secret that is a word is also in keys that are compared with ours.
    #[test]
    fn short_secrets_do_not_tear_what_is_compared() {
        let secrets = secrets();
        assert_eq!(RawText("docs/secret78.html".to_owned()).key(&secrets), "docs/secret78.html");
        assert_eq!(RawText("docs/a-token-of-23-bytes-all".to_owned()).key(&secrets), "docs/[secret]");
        assert!(RawText("secret78".to_owned()).list_token("a continuation token", &secrets).is_ok());
        let short = Secrets::new(&Credentials::new("k", "abc"), "");
        assert_eq!(short.redact_text("an abc of tags"), "an abc of tags");
    }

    #[test]
    fn i8_what_is_too_long_or_repeats_a_secret_is_refused_by_its_name() {
        let secrets = secrets();
        let long = |bytes: usize| RawText("x".repeat(bytes));
        assert!(long(8192).upload_id(&secrets, Operation::Upload).is_ok());
        for (error, says) in [
            (long(8193).upload_id(&secrets, Operation::Upload), "upload ID of 8193 bytes; at most 8192"),
            (long(8193).list_token("a continuation token", &secrets), "continuation token of 8193 bytes"),
            (long(1025).etag(&secrets, Operation::Upload), "ETag of 1025 bytes; at most 1024"),
            (
                RawText("asecret78b".to_owned()).upload_id(&secrets, Operation::Upload),
                "upload ID that repeats a secret",
            ),
            (
                RawText("a-token-of-23-bytes-all".to_owned()).list_token("a continuation token", &secrets),
                "continuation token that repeats a secret",
            ),
        ] {
            let error = error.unwrap_err();
            assert!(error.message().contains(says) && !error.is_retryable(), "{error}");
            assert!(!error.to_string().contains("secret78"));
        }
    }
}
