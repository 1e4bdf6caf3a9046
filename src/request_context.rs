//! The context of a request, from whoever sends it.

use std::time::Duration;

use crate::clock::{CancelToken, Clock};
use crate::engine::gate::Gate;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::Trace;

/// Decides whether a request may be sent and how long it may take, and remembers writes that got no answer.
pub(crate) trait Fence: Sync {
    /// Returns how long a write that begins now may take, if that is limited.
    ///
    /// # Errors
    /// If none may begin.
    fn check(&self, operation: Operation) -> Result<Option<Duration>, StorageError>;

    /// Returns how long a request that is under way may take from now on.
    fn remaining(&self) -> Duration;

    /// Notes that a write got no answer: it may take effect later.
    fn note_unanswered(&self);
}

/// The context of a request: cancel token, deadline, clock, the gate of the destination, and the trace that records it.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    pub(crate) cancel: &'a CancelToken,
    pub(crate) deadline: Option<Duration>,
    pub(crate) clock: &'a dyn Clock,
    pub(crate) gate: &'a Gate,
    pub(crate) trace: &'a Trace,
    /// For writes of objects while other publishers may take over.
    pub(crate) fence: Option<&'a dyn Fence>,
}

impl RequestContext<'_> {
    /// Returns an error if the run was cancelled or its deadline has passed.
    pub(crate) fn check(&self, operation: Operation) -> Result<(), StorageError> {
        if self.cancel.is_cancelled() {
            return Err(StorageError::new(ErrorKind::Cancelled, operation, "cancelled"));
        }
        if self.deadline.is_some_and(|deadline| self.clock.now() >= deadline) {
            return Err(StorageError::new(ErrorKind::Deadline, operation, "the run's deadline has passed"));
        }
        Ok(())
    }

    /// Returns an error if the request may not be sent now, else how long it may take if that is limited.
    pub(crate) fn check_send(&self, operation: Operation) -> Result<Option<Duration>, StorageError> {
        self.check(operation)?;
        self.fence.map_or(Ok(None), |fence| fence.check(operation))
    }

    /// Returns the wait, shortened to end at the deadline.
    pub(crate) fn within_deadline(&self, wait: Duration) -> Duration {
        match self.deadline {
            Some(deadline) => wait.min(deadline.saturating_sub(self.clock.now())),
            None => wait,
        }
    }
}
