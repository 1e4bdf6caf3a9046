//! The thread that renews the claim of a run, whatever the run is busy with: a walk, a comparison, a large file.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::engine::thread_named;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::held_claim::HeldClaim;

/// The thread looks this often whether the claim is to be renewed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// So many looks pass after a failure.
const AFTER_A_FAILURE: u32 = 10;

/// Renews a claim until it is dropped.
pub(crate) struct RenewalThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl RenewalThread {
    pub(crate) fn start(claim: &Arc<HeldClaim>) -> Result<Self, StorageError> {
        let (stop, stopped) = bounded::<()>(0);
        let claim = claim.clone();
        let renew = move || {
            let mut waits = 0;
            // The other end is dropped to stop it.
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                if waits > 0 || !claim.guard.must_renew() {
                    waits = u32::saturating_sub(waits, 1);
                    continue;
                }
                if let Err(error) = claim.checkpoint() {
                    let what = "the claim could not be renewed; it is tried again";
                    claim.access.trace.warn(what, &[("error", &error)]);
                    waits = AFTER_A_FAILURE;
                }
            }
        };
        let thread = thread_named("brigade-claim").spawn(renew);
        let thread = thread.map_err(|error| {
            let what = "cannot start the thread that renews the claim";
            StorageError::new(ErrorKind::Other, Operation::State, what).with_source(error)
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for RenewalThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was logged by the hook, and the claim ends by itself.
            let _ = thread.join();
        }
    }
}
