//! The pending keys, marked as attempted before anything is sent or deleted.

use std::collections::VecDeque;

use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::state::cache::CacheManager;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::{Row, Rows};
use crate::state::store::Write;

/// Rows that are marked in one transaction: a commit costs two syncs of the disk, and what was marked when a
/// process is killed has to be settled, sent or not. One request of S3 deletes as many.
const MARKED_AT_ONCE: usize = 1000;

/// A pending key and what is known of it.
pub(crate) struct Wanted {
    pub(crate) key: RemoteKey,
    /// As it was before it was marked.
    pub(crate) pending: Pending,
    /// The cache says that it is attempted.
    pub(crate) marked: bool,
    /// What is published now, if that may be believed; of a file that was published before.
    pub(crate) published: Option<Published>,
}

impl Wanted {
    /// The pending record that the cache holds for it.
    pub(crate) fn recorded(&self) -> Pending {
        Pending { attempted: self.pending.attempted || self.marked, ..self.pending.clone() }
    }
}

/// The pending keys of one kind, in order.
pub(crate) struct Attempts<'a> {
    cache: &'a CacheManager,
    kind: PendingKind,
    /// Whether what is published may turn out to be what is on disk.
    believe: bool,
    rows: Rows<'a>,
    ready: VecDeque<Wanted>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(cache: &'a CacheManager, kind: PendingKind) -> Self {
        Self { cache, kind, believe: true, rows: cache.pending_rows(), ready: VecDeque::new() }
    }

    /// Believes nothing published, where that is wanted.
    pub(crate) fn forced(self, yes: bool) -> Self {
        Self { believe: !yes, ..self }
    }

    /// The next key that `admits` lets pass, which the cache says is attempted from now on, durably.
    pub(crate) fn next_marked(
        &mut self,
        mut admits: impl FnMut(&str, &Pending) -> Result<bool, StorageError>,
    ) -> Result<Option<Wanted>, StorageError> {
        if self.ready.is_empty() {
            let mut marks = Vec::new();
            while self.ready.len() < MARKED_AT_ONCE {
                let Some(mut wanted) = self.next_row(&mut admits)? else { break };
                wanted.marked = true;
                if !wanted.pending.attempted {
                    marks.push(Write::Pending(wanted.key.as_str().to_owned(), wanted.recorded()));
                }
                self.ready.push_back(wanted);
            }
            self.cache.apply(&marks)?;
        }
        Ok(self.ready.pop_front())
    }

    /// The next key that `admits` lets pass, as it is: nothing will be sent for it yet.
    pub(crate) fn next(
        &mut self,
        mut admits: impl FnMut(&str, &Pending) -> Result<bool, StorageError>,
    ) -> Result<Option<Wanted>, StorageError> {
        while let Some(wanted) = self.ready.pop_front() {
            if admits(wanted.key.as_str(), &wanted.pending)? {
                return Ok(Some(wanted));
            }
        }
        self.next_row(&mut admits)
    }

    fn next_row(
        &mut self,
        admits: &mut impl FnMut(&str, &Pending) -> Result<bool, StorageError>,
    ) -> Result<Option<Wanted>, StorageError> {
        for row in &mut self.rows {
            let Row { key, pending: Some(pending), .. } = row? else { continue };
            if pending.kind != self.kind || !admits(&key, &pending)? {
                continue;
            }
            let published = match self.kind {
                PendingKind::Modified | PendingKind::Headers if self.believe => {
                    self.cache.published_record(&key)?
                }
                _ => None,
            };
            return Ok(Some(Wanted { key: RemoteKey::new(key)?, pending, marked: false, published }));
        }
        Ok(None)
    }

    /// The writes that take back the marks of keys that were not handed out: nothing was sent for them.
    pub(crate) fn unmark(&mut self) -> Vec<Write> {
        let mut unsent = Vec::new();
        for wanted in &mut self.ready {
            if std::mem::take(&mut wanted.marked) && !wanted.pending.attempted {
                unsent.push(Write::Pending(wanted.key.as_str().to_owned(), wanted.pending.clone()));
            }
        }
        unsent
    }
}
