//! What a store says, before anything of it is kept, shown or sent back: without what it repeats of our secrets, and
//! of a size that can be meant.
//!
//! # Architecture
//! [`Secrets`] are those of one request. The transport has them write over what comes in as it was sent, before the
//! HTTP layer, which logs all that it reads at TRACE level, has it. The client asks them for the headers of the answer.
//! The texts of its body may be encoded, as the names in XML and URLs are: they are [`Raw`], which gives them out
//! through [`Secrets`] only.

use http::{HeaderMap, HeaderValue};
use memchr::memchr_iter;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::redact;

/// What is shorter is not cut out: a word that is also in tags and texts would tear them.
const SHORTEST_SECRET: usize = 8;
/// The same for keys and page tokens, which are compared and sent back: a password may be a word in them.
const SHORTEST_IN_A_KEY: usize = 16;
/// Stands in the place of a secret, as [`redact`] has it.
const CUT: &str = "[secret]";

/// Bytes of a text of the store's that are repeated: what a log can take.
const MOST_OF_A_TEXT: usize = 1024;
/// Tags are 32 to 128 bytes; the cache keeps one for each object.
pub(crate) const MOST_OF_AN_ETAG: usize = 1024;
/// Upload IDs are up to 200 bytes at AWS, page tokens up to 3 KiB where they hold an encoded key. Both go into a
/// request's line, of which servers take 8 KiB.
pub(crate) const MOST_OF_A_MARK: usize = 8 * 1024;

/// What a request was sent with and nobody may see: the secret key, the session token, the signature, the
/// `Authorization` header. The access key's ID may be shown.
pub(crate) struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    pub(crate) fn new(credentials: &Credentials, authorization: &str) -> Self {
        let signature = authorization.rsplit_once("Signature=").map(|(_, signature)| signature);
        let all =
            [Some(credentials.secret_key()), credentials.session_token(), signature, Some(authorization)];
        Self::of(all.into_iter().flatten())
    }

    fn of<'a>(all: impl IntoIterator<Item = &'a str>) -> Self {
        let long = all.into_iter().filter(|secret| secret.len() >= SHORTEST_SECRET);
        let mut all: Vec<_> = long.map(|secret| Zeroizing::new(secret.to_owned())).collect();
        // The signature stands in the header: the longest goes first.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// Writes over what bytes as they come in repeat, without changing their number. Says whether there was something.
    pub(crate) fn write_over(&self, input: &mut [u8]) -> bool {
        let mut found = false;
        for secret in self.of_at_least(SHORTEST_IN_A_KEY) {
            let mut from = 0;
            while let Some(at) = find(&input[from..], secret) {
                let place = &mut input[from + at..][..secret.len()];
                place.fill(b'*');
                place[..CUT.len()].copy_from_slice(CUT.as_bytes());
                (from, found) = (from + at + secret.len(), true);
            }
        }
        found
    }

    /// Whether bytes as they come in repeat something.
    pub(crate) fn are_among(&self, input: &[u8]) -> bool {
        self.of_at_least(SHORTEST_IN_A_KEY).any(|secret| find(input, secret).is_some())
    }

    /// The headers of an answer, each without what it repeats.
    pub(crate) fn headers(&self, headers: &HeaderMap) -> HeaderMap {
        let without = |value: &HeaderValue| {
            if !self.are_in(value.as_bytes(), SHORTEST_SECRET) {
                return value.clone();
            }
            let text = self.cut(&String::from_utf8_lossy(value.as_bytes()));
            HeaderValue::from_str(&text).unwrap_or(NOTHING)
        };
        headers.iter().map(|(name, value)| (name.clone(), without(value))).collect()
    }

    /// A text for people.
    pub(crate) fn text(&self, text: &str) -> String {
        clipped(&self.cut(text))
    }

    fn cut(&self, text: &str) -> String {
        self.cut_from(text, SHORTEST_SECRET)
    }

    fn cut_from(&self, text: &str, shortest: usize) -> String {
        if !self.are_in(text.as_bytes(), shortest) {
            return text.to_owned();
        }
        let text = redact(text, &self.of_at_least(shortest).collect::<Vec<_>>());
        // What was written over is as long as it was.
        let mut parts = text.split(CUT);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + CUT + part.trim_start_matches('*'))
    }

    /// Whether a text repeats something, or did before it was written over.
    fn are_in(&self, text: &[u8], shortest: usize) -> bool {
        let mut places = self.of_at_least(shortest).chain([CUT]).map(|secret| find(text, secret));
        places.any(|place| place.is_some())
    }

    fn of_at_least(&self, bytes: usize) -> impl Iterator<Item = &str> {
        self.0.iter().map(|secret| secret.as_str()).filter(move |secret| secret.len() >= bytes)
    }
}

/// Where a secret stands. Each header of each answer is looked through, for other secrets each time, and building a
/// searcher costs more than looking where the first byte stands.
fn find(text: &[u8], secret: &str) -> Option<usize> {
    let (first, last) = (*secret.as_bytes().first()?, text.len().checked_sub(secret.len())?);
    memchr_iter(first, &text[..=last]).find(|at| text[*at..].starts_with(secret.as_bytes()))
}

const NOTHING: HeaderValue = HeaderValue::from_static("");

/// A text of the store's as it came.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Raw(String);

impl Raw {
    /// For people.
    pub(crate) fn text(&self, secrets: &Secrets) -> String {
        secrets.text(&self.0)
    }

    /// An object's key, to be compared.
    pub(crate) fn key(&self, secrets: &Secrets) -> String {
        secrets.cut_from(&self.0, SHORTEST_IN_A_KEY)
    }

    /// The same, of which something is to be decoded first.
    pub(crate) fn decoded<E>(self, decode: impl FnOnce(String) -> Result<String, E>) -> Result<Self, E> {
        decode(self.0).map(Self)
    }

    /// An object's tag, to be kept and compared.
    pub(crate) fn etag(&self, secrets: &Secrets, operation: Operation) -> Result<String, StorageError> {
        etag(&secrets.cut(&self.0), operation)
    }

    /// An upload's ID, to be kept, shown and sent back as it is.
    pub(crate) fn upload_id(self, secrets: &Secrets, operation: Operation) -> Result<String, StorageError> {
        self.mark("an upload ID", SHORTEST_SECRET, secrets, operation)
    }

    /// Where the next page of a listing begins, to be sent back as it is.
    pub(crate) fn page_token(self, secrets: &Secrets) -> Result<String, StorageError> {
        self.mark("a page token", SHORTEST_IN_A_KEY, secrets, Operation::List)
    }

    fn mark(
        self,
        what: &str,
        shortest: usize,
        secrets: &Secrets,
        operation: Operation,
    ) -> Result<String, StorageError> {
        if secrets.are_in(self.0.as_bytes(), shortest) {
            let why =
                format!("the store gave {what} that repeats a secret of the request: is this your store?");
            return Err(refused(operation, why));
        }
        within(what, self.0, MOST_OF_A_MARK, operation)
    }
}

/// A tag without the quotes that some answers have and some leave out.
pub(crate) fn etag(tag: &str, operation: Operation) -> Result<String, StorageError> {
    within("an ETag", tag.trim_matches('"').to_owned(), MOST_OF_AN_ETAG, operation)
}

fn within(what: &str, text: String, most: usize, operation: Operation) -> Result<String, StorageError> {
    if text.len() <= most {
        return Ok(text);
    }
    let why = format!("the store gave {what} of {} bytes; at most {most} are taken", text.len());
    Err(refused(operation, why))
}

fn refused(operation: Operation, why: String) -> StorageError {
    StorageError::new(ErrorKind::Protocol, operation, why).retryable(false)
}

/// A text of a length that a log can take.
pub(crate) fn clipped(text: &str) -> String {
    if text.len() <= MOST_OF_A_TEXT {
        return text.to_owned();
    }
    let end = (0..=MOST_OF_A_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

#[cfg(test)]
impl Secrets {
    /// Of a request that had none, for the tests of what reads answers.
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
        assert_eq!(secrets.text(said), "THEACCESSKEY [secret] [secret] [secret]");
        let whole = "AWS4-HMAC-SHA256 Credential=THEACCESSKEY/x,Signature=0123456789abcdef.";
        assert_eq!(secrets.text(whole), "[secret].");
        let tag = Raw("\"xsecret78\"".to_owned()).etag(&secrets, Operation::Upload).unwrap();
        assert_eq!(tag, "x[secret]");
        let headers = HeaderMap::from_iter([
            (http::header::ETAG, HeaderValue::from_static("secret78")),
            (http::header::DATE, HeaderValue::from_static("today")),
            (http::header::SERVER, HeaderValue::from_bytes(b"\xffsecret78").unwrap()),
        ]);
        let headers = secrets.headers(&headers);
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
        assert!(secrets.are_among(&input) && secrets.write_over(&mut input));
        assert_eq!(&input, b"x: [secret]***************\r\ny: secret78 [secret]***************");
        assert!(!secrets.are_among(&input) && !secrets.write_over(&mut input));
        // At the very end, behind what begins like it, and more than once.
        let mut input = *b"a-token-a-token-of-23-bytes-alla-token-of-23-bytes-all";
        assert!(secrets.are_among(&input) && secrets.write_over(&mut input));
        assert_eq!(&input, b"a-token-[secret]***************[secret]***************");
        assert_eq!(secrets.text("[secret]*** and [secret]"), "[secret] and [secret]");
        assert!(
            secrets.are_in(b"an upload's ID [secret]***", SHORTEST_SECRET),
            "what was written over counts"
        );
    }

    /// A secret that is a word is also in keys that are compared with ours.
    #[test]
    fn short_secrets_do_not_tear_what_is_compared() {
        let secrets = secrets();
        assert_eq!(Raw("docs/secret78.html".to_owned()).key(&secrets), "docs/secret78.html");
        assert_eq!(Raw("docs/a-token-of-23-bytes-all".to_owned()).key(&secrets), "docs/[secret]");
        assert!(Raw("secret78".to_owned()).page_token(&secrets).is_ok());
        let short = Secrets::new(&Credentials::new("k", "abc"), "");
        assert_eq!(short.text("an abc of tags"), "an abc of tags");
    }

    #[test]
    fn i8_what_is_too_long_or_repeats_a_secret_is_refused_by_its_name() {
        let secrets = secrets();
        let long = |bytes: usize| Raw("x".repeat(bytes));
        assert!(long(8192).upload_id(&secrets, Operation::Upload).is_ok());
        for (error, says) in [
            (long(8193).upload_id(&secrets, Operation::Upload), "upload ID of 8193 bytes; at most 8192"),
            (long(8193).page_token(&secrets), "page token of 8193 bytes"),
            (long(1025).etag(&secrets, Operation::Upload), "ETag of 1025 bytes; at most 1024"),
            (
                Raw("asecret78b".to_owned()).upload_id(&secrets, Operation::Upload),
                "upload ID that repeats a secret",
            ),
            (
                Raw("a-token-of-23-bytes-all".to_owned()).page_token(&secrets),
                "page token that repeats a secret",
            ),
        ] {
            let error = error.unwrap_err();
            assert!(error.message().contains(says) && !error.is_retryable(), "{error}");
            assert!(!error.to_string().contains("secret78"));
        }
    }
}
