//! The check of a cache that was copied or put back by a backup, before a run believes its records.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::delete::is_gone;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::preflight::{Preflight, classify_first_result};
use crate::rescan::report::{KeptReason, RescanReport, VerifyReport};
use crate::rescan::verify::recheck::{ListedRecords, list_records};
use crate::state::cache::CacheManager;
use crate::state::cache::identity::Origin;
use crate::state::catalog::origin;
use crate::state::store::Write;

impl RescanOrchestrator {
    /// Compares the records with a listing if the cache is not the file that they were written to. Returns what the listing
    /// says of a store that cannot be reached. If the records cannot be compared, the run deletes nothing.
    pub(super) fn check_origin(
        &self,
        context: &Context,
        report: &mut RescanReport,
    ) -> Result<Option<Preflight>, StorageError> {
        let Some(sign) = sign_of_copy(&self.cache)? else { return Ok(None) };
        let trace = &context.session.trace;
        let path = self.cache.path().display();
        if report.dry_run {
            let what = "the cache was copied, or put back by a backup: what it says is published may be out of date, and \
                        a run compares it with the objects first";
            trace.warn(what, &[("cache", &path), ("sign", &sign)]);
            return Ok(None);
        }
        let what =
            "the cache was copied, or put back by a backup: its records are compared with the objects first";
        trace.warn(what, &[("cache", &path), ("sign", &sign)]);
        // Without records there is nothing to be wrong.
        if self.cache.published_count()? == 0 {
            return trust(&self.cache, false).map(|()| None);
        }
        let found = report.copied_cache.insert(VerifyReport::default());
        let listed = match self.backend.transfers() {
            Some(transfers) => list_records(transfers, &context.session, &self.cache, found),
            None => Err(StorageError::new(
                ErrorKind::Unsupported,
                Operation::List,
                "this backend cannot list objects",
            )),
        };
        match listed {
            Ok(records) => self.believe(&records, context, report).map(|()| None),
            Err(error) if error.is_about_the_cache() => Err(error),
            Err(error) => self.go_on_unverified(context, error),
        }
    }

    /// Forgets the records that do not hold, and makes the file the one that the others belong to.
    fn believe(
        &self,
        records: &ListedRecords,
        context: &Context,
        report: &mut RescanReport,
    ) -> Result<(), StorageError> {
        let mut found = report.copied_cache.take().unwrap_or_default();
        records.forget_others(&self.cache, &mut found, |key| {
            // The plan no longer knows the key.
            if is_gone(&context.root, Path::new(key)).unwrap_or(false) {
                report.add_kept(key.to_owned(), KeptReason::NotAsRecorded);
            }
        })?;
        found.complete = true;
        // Objects of later runs: those that hold the files are taken over, not sent again.
        let are_unknown = found.unknown_count + found.different_count > 0;
        report.copied_cache = Some(found);
        trust(&self.cache, are_unknown && self.config.first_run == FirstRun::Adopt)
    }

    /// Lets the run go on without deletes, unless every other request would end the same way.
    fn go_on_unverified(
        &self,
        context: &Context,
        error: StorageError,
    ) -> Result<Option<Preflight>, StorageError> {
        context.unverified.store(true, Ordering::Relaxed);
        let what = "the records of a copied cache cannot be compared with the objects: nothing is deleted in this run";
        context.session.trace.warn(what, &[("error", &error)]);
        // What is wrong with this listing alone.
        if error.kind() == ErrorKind::Unsupported
            || (error.kind() == ErrorKind::Protocol && !error.is_retryable())
        {
            return Ok(None);
        }
        let found = classify_first_result(context, &self.cache, FirstRun::Overwrite, Err(error))?;
        Ok(Some(found).filter(|found| matches!(found, Preflight::Unreachable(_))))
    }
}

/// Returns what shows that the records were written to another file, or to an earlier state of this one.
fn sign_of_copy(cache: &CacheManager) -> Result<Option<&'static str>, StorageError> {
    Ok(match cache.origin()? {
        Origin::Copied => Some("it is another file than the last run left"),
        Origin::Unverified => Some("it was bound to another endpoint, and not compared since"),
        Origin::Own | Origin::Unrecorded if origin::shows_a_restore(cache)? => {
            Some("the catalog beside it is not the one that the last run left")
        }
        Origin::Own | Origin::Unrecorded => None,
    })
}

/// Makes the file the one that the records belong to, and the catalog beside it its own. With `adopt` the next listing
/// takes over what holds a file.
pub(super) fn trust(cache: &CacheManager, adopt: bool) -> Result<(), StorageError> {
    let writes = own_files(cache)?.into_iter().chain(adopt.then(CacheManager::no_survey));
    cache.apply(&writes.collect::<Vec<Write>>())
}

/// Returns the writes that make the file the one that the records belong to, and the catalog beside it its own.
pub(super) fn own_files(cache: &CacheManager) -> Result<Vec<Write>, StorageError> {
    let catalog = origin::file_of(cache).map(|file| cache.catalog_mark(file)).transpose()?;
    Ok(std::iter::once(cache.own_file(true)?).chain(catalog).collect())
}
