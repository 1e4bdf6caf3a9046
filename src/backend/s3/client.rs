//! One exchange: a signed request out, a bounded answer in.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use log::Level;
use ureq::{Agent, AsSendBody, SendBody};

use crate::backend::s3::acknowledgement;
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::renewal::RenewableCredentials;
use crate::backend::s3::auth::sign::{Signable, Signer, amz_date};
use crate::backend::s3::config::S3Settings;
use crate::backend::s3::errors;
use crate::backend::s3::errors::Refusal;
use crate::backend::s3::http::body::{Sink, Timed, allowance};
use crate::backend::s3::http::thread_context::Hidden;
use crate::backend::s3::http::tls;
use crate::backend::s3::http::transport::{Connections, TransportLimits};
use crate::backend::s3::redaction::{Secrets, clipped};
use crate::backend::s3::request::{Answer, REQUEST_ID, S3Request, header};
use crate::backend::s3::xml;
use crate::backend::s3::xml::ErrorBody;
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;

/// An error's body is read up to here.
const MOST_OF_AN_ERROR: u64 = 64 * 1024;
/// An answer is read up to here: 1,000 keys of 1,024 bytes, each encoded threefold, and their tags.
const MOST_OF_AN_ANSWER: u64 = 8 * 1024 * 1024;
/// Signs and carries the requests to one bucket.
pub(crate) struct Client {
    connections: Connections,
    signer: Signer,
    credentials: RenewableCredentials,
    scheme: String,
    host: String,
    bucket: String,
    /// Seconds that the store's clock is ahead of ours, as it last complained.
    ahead: AtomicI64,
}

/// A request as the HTTP layer gets it.
struct Signed {
    /// Secrets are placeholders in it.
    request: Request<()>,
    hidden: Vec<Hidden>,
    secrets: Arc<Secrets>,
}

/// What a request was signed with.
struct Used {
    credentials: Arc<Credentials>,
    /// Seconds that the store's clock was taken to be ahead of ours.
    ahead: i64,
}

impl Used {
    /// The time of day at the store.
    fn time(&self, here: SystemTime) -> SystemTime {
        let by = Duration::from_secs(self.ahead.unsigned_abs());
        if self.ahead < 0 { here - by } else { here + by }
    }
}

/// An offset that is known to so many seconds need not be learned again.
const SAME_OFFSET: u64 = 60;
/// A clock that is farther off than a battery that ran out makes it says nothing of the time: 100 years.
const FARTHEST_OFFSET: Duration = Duration::from_secs(100 * 366 * 86_400);

impl Client {
    pub(crate) fn new(engine: &Engine, settings: &S3Settings) -> Result<Self, StorageError> {
        let scheme = settings.address.bucket.scheme();
        let tls = if scheme == "https" { Some(tls::tls(settings.ca_file.as_deref())?) } else { None };
        let limits = TransportLimits {
            connections: engine.workers(),
            chunk_size: settings.chunk_size,
            connect: settings.connect_timeout,
            idle: settings.idle_timeout,
            answer: settings.answer_timeout,
        };
        Ok(Self {
            connections: Connections::new(&limits, tls),
            signer: Signer::new(settings.address.bucket.region()),
            credentials: RenewableCredentials::new(settings.credentials.clone(), settings.renewal.clone()),
            scheme,
            host: settings.address.host.clone(),
            bucket: settings.address.bucket.name(),
            ahead: AtomicI64::new(0),
        })
    }

    /// One try, through the gate. `body` makes a fresh reader of exactly `ask.length` bytes.
    pub(crate) fn exchange(
        &self,
        exchange: &RequestContext<'_>,
        attempt: u32,
        ask: &S3Request<'_>,
        body: &mut dyn Read,
    ) -> Result<Answer, StorageError> {
        self.exchange_with(exchange, attempt, ask, body, None)
    }

    /// The same; the body of a successful answer goes to `sink`, as it comes.
    pub(crate) fn exchange_with(
        &self,
        exchange: &RequestContext<'_>,
        attempt: u32,
        ask: &S3Request<'_>,
        body: &mut dyn Read,
        sink: Option<Sink<'_>>,
    ) -> Result<Answer, StorageError> {
        exchange.gate.pass(
            ask.operation,
            || exchange.check(ask.operation),
            || {
                let began = exchange.clock.now();
                exchange.trace.metrics.requests(1);
                let mut request_id = String::new();
                let result = self.carry(exchange, attempt, ask, body, sink, &mut request_id);
                let outcome = result.as_ref().map_or_else(ToString::to_string, |_| "ok".to_owned());
                exchange.trace.ended(
                    Level::Debug,
                    &RequestEnd {
                        operation: ask.method.as_str(),
                        key: ask.key,
                        bucket: &self.bucket,
                        bytes: ask.length,
                        attempts: attempt,
                        elapsed: exchange.clock.now().saturating_sub(began),
                        outcome: &outcome,
                        request_id: &request_id,
                    },
                );
                let lost = [ErrorKind::Connect, ErrorKind::Timeout, ErrorKind::Network];
                if matches!(&result, Err(error) if lost.contains(&error.kind())) {
                    self.connections.forget_addresses();
                }
                result.map_err(|error| if ask.key.is_empty() { error } else { error.with_key(ask.key) })
            },
        )
    }

    fn carry(
        &self,
        exchange: &RequestContext<'_>,
        attempt: u32,
        ask: &S3Request<'_>,
        body: &mut dyn Read,
        sink: Option<Sink<'_>>,
        request_id: &mut String,
    ) -> Result<Answer, StorageError> {
        let used = Used { credentials: self.credentials.current(), ahead: self.ahead.load(Relaxed) };
        let Signed { request, hidden, secrets } = self.signed(exchange, ask, &used)?;
        let mut timed = Timed::new(exchange, ask, body, ask.method == Method::PUT);
        let (result, cut_off) =
            self.connections.with(exchange, ask, attempt == 1, hidden, &secrets.clone(), |agent| {
                let request = patient(ask, agent, request);
                let sent = if ask.length == 0 {
                    agent.run(request)
                } else {
                    agent.run(request.map(|()| SendBody::from_reader(&mut timed)))
                };
                let mut response = sent.map_err(|error| self.lost(ask.operation, error))?;
                let status = response.status();
                let headers = secrets.headers(response.headers());
                *request_id = clipped(header(&headers, REQUEST_ID).unwrap_or_default());
                let mut answer = Answer { status, headers, body: Vec::new(), secrets };
                if let Some(sink) = sink.filter(|_| status.is_success()) {
                    let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
                    return self.pour(exchange, ask, &mut body, sink).map(|()| answer);
                }
                let most = if status.is_success() { MOST_OF_AN_ANSWER } else { MOST_OF_AN_ERROR };
                let read = response.body_mut().with_config().limit(most).read_to_vec();
                answer.body = match read {
                    Err(error) if status.is_success() => return Err(self.lost(ask.operation, error)),
                    other => other.unwrap_or_default(),
                };
                self.judge(ask, answer, exchange.clock.wall(), &used)
            });
        if result.is_err() {
            exchange.trace.progress.bytes_lost(timed.moved);
        }
        match result {
            // It cannot have taken what it did not read.
            Ok(_) if cut_off => {
                let what = format!("{}: a success before the body was read", self.host);
                Err(StorageError::new(ErrorKind::Network, ask.operation, what).while_sending())
            }
            Err(error) if cut_off && error.kind() == ErrorKind::Network => Err(error.while_sending()),
            Ok(answer) => acknowledgement::check(ask, &answer).map(|()| answer),
            Err(error) => Err(error),
        }
    }

    /// Hands the body of an answer on.
    fn pour(
        &self,
        exchange: &RequestContext<'_>,
        ask: &S3Request<'_>,
        body: &mut dyn Read,
        sink: Sink<'_>,
    ) -> Result<(), StorageError> {
        let mut timed = Timed::new(exchange, ask, body, true);
        let result = sink(&mut timed).map_err(|error| self.lost(ask.operation, ureq::Error::from(error)));
        if result.is_err() {
            exchange.trace.progress.bytes_lost(timed.moved);
        }
        result
    }

    fn judge(
        &self,
        ask: &S3Request<'_>,
        answer: Answer,
        now: SystemTime,
        used: &Used,
    ) -> Result<Answer, StorageError> {
        // An error may come with status 200 to a POST: such answers begin before their end is known.
        let is_error = ask.method == Method::POST && xml::is_error(&answer.body);
        if answer.status.is_success() && !is_error {
            return Ok(answer);
        }
        let Answer { status, headers, body, secrets } = &answer;
        let explained = if ask.method == Method::HEAD {
            // Answers to HEAD have no body that could say what was not found.
            (*status == StatusCode::NOT_FOUND).then(|| ErrorBody::of_code("NoSuchKey"))
        } else {
            xml::error_body(body, secrets)
        };
        let body = explained.unwrap_or_default();
        let error = errors::refusal(Refusal {
            operation: ask.operation,
            status: *status,
            headers,
            body,
            bucket: &self.bucket,
            now,
            signed: used.time(now),
        });
        Err(match error.kind() {
            ErrorKind::ClockSkew if !ask.changed.time.replace(true) => {
                self.learn_time(headers, now, used, error)
            }
            ErrorKind::Credentials if !ask.changed.credentials.replace(true) => {
                match self.credentials.renew(&used.credentials) {
                    Ok(changed) => error.anew(changed),
                    Err(why) => error.advise("they could not be renewed").with_source(why),
                }
            }
            _ => error,
        })
    }

    /// The store refused the time of a request: from now on its own is used, and where that is another one than
    /// the request had, it is worth one more try.
    fn learn_time(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
        used: &Used,
        error: StorageError,
    ) -> StorageError {
        let Some((behind, by)) = errors::skew(header(headers, "date"), now) else {
            return error;
        };
        if by > FARTHEST_OFFSET {
            return error;
        }
        let seconds = i64::try_from(by.as_secs()).unwrap_or(i64::MAX);
        let ahead = if behind { seconds } else { -seconds };
        self.ahead.store(ahead, Relaxed);
        error.anew(used.ahead.abs_diff(ahead) > SAME_OFFSET)
    }

    fn lost(&self, operation: Operation, error: ureq::Error) -> StorageError {
        errors::transport(operation, &self.host, error)
    }

    /// The request with every header that is signed; secrets as placeholders.
    fn signed(
        &self,
        exchange: &RequestContext<'_>,
        ask: &S3Request<'_>,
        used: &Used,
    ) -> Result<Signed, StorageError> {
        let credentials = &*used.credentials;
        let when = used.time(exchange.clock.wall());
        let mut headers = ask.headers.clone();
        for (name, value) in [
            ("host", self.host.as_str()),
            ("x-amz-date", amz_date(when).as_str()),
            ("x-amz-content-sha256", ask.payload),
        ] {
            headers.insert(HeaderName::from_static(name), value_of(name, value)?);
        }
        let mut hidden = Vec::new();
        if let Some(token) = credentials.session_token() {
            headers.insert("x-amz-security-token", value_of("session_token", token)?);
        }
        let signable = Signable {
            method: ask.method.as_str(),
            path: &ask.path,
            query: &ask.query,
            headers: &headers,
            payload: ask.payload,
        };
        let authorization = self.signer.authorization(credentials, when, &signable)?;
        let secrets = [
            ("x-amz-security-token", credentials.session_token()),
            ("authorization", Some(authorization.as_str())),
        ];
        for (name, value) in secrets {
            let Some(value) = value else { continue };
            let secret = Hidden::new(name, value);
            let placeholder = HeaderValue::from_bytes(secret.placeholder()).map_err(|_| unsendable(name))?;
            headers.insert(HeaderName::from_static(name), placeholder);
            hidden.push(secret);
        }
        headers.insert(http::header::CONTENT_LENGTH, ask.length.into());
        let separator = if ask.query.is_empty() { "" } else { "?" };
        let uri = format!("{}://{}{}{separator}{}", self.scheme, self.host, ask.path, ask.query);
        let mut request =
            Request::builder().method(&ask.method).uri(uri).body(()).map_err(|_| unsendable("key"))?;
        *request.headers_mut() = headers;
        let secrets = Arc::new(Secrets::new(credentials, &authorization));
        Ok(Signed { request, hidden, secrets })
    }
}

/// The request with the limits that it has of its own.
fn patient<T: AsSendBody>(ask: &S3Request<'_>, agent: &Agent, request: Request<T>) -> Request<T> {
    match ask.patience {
        None if ask.expected > 0 => {
            let limit = Some(allowance(ask.expected));
            agent.configure_request(request).timeout_recv_body(limit).build()
        }
        None => request,
        Some(limit) => agent
            .configure_request(request)
            .timeout_recv_response(Some(limit))
            .timeout_recv_body(Some(limit))
            .timeout_per_read(Some(limit))
            .build(),
    }
}

fn value_of(field: &str, value: &str) -> Result<HeaderValue, StorageError> {
    HeaderValue::from_str(value).map_err(|_| unsendable(field))
}

fn unsendable(field: &str) -> StorageError {
    StorageError::config(field, "it cannot be sent in a request")
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let exchange =
            RequestContext { cancel: &cancel, deadline: None, clock: &clock, gate: &gate, trace: &trace };
        let ask = S3Request {
            operation: Operation::Upload,
            method: Method::PUT,
            key: "k",
            path: format!("{}{path}", settings.address.path),
            query: String::new(),
            headers: HeaderMap::new(),
            payload: "0",
            length: 3,
            patience: None,
            expected: 0,
            changed: crate::backend::s3::request::Changed::default(),
        };
        let used = Used { credentials: Arc::new(settings.credentials.clone()), ahead: 0 };
        Client::new(&engine, &settings).unwrap().signed(&exchange, &ask, &used).unwrap().request
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

    /// I7: what the HTTP layer is given holds placeholders.
    #[test]
    fn i7_request_that_the_http_layer_sees_holds_no_secret() {
        let request = signed(S3Config::new("b").endpoint("http://h"), "k");
        let seen = format!("{:?}", request.headers());
        assert!(seen.contains("{authorization}") && seen.contains("{x-amz-security-token}"), "{seen}");
        assert!(!seen.contains("CANARY") && !seen.contains("Signature"), "{seen}");
    }
}
