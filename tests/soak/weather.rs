//! The faults between publishers and store. They change every few seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::memory_store::MemoryStore;
use crate::support::proxy::{Fault, FaultProxy, HeldRequest, Rule};
use crate::support::server::S3Server;

/// Part of the key of a file whose `CreateMultipartUpload` gets its answer, unless the connection ends by itself.
pub const SHIELDED: &str = "shielded";
/// Part of the prefixes whose writes may be held back until others have published. Without conditions a store cannot
/// tell them from new ones.
pub const SHARED: &str = "shared";

/// A request that is held, and the time at which it is let go.
struct Held {
    request: HeldRequest,
    until: Instant,
}

pub struct Weather {
    store: MemoryStore,
    proxy: FaultProxy,
    server: Option<S3Server>,
    random: fastrand::Rng,
    changes_at: Instant,
    refuses: bool,
    held: Vec<Held>,
    faults: Arc<AtomicU64>,
    requests: u64,
    connections: u64,
    pub held_requests: u64,
    pub outages: u64,
    pub restarts: u64,
}

impl Weather {
    pub fn new(store: &MemoryStore, random: fastrand::Rng) -> Self {
        let server = S3Server::start(store.service());
        Self {
            store: store.clone(),
            proxy: FaultProxy::start(server.addr()),
            server: Some(server),
            random,
            changes_at: Instant::now() + Duration::from_secs(3),
            refuses: false,
            held: Vec::new(),
            faults: Arc::default(),
            requests: 0,
            connections: 0,
            held_requests: 0,
            outages: 0,
            restarts: 0,
        }
    }

    pub fn endpoint(&self) -> String {
        self.proxy.endpoint()
    }

    pub fn faults(&self) -> u64 {
        let held: u64 = self.held.iter().map(|held| held.request.go.arrivals()).sum();
        self.faults.load(Ordering::Relaxed) + self.held_requests + held
    }

    pub fn requests(&self) -> u64 {
        self.requests + self.proxy.requests().len() as u64
    }

    pub fn connections(&self) -> u64 {
        self.connections + self.proxy.connections()
    }

    /// Counts the requests so far, and forgets them.
    pub fn forget_requests(&mut self) {
        self.requests = self.requests();
        self.connections = self.connections();
        self.proxy.clear_counts();
    }

    /// Lets held requests go whose time has come, and changes the weather.
    pub fn pass(&mut self) {
        let now = Instant::now();
        for held in self.held.extract_if(.., |held| held.until <= now) {
            held.request.go.release();
            self.held_requests += held.request.go.arrivals();
        }
        if now >= self.changes_at {
            self.change();
        }
    }

    fn change(&mut self) {
        if std::mem::take(&mut self.refuses) {
            self.proxy.accept_again();
        }
        self.proxy.clear_rules();
        // The first rule that applies counts, so what is answered in whole comes first.
        self.proxy.add(Rule::new(Fault::Delay(Duration::ZERO)).path_contains(&format!("{SHIELDED}?uploads")));
        self.changes_at = Instant::now() + Duration::from_millis(self.random.u64(2000..8000));
        match self.random.u8(0..10) {
            0 => {}
            1..=5 => self.rough(),
            6 => self.throttling(),
            7 => self.holding(),
            8 => self.outage(),
            _ => self.restart(),
        }
    }

    fn add(&mut self, fault: Fault, one_in: u32) {
        let seed = self.random.u64(..);
        self.proxy.add(Rule::new(fault).one_of(one_in, seed).count_in(&self.faults));
    }

    /// Connections break before, in and after requests, answers are lost, cut and late.
    fn rough(&mut self) {
        let one_in = self.random.u32(30..200);
        let faults = [
            Fault::ResetBefore,
            Fault::ResetInBody(self.random.u64(0..100_000)),
            Fault::ResetAfter,
            Fault::DropAnswer,
            Fault::TruncateAnswer(self.random.u64(0..300)),
            Fault::Answer(500, Vec::new(), Vec::new()),
            Fault::EarlyAnswer(503, Vec::new()),
            Fault::Delay(Duration::from_millis(self.random.u64(10..1500))),
            Fault::Stall,
            Fault::CloseIdle,
        ];
        for fault in faults {
            self.add(fault, one_in);
        }
    }

    fn throttling(&mut self) {
        let wait = vec![("Retry-After".to_owned(), "1".to_owned())];
        self.add(Fault::Answer(503, Vec::new(), b"<Error><Code>SlowDown</Code></Error>".to_vec()), 4);
        self.add(Fault::Answer(429, wait, Vec::new()), 20);
    }

    /// Writes that arrive at the store long after they were sent, when their senders may be dead.
    fn holding(&mut self) {
        for _ in 0..self.random.u8(1..4) {
            let request = HeldRequest::default();
            let rule = Rule::new(Fault::HoldRequest(request.clone())).writes().path_contains(SHARED);
            self.proxy.add(rule.skip(self.random.u64(0..30)).times(1));
            let until = Instant::now() + Duration::from_secs(self.random.u64(2..55));
            self.held.push(Held { request, until });
        }
    }

    fn outage(&mut self) {
        self.proxy.refuse();
        self.refuses = true;
        self.outages += 1;
        self.changes_at = Instant::now() + Duration::from_millis(self.random.u64(500..6000));
    }

    /// Another server on the same objects. Connections to the old one break.
    fn restart(&mut self) {
        self.server.take();
        let server = S3Server::start(self.store.service());
        self.proxy.set_upstream(server.addr());
        self.server = Some(server);
        self.restarts += 1;
    }

    /// Ends all faults, and waits until nothing is under way.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.refuses) {
            self.proxy.accept_again();
        }
        self.proxy.clear_rules();
        for held in self.held.drain(..) {
            held.request.go.release();
            self.held_requests += held.request.go.arrivals();
        }
        self.wait_for_connections(Duration::from_secs(10));
        // Requests that stalled are never answered.
        self.proxy.refuse();
        self.proxy.accept_again();
        // Only there to end a hang.
        self.wait_for_connections(Duration::from_secs(120));
        assert_eq!(self.proxy.open_connections(), 0);
        self.forget_requests();
    }

    fn wait_for_connections(&self, longest: Duration) {
        let end = Instant::now() + longest;
        while self.proxy.open_connections() > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// From now on the store's clock is ahead by so much more, and the dates of its answers.
    pub fn let_time_pass(&self, time: Duration) {
        self.store.advance_clock(time);
        self.proxy.clear_rules();
        self.proxy.add(Rule::new(Fault::WithHeader("date", httpdate::fmt_http_date(self.store.now()))));
    }

    /// The requests since the last time, as method and target.
    pub fn take_requests(&mut self) -> Vec<String> {
        let lines =
            self.proxy.requests().iter().map(|seen| format!("{} {}", seen.method, seen.target)).collect();
        self.forget_requests();
        lines
    }
}
