//! The credentials and the time that one try of a request is signed with.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::renewal::RenewableCredentials;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;

/// The credentials and the clock offset that a request was signed with.
pub(crate) struct SignedWith {
    pub(crate) credentials: Arc<Credentials>,
    /// Seconds that the store's clock was assumed to be ahead of ours.
    pub(crate) ahead: i64,
}

impl SignedWith {
    /// Returns what the next request is signed with, after renewing credentials that expire.
    ///
    /// # Errors
    /// [`ErrorKind::Credentials`] if they have expired and cannot be renewed.
    pub(crate) fn next(
        context: &RequestContext<'_>,
        operation: Operation,
        credentials: &RenewableCredentials,
        ahead: i64,
    ) -> Result<Self, StorageError> {
        let warn = |why: &StorageError| {
            let message = "the credentials could not be renewed; the current ones are used until they expire";
            context.trace.warn(message, &[("error", &why)]);
        };
        let renewed = credentials.for_request(time_ahead(context.clock.wall(), ahead), warn);
        let credentials = renewed.map_err(|why| {
            let message = "the credentials have expired and could not be renewed";
            // A place that could not be reached may answer the next time.
            let error = StorageError::new(ErrorKind::Credentials, operation, message);
            error.retryable(why.may_go_away()).with_source(why)
        })?;
        Ok(Self { credentials, ahead })
    }

    /// Returns the time of day at the store.
    pub(crate) fn store_time(&self, here: SystemTime) -> SystemTime {
        time_ahead(here, self.ahead)
    }
}

/// Returns a time that is this many seconds ahead.
fn time_ahead(here: SystemTime, seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { here - by } else { here + by }
}
