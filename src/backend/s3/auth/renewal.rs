//! The current credentials, and their renewal when the store refuses them.
//!
//! # Architecture
//! - [`RenewableCredentials`] belongs to the client and is shared by all threads.
//! - Each request takes the current [`Credentials`] as an `Arc`. If they are refused, it hands the same `Arc` to
//!   [`renew`](RenewableCredentials::renew), which calls the application once for all threads that used them.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::backend::s3::auth::credentials::Credentials;
use crate::error::StorageError;

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
    /// Held during a renewal: one thread calls the application, the others wait for its result.
    renewing: Mutex<()>,
}

impl RenewableCredentials {
    pub(crate) fn new(credentials: Credentials, renewal: Option<Renewal>) -> Self {
        Self { current: RwLock::new(Arc::new(credentials)), renewal, renewing: Mutex::new(()) }
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Renews credentials that the store refused. Returns whether the current ones differ from `used`.
    ///
    /// # Errors
    /// Those of the application, or of the check of what it returned.
    pub(crate) fn renew(&self, used: &Arc<Credentials>) -> Result<bool, StorageError> {
        let Some(renewal) = &self.renewal else {
            return Ok(false);
        };
        let _one = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread has renewed them meanwhile.
        if !Arc::ptr_eq(&self.current(), used) {
            return Ok(true);
        }
        let new = (renewal.0)()?;
        new.check()?;
        // The same credentials would be refused again.
        if new.are_same_as(used) {
            return Ok(false);
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

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
}
