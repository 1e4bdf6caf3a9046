//! Verification of contents: every published object is read and hashed, by all workers.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::context::panicked;
use crate::rescan::report::VerifyReport;
use crate::rescan::session::Session;
use crate::rescan::verify::{Findings, lost};
use crate::state::records::Published;
use crate::state::rows::Rows;

/// Objects in a row that could not be read for reasons that hold for all, after which the others are not asked for.
const FAILURES_IN_A_ROW: u32 = 3;
/// How long the reader of results waits at a time.
const PATIENCE: Duration = Duration::from_secs(1);

/// An object that was read.
struct Compared {
    key: RemoteKey,
    published: Published,
    /// Whether its content is what was acknowledged.
    same: Result<bool, StorageError>,
}

/// Reads every published object whose record is believed and compares its digest. What is not what was
/// acknowledged counts as not published from then on.
pub(crate) fn compare(
    engine: &Engine,
    session: &Arc<Session>,
    findings: &mut Findings<'_>,
    report: &mut VerifyReport,
) -> Result<(), StorageError> {
    let results = BatchQueue::new();
    let (mut rows, mut under_way, mut failures) = (findings.cache.rows(), 0, 0);
    let mut stopped = Ok(());
    loop {
        while stopped.is_ok() && under_way < 2 * engine.workers() {
            match next(session, findings, &mut rows) {
                Ok(None) => break,
                Ok(Some(object)) => start(engine, session, object, &results),
                Err(error) => {
                    stopped = Err(error);
                    break;
                }
            }
            under_way += 1;
        }
        if under_way == 0 {
            return stopped;
        }
        for compared in results.take(1, PATIENCE) {
            under_way -= 1;
            let judged = judge(session, findings, compared, &mut failures, report);
            stopped = stopped.and(judged);
        }
    }
}

fn next(
    session: &Session,
    findings: &Findings<'_>,
    rows: &mut Rows<'_>,
) -> Result<Option<(RemoteKey, Published)>, StorageError> {
    session.exchange().check(Operation::Download)?;
    for row in rows {
        if let Some((key, published)) = findings.believed(row?) {
            return Ok(Some((RemoteKey::new(key)?, published)));
        }
    }
    Ok(None)
}

fn start(
    engine: &Engine,
    session: &Arc<Session>,
    (key, published): (RemoteKey, Published),
    results: &BatchQueue<Compared>,
) {
    let session = session.clone();
    results.submit(engine, move || {
        let read = std::panic::AssertUnwindSafe(|| is_same(&session, &key, &published));
        let same = std::panic::catch_unwind(read)
            .unwrap_or_else(|panic| Err(panicked(Operation::Download, &*panic)))
            .map_err(|error| error.with_key(key.as_str()));
        Compared { key, published, same }
    });
}

fn is_same(session: &Session, key: &RemoteKey, published: &Published) -> Result<bool, StorageError> {
    let Some(transfers) = session.backend.transfers() else {
        return Err(StorageError::new(ErrorKind::Unsupported, Operation::Download, "it cannot be read"));
    };
    let (size, part_size) = (published.stat.size, published.digest.part_size());
    let digest = transfers.content(&session.exchange(), key, size, part_size)?;
    Ok(digest == Some(published.digest))
}

/// What an object's content means. An error ends the comparison.
fn judge(
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
            report.matching = report.matching.saturating_sub(1);
            report.add_different(key.clone());
            let pending = findings.cache.pending_record(&key)?;
            return findings.record(&[lost(key, &published, pending)]);
        }
        Err(error) => error,
    };
    if error.kind() == ErrorKind::NotFound {
        report.matching = report.matching.saturating_sub(1);
        report.add_missing(key.clone());
        let pending = findings.cache.pending_record(&key)?;
        return findings.record(&[lost(key, &published, pending)]);
    }
    *failures += 1;
    let refused = error.kind() == ErrorKind::AccessDenied || error.kind().is_fatal_at_first();
    let alike = error.kind().is_transient() || (refused && report.contents == 0);
    let ends = error.is_not_tried() || error.kind() == ErrorKind::Credentials;
    if ends || (alike && *failures >= FAILURES_IN_A_ROW) {
        return Err(error);
    }
    report.add_failed(error);
    Ok(())
}

/// What reading all of them will take: objects and bytes.
pub(crate) fn announce(session: &Session, findings: &Findings<'_>) -> Result<(), StorageError> {
    let (mut count, mut bytes): (u64, u64) = (0, 0);
    for row in findings.cache.rows() {
        let Some((_, published)) = findings.believed(row?) else { continue };
        count += 1;
        bytes += published.stat.size;
    }
    session.trace.progress.planned(count, bytes, 0);
    Ok(())
}
