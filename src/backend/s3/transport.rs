//! The connections of one destination: a ureq agent with a resolver that remembers, counters on
//! the wire, idle limits, and secret headers that only the wire sees.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, RustlsConnector, TcpConnector, Transport,
};
use ureq::{Agent, Timeout};
use zeroize::Zeroizing;

use crate::backend::Exchange;
use crate::clock::CancelToken;
use crate::observe::metrics::Metrics;

/// How long a resolved address is used without asking again.
const RESOLVED_FOR: Duration = Duration::from_secs(30);
/// Idle connections are given up after this; servers commonly close theirs after 20 to 75 s.
const KEPT_FOR: Duration = Duration::from_secs(15);

/// Headers are written whole: a session token of 8 KiB must fit.
const MOST_OF_A_HEADER: usize = 10 * 1024;

/// Limits of the agent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
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
    pub(crate) fn new(limits: &Limits, tls: Option<TlsConfig>) -> Self {
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
        let resolver = CachingResolver::default();
        let connector = ().chain(TcpConnector::default()).chain(Meter).chain(RustlsConnector::default());
        let agent = Agent::with_parts(config, connector.chain(Reveal), resolver.clone());
        Self { agent, resolver }
    }

    /// Runs `call` with the agent; its traffic counts for the exchange, and each placeholder of
    /// `hidden` becomes its secret on the wire. A try that is not the first asks whether a kept connection
    /// is open, whenever it was used. Also tells whether the server closed the connection while something was
    /// being sent.
    pub(crate) fn with<T>(
        &self,
        exchange: &Exchange<'_>,
        first_try: bool,
        hidden: Vec<Hidden>,
        call: impl FnOnce(&Agent) -> T,
    ) -> (T, bool) {
        let (metrics, cancel) = (exchange.trace.metrics.clone(), exchange.cancel.clone());
        let scope = Scope { metrics, cancel, first_try, hidden, cut_off: false };
        let before = SCOPE.replace(Some(scope));
        let result = call(&self.agent);
        let scope = SCOPE.replace(before);
        (result, scope.is_some_and(|scope| scope.cut_off))
    }

    /// A connection failed: the next one asks for the address anew.
    pub(crate) fn forget_addresses(&self) {
        self.resolver.forget();
    }
}

/// What the thread is sending for.
struct Scope {
    metrics: Metrics,
    cancel: CancelToken,
    first_try: bool,
    hidden: Vec<Hidden>,
    /// The server takes no more of what is sent.
    cut_off: bool,
}

/// Whether the server takes no more of what this thread is sending: the rest need not be read from disk.
pub(super) fn is_cut_off() -> bool {
    SCOPE.with_borrow(|scope| scope.as_ref().is_some_and(|scope| scope.cut_off))
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

fn count(add: impl FnOnce(&Metrics)) {
    SCOPE.with_borrow(|scope| {
        if let Some(scope) = scope {
            add(&scope.metrics);
        }
    });
}

/// A header value that the HTTP layer must not see, as that layer writes what it sends to the log at
/// TRACE level. It gets a placeholder of the same length.
pub(crate) struct Hidden {
    placeholder: Vec<u8>,
    value: Zeroizing<Vec<u8>>,
}

impl Hidden {
    /// `name` only keeps the placeholders of one request apart.
    pub(crate) fn new(name: &str, value: &str) -> Self {
        let placeholder = format!("{{{name}}}").into_bytes();
        let length = value.len().max(placeholder.len());
        let pad = |bytes: &[u8], with: u8| {
            let mut bytes = bytes.to_vec();
            bytes.resize(length, with);
            bytes
        };
        // White space at the end of a header's value is not part of it (RFC 9110, 5.5).
        Self { placeholder: pad(&placeholder, b'*'), value: Zeroizing::new(pad(value.as_bytes(), b' ')) }
    }

    pub(crate) fn placeholder(&self) -> &[u8] {
        &self.placeholder
    }

    fn reveal(&self, output: &mut [u8]) -> bool {
        let Some(at) = output.windows(self.placeholder.len()).position(|window| window == self.placeholder)
        else {
            return false;
        };
        output[at..at + self.value.len()].copy_from_slice(&self.value);
        true
    }
}

/// Resolves once and keeps the answer for 30 s. One look-up at a time: whoever comes meanwhile
/// waits for its result.
#[derive(Clone, Default)]
struct CachingResolver(Arc<Mutex<Option<Resolved>>>);

struct Resolved {
    authority: String,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl CachingResolver {
    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn addresses(&self, host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*kept
            && known.authority == host_and_port
            && known.at.elapsed() < RESOLVED_FOR
        {
            return Ok(known.addresses.clone());
        }
        count(|metrics| metrics.lookups(1));
        let failed = |error| {
            io::Error::new(io::ErrorKind::NotFound, format!("{host_and_port} does not resolve: {error}"))
        };
        let addresses: Vec<_> = host_and_port.to_socket_addrs().map_err(failed)?.collect();
        *kept = Some(Resolved {
            authority: host_and_port.to_owned(),
            at: Instant::now(),
            addresses: addresses.clone(),
        });
        Ok(addresses)
    }
}

impl fmt::Debug for CachingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CachingResolver")
    }
}

impl Resolver for CachingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let missing = || ureq::Error::BadUri(uri.to_string());
        let (scheme, authority) = uri.scheme().zip(uri.authority()).ok_or_else(missing)?;
        let host_and_port = DefaultResolver::host_and_port(scheme, authority).ok_or_else(missing)?;
        let mut result = self.empty();
        // ureq takes up to 16 addresses and panics on more.
        for address in self.addresses(&host_and_port)?.into_iter().take(16) {
            result.push(address);
        }
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
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
    SCOPE.with_borrow(|scope| {
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
                SCOPE.with_borrow_mut(|scope| scope.iter_mut().for_each(|scope| scope.cut_off = true));
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
        let progress = self.listen(timeout)?;
        let after = self.inner.buffers().input().len();
        self.heard = progress.then(Instant::now);
        count(|metrics| metrics.bytes_received(after.saturating_sub(before) as u64));
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        let trusting = SCOPE.with_borrow(|scope| scope.as_ref().is_some_and(|scope| scope.first_try));
        let fresh = trusting && self.heard.is_some_and(|heard| heard.elapsed() < FRESH);
        !self.deaf && (fresh || self.inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Above TLS: puts the secret headers in the place of their placeholders.
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
        SCOPE.with_borrow_mut(|scope| {
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
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_as_long_as_its_secret_and_gives_way_to_it_once() {
        let hidden = Hidden::new("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let mut wire = [b"authorization: ", hidden.placeholder(), b"\r\n"].concat();
        assert!(!wire.windows(4).any(|window| window == b"AWS4"));
        assert!(hidden.reveal(&mut wire));
        assert_eq!(wire, b"authorization: AWS4-HMAC-SHA256 Credential=x\r\n");
        assert!(!hidden.reveal(&mut wire));
        let short = Hidden::new("token", "t");
        let mut wire = short.placeholder().to_vec();
        assert!(short.reveal(&mut wire));
        assert_eq!(wire, b"t      ");
    }

    #[test]
    fn a_name_is_looked_up_once_and_again_after_a_failure() {
        let (metrics, resolver) = (Metrics::default(), CachingResolver::default());
        let cancel = CancelToken::new();
        SCOPE.set(Some(Scope {
            metrics: metrics.clone(),
            cancel,
            first_try: true,
            hidden: Vec::new(),
            cut_off: false,
        }));
        for _ in 0..1000 {
            assert!(!resolver.addresses("localhost:80").unwrap().is_empty());
        }
        assert_eq!(metrics.snapshot().lookups, 1);
        resolver.forget();
        resolver.addresses("localhost:80").unwrap();
        assert_eq!(metrics.snapshot().lookups, 2);
        SCOPE.set(None);
    }
}
