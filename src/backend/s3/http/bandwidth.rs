//! The rate of bodies, shared by all streams that use it.
//!
//! # Architecture
//! - [`Bandwidth`] holds one token bucket behind a mutex. Each stream takes a small piece, gets the number of the byte
//!   at which the piece ends, and waits until that many bytes were granted. So pieces pass in the order in which they
//!   were taken, and no stream starves.
//! - [`Pace`] is a bandwidth as one backend sees it: it turns times of the engine's clock into times of the bucket.
//! - Without a limit nobody takes anything: a piece costs one atomic load.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;

/// The slowest rate. A body of 8 MiB takes 9 minutes at it.
pub(crate) const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;
/// The time whose bytes may pass at once: after a pause, and in one piece.
const BURST: Duration = Duration::from_millis(250);
/// The interval at which a wait looks at the rate and at its run.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Bodies of the protocol that are this short never wait, so that a claim on the state in the bucket is renewed in
/// time. They are counted, and what follows waits for them.
const FREE_BYTES: u64 = 128 * 1024;

/// A limit of the bytes per second that request bodies sent and response bodies received take together.
///
/// Clones share one limit: give the same handle to several backends, and they share the rate. Any thread may change it
/// during a run; streams that wait follow within 250 ms. Bodies pass in pieces of at most 250 ms of the rate, in the
/// order in which they ask, so that all streams move at an equal pace. At most 250 ms of the rate pass at once after a
/// pause.
///
/// Headers and TLS are not counted. A response that is not file content, such as a listing, is counted when it is
/// complete, and delays what follows. A body of the protocol of up to 128 KiB is counted, but never waits.
///
/// A wait ends at once if the run is cancelled, and counts for no time limit but the run's deadline.
///
/// ```
/// use bucket_brigade::Bandwidth;
/// let bandwidth = Bandwidth::per_second(2 << 20);
/// let handle = bandwidth.clone();
/// handle.set(None);
/// assert_eq!(bandwidth.get(), None);
/// ```
#[derive(Clone)]
pub struct Bandwidth(Arc<Shared>);

struct Shared {
    /// Bytes per second; 0 if unlimited.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
    began: Instant,
}

/// Amounts are in billionths of a byte, so that rate times nanoseconds is exact.
#[derive(Default)]
struct Bucket {
    /// The end of the last piece that was taken.
    taken: u128,
    /// Pieces that end at or before this may pass.
    granted: u128,
    /// The time up to which bytes were granted.
    at: Duration,
    /// The rate since then; 0 if unlimited.
    rate: u64,
}

const BYTE: u128 = 1_000_000_000;

impl Bucket {
    /// Grants what has become due, and takes over the rate.
    fn advance(&mut self, now: Duration, rate: u64) {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        if self.rate == 0 || self.taken == 0 {
            // Nothing was owed, and no pause is saved up before the first piece.
            self.granted = self.taken;
        } else {
            self.granted += u128::from(self.rate) * passed.as_nanos();
        }
        self.rate = rate;
        self.granted = self.granted.min(self.taken + u128::from(rate) * BURST.as_nanos());
    }
}

impl Bandwidth {
    /// A limit of `bytes` per second, at least 16 KiB. Less is refused when a backend is made with it.
    pub fn per_second(bytes: u64) -> Self {
        Self::new(bytes.max(1))
    }

    /// No limit, until [`set`](Self::set) sets one.
    pub fn unlimited() -> Self {
        Self::new(0)
    }

    fn new(rate: u64) -> Self {
        let bucket = Bucket { rate, ..Bucket::default() };
        Self(Arc::new(Shared {
            rate: AtomicU64::new(rate),
            bucket: Mutex::new(bucket),
            began: Instant::now(),
        }))
    }

    /// Sets the bytes per second; `None` removes the limit. Less than 16 KiB becomes 16 KiB.
    pub fn set(&self, bytes: Option<u64>) {
        self.0.rate.store(bytes.map_or(0, |bytes| bytes.max(MIN_BYTES_PER_SECOND)), Relaxed);
    }

    /// Returns the bytes per second; `None` if they are not limited.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    /// Returns an error if the rate is too low.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match self.get() {
            Some(rate) if rate < MIN_BYTES_PER_SECOND => {
                let why = format!("{rate} bytes per second is too slow: set 16384 (16 KiB) or more");
                Err(StorageError::config("bandwidth", why))
            }
            _ => Ok(()),
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `bytes` at a time of the bucket; returns the end of the piece.
    fn take(&self, now: Duration, rate: u64, bytes: u64) -> u128 {
        let mut bucket = self.bucket();
        bucket.advance(now, rate);
        bucket.taken += u128::from(bytes) * BYTE;
        bucket.taken
    }

    /// Returns the time after which the piece may pass at this rate.
    fn wait_for(&self, now: Duration, rate: u64, end: u128) -> Duration {
        let mut bucket = self.bucket();
        bucket.advance(now, rate);
        let nanos = end.saturating_sub(bucket.granted).div_ceil(u128::from(rate.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(rate) => write!(f, "Bandwidth({rate} B/s)"),
            None => f.write_str("Bandwidth(unlimited)"),
        }
    }
}

/// A bandwidth, and how the clock of a backend's engine relates to the time of its bucket. Engines may have clocks that
/// began at different times.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    bandwidth: Bandwidth,
    /// A time of the bucket, and the engine's at the same moment.
    origin: (Duration, Duration),
}

impl Pace {
    pub(crate) fn new(bandwidth: Bandwidth, clock: &dyn Clock) -> Self {
        let origin = (bandwidth.0.began.elapsed(), clock.now());
        Self { bandwidth, origin }
    }

    fn now(&self, clock: &dyn Clock) -> Duration {
        self.origin.0 + clock.now().saturating_sub(self.origin.1)
    }

    /// Returns the bytes that may be read at a time into `room` bytes.
    pub(crate) fn piece(&self, room: usize) -> usize {
        let Some(rate) = self.bandwidth.get() else {
            return room;
        };
        let most = u128::from(rate) * BURST.as_nanos() / BYTE;
        room.min(usize::try_from(most).unwrap_or(usize::MAX).max(1))
    }

    /// Waits until `bytes` may pass, and returns the time that this took. `may_wait` is called at intervals; its error
    /// ends the wait.
    pub(crate) fn pass(
        &self,
        context: &RequestContext<'_>,
        bytes: u64,
        may_wait: impl Fn() -> Result<(), StorageError>,
    ) -> Result<Duration, StorageError> {
        let Some(rate) = self.bandwidth.get() else {
            return Ok(Duration::ZERO);
        };
        let began = context.clock.now();
        let end = self.bandwidth.take(self.now(context.clock), rate, bytes);
        // The rate may change during the wait.
        while let Some(rate) = self.bandwidth.get() {
            let left = self.bandwidth.wait_for(self.now(context.clock), rate, end);
            if left.is_zero() {
                break;
            }
            may_wait()?;
            // A wait that is cancelled ends at once, and the next check says so.
            context.clock.wait(context.within_deadline(left.min(POLL_INTERVAL)), context.cancel);
            may_wait()?;
        }
        Ok(context.clock.now().saturating_sub(began))
    }

    /// Counts bytes that have passed already.
    pub(crate) fn count(&self, context: &RequestContext<'_>, bytes: u64) {
        if let Some(rate) = self.bandwidth.get() {
            self.bandwidth.take(self.now(context.clock), rate, bytes);
        }
    }

    /// Counts a response of the protocol that has been read. A long one waits until its bytes are granted, unless the
    /// run ends: its request has taken effect.
    pub(crate) fn settle(&self, context: &RequestContext<'_>, operation: Operation, bytes: u64) {
        if is_free(bytes) {
            self.count(context, bytes);
        } else {
            let _ = self.pass(context, bytes, || context.check(operation));
        }
    }
}

/// Returns whether a body of the protocol with this length passes without a wait.
pub(crate) fn is_free(length: u64) -> bool {
    length <= FREE_BYTES
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::clock::CancelToken;
    use crate::engine::gate::Gate;
    use crate::inside::support::jumping_clock::JumpingClock;
    use crate::observe::trace::Trace;

    const MIB: u64 = 1 << 20;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn pieces_are_granted_at_the_rate_in_the_order_in_which_they_are_taken() {
        let bandwidth = Bandwidth::per_second(MIB);
        let ends: Vec<_> = (0..4).map(|_| bandwidth.take(at(0.0), MIB, MIB)).collect();
        let waits = |now: f64| -> Vec<f64> {
            ends.iter().map(|end| bandwidth.wait_for(at(now), MIB, *end).as_secs_f64()).collect()
        };
        assert_eq!(waits(0.0), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(waits(2.5), [0.0, 0.0, 0.5, 1.5]);
    }

    #[test]
    fn pause_saves_a_quarter_of_a_second_and_no_more() {
        let bandwidth = Bandwidth::per_second(MIB);
        bandwidth.take(at(0.0), MIB, MIB);
        let end = bandwidth.take(at(3600.0), MIB, MIB);
        assert_eq!(bandwidth.wait_for(at(3600.0), MIB, end), at(0.75));
        assert_eq!(bandwidth.wait_for(at(3600.75), MIB, end), Duration::ZERO);
    }

    #[test]
    fn change_of_the_rate_holds_for_those_who_wait() {
        let bandwidth = Bandwidth::per_second(MIB);
        let end = bandwidth.take(at(0.0), MIB, 4 * MIB);
        assert_eq!(bandwidth.wait_for(at(1.0), MIB, end), at(3.0));
        bandwidth.set(Some(3 * MIB));
        assert_eq!(bandwidth.wait_for(at(1.0), 3 * MIB, end), at(1.0));
        bandwidth.set(Some(1));
        assert_eq!(bandwidth.get(), Some(MIN_BYTES_PER_SECOND));
        bandwidth.set(None);
        assert_eq!(bandwidth.get(), None);
    }

    #[test]
    fn limit_that_follows_none_begins_without_debt_or_credit() {
        let bandwidth = Bandwidth::unlimited();
        bandwidth.set(Some(MIB));
        let end = bandwidth.take(at(100.0), MIB, MIB);
        assert_eq!(bandwidth.wait_for(at(100.0), MIB, end), at(1.0));
    }

    #[test]
    fn too_slow_a_rate_is_refused_with_the_lowest() {
        let error = Bandwidth::per_second(16_383).check().unwrap_err();
        assert!(
            error.message().starts_with("bandwidth: 16383 ") && error.message().contains("16384"),
            "{error}"
        );
        assert!(Bandwidth::per_second(0).check().is_err());
        assert!(Bandwidth::per_second(16_384).check().is_ok() && Bandwidth::unlimited().check().is_ok());
    }

    #[test]
    fn pieces_are_at_most_a_quarter_of_a_second() {
        let pace = |bandwidth| Pace::new(bandwidth, &crate::clock::VirtualClock::new());
        assert_eq!(pace(Bandwidth::per_second(16 * 1024)).piece(1 << 20), 4096);
        assert_eq!(pace(Bandwidth::per_second(MIB)).piece(8192), 8192);
        assert_eq!(pace(Bandwidth::unlimited()).piece(1 << 20), 1 << 20);
    }
    /// Runs `step` in ten threads, each with a context on this clock.
    fn in_ten_streams(clock: &JumpingClock, step: impl Fn(&RequestContext<'_>) + Sync) {
        let (gate, trace, cancel) = (Gate::new(10), Trace::default(), CancelToken::new());
        let context = RequestContext {
            cancel: &cancel,
            deadline: None,
            clock,
            gate: &gate,
            trace: &trace,
            fence: None,
        };
        thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| step(&context));
            }
        });
    }

    /// What a stream waits for is what all have taken and nobody was granted, since pieces are granted in their order. The
    /// clock of the test does not show it: a thread that the system holds up finds that the others moved it on.
    #[test]
    fn no_stream_waits_longer_than_a_piece_of_each() {
        let (clock, bandwidth) = (JumpingClock::default(), Bandwidth::per_second(MIB));
        let pace = Pace::new(bandwidth.clone(), &clock);
        let longest = Mutex::new(0);
        in_ten_streams(&clock, |context| {
            let look = || {
                let owed = {
                    let bucket = bandwidth.bucket();
                    bucket.taken.saturating_sub(bucket.granted)
                };
                let mut longest = longest.lock().unwrap();
                *longest = owed.max(*longest);
                Ok(())
            };
            for _ in 0..50 {
                pace.pass(context, 8192, look).unwrap();
            }
        });
        assert_eq!(clock.elapsed(), Duration::from_secs(50 * 10 * 8192) / (1 << 20));
        let (piece, longest) = (8192 * BYTE, *longest.lock().unwrap());
        assert!((1..=10 * piece).contains(&longest), "{} pieces", longest / piece);
    }
}
