//! The headers that are stored with an object: the ones from the settings, Content-Type, checksum, upload token.

pub(crate) mod rules;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::backend::DueHeaders;
use crate::backend::s3::S3Backend;
use crate::error::StorageError;
use crate::key::RemoteKey;

/// Bytes of the headers of every object together. S3 stores 2 KB of user-defined metadata (Amazon S3 User Guide,
/// "Working with object metadata"); the rest is room for the other headers.
const MAX_HEADERS_BYTES: usize = 4 * 1024;

/// The metadata that identifies the multipart upload an object came from.
pub(crate) const UPLOAD_TOKEN: &str = "x-amz-meta-brigade-upload";

/// The metadata that holds the proof of origin ([`Proof`](crate::backend::Proof)).
pub(crate) const PROOF: &str = "x-amz-meta-brigade";

/// Headers that this library sets per request, or that would change what is signed or sent.
const RESERVED: [&str; 13] = [
    "authorization",
    "connection",
    "content-length",
    "content-md5",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// Media types that `mime_guess` lacks or has outdated. As in the IANA registry
/// (application/vnd.debian.binary-package, application/vnd.apple.mpegurl, application/yaml, application/toml,
/// application/zstd), RFC 9239 (text/javascript for every kind of script), ECMA-426 (source maps). Types that nobody
/// registered are as nginx, Apache or Fedora's mirrors send them.
const TYPES: [(&str, &str); 13] = [
    ("cjs", "text/javascript"),
    ("deb", "application/vnd.debian.binary-package"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("map", "application/json"),
    ("mjs", "text/javascript"),
    ("mts", "video/mp2t"),
    ("rpm", "application/x-rpm"),
    ("toml", "application/toml"),
    // Segments of HLS streams: a browser never loads TypeScript source.
    ("ts", "video/mp2t"),
    ("xpi", "application/x-xpinstall"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zst", "application/zstd"),
];

/// Headers of a request that stores do not keep with the object.
const NOT_STORED: [&str; 2] = ["x-amz-expected-bucket-owner", "x-amz-request-payer"];

/// The headers of one kind of objects: of those that have the same media type and match the same rules.
pub(crate) struct ObjectHeaders {
    pub(crate) headers: HeaderMap,
    pub(crate) due: DueHeaders,
}

/// Checks the headers of every object and normalizes their values.
pub(crate) fn check_headers(given: &[(String, String)]) -> Result<HeaderMap, StorageError> {
    let mut headers = HeaderMap::new();
    if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_HEADERS_BYTES {
        return Err(StorageError::config("header", "all headers together are longer than 4 KiB"));
    }
    for (name, value) in given {
        let wrong = |problem: &str| StorageError::config("header", format!("{name:?}: {problem}"));
        let (header, value) = check_header(name, value).map_err(wrong)?;
        // A store would keep a type of its own choice.
        if value.is_empty() && header == CONTENT_TYPE {
            return Err(wrong("it has no value; leave it out for a type by the file's name"));
        }
        // Which of the two is meant, nobody knows.
        if headers.insert(header, value).is_some() {
            return Err(wrong("it is given twice"));
        }
    }
    Ok(headers)
}

/// Checks a header and normalizes its value. The error is what is wrong with it.
fn check_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), &'static str> {
    let header = HeaderName::try_from(name).map_err(|_| "not a header name")?;
    let is_checksum = header.as_str().starts_with("x-amz-checksum-");
    let is_of_copy = header.as_str().starts_with("x-amz-copy-source");
    // Set per request, or signed: a second value would break one or the other.
    if RESERVED.contains(&header.as_str())
        || is_checksum
        || is_of_copy
        || header == UPLOAD_TOKEN
        || header == PROOF
    {
        return Err("it is set by this library");
    }
    if header.as_str().starts_with("x-amz-server-side-encryption-customer-") {
        return Err("customer-provided keys (SSE-C) are not supported: the key would be written to logs");
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("the value is not ASCII; encode it (RFC 2047)");
    }
    // Stores sign runs of spaces differently (see `auth::sign`), so none are sent.
    let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let value = HeaderValue::try_from(value).map_err(|_| "the value cannot be sent")?;
    Ok((header, value))
}

/// Returns the headers to store with the object of a key.
pub(crate) fn object_headers(s3: &S3Backend, key: &RemoteKey) -> Result<HeaderMap, StorageError> {
    headers_of_kind(s3, key).map(|kind| kind.headers.clone())
}

/// Returns the digest of [`object_headers`] and of the checksum setting: it changes when they do.
pub(crate) fn due_headers(s3: &S3Backend, key: &RemoteKey) -> Result<DueHeaders, StorageError> {
    headers_of_kind(s3, key).map(|kind| kind.due)
}

fn headers_of_kind(s3: &S3Backend, key: &RemoteKey) -> Result<Arc<ObjectHeaders>, StorageError> {
    let media_type = media_type(key.as_str());
    s3.settings.headers.of(key.as_str(), media_type, |mut headers, is_explicit| {
        // A type from the settings comes first.
        if !headers.contains_key(CONTENT_TYPE) {
            set_header(&mut headers, "content-type", &content_type(media_type))?;
        }
        let digest = digest_of(&headers, s3.settings.checksum_header);
        Ok(ObjectHeaders { headers, due: DueHeaders { digest, is_explicit } })
    })
}

fn digest_of(headers: &HeaderMap, with_checksum: bool) -> [u8; 32] {
    let stored = headers.iter().filter(|(name, _)| is_stored(name));
    let mut lines: Vec<_> = stored
        .map(|(name, value)| [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat())
        .collect();
    // The order of headers means nothing.
    lines.sort_unstable();
    // Objects without a checksum get one once it is asked for.
    lines.push(vec![u8::from(with_checksum)]);
    Sha256::digest(lines.concat()).into()
}

fn is_stored(name: &HeaderName) -> bool {
    !NOT_STORED.contains(&name.as_str())
}

/// Returns the headers to store with an object of the state: those of the settings that a bucket may demand, and no
/// others. A storage class, an encoding or a public ACL is meant for files.
pub(crate) fn state_headers(s3: &S3Backend, content_type: &str) -> Result<HeaderMap, StorageError> {
    let is_demanded = |name: &HeaderName, value: &HeaderValue| {
        name.as_str().starts_with("x-amz-server-side-encryption")
            || matches!(name.as_str(), "x-amz-expected-bucket-owner" | "x-amz-request-payer")
            || name == "x-amz-acl" && value.as_bytes().starts_with(b"bucket-owner-")
    };
    let demanded = s3.settings.headers.common.iter().filter(|(name, value)| is_demanded(name, value));
    let mut headers: HeaderMap = demanded.map(|(name, value)| (name.clone(), value.clone())).collect();
    set_header(&mut headers, "content-type", content_type)?;
    Ok(headers)
}

/// Adds the checksum that the store keeps with the object, if the settings ask for it.
pub(crate) fn add_checksum(
    s3: &S3Backend,
    headers: &mut HeaderMap,
    sha256: &[u8; 32],
) -> Result<(), StorageError> {
    if s3.settings.checksum_header {
        set_header(headers, "x-amz-checksum-sha256", &BASE64_STANDARD.encode(sha256))?;
    }
    Ok(())
}

/// Sets a header that this library makes.
pub(crate) fn set_header(
    headers: &mut HeaderMap,
    name: &'static str,
    value: &str,
) -> Result<(), StorageError> {
    let value = HeaderValue::from_str(value).map_err(|_| StorageError::config(name, "cannot be sent"))?;
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// Returns the media type for a file name.
fn media_type(key: &str) -> &'static str {
    let name = key.rsplit('/').next().unwrap_or(key);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let is = |ours: &str| extension.is_some_and(|extension| extension.eq_ignore_ascii_case(ours));
    let listed = TYPES.iter().find(|(ours, _)| is(ours));
    listed.map_or_else(
        || mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream"),
        |(_, media_type)| media_type,
    )
}

/// Returns the Content-Type of a media type. Text is UTF-8 unless the settings have another Content-Type.
fn content_type(media_type: &'static str) -> Cow<'static, str> {
    if media_type.starts_with("text/") {
        format!("{media_type}; charset=utf-8").into()
    } else {
        media_type.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_the_types_that_the_web_uses() {
        for (name, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("a/b.css", "text/css; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.cjs", "text/javascript; charset=utf-8"),
            ("LIST.TXT", "text/plain; charset=utf-8"),
            ("notes.md", "text/markdown; charset=utf-8"),
            ("data.csv", "text/csv; charset=utf-8"),
            ("app.js.map", "application/json"),
            ("data.json", "application/json"),
            ("site.webmanifest", "application/manifest+json"),
            ("feed.xml", "text/xml; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("photo.avif", "image/avif"),
            ("photo.webp", "image/webp"),
            ("photo.jpeg", "image/jpeg"),
            ("font.woff2", "font/woff2"),
            ("module.wasm", "application/wasm"),
            ("segment0.ts", "video/mp2t"),
            ("live.m3u8", "application/vnd.apple.mpegurl"),
            ("film.mp4", "video/mp4"),
            ("package.rpm", "application/x-rpm"),
            ("package.deb", "application/vnd.debian.binary-package"),
            ("archive.tar.gz", "application/gzip"),
            ("archive.tar.zst", "application/zstd"),
            ("archive.zip", "application/zip"),
            ("paper.pdf", "application/pdf"),
            ("config.yml", "application/yaml"),
            ("Cargo.toml", "application/toml"),
            ("unknown.xyz-of-ours", "application/octet-stream"),
            ("no-extension", "application/octet-stream"),
            ("a.ts/no-extension", "application/octet-stream"),
            (".html", "application/octet-stream"),
            ("ts", "application/octet-stream"),
        ] {
            assert_eq!(content_type(media_type(name)), expected, "{name}");
        }
    }
}
