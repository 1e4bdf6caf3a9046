//! What the writes of objects share while other publishers may take over.

use std::sync::{Arc, OnceLock};

use crate::backend::{Condition, is_weak};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::held_claim::HeldClaim;
use crate::rescan::bucket_state::settings::OnConflict;
use crate::rescan::bucket_state::write_guard::WriteGuard;
use crate::state::records::Published;

/// What the writes of a run with its state in the bucket share.
pub(crate) struct SharedWrites {
    pub(crate) guard: Arc<WriteGuard>,
    pub(crate) on_conflict: OnConflict,
    /// Set once the run has claimed.
    claim: OnceLock<Arc<HeldClaim>>,
}

impl SharedWrites {
    pub(crate) fn new(guard: WriteGuard, on_conflict: OnConflict) -> Self {
        Self { guard: Arc::new(guard), on_conflict, claim: OnceLock::new() }
    }

    pub(crate) fn set_claim(&self, claim: &Arc<HeldClaim>) {
        // A run claims once.
        let _ = self.claim.set(claim.clone());
    }

    /// Returns the condition for a write of a key, from what the state knows of it.
    pub(crate) fn condition_of(&self, published: Option<&Published>) -> Condition {
        if self.claim.get().is_none_or(|claim| !claim.conditional) {
            return Condition::None;
        }
        match published {
            None => Condition::Absent,
            Some(Published { etag: Some(etag), .. }) if !is_weak(etag) => Condition::Matches(etag.clone()),
            Some(_) => Condition::None,
        }
    }

    /// Returns the error if another run has taken over since.
    pub(crate) fn check_still_ours(&self, operation: Operation) -> Result<(), StorageError> {
        match self.claim.get() {
            Some(claim) if !claim.is_still_ours()? => {
                let what = "not sent: another run has taken over";
                Err(StorageError::new(ErrorKind::Superseded, operation, what))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn claim(&self) -> Option<&Arc<HeldClaim>> {
        self.claim.get()
    }
}
