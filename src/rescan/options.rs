//! The options of one call of a rescan.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::CancelToken;
use crate::observe::event::{Observer, Progress};
use crate::rescan::config::Verify;

/// The options of one call of [`rescan_with`](crate::RescanOrchestrator::rescan_with).
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
    /// The defaults: no deadline, no dry run, no verification, no observer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops the run when the token is cancelled: no more work is started, and finished work is recorded.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Stops the run this long after its start. A request that is waiting for its response then may still finish,
    /// within the backend's time limits.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.deadline = Some(after);
        self
    }

    /// Only reports what would be done, and records nothing. Files that may have changed are hashed, one after another,
    /// to find out. Sends no request, except on the first run of a cache: then it looks for a state that lies in the
    /// bucket, and lists the prefix as [`FirstRun`](crate::FirstRun) says. With the state in the bucket it pulls that into
    /// the cache first, claims nothing, and needs a cache that can be written.
    pub fn dry_run(mut self, yes: bool) -> Self {
        self.dry_run = yes;
        self
    }

    /// Sends every file again, even if it is unchanged. Use it after objects were changed by others, or when the
    /// headers of uploads have changed. It applies to this run only: if the run is stopped, set it again for the next.
    pub fn force(mut self, yes: bool) -> Self {
        self.force = yes;
        self
    }

    /// Sets how the result is verified. Default: [`Verify::Ack`].
    pub fn verify(mut self, how: Verify) -> Self {
        self.verify = how;
        self
    }

    /// Sends the events of this run to the observer.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Counts the progress of this run there.
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = Some(progress);
        self
    }
}
