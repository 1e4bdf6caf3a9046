//! What the writes of objects share while other publishers may take over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::backend::{Condition, Deleted, StorageBackend, StoredObject, is_weak};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::held_claim::HeldClaim;
use crate::rescan::bucket_state::settings::OnConflict;
use crate::rescan::bucket_state::write_guard::WriteGuard;
use crate::state::records::Published;

/// The objects of others that are remembered. Of more it is found out by a write whose condition fails.
const MOST_UNKNOWN: usize = 100_000;

/// What the writes of a run with its state in the bucket share.
pub(crate) struct SharedWrites {
    pub(crate) guard: Arc<WriteGuard>,
    pub(crate) on_conflict: OnConflict,
    /// Set once the run has claimed.
    claim: OnceLock<Arc<HeldClaim>>,
    /// The objects of others that a first run found under the keys of its files.
    unknown: Mutex<UnknownObjects>,
}

/// Objects that nobody recorded, and that a first run overwrites.
#[derive(Default)]
struct UnknownObjects {
    /// There may be some.
    expected: bool,
    /// The ETags of those that the listing showed.
    etags: HashMap<String, String>,
}

impl SharedWrites {
    pub(crate) fn new(guard: WriteGuard, on_conflict: OnConflict) -> Self {
        Self { guard: Arc::new(guard), on_conflict, claim: OnceLock::new(), unknown: Mutex::default() }
    }

    /// Notes that files of this run overwrite objects of others that have their keys.
    pub(crate) fn expect_unknown(&self) {
        self.unknown().expected = true;
    }

    /// Notes such an object.
    pub(crate) fn note_unknown(&self, key: &str, etag: Option<&str>) {
        let mut unknown = self.unknown();
        if let Some(etag) = etag.filter(|_| unknown.etags.len() < MOST_UNKNOWN) {
            unknown.etags.insert(key.to_owned(), etag.trim_matches('"').to_owned());
        }
    }

    /// Returns true if the object under a key that the state does not know is to be overwritten.
    pub(crate) fn overwrites_unknown(&self) -> bool {
        self.unknown().expected
    }

    fn unknown(&self) -> MutexGuard<'_, UnknownObjects> {
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_claim(&self, claim: &Arc<HeldClaim>) {
        // A run claims once.
        let _ = self.claim.set(claim.clone());
    }

    /// Returns true if writes have conditions.
    pub(crate) fn is_conditional(&self) -> bool {
        self.claim.get().is_some_and(|claim| claim.conditional)
    }

    /// Returns the condition for a write of a key, from what the state knows of it.
    pub(crate) fn condition_of(&self, key: &str, published: Option<&Published>) -> Condition {
        if !self.is_conditional() {
            return Condition::None;
        }
        match published {
            None => {
                let etag = self.unknown().etags.remove(key);
                etag.map_or(Condition::Absent, Condition::Matches)
            }
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

    /// Splits keys that are to be deleted: the results of those whose objects are not what the state says, and the
    /// others. A state that lies elsewhere is believed only so far, and a row without an ETag says nothing that a delete
    /// could depend on: whoever may write the state would have any object deleted.
    pub(crate) fn proved(
        &self,
        context: &RequestContext<'_>,
        backend: &dyn StorageBackend,
        keys: &[(RemoteKey, Condition)],
    ) -> Result<(Deleted, Vec<(RemoteKey, Condition)>), StorageError> {
        let (mut results, mut proved) = (Vec::new(), Vec::new());
        let elsewhere = self.claim.get().is_some_and(|claim| claim.access.is_elsewhere);
        let needs_proof = |condition: &Condition| {
            elsewhere || (self.is_conditional() && matches!(condition, Condition::None))
        };
        for (key, condition) in keys {
            let Some(transfers) = backend.transfers().filter(|_| needs_proof(condition)) else {
                proved.push((key.clone(), condition.clone()));
                continue;
            };
            let found = match transfers.head(context, key, false) {
                Ok(Some(found)) => found,
                Ok(None) => {
                    results.push((key.clone(), Ok(())));
                    continue;
                }
                Err(error) if error.is_not_tried() => return Err(error),
                // A key that always fails, or that may not be read, holds up no other.
                Err(error) => {
                    results.push((key.clone(), Err(error)));
                    continue;
                }
            };
            if let Some(condition) = self.proof_of(condition, &found) {
                proved.push((key.clone(), condition));
                continue;
            }
            let what = "not deleted: the object is not the one that the state says was published";
            let error = StorageError::new(ErrorKind::Conflict, Operation::Delete, what);
            results.push((key.clone(), Err(error.with_key(key.as_str()))));
        }
        Ok((results, proved))
    }

    /// Returns the condition under which the object that was found may be deleted, if it is the one that the state says.
    fn proof_of(&self, condition: &Condition, found: &StoredObject) -> Option<Condition> {
        match condition {
            Condition::Matches(known) => (found.etag.as_ref() == Some(known)).then(|| condition.clone()),
            // Without an ETag the proof of origin has to do.
            Condition::None if found.is_as_stored => {
                let etag = found.etag.clone().filter(|etag| self.is_conditional() && !is_weak(etag));
                Some(etag.map_or(Condition::None, Condition::Matches))
            }
            _ => None,
        }
    }

    pub(crate) fn claim(&self) -> Option<&Arc<HeldClaim>> {
        self.claim.get()
    }
}
