//! Sends one request: signs it, writes it to a connection, reads a bounded response.
//!
//! # Architecture
//! - [`Client`] lives as long as its backend and is shared by all threads. It owns the connections, the signer, the
//!   current credentials and the offset of the store's clock.
//! - [`SignedWith`] records the credentials and the clock offset of one try. If the store refuses either, it shows
//!   whether another thread has replaced them since.
//! - [`Signed`] is the request as ureq gets it, with placeholders for its secrets, and the secrets.
//!
//! One try runs on the calling thread: `send`, the gate, `send_once`, `sign_request`, ureq, `check_status`,
//! [`acknowledgement`]. The caller retries (see [`retry`](crate::retry)); the client only says whether that may help.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http::header::IF_NONE_MATCH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use log::Level;
use ureq::{Body, SendBody};

use crate::backend::s3::acknowledgement;
use crate::backend::s3::auth::renewal::RenewableCredentials;
use crate::backend::s3::auth::sign::{Signable, Signer, amz_date};
use crate::backend::s3::auth::signed_with::SignedWith;
use crate::backend::s3::config::S3Settings;
use crate::backend::s3::errors::{self, FailedResponse};
use crate::backend::s3::http::bandwidth::Pace;
use crate::backend::s3::http::body::{BodySink, TimedBody, with_own_limits};
use crate::backend::s3::http::thread_context::HiddenHeader;
use crate::backend::s3::http::transport::{Connections, TransportSizes};
use crate::backend::s3::redaction::{Secrets, truncated};
use crate::backend::s3::request::{COPY_SOURCE, REQUEST_ID, S3Request, S3Response, header, http_date};
use crate::backend::s3::xml::{self, ErrorBody};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;

/// The bytes that are read of an error response.
const MAX_ERROR_BYTES: u64 = 64 * 1024;
/// The bytes that are read of any other response: 1,000 keys of 1,024 bytes, percent-encoded, and their tags.
const MAX_RESPONSE_BYTES: u64 = 8 * 1024 * 1024;
/// A clock offset that differs by fewer seconds is not worth a retry.
const SAME_OFFSET: u64 = 60;
/// A `Date` farther off than this, 100 years, is no time at all. A clock whose battery ran out is less wrong.
const MAX_OFFSET: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Signs and sends the requests to one bucket.
pub(crate) struct Client {
    connections: Connections,
    pace: Option<Pace>,
    signer: Signer,
    credentials: RenewableCredentials,
    scheme: String,
    host: String,
    bucket: String,
    /// Seconds that the store's clock is ahead of ours, from its last complaint.
    ahead: AtomicI64,
    /// The `Date` of the last response, in seconds since 1970; 0 before the first one.
    date: AtomicU64,
}

/// A request as the HTTP layer gets it.
struct Signed {
    /// Holds placeholders instead of secrets.
    request: Request<()>,
    hidden: Vec<HiddenHeader>,
    secrets: Arc<Secrets>,
}

impl Client {
    pub(crate) fn new(engine: &Engine, settings: &S3Settings) -> Result<Self, StorageError> {
        let scheme = settings.address.bucket.scheme();
        let network = &settings.network;
        let sizes = TransportSizes { connections: engine.workers(), chunk_size: settings.chunk_size };
        let pace = network.bandwidth.clone().map(|bandwidth| Pace::new(bandwidth, &**engine.clock()));
        Ok(Self {
            connections: Connections::new(network, sizes, scheme == "https")?,
            pace,
            signer: Signer::new(settings.address.bucket.region(), "s3"),
            credentials: RenewableCredentials::new(settings.credentials.clone(), settings.renewal.clone()),
            scheme,
            host: settings.address.host.clone(),
            bucket: settings.address.bucket.name(),
            ahead: AtomicI64::new(0),
            date: AtomicU64::new(0),
        })
    }

    /// Sends requests over other connections.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn replace_connections(&mut self, connections: Connections) {
        self.connections = connections;
    }

    /// Returns the `Date` of the last response, in seconds since 1970.
    pub(crate) fn store_date(&self) -> Option<u64> {
        Some(self.date.load(Relaxed)).filter(|date| *date > 0)
    }

    /// Sends a request once, through the gate. `body` yields exactly `request.length` bytes.
    pub(crate) fn send(
        &self,
        context: &RequestContext<'_>,
        attempt: u32,
        request: &S3Request<'_>,
        body: &mut dyn Read,
    ) -> Result<S3Response, StorageError> {
        self.send_with_sink(context, attempt, request, body, None)
    }

    /// Does the same, and streams the body of a successful response to `sink`.
    pub(crate) fn send_with_sink(
        &self,
        context: &RequestContext<'_>,
        attempt: u32,
        request: &S3Request<'_>,
        body: &mut dyn Read,
        sink: Option<BodySink<'_>>,
    ) -> Result<S3Response, StorageError> {
        context.gate.pass(
            request.operation,
            || context.check_send(request.operation).map(drop),
            || {
                let began = context.clock.now();
                context.trace.metrics.requests(1);
                let mut request_id = String::new();
                let result = self.send_once(context, attempt, request, body, sink, &mut request_id);
                let outcome = result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
                context.trace.ended(
                    Level::Debug,
                    &RequestEnd {
                        operation: request.method.as_str(),
                        key: request.key,
                        bucket: &self.bucket,
                        bytes: request.length,
                        attempts: attempt,
                        elapsed: context.clock.now().saturating_sub(began),
                        outcome: &outcome,
                        request_id: &request_id,
                    },
                );
                // The host may have moved: the next connection resolves its name again.
                let lost = [ErrorKind::Connect, ErrorKind::Timeout, ErrorKind::Network];
                if matches!(&result, Err(error) if lost.contains(&error.kind())) {
                    self.connections.forget_addresses();
                }
                result.map_err(
                    |error| {
                        if request.key.is_empty() { error } else { error.with_key(request.key) }
                    },
                )
            },
        )
    }

    fn send_once(
        &self,
        context: &RequestContext<'_>,
        attempt: u32,
        request: &S3Request<'_>,
        body: &mut dyn Read,
        sink: Option<BodySink<'_>>,
        request_id: &mut String,
    ) -> Result<S3Response, StorageError> {
        let ahead = self.ahead.load(Relaxed);
        let used = SignedWith::next(context, request.operation, &self.credentials, ahead)?;
        // Again: it may have waited at the gate, or for new credentials.
        let limit = context.check_send(request.operation)?;
        let Signed { request: signed, hidden, secrets } = self.sign_request(context, request, &used)?;
        let mut timed = TimedBody::new(context, request, body, self.pace.as_ref());
        let first_try = attempt == 1;
        let (result, cut_off) =
            self.connections.run_request(context, request, first_try, hidden, &secrets.clone(), |agent| {
                let signed = with_own_limits(request, limit, self.pace.is_some(), agent, signed);
                let sent = if request.length == 0 {
                    agent.run(signed)
                } else {
                    agent.run(signed.map(|()| SendBody::from_reader(&mut timed)))
                };
                let response = sent.map_err(|error| self.transport_error(request.operation, error))?;
                self.read_response(context, request, response, sink, secrets, &used, request_id)
            });
        if result.is_err() {
            context.trace.progress.bytes_lost(timed.moved);
        }
        match result {
            // The server cannot have stored a body that it did not read.
            Ok(_) if cut_off => {
                let what = format!("{}: server reported success before reading the request body", self.host);
                Err(StorageError::new(ErrorKind::Network, request.operation, what).while_sending())
            }
            Err(error) if cut_off && error.kind() == ErrorKind::Network => Err(error.while_sending()),
            Ok(response) => acknowledgement::check(request, &response).map(|()| response),
            Err(error) => Err(error),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one try")]
    fn read_response(
        &self,
        context: &RequestContext<'_>,
        request: &S3Request<'_>,
        mut from: Response<Body>,
        sink: Option<BodySink<'_>>,
        secrets: Arc<Secrets>,
        used: &SignedWith,
        request_id: &mut String,
    ) -> Result<S3Response, StorageError> {
        let status = from.status();
        let headers = secrets.redact_headers(from.headers());
        if let Some(date) = http_date(header(&headers, "date")) {
            self.date.store(date, Relaxed);
        }
        *request_id = truncated(header(&headers, REQUEST_ID).unwrap_or_default());
        let mut response = S3Response { status, headers, body: Vec::new(), secrets };
        if let Some(sink) = sink.filter(|_| status.is_success()) {
            // The sink takes no more than it expects.
            let mut body = from.body_mut().with_config().limit(u64::MAX).reader();
            return self.download_to(context, request, &mut body, sink).map(|()| response);
        }
        let limit = if status.is_success() { MAX_RESPONSE_BYTES } else { MAX_ERROR_BYTES };
        let read = from.body_mut().with_config().limit(limit).read_to_vec();
        response.body = match read {
            Err(error) if status.is_success() => {
                return Err(self.transport_error(request.operation, error));
            }
            // An error without its body is still an error: its status says which.
            other => other.unwrap_or_default(),
        };
        if let Some(pace) = &self.pace {
            pace.settle(context, request.operation, response.body.len() as u64);
        }
        self.check_status(request, response, context.clock.wall(), used)
    }

    /// Passes the body of a response to `sink`, within the time limit of the request.
    fn download_to(
        &self,
        context: &RequestContext<'_>,
        request: &S3Request<'_>,
        body: &mut dyn Read,
        sink: BodySink<'_>,
    ) -> Result<(), StorageError> {
        let mut timed = TimedBody::new(context, request, body, self.pace.as_ref());
        let result = sink(&mut timed)
            .map_err(|error| self.transport_error(request.operation, ureq::Error::from(error)));
        if result.is_err() {
            context.trace.progress.bytes_missing(timed.moved);
        }
        result
    }

    /// Returns the response if it is a success, else the error that it reports.
    fn check_status(
        &self,
        request: &S3Request<'_>,
        response: S3Response,
        now: SystemTime,
        used: &SignedWith,
    ) -> Result<S3Response, StorageError> {
        // A store may send status 200 to a POST or a copy before it knows the outcome, and then an error.
        let is_early = request.method == Method::POST || request.headers.contains_key(COPY_SOURCE);
        let is_error = is_early && xml::is_error(&response.body);
        let is_unchanged =
            response.status == StatusCode::NOT_MODIFIED && request.headers.contains_key(IF_NONE_MATCH);
        if is_unchanged || response.status.is_success() && !is_error {
            return Ok(response);
        }
        let S3Response { status, headers, body, secrets } = &response;
        let explained = if request.method == Method::HEAD {
            // A response to HEAD has no body that could say what was not found.
            (*status == StatusCode::NOT_FOUND).then(|| ErrorBody::of_code("NoSuchKey"))
        } else {
            xml::parse_error(body, secrets)
        };
        let error = errors::from_response(FailedResponse {
            operation: request.operation,
            status: *status,
            headers,
            body: explained.unwrap_or_default(),
            bucket: &self.bucket,
            now,
            signed: used.store_time(now),
        });
        Err(match error.kind() {
            // Each is changed once a request, or a store that refuses everything would be asked for ever.
            ErrorKind::ClockSkew if !request.changed.time.replace(true) => {
                self.learn_clock_offset(headers, now, used, error)
            }
            ErrorKind::Credentials if !request.changed.credentials.replace(true) => {
                match self.credentials.renew(&used.credentials) {
                    Ok(changed) => error.anew(changed),
                    Err(why) => error.advise("they could not be renewed").with_source(why),
                }
            }
            _ => error,
        })
    }

    /// Learns the store's clock from the response that refused ours. The request is retried if that changes its date.
    fn learn_clock_offset(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
        used: &SignedWith,
        error: StorageError,
    ) -> StorageError {
        let Some((behind, by)) = errors::clock_skew(header(headers, "date"), now) else {
            return error;
        };
        if by > MAX_OFFSET {
            return error;
        }
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        let ahead = if behind { seconds } else { -seconds };
        self.ahead.store(ahead, Relaxed);
        error.anew(used.ahead.abs_diff(ahead) > SAME_OFFSET)
    }

    fn transport_error(&self, operation: Operation, error: ureq::Error) -> StorageError {
        errors::from_transport(operation, &self.host, error)
    }

    /// Returns the request with all headers and its signature. Secrets are placeholders in it.
    fn sign_request(
        &self,
        context: &RequestContext<'_>,
        request: &S3Request<'_>,
        used: &SignedWith,
    ) -> Result<Signed, StorageError> {
        let credentials = &*used.credentials;
        let when = used.store_time(context.clock.wall());
        let mut headers = request.headers.clone();
        for (name, value) in [
            ("host", self.host.as_str()),
            ("x-amz-date", amz_date(when).as_str()),
            ("x-amz-content-sha256", request.payload),
        ] {
            headers.insert(HeaderName::from_static(name), header_value(name, value)?);
        }
        // The signature covers the real token; the placeholder replaces it below.
        if let Some(token) = credentials.session_token() {
            headers.insert("x-amz-security-token", header_value("session_token", token)?);
        }
        let signable = Signable {
            method: request.method.as_str(),
            path: &request.path,
            query: &request.query,
            headers: &headers,
            payload: request.payload,
        };
        let authorization = self.signer.authorization(credentials, when, &signable)?;
        let secret_headers = [
            ("x-amz-security-token", credentials.session_token()),
            ("authorization", Some(authorization.as_str())),
        ];
        let mut hidden = Vec::new();
        for (name, value) in secret_headers {
            let Some(value) = value else { continue };
            let secret = HiddenHeader::new(name, value);
            let placeholder =
                HeaderValue::from_bytes(secret.placeholder()).map_err(|_| cannot_be_sent(name))?;
            headers.insert(HeaderName::from_static(name), placeholder);
            hidden.push(secret);
        }
        headers.insert(http::header::CONTENT_LENGTH, request.length.into());
        let separator = if request.query.is_empty() { "" } else { "?" };
        let uri = format!("{}://{}{}{separator}{}", self.scheme, self.host, request.path, request.query);
        let mut signed = Request::builder()
            .method(&request.method)
            .uri(uri)
            .body(())
            .map_err(|_| cannot_be_sent("key"))?;
        *signed.headers_mut() = headers;
        let secrets = Arc::new(Secrets::new(credentials, &authorization));
        Ok(Signed { request: signed, hidden, secrets })
    }
}

fn header_value(field: &str, value: &str) -> Result<HeaderValue, StorageError> {
    HeaderValue::from_str(value).map_err(|_| cannot_be_sent(field))
}

fn cannot_be_sent(field: &str) -> StorageError {
    StorageError::config(field, "it cannot be sent in a request")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::s3::auth::credentials::Credentials;
    use crate::backend::s3::config::S3Config;
    use crate::clock::{CancelToken, SystemClock};
    use crate::engine::gate::Gate;
    use crate::observe::trace::Trace;

    fn signed(config: S3Config, path: &str) -> Request<()> {
        let engine = Engine::new().unwrap();
        let config = config
            .credentials(Credentials::new("CANARYKEY", "CANARYSECRET").with_session_token("CANARYTOKEN"));
        let settings = config.validate().unwrap();
        let (cancel, clock, gate, trace) =
            (CancelToken::new(), SystemClock::default(), Gate::new(1), Trace::default());
        let context = RequestContext {
            cancel: &cancel,
            deadline: None,
            clock: &clock,
            gate: &gate,
            trace: &trace,
            fence: None,
        };
        let path = format!("{}{path}", settings.address.path);
        let request = S3Request {
            payload: "0",
            length: 3,
            ..S3Request::plain(Operation::Upload, Method::PUT, "k", path, String::new())
        };
        let used = SignedWith { credentials: Arc::new(settings.credentials.clone()), ahead: 0 };
        Client::new(&engine, &settings).unwrap().sign_request(&context, &request, &used).unwrap().request
    }

    #[test]
    fn requests_go_to_the_bucket_s_host_or_path_as_configured() {
        let endpoint = || S3Config::new("b").endpoint("http://h:9000");
        let request = signed(endpoint(), "a%20b");
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()["host"]),
            ("http://h:9000/b/a%20b", &HeaderValue::from_static("h:9000"))
        );
        let request = signed(endpoint().path_style(false), "a%20b");
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()["host"]),
            ("http://b.h:9000/a%20b", &HeaderValue::from_static("b.h:9000"))
        );
        let request = signed(S3Config::new("plain").region("eu-central-1"), "k");
        assert!(request.uri().to_string().starts_with("https://plain.s3"), "{}", request.uri());
    }

    /// I7: the HTTP layer gets placeholders.
    #[test]
    fn i7_request_that_the_http_layer_sees_holds_no_secret() {
        let request = signed(S3Config::new("b").endpoint("http://h"), "k");
        let seen = format!("{:?}", request.headers());
        assert!(seen.contains("{authorization}") && seen.contains("{x-amz-security-token}"), "{seen}");
        assert!(!seen.contains("CANARY") && !seen.contains("Signature"), "{seen}");
    }
}
