//! The claim that a run holds: each step replaces the head that the run stored last.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::Condition;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::bucket_state::access::{ReadHead, SeenHead, StateAccess, StoredHead};
use crate::rescan::bucket_state::collect;
use crate::rescan::bucket_state::push::{Push, Pusher};
use crate::rescan::bucket_state::segment_objects::{new_name, place_bytes, scratch_file, store_file};
use crate::rescan::bucket_state::write_guard::{UnansweredKeys, WriteGuard};
use crate::rescan::multipart::unfinished::all_recorded;
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::{Changes, of_segment};
use crate::state::remote::doubt::{Looked, Unanswered};
use crate::state::remote::head::{Head, Probe, Segment};
use crate::state::remote::lease::Clocks;
use crate::state::remote::name::{SegmentKind, SegmentName, StoreTime, Token};
use crate::state::remote::segment::{KeyIntent, Planned, Row as SegmentRow, Writer};
use crate::state::remote::segments::Change;
use crate::state::remote::transitions::{self, Ending, Refused, Update};
use crate::state::rows::Row;
use crate::state::store::Write;

/// The longest intent that is made in memory, in bytes.
const IN_MEMORY: u64 = 1024 * 1024;
/// The tries of a step whose head was made anew because an earlier one had landed unseen.
const TRIES: usize = 3;
/// The time that giving a claim back may take once its rows are in the bucket.
const LAST_STEP: Duration = Duration::from_secs(60);
/// The time for the rows of a run that was cancelled, and again for its last step: its caller waits.
const CANCELLED: Duration = Duration::from_secs(2);

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
    /// The tokens of the multipart uploads that earlier runs of this machine left open. Their own claims answer for them.
    pub(crate) opened_before: BTreeSet<String>,
    held: Mutex<Held>,
    /// Held while rows are gathered and put into the bucket: one push at a time.
    pushing: Mutex<()>,
    /// The run ends: only its last step pushes rows.
    ending: AtomicBool,
}

/// The head that this run stored last, as far as it knows.
struct Held {
    seen: SeenHead,
    /// The clocks at the first try of a head after it of which no answer came.
    unanswered_since: Option<Clocks>,
}

/// How a step ended.
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

/// The last rows of a run, ready to be referenced by its last head.
pub(crate) struct LastRows {
    /// `None`: they could not be put into the bucket.
    push: Option<Push>,
    collected: Vec<SegmentName>,
    cancelled: bool,
}

impl HeldClaim {
    pub(crate) fn new(
        access: StateAccess,
        cache: &CacheManager,
        guard: &Arc<WriteGuard>,
        token: Token,
        lease: Duration,
        seen: SeenHead,
    ) -> Self {
        Self {
            access,
            cache: cache.clone(),
            guard: guard.clone(),
            token,
            lease,
            conditional: true,
            is_whole_due: false,
            opened_before: BTreeSet::new(),
            held: Mutex::new(Held { seen, unanswered_since: None }),
            pushing: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// The head that this run stored last.
    pub(crate) fn head(&self) -> Head {
        lock(&self.held).seen.head.clone()
    }

    /// Renews the claim; then publishes what was acknowledged so far.
    pub(crate) fn checkpoint(&self) -> Result<(), StorageError> {
        // A request without an answer must leave time for another one.
        let renewal = self.access.limited((self.lease / 10).max(Duration::from_secs(5)));
        let renew = |head: &Head| transitions::checkpoint(head, self.token, Update::default());
        if self.step(&renewal, &renew, Changes::new())? == Released::Superseded || self.is_whole_due {
            return Ok(());
        }
        let _pushing = self.pushing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ending.load(Ordering::SeqCst) {
            return Ok(());
        }
        let head = self.head();
        let base = head.claim.as_ref().map_or(0, |claim| claim.base);
        let pusher = Pusher { access: &self.access, cache: &self.cache, head: &head };
        let Push { change, changes, .. } = pusher.delta(usize::try_from(base).unwrap_or(usize::MAX))?;
        if change == Change::None {
            return Ok(());
        }
        let publish = |head: &Head| {
            let update = Update { change: change.clone(), ..Update::default() };
            transitions::checkpoint(head, self.token, update)
        };
        self.step(&self.access, &publish, changes).map(drop)
    }

    /// Names the keys that the run is about to write or delete. Before that nothing may be sent.
    pub(crate) fn add_intent(
        &self,
        scratch: &Path,
        is_large: &dyn Fn(u64) -> bool,
    ) -> Result<Released, StorageError> {
        let head = self.head();
        let intent = planned_keys(&self.access, &self.cache, scratch, Some(&head), head.epoch, is_large)?;
        let add = |head: &Head| transitions::add_intent(head, self.token, intent.clone());
        self.step(&self.access, &add, Changes::new())
    }

    /// Puts the last rows into the bucket while the claim is still renewed, and deletes what no head needs any more.
    pub(crate) fn push_last_rows(&self, cancelled: bool) -> LastRows {
        self.ending.store(true, Ordering::SeqCst);
        let _pushing = self.pushing.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = LastRows { push: None, collected: Vec::new(), cancelled };
        if self.guard.is_superseded() {
            return nothing;
        }
        let access =
            if cancelled { self.access.for_the_end(CANCELLED) } else { self.access.without_deadline() };
        let head = self.head();
        let pusher = Pusher { access: &access, cache: &self.cache, head: &head };
        // All rows may take long: a run that was cancelled leaves them to the next one.
        let rows = match (cancelled, self.is_whole_due) {
            (false, whole) => pusher.last(whole).map(Some),
            (true, false) => pusher.delta(0).map(Some),
            (true, true) => Ok(None),
        };
        match rows {
            Ok(Some(push)) => {
                let collected =
                    if cancelled { Vec::new() } else { collect::collect(&access, &head, push.is_snapshot) };
                LastRows { push: Some(push), collected, cancelled }
            }
            Ok(None) => nothing,
            Err(error) => {
                let what = "the last rows could not be put into the bucket; the next run does it";
                access.trace.warn(what, &[("error", &error)]);
                nothing
            }
        }
    }

    /// Gives the claim back. Nothing renews it any more.
    pub(crate) fn release(&self, rows: LastRows, words: LastWords) -> Result<Released, StorageError> {
        if self.guard.is_superseded() {
            return Ok(Released::Superseded);
        }
        let access = self.access.for_the_end(if rows.cancelled { CANCELLED } else { LAST_STEP });
        let LastWords { complete, looked, probe } = words;
        let lacks_rows = rows.push.is_none();
        let push = rows.push.unwrap_or_else(Push::nothing);
        // What was stored, and is no row, is in doubt for everybody else.
        let unanswered =
            if lacks_rows { Unanswered::Intents } else { self.unanswered(&access, &self.head())? };
        let update = Update { change: push.change, looked, collected: rows.collected, probe };
        let ending = Ending { update, complete: complete && !lacks_rows, unanswered };
        let end = |head: &Head| transitions::release(head, self.token, ending.clone());
        let released = self.step(&access, &end, push.changes)?;
        if released == Released::Done {
            self.guard.released();
            if push.is_snapshot {
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

    /// Returns when the head was stored that is there now.
    pub(crate) fn store_time(&self) -> Result<Option<StoreTime>, StorageError> {
        Ok(self.access.head_modified()?.map(|modified| StoreTime::new(modified.at)))
    }

    /// Stores the next head, and records what it holds. After an error the claim is as it was, as far as this run knows.
    fn step(
        &self,
        access: &StateAccess,
        next: &dyn Fn(&Head) -> Result<Head, Refused>,
        pushed: Changes,
    ) -> Result<Released, StorageError> {
        let mut held = lock(&self.held);
        for _ in 0..TRIES {
            let step = next(&held.seen.head).map_err(of_refusal)?;
            let (condition, start) = (self.condition(&held.seen), self.guard.clocks());
            let stored = access.store_head(&step, Some(&held.seen), &condition, self.token);
            if stored.is_err() {
                held.unanswered_since.get_or_insert(start);
            }
            match stored? {
                StoredHead::Stored(seen) => {
                    self.guard.renewed(self.lease, start);
                    let copy = self.cache.copy_of(&seen.copy())?;
                    *held = Held { seen: *seen, unanswered_since: None };
                    let marks = pushed.into_iter().map(|(key, number)| Write::Pushed(key, number));
                    self.cache.apply(&marks.chain([copy]).collect::<Vec<_>>())?;
                    return Ok(Released::Done);
                }
                // Its rows count as not pushed: they are pushed again. Its lease began with its first try.
                StoredHead::Earlier(seen) => {
                    self.guard.renewed(self.lease, held.unanswered_since.unwrap_or(start));
                    *held = Held { seen: *seen, unanswered_since: None };
                }
                StoredHead::Superseded => {
                    self.guard.superseded();
                    return Ok(Released::Superseded);
                }
            }
        }
        let what = "the head changes although nobody else has claimed it";
        Err(StorageError::new(ErrorKind::Server, Operation::State, what))
    }

    fn condition(&self, held: &SeenHead) -> Condition {
        if self.conditional { Condition::Matches(held.etag.clone()) } else { Condition::None }
    }

    /// Returns the keys whose writes may still take effect, and those of multipart uploads that this run leaves open.
    fn unanswered(&self, access: &StateAccess, head: &Head) -> Result<Unanswered, StorageError> {
        // What is still marked as attempted got no answer either, whatever became of it.
        for row in self.cache.pending_rows() {
            let Row { key, pending: Some(pending), .. } = row? else { continue };
            if pending.attempted {
                self.guard.note_unanswered(&[&key]);
            }
        }
        let mut open = all_recorded(&self.cache)?;
        open.retain(|_, uploads| uploads.iter().any(|open| !self.opened_before.contains(&open.token)));
        let mut keys = match self.guard.unanswered() {
            UnansweredKeys::None if open.is_empty() => return Ok(Unanswered::Nothing),
            UnansweredKeys::TooMany => return Ok(Unanswered::Intents),
            UnansweredKeys::None => BTreeSet::new(),
            UnansweredKeys::Some(keys) => keys,
        };
        keys.extend(open.keys().cloned());
        let mut writer = Writer::intent(Vec::new());
        for key in keys {
            let planned = if open.contains_key(&key) { Planned::Multipart } else { Planned::Put };
            let content = KeyIntent { planned, before: None };
            writer.write(&SegmentRow { key: RemoteKey::new(key)?, content }).map_err(of_segment)?;
        }
        let (bytes, written) = writer.finish().map_err(of_segment)?;
        let name = new_name(SegmentKind::Intent, head.epoch);
        place_bytes(access, Some(head), name, bytes, &written).map(Unanswered::Keys)
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
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
