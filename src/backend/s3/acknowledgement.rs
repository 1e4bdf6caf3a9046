//! Whether a success is a store's: login pages and proxies answer 200 to whatever they are sent.

use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, Method, StatusCode};

use crate::backend::s3::redaction::clipped;
use crate::backend::s3::request::{Answer, S3Request};
use crate::backend::s3::xml;
use crate::error::{ErrorKind, Operation, StorageError};

/// Headers that stores give and others do not: a tag of what was stored, or the request's ID. `x-amz-request-id` has
/// AWS and most others, `x-amz-id-2` AWS and B2, `x-amzn-requestid` moto, `x-guploader-uploadid` GCS. Garage and R2
/// give no ID, but a tag.
const MARKS: [&str; 5] =
    ["etag", "x-amz-request-id", "x-amz-id-2", "x-amzn-requestid", "x-guploader-uploadid"];

/// Refuses a success that nothing shows to be a store's.
///
/// What is downloaded is compared as a whole, and what HEAD tells is proved by our own metadata; all else has to have
/// a mark or be an XML result. A 204 to a DELETE may have nothing: it is taken for a store's, and the next listing
/// shows what it deleted. A page of HTML is never a store's; an empty answer that is only labelled so may be.
pub(crate) fn check(ask: &S3Request<'_>, answer: &Answer) -> Result<(), StorageError> {
    let Answer { status, headers, body, .. } = answer;
    if ask.operation == Operation::Download || ask.method == Method::HEAD {
        return Ok(());
    }
    let content_type = text_of(headers, CONTENT_TYPE.as_str());
    let html = content_type.as_deref().is_some_and(is_html);
    let marked = MARKS.iter().any(|mark| headers.contains_key(*mark));
    let is_store = if html {
        body.is_empty() && marked
    } else {
        marked || xml::is_result(body) || (ask.method == Method::DELETE && *status == StatusCode::NO_CONTENT)
    };
    if is_store {
        return Ok(());
    }
    let content_type = content_type.unwrap_or_else(|| "no content type".to_owned());
    let server = text_of(headers, SERVER.as_str()).map(|server| format!(" (server: {server})"));
    let what = format!(
        "answered {} with {content_type}{}, which no S3 store does: is a proxy or login page in between?",
        status.as_u16(),
        server.unwrap_or_default()
    );
    Err(StorageError::new(ErrorKind::Protocol, ask.operation, what))
}

fn text_of(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| clipped(&String::from_utf8_lossy(value.as_bytes())))
}

fn is_html(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "text/html" || kind == "application/xhtml+xml"
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::backend::s3::redaction::Secrets;

    fn is_store(method: &Method, status: u16, headers: &[(&'static str, &'static str)], body: &str) -> bool {
        let operation = if method == Method::GET { Operation::List } else { Operation::Upload };
        let ask = S3Request::plain(operation, method.clone(), "k", "/b/k".to_owned(), String::new());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).unwrap();
        let (body, secrets) = (body.as_bytes().to_vec(), Secrets::none().into());
        check(&ask, &Answer { status, headers: headers.collect(), body, secrets }).is_ok()
    }

    #[test]
    fn stores_show_themselves_by_a_mark_or_a_result() {
        let result = "<?xml version='1.0'?><DeleteResult/>";
        for mark in MARKS {
            assert!(is_store(&Method::PUT, 200, &[(mark, "x")], ""), "{mark}");
            assert!(is_store(&Method::PUT, 200, &[(mark, "x"), ("content-type", "text/html")], ""), "{mark}");
            assert!(
                !is_store(&Method::PUT, 200, &[(mark, "x"), ("content-type", "Text/HTML; x")], "<p>"),
                "{mark}"
            );
        }
        assert!(is_store(&Method::POST, 200, &[], result) && is_store(&Method::GET, 200, &[], result));
        assert!(is_store(&Method::DELETE, 204, &[], ""));
        for (method, status, headers, body) in [
            (&Method::PUT, 200, &[][..], ""),
            (&Method::DELETE, 200, &[], ""),
            (&Method::DELETE, 204, &[("content-type", "text/html")], ""),
            (&Method::POST, 204, &[], ""),
            (&Method::POST, 200, &[("content-type", "application/json")], "{}"),
            (&Method::POST, 200, &[("content-type", "application/xhtml+xml")], result),
            (&Method::GET, 200, &[], "<login/>"),
        ] {
            assert!(!is_store(method, status, headers, body), "{method} {status} {headers:?} {body}");
        }
    }
}
