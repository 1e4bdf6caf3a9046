//! Settles what interrupted runs may have stored without a record, and whose files are gone by now (I4).
//!
//! Each such key is looked at by a HEAD. An object with the proof of origin of one of those runs is recorded as
//! published: the next plan deletes it under the same rules as any other. Anything else is left.

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

/// A key, its pending record, and what a HEAD tells of it.
type Looked = (String, Pending, Result<Option<StoredObject>, StorageError>);

/// What became of the leftovers.
#[derive(Default)]
pub(crate) struct Settled {
    /// The records have changed: the plan has to be made again.
    pub(crate) changed: bool,
    /// Keys that hold objects of somebody else.
    pub(crate) not_ours: Vec<String>,
}

/// Looks at the unsettled keys, as many at a time as there are workers.
pub(crate) fn settle(
    engine: &Engine,
    context: &Arc<Context>,
    cache: &CacheManager,
) -> Result<Settled, StorageError> {
    let (runs, mut rows) = (cache.runs()?, cache.pending_rows());
    let (results, mut in_flight, mut settled) = (BatchQueue::new(), 0, Settled::default());
    let mut next = next_leftover(cache, &mut rows);
    loop {
        while in_flight < engine.workers()
            && let Ok(Some((key, pending))) = next
        {
            let context = context.clone();
            results.submit(engine, move || look(&context, key, pending));
            in_flight += 1;
            next = next_leftover(cache, &mut rows);
        }
        if in_flight == 0 {
            settled.not_ours.sort_unstable();
            return next.map(|_| settled);
        }
        let mut writes = Vec::new();
        for (key, pending, found) in results.take(1, Duration::MAX) {
            in_flight -= 1;
            match found {
                Ok(found) => writes.extend(settled.writes_for(key, &pending, found, &runs)),
                // The run was stopped, or there is an outage: the key stays as it is.
                Err(error) if error.is_not_tried() || error.kind().is_transient() => next = Err(error),
                // The credentials may not look at it.
                Err(_) => {}
            }
        }
        settled.changed |= !writes.is_empty();
        cache.apply(&writes)?;
    }
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
        // Somebody else's: nothing is left to do for it.
        self.not_ours.push(key.clone());
        vec![Write::Settled(key)]
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
fn look(context: &Context, key: String, pending: Pending) -> Looked {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        let request_context = context.request_context();
        request_context.check(Operation::Head)?;
        let transfers = context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Unsupported, Operation::Head, "this backend cannot look at objects")
        })?;
        transfers.head(&request_context, &RemoteKey::new(key.clone())?)
    }));
    let found = attempt.unwrap_or_else(|panic| Err(panicked(Operation::Head, &*panic)));
    (key, pending, found)
}

/// Returns the record of an object that one of these runs stored.
fn recognize(runs: &[RunRecord], pending: &Pending, object: StoredObject) -> Option<Published> {
    let proof = object.proof?;
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
