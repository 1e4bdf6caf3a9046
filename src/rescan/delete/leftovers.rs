//! Settles what interrupted runs may have stored without a record, and whose files are gone by now (I4).
//!
//! Each such key is asked for by a HEAD. An object with the proof of origin of one of those runs, for this key and with
//! its size, is recorded as published: the next plan deletes it under the same rules as any other. Anything else is left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::StoredObject;
use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::context::{Context, panicked};
use crate::state::cache::CacheManager;
use crate::state::cache::runs::RunRecord;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::{Row, Rows};
use crate::state::store::Write;
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// After so many failures in a row nothing more is asked.
const FAILURES_IN_A_ROW: u32 = 3;

/// A key, its pending record, and what a HEAD tells of it.
type Answer = (String, Pending, Result<Option<StoredObject>, StorageError>);

/// What became of the leftovers.
#[derive(Default)]
pub(crate) struct Settled {
    /// The records have changed: the plan has to be made again.
    pub(crate) changed: bool,
    /// Keys that hold objects of somebody else.
    pub(crate) not_ours: Vec<String>,
}

/// Sends a HEAD for each unsettled key, as many at a time as there are workers. A key whose HEAD fails stays as it is.
pub(crate) fn settle(
    engine: &Engine,
    context: &Arc<Context>,
    cache: &CacheManager,
) -> Result<Settled, StorageError> {
    let (runs, mut rows) = (cache.runs()?, cache.pending_rows());
    let (results, mut in_flight, mut settled) = (BatchQueue::new(), 0, Settled::default());
    let (mut next, mut failures) = (next_leftover(cache, &mut rows), 0);
    loop {
        while in_flight < engine.workers()
            && let Ok(Some((key, pending))) = next
        {
            let context = context.clone();
            results.submit(engine, move || ask_store(&context, key, pending));
            in_flight += 1;
            next = next_leftover(cache, &mut rows);
        }
        if in_flight == 0 {
            next?;
            return settled.leave_others(cache);
        }
        let mut writes = Vec::new();
        for (key, pending, found) in results.take(1, Duration::MAX) {
            in_flight -= 1;
            let error = match found {
                Ok(found) => {
                    failures = 0;
                    writes.extend(settled.writes_for(key, &pending, found, &runs));
                    continue;
                }
                Err(error) => error,
            };
            // A key that always fails, or that may not be read, holds up nothing else.
            failures += 1;
            if error.is_not_tried() || (failures >= FAILURES_IN_A_ROW && is_about_the_store(&error)) {
                next = Err(error);
            } else if failures >= FAILURES_IN_A_ROW {
                next = next.map(|_| None);
            }
        }
        settled.changed |= !writes.is_empty();
        cache.apply(&writes)?;
    }
}

/// Returns true if the store cannot be used, whatever the key. Some stores fail for single keys, too (500).
fn is_about_the_store(error: &StorageError) -> bool {
    error.kind().is_transient() && !matches!(error.kind(), ErrorKind::Server | ErrorKind::Protocol)
}

impl Settled {
    fn writes_for(
        &mut self,
        key: String,
        pending: &Pending,
        found: Option<StoredObject>,
        runs: &[RunRecord],
    ) -> Vec<Write> {
        let Some(object) = found else { return vec![Write::Settled(key)] };
        if let Some(published) = recognize(runs, pending, object) {
            return vec![Write::Published(key.clone(), published), Write::Recent(key)];
        }
        self.not_ours.push(key);
        Vec::new()
    }

    /// Records that nothing is left to do for the objects of others.
    fn leave_others(mut self, cache: &CacheManager) -> Result<Self, StorageError> {
        self.not_ours.sort_unstable();
        self.changed |= !self.not_ours.is_empty();
        cache.apply(&self.not_ours.iter().cloned().map(Write::Settled).collect::<Vec<_>>())?;
        Ok(self)
    }
}

/// Returns the next key that an upload without a response may have stored, and whose file is gone.
fn next_leftover(
    cache: &CacheManager,
    rows: &mut Rows<'_>,
) -> Result<Option<(String, Pending)>, StorageError> {
    for row in rows {
        let Row { key, pending: Some(pending), .. } = row? else { continue };
        // What is published is ours anyway.
        if pending.kind == PendingKind::Unsettled && cache.published_record(&key)?.is_none() {
            return Ok(Some((key, pending)));
        }
    }
    Ok(None)
}

/// Sends a HEAD. Never panics.
fn ask_store(context: &Context, key: String, pending: Pending) -> Answer {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let request_context = context.request_context();
        request_context.check(Operation::Head)?;
        let transfers = context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Unsupported, Operation::Head, "this backend has no HEAD")
        })?;
        transfers.head(&request_context, &RemoteKey::new(key.clone())?, false)
    }));
    let found = attempt.unwrap_or_else(|panic| Err(panicked(Operation::Head, &*panic)));
    (key, pending, found)
}

/// Returns the record of an object that one of these runs stored under this very key.
fn recognize(runs: &[RunRecord], pending: &Pending, object: StoredObject) -> Option<Published> {
    let proof = object.proof.filter(|_| object.is_as_stored)?;
    let run = runs.iter().find(|run| run.token == proof.run)?;
    Some(Published {
        stat: FileStat { size: object.size, ..pending.stat },
        not_racy: false,
        digest: proof.digest.unwrap_or(Digest::UNKNOWN),
        whole: None,
        etag: object.etag,
        root: run.root,
        with_root: pending.stat.device == run.root_device,
    })
}
