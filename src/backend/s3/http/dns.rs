//! DNS lookups: cached, and limited in time.
//!
//! # Architecture
//! - [`CachingResolver`] is shared by all threads of a destination. It keeps one answer and at most one running lookup.
//! - Each lookup runs on its own thread, because the system's cannot be interrupted. Its result comes through a
//!   channel.
//! - The thread that holds the lock waits for the lookup; the others wait for the lock.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::backend::s3::http::thread_context::count_metric;
use crate::engine::thread_named;

/// The time for which a resolved address is reused.
const CACHED_FOR: Duration = Duration::from_secs(30);
/// The time for which a lookup that timed out fails the threads that waited for it.
const TIMED_OUT_FOR: Duration = Duration::from_secs(1);

/// Resolves a host name and reuses the addresses for 30 s. One lookup runs at a time, and nobody waits for it longer
/// than `limit`. The next caller takes over a lookup that is still running, so at most one thread is stuck in the
/// system's resolver.
#[derive(Clone)]
pub(crate) struct CachingResolver {
    state: Arc<Mutex<State>>,
    limit: Duration,
}

#[derive(Default)]
struct State {
    resolved: Option<Resolved>,
    running: Option<(String, Receiver<io::Result<Vec<SocketAddr>>>)>,
    /// The last lookup that took too long.
    timed_out: Option<Instant>,
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

    /// Makes the next connection resolve the name again.
    pub(crate) fn forget(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).resolved = None;
    }

    fn resolve_cached(
        &self,
        host_and_port: &str,
        lookup: fn(&str) -> io::Result<Vec<SocketAddr>>,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &state.resolved
            && known.authority == host_and_port
            && known.at.elapsed() < CACHED_FOR
        {
            return Ok(known.addresses.clone());
        }
        let timed_out = || {
            let why = format!(
                "{host_and_port} does not resolve: the DNS lookup takes longer than {:?}",
                self.limit
            );
            io::Error::new(io::ErrorKind::HostUnreachable, why)
        };
        if state.timed_out.is_some_and(|at| at.elapsed() < TIMED_OUT_FOR) {
            // The others waited for the same lookup: they fail with it, or each would wait its own limit.
            return Err(timed_out());
        }
        // A lookup of another name is abandoned; its thread ends by itself.
        let waiting = match state.running.take().filter(|(name, _)| name == host_and_port) {
            Some((_, waiting)) => waiting,
            None => start_lookup(host_and_port, lookup)?,
        };
        let Ok(found) = waiting.recv_timeout(self.limit) else {
            // The next caller takes the lookup over instead of starting another.
            state.running = Some((host_and_port.to_owned(), waiting));
            state.timed_out = Some(Instant::now());
            return Err(timed_out());
        };
        let addresses = found.map_err(|error| {
            io::Error::new(io::ErrorKind::NotFound, format!("{host_and_port} does not resolve: {error}"))
        })?;
        let (authority, at) = (host_and_port.to_owned(), Instant::now());
        state.resolved = Some(Resolved { authority, at, addresses: addresses.clone() });
        Ok(addresses)
    }
}

/// Starts a lookup on its own thread.
fn start_lookup(
    host_and_port: &str,
    lookup: fn(&str) -> io::Result<Vec<SocketAddr>>,
) -> io::Result<Receiver<io::Result<Vec<SocketAddr>>>> {
    count_metric(|metrics| metrics.lookups(1));
    let (response, waiting) = bounded(1);
    let name = host_and_port.to_owned();
    let asking = thread_named("brigade-resolver");
    asking.spawn(move || {
        // The receiver may be gone.
        let _ = response.send(lookup(&name));
    })?;
    Ok(waiting)
}

fn system_lookup(host_and_port: &str) -> io::Result<Vec<SocketAddr>> {
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
        // An IP address needs no lookup.
        let found = match host_and_port.parse::<SocketAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolve_cached(&host_and_port, system_lookup)?,
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
#[allow(clippy::unnecessary_wraps, reason = "these stand for a lookup")]
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
            assert!(!resolver.resolve_cached("name:80", at_once).unwrap().is_empty());
        }
        assert_eq!(ASKED.load(Relaxed), 1);
        resolver.forget();
        resolver.resolve_cached("name:80", at_once).unwrap();
        assert_eq!(ASKED.load(Relaxed), 2);
    }

    #[test]
    fn n14_look_up_that_does_not_end_holds_nobody_up() {
        let resolver = CachingResolver::new(Duration::from_millis(50));
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let resolver = resolver.clone();
                std::thread::spawn(move || resolver.resolve_cached("name:80", never).unwrap_err())
            })
            .collect();
        for waiter in waiters {
            let error = waiter.join().unwrap();
            assert!(error.to_string().contains("does not resolve: the DNS lookup takes longer"), "{error}");
        }
    }
}
