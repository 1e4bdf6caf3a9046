//! The current credentials, and their renewal: before they expire, and when the store refuses them.
//!
//! # Architecture
//! - [`RenewableCredentials`] belongs to the client and is shared by all threads.
//! - Each request takes its [`Credentials`] as an `Arc` from [`for_request`](RenewableCredentials::for_request). If they
//!   expire soon, the first such request renews them, while the others go on with the current ones. If they have
//!   expired, all wait for the renewal.
//! - If they are refused, a request hands the same `Arc` to [`renew`](RenewableCredentials::renew), which calls the
//!   application once for all threads that used them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, SystemTime};

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::StorageError;

/// Credentials are renewed this long before they expire.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// The shortest time between two renewals of credentials that expire soon, if the first one brought nothing better.
const BETWEEN_TRIES: Duration = Duration::from_secs(60);

/// The application's function that returns new credentials.
#[derive(Clone)]
pub(crate) struct Renewal(pub(crate) Arc<dyn Fn() -> Result<Credentials, StorageError> + Send + Sync>);

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewal")
    }
}

/// The credentials that requests are signed with now.
pub(crate) struct RenewableCredentials {
    current: RwLock<Arc<Credentials>>,
    renewal: Option<Renewal>,
    /// Held during a renewal: one thread calls the application.
    renewing: Mutex<Tries>,
    /// The renewals that have failed.
    failures: AtomicU64,
}

/// The renewals of credentials that expire.
#[derive(Default)]
struct Tries {
    /// The time of day of the last one.
    last: Option<SystemTime>,
    /// Its failure was logged.
    warned: bool,
    /// Its failure, for the threads that waited for it.
    error: Option<StorageError>,
}

impl Tries {
    /// Returns whether the last one was so recent that the next one must wait.
    fn is_recent(&self, now: SystemTime) -> bool {
        // A clock that was set back does not hold up the next one.
        let since = self.last.and_then(|last| now.duration_since(last).ok());
        since.is_some_and(|since| since < BETWEEN_TRIES)
    }
}

impl RenewableCredentials {
    pub(crate) fn new(credentials: Credentials, renewal: Option<Renewal>) -> Self {
        Self {
            current: RwLock::new(Arc::new(credentials)),
            renewal,
            renewing: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the credentials for a request that is signed at `now`. Renews them if they expire within 5 minutes. If
    /// that fails, the current ones are returned as long as they are valid, and `warn` gets the first such error.
    ///
    /// # Errors
    /// That of the renewal, if the credentials have expired.
    pub(crate) fn for_request(
        &self,
        now: SystemTime,
        warn: impl FnOnce(&StorageError),
    ) -> Result<Arc<Credentials>, StorageError> {
        let current = self.current();
        let (Some(renewal), Some(expiry)) = (&self.renewal, current.expiry()) else {
            return Ok(current);
        };
        if now + EARLY < expiry {
            return Ok(current);
        }
        if now < expiry {
            self.renew_early(renewal, &current, now, warn);
            return Ok(self.current());
        }
        let failures = self.failures.load(Relaxed);
        self.renew_expired(renewal, &current, now, failures)
    }

    /// Renews credentials that expire soon, unless another thread does or has just tried.
    fn renew_early(
        &self,
        renewal: &Renewal,
        used: &Arc<Credentials>,
        now: SystemTime,
        warn: impl FnOnce(&StorageError),
    ) {
        let mut tries = match self.renewing.try_lock() {
            Ok(tries) => tries,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if tries.is_recent(now) || !self.are_current(used) {
            return;
        }
        if let Err(error) = self.try_renewal(renewal, used, now, &mut tries)
            && !std::mem::replace(&mut tries.warned, true)
        {
            warn(&error);
        }
    }

    /// Renews credentials that have expired, once for all threads that wait for it. `failures` is their number before
    /// the wait.
    fn renew_expired(
        &self,
        renewal: &Renewal,
        used: &Arc<Credentials>,
        now: SystemTime,
        failures: u64,
    ) -> Result<Arc<Credentials>, StorageError> {
        let mut tries = self.lock();
        if !self.are_current(used) {
            return Ok(self.current());
        }
        // It failed while this thread waited for it.
        if self.failures.load(Relaxed) != failures
            && let Some(error) = &tries.error
        {
            return Err(error.repeated());
        }
        // They came with a time that has passed: one of the clocks is wrong. The store decides whether they are valid.
        if tries.is_recent(now) && tries.error.is_none() {
            return Ok(self.current());
        }
        self.try_renewal(renewal, used, now, &mut tries)?;
        Ok(self.current())
    }

    /// Renews credentials, and keeps the outcome in `tries`.
    fn try_renewal(
        &self,
        renewal: &Renewal,
        used: &Arc<Credentials>,
        now: SystemTime,
        tries: &mut MutexGuard<'_, Tries>,
    ) -> Result<(), StorageError> {
        tries.last = Some(now);
        let result = self.replace(renewal, used);
        match &result {
            Ok(_) => (tries.error, tries.warned) = (None, false),
            Err(error) => {
                tries.error = Some(error.repeated());
                self.failures.fetch_add(1, Relaxed);
            }
        }
        result.map(drop)
    }

    /// Renews credentials that the store refused. Returns whether the current ones differ from `used`.
    ///
    /// # Errors
    /// Those of the application, or of the check of what it returned.
    pub(crate) fn renew(&self, used: &Arc<Credentials>) -> Result<bool, StorageError> {
        let Some(renewal) = &self.renewal else {
            return Ok(false);
        };
        let _one = self.lock();
        // Another thread has renewed them meanwhile.
        if !self.are_current(used) && !self.current().are_same_as(used) {
            return Ok(true);
        }
        self.replace(renewal, used)
    }

    /// Replaces the current credentials with new ones. Returns whether these sign otherwise than `used`.
    fn replace(&self, renewal: &Renewal, used: &Credentials) -> Result<bool, StorageError> {
        let new = (renewal.0)()?;
        new.check()?;
        let differ = !new.are_same_as(used);
        // The same ones may be valid for longer. If they were refused, they would be refused again.
        if differ || new.expiry() != used.expiry() {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        }
        Ok(differ)
    }

    fn are_current(&self, used: &Arc<Credentials>) -> bool {
        Arc::ptr_eq(&self.current(), used)
    }

    fn lock(&self) -> MutexGuard<'_, Tries> {
        self.renewing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::clock::{Clock, VirtualClock};

    #[test]
    fn n6_refused_credentials_are_renewed_once_however_many_requests_were_refused() {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = calls.clone();
        let renewal = Renewal(Arc::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(Credentials::new("k", "second"))
        }));
        let credentials = RenewableCredentials::new(Credentials::new("k", "first"), Some(renewal));
        let first = credentials.current();
        assert!(credentials.renew(&first).unwrap() && credentials.renew(&first).unwrap());
        assert_eq!((credentials.current().secret_key(), calls.load(Ordering::Relaxed)), ("second", 1));
        let second = credentials.current();
        assert!(!credentials.renew(&second).unwrap(), "the same credentials again are no renewal");
        assert!(!RenewableCredentials::new(Credentials::new("k", "s"), None).renew(&second).unwrap());
    }

    #[test]
    fn n6_renewal_that_fails_or_gives_what_cannot_be_sent_says_so() {
        for (new, says) in [
            (Err(StorageError::config("credentials", "the vault is sealed")), "the vault is sealed"),
            (Ok(Credentials::new("k", "s\n")), "secret_key"),
            (Ok(Credentials::new("k", "s").with_session_token("t".repeat(8193))), "session_token"),
        ] {
            let new = Mutex::new(Some(new));
            let renewal = Renewal(Arc::new(move || new.lock().unwrap().take().unwrap()));
            let credentials = RenewableCredentials::new(Credentials::new("k", "first"), Some(renewal));
            let first = credentials.current();
            assert!(credentials.renew(&first).unwrap_err().message().contains(says));
            assert!(Arc::ptr_eq(&credentials.current(), &first));
        }
    }

    type Answers = Arc<Mutex<Vec<Result<Credentials, StorageError>>>>;

    /// Credentials that are valid for `valid` from now, and a renewal that gives these answers, the last first.
    fn expiring(
        clock: &VirtualClock,
        valid: Duration,
        answers: Vec<Result<Credentials, StorageError>>,
    ) -> (RenewableCredentials, Answers) {
        let answers: Answers = Arc::new(Mutex::new(answers));
        let left = answers.clone();
        let renewal = Renewal(Arc::new(move || left.lock().unwrap().pop().unwrap()));
        let first = Credentials::new("k", "first").with_expiry(clock.wall() + valid);
        (RenewableCredentials::new(first, Some(renewal)), answers)
    }

    fn secret_at(credentials: &RenewableCredentials, clock: &VirtualClock) -> Result<String, String> {
        let given = credentials.for_request(clock.wall(), |_| panic!("no warning is due"));
        given.map(|given| given.secret_key().to_owned()).map_err(|error| error.message().to_owned())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    fn sealed() -> Result<Credentials, StorageError> {
        Err(StorageError::config("credentials", "the vault is sealed"))
    }

    #[test]
    fn n6_credentials_that_expire_soon_are_renewed_by_one_thread_while_ten_go_on() {
        let clock = VirtualClock::new();
        let (inside, entered) = crossbeam_channel::bounded(1);
        let (release, released) = crossbeam_channel::bounded::<()>(1);
        let expiry = clock.wall() + 3 * HOUR;
        let renewal = Renewal(Arc::new(move || {
            inside.send(()).unwrap();
            released.recv().unwrap();
            Ok(Credentials::new("k", "second").with_expiry(expiry))
        }));
        let first = Credentials::new("k", "first").with_expiry(clock.wall() + HOUR);
        let credentials = RenewableCredentials::new(first, Some(renewal));
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "first", "an hour is left");
        clock.step_wall(56 * 60);
        std::thread::scope(|scope| {
            let renewing = scope.spawn(|| secret_at(&credentials, &clock));
            entered.recv().unwrap();
            let others: Vec<_> = (0..10).map(|_| scope.spawn(|| secret_at(&credentials, &clock))).collect();
            for other in others {
                assert_eq!(other.join().unwrap().unwrap(), "first", "it did not wait");
            }
            release.send(()).unwrap();
            assert_eq!(renewing.join().unwrap().unwrap(), "second");
        });
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "second");
        assert!(entered.is_empty(), "one renewal for all");
    }

    #[test]
    fn n6_an_early_renewal_that_fails_is_logged_once_and_repeated_a_minute_later() {
        let clock = VirtualClock::new();
        let second = Credentials::new("k", "second").with_expiry(clock.wall() + 3 * HOUR);
        let (credentials, left) = expiring(&clock, HOUR, vec![Ok(second), sealed(), sealed()]);
        let mut warnings = Vec::new();
        // The seconds that pass, and the answers that are left then.
        for (seconds, answers) in [(3301, 2), (30, 2), (40, 1), (30, 1), (40, 0), (0, 0)] {
            clock.step_wall(seconds);
            credentials.for_request(clock.wall(), |why| warnings.push(why.to_string())).unwrap();
            assert_eq!(left.lock().unwrap().len(), answers, "after {seconds} s more");
        }
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("the vault is sealed"), "{warnings:?}");
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "second");
    }

    #[test]
    fn n6_expired_credentials_end_requests_with_the_error_of_the_renewal_and_each_tries_again() {
        let clock = VirtualClock::new();
        let second = Credentials::new("k", "second").with_expiry(clock.wall() + 3 * HOUR);
        let (credentials, _) = expiring(&clock, HOUR, vec![Ok(second), sealed(), sealed()]);
        clock.step_wall(3600);
        for _ in 0..2 {
            assert_eq!(secret_at(&credentials, &clock).unwrap_err(), "credentials: the vault is sealed");
        }
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "second");
    }

    #[test]
    fn n6_those_that_waited_for_a_renewal_that_failed_do_not_repeat_it_one_after_another() {
        let clock = VirtualClock::new();
        let (credentials, left) = expiring(&clock, Duration::ZERO, vec![sealed(), sealed()]);
        let (renewal, used) = (credentials.renewal.clone().unwrap(), credentials.current());
        let before = credentials.failures.load(Relaxed);
        // The first one holds the lock; the others have seen the same number of failures before they wait for it.
        for _ in 0..10 {
            let error = credentials.renew_expired(&renewal, &used, clock.wall(), before).unwrap_err();
            assert!(error.message().contains("the vault is sealed"), "{error}");
        }
        assert_eq!(left.lock().unwrap().len(), 1, "one renewal for all");
    }

    #[test]
    fn n6_credentials_that_come_expired_are_left_to_the_store() {
        let clock = VirtualClock::new();
        let past = clock.wall();
        let second = || Ok(Credentials::new("k", "second").with_expiry(past));
        let (credentials, left) = expiring(&clock, HOUR, vec![second(), second()]);
        clock.step_wall(7200);
        for _ in 0..3 {
            assert_eq!(secret_at(&credentials, &clock).unwrap(), "second");
        }
        assert_eq!(left.lock().unwrap().len(), 1, "not one renewal a request");
        clock.step_wall(61);
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "second");
        assert!(left.lock().unwrap().is_empty());
    }

    #[test]
    fn n6_the_same_credentials_may_become_valid_for_longer() {
        let clock = VirtualClock::new();
        let expiry = clock.wall() + 3 * HOUR;
        let longer = Credentials::new("k", "first").with_expiry(expiry);
        let (credentials, _) = expiring(&clock, HOUR, vec![Ok(longer)]);
        clock.step_wall(3500);
        assert_eq!(secret_at(&credentials, &clock).unwrap(), "first");
        assert_eq!(credentials.current().expiry(), Some(expiry));
    }
}
