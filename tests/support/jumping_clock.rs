//! A clock for tests of several threads that wait at the same time.

use std::cell::Cell;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bucket_brigade::{CancelToken, Clock};

thread_local! {
    static READ: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// What happens at a time of the clock.
type Alarm = (Duration, Box<dyn Fn() + Send>);

/// A clock that jumps to the end of each wait. A wait begins at the time that its thread read last, so waits of several
/// threads overlap as they do in real time.
#[derive(Default)]
pub struct JumpingClock {
    now: Mutex<Duration>,
    alarm: Mutex<Option<Alarm>>,
}

impl std::fmt::Debug for JumpingClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JumpingClock")
    }
}

impl JumpingClock {
    /// The time since its beginning.
    pub fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    pub fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64()
    }

    /// Does this at the first wait that ends at `time` or later.
    pub fn at(&self, time: Duration, what: impl Fn() + Send + 'static) {
        *self.alarm.lock().unwrap() = Some((time, Box::new(what)));
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Duration {
        let now = *self.now.lock().unwrap();
        READ.set(now);
        now
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wait(&self, duration: Duration, cancel: &CancelToken) -> bool {
        if cancel.is_cancelled() {
            return false;
        }
        let mut now = self.now.lock().unwrap();
        *now = (*now).max(READ.get() + duration);
        let mut alarm = self.alarm.lock().unwrap();
        if let Some((_, what)) = alarm.take_if(|(time, _)| *time <= *now) {
            what();
        }
        true
    }
}
