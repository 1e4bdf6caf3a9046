//! A proxy that injects faults into HTTP/1.1 traffic by rules.
//!
//! # Architecture
//!
//! - [`FaultProxy`]: the handle of a test. It owns the listening thread (`Acceptor`).
//! - `Shared`: rules, records of requests, and open connections; shared by all threads.
//! - `Connection`: one client connection with its thread; `exchange` serves its requests one after another.
//! - [`Rule`] and [`Fault`] (`rules`): which fault is injected into which request. `wire` reads and copies HTTP/1.1.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each binary uses a part")]
#![allow(clippy::expect_used, reason = "support code ends the test that it cannot support")]

#[path = "proxy_exchange.rs"]
mod exchange;
#[path = "proxy_rules.rs"]
mod rules;
#[path = "proxy_wire.rs"]
mod wire;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustls::ServerConfig;

pub use self::rules::{Fault, Headers, HeldRequest, Latch, Made, Maker, Rule, latch};
use self::wire::{Head, Socket};

/// The longest wait for a port that is still in use.
const BIND_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait of a dropped proxy for its threads.
const DROP_TIMEOUT: Duration = Duration::from_secs(1);

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// The bytes of the body read so far, including the framing of a chunked one.
    pub received_body: u64,
    /// The headers as sent, in order.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    fn of(head: &Head) -> Self {
        let [method, target, _] = head.first.clone();
        Self { method, target, received_body: 0, headers: head.headers.clone() }
    }

    /// The value of the first header with this name; upper and lower case are the same.
    pub fn header(&self, name: &str) -> Option<&str> {
        wire::find(&self.headers, name)
    }
}

/// A running proxy on 127.0.0.1. Dropping it ends its threads and connections.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Mutex<Option<Acceptor>>,
}

impl FaultProxy {
    /// Listens on a free port and forwards to `upstream`.
    pub fn start(upstream: SocketAddr) -> Self {
        Self::start_with(upstream, None)
    }

    /// Listens with TLS and forwards to `upstream` without.
    pub fn start_tls(upstream: SocketAddr, config: Arc<ServerConfig>) -> Self {
        Self::start_with(upstream, Some(config))
    }

    fn start_with(upstream: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = bind(0);
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared::new(upstream, tls));
        let acceptor = Mutex::new(Some(Acceptor::start(listener, addr, &shared)));
        Self { addr, shared, acceptor }
    }

    /// The address that the proxy listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The proxy's URL with its address, without a slash at its end.
    pub fn endpoint(&self) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// The proxy's URL with a host name.
    pub fn host_endpoint(&self) -> String {
        format!("http://localhost:{}", self.addr.port())
    }

    /// Changes the upstream, from the next request on.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *lock(&self.shared.upstream) = upstream;
    }

    /// The number of accepted connections.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The number of connections that are open now. A request may be forwarded even if its client is gone.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// The requests in order of arrival.
    pub fn requests(&self) -> Vec<Seen> {
        let records = lock(&self.shared.records);
        let seen = records.iter().map(|record| Seen {
            received_body: record.received.load(Ordering::SeqCst),
            ..record.seen.clone()
        });
        seen.collect()
    }

    /// Forgets the requests and sets the number of connections to 0.
    pub fn clear_counts(&self) {
        lock(&self.shared.records).clear();
        self.shared.connections.store(0, Ordering::SeqCst);
    }

    /// Adds a rule. Only the first rule that applies to a request counts it.
    pub fn add(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Removes all rules. Faults that have begun continue.
    pub fn clear_rules(&self) {
        lock(&self.shared.rules).clear();
    }

    /// A handle that a callback of the proxy may keep.
    pub fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }

    /// Sets a callback for each request, called when its head has arrived, before any rule applies and before
    /// anything is forwarded. It replaces the previous callback.
    pub fn on_request(&self, callback: impl Fn(&Seen) + Send + Sync + 'static) {
        *lock(&self.shared.callback) = Some(Arc::new(callback));
    }

    /// Closes the listener and all connections. When this returns, connections are refused.
    pub fn refuse(&self) {
        if let Some(acceptor) = lock(&self.acceptor).take() {
            acceptor.stop(self.addr);
        }
        self.shared.close_connections();
    }

    /// Listens again on the same port after [`FaultProxy::refuse`].
    pub fn accept_again(&self) {
        let mut acceptor = lock(&self.acceptor);
        if acceptor.is_none() {
            *acceptor = Some(Acceptor::start(bind(self.addr.port()), self.addr, &self.shared));
        }
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.refuse();
        let deadline = Instant::now() + DROP_TIMEOUT;
        while !lock(&self.shared.open).is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Observes a proxy from one of its own callbacks.
pub struct Watch(Arc<Shared>);

impl Watch {
    /// The number of requests that have arrived and are not answered yet.
    pub fn under_way(&self) -> usize {
        self.0.under_way.load(Ordering::SeqCst)
    }
}

type Callback = Arc<dyn Fn(&Seen) + Send + Sync>;

/// The state shared by the proxy's threads.
struct Shared {
    tls: Option<Arc<ServerConfig>>,
    upstream: Mutex<SocketAddr>,
    rules: Mutex<Vec<Rule>>,
    records: Mutex<Vec<Record>>,
    connections: AtomicU64,
    under_way: AtomicUsize,
    callback: Mutex<Option<Callback>>,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next_connection: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("upstream", &self.upstream).finish_non_exhaustive()
    }
}

struct Record {
    seen: Seen,
    received: Arc<AtomicU64>,
}

impl Shared {
    fn new(upstream: SocketAddr, tls: Option<Arc<ServerConfig>>) -> Self {
        Self {
            tls,
            upstream: Mutex::new(upstream),
            rules: Mutex::default(),
            records: Mutex::default(),
            connections: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            callback: Mutex::default(),
            open: Mutex::default(),
            next_connection: AtomicU64::new(0),
        }
    }

    /// Records a request and calls the callback. Returns the counter for the bytes of its body.
    fn arrived(&self, head: &Head) -> Arc<AtomicU64> {
        let seen = Seen::of(head);
        let received = Arc::new(AtomicU64::new(0));
        lock(&self.records).push(Record { seen: seen.clone(), received: Arc::clone(&received) });
        let callback = lock(&self.callback).clone();
        if let Some(callback) = callback {
            callback(&seen);
        }
        received
    }

    fn fault_for(&self, head: &Head) -> Option<Fault> {
        let [method, target, _] = &head.first;
        lock(&self.rules).iter_mut().find_map(|rule| rule.consult(method, target, &head.headers))
    }

    /// Serves a connection on a thread of its own.
    fn serve(self: &Arc<Self>, stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let client = Socket::new(stream);
        let client = self.tls.iter().fold(client, Socket::secured);
        let connection = Arc::new(Connection::default());
        if connection.adopt(&client).is_err() {
            return;
        }
        let id = self.next_connection.fetch_add(1, Ordering::SeqCst);
        lock(&self.open).insert(id, Arc::clone(&connection));
        let leave = Leave { shared: Arc::clone(self), id };
        let spawned = thread::Builder::new().name(format!("fault-proxy-{id}")).spawn(move || {
            exchange::serve(&leave.shared, &connection, &client);
            drop(client);
            drop(leave);
        });
        // If the thread could not be started, its closure was dropped, and the connection with it.
        drop(spawned);
    }

    fn close_connections(&self) {
        let open: Vec<_> = lock(&self.open).values().cloned().collect();
        for connection in open {
            connection.close();
        }
    }
}

/// Takes a connection off the list when dropped, after a panic of the callback too.
struct Leave {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Leave {
    fn drop(&mut self) {
        lock(&self.shared.open).remove(&self.id);
    }
}

/// A client's connection and its connection to the upstream, as seen by other threads.
#[derive(Default)]
struct Connection {
    closed: AtomicBool,
    /// Weak, because a reset is only sent when the last handle of a socket is dropped.
    sockets: Mutex<Vec<Weak<TcpStream>>>,
}

impl Connection {
    fn adopt(&self, socket: &Socket) -> io::Result<()> {
        let mut sockets = lock(&self.sockets);
        if self.is_closed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        sockets.push(Arc::downgrade(&socket.0));
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        let sockets = lock(&self.sockets);
        self.closed.store(true, Ordering::SeqCst);
        for socket in sockets.iter().filter_map(Weak::upgrade) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Sleeps, at most until the connection is closed.
    fn sleep(&self, time: Duration) {
        let start = Instant::now();
        while !self.is_closed() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return;
            }
            thread::sleep(left.min(Duration::from_millis(10)));
        }
    }
}

/// The listening thread.
#[derive(Debug)]
struct Acceptor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Acceptor {
    fn start(listener: TcpListener, addr: SocketAddr, shared: &Arc<Shared>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(shared));
        let name = format!("fault-proxy-{}", addr.port());
        let thread = thread::Builder::new().name(name).spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    continue;
                };
                if !stopped.load(Ordering::SeqCst) {
                    shared.serve(stream);
                }
            }
        });
        Self { stop, thread: thread.expect("the proxy's thread starts") }
    }

    fn stop(self, addr: SocketAddr) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread from `accept`. If this fails, the next connection of anybody does.
        let _ = TcpStream::connect(addr);
        let _ = self.thread.join();
    }
}

fn bind(port: u16) -> TcpListener {
    let deadline = Instant::now() + BIND_TIMEOUT;
    loop {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            bound => return bound.expect("the port can be bound"),
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
