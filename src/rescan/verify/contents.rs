//! Verification of contents: the engine's workers download and hash every published object.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::report::VerifyReport;
use crate::rescan::session::Session;
use crate::rescan::verify::{Findings, mark_lost};
use crate::state::records::Published;
use crate::state::rows::Rows;

/// The number of failed downloads in a row, for reasons that concern all objects, after which the comparison ends.
const FAILURES_IN_A_ROW: u32 = 3;
/// The longest wait for results before the stop flags are checked again.
const PATIENCE: Duration = Duration::from_secs(1);

/// A downloaded object.
struct Compared {
    key: RemoteKey,
    published: Published,
    /// `true` if its content is what the store acknowledged.
    same: Result<bool, StorageError>,
}

/// Downloads every published object whose record is trusted and compares its digest. Missing and different objects
/// count as not published from then on.
pub(crate) fn compare(
    engine: &Engine,
    session: &Arc<Session>,
    findings: &mut Findings<'_>,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let results = BatchQueue::new();
    let _end = results.wait_at_end();
    let (mut rows, mut under_way, mut failures) = (findings.cache.rows(), 0, 0);
    let mut stopped = Ok(());
    loop {
        // Twice as many as there are workers, so that none waits for this thread.
        while stopped.is_ok() && under_way < 2 * engine.workers() {
            match next_object(session, findings, &mut rows) {
                Ok(None) => break,
                Ok(Some(object)) => start_download(engine, session, object, &results),
                Err(error) => {
                    stopped = Err(error);
                    break;
                }
            }
            under_way += 1;
        }
        // After an error, too, no job may outlive the run.
        if under_way == 0 {
            return stopped;
        }
        for compared in results.take(1, PATIENCE) {
            under_way -= 1;
            let recorded = record_result(session, findings, compared, &mut failures, report);
            stopped = stopped.and(recorded);
        }
    }
}

/// Returns the next published object whose record is trusted.
fn next_object(
    session: &Session,
    findings: &Findings<'_>,
    rows: &mut Rows<'_>,
) -> Result<Option<(RemoteKey, Published)>, StorageError> {
    session.request_context().check(Operation::Download)?;
    for row in rows {
        if let Some((key, published)) = findings.trusted_record(row?) {
            return Ok(Some((RemoteKey::new(key)?, published)));
        }
    }
    Ok(None)
}

/// Submits the download of an object to the workers.
fn start_download(
    engine: &Engine,
    session: &Arc<Session>,
    (key, published): (RemoteKey, Published),
    results: &BatchQueue<Compared>,
) {
    let session = session.clone();
    results.submit(engine, move || {
        let read = std::panic::AssertUnwindSafe(|| has_same_content(&session, &key, &published));
        let same = std::panic::catch_unwind(read)
            .unwrap_or_else(|panic| Err(panicked(Operation::Download, &*panic)))
            .map_err(|error| error.with_key(key.as_str()));
        Compared { key, published, same }
    });
}

fn has_same_content(session: &Session, key: &RemoteKey, published: &Published) -> Result<bool, StorageError> {
    let Some(transfers) = session.backend.transfers() else {
        return Err(StorageError::new(
            ErrorKind::Unsupported,
            Operation::Download,
            "this backend cannot download objects",
        ));
    };
    let (size, part_size) = (published.stat.size, published.digest.part_size());
    let digest = transfers.content(&session.request_context(), key, size, part_size)?;
    Ok(digest == Some(published.digest))
}

/// Counts and records the result of a download. An error ends the comparison.
fn record_result(
    session: &Session,
    findings: &mut Findings<'_>,
    compared: Compared,
    failures: &mut u32,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let Compared { key, published, same } = compared;
    let key = key.into_string();
    session.trace.progress.file_done();
    let error = match same {
        Ok(true) => {
            report.contents += 1;
            *failures = 0;
            return Ok(());
        }
        Ok(false) => {
            *failures = 0;
            // The listing had counted it as matching.
            report.matching = report.matching.saturating_sub(1);
            report.add_different(key.clone());
            let pending = findings.cache.pending_record(&key)?;
            return findings.record(&[mark_lost(key, &published, pending)]);
        }
        Err(error) => error,
    };
    // Deleted since it was listed.
    if error.kind() == ErrorKind::NotFound {
        report.matching = report.matching.saturating_sub(1);
        report.add_missing(key.clone());
        let pending = findings.cache.pending_record(&key)?;
        return findings.record(&[mark_lost(key, &published, pending)]);
    }
    *failures += 1;
    let refused = error.kind() == ErrorKind::AccessDenied || error.kind().is_fatal_at_first();
    // Reasons that probably concern all objects: an outage, or credentials that may not read.
    let concerns_all = error.kind().is_transient() || (refused && report.contents == 0);
    let ends = error.is_not_tried() || error.kind() == ErrorKind::Credentials;
    if ends || (concerns_all && *failures >= FAILURES_IN_A_ROW) {
        return Err(error);
    }
    report.add_failed(error);
    Ok(())
}

/// Sets the totals of the progress: objects and bytes to download.
pub(crate) fn plan_progress(session: &Session, findings: &Findings<'_>) -> Result<(), StorageError> {
    let (mut count, mut bytes): (u64, u64) = (0, 0);
    for row in findings.cache.rows() {
        let Some((_, published)) = findings.trusted_record(row?) else { continue };
        count += 1;
        bytes += published.stat.size;
    }
    session.trace.progress.planned(count, bytes, 0);
    Ok(())
}
