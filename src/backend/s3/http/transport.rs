//! The connections of one destination.
//!
//! # Architecture
//! - [`Connections`] owns a ureq agent, its pool of connections and its DNS cache. One per backend, shared by all
//!   threads.
//! - Each connection is a stack of transports, from the wire up: TCP, [`MeteredTransport`], TLS, [`RevealTransport`].
//!   The pool owns it, and one request uses it at a time.
//! - `MeteredTransport` sees encrypted bytes. It counts them, applies the idle limits, and reads a response that comes
//!   before the request body was sent.
//! - `RevealTransport` sees plain text. It replaces placeholders with secret headers on the way out, and removes
//!   secrets from what comes in, because ureq logs both at TRACE level.
//! - [`ThreadContext`] carries the state of the request from [`Connections::run_request`] to these transports. ureq
//!   passes nothing through, but runs a request on the calling thread.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::tls::TlsConfig;
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};
use ureq::{Agent, Timeout};

use crate::backend::s3::http::dns::CachingResolver;
use crate::backend::s3::http::thread_context::{
    HiddenHeader, Redacted, THREAD_CONTEXT, ThreadContext, context_is, count_metric, update_context,
};
use crate::backend::s3::redaction::Secrets;
use crate::backend::s3::request::S3Request;
use crate::error::Operation;
use crate::request_context::RequestContext;

/// An idle connection is reused for this long; servers commonly close theirs after 20 to 75 s.
const MAX_IDLE_AGE: Duration = Duration::from_secs(15);

/// A header must fit into the output buffer: a session token may have 8 KiB.
const MAX_HEADER_BYTES: usize = 10 * 1024;

/// The limits of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransportLimits {
    pub(crate) connections: usize,
    pub(crate) chunk_size: usize,
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
    pub(crate) response: Duration,
}

/// The pool and the DNS cache of one destination. A ureq pool does not tell TLS configurations apart, so each
/// destination has its own agent.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    agent: Agent,
    resolver: CachingResolver,
}

impl Connections {
    pub(crate) fn new(limits: &TransportLimits, tls: Option<TlsConfig>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls.unwrap_or_default())
            // The signature covers the host: a redirect is an error that names the right one.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // ureq would read proxy variables from the environment.
            .proxy(None)
            .user_agent(concat!("bucket-brigade/", env!("CARGO_PKG_VERSION")))
            // Objects are compared as they are stored.
            .accept_encoding("identity")
            .max_idle_connections(limits.connections)
            .max_idle_connections_per_host(limits.connections)
            .max_idle_age(MAX_IDLE_AGE)
            // A chunk and the overhead of a TLS record must fit, or each chunk takes two writes. So must the longest
            // header. Bodies are still read a chunk at a time.
            .output_buffer_size((limits.chunk_size + 256).max(MAX_HEADER_BYTES))
            .input_buffer_size(16 * 1024)
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.response))
            .timeout_recv_body(Some(limits.response))
            .timeout_per_read(Some(limits.idle))
            .timeout_per_write(Some(limits.idle))
            .build();
        let resolver = CachingResolver::new(limits.connect);
        let connector =
            ().chain(TcpConnector::default()).chain(MeterConnector).chain(RustlsConnector::default());
        let agent = Agent::with_parts(config, connector.chain(RevealConnector), resolver.clone());
        Self { agent, resolver }
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

    /// Makes the next connection resolve the host name again.
    pub(crate) fn forget_addresses(&self) {
        self.resolver.forget();
    }
}

/// Wraps each new connection, below TLS, in a [`MeteredTransport`].
#[derive(Debug)]
struct MeterConnector;

impl<In: Transport> Connector<In> for MeterConnector {
    type Out = MeteredTransport<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        count_metric(|metrics| metrics.connections(1));
        update_context(|current| current.known_open = true);
        Ok(chained.map(|inner| MeteredTransport { inner, last_input: None, write_closed: false }))
    }
}

/// A connection that received something this recently is reused without a check. ureq checks twice a request, which
/// takes six system calls. If the server has closed it after all, the request fails and is retried, and a retry
/// checks.
const UNCHECKED_REUSE: Duration = Duration::from_millis(1);

/// The interval at which a wait for input looks at the cancel token.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The wait for a response after the run was cancelled. Most responses come within it, and then the outcome of the
/// request is known.
const CANCEL_GRACE: Duration = Duration::from_secs(3);

fn is_grace_over() -> bool {
    context_is(|current| current.cancel.is_cancelled_for(CANCEL_GRACE))
}

/// Counts connections and bytes. Allows a longer silence before a response than within it. Reads a response that a
/// server sends before it has read the whole request body.
#[derive(Debug)]
struct MeteredTransport<In> {
    inner: In,
    /// The time of the last input; `None` if the last wait brought nothing.
    last_input: Option<Instant>,
    /// The server has closed its side: what is sent goes nowhere.
    write_closed: bool,
}

/// Returns whether the error means that the server closed the connection.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

/// Records that the connection was reset instead of a response. By then a body that fits the socket's buffers is
/// written, so the server did not read it. A reused connection that was not checked may have been closed earlier.
fn mark_body_unread() {
    update_context(|current| current.cut_off |= current.has_body && current.known_open);
}

impl<In: Transport> MeteredTransport<In> {
    /// Waits for input, and ends the wait if the run was cancelled.
    fn await_input_or_cancel(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let whole = timeout.for_read();
        let began = Instant::now();
        loop {
            let left = whole.after.saturating_sub(began.elapsed());
            let last = left <= CANCEL_POLL_INTERVAL;
            let after = UreqDuration::Exact(left.min(CANCEL_POLL_INTERVAL));
            match self.inner.await_input(NextTimeout { after, ..whole }) {
                Err(ureq::Error::Timeout(_)) if is_grace_over() => {
                    let why = "the run was cancelled before the response came";
                    return Err(ureq::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
                }
                // Only this slice of the wait is over.
                Err(ureq::Error::Timeout(_)) if !last => {}
                result => return result,
            }
        }
    }
}

impl<In: Transport> Transport for MeteredTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.write_closed {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(ureq::Error::Io(error)) if is_closed(&error) => {
                // The server may have sent a response before it closed, which says more than the reset. So the rest
                // of the body is dropped, and the response is read.
                self.write_closed = true;
                update_context(|current| current.cut_off = true);
                return Ok(());
            }
            // Other errors may be the network's, with no response to wait for.
            sent => sent?,
        }
        count_metric(|metrics| {
            metrics.bytes_sent(amount as u64);
            metrics.sends(1);
        });
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if timeout.reason == Timeout::RecvResponse && timeout.after != UreqDuration::NotHappening {
            // The idle limit holds within a response. Before it, only the limit for the whole response does.
            timeout.per_read = None;
        }
        let before = self.inner.buffers().input().len();
        // A reset within a response is a broken connection, not a refused body.
        let silent = timeout.reason == Timeout::RecvResponse && before == 0;
        let result = self.await_input_or_cancel(timeout);
        if let Err(ureq::Error::Io(error)) = &result
            && error.kind() == io::ErrorKind::ConnectionReset
            && silent
        {
            mark_body_unread();
        }
        let progress = result?;
        let after = self.inner.buffers().input().len();
        self.last_input = progress.then(Instant::now);
        count_metric(|metrics| metrics.bytes_received(after.saturating_sub(before) as u64));
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        let may_trust = context_is(|current| !current.known_open);
        let fresh = may_trust && self.last_input.is_some_and(|at| at.elapsed() < UNCHECKED_REUSE);
        // A connection that the server closed for writing is never reused.
        if self.write_closed || fresh {
            return !self.write_closed;
        }
        let open = self.inner.is_open();
        update_context(|current| current.known_open |= open);
        open
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

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
