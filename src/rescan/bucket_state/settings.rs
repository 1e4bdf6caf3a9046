//! The settings of state in the bucket.

use std::time::Duration;

use crate::error::StorageError;
use crate::state::remote::lease::{DEFAULT_LEASE, LEASES};

/// State in the bucket: the record of what is published lies beside the objects, and every machine that may write there
/// can publish, one at a time. Given to [`RescanConfig::remote_state`](crate::RescanConfig::remote_state).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteState {
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) order: Option<u64>,
    pub(crate) reset_order: bool,
    pub(crate) single_writer: bool,
    pub(crate) take_over: bool,
    pub(crate) on_conflict: OnConflict,
    pub(crate) publisher: Option<String>,
    pub(crate) tree: Option<String>,
}

/// The policy for an object that somebody else changed since it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// The file fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict), and nothing is overwritten.
    #[default]
    Fail,
    /// The file is published over it.
    Overwrite,
}

impl Default for RemoteState {
    fn default() -> Self {
        Self {
            lease: DEFAULT_LEASE,
            wait: Duration::ZERO,
            order: None,
            reset_order: false,
            single_writer: false,
            take_over: false,
            on_conflict: OnConflict::Fail,
            publisher: None,
            tree: None,
        }
    }
}

impl RemoteState {
    /// State in the bucket of the backend, under `.brigade/` below its prefix.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how long a claim holds without being renewed, in whole seconds from 1 s to 1 day. Default: 5 min. It is
    /// renewed every minute, or after a fifth of it. Others take over a claim that was not renewed for this time and 30 s
    /// more by the store's clock.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long to wait for another run that is publishing. Default: not at all. Then the run stops with
    /// [`StopReason::Claimed`](crate::StopReason::Claimed), and nothing is sent.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the number of this build. A run with a lower one than the last is refused; an equal one is a rerun.
    /// Default: builds have no order.
    pub fn order(mut self, order: u64) -> Self {
        self.order = Some(order);
        self
    }

    /// Lets the order of this run replace a higher one.
    pub fn reset_order(mut self, yes: bool) -> Self {
        self.reset_order = yes;
        self
    }

    /// Says that the caller sees to it that one run at a time publishes, as a CI's concurrency group does. Only then is
    /// a store used that does not honour conditional writes.
    pub fn single_writer(mut self, yes: bool) -> Self {
        self.single_writer = yes;
        self
    }

    /// Takes over the claim of another run at once, without waiting for its lease to end. Use it only if that run is
    /// certainly dead.
    pub fn take_over(mut self, yes: bool) -> Self {
        self.take_over = yes;
        self
    }

    /// Sets the policy for objects that somebody else changed. Default: [`OnConflict::Fail`].
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Sets the name by which others are told who is publishing. Default: the host name and the process ID.
    pub fn publisher(mut self, name: impl Into<String>) -> Self {
        self.publisher = Some(name.into());
        self
    }

    /// Sets the name of the tree. A run with another name is refused, so that two trees never share a prefix by mistake.
    pub fn tree(mut self, name: impl Into<String>) -> Self {
        self.tree = Some(name.into());
        self
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.lease.subsec_nanos() != 0 || !LEASES.contains(&self.lease.as_secs()) {
            let why = format!("{:?} is not a number of whole seconds from 1 s to 1 day", self.lease);
            return Err(StorageError::config("lease", why));
        }
        if self.reset_order && self.order.is_none() {
            return Err(StorageError::config("reset_order", "it needs an order"));
        }
        Ok(())
    }
}
