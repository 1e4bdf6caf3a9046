//! What one request to a store needs of whoever sends it.

use std::time::Duration;

use crate::clock::{CancelToken, Clock};
use crate::engine::gate::Gate;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::Trace;

/// What one request needs of whoever sends it: how to be cancelled, until when, what time it is, the
/// gate before the destination, and where its records go.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    pub(crate) cancel: &'a CancelToken,
    pub(crate) deadline: Option<Duration>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) gate: &'a Gate,
    pub(crate) trace: &'a Trace,
}

impl RequestContext<'_> {
    /// An error if the work was cancelled or is out of time.
    pub(crate) fn check(&self, operation: Operation) -> Result<(), StorageError> {
        if self.cancel.is_cancelled() {
            return Err(StorageError::new(ErrorKind::Cancelled, operation, "cancelled"));
        }
        if self.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return Err(StorageError::new(ErrorKind::Deadline, operation, "the run's deadline has passed"));
        }
        Ok(())
    }

    pub(crate) fn within_deadline(&self, wait: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => wait.min(deadline.saturating_sub(self.clock.now())),
            None => wait,
        }
    }
}
