//! The pull of a machine that has no tree: a cache and a catalog from the bucket.

use std::sync::Arc;

use crate::backend::StorageBackend;
use crate::engine::Engine;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::access_for;
use crate::rescan::bucket_state::claim::published_by;
use crate::rescan::bucket_state::pull::{Pull, Pulled};
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::options::Run;
use crate::rescan::report::StateReport;
use crate::rescan::session::Session;
use crate::state::cache::CacheManager;
use crate::state::cache::copy::HeadCopy;
use crate::state::cache::pulled::{NO_ROOT, PulledInto};
use crate::state::catalog;
use crate::state::remote::head::Head;

/// Rows of a pull without a tree belong to no root.
const INTO: PulledInto = PulledInto { root: NO_ROOT, root_device: 0 };

impl CacheManager {
    /// Makes the cache a copy of the state in the bucket, and writes the [`Catalog`](crate::Catalog) beside it, on a machine
    /// that has no tree and may only read: one publisher, any number of servers that resolve URLs. Costs one request if
    /// nothing has changed, else those for what has.
    ///
    /// Only the cancel token, the deadline, the observer and the progress of `run` are used.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no state; [`ErrorKind::StateDamaged`] if it cannot be used: what is missing
    /// or does not have its SHA-256 changes nothing in the cache; [`ErrorKind::CacheForeign`] if the cache belongs to another destination; those of the cache and
    /// those of the store.
    pub fn pull(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        state: &RemoteState,
        run: &Run,
    ) -> Result<StateReport, StorageError> {
        engine.refuse_own_worker()?;
        state.check()?;
        let _lock = self.lock()?;
        let all = || self.pull_locked(engine, backend, state, run);
        caught(Operation::State, all)
    }

    fn pull_locked(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        state: &RemoteState,
        run: &Run,
    ) -> Result<StateReport, StorageError> {
        let state = self.pull_records(engine, backend, state, run)?;
        // The catalog has URLs.
        if self.places().is_err() {
            self.use_urls_of(backend.clone(), None);
        }
        catalog::update(self, engine.clock().wall())?;
        Ok(state)
    }

    /// Pulls, and writes no catalog. The caller has locked the cache.
    pub(crate) fn pull_records(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        state: &RemoteState,
        run: &Run,
    ) -> Result<StateReport, StorageError> {
        let binding = self.bind(&backend.destination())?;
        self.apply(&Vec::from_iter(binding))?;
        let trace = engine.trace().for_run(run.observer.clone(), run.progress.clone());
        let session = Session::new(engine, backend, &trace, run, engine.clock().now());
        let access = access_for(state, backend, &session.request_context(), engine.clock())?;
        let pull = Pull { access: &access, cache: self, into: INTO, publishes: false };
        let Pulled { head, loss, changed, .. } = pull.run()?;
        if let Some(loss) = loss {
            let what = format!("{}: {}; the next publisher makes it anew", access.place(), loss.describe());
            return Err(StorageError::new(ErrorKind::StateDamaged, Operation::State, what));
        }
        let Some(head) = head else {
            let what = format!("there is no {}: nothing was published with its state there", access.place());
            return Err(StorageError::new(ErrorKind::NotFound, Operation::State, what));
        };
        Ok(StateReport { pulled: changed, ..report_of(&head.head) })
    }

    /// Returns what the cache knows of the state in the bucket, since the last pull or run; `None` if its state is local.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn state(&self) -> Result<Option<StateReport>, StorageError> {
        let Some(HeadCopy { bytes, .. }) = self.head_copy()? else { return Ok(None) };
        Ok(serde_json::from_slice::<Head>(&bytes).ok().map(|head| report_of(&head)))
    }
}

/// Returns what a report says of a head.
pub(crate) fn report_of(head: &Head) -> StateReport {
    StateReport {
        generation: head.generation,
        epoch: head.epoch,
        order: head.order,
        published_by: head.history.last().map(|past| published_by(&past.who, past.since)),
        claimed_by: head.claim.as_ref().map(|claim| published_by(&claim.who, claim.since)),
        in_doubt: head.doubt.len() as u64,
        ..StateReport::default()
    }
}
