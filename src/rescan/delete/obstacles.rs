//! A file that became a folder, or a folder that became a file. Some stores keep folders as files and refuse
//! `a/b` while `a` is there, and `a` while `a/b` is. Then what is to be deleted goes first, alone.

use std::collections::BTreeSet;

use crate::error::{ErrorKind, StorageError};
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::outcome::Obstructed;
use crate::rescan::report::RescanReport;
use crate::state::records::PendingKind;
use crate::state::rows::Row;

impl Dispatcher<'_> {
    /// The error, unless what is to be deleted may be its reason: then it waits.
    pub(crate) fn unless_obstructed(&mut self, key: &str, error: StorageError) -> Option<StorageError> {
        let refused =
            matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Server | ErrorKind::Unsupported);
        // What is tried again after the deletes has no obstacle any more.
        if !refused || self.only.is_some() {
            return Some(error);
        }
        let obstacles = match self.obstacles_of(key) {
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

    fn obstacles_of(&self, key: &str) -> Result<Vec<String>, StorageError> {
        let mut found = Vec::new();
        for (at, _) in key.match_indices('/') {
            let pending = self.cache.pending_record(&key[..at])?;
            if pending.is_some_and(|pending| pending.kind == PendingKind::Removed) {
                found.push(key[..at].to_owned());
            }
        }
        let below = format!("{key}/");
        for row in self.cache.pending_rows_behind(&below) {
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

    pub(crate) fn has_obstacles(&self) -> bool {
        !self.tally.obstructed.is_empty()
    }

    /// Deletes what is in the way, if `may_delete`, and uploads what was refused for it once more. Otherwise the
    /// refusals stand.
    pub(crate) fn clear_obstacles(&mut self, may_delete: bool, report: &mut RescanReport) {
        let obstructed = std::mem::take(&mut self.tally.obstructed);
        if !may_delete {
            for Obstructed { refusal, .. } in obstructed {
                self.tally.failed_uploads += 1;
                self.judge(refusal, report);
            }
            return;
        }
        let obstacles = obstructed.iter().flat_map(|one| one.obstacles.iter().cloned());
        self.only = Some(obstacles.collect());
        self.delete(report);
        if let Err(error) = self.recorder.sync() {
            self.fail(error);
        }
        self.only = Some(obstructed.into_iter().map(|one| one.key).collect::<BTreeSet<_>>());
        self.upload(PendingKind::Added, report);
        self.upload(PendingKind::Modified, report);
        self.only = None;
    }
}
