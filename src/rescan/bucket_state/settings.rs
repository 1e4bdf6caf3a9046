//! The settings of the state that lies in the bucket.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::error::StorageError;
use crate::state::remote::head::codec::check_name;
use crate::state::remote::lease::DEFAULT_LEASE;
use crate::state::remote::name::MAX_NUMBER;
use crate::state::remote::transitions::Order;

/// The leases that a run may ask for, in seconds. The store's dates have whole seconds: one of them must be less than half
/// of a lease.
const OWN_LEASES: std::ops::RangeInclusive<u64> = 5..=86_400;

/// What happens to a file whose object somebody else has changed since it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// The file fails with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) and stays pending. The object stays as
    /// it is.
    #[default]
    Fail,
    /// The file is sent all the same. An object that was to be deleted stays even so.
    Overwrite,
}

/// Keeps the record of what is published in the bucket, so that many machines can publish one tree, one at a time. The
/// cache is a copy of it; a machine without a cache pulls it first.
///
/// The record lies under `.brigade/` below the prefix. Whoever may read there learns the names of all files, and whoever
/// may write there can have any object under the prefix deleted.
///
/// Publishers exclude each other by conditional writes. Before the first claim a probe finds out whether the store keeps
/// these; if not, a run fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), unless
/// [`single_writer`](Self::single_writer) says that there is one publisher at a time.
///
/// ```
/// use std::time::Duration;
/// use bucket_brigade::{RemoteState, RescanConfig};
/// let state = RemoteState::new().order(118).wait(Duration::from_secs(600));
/// let config = RescanConfig::new().state(state);
/// ```
#[derive(Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct RemoteState {
    pub(crate) elsewhere: Option<Arc<dyn StorageBackend>>,
    pub(crate) tree: Option<String>,
    pub(crate) publisher: Option<String>,
    pub(crate) lease: Duration,
    pub(crate) wait: Duration,
    pub(crate) order: Option<u64>,
    pub(crate) reset_order: bool,
    pub(crate) single_writer: bool,
    pub(crate) take_over: bool,
    pub(crate) on_conflict: OnConflict,
}

impl Default for RemoteState {
    fn default() -> Self {
        Self {
            elsewhere: None,
            tree: None,
            publisher: None,
            lease: DEFAULT_LEASE,
            wait: Duration::ZERO,
            order: None,
            reset_order: false,
            single_writer: false,
            take_over: false,
            on_conflict: OnConflict::Fail,
        }
    }
}

impl RemoteState {
    /// The state lies below the prefix, with the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the record below the prefix of another backend, such as a bucket that is not public. A marker at
    /// `.brigade/head` below the prefix of the objects says where.
    pub fn at(mut self, backend: Arc<dyn StorageBackend>) -> Self {
        self.elsewhere = Some(backend);
        self
    }

    /// Names the tree. A run whose tree has another name than the published one fails, so that two trees cannot be mixed
    /// up. Default: no name.
    pub fn tree(mut self, name: impl Into<String>) -> Self {
        self.tree = Some(name.into());
        self
    }

    /// Sets whom other publishers are told of, such as a host and a job, in 1 to 255 bytes. Default: the name of the host
    /// and the process ID.
    pub fn publisher(mut self, who: impl Into<String>) -> Self {
        self.publisher = Some(who.into());
        self
    }

    /// Sets how long the claim of a run holds without a renewal, 5 s to 24 h. A run renews its claim each minute, or
    /// after a fifth of this. After a crash others may publish once this and 30 s more have passed. Default: 5 minutes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Waits up to this long for another publisher to end. Default: not at all.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Sets the place of this tree among others, such as the number of the build. A run with a lower one than was
    /// published publishes nothing; an equal one is a rerun. Default: none.
    pub fn order(mut self, order: u64) -> Self {
        self.order = Some(order);
        self
    }

    /// Publishes a tree of a lower [`order`](Self::order) all the same, and goes on from there: a rollback.
    pub fn reset_order(mut self, yes: bool) -> Self {
        self.reset_order = yes;
        self
    }

    /// Says that the caller lets one publisher run at a time, as a concurrency group of a CI system does. Then the store
    /// need not keep conditions. Default false.
    pub fn single_writer(mut self, yes: bool) -> Self {
        self.single_writer = yes;
        self
    }

    /// Takes over the claim of another publisher at once. Set it only if that one is certainly gone: otherwise two runs
    /// write at the same time. Default false.
    pub fn take_over(mut self, yes: bool) -> Self {
        self.take_over = yes;
        self
    }

    /// Sets what happens to objects that somebody else has changed. Default: [`OnConflict::Fail`].
    pub fn on_conflict(mut self, what: OnConflict) -> Self {
        self.on_conflict = what;
        self
    }

    pub(crate) fn order_of_run(&self) -> Order {
        match (self.reset_order, self.order) {
            (true, order) => Order::ResetTo(order),
            (false, Some(order)) => Order::At(order),
            (false, None) => Order::Unordered,
        }
    }

    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if !OWN_LEASES.contains(&self.lease.as_secs()) || self.lease.subsec_nanos() > 0 {
            let why = format!("{:?} is not a number of seconds from 5 to 86,400", self.lease);
            return Err(StorageError::config("lease", why));
        }
        if let Some(order) = self.order.filter(|order| *order > MAX_NUMBER) {
            return Err(StorageError::config("order", format!("{order} is more than {MAX_NUMBER}")));
        }
        for (field, name) in [("publisher", &self.publisher), ("tree", &self.tree)] {
            let Some(name) = name else { continue };
            check_name(field, name).map_err(|_| {
                StorageError::config(field, "1 to 255 bytes without control characters are allowed")
            })?;
        }
        if let Some(backend) = &self.elsewhere
            && backend.transfers().is_none()
        {
            return Err(StorageError::config("state", "this backend cannot hold it: use an S3Backend"));
        }
        Ok(())
    }
}

impl fmt::Debug for RemoteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteState")
            .field("at", &self.elsewhere.as_ref().map(|backend| backend.destination()))
            .field("tree", &self.tree)
            .field("publisher", &self.publisher)
            .field("lease", &self.lease)
            .field("wait", &self.wait)
            .field("order", &self.order)
            .field("reset_order", &self.reset_order)
            .field("single_writer", &self.single_writer)
            .field("take_over", &self.take_over)
            .field("on_conflict", &self.on_conflict)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let refused = |state: RemoteState| state.check().unwrap_err().message().to_owned();
        assert!(RemoteState::new().check().is_ok());
        assert!(refused(RemoteState::new().lease(Duration::from_secs(4))).starts_with("lease: "));
        assert!(refused(RemoteState::new().lease(Duration::from_millis(1500))).starts_with("lease: "));
        assert!(refused(RemoteState::new().lease(Duration::from_secs(86_401))).starts_with("lease: "));
        assert!(refused(RemoteState::new().order(u64::MAX)).starts_with("order: "));
        assert!(refused(RemoteState::new().publisher("a\nb")).starts_with("publisher: "));
        assert!(refused(RemoteState::new().tree("")).starts_with("tree: "));
    }

    #[test]
    fn the_order_of_a_run_is_kept_raised_or_reset() {
        assert_eq!(RemoteState::new().order_of_run(), Order::Unordered);
        assert_eq!(RemoteState::new().order(3).order_of_run(), Order::At(3));
        assert_eq!(RemoteState::new().order(3).reset_order(true).order_of_run(), Order::ResetTo(Some(3)));
        assert_eq!(RemoteState::new().reset_order(true).order_of_run(), Order::ResetTo(None));
    }
}
