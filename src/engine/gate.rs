//! The gate in front of one destination: it limits the requests in flight, and holds the circuit breaker.
//!
//! # Architecture
//!
//! - [`Gate`]: one per destination, made and handed out by [`Engine`](crate::engine::Engine). It guards its
//!   `State` with a mutex and wakes waiting requests through a condition variable.
//! - `Turn`: a request in flight. It holds one place at the gate and gives it back when it is dropped.
//! - [`Passage`]: how a request ended, as far as the gate cares. `State::record` turns it into a new limit or an
//!   open circuit.
//!
//! The gate has no thread: requests wait on the worker that sends them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{ErrorKind, Operation, StorageError};

/// The number of connection failures in a row that opens the circuit.
const FAILURES_TO_OPEN: u32 = 5;
/// The number of successes in a row that raises the limit by one request.
const SUCCESSES_TO_GROW: u32 = 10;

/// The interval at which a waiting request checks for cancellation and deadlines.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Limits the requests to one destination.
///
/// Five connection failures in a row open the circuit: no request passes until the next run closes it. When the
/// store asks for fewer requests, the limit is halved; every ten successes in a row raise it by one.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    /// Notified when a request in flight ends.
    freed: Condvar,
    /// The limit that the gate starts with and never exceeds.
    most: usize,
}

#[derive(Debug)]
struct State {
    /// The number of requests that may be in flight now.
    limit: usize,
    in_flight: usize,
    waiting: usize,
    /// Successes in a row.
    successes: u32,
    /// Connection failures in a row.
    failures: u32,
    /// The circuit is open: no request passes.
    open: bool,
}

/// The end of a request, as the gate counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// The store answered.
    Answered,
    /// The store asks for fewer requests, or closes connections while a body is being sent.
    Throttled,
    /// The store, or a proxy in front of it, answered with a server error: it is reachable.
    Failed,
    /// No connection could be made, or it timed out.
    Unreachable,
    /// The end says nothing about the store (cancelled, source changed).
    Neutral,
}

impl Passage {
    pub(crate) fn of(error: &StorageError) -> Self {
        match error.kind() {
            // Overloaded servers and proxies hang up on bodies instead of answering 503.
            _ if error.is_cut_off() => Self::Throttled,
            // Only these two say that nothing answered, and only they open the circuit.
            ErrorKind::Connect | ErrorKind::Timeout => Self::Unreachable,
            ErrorKind::Throttled => Self::Throttled,
            ErrorKind::Server | ErrorKind::Protocol => Self::Failed,
            // A broken connection may be the network's fault; the others arise on this side.
            ErrorKind::Network
            | ErrorKind::Tls
            | ErrorKind::Cancelled
            | ErrorKind::Deadline
            | ErrorKind::SourceChanged
            | ErrorKind::SourceVanished
            | ErrorKind::SourceUnreadable
            | ErrorKind::Panicked
            | ErrorKind::Other => Self::Neutral,
            // All other kinds are made of an answer, a refusal for example.
            _ => Self::Answered,
        }
    }
}

impl Gate {
    /// A gate with room for `most` requests in flight.
    pub(crate) fn new(most: usize) -> Self {
        // With no place at all every request would wait for ever.
        let most = most.max(1);
        let state = State { limit: most, in_flight: 0, waiting: 0, successes: 0, failures: 0, open: false };
        Self { state: Mutex::new(state), freed: Condvar::new(), most }
    }

    /// Closes the circuit: each run tries again, whatever the last one found.
    pub(crate) fn close_circuit(&self) {
        let mut state = self.lock();
        state.open = false;
        state.failures = 0;
    }

    pub(crate) fn is_circuit_open(&self) -> bool {
        self.lock().open
    }

    /// Waits for a place and runs `request`; fails if the circuit is open. `may_wait` is called at intervals
    /// during the wait; its error ends it.
    pub(crate) fn pass<T>(
        &self,
        operation: Operation,
        may_wait: impl Fn() -> Result<(), StorageError>,
        request: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let turn = self.wait_for_turn(operation, may_wait)?;
        let result = request();
        turn.end(result.as_ref().map_or_else(Passage::of, |_| Passage::Answered));
        result
    }

    fn wait_for_turn(
        &self,
        operation: Operation,
        may_wait: impl Fn() -> Result<(), StorageError>,
    ) -> Result<Turn<'_>, StorageError> {
        let mut state = self.lock();
        while !state.open && state.in_flight >= state.limit {
            // The timeout is there for `may_wait`: a cancelled run must not wait for a place.
            state.waiting += 1;
            state = self.freed.wait_timeout(state, CHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            may_wait()?;
        }
        // Also after a wait: the circuit may have opened meanwhile.
        if state.open {
            let why = format!("skipped: the store was unreachable {FAILURES_TO_OPEN} times in a row");
            return Err(StorageError::new(ErrorKind::Unavailable, operation, why));
        }
        state.in_flight += 1;
        // If the request panics, the turn ends as it begins: it says nothing about the store.
        Ok(Turn { gate: self, passage: Passage::Neutral })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight. It gives its place back when it is dropped, after a panic too.
struct Turn<'a> {
    gate: &'a Gate,
    passage: Passage,
}

impl Turn<'_> {
    fn end(mut self, passage: Passage) {
        self.passage = passage;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.in_flight -= 1;
        state.record(self.passage, self.gate.most);
        // All of them, since the limit may have grown or the circuit opened.
        if state.waiting > 0 {
            self.gate.freed.notify_all();
        }
    }
}

impl State {
    fn record(&mut self, passage: Passage, most: usize) {
        match passage {
            Passage::Answered => {
                self.failures = 0;
                self.successes += 1;
                if self.successes >= SUCCESSES_TO_GROW {
                    self.successes = 0;
                    self.limit = (self.limit + 1).min(most);
                }
            }
            // Halved at once, raised slowly: the additive increase and multiplicative decrease of TCP.
            Passage::Throttled => {
                self.failures = 0;
                self.successes = 0;
                self.limit = (self.limit / 2).max(1);
            }
            // A server error proves that the store is reachable, but earns no higher limit.
            Passage::Failed => {
                self.failures = 0;
                self.successes = 0;
            }
            Passage::Unreachable => {
                self.successes = 0;
                self.failures += 1;
                self.open |= self.failures >= FAILURES_TO_OPEN;
            }
            Passage::Neutral => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(gate: &Gate, kind: ErrorKind) -> StorageError {
        gate.pass::<()>(Operation::Upload, || Ok(()), || Err(StorageError::new(kind, Operation::Upload, "x")))
            .unwrap_err()
    }

    #[test]
    fn the_circuit_opens_after_five_connection_failures_in_a_row_and_only_then() {
        let gate = Gate::new(10);
        for _ in 0..4 {
            end(&gate, ErrorKind::Connect);
        }
        end(&gate, ErrorKind::Rejected);
        for _ in 0..5 {
            assert_eq!(end(&gate, ErrorKind::Connect).kind(), ErrorKind::Connect);
        }
        assert_eq!(end(&gate, ErrorKind::Connect).kind(), ErrorKind::Unavailable);
        gate.close_circuit();
        assert_eq!(end(&gate, ErrorKind::Connect).kind(), ErrorKind::Connect);
    }

    #[test]
    fn throttling_halves_the_requests_in_flight_and_ten_successes_give_one_back() {
        let gate = Gate::new(10);
        end(&gate, ErrorKind::Throttled);
        end(&gate, ErrorKind::Throttled);
        assert_eq!(gate.lock().limit, 2);
        for _ in 0..10 {
            gate.pass(Operation::Upload, || Ok(()), || Ok(())).unwrap();
        }
        assert_eq!(gate.lock().limit, 3);
        for n in 1..=20 {
            gate.pass(Operation::Upload, || Ok(()), || Ok(())).unwrap();
            if n % 8 == 0 {
                end(&gate, ErrorKind::Server);
            }
        }
        assert_eq!(gate.lock().limit, 3, "ten in a row, and a failure is none");
    }

    /// Both ways of asking for fewer requests count: a 503 and a closed connection. The limit recovers one by one.
    #[test]
    fn n5_gate_falls_to_one_and_recovers_to_all() {
        let gate = Gate::new(10);
        let limit = || gate.lock().limit;
        let cut_off = || StorageError::new(ErrorKind::Network, Operation::Upload, "x").while_sending();
        let mut seen = vec![limit()];
        for _ in 0..4 {
            gate.pass::<()>(Operation::Upload, || Ok(()), || Err(cut_off())).unwrap_err();
            seen.push(limit());
        }
        assert_eq!(seen, [10, 5, 2, 1, 1]);
        assert!(!gate.is_circuit_open(), "the store is reachable");
        for n in 1..=90 {
            gate.pass(Operation::Upload, || Ok(()), || Ok(())).unwrap();
            assert_eq!(limit(), 1 + n / 10);
        }
    }

    #[test]
    fn a_wait_for_a_turn_ends_when_it_may_not_go_on() {
        let gate = Gate::new(1);
        let stopped = || Err(StorageError::new(ErrorKind::Cancelled, Operation::Upload, "x"));
        let inner = gate.pass(
            Operation::Upload,
            || Ok(()),
            || Ok(gate.pass(Operation::Upload, stopped, || Ok(())).unwrap_err().kind()),
        );
        assert_eq!(inner.unwrap(), ErrorKind::Cancelled);
    }

    #[test]
    fn a_panic_gives_its_place_back() {
        let gate = Gate::new(1);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            gate.pass::<()>(Operation::Upload, || Ok(()), || panic!("request"))
        }));
        assert!(panicked.is_err());
        gate.pass(Operation::Upload, || Ok(()), || Ok(())).unwrap();
    }
}
