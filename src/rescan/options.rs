//! What belongs to one call of a rescan.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::CancelToken;
use crate::observe::event::{Observer, Progress};
use crate::rescan::config::Verify;

/// What belongs to one call of [`rescan_with`](crate::RescanOrchestrator::rescan_with).
///
/// ```
/// use std::time::Duration;
/// use bucket_brigade::{CancelToken, Run};
/// let cancel = CancelToken::new();
/// let run = Run::new().cancel(cancel.clone()).deadline(Duration::from_secs(600)).dry_run(true);
/// # let _ = run;
/// ```
#[derive(Clone, Default)]
pub struct Run {
    pub(crate) cancel: CancelToken,
    pub(crate) deadline: Option<Duration>,
    pub(crate) dry_run: bool,
    pub(crate) force: bool,
    pub(crate) verify: Verify,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) progress: Option<Progress>,
}

impl Run {
    /// Nothing special.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the run when it is cancelled: nothing more is started, what is done is recorded.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Stops the run so long after its start. A request that is waiting for its answer then is
    /// waited for, up to the backend's limits.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Only says what would be done: no request, nothing recorded. Files that may have changed are read, one
    /// after another, to see whether they did.
    pub fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// Sends every file again, also what is published as it is: after somebody changed objects, or with other headers
    /// than before. It holds for this run: if that is stopped, the next one is to be told again.
    pub fn force(mut self, yes: bool) -> Self {
        self.force = yes;
        self
    }

    /// How to make sure of the result.
    pub fn verify(mut self, how: Verify) -> Self {
        self.verify = how;
        self
    }

    /// Receives the events of this run.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Counts the progress of this run.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }
}
