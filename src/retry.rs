//! Retries: how often, after which wait, and when not.

use std::time::Duration;

use crate::error::{ErrorKind, Operation, Retry, StorageError};
use crate::observe::event::Event;
use crate::request_context::RequestContext;

/// The number of tries of a request, and the waits between them. Exponential backoff with full jitter, as in "Error
/// retries and exponential backoff in AWS".
///
/// ```
/// let policy = bucket_brigade::RetryPolicy::default();
/// assert_eq!((policy.attempts, policy.base.as_millis(), policy.cap.as_secs()), (6, 100, 20));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The number of tries, the first included (default 6). It does not count tries that the store throttled, nor one
    /// after which credentials were renewed or the store's clock was learned.
    pub attempts: u32,
    /// The first wait is random, up to this (default 100 ms). The limit doubles with each further one.
    pub base: Duration,
    /// The longest wait, except one that the server asks for (default 20 s).
    pub cap: Duration,
    /// A request that the store throttles (429, 503, `SlowDown`) is retried for this long, whatever the number of
    /// tries (default 60 s). Not if `attempts` is 1.
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

/// The longest `Retry-After` that is waited for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

impl RetryPolicy {
    /// Sets the number of tries; 1 means no retries.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Returns the wait after try number `attempt` (from 1), for a random number from 0 to 1.
    pub(crate) fn backoff(&self, attempt: u32, random: f64) -> Duration {
        let ceiling = self.base.saturating_mul(1 << (attempt - 1).min(20)).min(self.cap);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Returns the wait before the next try; `None` if there is none.
    fn next_wait(&self, tried: &Tries, error: &StorageError, now: Duration, random: f64) -> Option<Duration> {
        let throttled = tried.throttled_since.map(|since| now.saturating_sub(since));
        let patient = self.attempts > 1 && throttled.is_some_and(|since| since < self.throttled_for);
        // A throttled request has a time limit instead of a number of tries.
        let (number, may_retry) = match error.kind() {
            ErrorKind::Throttled => (tried.throttled, patient || tried.throttled < self.attempts),
            _ => (tried.failed, tried.failed < self.attempts),
        };
        match error.retry() {
            // The request has changed: neither the wait nor the tries of the refused one apply.
            Retry::Anew => Some(Duration::ZERO),
            Retry::Never => None,
            _ if !may_retry => None,
            Retry::Backoff => Some(self.backoff(number, random)),
            // The request fails: a run must not stand still that long.
            Retry::After(asked) if asked > LONGEST_RETRY_AFTER => None,
            // The jitter spreads clients that were all told the same time.
            Retry::After(asked) => Some(asked + self.backoff(number, random)),
        }
    }
}

/// The tries of a request, by how they ended. One that ended with [`Retry::Anew`] does not count.
#[derive(Default)]
struct Tries {
    failed: u32,
    throttled: u32,
    throttled_since: Option<Duration>,
}

impl Tries {
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

/// Runs `step` until it succeeds, its error says that a retry cannot help, the tries are used up, the run is
/// cancelled or its deadline passes. The final error has the number of tries. `step` gets the number of the try, from 1.
pub(crate) fn run<T>(
    policy: &RetryPolicy,
    context: &RequestContext<'_>,
    operation: Operation,
    mut step: impl FnMut(u32) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    let began = context.clock.now();
    let (mut attempt, mut tried, mut last) = (0, Tries::default(), None::<StorageError>);
    // A try may have taken effect although it failed; the final error must say so.
    let mut unsettled = false;
    loop {
        context.check(operation).map_err(|error| error.unsettled(unsettled))?;
        attempt += 1;
        let error = match (step(attempt), last) {
            (Ok(value), _) => return Ok(value),
            // The circuit opened meanwhile: the error of the last real try says why.
            (Err(error), Some(before)) if error.kind() == ErrorKind::Unavailable => {
                return Err(before.with_attempts(attempt - 1, context.clock.now().saturating_sub(began)));
            }
            (Err(error), _) => error.unsettled(unsettled),
        };
        unsettled = error.may_have_taken_effect();
        if let Some(fence) = context.fence.filter(|_| unsettled) {
            fence.note_unanswered();
        }
        // The cancel interrupted this try: the wait below reports `Cancelled`, not a failed connection.
        let cut_off = context.cancel.is_cancelled() && error.kind().is_outage();
        let now = context.clock.now();
        tried.add(&error, now);
        let wait = policy.next_wait(&tried, &error, now, fastrand::f64());
        let wait = wait.or(cut_off.then_some(Duration::ZERO));
        let Some(wait) = wait else {
            return Err(error.with_attempts(attempt, context.clock.now().saturating_sub(began)));
        };
        // After a cancel there is no next try to report.
        if !context.cancel.is_cancelled() {
            report_retry(context, &error, attempt, wait);
        }
        if !context.clock.wait(context.within_deadline(wait), context.cancel) {
            let kind = ErrorKind::Cancelled;
            return Err(StorageError::new(kind, operation, "cancelled while waiting for the next try")
                .with_source(error)
                .unsettled(unsettled)
                .with_attempts(attempt, context.clock.now().saturating_sub(began)));
        }
        last = Some(error);
    }
}

fn report_retry(context: &RequestContext<'_>, error: &StorageError, attempt: u32, wait: Duration) {
    context.trace.metrics.retries(1);
    context.trace.log(
        log::Level::Debug,
        "trying again",
        &[("error", error), ("attempt", &attempt), ("wait", &format!("{:.3}", wait.as_secs_f64()))],
    );
    context.trace.emit(|| Event::Retrying { reason: error.to_string(), attempt, wait });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{CancelToken, Clock, VirtualClock};
    use crate::engine::gate::Gate;
    use crate::observe::trace::Trace;

    fn with_context<T>(f: impl FnOnce(&RequestContext<'_>, &VirtualClock) -> T) -> T {
        let (cancel, clock) = (CancelToken::new(), VirtualClock::new());
        let (gate, trace) = (Arc::new(Gate::new(10)), Trace::default());
        let deadline = Some(Duration::from_secs(3600));
        f(
            &RequestContext {
                cancel: &cancel,
                deadline,
                clock: &clock,
                gate: &gate,
                trace: &trace,
                fence: None,
            },
            &clock,
        )
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
        with_context(|context, _| {
            let error = run(&RetryPolicy::default(), context, Operation::Upload, |_| {
                Err::<(), _>(failure(ErrorKind::Server))
            });
            assert_eq!(error.unwrap_err().attempts(), 6);
            assert_eq!(context.trace.metrics.snapshot().retries, 5);
        });
    }

    #[test]
    fn n5_throttled_request_has_a_minute_however_many_tries_it_takes() {
        with_context(|context, clock| {
            let result = run(&RetryPolicy::default(), context, Operation::Upload, |attempt| {
                let busy = clock.now() < Duration::from_secs(30);
                if busy { Err(failure(ErrorKind::Throttled)) } else { Ok(attempt) }
            });
            assert!(result.unwrap() > 6);
            let began = clock.now();
            let always = |_| Err::<(), _>(failure(ErrorKind::Throttled));
            run(&RetryPolicy::default(), context, Operation::Upload, always).unwrap_err();
            let took = clock.now().saturating_sub(began).as_secs();
            assert!((60..100).contains(&took), "{took} s");
            let error = run(&RetryPolicy::default().with_attempts(1), context, Operation::Upload, always);
            assert_eq!(error.unwrap_err().attempts(), 1);
        });
    }

    /// Each kind of failure has its own tries: a busy store does not use up those of a broken connection.
    #[test]
    fn throttled_tries_and_changed_requests_do_not_count_as_failures() {
        let anew = || failure(ErrorKind::Credentials).anew(true);
        with_context(|context, _| {
            let result = run(&RetryPolicy::default(), context, Operation::Upload, |attempt| match attempt {
                1..=10 => Err(failure(ErrorKind::Throttled)),
                11..=15 => Err(failure(ErrorKind::Network)),
                16 => Err(anew()),
                _ => Ok(attempt),
            });
            assert_eq!(result.unwrap(), 17);
        });
        with_context(|context, clock| {
            let once = RetryPolicy::default().with_attempts(1);
            let result = run(&once, context, Operation::Upload, |attempt| match attempt {
                1 => Err(anew()),
                _ => Ok(attempt),
            });
            assert_eq!((result.unwrap(), clock.now()), (2, Duration::ZERO));
        });
    }

    #[test]
    fn what_cannot_succeed_is_tried_once() {
        with_context(|context, clock| {
            let error = run(&RetryPolicy::default(), context, Operation::Upload, |_| {
                Err::<(), _>(failure(ErrorKind::Tls))
            });
            assert_eq!((error.unwrap_err().attempts(), clock.now()), (1, Duration::ZERO));
        });
    }

    #[test]
    fn retry_after_is_honoured_up_to_two_minutes() {
        with_context(|context, clock| {
            let asked = |seconds| failure(ErrorKind::Throttled).retry_after(Duration::from_secs(seconds));
            let result = run(&RetryPolicy::default(), context, Operation::Upload, |attempt| {
                if attempt == 1 { Err(asked(30)) } else { Ok(attempt) }
            });
            assert_eq!(result.unwrap(), 2);
            assert!(clock.now() >= Duration::from_secs(30) && clock.now() < Duration::from_secs(31));
            let error =
                run(&RetryPolicy::default(), context, Operation::Upload, |_| Err::<(), _>(asked(3600)));
            assert_eq!(error.unwrap_err().attempts(), 1);
        });
    }

    #[test]
    fn a_cancelled_wait_ends_and_the_deadline_ends_the_tries() {
        with_context(|context, clock| {
            clock.advance(Duration::from_secs(3601));
            let error = run(&RetryPolicy::default(), context, Operation::Upload, |_| Ok(()));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Deadline);
        });
        with_context(|context, _| {
            let error = run(&RetryPolicy::default(), context, Operation::Upload, |_| {
                context.cancel.cancel();
                Err::<(), _>(failure(ErrorKind::Server))
            });
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
        });
    }
}
