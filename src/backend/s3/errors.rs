//! The errors of failed responses and of the transport: pure functions.

use std::io;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use crate::backend::WRITES_RACED;
use crate::backend::s3::http::tunnel::ProxyError;
use crate::backend::s3::redaction::truncated;
use crate::backend::s3::request::{REQUEST_ID, header};
use crate::backend::s3::xml::ErrorBody;
use crate::error::{ErrorKind, Host, Operation, StorageError};

const TLS_ADVICE: &str =
    "check the endpoint's name and scheme; ca_file adds trusted certificates to the system's";

/// The least clock skew that is believed without the code for it. Garage refuses a clock with the code of any bad
/// request.
const MIN_SKEW: Duration = Duration::from_secs(300);

/// A response that is no success, redacted.
pub(crate) struct FailedResponse<'a> {
    pub(crate) operation: Operation,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: ErrorBody,
    pub(crate) bucket: &'a str,
    /// The time of day on this machine.
    pub(crate) now: SystemTime,
    /// The time of day that the request was signed with.
    pub(crate) signed: SystemTime,
}

/// Returns the kind of error for a code, else for a status.
pub(crate) fn kind_of_code(status: u16, code: &str) -> ErrorKind {
    match code {
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidSecurity"
        | "MissingSecurityHeader"
        | "NotSignedUp"
        | "AccountProblem" => ErrorKind::Credentials,
        // The status does not say so if an error comes with status 200.
        "AccessDenied" => ErrorKind::AccessDenied,
        "RequestTimeTooSkewed" => ErrorKind::ClockSkew,
        "NoSuchBucket" => ErrorKind::BucketMissing,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IncorrectEndpoint"
        | "IllegalLocationConstraintException" => ErrorKind::Region,
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded" => ErrorKind::Throttled,
        "BadDigest" | "XAmzContentSHA256Mismatch" | "InvalidDigest" => ErrorKind::Integrity,
        "RequestTimeout" | "RequestTimeoutException" | "IncompleteBody" => ErrorKind::Network,
        "EntityTooLarge" => ErrorKind::TooLarge,
        // AWS answers the last of these to conditional requests that race: none of them took effect.
        "InternalError" | "OperationAborted" | WRITES_RACED => ErrorKind::Server,
        "PreconditionFailed" => ErrorKind::Conflict,
        "NotImplemented" | "MethodNotAllowed" => ErrorKind::Unsupported,
        _ => kind_of_status(status, code),
    }
}

fn kind_of_status(status: u16, code: &str) -> ErrorKind {
    match status {
        // No redirect is followed: the signature is for this host.
        300..=399 => ErrorKind::Region,
        401 => ErrorKind::Credentials,
        403 => ErrorKind::AccessDenied,
        // A store says what it did not find. Without that, the response comes from a proxy in between.
        404 if code.is_empty() => ErrorKind::Protocol,
        404 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::Unsupported,
        408 => ErrorKind::Network,
        412 => ErrorKind::Conflict,
        413 => ErrorKind::TooLarge,
        429 | 503 => ErrorKind::Throttled,
        500..=599 => ErrorKind::Server,
        400..=499 => ErrorKind::Rejected,
        _ => ErrorKind::Protocol,
    }
}

/// Returns the error that a response reports, with advice.
pub(crate) fn from_response(mut facts: FailedResponse<'_>) -> StorageError {
    let body = std::mem::take(&mut facts.body);
    let header = |name: &str| header(facts.headers, name);
    let kind = kind_of_code(facts.status.as_u16(), body.code.as_deref().unwrap_or_default());
    let kind = if is_clock_refused(&facts, &body) {
        ErrorKind::ClockSkew
    } else if kind == ErrorKind::AccessDenied && is_key_refused(&body) {
        ErrorKind::Credentials
    } else {
        kind
    };
    let (code, message) = (body.code, body.message);
    let request_id = body.request_id.or_else(|| header(REQUEST_ID).map(truncated));
    // The region may be in a header, in the body, or in both.
    let region = header("x-amz-bucket-region").map(truncated).or(body.region);
    let endpoint = body.endpoint.as_deref().or_else(|| header("location")).and_then(origin_of);
    let mut text = format!("the store answered {}", facts.status.as_u16());
    // Shows which of several keys is in use.
    let key_id = body.access_key_id.map(|id| format!("(access key {id})"));
    for part in [&code, &message, &key_id].into_iter().flatten().filter(|part| !part.is_empty()) {
        text.push(' ');
        text.push_str(part);
    }
    let error = StorageError::new(kind, facts.operation, text).with_code(code).with_request_id(request_id);
    let skew = clock_skew(header("date"), facts.now);
    let error = with_advice(error, facts.bucket, region.as_deref(), endpoint.as_deref(), skew);
    match header("retry-after").and_then(|asked| retry_after_header(asked, header("date"), facts.now)) {
        // The header must not make an error retryable that is not.
        Some(wait) if error.is_retryable() => error.retry_after(wait),
        _ => error,
    }
}

/// Returns whether the store refused the clock although its code does not say so. Garage sends `InvalidRequest` with
/// "Bad request: Date is too old" (its `signature/payload.rs`). The response's `Date` must confirm it.
fn is_clock_refused(facts: &FailedResponse<'_>, body: &ErrorBody) -> bool {
    let vague = matches!(body.code.as_deref(), Some("InvalidRequest" | "AccessDenied"));
    let says = body.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let about_time = says.contains("date") || says.contains("time");
    let off = says.contains("too old") || says.contains("too far in the ");
    let skew = clock_skew(header(facts.headers, "date"), facts.signed);
    vague && about_time && off && skew.is_some_and(|(_, by)| by > MIN_SKEW)
}

/// Returns whether the store refused the access key or the signature although its code is that of a policy. Garage
/// sends `AccessDenied` with "Forbidden: No such key: GK…" and "Forbidden: Invalid signature" (its
/// `signature/payload.rs`), older Ceph gateways the latter.
fn is_key_refused(body: &ErrorBody) -> bool {
    let says = body.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let words = ["invalid signature", "no such key", "invalid access key"];
    matches!(body.code.as_deref(), Some("AccessDenied") | None)
        && words.iter().any(|words| says.contains(words))
}

/// Returns the scheme, if any, and the host of a URL. Path and query are those of the request and may hold a signature.
fn origin_of(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://").map_or(("", address), |(scheme, rest)| (scheme, rest));
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next().filter(|host| !host.is_empty())?;
    let separator = if scheme.is_empty() { "" } else { "://" };
    Some(truncated(&format!("{scheme}{separator}{host}")))
}

/// Returns the wait that `Retry-After` asks for, in seconds or as a date. The date is compared with the store's own
/// `Date`, not with our clock.
fn retry_after_header(asked: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = asked.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(asked.trim()).ok()?;
    let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(from).unwrap_or_default())
}

/// Returns the difference between our clock and the `Date` of a response, and whether our clock is behind.
pub(crate) fn clock_skew(date: Option<&str>, now: SystemTime) -> Option<(bool, Duration)> {
    let theirs = httpdate::parse_http_date(date?).ok()?;
    Some(match theirs.duration_since(now) {
        Ok(behind) => (true, behind),
        Err(ahead) => (false, ahead.duration()),
    })
}

/// Adds advice to the error of one key in a response that is a success as a whole.
pub(crate) fn with_advice_for_key(error: StorageError, bucket: &str) -> StorageError {
    with_advice(error, bucket, None, None, None)
}

fn with_advice(
    error: StorageError,
    bucket: &str,
    region: Option<&str>,
    endpoint: Option<&str>,
    skew: Option<(bool, Duration)>,
) -> StorageError {
    let advice = match error.kind() {
        ErrorKind::BucketMissing => format!(
            "there is no bucket \"{bucket}\" at this endpoint: check its name, region and endpoint; \
             buckets are never created here"
        ),
        ErrorKind::AccessDenied => {
            // The IAM actions, as a policy names them.
            let needed = match error.operation() {
                Operation::Delete => "s3:DeleteObject is needed",
                Operation::List => "s3:ListBucket is needed",
                Operation::Download => "s3:GetObject is needed",
                Operation::Abort => "s3:AbortMultipartUpload is needed",
                Operation::Copy => "s3:GetObject and s3:PutObject are needed",
                _ => "s3:PutObject, s3:DeleteObject and s3:ListBucket are needed",
            };
            format!("the credentials may not do this in bucket \"{bucket}\": {needed}")
        }
        ErrorKind::Credentials => "check access key, secret key and session token".to_owned(),
        ErrorKind::ClockSkew => match skew {
            None => "set this machine's clock".to_owned(),
            Some((behind, by)) => format!(
                "this machine's clock is {} min {} the store's: set it",
                by.as_secs().div_ceil(60),
                if behind { "behind" } else { "ahead of" }
            ),
        },
        ErrorKind::Region => match (region, endpoint) {
            (Some(region), _) => format!("bucket \"{bucket}\" lives in region {region}: set region to that"),
            (None, Some(endpoint)) => {
                format!("bucket \"{bucket}\" is served by {endpoint}: set endpoint to that")
            }
            (None, None) => format!("bucket \"{bucket}\" lives elsewhere: check region and endpoint"),
        },
        _ => return error,
    };
    error.advise(&advice)
}

/// Returns the error for a failure of the transport. `host` is the intended host.
pub(crate) fn from_transport(operation: Operation, host: &str, error: ureq::Error) -> StorageError {
    use ureq::Timeout;
    let fail = |kind, text: String| StorageError::new(kind, operation, text);
    match error {
        ureq::Error::Io(error) => from_io(operation, host, error),
        // Before a connection nothing was sent: the request has had no effect.
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            fail(ErrorKind::Connect, format!("{host}: connecting timed out"))
        }
        ureq::Error::Timeout(phase) => fail(ErrorKind::Timeout, format!("{host}: timed out ({phase})")),
        ureq::Error::HostNotFound => {
            fail(ErrorKind::Connect, format!("{host} does not resolve")).without_address(Host::Server)
        }
        ureq::Error::ConnectionFailed => fail(ErrorKind::Connect, format!("could not connect to {host}")),
        error @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_)) => {
            fail(ErrorKind::Tls, format!("{host}: the TLS connection failed"))
                .advise(TLS_ADVICE)
                .with_source(error)
        }
        error @ (ureq::Error::Protocol(_)
        | ureq::Error::LargeResponseHeader(..)
        | ureq::Error::BodyExceedsLimit(_)) => {
            fail(ErrorKind::Protocol, format!("{host}: invalid HTTP response")).with_source(error)
        }
        error => fail(ErrorKind::Other, format!("{host}: the request failed")).with_source(error),
    }
}

fn from_io(operation: Operation, host: &str, error: io::Error) -> StorageError {
    let error = match error.downcast::<StorageError>() {
        // Not from the network: the source or the run failed the body.
        Ok(ours) => return ours,
        Err(error) => error,
    };
    let error = match error.downcast::<ProxyError>() {
        Ok(proxy) => {
            let error = StorageError::new(proxy.kind, operation, proxy.text);
            return if proxy.without_address { error.without_address(Host::Proxy) } else { error };
        }
        Err(error) => error,
    };
    let kind = match error.kind() {
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NotFound => ErrorKind::Connect,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::Timeout,
        // Only rustls reports this kind: for a certificate or a handshake that it does not accept.
        io::ErrorKind::InvalidData => ErrorKind::Tls,
        _ => ErrorKind::Network,
    };
    let lost = StorageError::new(kind, operation, format!("{host}: {error}"));
    // The peer sent something that is no TLS record.
    let is_plain = error.to_string().contains("InvalidContentType");
    let lost = match kind {
        // The server does not speak TLS.
        ErrorKind::Tls if is_plain => lost.advise(&format!(
            "{host} seems to speak http, not https: write the endpoint as http://{host}, or as its https address"
        )),
        ErrorKind::Tls if error.to_string().contains("CaUsedAsEndEntity") => lost.advise(
            "the server's certificate is that of an authority (CA:TRUE), which cannot identify a server: make it with \
             basicConstraints=critical,CA:FALSE, or let it sign one for the server",
        ),
        ErrorKind::Tls if error.to_string().contains("alert: ProtocolVersion") => {
            lost.advise("the server accepts none of the TLS versions that are offered: min_tls sets the lowest")
        }
        ErrorKind::Tls if error.to_string().contains("alert: CertificateRequired") => {
            lost.advise("the server asks for a certificate: set client_certificate")
        }
        ErrorKind::Tls => lost.advise(TLS_ADVICE),
        // rustls reports the end of a connection during the handshake without a text; others have one.
        ErrorKind::Network if error.kind() == io::ErrorKind::UnexpectedEof && error.get_ref().is_none() => {
            lost.advise("the server closed the connection during the TLS handshake: does it speak http?")
        }
        // Only our resolver reports this kind.
        ErrorKind::Connect if error.kind() == io::ErrorKind::NotFound => lost.without_address(Host::Server),
        _ => lost,
    };
    lost.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> SystemTime {
        httpdate::parse_http_date("Tue, 24 Nov 2026 12:00:00 GMT").unwrap()
    }

    fn body_of(code: &str, message: &str) -> ErrorBody {
        ErrorBody { message: Some(message.to_owned()), ..ErrorBody::of_code(code) }
    }

    fn refused(status: u16, code: &str, headers: &[(&'static str, &'static str)]) -> StorageError {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect();
        from_response(FailedResponse {
            operation: Operation::Upload,
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            body: if code.is_empty() { ErrorBody::default() } else { body_of(code, "said so") },
            bucket: "b",
            now: noon(),
            signed: noon(),
        })
    }

    #[test]
    fn codes_decide_before_statuses() {
        for (status, code, kind, again) in [
            (403, "SignatureDoesNotMatch", ErrorKind::Credentials, false),
            (403, "RequestTimeTooSkewed", ErrorKind::ClockSkew, false),
            (403, "", ErrorKind::AccessDenied, false),
            (404, "NoSuchBucket", ErrorKind::BucketMissing, false),
            (404, "NoSuchUpload", ErrorKind::NotFound, false),
            (404, "", ErrorKind::Protocol, true),
            (400, "RequestTimeout", ErrorKind::Network, true),
            (400, "BadDigest", ErrorKind::Integrity, false),
            (400, "InvalidArgument", ErrorKind::Rejected, false),
            (500, "", ErrorKind::Server, true),
            (503, "SlowDown", ErrorKind::Throttled, true),
            (429, "", ErrorKind::Throttled, true),
            (501, "NotImplemented", ErrorKind::Unsupported, false),
            (412, "PreconditionFailed", ErrorKind::Conflict, false),
            (412, "", ErrorKind::Conflict, false),
            // In the place of a success.
            (200, "PreconditionFailed", ErrorKind::Conflict, false),
            (409, "ConditionalRequestConflict", ErrorKind::Server, true),
        ] {
            let error = refused(status, code, &[]);
            assert_eq!((error.kind(), error.is_retryable()), (kind, again), "{status} {code}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let missing = refused(404, "NoSuchBucket", &[]).to_string();
        assert!(missing.contains("no bucket \"b\"") && missing.contains("never created"), "{missing}");
        let region = refused(301, "PermanentRedirect", &[("x-amz-bucket-region", "eu-west-1")]);
        assert!(region.to_string().contains("set region to that"), "{region}");
        assert!(region.to_string().contains("eu-west-1"));
    }

    /// Garage and older Ceph gateways do this. The error was reported as a missing permission.
    #[test]
    fn a_key_that_is_refused_in_other_words_is_no_matter_of_policy() {
        let of = |code, message| {
            from_response(FailedResponse {
                operation: Operation::Upload,
                status: StatusCode::FORBIDDEN,
                headers: &HeaderMap::new(),
                body: body_of(code, message),
                bucket: "b",
                now: noon(),
                signed: noon(),
            })
        };
        for message in ["Forbidden: Invalid signature", "Forbidden: No such key: GK31c2f218a2e44f485b94239e"]
        {
            let error = of("AccessDenied", message);
            assert_eq!(error.kind(), ErrorKind::Credentials);
            assert!(
                error.message().contains(message) && error.message().contains("check access key"),
                "{error}"
            );
        }
        assert_eq!(of("AccessDenied", "Forbidden: Operation is not allowed").kind(), ErrorKind::AccessDenied);
        assert_eq!(of("NoSuchKey", "No such key").kind(), ErrorKind::AccessDenied);
    }

    #[test]
    fn n15_redirect_that_only_has_a_location_names_its_host() {
        let elsewhere = "https://b.eu.example.com/secret/key?X-Amz-Signature=0";
        let text = refused(307, "", &[("location", elsewhere)]).to_string();
        assert!(text.contains("served by https://b.eu.example.com: set endpoint to that"), "{text}");
        assert!(!text.contains("secret") && !text.contains("Signature"), "{text}");
        for (address, place) in [
            ("b.s3.example", Some("b.s3.example")),
            ("user:word@b.example:99/key?x=CANARY", Some("b.example:99")),
            ("http://b.example#CANARY", Some("http://b.example")),
            ("/CANARY", None),
            ("?CANARY", None),
        ] {
            assert_eq!(origin_of(address).as_deref(), place);
        }
        let text = refused(301, "", &[("location", "/elsewhere")]).to_string();
        assert!(text.contains("check region and endpoint"), "{text}");
    }

    #[test]
    fn n7_clock_that_is_off_is_told_by_how_much() {
        for (date, says) in [
            ("Tue, 24 Nov 2026 12:20:00 GMT", "clock is 20 min behind the store's"),
            ("Tue, 24 Nov 2026 10:00:00 GMT", "clock is 120 min ahead of the store's"),
            ("yesterday", "set this machine's clock"),
        ] {
            let error = refused(403, "RequestTimeTooSkewed", &[("date", date)]).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    /// The response's own date must confirm it, compared with the time that the request was signed with.
    #[test]
    fn n7_clock_is_refused_where_message_and_date_say_so() {
        let kind = |code: &str, message: &str, date: &'static str| {
            let headers = HeaderMap::from_iter([(http::header::DATE, http::HeaderValue::from_static(date))]);
            let body = body_of(code, message);
            let (status, now) = (StatusCode::BAD_REQUEST, SystemTime::UNIX_EPOCH);
            let operation = Operation::Upload;
            let facts = FailedResponse {
                operation,
                status,
                headers: &headers,
                body,
                bucket: "b",
                now,
                signed: noon(),
            };
            from_response(facts).kind()
        };
        let (late, right) = ("Wed, 25 Nov 2026 14:00:00 GMT", "Tue, 24 Nov 2026 12:04:00 GMT");
        let garage = "Bad request: Date is too old";
        assert_eq!(kind("InvalidRequest", garage, late), ErrorKind::ClockSkew);
        assert_eq!(kind("AccessDenied", "Request time is too far in the future", late), ErrorKind::ClockSkew);
        assert_eq!(kind("InvalidRequest", garage, right), ErrorKind::Rejected);
        assert_eq!(kind("InvalidRequest", garage, "never"), ErrorKind::Rejected);
        assert_eq!(kind("InvalidRequest", "the client is too old", late), ErrorKind::Rejected);
        assert_eq!(kind("InvalidArgument", garage, late), ErrorKind::Rejected);
    }

    #[test]
    fn n5_retry_after_is_read() {
        let date = ("date", "Tue, 24 Nov 2026 10:00:00 GMT");
        for (asked, seconds) in
            [("7", 7), ("Tue, 24 Nov 2026 10:00:09 GMT", 9), ("Tue, 24 Nov 2026 09:00:00 GMT", 0)]
        {
            let error = refused(503, "SlowDown", &[("retry-after", asked), date]);
            assert_eq!(error.retry(), crate::error::Retry::After(Duration::from_secs(seconds)), "{asked}");
        }
        assert_eq!(
            refused(503, "SlowDown", &[("retry-after", "soon")]).retry(),
            crate::error::Retry::Backoff
        );
    }

    #[test]
    fn an_error_of_the_source_comes_back_as_itself() {
        let source = StorageError::new(ErrorKind::SourceChanged, Operation::Read, "x");
        let wrapped = ureq::Error::Io(io::Error::new(io::ErrorKind::UnexpectedEof, source));
        assert_eq!(from_transport(Operation::Upload, "h", wrapped).kind(), ErrorKind::SourceChanged);
    }
}
