//! Small requests for credentials, each on a connection of its own.
//!
//! # Architecture
//! - [`PlainClient`] makes an agent for each request, because there are few of them, at many hosts.
//! - [`SealedTransport`] stands above TLS and hides secrets from ureq, which logs all bytes at TRACE level. On the way
//!   out it replaces placeholders with secret headers and the body. On the way in it takes the body out, which holds
//!   credentials, and leaves as many asterisks.
//! - [`Exchange`] is what the transport and the caller share about one request; [`BodyTaker`] finds the body.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use ureq::Agent;
use ureq::config::Config;
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};
use zeroize::Zeroizing;

use crate::backend::s3::errors;
use crate::backend::s3::http::body_taker::BodyTaker;
pub(crate) use crate::backend::s3::http::body_taker::MAX_ANSWER;
use crate::backend::s3::http::dial::{DialConnector, RouteResolver};
use crate::backend::s3::http::dns::CachingResolver;
use crate::backend::s3::http::network::NetworkSettings;
use crate::backend::s3::http::thread_context::{HiddenHeader, OutsideOfRequest};
#[cfg(any(test, fuzzing))]
use crate::backend::s3::http::transport::Wire;
use crate::backend::s3::http::transport::basic_config;
use crate::backend::s3::redaction::Secrets;
use crate::error::{ErrorKind, Operation, StorageError};

/// The bytes of the longest body that is sent. It goes out in one write, together with nothing else.
pub(crate) const MAX_BODY: usize = 64 * 1024;

/// A request for credentials.
pub(crate) struct PlainRequest<'a> {
    pub(crate) method: Method,
    /// An absolute URL without secrets.
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(&'static str, &'a str)>,
    /// Headers that are never logged.
    pub(crate) secret_headers: Vec<(&'static str, &'a str)>,
    /// At most [`MAX_BODY`] bytes; never logged.
    pub(crate) body: &'a str,
    /// It goes to this machine or its host, so never to a proxy.
    pub(crate) is_direct: bool,
}

impl<'a> PlainRequest<'a> {
    pub(crate) fn get(url: &'a str) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            secret_headers: Vec::new(),
            body: "",
            is_direct: false,
        }
    }
}

/// The answer to a request for credentials.
pub(crate) struct PlainResponse {
    pub(crate) status: StatusCode,
    /// May hold new credentials, and the secrets of the request.
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// Sends requests for credentials.
#[derive(Debug, Clone)]
pub(crate) struct PlainClient {
    network: NetworkSettings,
}

impl PlainClient {
    pub(crate) fn new(network: NetworkSettings) -> Self {
        Self { network }
    }

    /// Sends a request once and reads the answer, in `limit` at most.
    ///
    /// # Errors
    /// Those of the connection, with their kind. Any status is an answer.
    pub(crate) fn send(
        &self,
        request: &PlainRequest<'_>,
        limit: Duration,
    ) -> Result<PlainResponse, StorageError> {
        let exchange = Arc::new(Mutex::new(Exchange::new(request)));
        let signed = request_with_placeholders(request, &lock(&exchange))?;
        let host = signed.uri().authority().map(ToString::to_string).unwrap_or_default();
        let is_https = signed.uri().scheme_str() == Some("https");
        let agent = self.agent(request.is_direct, is_https, limit, exchange.clone())?;
        receive(&agent, signed, &host, &exchange)
    }

    /// Sends a request over connections that `wire` makes in place of the network.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn send_over(
        &self,
        request: &PlainRequest<'_>,
        limit: Duration,
        wire: impl Wire,
    ) -> Result<PlainResponse, StorageError> {
        let exchange = Arc::new(Mutex::new(Exchange::new(request)));
        let signed = request_with_placeholders(request, &lock(&exchange))?;
        let (_, tls) = self.network.tls(false)?;
        let config = agent_config(&self.network, limit, tls);
        let sealing = SealingConnector(exchange.clone());
        let agent = Agent::with_parts(config, wire.chain(sealing), routes(&self.network, limit));
        receive(&agent, signed, "wire", &exchange)
    }

    /// Makes the agent of one request.
    fn agent(
        &self,
        is_direct: bool,
        is_https: bool,
        limit: Duration,
        exchange: Arc<Mutex<Exchange>>,
    ) -> Result<Agent, StorageError> {
        let network = if is_direct { self.network.without_proxies() } else { self.network.clone() };
        // The client certificate is for the store alone, so servers get the settings without it.
        let (_, tls) = network.tls(is_https)?;
        let resolver = routes(&network, limit);
        let config = agent_config(&network, limit, tls);
        let dial = DialConnector::new(resolver.clone(), network.user_agent.clone(), config.clone());
        let connector = dial.chain(RustlsConnector::default()).chain(SealingConnector(exchange));
        Ok(Agent::with_parts(config, connector, resolver))
    }
}

fn routes(network: &NetworkSettings, limit: Duration) -> RouteResolver {
    RouteResolver {
        servers: CachingResolver::new(limit),
        proxies: CachingResolver::new(limit),
        rules: network.proxies.clone(),
    }
}

/// Runs a request and reads the answer, whose body only the exchange has.
fn receive(
    agent: &Agent,
    signed: Request<Vec<u8>>,
    host: &str,
    exchange: &Mutex<Exchange>,
) -> Result<PlainResponse, StorageError> {
    let failed = |error| errors::from_transport(Operation::Configure, host, error);
    // A request of a run may be under way on this thread: what happens here is not part of it.
    let _outside = OutsideOfRequest::enter();
    let mut response = agent.run(signed).map_err(failed)?;
    let reading = response.body_mut().with_config().limit(MAX_ANSWER as u64);
    let asterisks = reading.read_to_vec().map_err(failed)?;
    let mut exchange = lock(exchange);
    let mut body = exchange.taker.finish();
    if body.len() < asterisks.len() {
        let why = format!("{host}: invalid HTTP response");
        return Err(StorageError::new(ErrorKind::Protocol, Operation::Configure, why));
    }
    body.truncate(asterisks.len());
    Ok(PlainResponse { status: response.status(), body })
}

fn agent_config(network: &NetworkSettings, limit: Duration, tls: TlsConfig) -> Config {
    basic_config(network, tls)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        // A placeholder must stand in one piece of output: it is replaced there.
        .output_buffer_size(2 * MAX_BODY)
        .input_buffer_size(16 * 1024)
        .timeout_global(Some(limit))
        .build()
}

/// Returns a request whose secrets are placeholders.
fn request_with_placeholders(
    request: &PlainRequest<'_>,
    exchange: &Exchange,
) -> Result<Request<Vec<u8>>, StorageError> {
    let unfit = |what: &str| {
        let why = format!("{what} cannot be sent in a request");
        StorageError::new(ErrorKind::Config, Operation::Configure, why)
    };
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let value = HeaderValue::from_str(value).map_err(|_| unfit(name))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    for ((name, secret), hidden) in request.secret_headers.iter().zip(&exchange.hidden) {
        // The placeholder can always be sent; its secret may not be fit for a header.
        HeaderValue::from_str(secret).map_err(|_| unfit(name))?;
        let value = HeaderValue::from_bytes(hidden.placeholder()).map_err(|_| unfit(name))?;
        headers.insert(HeaderName::from_static(name), value);
    }
    if request.body.len() > MAX_BODY {
        return Err(unfit("a body of more than 64 KiB"));
    }
    let has_body = !request.body.is_empty();
    let body = exchange.hidden.last().filter(|_| has_body).map(|hidden| hidden.placeholder().to_vec());
    let body = body.unwrap_or_default();
    if request.method != Method::GET {
        headers.insert(http::header::CONTENT_LENGTH, body.len().into());
    }
    let built = Request::builder().method(&request.method).uri(request.url).body(body);
    let mut built = built.map_err(|_| unfit("the URL"))?;
    *built.headers_mut() = headers;
    Ok(built)
}

/// The state of one request.
struct Exchange {
    /// The secret headers in their order, then the body if there is one.
    hidden: Vec<HiddenHeader>,
    /// The secrets that the head of the answer must not repeat.
    secrets: Secrets,
    taker: BodyTaker,
}

impl Exchange {
    fn new(request: &PlainRequest<'_>) -> Self {
        let mut hidden: Vec<_> =
            request.secret_headers.iter().map(|(name, value)| HiddenHeader::new(name, value)).collect();
        if !request.body.is_empty() {
            hidden.push(HiddenHeader::new("body", request.body));
        }
        let secrets = request.secret_headers.iter().map(|(_, value)| *value);
        Self { hidden, secrets: Secrets::of(secrets), taker: BodyTaker::default() }
    }

    /// Hides what has come in behind the first `known` bytes of the input.
    fn seal_input(&mut self, buffers: &mut dyn Buffers, known: usize) {
        let mut input = Zeroizing::new(buffers.input().to_vec());
        self.taker.take(&mut input[known..]);
        self.secrets.overwrite_in(&mut input);
        // ureq's input buffer cannot be changed in place: the input is taken out and put back.
        buffers.input_consume(input.len());
        buffers.input_append_buf()[..input.len()].copy_from_slice(&input);
        buffers.input_appended(input.len());
    }
}

fn lock(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wraps the connection, above TLS, in a [`SealedTransport`].
struct SealingConnector(Arc<Mutex<Exchange>>);

impl std::fmt::Debug for SealingConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingConnector")
    }
}

impl<In: Transport> Connector<In> for SealingConnector {
    type Out = SealedTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| SealedTransport { inner, exchange: self.0.clone() }))
    }
}

/// Hides the secrets of a request and the body of its answer from ureq.
struct SealedTransport<In> {
    inner: In,
    exchange: Arc<Mutex<Exchange>>,
}

impl<In: Transport> std::fmt::Debug for SealedTransport<In> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealedTransport").field(&self.inner).finish()
    }
}

impl<In: Transport> Transport for SealedTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = &mut self.inner.buffers().output()[..amount];
        lock(&self.exchange).hidden.retain(|hidden| !hidden.reveal(output));
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let known = self.inner.buffers().input().len();
        let progress = self.inner.await_input(timeout)?;
        if progress {
            lock(&self.exchange).seal_input(self.inner.buffers(), known);
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
