//! What a run without deletes leaves behind.

use crate::error::StorageError;
use crate::rescan::delete::guard::{self, Allowed, Counts};
use crate::rescan::plan::Planner;
use crate::state::cache::CacheManager;

impl Planner<'_> {
    /// A run without deletes over a tree that has shrunk proves nothing: what it leaves still counts as published.
    pub(super) fn judge_left(&mut self) -> Result<(), StorageError> {
        let config = self.input.config;
        if config.delete {
            return Ok(());
        }
        let gone = self.plan.left;
        let counts = Counts { gone, removed: gone, ..self.plan.counts() };
        let allowed = Allowed { max_delete: None, empty: config.allow_empty };
        self.plan.left_in_doubt = guard::too_many(counts, allowed).is_some();
        if self.input.dry_run || self.plan.left_in_doubt == self.left_in_doubt {
            return Ok(());
        }
        self.input.cache.apply(&[CacheManager::left_in_doubt(self.plan.left_in_doubt)])
    }
}
