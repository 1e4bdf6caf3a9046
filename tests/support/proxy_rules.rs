//! The rules that say which fault is injected into which request. Part of `proxy.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Seen;

/// Longer than any test takes; only there to end one that hangs.
const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// A fault that the proxy injects into a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Waits this long before relaying the answer.
    Delay(Duration),
    /// Resets the connection as soon as the head is read.
    ResetBefore,
    /// Forwards this many bytes of the body (all of a shorter one), then resets both connections.
    ResetInBody(u64),
    /// Forwards everything and reads the whole answer, then resets the client instead of relaying it.
    ResetAfter,
    /// As `ResetAfter`, but closes the connection in an orderly way.
    DropAnswer,
    /// Reads the head and never answers. The connection stays open until the proxy closes it.
    Stall,
    /// Reads the body and answers with this status, headers and body, without forwarding.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// As `Answer`, with a response that a function makes from the request.
    Made(Maker),
    /// Forwards everything, relays this many bytes of the answer (including its head), then closes.
    TruncateAnswer(u64),
    /// Forwards everything and relays the answer byte by byte, with this pause before each.
    Drip(Duration),
    /// Answers with this status and body as soon as the head is read, then closes, while the client is still sending
    /// the body.
    EarlyAnswer(u16, Vec<u8>),
    /// Reads the body and answers with this status and a body that never ends.
    Endless(u16),
    /// Reads the body and answers 200 with headers that never end.
    HeaderFlood,
    /// Forwards and answers, but removes this header from the answer.
    WithoutHeader(&'static str),
    /// Forwards and answers, but sets this header of the answer.
    WithHeader(&'static str, String),
    /// Forwards and answers normally, then closes the connection without `Connection: close`.
    CloseIdle,
    /// Forwards everything and holds the answer back until the latch is released.
    Hold(Latch),
    /// Takes the whole request and forwards it only when the latch is released, even if the client is gone by then.
    HoldRequest(HeldRequest),
}

/// Requests that are held back.
#[derive(Clone, Debug, Default)]
pub struct HeldRequest {
    /// Lets them go.
    pub go: Latch,
    /// Released once the store has answered one of them.
    pub landed: Latch,
}

/// A function that makes a response from a request.
#[derive(Clone)]
pub struct Maker(Arc<dyn Fn(&Seen) -> Made + Send + Sync>);

/// Status, headers and body.
pub type Made = (u16, Vec<(String, String)>, Vec<u8>);

impl Maker {
    /// Wraps the function, which is called for each request that gets the fault.
    pub fn new(make: impl Fn(&Seen) -> Made + Send + Sync + 'static) -> Self {
        Self(Arc::new(make))
    }

    pub(super) fn make(&self, seen: &Seen) -> Made {
        self.0(seen)
    }
}

impl std::fmt::Debug for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maker")
    }
}

/// A fault, and conditions on the requests that get it.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    method: Option<String>,
    writes: bool,
    path_contains: Option<String>,
    when: Option<When>,
    /// One in this many requests, at random.
    chance: Option<(u32, fastrand::Rng)>,
    skip: u64,
    times: u64,
    count: Arc<AtomicU64>,
}

/// A condition on the headers of a request.
#[derive(Clone)]
struct When(Arc<dyn Fn(&Headers) -> bool + Send + Sync>);

/// Names and values as they were sent.
pub type Headers = [(String, String)];

impl std::fmt::Debug for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("When")
    }
}

impl Rule {
    /// A rule that injects the fault into all requests.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            method: None,
            writes: false,
            path_contains: None,
            when: None,
            chance: None,
            skip: 0,
            times: u64::MAX,
            count: Arc::default(),
        }
    }

    /// Only requests with this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests that may change something.
    pub fn writes(mut self) -> Self {
        self.writes = true;
        self
    }

    /// Only requests whose target contains this text. The target is path and query as sent, percent-encoded.
    pub fn path_contains(mut self, text: &str) -> Self {
        self.path_contains = Some(text.to_owned());
        self
    }

    /// Only requests for which this is true when they arrive.
    pub fn when(mut self, condition: impl Fn(&Headers) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(When(Arc::new(condition)));
        self
    }

    /// Only one in `of` matching requests on average: the same ones for the same seed and order.
    pub fn one_of(mut self, of: u32, seed: u64) -> Self {
        self.chance = Some((of, fastrand::Rng::with_seed(seed)));
        self
    }

    /// Lets the first `requests` matching requests pass.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Applies to at most `requests` requests.
    pub fn times(mut self, requests: u64) -> Self {
        self.times = requests;
        self
    }

    /// Adds the requests that it applies to to this number.
    pub fn count_in(mut self, count: &Arc<AtomicU64>) -> Self {
        self.count = Arc::clone(count);
        self
    }

    fn matches(&mut self, method: &str, target: &str, headers: &Headers) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && !(self.writes && matches!(method, "GET" | "HEAD"))
            && self.path_contains.as_ref().is_none_or(|text| target.contains(text.as_str()))
            && self.when.as_ref().is_none_or(|when| when.0(headers))
            && self.chance.as_mut().is_none_or(|(of, random)| random.u32(0..*of) == 0)
    }

    /// Returns the fault if the rule applies to this request.
    pub(super) fn consult(&mut self, method: &str, target: &str, headers: &Headers) -> Option<Fault> {
        if self.times == 0 || !self.matches(method, target, headers) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(self.fault.clone())
    }
}

/// Holds threads until it is released. Clones share it; it cannot be closed again.
#[derive(Clone, Debug, Default)]
pub struct Latch {
    shared: Arc<(Mutex<LatchState>, Condvar)>,
}

#[derive(Debug, Default)]
struct LatchState {
    released: bool,
    arrived: u64,
}

/// A closed latch.
pub fn latch() -> Latch {
    Latch::default()
}

impl Latch {
    /// Lets all threads pass, now and later.
    pub fn release(&self) {
        self.change(|state| state.released = true);
    }

    /// Waits for the release. Returns false after a minute.
    pub fn wait(&self) -> bool {
        self.wait_until(HANG_TIMEOUT, |state| state.released)
    }

    /// Waits until [`Fault::Hold`] has held this many answers. Returns false after a minute.
    pub fn wait_for_arrivals(&self, count: u64) -> bool {
        self.wait_until(HANG_TIMEOUT, |state| state.arrived >= count)
    }

    /// The number of requests or answers that were held so far.
    pub fn arrivals(&self) -> u64 {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).arrived
    }

    /// Holds the calling thread until the release, or until `abandoned` returns true.
    pub(super) fn hold(&self, abandoned: impl Fn() -> bool) {
        self.change(|state| state.arrived += 1);
        let deadline = Instant::now() + HANG_TIMEOUT;
        while !abandoned() && Instant::now() < deadline {
            if self.wait_until(Duration::from_millis(20), |state| state.released) {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut LatchState)) {
        change(&mut self.shared.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.1.notify_all();
    }

    fn wait_until(&self, limit: Duration, met: impl Fn(&LatchState) -> bool) -> bool {
        let state = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.shared.1.wait_timeout_while(state, limit, |state| !met(state));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}
