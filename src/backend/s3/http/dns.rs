//! Host names, looked up once in a while, in a limited time.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::backend::s3::http::thread_context::count;

/// How long a resolved address is used without asking again.
const RESOLVED_FOR: Duration = Duration::from_secs(30);
/// Whoever waited for the same look-up takes its failure for theirs, this long.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Resolves once and keeps the answer for 30 s. One look-up at a time: whoever comes meanwhile waits for
/// its result. The system may take its time; nobody waits longer than the limit, and a look-up that is still
/// under way then is the next one's, too, so that no more than one thread ever stands there.
#[derive(Clone)]
pub(crate) struct CachingResolver {
    state: Arc<Mutex<State>>,
    limit: Duration,
}

#[derive(Default)]
struct State {
    resolved: Option<Resolved>,
    under_way: Option<(String, Receiver<io::Result<Vec<SocketAddr>>>)>,
    late: Option<Instant>,
}

struct Resolved {
    authority: String,
    at: Instant,
    addresses: Vec<SocketAddr>,
}

impl CachingResolver {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { state: Arc::default(), limit }
    }

    pub(crate) fn forget(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).resolved = None;
    }

    fn addresses(
        &self,
        host_and_port: &str,
        look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &state.resolved
            && known.authority == host_and_port
            && known.at.elapsed() < RESOLVED_FOR
        {
            return Ok(known.addresses.clone());
        }
        let late = || {
            let why =
                format!("{host_and_port} does not resolve: the look-up takes longer than {:?}", self.limit);
            io::Error::new(io::ErrorKind::HostUnreachable, why)
        };
        if state.late.is_some_and(|at| at.elapsed() < FAILED_FOR) {
            return Err(late());
        }
        let waiting = match state.under_way.take().filter(|(name, _)| name == host_and_port) {
            Some((_, waiting)) => waiting,
            None => begin(host_and_port, look_up)?,
        };
        let Ok(found) = waiting.recv_timeout(self.limit) else {
            state.under_way = Some((host_and_port.to_owned(), waiting));
            state.late = Some(Instant::now());
            return Err(late());
        };
        let addresses = found.map_err(|error| {
            io::Error::new(io::ErrorKind::NotFound, format!("{host_and_port} does not resolve: {error}"))
        })?;
        let (authority, at) = (host_and_port.to_owned(), Instant::now());
        state.resolved = Some(Resolved { authority, at, addresses: addresses.clone() });
        Ok(addresses)
    }
}

/// Asks the system on a thread of its own.
fn begin(
    host_and_port: &str,
    look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
) -> io::Result<Receiver<io::Result<Vec<SocketAddr>>>> {
    count(|metrics| metrics.lookups(1));
    let (answer, waiting) = bounded(1);
    let name = host_and_port.to_owned();
    let asking = std::thread::Builder::new().name("brigade-resolver".to_owned());
    asking.spawn(move || {
        // Nobody may be left to hear it.
        let _ = answer.send(look_up(&name));
    })?;
    Ok(waiting)
}

fn ask_the_system(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(host_and_port.to_socket_addrs()?.collect())
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
        // An address in digits is nothing to wait for.
        let found = match host_and_port.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.addresses(&host_and_port, ask_the_system)?,
        };
        let mut result = self.empty();
        // ureq takes up to 16 addresses and panics on more.
        for address in found.into_iter().take(16) {
            result.push(address);
        }
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
    }
}

#[cfg(test)]
#[allow(clippy::unnecessary_wraps, reason = "what stands for a look-up")]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    static ASKED: AtomicU32 = AtomicU32::new(0);

    fn at_once(_: &str) -> io::Result<Vec<SocketAddr>> {
        ASKED.fetch_add(1, Relaxed);
        Ok(vec![([127, 0, 0, 1], 80).into()])
    }

    fn never(_: &str) -> io::Result<Vec<SocketAddr>> {
        std::thread::sleep(Duration::from_secs(3600));
        Ok(Vec::new())
    }

    #[test]
    fn a_name_is_looked_up_once_and_again_after_a_failure() {
        let resolver = CachingResolver::new(Duration::from_secs(60));
        for _ in 0..1000 {
            assert!(!resolver.addresses("name:80", at_once).unwrap().is_empty());
        }
        assert_eq!(ASKED.load(Relaxed), 1);
        resolver.forget();
        resolver.addresses("name:80", at_once).unwrap();
        assert_eq!(ASKED.load(Relaxed), 2);
    }

    #[test]
    fn n14_look_up_that_does_not_end_holds_nobody_up() {
        let resolver = CachingResolver::new(Duration::from_millis(50));
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let resolver = resolver.clone();
                std::thread::spawn(move || resolver.addresses("name:80", never).unwrap_err())
            })
            .collect();
        for waiter in waiters {
            let error = waiter.join().unwrap();
            assert!(error.to_string().contains("does not resolve: the look-up takes longer"), "{error}");
        }
    }
}
