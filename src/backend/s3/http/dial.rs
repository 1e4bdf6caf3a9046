//! Makes connections: to the server, or through a proxy.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::Uri;
use http::uri::Scheme;
use ureq::Timeout;
use ureq::config::Config;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, NextTimeout, RustlsConnector, TcpConnector, Transport,
    TransportAdapter,
};

use crate::backend::s3::http::dns::CachingResolver;
use crate::backend::s3::http::meter::MeteredTransport;
use crate::backend::s3::http::proxy::{Proxy, ProxyKind, ProxyRules};
use crate::backend::s3::http::tunnel::{self, ProxyError, Refusal, Target};
use crate::error::ErrorKind;

type Tcp = <TcpConnector as Connector>::Out;

/// The resolver of an agent. A name that the proxy resolves is not looked up here.
#[derive(Debug, Clone)]
pub(crate) struct RouteResolver {
    /// For the names of servers.
    pub(crate) servers: CachingResolver,
    /// For the names of proxies: an answer for one would push that for the other out.
    pub(crate) proxies: CachingResolver,
    pub(crate) rules: Arc<ProxyRules>,
}

impl Resolver for RouteResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        if self.rules.proxy_for(uri).is_some_and(|proxy| proxy.kind.resolves_names()) {
            return Ok(self.empty());
        }
        self.servers.resolve(uri, config, timeout)
    }
}

/// Opens TCP connections, and tunnels through proxies. Starts the chain of connectors.
pub(crate) struct DialConnector {
    tcp: TcpConnector,
    routes: RouteResolver,
    user_agent: String,
    /// TLS to a proxy. It is no part of the chain, whose TLS is to the server.
    tls: RustlsConnector,
    /// The agent's settings for connections to proxies.
    config: Config,
}

impl DialConnector {
    /// `config` is for the TLS to https proxies. It has no client certificate: that is for the server.
    pub(crate) fn new(routes: RouteResolver, user_agent: String, config: Config) -> Self {
        Self { tcp: TcpConnector::default(), routes, user_agent, tls: RustlsConnector::default(), config }
    }

    fn through(&self, proxy: &Proxy, details: &ConnectionDetails<'_>) -> Result<Box<dyn Transport>, Failure> {
        let began = Instant::now();
        let addresses = self.routes.proxies.resolve(&proxy.uri, details.config, details.timeout)?;
        let details_to = |config, addrs| ConnectionDetails {
            uri: &proxy.uri,
            addrs,
            config,
            request_level: false,
            resolver: details.resolver,
            now: (details.current_time)(),
            timeout: left_of(details.timeout, began),
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let tcp = self.tcp.connect(&details_to(details.config, addresses), None::<()>)?;
        let mut stream = tcp.map(MeteredTransport::new).ok_or(ureq::Error::ConnectionFailed)?.boxed();
        if proxy.kind == ProxyKind::Https {
            let to_proxy = details_to(&self.config, details.resolver.empty());
            let tls = self.tls.connect(&to_proxy, Some(stream))?;
            stream = tls.ok_or(ureq::Error::ConnectionFailed)?.boxed();
        }
        let mut stream = TransportAdapter::new(stream, details.current_time.clone());
        stream.set_timeout(left_of(details.timeout, began));
        let default_port = if details.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let target = Target {
            host: details.uri.host().unwrap_or_default(),
            port: details.uri.port_u16().unwrap_or(default_port),
            address: details.addrs.first().copied().filter(|_| !proxy.kind.resolves_names()),
        };
        match proxy.kind {
            ProxyKind::Http | ProxyKind::Https => {
                tunnel::http_connect(&mut stream, proxy, target, &self.user_agent)?;
            }
            ProxyKind::Socks5 | ProxyKind::Socks5h => tunnel::socks5_connect(&mut stream, proxy, target)?,
        }
        Ok(TunnelTransport(stream.into_inner()).boxed())
    }
}

/// Returns what is left of a limit that began at `began`.
fn left_of(limit: NextTimeout, began: Instant) -> NextTimeout {
    let after = match limit.after {
        UreqDuration::Exact(after) => UreqDuration::Exact(after.saturating_sub(began.elapsed())),
        UreqDuration::NotHappening => UreqDuration::NotHappening,
    };
    NextTimeout { after, ..limit }
}

impl Connector for DialConnector {
    type Out = Either<MeteredTransport<Tcp>, Box<dyn Transport>>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(proxy) = self.routes.rules.proxy_for(details.uri) else {
            let tcp = self.tcp.connect(details, None::<()>)?;
            return Ok(tcp.map(|tcp| Either::A(MeteredTransport::new(tcp))));
        };
        match self.through(proxy, details) {
            Ok(tunnel) => Ok(Some(Either::B(tunnel))),
            Err(failure) => Err(ureq::Error::Io(io::Error::other(failure.at(proxy)))),
        }
    }
}

impl fmt::Debug for DialConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DialConnector")
    }
}

/// The failure of a connection to a proxy.
enum Failure {
    Transport(ureq::Error),
    Said(ProxyError),
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        Self::Transport(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Io(error) => Self::Transport(ureq::Error::from(error)),
            Refusal::Said(error) => Self::Said(error),
        }
    }
}

impl Failure {
    /// Returns the error that names the proxy.
    fn at(self, proxy: &Proxy) -> ProxyError {
        let place = proxy.place();
        let connect = |what: String| ProxyError::new(ErrorKind::Connect, format!("proxy {place}{what}"));
        let io = match self {
            Self::Said(error) => return error,
            Self::Transport(ureq::Error::Io(error)) => error,
            Self::Transport(ureq::Error::Timeout(
                Timeout::Connect | Timeout::PerRead | Timeout::PerWrite,
            )) => {
                return connect(": connecting timed out before it answered; check its address".to_owned());
            }
            Self::Transport(error @ (ureq::Error::Tls(_) | ureq::Error::Rustls(_))) => {
                return tls_error(place, &error.to_string());
            }
            Self::Transport(error) => return connect(format!(": {error}")),
        };
        // Our resolver names the proxy, too.
        let said = io.to_string();
        let said = said.strip_prefix(place).map_or_else(|| format!(": {said}"), str::to_owned);
        match io.kind() {
            // Only our resolver reports this kind.
            io::ErrorKind::NotFound => ProxyError { without_address: true, ..connect(said) },
            // Only rustls reports this kind.
            io::ErrorKind::InvalidData => tls_error(place, &io.to_string()),
            // The run was cancelled.
            io::ErrorKind::ConnectionAborted => connect(said),
            _ => connect(format!("{said}; check its address, and that it runs")),
        }
    }
}

fn tls_error(place: &str, said: &str) -> ProxyError {
    let advice = "check the scheme of its URL; ca_file adds trusted certificates to the system's";
    ProxyError::new(ErrorKind::Tls, format!("proxy {place}: the TLS connection failed: {said}; {advice}"))
}

/// A connection through a proxy. It may have TLS to the proxy, but has none to the server yet.
#[derive(Debug)]
struct TunnelTransport(Box<dyn Transport>);

impl Transport for TunnelTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        false
    }
}
