//! Trying again: how often, how long between, and when not.

use std::time::Duration;

use crate::error::{ErrorKind, Operation, Retry, StorageError};
use crate::observe::event::Event;
use crate::request_context::RequestContext;

/// How often a request is tried and how long to wait between. The defaults are those of the AWS
/// SDKs ("Error retries and exponential backoff in AWS"): full jitter over a doubling base.
///
/// ```
/// let policy = bucket_brigade::RetryPolicy::default();
/// assert_eq!((policy.attempts, policy.base.as_millis(), policy.cap.as_secs()), (6, 100, 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Tries in all, the first included (default 6). Tries that the store throttled, and the one more after
    /// credentials were renewed or the store's clock was learned, are not among them.
    pub attempts: u32,
    /// The first wait is random up to this (default 100 ms); each further one up to the double.
    pub base: Duration,
    /// No wait is longer, but for one that the server asked for (default 20 s).
    pub cap: Duration,
    /// A request that the store throttles (429, 503, `SlowDown`) is tried again for this long, however many
    /// tries that takes (default 60 s); not where `attempts` is 1.
    pub throttled_for: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(20),
            throttled_for: Duration::from_secs(60),
        }
    }
}

/// A server that asks for more than this is not waited for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

impl RetryPolicy {
    /// The same with `attempts` tries in all; 1 means never again.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The wait after try number `attempt` (from 1), for a random number from 0 to 1.
    pub(crate) fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << (attempt - 1).min(20)).min(self.cap);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// The wait before the next try; `None`: there is none.
    fn wait(&self, spent: &Spent, error: &StorageError, now: Duration, random: f64) -> Option<Duration> {
        let throttled = spent.throttled_since.map(|since| now.saturating_sub(since));
        let patient = self.attempts > 1 && throttled.is_some_and(|since| since < self.throttled_for);
        let (number, may_go_on) = match error.kind() {
            ErrorKind::Throttled => (spent.throttled, patient || spent.throttled < self.attempts),
            _ => (spent.failed, spent.failed < self.attempts),
        };
        match error.retry() {
            Retry::Anew => Some(Duration::ZERO),
            Retry::Never => None,
            _ if !may_go_on => None,
            Retry::Backoff => Some(self.backoff(number, random)),
            Retry::After(asked) if asked > LONGEST_RETRY_AFTER => None,
            Retry::After(asked) => Some(asked + self.backoff(number, random)),
        }
    }
}

/// The tries that a request has had, by how they ended. One that ended with [`Retry::Anew`] counts as none.
#[derive(Default)]
struct Spent {
    failed: u32,
    throttled: u32,
    throttled_since: Option<Duration>,
}

impl Spent {
    fn add(&mut self, error: &StorageError, now: Duration) {
        match (error.retry(), error.kind()) {
            (Retry::Anew, _) => {}
            (_, ErrorKind::Throttled) => {
                self.throttled += 1;
                self.throttled_since.get_or_insert(now);
            }
            _ => self.failed += 1,
        }
    }
}

/// Runs `step` until it succeeds, its error says that trying again is no use, the tries are spent,
/// or the exchange was cancelled or is out of time. The final error says how often it was tried.
/// `step` gets the number of the try, from 1.
pub(crate) fn run<T>(
    policy: &RetryPolicy,
    exchange: &RequestContext<'_>,
    operation: Operation,
    mut step: impl FnMut(u32) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let began = exchange.clock.now();
    let (mut attempt, mut spent, mut last) = (0, Spent::default(), None::<StorageError>);
    let mut unsettled = false;
    loop {
        exchange.check(operation).map_err(|error| error.unsettled(unsettled))?;
        attempt += 1;
        let error = match (step(attempt), last) {
            (Ok(value), _) => return Ok(value),
            // The try that was not made must not hide why the ones before it failed.
            (Err(error), Some(before)) if error.kind() == ErrorKind::Unavailable => {
                return Err(before.with_attempts(attempt - 1, exchange.clock.now().saturating_sub(began)));
            }
            (Err(error), _) => error.unsettled(unsettled),
        };
        unsettled = error.may_have_taken_effect();
        let cut_off = exchange.cancel.is_cancelled() && error.kind().is_outage();
        let now = exchange.clock.now();
        spent.add(&error, now);
        let wait = policy.wait(&spent, &error, now, fastrand::f64());
        let wait = wait.or(cut_off.then_some(Duration::ZERO));
        let Some(wait) = wait else {
            return Err(error.with_attempts(attempt, exchange.clock.now().saturating_sub(began)));
        };
        if !exchange.cancel.is_cancelled() {
            announce(exchange, &error, attempt, wait);
        }
        if !exchange.clock.wait(exchange.within_deadline(wait), exchange.cancel) {
            let kind = ErrorKind::Cancelled;
            return Err(StorageError::new(kind, operation, "cancelled while waiting to try again")
                .with_source(error)
                .unsettled(unsettled)
                .with_attempts(attempt, exchange.clock.now().saturating_sub(began)));
        }
        last = Some(error);
    }
}

fn announce(exchange: &RequestContext<'_>, error: &StorageError, attempt: u32, wait: Duration) {
    exchange.trace.metrics.retries(1);
    exchange.trace.log(
        log::Level::Debug,
        "trying again",
        &[("error", error), ("attempt", &attempt), ("wait", &format!("{:.3}", wait.as_secs_f64()))],
    );
    exchange.trace.emit(|| Event::Retrying { reason: error.to_string(), attempt, wait });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{CancelToken, Clock, VirtualClock};
    use crate::engine::gate::Gate;
    use crate::observe::trace::Trace;

    fn with_exchange<T>(f: impl FnOnce(&RequestContext<'_>, &VirtualClock) -> T) -> T {
        let (cancel, clock) = (CancelToken::new(), VirtualClock::new());
        let (gate, trace) = (Arc::new(Gate::new(10)), Trace::default());
        let deadline = Some(Duration::from_secs(3600));
        f(&RequestContext { cancel: &cancel, deadline, clock: &clock, gate: &gate, trace: &trace }, &clock)
    }

    fn failure(kind: ErrorKind) -> StorageError {
        StorageError::new(kind, Operation::Upload, "x")
    }

    #[test]
    fn the_wait_doubles_up_to_the_cap_and_is_fully_jittered() {
        let policy = RetryPolicy::default();
        let ceilings: Vec<_> = (1..=10).map(|n| policy.backoff(n, 1.0).as_millis()).collect();
        assert_eq!(ceilings, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 20000, 20000]);
        assert_eq!(policy.backoff(5, 0.0), Duration::ZERO);
    }

    #[test]
    fn tries_are_counted_and_then_the_error_says_so() {
        with_exchange(|exchange, _| {
            let error = run(&RetryPolicy::default(), exchange, Operation::Upload, |_| {
                Err::<(), _>(failure(ErrorKind::Server))
            });
            assert_eq!(error.unwrap_err().attempts(), 6);
            assert_eq!(exchange.trace.metrics.snapshot().retries, 5);
        });
    }

    #[test]
    fn n5_throttled_request_has_a_minute_however_many_tries_it_takes() {
        with_exchange(|exchange, clock| {
            let result = run(&RetryPolicy::default(), exchange, Operation::Upload, |attempt| {
                let busy = clock.now() < Duration::from_secs(30);
                if busy { Err(failure(ErrorKind::Throttled)) } else { Ok(attempt) }
            });
            assert!(result.unwrap() > 6);
            let began = clock.now();
            let always = |_| Err::<(), _>(failure(ErrorKind::Throttled));
            run(&RetryPolicy::default(), exchange, Operation::Upload, always).unwrap_err();
            let took = clock.now().saturating_sub(began).as_secs();
            assert!((60..100).contains(&took), "{took} s");
            let error = run(&RetryPolicy::default().with_attempts(1), exchange, Operation::Upload, always);
            assert_eq!(error.unwrap_err().attempts(), 1);
        });
    }

    /// Each kind of trouble has its own tries: a busy store does not use up those of a broken connection.
    #[test]
    fn throttled_tries_and_changed_requests_do_not_count_as_failures() {
        let anew = || failure(ErrorKind::Credentials).anew(true);
        with_exchange(|exchange, _| {
            let result = run(&RetryPolicy::default(), exchange, Operation::Upload, |attempt| match attempt {
                1..=10 => Err(failure(ErrorKind::Throttled)),
                11..=15 => Err(failure(ErrorKind::Network)),
                16 => Err(anew()),
                _ => Ok(attempt),
            });
            assert_eq!(result.unwrap(), 17);
        });
        with_exchange(|exchange, clock| {
            let once = RetryPolicy::default().with_attempts(1);
            let result = run(&once, exchange, Operation::Upload, |attempt| match attempt {
                1 => Err(anew()),
                _ => Ok(attempt),
            });
            assert_eq!((result.unwrap(), clock.now()), (2, Duration::ZERO));
        });
    }

    #[test]
    fn what_cannot_succeed_is_tried_once() {
        with_exchange(|exchange, clock| {
            let error = run(&RetryPolicy::default(), exchange, Operation::Upload, |_| {
                Err::<(), _>(failure(ErrorKind::Tls))
            });
            assert_eq!((error.unwrap_err().attempts(), clock.now()), (1, Duration::ZERO));
        });
    }

    #[test]
    fn retry_after_is_honoured_up_to_two_minutes() {
        with_exchange(|exchange, clock| {
            let asked = |seconds| failure(ErrorKind::Throttled).retry_after(Duration::from_secs(seconds));
            let result = run(&RetryPolicy::default(), exchange, Operation::Upload, |attempt| {
                if attempt == 1 { Err(asked(30)) } else { Ok(attempt) }
            });
            assert_eq!(result.unwrap(), 2);
            assert!(clock.now() >= Duration::from_secs(30) && clock.now() < Duration::from_secs(31));
            let error =
                run(&RetryPolicy::default(), exchange, Operation::Upload, |_| Err::<(), _>(asked(3600)));
            assert_eq!(error.unwrap_err().attempts(), 1);
        });
    }

    #[test]
    fn a_cancelled_wait_ends_and_the_deadline_ends_the_tries() {
        with_exchange(|exchange, clock| {
            clock.advance(Duration::from_secs(3601));
            let error = run(&RetryPolicy::default(), exchange, Operation::Upload, |_| Ok(()));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Deadline);
        });
        with_exchange(|exchange, _| {
            let error = run(&RetryPolicy::default(), exchange, Operation::Upload, |_| {
                exchange.cancel.cancel();
                Err::<(), _>(failure(ErrorKind::Server))
            });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
        });
    }
}
