//! The lease of a claim: when its owner may still begin a request, and when others may take it over.
//!
//! The owner measures from the start of its last acknowledged renewal, before the store dated it. Others measure
//! from the store's date of it. So the owner stops first, whatever the clocks say.

use std::time::Duration;

use crate::state::remote::name::StoreTime;

/// The lease of a run that sets none.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(300);
/// The shortest and the longest lease. Shorter than a second, `Last-Modified` cannot tell.
pub(crate) const LEASES: std::ops::RangeInclusive<u64> = 1..=86_400;
/// How much longer than its lease a claim of others is left alone: `Last-Modified` has whole seconds, and the parts
/// of a distributed store differ by a little.
pub(crate) const SLACK: Duration = Duration::from_secs(30);
/// The longest time between two renewals.
const RENEWAL: Duration = Duration::from_secs(60);

/// The state of a claim of others, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It may be renewed yet. It is dead after this time, if it is not renewed meanwhile.
    Alive(Duration),
    /// It was not renewed for its lease and the slack. The time is the store's, from before the takeover.
    Dead(StoreTime),
    /// The caller says that its owner is gone (`--take-over`). If it is not, two runs write until its lease ends. The
    /// time is the store's.
    Forced(StoreTime),
}

/// Judges a claim by two dates of one store: that of the head, and that of an object stored after the head was read.
///
/// `head_modified` is to belong to the ETag that the takeover then has as its condition.
pub(crate) fn judge(lease: Duration, head_modified: StoreTime, now: StoreTime) -> Judgement {
    let limit = lease + SLACK;
    let age = now.since(head_modified);
    limit.checked_sub(age).map_or(Judgement::Dead(now), Judgement::Alive)
}

/// What the three clocks showed at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Clocks {
    /// The time since boot, the time of suspension included.
    pub(crate) boot: Duration,
    /// The wall clock, since 1970.
    pub(crate) wall: Duration,
    /// The last `Date` that the store sent before this moment; `None` if it sent none yet.
    pub(crate) store: Option<StoreTime>,
}

/// The lease of our own claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    length: Duration,
    /// The clocks at the start of the last renewal that was acknowledged.
    start: Clocks,
}

impl Lease {
    /// A lease from the start of the PUT of a head that the store has acknowledged. Each acknowledged head makes a
    /// new one. A head that was sent more than once counts from its first try, whichever of them was answered.
    pub(crate) fn new(length: Duration, start: Clocks) -> Self {
        Self { length, start }
    }

    /// Returns the age of the claim by the clock that shows most.
    pub(crate) fn age(&self, now: &Clocks) -> Duration {
        let boot = now.boot.saturating_sub(self.start.boot);
        let wall = now.wall.saturating_sub(self.start.wall);
        let store = match (self.start.store, now.store) {
            // Both have lost a part of a second, which the slack of the others covers.
            (Some(start), Some(now)) => now.since(start),
            _ => Duration::ZERO,
        };
        boot.max(wall).max(store)
    }

    /// Returns true if a PUT, Complete or DELETE may begin: less than half of the lease is over.
    pub(crate) fn may_begin(&self, now: &Clocks) -> bool {
        self.age(now) < self.length / 2
    }

    /// Returns true if the claim is to be renewed now: a minute or a fifth of the lease is over.
    pub(crate) fn must_renew(&self, now: &Clocks) -> bool {
        self.age(now) >= RENEWAL.min(self.length / 5)
    }

    /// Returns the time until the lease ends.
    pub(crate) fn left(&self, now: &Clocks) -> Duration {
        self.length.saturating_sub(self.age(now))
    }

    /// Returns the total deadline of a request that begins now: it ends with the lease. `None` if it may not begin.
    pub(crate) fn deadline(&self, now: &Clocks) -> Option<Duration> {
        self.may_begin(now).then(|| self.left(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn clocks(boot: u64, wall: u64, store: Option<u64>) -> Clocks {
        Clocks { boot: secs(boot), wall: secs(wall), store: store.map(StoreTime::new) }
    }

    #[test]
    fn d9_only_the_stores_dates_judge_a_claim() {
        // Lease, date of the head, date of the other object, judgement.
        let cases = [
            (300, 1000, 1000, Judgement::Alive(secs(330))),
            (300, 1000, 1330, Judgement::Alive(secs(0))),
            (300, 1000, 1331, Judgement::Dead(StoreTime::new(1331))),
            // The store's clock was set back: as if the head were new.
            (300, 1000, 10, Judgement::Alive(secs(330))),
            (1, 0, 32, Judgement::Dead(StoreTime::new(32))),
        ];
        for (lease, head, now, expected) in cases {
            assert_eq!(judge(secs(lease), StoreTime::new(head), StoreTime::new(now)), expected, "{now}");
        }
    }

    #[test]
    fn d3_the_clock_that_shows_most_ends_the_lease() {
        let lease = Lease::new(secs(300), clocks(100, 5000, Some(9000)));
        // Clocks, may begin, must renew, deadline.
        let cases = [
            (clocks(100, 5000, Some(9000)), true, false, Some(300)),
            (clocks(159, 5000, None), true, false, Some(241)),
            (clocks(160, 5000, None), true, true, Some(240)),
            (clocks(249, 5000, Some(9000)), true, true, Some(151)),
            (clocks(250, 5000, Some(9000)), false, true, None),
            (clocks(100, 5150, Some(9000)), false, true, None),
            (clocks(100, 5000, Some(9150)), false, true, None),
            (clocks(100, 5000, Some(9149)), true, true, Some(151)),
            // Clocks that were set back add nothing and take nothing away.
            (clocks(90, 5149, Some(1)), true, true, Some(151)),
            (clocks(90, 1, Some(1)), true, false, Some(300)),
        ];
        for (now, may_begin, must_renew, deadline) in cases {
            assert_eq!(lease.may_begin(&now), may_begin, "{now:?}");
            assert_eq!(lease.must_renew(&now), must_renew, "{now:?}");
            assert_eq!(lease.deadline(&now), deadline.map(secs), "{now:?}");
        }
    }

    #[test]
    fn no_request_of_the_owner_begins_once_others_may_take_over() {
        for length in [1, 2, 10, 300, 86_400] {
            let lease = Lease::new(secs(length), clocks(0, 0, None));
            for age in 0..length * 2 + 40 {
                // The store dates the renewal after it began, by its own clock.
                let dead = matches!(
                    judge(secs(length), StoreTime::new(7), StoreTime::new(7 + age)),
                    Judgement::Dead(_)
                );
                assert!(!(dead && lease.may_begin(&clocks(age, 0, None))), "{length} {age}");
            }
        }
    }
}
