//! The claim that a run holds: each step replaces the head that the run stored last.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::Condition;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::bucket_state::access::{ReadHead, SeenHead, StateAccess, StoredHead};
use crate::rescan::bucket_state::collect;
use crate::rescan::bucket_state::push::{Push, Pusher};
use crate::rescan::bucket_state::segment_objects::{new_name, place_bytes, scratch_file, store_file};
use crate::rescan::bucket_state::write_guard::{UnansweredKeys, WriteGuard};
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::{Changes, of_segment};
use crate::state::remote::doubt::{Looked, Unanswered};
use crate::state::remote::head::{Head, Probe, Segment};
use crate::state::remote::name::{SegmentKind, StoreTime, Token};
use crate::state::remote::segment::{KeyIntent, Planned, Row as SegmentRow, Writer};
use crate::state::remote::transitions::{self, Ending, Refused, Update};
use crate::state::rows::Row;
use crate::state::store::Write;

/// The longest intent that is made in memory, in bytes.
const IN_MEMORY: u64 = 1024 * 1024;

/// The claim of a run. The thread of the run and the one that renews the claim share it.
pub(crate) struct HeldClaim {
    pub(crate) access: StateAccess,
    pub(crate) cache: CacheManager,
    pub(crate) guard: Arc<WriteGuard>,
    pub(crate) token: Token,
    pub(crate) lease: Duration,
    /// The store keeps conditions.
    pub(crate) conditional: bool,
    /// The bucket lacks more of what is published than what changed since the claim.
    pub(crate) is_whole_due: bool,
    held: Mutex<SeenHead>,
}

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    Done,
    /// Another run had taken over.
    Superseded,
}

/// What a run says of itself as it gives its claim back.
pub(crate) struct LastWords {
    pub(crate) complete: bool,
    pub(crate) looked: Vec<Looked>,
    pub(crate) probe: Option<Probe>,
}

impl HeldClaim {
    #[allow(clippy::too_many_arguments, reason = "each is a part of the claim")]
    pub(crate) fn new(
        access: StateAccess,
        cache: &CacheManager,
        guard: &Arc<WriteGuard>,
        token: Token,
        lease: Duration,
        conditional: bool,
        is_whole_due: bool,
        held: SeenHead,
    ) -> Self {
        let (cache, guard, held) = (cache.clone(), guard.clone(), Mutex::new(held));
        Self { access, cache, guard, token, lease, conditional, is_whole_due, held }
    }

    /// The head that this run stored last.
    pub(crate) fn head(&self) -> Head {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).head.clone()
    }

    /// Renews the claim, and publishes what was acknowledged so far.
    pub(crate) fn checkpoint(&self) -> Result<(), StorageError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let pusher = Pusher { access: &self.access, cache: &self.cache, head: &held.head };
        let base = held.head.claim.as_ref().map_or(0, |claim| claim.base);
        let base = usize::try_from(base).unwrap_or(usize::MAX);
        let push = if self.is_whole_due { Push::nothing() } else { pusher.delta(base)? };
        let update = Update { change: push.change, ..Update::default() };
        let next = transitions::checkpoint(&held.head, self.token, update);
        self.store(&self.access, &mut held, next, push.changes).map(drop)
    }

    /// Names the keys that the run is about to write or delete. Before that nothing may be sent.
    pub(crate) fn add_intent(
        &self,
        scratch: &Path,
        is_large: &dyn Fn(u64) -> bool,
    ) -> Result<Released, StorageError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = held.head.epoch;
        let intent = planned_keys(&self.access, &self.cache, scratch, Some(&held.head), epoch, is_large)?;
        let next = transitions::add_intent(&held.head, self.token, intent);
        self.store(&self.access, &mut held, next, Changes::new())
    }

    /// Gives the claim back, with the last rows.
    pub(crate) fn release(&self, words: LastWords, limit: Duration) -> Result<Released, StorageError> {
        let access = self.access.for_the_end(limit);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if self.guard.is_superseded() {
            return Ok(Released::Superseded);
        }
        let pusher = Pusher { access: &access, cache: &self.cache, head: &held.head };
        let Push { change, changes, is_snapshot } = pusher.last(self.is_whole_due)?;
        let collected = collect::collect(&access, &held.head, is_snapshot);
        let LastWords { complete, looked, probe } = words;
        let update = Update { change, looked, collected, probe };
        let unanswered = self.unanswered(&access, &held.head)?;
        let ending = Ending { update, complete, unanswered };
        let next = transitions::release(&held.head, self.token, ending);
        let released = self.store(&access, &mut held, next, changes)?;
        if released == Released::Done {
            self.guard.released();
            if is_snapshot {
                self.cache.record_all_pushed()?;
            }
        }
        Ok(released)
    }

    /// Returns true if the head that is there now still has our claim.
    pub(crate) fn is_still_ours(&self) -> Result<bool, StorageError> {
        let ours = match self.access.read_head(None, true)? {
            ReadHead::Found(read) => read.head.claim.is_some_and(|claim| claim.token == self.token),
            ReadHead::NotModified | ReadHead::Missing | ReadHead::Damaged { .. } => false,
        };
        if !ours {
            self.guard.superseded();
        }
        Ok(ours)
    }

    /// Returns when the head was stored that the run stored last.
    pub(crate) fn store_time(&self) -> Result<Option<StoreTime>, StorageError> {
        Ok(self.access.head_modified()?.map(|modified| StoreTime::new(modified.at)))
    }

    /// Stores the next head. An error leaves the claim as it was, as far as this run knows.
    fn store(
        &self,
        access: &StateAccess,
        held: &mut SeenHead,
        next: Result<Head, Refused>,
        pushed: Changes,
    ) -> Result<Released, StorageError> {
        let next = next.map_err(of_refusal)?;
        let condition = self.condition(held);
        let start = self.guard.clocks();
        match access.store_head(&next, Some(held), &condition, self.token)? {
            StoredHead::Stored(seen) => {
                self.guard.renewed(self.lease, start);
                let copy = self.cache.copy_of(&seen.copy())?;
                *held = *seen;
                let marks = pushed.into_iter().map(|(key, number)| Write::Pushed(key, number));
                self.cache.apply(&marks.chain([copy]).collect::<Vec<_>>())?;
                Ok(Released::Done)
            }
            StoredHead::Superseded => {
                self.guard.superseded();
                Ok(Released::Superseded)
            }
        }
    }

    fn condition(&self, held: &SeenHead) -> Condition {
        if self.conditional { Condition::Matches(held.etag.clone()) } else { Condition::None }
    }

    /// Returns the keys whose writes may still take effect.
    fn unanswered(&self, access: &StateAccess, head: &Head) -> Result<Unanswered, StorageError> {
        // What is still marked as attempted got no answer either, whatever became of it.
        for row in self.cache.pending_rows() {
            let Row { key, pending: Some(pending), .. } = row? else { continue };
            if pending.attempted {
                self.guard.note_unanswered(&[&key]);
            }
        }
        let keys = match self.guard.unanswered() {
            UnansweredKeys::None => return Ok(Unanswered::Nothing),
            UnansweredKeys::TooMany => return Ok(Unanswered::Intents),
            UnansweredKeys::Some(keys) => keys,
        };
        let mut writer = Writer::intent(Vec::new());
        for key in keys {
            let content = KeyIntent { planned: Planned::Put, before: None };
            writer.write(&SegmentRow { key: RemoteKey::new(key)?, content }).map_err(of_segment)?;
        }
        let (bytes, written) = writer.finish().map_err(of_segment)?;
        let name = new_name(SegmentKind::Intent, head.epoch);
        place_bytes(access, Some(head), name, bytes, &written).map(Unanswered::Keys)
    }
}

/// Writes the keys that are pending as an intent of this epoch.
pub(crate) fn planned_keys(
    access: &StateAccess,
    cache: &CacheManager,
    scratch: &Path,
    head: Option<&Head>,
    epoch: u64,
    is_large: &dyn Fn(u64) -> bool,
) -> Result<Segment, StorageError> {
    let name = new_name(SegmentKind::Intent, epoch);
    // About 100 bytes a key before compression.
    if cache.pending_count()? * 100 <= IN_MEMORY {
        let (bytes, written) = cache.write_intent(Vec::new(), is_large)?;
        return place_bytes(access, head, name, bytes, &written);
    }
    let file = scratch_file(scratch)?;
    let (file, written) = cache.write_intent(file, is_large)?;
    store_file(access, name, &file, &written)
}

/// Returns the error for a step that the head does not allow.
pub(crate) fn of_refusal(refused: Refused) -> StorageError {
    let kind = match &refused {
        Refused::Superseded => ErrorKind::Superseded,
        Refused::Invalid(_) | Refused::Exhausted(_) => ErrorKind::StateDamaged,
        _ => ErrorKind::Other,
    };
    StorageError::new(kind, Operation::State, refused.to_string()).with_source(refused)
}
