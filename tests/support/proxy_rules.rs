//! Which fault befalls which request. A part of `proxy.rs`.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Seen;

/// Longer than any test; only there to end a hang.
const CEILING: Duration = Duration::from_secs(60);

/// What the proxy does to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Waits this long before relaying the answer.
    Delay(Duration),
    /// Resets the connection as soon as the head is read.
    ResetBefore,
    /// Forwards this many bytes of the body, then resets both sides; at the end of a shorter body.
    ResetInBody(u64),
    /// Forwards everything and reads the whole answer, then resets the client instead of relaying it.
    ResetAfter,
    /// The same with an orderly close.
    DropAnswer,
    /// Reads the head and never answers. The connection stays open until the proxy closes it.
    Stall,
    /// Reads the body and answers with this status, headers and body, without forwarding.
    Answer(u16, Vec<(String, String)>, Vec<u8>),
    /// The same with what the function makes of the request.
    Made(Maker),
    /// Forwards everything, relays this many bytes of the answer (its head included), then closes.
    TruncateAnswer(u64),
    /// Forwards everything and relays the answer a byte at a time, this long apart.
    Drip(Duration),
    /// Answers with this status and body as soon as the head is read, and closes: what of the request's body is on its
    /// way meets a closed connection.
    EarlyAnswer(u16, Vec<u8>),
    /// Reads the body and answers with this status and a body that never ends.
    Endless(u16),
    /// Reads the body and answers 200 with headers that never end.
    HeaderFlood,
    /// Forwards and answers, but for this header.
    WithoutHeader(&'static str),
    /// Forwards and answers, with this header in the place of one of its name.
    WithHeader(&'static str, String),
    /// Forwards and answers normally, then closes without having announced it.
    CloseIdle,
    /// Forwards everything and keeps the answer back until the latch is released.
    Hold(Latch),
}

/// Makes an answer of a request.
#[derive(Clone)]
pub struct Maker(Arc<dyn Fn(&Seen) -> Made + Send + Sync>);

/// Status, headers and body.
pub type Made = (u16, Vec<(String, String)>, Vec<u8>);

impl Maker {
    /// Calls the function for each request that the fault befalls.
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

/// A fault and the requests that it befalls.
#[derive(Clone, Debug)]
pub struct Rule {
    fault: Fault,
    method: Option<String>,
    path_contains: Option<String>,
    when: Option<When>,
    /// One of so many requests, by chance.
    chance: Option<(u32, fastrand::Rng)>,
    skip: u64,
    times: u64,
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
    /// Befalls all requests.
    pub fn new(fault: Fault) -> Self {
        Self { fault, method: None, path_contains: None, when: None, chance: None, skip: 0, times: u64::MAX }
    }

    /// Only requests with this method.
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose target contains this text. The target is path and query as sent, percent-encoded.
    pub fn path_contains(mut self, text: &str) -> Self {
        self.path_contains = Some(text.to_owned());
        self
    }

    /// Only requests of which this is true at the time when they arrive.
    pub fn when(mut self, condition: impl Fn(&Headers) -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(When(Arc::new(condition)));
        self
    }

    /// Only one of `of` matching requests on average, the same ones for the same seed and order.
    pub fn one_of(mut self, of: u32, seed: u64) -> Self {
        self.chance = Some((of, fastrand::Rng::with_seed(seed)));
        self
    }

    /// Lets the first `requests` matching requests pass.
    pub fn skip(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Ends after having befallen `requests` requests.
    pub fn times(mut self, requests: u64) -> Self {
        self.times = requests;
        self
    }

    fn matches(&mut self, method: &str, target: &str, headers: &Headers) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path_contains.as_ref().is_none_or(|text| target.contains(text.as_str()))
            && self.when.as_ref().is_none_or(|when| when.0(headers))
            && self.chance.as_mut().is_none_or(|(of, random)| random.u32(0..*of) == 0)
    }

    /// The fault, if it befalls this request.
    pub(super) fn consult(&mut self, method: &str, target: &str, headers: &Headers) -> Option<Fault> {
        if self.times == 0 || !self.matches(method, target, headers) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        self.times -= 1;
        Some(self.fault.clone())
    }
}

/// Holds threads back until it is released. Clones share it; it cannot be closed again.
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
    /// Lets everything pass, now and later.
    pub fn release(&self) {
        self.change(|state| state.released = true);
    }

    /// Waits for the release. False after a minute without one.
    pub fn wait(&self) -> bool {
        self.wait_until(CEILING, |state| state.released)
    }

    /// Waits until this many answers have been held by [`Fault::Hold`]. False after a minute.
    pub fn wait_for_arrivals(&self, count: u64) -> bool {
        self.wait_until(CEILING, |state| state.arrived >= count)
    }

    /// Holds the calling thread until the release, or until `abandoned`.
    pub(super) fn hold(&self, abandoned: impl Fn() -> bool) {
        self.change(|state| state.arrived += 1);
        let deadline = Instant::now() + CEILING;
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
