//! Evidence that a successful response comes from a store. Login pages and proxies send 200 to any request.

use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, Method, StatusCode};

use crate::backend::s3::redaction::truncated;
use crate::backend::s3::request::{BodyContent, S3Request, S3Response};
use crate::backend::s3::xml;
use crate::error::{ErrorKind, StorageError};

/// Headers that only stores send: an `ETag` or a request ID. AWS and most others send `x-amz-request-id`, AWS and B2
/// `x-amz-id-2`, moto `x-amzn-requestid`, GCS `x-guploader-uploadid`. Garage and R2 send no ID, but an `ETag`.
const STORE_HEADERS: [&str; 5] =
    ["etag", "x-amz-request-id", "x-amz-id-2", "x-amzn-requestid", "x-guploader-uploadid"];

/// Refuses a success without evidence that a store sent it.
///
/// The download of a file is compared as a whole, and the metadata in a response to HEAD is our own. Everything else must have a
/// store's header or be an XML result. A 204 to a DELETE may have neither and is accepted: the next listing shows what
/// it deleted. An HTML page is never a store's; an empty response that is only labelled HTML may be.
pub(crate) fn check(request: &S3Request<'_>, response: &S3Response) -> Result<(), StorageError> {
    let S3Response { status, headers, body, .. } = response;
    if request.content == BodyContent::FileReceived || request.method == Method::HEAD {
        return Ok(());
    }
    let content_type = header_text(headers, CONTENT_TYPE.as_str());
    let html = content_type.as_deref().is_some_and(is_html);
    let has_store_header = STORE_HEADERS.iter().any(|mark| headers.contains_key(*mark));
    // Some stores label an empty body as HTML; none sends a page. One that was streamed may have been a page.
    let is_store = if html {
        body.is_empty() && has_store_header && request.expected == 0
    } else {
        has_store_header
            || xml::is_result(body)
            || (request.method == Method::DELETE && *status == StatusCode::NO_CONTENT)
    };
    if is_store {
        return Ok(());
    }
    let content_type = content_type.unwrap_or_else(|| "no content type".to_owned());
    // Content type and server tell which proxy it is.
    let server = header_text(headers, SERVER.as_str()).map(|server| format!(" (server: {server})"));
    let what = format!(
        "answered {} with {content_type}{}, which no S3 store does: is a proxy or login page in between?",
        status.as_u16(),
        server.unwrap_or_default()
    );
    Err(StorageError::new(ErrorKind::Protocol, request.operation, what))
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| truncated(&String::from_utf8_lossy(value.as_bytes())))
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
    use crate::error::Operation;

    fn is_store(method: &Method, status: u16, headers: &[(&'static str, &'static str)], body: &str) -> bool {
        let operation = if method == Method::GET { Operation::List } else { Operation::Upload };
        let request = S3Request::plain(operation, method.clone(), "k", "/b/k".to_owned(), String::new());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let status = StatusCode::from_u16(status).unwrap();
        let (body, secrets) = (body.as_bytes().to_vec(), Secrets::none().into());
        check(&request, &S3Response { status, headers: headers.collect(), body, secrets }).is_ok()
    }

    #[test]
    fn stores_show_themselves_by_a_mark_or_a_result() {
        let result = "<?xml version='1.0'?><DeleteResult/>";
        for mark in STORE_HEADERS {
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
