//! The gate before one destination: how many requests may be under way, and whether any may.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{ErrorKind, Operation, StorageError};

/// Connection failures in a row that open the circuit.
const FAILURES_TO_OPEN: u32 = 5;
/// Successes in a row that allow one more request at a time.
const SUCCESSES_TO_GROW: u32 = 10;

/// How often a waiting request asks whether it may go on waiting.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Lets requests to one destination through. It opens its circuit (lets none through) after five
/// connection failures in a row, until the next run closes it; and it halves the number of requests
/// under way when the store asks for fewer, giving one back after each ten successes.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    freed: Condvar,
    most: usize,
}

#[derive(Debug)]
struct State {
    limit: usize,
    under_way: usize,
    waiting: usize,
    successes: u32,
    failures: u32,
    open: bool,
}

/// How a request that went through ended, for the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// The store answered.
    Answered,
    /// The store asks for fewer requests, or closes connections in the middle of them.
    Throttled,
    /// The store, or what stands before it, answered with an error of its own: somebody is there.
    Failed,
    /// Nobody was there.
    Unreachable,
    /// It ended for reasons of its own (cancelled, source changed).
    Neutral,
}

impl Passage {
    pub(crate) fn of(error: &StorageError) -> Self {
        match error.kind() {
            _ if error.is_cut_off() => Self::Throttled,
            ErrorKind::Connect | ErrorKind::Timeout => Self::Unreachable,
            ErrorKind::Throttled => Self::Throttled,
            ErrorKind::Server | ErrorKind::Protocol => Self::Failed,
            ErrorKind::Network
            | ErrorKind::Tls
            | ErrorKind::Cancelled
            | ErrorKind::Deadline
            | ErrorKind::SourceChanged
            | ErrorKind::SourceVanished
            | ErrorKind::SourceUnreadable
            | ErrorKind::Panicked
            | ErrorKind::Other => Self::Neutral,
            _ => Self::Answered,
        }
    }
}

impl Gate {
    /// A gate that lets at most `most` requests through at a time.
    pub(crate) fn new(most: usize) -> Self {
        let most = most.max(1);
        let state = State { limit: most, under_way: 0, waiting: 0, successes: 0, failures: 0, open: false };
        Self { state: Mutex::new(state), freed: Condvar::new(), most }
    }

    /// A new run tries again whatever the last one found.
    pub(crate) fn close_circuit(&self) {
        let mut state = self.lock();
        state.open = false;
        state.failures = 0;
    }

    pub(crate) fn is_circuit_open(&self) -> bool {
        self.lock().open
    }

    /// Waits for its turn and runs `request`, unless the circuit is open. `may_wait` is asked now and
    /// then; its error ends the wait.
    pub(crate) fn pass<T>(
        &self,
        operation: Operation,
        may_wait: impl Fn() -> Result<(), StorageError>,
        request: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let turn = self.enter(operation, may_wait)?;
        let result = request();
        turn.leave(result.as_ref().map_or_else(Passage::of, |_| Passage::Answered));
        result
    }

    fn enter(
        &self,
        operation: Operation,
        may_wait: impl Fn() -> Result<(), StorageError>,
    ) -> Result<Turn<'_>, StorageError> {
        let mut state = self.lock();
        while !state.open && state.under_way >= state.limit {
            state.waiting += 1;
            state = self.freed.wait_timeout(state, ASK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
            may_wait()?;
        }
        if state.open {
            let why = "not tried: the store could not be reached several times in a row";
            return Err(StorageError::new(ErrorKind::Unavailable, operation, why));
        }
        state.under_way += 1;
        Ok(Turn { gate: self, passage: Passage::Neutral })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way; gives its place back when dropped, also by a panic.
struct Turn<'a> {
    gate: &'a Gate,
    passage: Passage,
}

impl Turn<'_> {
    fn leave(mut self, passage: Passage) {
        self.passage = passage;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.under_way -= 1;
        state.note(self.passage, self.gate.most);
        if state.waiting > 0 {
            self.gate.freed.notify_all();
        }
    }
}

impl State {
    fn note(&mut self, passage: Passage, most: usize) {
        match passage {
            Passage::Answered => {
                self.failures = 0;
                self.successes += 1;
                if self.successes >= SUCCESSES_TO_GROW {
                    self.successes = 0;
                    self.limit = (self.limit + 1).min(most);
                }
            }
            Passage::Throttled => {
                self.failures = 0;
                self.successes = 0;
                self.limit = (self.limit / 2).max(1);
            }
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
    fn throttling_halves_the_requests_under_way_and_ten_successes_give_one_back() {
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

    /// What the store asks for, and what it does by hanging up, is heeded; good days come back one by one.
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
        assert!(!gate.is_circuit_open(), "somebody is there");
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
