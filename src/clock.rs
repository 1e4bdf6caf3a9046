//! Time and waiting, as things that can be replaced in tests, and the token that ends a wait.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Tells a run, from any thread, that it should stop. Cheap to clone; clones share their state.
///
/// ```
/// let token = bucket_brigade::CancelToken::new();
/// token.clone().cancel();
/// assert!(token.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct CancelToken(Arc<(Mutex<Option<Instant>>, Condvar)>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels. What is waiting wakes up; a body that is being sent ends at its next chunk; the answer to one
    /// that was sent is waited for 3 s more.
    pub fn cancel(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.0.1.notify_all();
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.since().is_some()
    }

    /// Whether it was cancelled so long ago.
    pub(crate) fn is_cancelled_for(&self, time: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= time)
    }

    fn since(&self) -> Option<Instant> {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for real time to pass; false if it was cancelled before.
    fn sleep(&self, duration: Duration) -> bool {
        let cancelled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (cancelled, _) = self
            .0
            .1
            .wait_timeout_while(cancelled, duration, |cancelled| cancelled.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        cancelled.is_none()
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken({})", self.is_cancelled())
    }
}

/// Where time comes from. Durations are measured on the monotonic side; the wall clock only signs
/// requests and judges the age of files, so a step of it disturbs neither retries nor timeouts.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Monotonic time since some fixed point.
    fn now(&self) -> Duration;
    /// The time of day.
    fn wall(&self) -> SystemTime;
    /// Waits for `duration`; false if `cancel` ended the wait early.
    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool {
        cancel.sleep(duration)
    }
}

/// For tests: waiting takes no real time but moves the monotonic time on. Wall time is the
/// machine's plus an offset that a test may set.
#[derive(Debug, Default)]
pub struct VirtualClock(Mutex<(Duration, i64)>);

impl VirtualClock {
    /// A clock at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the monotonic time on.
    pub fn advance(&self, by: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += by;
    }

    /// Steps the time of day by whole seconds, either way.
    pub fn step_wall(&self, seconds: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 += seconds;
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> SystemTime {
        let offset = self.0.lock().unwrap_or_else(PoisonError::into_inner).1;
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool {
        if cancel.is_cancelled() {
            return false;
        }
        self.advance(duration);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_cancelled() {
        let token = CancelToken::new();
        let other = token.clone();
        let waiter =
            std::thread::spawn(move || SystemClock::default().wait(Duration::from_secs(600), &other));
        token.cancel();
        assert!(!waiter.join().unwrap());
    }

    #[test]
    fn a_virtual_clock_waits_in_no_time_and_keeps_the_wall_clock_apart() {
        let clock = VirtualClock::new();
        let before = clock.wall();
        assert!(clock.wait(Duration::from_secs(3600), &CancelToken::new()));
        assert_eq!(clock.now(), Duration::from_secs(3600));
        assert!(clock.wall() < before + Duration::from_secs(3000));
        clock.step_wall(-7200);
        assert!(clock.wall() < before);
    }
}
