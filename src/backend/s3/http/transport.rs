//! The connections of one destination: a ureq agent with a resolver that remembers, counters on
//! the wire, idle limits, and secret headers that only the wire sees.

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
use crate::backend::s3::http::thread_context::{Censored, Hidden, THREAD_CONTEXT, ThreadContext, count};
use crate::backend::s3::redaction::Secrets;
use crate::backend::s3::request::S3Request;
use crate::error::Operation;
use crate::request_context::RequestContext;

/// Idle connections are given up after this; servers commonly close theirs after 20 to 75 s.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// Headers are written whole: a session token of 8 KiB must fit.
const MOST_OF_A_HEADER: usize = 10 * 1024;

/// Limits of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransportLimits {
    pub(crate) connections: usize,
    pub(crate) chunk_size: usize,
    pub(crate) connect: Duration,
    pub(crate) idle: Duration,
    pub(crate) answer: Duration,
}

/// One agent, and what it remembers of its host. The pool of a ureq agent does not tell TLS
/// configurations apart, so each destination has its own.
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
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("bucket-brigade/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_idle_connections(limits.connections)
            .max_idle_connections_per_host(limits.connections)
            .max_idle_age(KEPT_FOR)
            // Room for a TLS record's overhead, or each chunk leaves in two writes; and for the longest header.
            // Bodies are read a chunk at a time all the same.
            .output_buffer_size((limits.chunk_size + 256).max(MOST_OF_A_HEADER))
            .input_buffer_size(16 * 1024)
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_recv_body(Some(limits.answer))
            .timeout_per_read(Some(limits.idle))
            .timeout_per_write(Some(limits.idle))
            .build();
        let resolver = CachingResolver::new(limits.connect);
        let connector = ().chain(TcpConnector::default()).chain(Meter).chain(RustlsConnector::default());
        let agent = Agent::with_parts(config, connector.chain(Reveal), resolver.clone());
        Self { agent, resolver }
    }

    /// Runs `call` with the agent; its traffic counts for the exchange, each placeholder of `hidden` becomes its
    /// secret on the wire, and what the answer repeats of the `secrets` is written over. A try that is not the
    /// first asks whether a kept connection is open, whenever it was used. Also tells whether the server closed
    /// the connection before it had taken a body.
    pub(crate) fn with<T>(
        &self,
        exchange: &RequestContext<'_>,
        ask: &S3Request<'_>,
        first_try: bool,
        hidden: Vec<Hidden>,
        secrets: &Arc<Secrets>,
        call: impl FnOnce(&Agent) -> T,
    ) -> (T, bool) {
        let (metrics, cancel) = (exchange.trace.metrics.clone(), exchange.cancel.clone());
        let scope = ThreadContext {
            metrics,
            cancel,
            hidden,
            secrets: secrets.clone(),
            censored: if ask.operation == Operation::Download { Censored::Head } else { Censored::All },
            has_body: ask.length > 0,
            certain: !first_try,
            cut_off: false,
        };
        let before = THREAD_CONTEXT.replace(Some(scope));
        let result = call(&self.agent);
        let scope = THREAD_CONTEXT.replace(before);
        (result, scope.is_some_and(|scope| scope.cut_off))
    }

    /// A connection failed: the next one asks for the address anew.
    pub(crate) fn forget_addresses(&self) {
        self.resolver.forget();
    }
}

/// Below TLS: counts connections and bytes, lets a server think longer than it may be silent in the middle of
/// something, and lets it answer before it has read everything.
#[derive(Debug)]
struct Meter;

impl<In: Transport> Connector<In> for Meter {
    type Out = Metered<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        count(|metrics| metrics.connections(1));
        THREAD_CONTEXT.with_borrow_mut(|scope| scope.iter_mut().for_each(|scope| scope.certain = true));
        Ok(chained.map(|inner| Metered { inner, heard: None, deaf: false }))
    }
}

/// A connection heard of this shortly is taken for open. Asking the system costs six calls a request,
/// as ureq asks twice; one that was closed meanwhile all the same is an error that is retried, and a
/// retry takes nothing for granted.
const FRESH: Duration = Duration::from_millis(1);

/// A wait for input looks this often whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An answer is waited for so long after its run was cancelled: most come within that, and say for certain
/// what was done.
const PATIENCE_WHEN_CANCELLED: Duration = Duration::from_secs(3);

fn is_given_up() -> bool {
    THREAD_CONTEXT.with_borrow(|scope| {
        scope.as_ref().is_some_and(|scope| scope.cancel.is_cancelled_for(PATIENCE_WHEN_CANCELLED))
    })
}

#[derive(Debug)]
struct Metered<In> {
    inner: In,
    /// When the last bytes came.
    heard: Option<Instant>,
    /// The server takes nothing more.
    deaf: bool,
}

/// Whether the other side has closed the connection.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

/// The connection was reset in the place of an answer. A body that fits the system's buffers has left by then,
/// and what is reset is what the server did not read. A kept connection may have been closed before that.
fn refused_unread() {
    THREAD_CONTEXT.with_borrow_mut(|scope| {
        if let Some(scope) = scope {
            scope.cut_off |= scope.has_body && scope.certain;
        }
    });
}

impl<In: Transport> Metered<In> {
    /// Waits for input, a while at a time.
    fn listen(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let whole = timeout.for_read();
        let began = Instant::now();
        loop {
            let left = whole.after.saturating_sub(began.elapsed());
            let last = left <= LOOK_EVERY;
            let after = UreqDuration::Exact(left.min(LOOK_EVERY));
            match self.inner.await_input(NextTimeout { after, ..whole }) {
                Err(ureq::Error::Timeout(_)) if is_given_up() => {
                    let why = "its answer was not waited for: the run was cancelled";
                    return Err(ureq::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
                }
                Err(ureq::Error::Timeout(_)) if !last => {}
                heard => return heard,
            }
        }
    }
}

impl<In: Transport> Transport for Metered<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.deaf {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(ureq::Error::Io(error)) if is_closed(&error) => {
                // Perhaps it has answered before it closed: what it said is worth more than the reset.
                self.deaf = true;
                THREAD_CONTEXT
                    .with_borrow_mut(|scope| scope.iter_mut().for_each(|scope| scope.cut_off = true));
                return Ok(());
            }
            sent => sent?,
        }
        count(|metrics| {
            metrics.bytes_sent(amount as u64);
            metrics.sends(1);
        });
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if timeout.reason == Timeout::RecvResponse && timeout.after != UreqDuration::NotHappening {
            timeout.per_read = None;
        }
        let before = self.inner.buffers().input().len();
        let silent = timeout.reason == Timeout::RecvResponse && before == 0;
        let heard = self.listen(timeout);
        if let Err(ureq::Error::Io(error)) = &heard
            && error.kind() == io::ErrorKind::ConnectionReset
            && silent
        {
            refused_unread();
        }
        let progress = heard?;
        let after = self.inner.buffers().input().len();
        self.heard = progress.then(Instant::now);
        count(|metrics| metrics.bytes_received(after.saturating_sub(before) as u64));
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        let trusting = THREAD_CONTEXT.with_borrow(|scope| scope.as_ref().is_some_and(|scope| !scope.certain));
        let fresh = trusting && self.heard.is_some_and(|heard| heard.elapsed() < FRESH);
        if self.deaf || fresh {
            return !self.deaf;
        }
        let open = self.inner.is_open();
        THREAD_CONTEXT.with_borrow_mut(|scope| scope.iter_mut().for_each(|scope| scope.certain |= open));
        open
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Above TLS: puts the secret headers in the place of their placeholders, and takes out what comes back of them.
#[derive(Debug)]
struct Reveal;

impl<In: Transport> Connector<In> for Reveal {
    type Out = Revealing<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(Revealing))
    }
}

#[derive(Debug)]
struct Revealing<In>(In);

impl<In: Transport> Transport for Revealing<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        THREAD_CONTEXT.with_borrow_mut(|scope| {
            if let Some(scope) = scope
                && !scope.hidden.is_empty()
            {
                let output = &mut self.0.buffers().output()[..amount];
                scope.hidden.retain(|hidden| !hidden.reveal(output));
            }
        });
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let progress = self.0.await_input(timeout)?;
        if progress {
            THREAD_CONTEXT
                .with_borrow_mut(|scope| scope.iter_mut().for_each(|scope| scope.censor(self.0.buffers())));
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
