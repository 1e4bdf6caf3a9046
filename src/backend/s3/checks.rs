//! What a setting of [`S3Config`](crate::backend::s3::config::S3Config) may be.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use s3::region::Region;

use crate::error::StorageError;

/// What S3 takes of headers that are kept with an object (Amazon S3 User Guide, "Working with object
/// metadata"), and something for the others.
const MOST_OF_HEADERS: usize = 4 * 1024;

/// Stored with objects that went up in parts: it proves whose upload made them.
pub(crate) const UPLOAD_TOKEN: &str = "x-amz-meta-brigade-upload";

/// Headers that are set per request, or would change what is signed or sent.
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

pub(crate) fn check_bucket(name: &str) -> Result<(), StorageError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.contains('/') {
        "a bucket's name has no '/'; what follows it belongs into bucket_prefix"
    } else if name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        "only letters, digits, '-', '.' and '_' are allowed, 255 at most"
    } else {
        return Ok(());
    };
    Err(StorageError::config("bucket", format!("{name:?}: {problem}")))
}

/// An address without what a signed one has behind it.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Scheme and authority, nothing else.
pub(crate) fn check_endpoint(text: &str) -> Result<String, StorageError> {
    let wrong =
        |problem: &str| StorageError::config("endpoint", format!("{:?}: {problem}", without_query(text)));
    if text.contains('@') {
        return Err(StorageError::config("endpoint", "it holds a user name; use credentials instead"));
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = with_scheme.trim_end_matches('/').parse().map_err(|_| wrong("it is no URL"))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| wrong("it begins with neither https:// nor http://"))?;
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.as_str();
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(wrong("it has a path; the bucket goes into bucket, the rest into bucket_prefix"));
    }
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

pub(crate) fn resolve_region(name: Option<&str>, endpoint: Option<String>) -> Result<Region, StorageError> {
    let plain =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if let Some(name) = name
        && !plain(&name)
    {
        return Err(StorageError::config("region", format!("{name:?} is no region's name")));
    }
    match (name, endpoint) {
        (name, Some(endpoint)) => {
            Ok(Region::Custom { region: name.unwrap_or("us-east-1").to_owned(), endpoint })
        }
        (None, None) => Err(StorageError::config("region", "missing; AWS needs one, such as \"us-east-1\"")),
        (Some("auto"), None) => Err(StorageError::config("region", "\"auto\" needs an endpoint")),
        (Some(name), None) => match name.parse() {
            Ok(Region::Custom { .. }) | Err(_) => Ok(Region::Custom {
                region: name.to_owned(),
                endpoint: format!("https://s3.{name}.amazonaws.com"),
            }),
            Ok(known) => Ok(known),
        },
    }
}

pub(crate) fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// A base of URLs, refused where it is none.
pub(crate) fn check_base(field: &str, url: &str) -> Result<String, StorageError> {
    let absolute = url.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.query().is_none());
    if !absolute || url.contains('#') {
        let why = format!("{:?} is no absolute URL without a query", without_query(url));
        return Err(StorageError::config(field, why));
    }
    Ok(url.to_owned())
}

pub(crate) fn check_headers(given: &[(String, String)]) -> Result<HeaderMap, StorageError> {
    let mut headers = HeaderMap::new();
    if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MOST_OF_HEADERS {
        return Err(StorageError::config("header", "all of them together are longer than 4 KiB"));
    }
    for (name, value) in given {
        let wrong = |problem: &str| StorageError::config("header", format!("{name:?}: {problem}"));
        let header = HeaderName::try_from(name).map_err(|_| wrong("it is no header's name"))?;
        if RESERVED.contains(&header.as_str())
            || header.as_str().starts_with("x-amz-checksum-")
            || header == UPLOAD_TOKEN
        {
            return Err(wrong("it is set by this library"));
        }
        if header.as_str().starts_with("x-amz-server-side-encryption-customer-") {
            return Err(wrong("keys of one's own (SSE-C) are not supported: they would be written to logs"));
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong("its value is not plain ASCII; encode it (RFC 2047)"));
        }
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let value = HeaderValue::try_from(value).map_err(|_| wrong("its value cannot be sent"))?;
        if headers.insert(header, value).is_some() {
            return Err(wrong("it is given twice"));
        }
    }
    Ok(headers)
}
