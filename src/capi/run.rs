//! The calls that block: rescan, plan, pull.

use crate::capi::boundary::{Fault, Place, required};
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::report::bb_report;
use crate::capi::site::bb_site;
use crate::capi::state::bb_state;
use crate::capi::status::bb_status;
use crate::error::StorageError;

/// Publishes the tree: walks `root`, uploads new and changed files, deletes the objects of files that are
/// gone, and returns when all of that is done and recorded.
///
/// `BB_OK` says that there is a report, not that everything was published: ask `bb_report_is_complete`. A
/// store that cannot be reached is no error but an outcome. What was left undone is tried again by the next
/// call.
///
/// @param report receives the report; free it with `bb_report_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_rescan(
    site: *const bb_site,
    report: *mut *mut bb_report,
    error: *mut *mut bb_error,
) -> bb_status {
    // SAFETY: passed on.
    guard(error, || unsafe { rescan(site, report, false) })
}

/// Tells what `bb_rescan` would do, and records nothing. The report's counts and lists are those of a dry
/// run.
///
/// @param report receives the report; free it with `bb_report_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_plan(
    site: *const bb_site,
    report: *mut *mut bb_report,
    error: *mut *mut bb_error,
) -> bb_status {
    // SAFETY: passed on.
    guard(error, || unsafe { rescan(site, report, true) })
}

/// # Safety
/// NULL or a live handle, and NULL or a place for a pointer.
unsafe fn rescan(site: *const bb_site, report: *mut *mut bb_report, dry_run: bool) -> Result<(), Fault> {
    // SAFETY: the caller's promise.
    let (site, place) = unsafe { (required(site.as_ref(), "site")?, Place::new(report, "report")?) };
    let open = site.enter()?;
    let missing = || StorageError::config("root", "missing: set it to the directory to publish");
    let orchestrator = open.orchestrator.as_ref().ok_or_else(missing)?;
    let rescan = |run: crate::rescan::options::Run| orchestrator.rescan_with(&run.dry_run(dry_run));
    place.give(bb_report::from(open.run(&site.begin(), rescan)?));
    Ok(())
}

/// Makes the cache and its catalog a copy of the state in the bucket, on a machine that has no tree and may
/// only read. Needs `state` set to "bucket" or a URL. Costs one request if nothing has changed.
/// `BB_ERR_NOT_FOUND` if nothing was published with its state there.
///
/// @param state receives the state; free it with `bb_state_free`. May be NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_pull(
    site: *const bb_site,
    state: *mut *mut bb_state,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let site = required(unsafe { site.as_ref() }, "site")?;
        let open = site.enter()?;
        let local = || StorageError::config("state", "it is local: set it to bucket or s3://BUCKET/PREFIX");
        let place_of_state = open.state.as_ref().ok_or_else(local)?;
        let pull = |run| open.cache.pull(&open.engine, &open.destination(), place_of_state, &run);
        let pulled = open.run(&site.begin(), pull)?;
        if !state.is_null() {
            // SAFETY: as above.
            unsafe { Place::new(state, "state") }?.give(bb_state::from(pulled));
        }
        Ok(())
    })
}
