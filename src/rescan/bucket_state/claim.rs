//! The claim: who may publish, decided by conditional writes of the head.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Condition, SmallObject};
use crate::error::{Operation, StorageError};
use crate::rescan::bucket_state::access::{ReadHead, StoredHead, state_key};
use crate::rescan::bucket_state::held_claim::{HeldClaim, of_refusal, planned_keys};
use crate::rescan::bucket_state::pull::{Loss, Pulled, scratch_of};
use crate::rescan::bucket_state::renewal_thread::RenewalThread;
use crate::rescan::bucket_state::{StateRun, collect, looks};
use crate::rescan::multipart::unfinished::recorded_tokens;
use crate::rescan::report::{PublishedBy, StopReason};
use crate::state::cache::CacheManager;
use crate::state::remote::head::{Head, Segment};
use crate::state::remote::lease::{Judgement, judge};
use crate::state::remote::name::{StoreTime, Token};
use crate::state::remote::transitions::{self, ClaimRequest, Refused};

/// A run that waits for another one looks this often whether that one has ended.
const POLL: Duration = Duration::from_secs(5);

/// The result of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claiming {
    Held,
    /// The head has changed: pull, plan and claim again.
    Again,
    /// Nothing is sent.
    Refused(StopReason),
}

/// The end of a wait for another publisher.
enum Waited {
    /// The claim has ended, or is another one.
    Ended,
    /// It was not renewed meanwhile: it is to be judged again.
    Unchanged,
    TooLong,
    Stopped,
}

impl StateRun {
    /// Claims the state. With `is_large` the pending keys are named in the same step as the intent; otherwise
    /// [`HeldClaim::add_intent`] has to name them before anything is written.
    pub(crate) fn claim(&mut self, is_large: Option<&dyn Fn(u64) -> bool>) -> Result<Claiming, StorageError> {
        // A run claims once, and gives the claim back at its end.
        if self.claim.is_some() {
            return Ok(Claiming::Held);
        }
        self.find_loss()?;
        let (mut request, mut prepared) = (self.request(), false);
        loop {
            let seen = self.pulled.head.as_ref().map(|head| head.seen());
            match transitions::claim(seen, &request) {
                Ok(next) if prepared => return self.store_claim(&next),
                // Nothing is stored before it is clear that the head permits the claim.
                Ok(_) => {
                    self.probe_store()?;
                    if request.lost_at.is_some() {
                        request.lost_at = self.store_now()?.or(request.lost_at);
                    }
                    request.intent = is_large.map(|is_large| self.place_intent(is_large)).transpose()?;
                    prepared = true;
                }
                Err(Refused::Claimed { .. }) if request.judgement.is_none() => {
                    request.judgement = self.judge_claim()?;
                    if request.judgement.is_none() {
                        return Ok(Claiming::Again);
                    }
                }
                Err(Refused::Claimed { who, since, left, .. }) => {
                    self.report.claimed_by = Some(published_by(&who, since));
                    match self.wait_for(&who, left.unwrap_or_default())? {
                        Waited::Ended => return Ok(Claiming::Again),
                        Waited::Unchanged => request.judgement = None,
                        Waited::TooLong => return Ok(Claiming::Refused(StopReason::Claimed)),
                        Waited::Stopped => return Ok(Claiming::Refused(self.stop_reason())),
                    }
                }
                Err(Refused::OlderOrder { newest, .. }) => {
                    self.report.newer_order = Some(newest);
                    return Ok(Claiming::Refused(StopReason::Claimed));
                }
                Err(Refused::DoubtFull) if request.merged_doubt.is_none() => {
                    let (access, cache) = (&self.access, &self.cache);
                    let (merged, whole) = looks::merge_doubts(access, cache, self.head(), self.next_epoch())?;
                    request.merged_doubt = Some(merged);
                    if !whole {
                        request.lost_at = self.store_now()?.or(self.access.store_time());
                    }
                }
                Err(other) => return Err(of_refusal(other)),
            }
        }
    }

    /// Finds out for a dry run what the claim would meet, as far as the head tells: a loss, and a tree of a higher order,
    /// which is a reason to stop.
    pub(crate) fn preview(&mut self) -> Option<StopReason> {
        self.report.was_lost = self.pulled.loss.is_some();
        let newest = self.head().and_then(|head| head.order);
        let order = transitions::order_after(newest, self.settings.order_of_run());
        let Err(Refused::OlderOrder { newest, .. }) = order else { return None };
        self.report.newer_order = Some(newest);
        Some(StopReason::Claimed)
    }

    /// Stores a higher order where nothing is to be done.
    pub(crate) fn raise_order(&mut self) -> Result<Claiming, StorageError> {
        let Some(seen) = &self.pulled.head else { return Ok(Claiming::Held) };
        let next = match transitions::raise_order(seen.seen(), self.settings.order_of_run()) {
            Ok(None) => return Ok(Claiming::Held),
            Ok(Some(next)) => next,
            Err(Refused::OlderOrder { newest, .. }) => {
                self.report.newer_order = Some(newest);
                return Ok(Claiming::Refused(StopReason::Claimed));
            }
            // It is claimed as any other work then.
            Err(Refused::Claimed { .. }) => return Ok(Claiming::Again),
            Err(other) => return Err(of_refusal(other)),
        };
        self.probe_store()?;
        let condition = self.condition();
        match self.access.store_head(&next, self.pulled.head.as_deref(), &condition, self.token)? {
            StoredHead::Stored(seen) => {
                self.cache.apply(&[self.cache.copy_of(&seen.copy())?])?;
                self.pulled.head = Some(seen);
                Ok(Claiming::Held)
            }
            StoredHead::Earlier(_) | StoredHead::Superseded => Ok(Claiming::Again),
        }
    }

    fn request(&self) -> ClaimRequest {
        let now = self.access.store_time().unwrap_or(StoreTime::new(0));
        ClaimRequest {
            who: self.who(),
            token: self.token,
            since: now,
            lease: self.settings.lease.as_secs(),
            target: self.access.target.clone(),
            tree: self.access.tree.clone(),
            order: self.settings.order_of_run(),
            intent: None,
            judgement: None,
            known_epoch: self.pulled.known_epoch,
            known: self.pulled.known,
            lost_at: self.pulled.loss.is_some().then_some(now),
            merged_doubt: None,
        }
    }

    fn place_intent(&self, is_large: &dyn Fn(u64) -> bool) -> Result<Segment, StorageError> {
        let scratch = scratch_of(&self.cache);
        planned_keys(&self.access, &self.cache, &scratch, self.head(), self.next_epoch(), is_large)
    }

    fn next_epoch(&self) -> u64 {
        self.head().map_or(0, |head| head.epoch).max(self.pulled.known_epoch) + 1
    }

    /// The condition under which our first head replaces what is there.
    fn condition(&self) -> Condition {
        match (&self.pulled.head, &self.pulled.loss) {
            _ if !self.conditional => Condition::None,
            (Some(head), _) => Condition::Matches(head.etag.clone()),
            (None, Some(Loss::HeadDamaged { etag, .. })) => Condition::Matches(etag.clone()),
            (None, _) => Condition::Absent,
        }
    }

    fn store_claim(&mut self, next: &Head) -> Result<Claiming, StorageError> {
        let opened_before = recorded_tokens(&self.cache)?;
        let (start, condition) = (self.guard.clocks(), self.condition());
        let before = self.pulled.head.as_deref();
        let stored = self.access.store_head(next, before, &condition, self.token)?;
        let (StoredHead::Stored(seen) | StoredHead::Earlier(seen)) = stored else {
            return Ok(Claiming::Again);
        };
        self.guard.renewed(self.settings.lease, start);
        let copy = seen.copy();
        let (access, lease) = (self.access.clone(), self.settings.lease);
        let mut claim = HeldClaim::new(access, &self.cache, &self.guard, self.token, lease, *seen);
        let lost = self.pulled.loss.is_some();
        let has_rows = next.snapshot.is_some() || !next.deltas.is_empty();
        let published = self.cache.published_count();
        claim.is_whole_due = lost || (!has_rows && *published.as_ref().unwrap_or(&1) > 0);
        claim.conditional = self.conditional;
        claim.opened_before = opened_before;
        let claim = Arc::new(claim);
        // From here on it is given back, whatever fails.
        self.claim = Some(claim.clone());
        self.report.claimed_by = None;
        published?;
        let mut writes = vec![self.cache.copy_of(&copy)?];
        // What the objects hold is found out again.
        writes.extend(lost.then(CacheManager::no_survey));
        self.cache.apply(&writes)?;
        self.renewal = Some(RenewalThread::start(&claim)?);
        if lost && !self.settings.single_writer {
            return Ok(self.wait_for_lost_runs());
        }
        Ok(Claiming::Held)
    }

    /// Where a head was lost, a run that nobody knows may be writing: it ends within a lease.
    fn wait_for_lost_runs(&mut self) -> Claiming {
        let Some(claim) = &self.claim else { return Claiming::Held };
        let lease = self.settings.lease;
        let what = "nothing is sent for one lease: without a record another run may be publishing unseen";
        self.access.trace.warn(what, &[("lease", &format!("{lease:?}")), ("state", &self.access.place())]);
        let end = self.access.clock.now() + lease;
        while self.access.clock.now() < end {
            if self.access.context().check(Operation::State).is_err() {
                return Claiming::Refused(self.stop_reason());
            }
            let left = end.saturating_sub(self.access.clock.now());
            self.access.clock.wait((lease / 20).min(left), &self.access.cancel);
            if self.guard.must_renew()
                && let Err(error) = claim.checkpoint()
            {
                // The next look tries it again, and a lease that ends lets nothing be sent.
                self.access.trace.warn("the claim could not be renewed", &[("error", &error)]);
            }
        }
        if self.guard.is_superseded() {
            return Claiming::Refused(StopReason::Superseded);
        }
        Claiming::Held
    }

    /// Judges the claim that is there by the store's clock. `None`: the head has changed meanwhile.
    fn judge_claim(&self) -> Result<Option<Judgement>, StorageError> {
        let Some(seen) = &self.pulled.head else { return Ok(None) };
        let Some(claim) = &seen.head.claim else { return Ok(None) };
        let (now, head) = (self.store_now()?, self.access.head_modified()?);
        let (Some(now), Some(head)) = (now, head) else { return Ok(None) };
        if head.etag != seen.etag {
            return Ok(None);
        }
        if self.settings.take_over {
            return Ok(Some(Judgement::Forced(now)));
        }
        Ok(Some(judge(claim.lease(), StoreTime::new(head.at), now)))
    }

    /// Returns the time of the store's own clock: that of an object which is stored now. `Date` may be a proxy's.
    fn store_now(&self) -> Result<Option<StoreTime>, StorageError> {
        let (access, token) = (&self.access, Token::new(fastrand::u128(..).to_be_bytes()));
        let (objects, key) = (access.objects()?, state_key(&format!("now-{token}"))?);
        let condition = &Condition::None;
        let object = SmallObject { key: &key, bytes: b"", content_type: "text/plain", condition };
        objects.put_small(&access.context(), &object)?;
        let now = objects.modified_of(&access.context(), &key);
        if let Err(error) = objects.delete_small(&access.context(), &key) {
            access
                .trace
                .warn("an object of the state cannot be deleted", &[("key", &key), ("error", &error)]);
        }
        Ok(now?.map(|now| StoreTime::new(now.at)))
    }

    /// Waits until the claim ends, or may be dead.
    fn wait_for(&mut self, who: &str, left: Duration) -> Result<Waited, StorageError> {
        let clock = self.access.clock.clone();
        let Some(seen) = &self.pulled.head else { return Ok(Waited::Ended) };
        let (mut etag, token) = (seen.etag.clone(), seen.head.claim.as_ref().map(|claim| claim.token));
        let mut until = clock.now() + left + Duration::from_secs(1);
        if self.waited < self.settings.wait {
            self.access.trace.warn("waiting for another publisher", &[("publisher", &who)]);
        }
        loop {
            let budget = self.settings.wait.saturating_sub(self.waited);
            if budget.is_zero() {
                return Ok(Waited::TooLong);
            }
            let left = until.saturating_sub(clock.now());
            if left.is_zero() {
                // What it pushed meanwhile is pulled before it is taken over.
                return Ok(if etag == seen_etag(&self.pulled) { Waited::Unchanged } else { Waited::Ended });
            }
            let nap = POLL.min(left).min(budget);
            self.waited += nap;
            let nap = self.access.context().within_deadline(nap);
            if !clock.wait(nap, &self.access.cancel) || self.access.context().check(Operation::State).is_err()
            {
                return Ok(Waited::Stopped);
            }
            match self.access.read_head(Some(&etag), true)? {
                ReadHead::NotModified => {}
                // It was renewed.
                ReadHead::Found(read) if read.head.claim.as_ref().map(|claim| claim.token) == token => {
                    etag = read.etag;
                    let limit = read.head.claim.map_or(Duration::ZERO, |claim| claim.limit());
                    until = clock.now() + limit + Duration::from_secs(1);
                }
                _ => return Ok(Waited::Ended),
            }
        }
    }

    fn stop_reason(&self) -> StopReason {
        if self.access.cancel.is_cancelled() { StopReason::Cancelled } else { StopReason::Deadline }
    }

    /// Finds out whether a head that nobody here has ever seen was lost: there are objects, or segments.
    fn find_loss(&mut self) -> Result<(), StorageError> {
        // Another place may be the right one.
        if self.access.is_elsewhere {
            self.access.mark_objects(&*self.objects)?;
        }
        if self.pulled.head.is_some() && self.pulled.loss.is_none() {
            return Ok(());
        }
        if self.pulled.loss != Some(Loss::SegmentLost) {
            let names = collect::listed(&self.access)?;
            let newest = names.iter().map(|name| name.epoch).max().unwrap_or(0);
            self.pulled.known_epoch = self.pulled.known_epoch.max(newest);
        }
        if self.pulled.loss.is_none() && !self.settings.single_writer && self.holds_objects()? {
            self.pulled.loss = Some(Loss::NoRecord);
        }
        if let Some(loss) = &self.pulled.loss {
            self.report.was_lost = *loss != Loss::NoRecord;
            let what = "the record of what is published is made from what the objects hold";
            self.access.trace.warn(what, &[("state", &self.access.place()), ("why", &loss.describe())]);
        }
        Ok(())
    }

    fn holds_objects(&self) -> Result<bool, StorageError> {
        // What the cache says of them was never checked against a record in the bucket.
        if self.pulled.known_epoch > 0 || self.cache.published_count()? > 0 {
            return Ok(true);
        }
        let Some(transfers) = self.objects.transfers() else { return Ok(false) };
        Ok(!transfers.list(&self.access.context(), None)?.objects.is_empty())
    }
}

fn seen_etag(pulled: &Pulled) -> &str {
    pulled.head.as_ref().map_or("", |seen| seen.etag.as_str())
}

/// Returns who claimed, for the report.
pub(crate) fn published_by(who: &str, since: StoreTime) -> PublishedBy {
    let since = std::time::UNIX_EPOCH + Duration::from_secs(since.seconds());
    PublishedBy { who: who.to_owned(), since }
}
