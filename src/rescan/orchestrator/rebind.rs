//! Binds a cache to the endpoint that its destination has now.

use std::sync::Arc;

use crate::backend::StorageBackend;
use crate::engine::Engine;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::options::Run;
use crate::rescan::orchestrator::copied::trust;
use crate::rescan::report::VerifyReport;
use crate::rescan::session::Session;
use crate::rescan::verify::recheck::list_records;
use crate::state::cache::CacheManager;
use crate::state::catalog::{self, origin};

impl CacheManager {
    /// Binds the cache to the destination of `backend`, where the same objects are: its endpoint has moved, or the bucket
    /// was copied with its ETags. One listing decides what stays recorded. What is missing there, or has another size or
    /// `ETag`, is published by the next rescan, and never deleted by it. An existing catalog gets the new URLs. Nothing is
    /// written to the bucket.
    ///
    /// If it fails before all is listed, nothing has changed. If it is interrupted later, the next rescan compares again.
    /// A cache with its state in the bucket is pulled again from there.
    ///
    /// Only the cancel token, the deadline, the observer and the progress of `run` are used.
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if there is none of the recorded objects; [`ErrorKind::CacheLocked`] while a rescan of
    /// this process uses the cache; [`ErrorKind::Unsupported`] for a backend that cannot list; those of the cache and those
    /// of the store.
    pub fn rebind(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        engine.refuse_own_worker()?;
        let _lock = self.lock()?;
        let all = || self.rebind_locked(engine, backend, run);
        caught(Operation::List, all)
    }

    fn rebind_locked(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        run: &Run,
    ) -> Result<VerifyReport, StorageError> {
        let Some(transfers) = backend.transfers() else {
            let why = "this backend cannot list objects, so nothing shows that they are the same";
            return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, why));
        };
        let trace = engine.trace().for_run(run.observer.clone(), run.progress.clone());
        let session = Session::new(engine, backend, &trace, run, engine.clock().now());
        let mut found = VerifyReport::default();
        let records = list_records(transfers, &session, self, &mut found)?;
        let (destination, published) = (backend.destination(), self.published_count()?);
        if found.matching == 0 && published > 0 {
            let why = format!(
                "none of its {published} objects is at {destination} with the same size and ETag: this is another place; \
                 use another cache file for it"
            );
            return Err(
                StorageError::new(ErrorKind::CacheForeign, Operation::Cache, why).with_path(self.path())
            );
        }
        // From here on the records that do not hold are not believed, whatever happens.
        let mut writes = vec![Self::binding(&destination), self.own_file(false)?];
        if self.has_state_in_bucket()? {
            writes.push(self.no_head()?);
        }
        self.apply(&writes)?;
        records.forget_others(self, &mut found, |_| ())?;
        trust(self, false)?;
        found.complete = true;
        if origin::file_of(self).is_some() {
            if self.places().is_err() {
                self.use_urls_of(backend.clone(), None);
            }
            catalog::update(self, engine.clock().wall())?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::support::oracle::check;
    use crate::inside::support::{PREFIX, World};
    use crate::state::cache::identity::Origin;

    /// A rebind that is killed between the binding and the last forgotten record leaves a cache that is not believed: the
    /// next run compares it again.
    #[test]
    fn p5_killed_rebind_is_completed_by_the_next_run() {
        let world = World::new();
        for key in ["a", "b", "gone"] {
            world.write(key, key);
        }
        world.orchestrator().rescan().unwrap();
        world.store.put_raw(&format!("{PREFIX}gone"), "another publisher's");
        world.strangers.lock().unwrap().insert("gone".to_owned(), b"another publisher's".to_vec());
        world.remove("gone");
        let cache = world.cache();
        // The first commit of a rebind, and no more.
        let binding = CacheManager::binding(&cache.destination().unwrap().unwrap());
        cache.apply(&[binding, cache.own_file(false).unwrap()]).unwrap();
        assert_eq!(cache.origin().unwrap(), Origin::Unverified);
        drop(cache);
        let site = world.orchestrator();
        let report = site.rescan().unwrap();
        check(&world, &site, &report);
        assert_eq!(
            (report.copied_cache.unwrap().different, report.deleted_count),
            (vec!["gone".to_owned()], 0)
        );
        assert_eq!(site.cache().origin().unwrap(), Origin::Own);
    }
}
