//! The connections of one destination.
//!
//! # Architecture
//! - [`Connections`] owns a ureq agent, its pool of connections and its DNS caches. One per backend, shared by all
//!   threads.
//! - Each connection is a stack of transports, from the wire up: TCP, `MeteredTransport`, TLS, [`RevealTransport`].
//!   Through a proxy there are two more above `MeteredTransport`: TLS to the proxy, if its URL is https, and the tunnel.
//!   The pool owns the stack, and one request uses it at a time.
//! - [`DialConnector`] makes the part below TLS. It asks the [`ProxyRules`](super::proxy::ProxyRules) for the way, and
//!   the [`RouteResolver`] only for names that no proxy resolves.
//! - `MeteredTransport` sees encrypted bytes. It counts them, applies the idle limits, and reads a response that comes
//!   before the request body was sent.
//! - `RevealTransport` sees plain text. It replaces placeholders with secret headers on the way out, and removes
//!   secrets from what comes in, because ureq logs both at TRACE level.
//! - [`ThreadContext`] carries the state of the request from [`Connections::run_request`] to these transports. ureq
//!   passes nothing through, but runs a request on the calling thread.

use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::TlsConfig;
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, Transport,
};

use crate::backend::s3::http::dial::{DialConnector, RouteResolver};
use crate::backend::s3::http::dns::CachingResolver;
use crate::backend::s3::http::network::NetworkSettings;
use crate::backend::s3::http::thread_context::{
    HiddenHeader, Redacted, THREAD_CONTEXT, ThreadContext, update_context,
};
use crate::backend::s3::redaction::Secrets;
use crate::backend::s3::request::S3Request;
use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;

/// An idle connection is reused for this long; servers commonly close theirs after 20 to 75 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);

/// A header must fit into the output buffer: a session token may have 8 KiB.
const MAX_HEADER_BYTES: usize = 10 * 1024;

/// The sizes of an agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransportSizes {
    /// Idle connections that are kept.
    pub(crate) connections: usize,
    pub(crate) chunk_size: usize,
}

/// The pool and the DNS caches of one destination. A ureq pool does not tell TLS configurations apart, so each
/// destination has its own agent.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    agent: Agent,
    resolver: RouteResolver,
}

/// Returns the settings that all agents share.
pub(crate) fn basic_config(network: &NetworkSettings, tls: TlsConfig) -> ConfigBuilder<AgentScope> {
    Agent::config_builder()
        .http_status_as_error(false)
        .tls_config(tls)
        // The signature covers the host: a redirect is an error that names the right one. Secrets go to no other host.
        .max_redirects(0)
        .max_redirects_will_error(false)
        // ureq would read proxy variables from the environment. Ours are not its business: its pool would log them.
        .proxy(None)
        .user_agent(&network.user_agent)
        // Objects are compared as they are stored.
        .accept_encoding("identity")
}

/// Returns the settings of an agent.
fn agent_config(network: &NetworkSettings, sizes: TransportSizes, tls: TlsConfig) -> Config {
    basic_config(network, tls)
        .max_idle_connections(sizes.connections)
        .max_idle_connections_per_host(sizes.connections)
        .max_idle_age(MAX_IDLE_AGE)
        // A chunk and the overhead of a TLS record must fit, or each chunk takes two writes. So must the longest
        // header. Bodies are still read a chunk at a time.
        .output_buffer_size((sizes.chunk_size + 256).max(MAX_HEADER_BYTES))
        .input_buffer_size(16 * 1024)
        .timeout_connect(Some(network.connect_timeout))
        .timeout_recv_response(Some(network.answer_timeout))
        .timeout_recv_body(Some(network.answer_timeout))
        .timeout_per_read(Some(network.idle_timeout))
        .timeout_per_write(Some(network.idle_timeout))
        .build()
}

impl Connections {
    /// Makes the agent; connects to nothing. `is_https` tells whether requests will go to https URLs.
    pub(crate) fn new(
        network: &NetworkSettings,
        sizes: TransportSizes,
        is_https: bool,
    ) -> Result<Self, StorageError> {
        let (to_servers, to_proxies) = network.tls(is_https)?;
        let resolver = RouteResolver {
            servers: CachingResolver::new(network.connect_timeout),
            proxies: CachingResolver::new(network.connect_timeout),
            rules: network.proxies.clone(),
        };
        let to_proxies = agent_config(network, sizes, to_proxies);
        let dial = DialConnector::new(resolver.clone(), network.user_agent.clone(), to_proxies);
        let connector = dial.chain(RustlsConnector::default()).chain(RevealConnector);
        let config = agent_config(network, sizes, to_servers);
        Ok(Self { agent: Agent::with_parts(config, connector, resolver.clone()), resolver })
    }

    /// Makes an agent that has `wire` in place of the network, without TLS, and keeps no connection.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn over(network: &NetworkSettings, wire: impl Wire) -> Result<Self, StorageError> {
        let network_connections = Self::new(network, NOTHING_KEPT, false)?;
        let config = network_connections.agent.config().clone();
        let resolver = network_connections.resolver;
        let agent = Agent::with_parts(config, wire.chain(RevealConnector), resolver.clone());
        Ok(Self { agent, resolver })
    }

    /// Runs `call` with the agent. Its traffic counts for `context`, the placeholders of `hidden` become secrets on
    /// the wire, and `secrets` are removed from the response. A retry never reuses a connection unchecked. Also
    /// returns whether the server closed the connection before it read the request body.
    pub(crate) fn run_request<T>(
        &self,
        context: &RequestContext<'_>,
        request: &S3Request<'_>,
        first_try: bool,
        hidden: Vec<HiddenHeader>,
        secrets: &Arc<Secrets>,
        call: impl FnOnce(&Agent) -> T,
    ) -> (T, bool) {
        let (metrics, cancel) = (context.trace.metrics.clone(), context.cancel.clone());
        let current = ThreadContext {
            metrics,
            cancel,
            hidden,
            secrets: secrets.clone(),
            redacted: if request.operation == Operation::Download { Redacted::Head } else { Redacted::All },
            has_body: request.length > 0,
            // A retry trusts no connection that it did not check.
            known_open: !first_try,
            cut_off: false,
        };
        let before = THREAD_CONTEXT.replace(Some(current));
        let result = call(&self.agent);
        let ended = THREAD_CONTEXT.replace(before);
        (result, ended.is_some_and(|ended| ended.cut_off))
    }

    /// Makes the next connection resolve the host names again.
    pub(crate) fn forget_addresses(&self) {
        self.resolver.servers.forget();
        self.resolver.proxies.forget();
    }
}

/// Makes connections in memory.
#[cfg(any(test, fuzzing))]
pub(crate) trait Wire: Connector<(), Out: Transport> {}

#[cfg(any(test, fuzzing))]
impl<C: Connector<(), Out: Transport>> Wire for C {}

#[cfg(any(test, fuzzing))]
const NOTHING_KEPT: TransportSizes = TransportSizes { connections: 0, chunk_size: 8 * 1024 };

/// Wraps each new connection, above TLS, in a [`RevealTransport`].
#[derive(Debug)]
struct RevealConnector;

impl<In: Transport> Connector<In> for RevealConnector {
    type Out = RevealTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(RevealTransport))
    }
}

/// Replaces placeholders with secret headers on the way out, and removes secrets from what comes in.
#[derive(Debug)]
struct RevealTransport<In>(In);

impl<In: Transport> Transport for RevealTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        update_context(|current| {
            if !current.hidden.is_empty() {
                let output = &mut self.0.buffers().output()[..amount];
                // Each placeholder is replaced once: a body may hold the same bytes.
                current.hidden.retain(|hidden| !hidden.reveal(output));
            }
        });
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let progress = self.0.await_input(timeout)?;
        // ureq logs its input as soon as this returns.
        if progress {
            update_context(|current| current.redact_input(self.0.buffers()));
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
