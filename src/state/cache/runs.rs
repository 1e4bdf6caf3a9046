//! The beginning and the end of runs. The tokens of those whose uploads may not all be recorded are kept: an object that
//! carries one of them was stored by that run.

use serde::{Deserialize, Serialize};

use crate::error::StorageError;
use crate::state::cache::CacheManager;
use crate::state::records::decode;
use crate::state::store::Write;

const META_RUNS: &str = "runs";
/// Set if the last rescan left the store as the tree was.
const META_SYNCED: &str = "synced";

/// Runs that are remembered. What an older interrupted run stored without a record is no longer recognized.
const MAX_RUNS: usize = 1000;

/// A run that sent something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The token that its objects carry.
    pub(crate) token: String,
    /// The root that it published, as an index into the cache's roots.
    pub(crate) root: u32,
    /// The device of that root.
    pub(crate) root_device: u64,
}

impl CacheManager {
    /// Returns true if the last rescan left the store as the tree was.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`](crate::ErrorKind::Cache) if the file cannot be read.
    pub fn is_synced(&self) -> Result<bool, StorageError> {
        // The flag may be older than the last pending record.
        Ok(self.ended_synced()? && self.pending_count()? == 0)
    }

    /// Returns true if the last run that sent anything was complete.
    pub(crate) fn ended_synced(&self) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_SYNCED)?.as_deref() == Some(&[1]))
    }

    pub(crate) fn sync_flag(synced: bool) -> Write {
        Write::Meta(META_SYNCED, vec![u8::from(synced)])
    }

    /// Records how a run ended: whether the store is as the tree was, and whether the run was complete. Commits only
    /// what differs from the last run, so an unchanged tree costs no disk sync.
    pub(crate) fn record_end(&self, synced: bool, complete: bool) -> Result<(), StorageError> {
        let (value, mut writes) = (vec![u8::from(synced)], Vec::new());
        if self.0.store.meta(META_SYNCED)?.as_ref() != Some(&value) {
            writes.push(Self::sync_flag(synced));
        }
        if complete && self.0.store.is_completion_due()? {
            writes.push(Write::Complete);
        }
        self.apply(&writes)
    }

    /// Records durably that a run is about to send requests. Until it is complete, the store is not as the tree was. The
    /// runs before it are forgotten if the last one was complete.
    pub(crate) fn record_run(&self, run: RunRecord) -> Result<(), StorageError> {
        let mut runs = if self.ended_synced()? { Vec::new() } else { self.runs()? };
        // A second pass of the same run has the same token.
        if runs.contains(&run) {
            return Ok(());
        }
        runs.push(run);
        runs.drain(..runs.len().saturating_sub(MAX_RUNS));
        self.apply(&[self.meta_write(META_RUNS, &runs)?, Self::sync_flag(false)])
    }

    /// Returns the runs whose uploads may not all be recorded.
    pub(crate) fn runs(&self) -> Result<Vec<RunRecord>, StorageError> {
        let Some(stored) = self.0.store.meta(META_RUNS)? else { return Ok(Vec::new()) };
        decode(META_RUNS, &stored).ok_or_else(|| self.0.store.damaged(META_RUNS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an interrupted run stored is recognized until a run has recorded everything.
    #[test]
    fn runs_are_remembered_until_one_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheManager::open(folder.path().join("cache")).unwrap();
        let run = |token: &str| RunRecord { token: token.to_owned(), root: 1, root_device: 7 };
        let tokens = || cache.runs().unwrap().into_iter().map(|run| run.token).collect::<Vec<_>>();
        assert_eq!(tokens(), [""; 0]);
        for token in ["a", "b", "b"] {
            cache.record_run(run(token)).unwrap();
        }
        assert_eq!(tokens(), ["a", "b"]);
        cache.record_end(true, true).unwrap();
        cache.record_run(run("c")).unwrap();
        assert_eq!(tokens(), ["c"]);
        cache.record_end(false, false).unwrap();
        for number in 0..MAX_RUNS {
            cache.record_run(run(&number.to_string())).unwrap();
        }
        assert_eq!((tokens().len(), tokens()[0].as_str()), (MAX_RUNS, "0"));
    }
}
