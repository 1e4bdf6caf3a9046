//! Handles a file that became a folder, or a folder that became a file. Stores that keep keys as files refuse `a/b`
//! while `a` exists, and `a` while `a/b` exists. For those keys the old objects are deleted before the upload.

use std::collections::BTreeSet;

use crate::error::{ErrorKind, StorageError};
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::outcome::Obstructed;
use crate::rescan::report::RescanReport;
use crate::state::records::PendingKind;
use crate::state::rows::Row;

impl Dispatcher<'_> {
    /// Returns the error of a refused upload. If an object that is to be deleted may be the reason, returns `None`, and
    /// the upload waits for [`clear_obstacles`](Self::clear_obstacles).
    pub(crate) fn unless_obstructed(&mut self, key: &str, error: StorageError) -> Option<StorageError> {
        let refused =
            matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Server | ErrorKind::Unsupported);
        // `only` is set for the second try after the deletes: no obstacle is left then.
        if !refused || self.only.is_some() {
            return Some(error);
        }
        let obstacles = match self.find_obstacles(key) {
            Ok(obstacles) => obstacles,
            Err(failure) => {
                self.fail(failure);
                Vec::new()
            }
        };
        if obstacles.is_empty() {
            return Some(error);
        }
        self.tally.obstructed.push(Obstructed { key: key.to_owned(), refusal: error, obstacles });
        None
    }

    /// Returns the keys above and below this one that are to be deleted.
    fn find_obstacles(&self, key: &str) -> Result<Vec<String>, StorageError> {
        let mut found = Vec::new();
        for (at, _) in key.match_indices('/') {
            let pending = self.cache.pending_record(&key[..at])?;
            if pending.is_some_and(|pending| pending.kind == PendingKind::Removed) {
                found.push(key[..at].to_owned());
            }
        }
        // The keys below it follow `key/` in key order.
        let below = format!("{key}/");
        for row in self.cache.pending_rows_after(&below) {
            let Row { key, pending: Some(pending), .. } = row? else { continue };
            if !key.starts_with(&below) {
                break;
            }
            if pending.kind == PendingKind::Removed {
                found.push(key);
            }
        }
        Ok(found)
    }

    /// Returns true if uploads wait for deletes.
    pub(crate) fn has_obstacles(&self) -> bool {
        !self.tally.obstructed.is_empty()
    }

    /// Deletes the objects that are in the way and tries the refused uploads again. If deletes are not allowed
    /// (`may_delete`), the refusals become failures.
    pub(crate) fn clear_obstacles(&mut self, may_delete: bool, report: &mut RescanReport) {
        let obstructed = std::mem::take(&mut self.tally.obstructed);
        if !may_delete {
            for Obstructed { refusal, .. } in obstructed {
                self.tally.failed_uploads += 1;
                self.apply_failure(refusal, report);
            }
            return;
        }
        let obstacles = obstructed.iter().flat_map(|one| one.obstacles.iter().cloned());
        self.only = Some(obstacles.collect());
        self.delete(report);
        // The records of the deletes must be durable before the uploads that need them.
        if let Err(error) = self.recorder.sync() {
            self.fail(error);
        }
        self.only = Some(obstructed.into_iter().map(|one| one.key).collect::<BTreeSet<_>>());
        self.upload(PendingKind::Added, report);
        self.upload(PendingKind::Modified, report);
        self.only = None;
    }
}
