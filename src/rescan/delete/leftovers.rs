//! Settles what interrupted runs may have stored without a record, and whose files are gone by now (I4).
//!
//! Each such key is asked for by a HEAD. An object with the proof of origin of one of those runs, for this key and with
//! its size, is recorded as published: the next plan deletes it under the same rules as any other. Anything else is left.

use std::sync::Arc;

use crate::backend::StoredObject;
use crate::engine::Engine;
use crate::error::StorageError;
use crate::rescan::context::Context;
use crate::rescan::dispatch::heads::{self, Answer};
use crate::state::cache::CacheManager;
use crate::state::cache::runs::RunRecord;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::{Row, Rows};
use crate::state::store::Write;
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// What became of the leftovers.
#[derive(Default)]
pub(crate) struct Settled {
    /// The records have changed: the plan has to be made again.
    pub(crate) changed: bool,
    /// Keys that hold objects of somebody else.
    pub(crate) not_ours: Vec<String>,
}

/// Sends a HEAD for each unsettled key. A key whose HEAD fails stays as it is.
pub(crate) fn settle(
    engine: &Engine,
    context: &Arc<Context>,
    cache: &CacheManager,
) -> Result<Settled, StorageError> {
    let (runs, mut rows, mut settled) = (cache.runs()?, cache.pending_rows(), Settled::default());
    let took = |answers: Vec<Answer<Pending>>| {
        let writes = |(key, pending, found)| settled.writes_for(key, &pending, found, &runs);
        let writes: Vec<_> = answers.into_iter().flat_map(writes).collect();
        settled.changed |= !writes.is_empty();
        cache.apply(&writes)
    };
    heads::ask(engine, context, || next_leftover(cache, &mut rows), took)?;
    settled.leave_others(cache)
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
        headers: None,
    })
}
