//! Object keys, bucket prefixes, and their encoding in URLs.

use std::fmt;
use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{ErrorKind, Operation, StorageError};

/// The longest key that S3 allows, in bytes of UTF-8, prefix included
/// (Amazon S3 User Guide, "Naming Amazon S3 objects").
pub const MAX_KEY_BYTES: usize = 1024;

/// The name of the folder that holds a publisher's state. Nothing of that name is ever published.
pub(crate) const RESERVED_NAME: &str = ".brigade";

/// Returns true if this key or path, or a folder above it, has the reserved name.
pub(crate) fn is_reserved(path: impl AsRef<Path>) -> bool {
    path.as_ref().iter().any(|name| name == RESERVED_NAME)
}

/// The key of an object without the bucket prefix: relative, `/`-separated UTF-8, 1 to 1,024 bytes, with no
/// empty, `.` or `..` segment and no NUL. Everything else is allowed and is sent unchanged: spaces, `+`, `%`,
/// newlines, emoji, both Unicode forms of the same letter.
///
/// Keys are ordered by their bytes, as S3 lists them.
///
/// ```
/// use bucket_brigade::RemoteKey;
/// assert_eq!(RemoteKey::new("a/b c.txt").unwrap().as_str(), "a/b c.txt");
/// assert!(RemoteKey::new("a/../b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey(String);

impl RemoteKey {
    /// Checks a string and makes it a key.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`], with a message that says which rule is broken.
    pub fn new(key: impl Into<String>) -> Result<Self, StorageError> {
        let key = key.into();
        match find_problem(&key) {
            None => Ok(Self(key)),
            Some(why) => Err(StorageError::new(ErrorKind::InvalidKey, Operation::Upload, why).with_key(key)),
        }
    }

    /// The key of the file with this path below the root; `None` if the path is not UTF-8.
    pub(crate) fn from_relative(path: &Path) -> Option<Result<Self, StorageError>> {
        path.to_str().map(Self::new)
    }

    /// The key as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as a `String`.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for RemoteKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

fn find_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("a key cannot be empty");
    }
    if key.len() > MAX_KEY_BYTES {
        return Some("a key cannot be longer than 1,024 bytes");
    }
    if key.contains('\0') {
        return Some("a key cannot contain a NUL byte");
    }
    find_bad_segment(key)
}

fn find_bad_segment(text: &str) -> Option<&'static str> {
    // Stores and proxies normalize such segments away, and the object would get another key or URL.
    text.split('/').find_map(|segment| match segment {
        "" => Some("a key is relative and has no empty segment (no leading, trailing or double '/')"),
        "." | ".." => Some("a key has no '.' or '..' segment"),
        _ => None,
    })
}

/// The prefix of every key in the bucket: empty, or segments that end in one `/`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Checks and normalizes a prefix: `""` and `"/"` are empty, `"a"` and `"/a/"` are both `a/`.
    pub(crate) fn new(text: &str) -> Result<Self, StorageError> {
        // Outer slashes are a matter of habit; inner double ones are an error and are refused below.
        let trimmed = text.trim_matches('/');
        if trimmed.is_empty() {
            return Ok(Self::default());
        }
        if trimmed.contains('\0') {
            return Err(StorageError::config("bucket_prefix", "it cannot contain a NUL byte"));
        }
        // One byte is for the slash at its end, one for a key.
        if trimmed.len() >= MAX_KEY_BYTES - 1 {
            let why = format!("its {} bytes leave no room for keys: S3 allows 1,024 in all", trimmed.len());
            return Err(StorageError::config("bucket_prefix", why));
        }
        if find_bad_segment(trimmed).is_some() {
            let why = format!("{text:?} has an empty, '.' or '..' segment");
            return Err(StorageError::config("bucket_prefix", why));
        }
        Ok(Self(format!("{trimmed}/")))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The number of bytes that a key may have after this prefix.
    pub(crate) fn room(&self) -> usize {
        MAX_KEY_BYTES - self.0.len()
    }

    /// Prefix and key together: the object's key in its bucket.
    pub(crate) fn join(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// As [`join`](Self::join), but fails if the result is longer than S3 allows.
    pub(crate) fn join_checked(&self, key: &RemoteKey) -> Result<String, StorageError> {
        let full = self.join(key.as_str());
        if full.len() <= MAX_KEY_BYTES {
            return Ok(full);
        }
        let why = format!("with its prefix the key has {} bytes: S3 allows 1,024", full.len());
        Err(StorageError::new(ErrorKind::InvalidKey, Operation::Upload, why).with_key(key.as_str()))
    }
}

/// Percent-encodes a key as AWS signs it: all bytes except `A-Z a-z 0-9 - . _ ~` and `/`.
/// Request paths and public URLs use the same string, so they cannot differ.
pub(crate) fn encode_path(key: &str) -> String {
    url_below("", key)
}

/// The bytes that are encoded: all except the unreserved ones (RFC 3986, 2.3) and the slash.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Appends the encoded key to `base`, with no slash between them. Allocates once.
pub(crate) fn url_below(base: &str, key: &str) -> String {
    // Encoded twice, the first time for the length: cheaper than a second allocation.
    let parts = || utf8_percent_encode(key, ENCODED);
    let mut url = String::with_capacity(base.len() + parts().map(str::len).sum::<usize>());
    url.push_str(base);
    url.extend(parts());
    url
}

/// Returns `base/key` with the key encoded. A base that ends in a slash gets no second one.
pub(crate) fn join_url(base: &str, key: &str) -> String {
    let base = base.strip_suffix('/').unwrap_or(base);
    url_below(&format!("{base}/"), key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn k3_dot_segments_empty_segments_absolute_paths_and_nul_are_refused() {
        for bad in ["", "/", "/a", "a/", "a//b", ".", "..", "a/./b", "a/..", "../a", "a\0b"] {
            assert_eq!(RemoteKey::new(bad).unwrap_err().kind(), ErrorKind::InvalidKey, "{bad:?}");
        }
    }

    #[test]
    fn reserved_is_the_whole_name_at_any_depth() {
        for key in
            [".brigade", ".brigade/head", "a/.brigade", "a/b/.brigade/c/d", "a//.brigade/", "/.brigade/x"]
        {
            assert!(is_reserved(key), "{key}");
        }
        for key in ["", "brigade", ".brigade2/x", "a/.brigade-no", "a.brigade/x", ".Brigade/x"] {
            assert!(!is_reserved(key), "{key}");
        }
    }

    #[test]
    fn k4_a_key_of_1024_bytes_passes_and_1025_does_not() {
        for (length, good) in [(1023, true), (1024, true), (1025, false)] {
            assert_eq!(RemoteKey::new("k".repeat(length)).is_ok(), good);
        }
        let prefix = Prefix::new("pre").unwrap();
        for (length, good) in [(1019, true), (1020, true), (1021, false)] {
            let key = RemoteKey::new("k".repeat(length)).unwrap();
            assert_eq!(prefix.join_checked(&key).is_ok(), good, "{length} + 4");
        }
    }

    #[test]
    fn prefixes_never_make_a_double_slash() {
        for (given, expected) in [("", "k"), ("/", "k"), ("a", "a/k"), ("a/", "a/k"), ("/a/b/", "a/b/k")] {
            assert_eq!(Prefix::new(given).unwrap().join("k"), expected);
        }
        for bad in ["a//b", "a/../b", "./a", "a\0"] {
            let error = Prefix::new(bad).unwrap_err();
            assert!(error.message().starts_with("bucket_prefix: "), "{error}");
        }
    }

    #[test]
    fn one_trailing_slash_of_a_base_is_trimmed() {
        assert_eq!(join_url("http://h/x/", "a b/ü"), "http://h/x/a%20b/%C3%BC");
        assert_eq!(join_url("http://h/x", "a+b"), "http://h/x/a%2Bb");
    }

    proptest! {
        #[test]
        fn an_encoded_key_decodes_to_itself_and_is_plain_ascii(key in "\\PC{1,40}") {
            let encoded = encode_path(&key);
            prop_assert_eq!(&encoded, &s3::signing::uri_encode(&key, false));
            prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)));
            let decoded = percent_encoding::percent_decode_str(&encoded).decode_utf8().unwrap();
            prop_assert_eq!(decoded, key);
        }

        #[test]
        fn whatever_is_accepted_obeys_the_rules(key in "[a./\0 %]{0,12}") {
            let good = !key.is_empty() && !key.contains('\0')
                && key.split('/').all(|s| !matches!(s, "" | "." | ".."));
            prop_assert_eq!(RemoteKey::new(key).is_ok(), good);
        }
    }
}
