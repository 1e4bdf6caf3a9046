//! Time and waiting, which tests can replace, and the token that cancels a run.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Cancels a run from any thread. Cheap to clone; clones share their state.
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

    /// Cancels the run. Waits end at once. A body that is being sent ends at its next chunk. The answer to a
    /// request that was sent completely is awaited for 3 s more.
    pub fn cancel(&self) {
        // A second call does not restart the 3 s of the first.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        self.0.1.notify_all();
    }

    /// Returns true if the token was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.since().is_some()
    }

    /// Returns true if the token was cancelled at least `time` ago.
    pub(crate) fn is_cancelled_for(&self, time: Duration) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= time)
    }

    fn since(&self) -> Option<Instant> {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits in real time; returns false if the token was cancelled before the time was over.
    fn sleep(&self, duration: Duration) -> bool {
        let cancelled = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (cancelled, _) = self
            .0
            .1
            // Waits on after a spurious wake-up.
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

/// The source of time. Durations are measured with the monotonic clock. The wall clock is used only to sign
/// requests and to tell the age of files, so setting it disturbs neither retries nor timeouts.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The monotonic time since some fixed point.
    fn now(&self) -> Duration;
    /// The monotonic time since some fixed point, with the time during which the machine was suspended, if the system
    /// tells it.
    fn now_with_suspension(&self) -> Duration {
        self.now()
    }
    /// The wall-clock time.
    fn wall(&self) -> SystemTime;
    /// Waits for `duration`; returns false if `cancel` ended the wait early.
    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool;
}

/// The system's clocks.
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

    #[cfg(target_os = "linux")]
    fn now_with_suspension(&self) -> Duration {
        // Neither is ever negative.
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool {
        cancel.sleep(duration)
    }
}

/// A clock for tests. A wait takes no real time but advances the monotonic time. The wall-clock time is the
/// system's plus an offset that a test can set.
#[derive(Debug, Default)]
pub struct VirtualClock(Mutex<(Duration, i64)>);

impl VirtualClock {
    /// A clock whose monotonic time is zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Advances the monotonic time.
    pub fn advance(&self, by: Duration) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += by;
    }

    /// Moves the wall-clock time by whole seconds, forward or back.
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
        // `SystemTime` takes unsigned durations only.
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool {
        // As with the system's clock, a cancelled token ends the wait before it begins.
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
