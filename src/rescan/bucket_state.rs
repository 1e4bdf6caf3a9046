//! A run with its state in the bucket: the record of what is published is pulled first and pushed last, and a claim
//! keeps other publishers away in between.
//!
//! # Architecture
//! - [`settings`]: what the caller sets. [`StateAccess`]: reads and replaces the head. `segment_objects`: segments as
//!   objects, verified before they are used.
//! - [`StateRun`]: the state of one run, on the run's thread. `pull`, `claim`, `looks` and the release are its phases.
//! - [`HeldClaim`]: the claim once it is held. The run's thread and the [`RenewalThread`] share it; each step replaces the
//!   head that this run stored last.
//! - [`WriteGuard`]: workers ask it before each write. It says no once half of the lease is over, or another run has
//!   taken over.
//!
//! The rules themselves are pure functions in [`state::remote`](crate::state::remote).

pub(crate) mod access;
pub(crate) mod claim;
mod collect;
pub(crate) mod conditional_writes;
mod dead_uploads;
pub(crate) mod held_claim;
mod looks;
pub(crate) mod pull;
mod push;
pub(crate) mod reader;
mod renewal_thread;
mod segment_objects;
pub(crate) mod settings;
pub(crate) mod shared_writes;
mod store_probe;
pub(crate) mod write_guard;

use std::sync::Arc;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::access::StateAccess;
use crate::rescan::bucket_state::held_claim::{HeldClaim, LastWords, Released};
use crate::rescan::bucket_state::pull::{Pull, Pulled};
use crate::rescan::bucket_state::reader::report_of;
use crate::rescan::bucket_state::renewal_thread::RenewalThread;
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::bucket_state::write_guard::WriteGuard;
use crate::rescan::report::StateReport;
use crate::state::cache::CacheManager;
use crate::state::cache::pulled::PulledInto;
use crate::state::remote::doubt::Looked;
use crate::state::remote::head::{Head, Keys, Probe};
use crate::state::remote::name::{StoreTime, Token};

/// The state in the bucket, as one run uses it.
pub(crate) struct StateRun {
    settings: RemoteState,
    access: StateAccess,
    /// The backend of the objects.
    objects: Arc<dyn StorageBackend>,
    cache: CacheManager,
    guard: Arc<WriteGuard>,
    token: Token,
    pulled: Pulled,
    /// The store keeps conditions, as far as is known.
    conditional: bool,
    probed: bool,
    /// What a probe found in this run.
    probe: Option<Probe>,
    looked: Vec<Looked>,
    /// All doubts were looked at.
    all_looked: bool,
    /// The time for which this run has waited for others.
    waited: Duration,
    renewal: Option<RenewalThread>,
    claim: Option<Arc<HeldClaim>>,
    pub(crate) report: StateReport,
}

impl StateRun {
    pub(crate) fn new(
        settings: &RemoteState,
        objects: &Arc<dyn StorageBackend>,
        cache: &CacheManager,
        guard: &Arc<WriteGuard>,
        token: &str,
        access: StateAccess,
    ) -> Result<Self, StorageError> {
        let token = Token::parse(token).ok_or_else(|| {
            StorageError::new(ErrorKind::Other, Operation::State, "the run's token is no token")
        })?;
        Ok(Self {
            settings: settings.clone(),
            access,
            objects: objects.clone(),
            cache: cache.clone(),
            guard: guard.clone(),
            token,
            pulled: Pulled::default(),
            conditional: true,
            probed: false,
            probe: None,
            looked: Vec::new(),
            all_looked: true,
            waited: Duration::ZERO,
            renewal: None,
            claim: None,
            report: StateReport::default(),
        })
    }

    /// Makes the cache a copy of the state in the bucket.
    pub(crate) fn pull(&mut self, into: PulledInto) -> Result<(), StorageError> {
        let (access, cache) = (&self.access, &self.cache);
        let pull = Pull { access, cache, into, publishes: true };
        self.pulled = pull.run()?;
        self.report.pulled += self.pulled.changed;
        // The store's date is noticed when it is new.
        self.guard.clocks();
        self.note_survey()
    }

    /// Until a tree was published completely under a record, what objects hold is found out by listing them: also if a run
    /// that had begun to was interrupted.
    fn note_survey(&self) -> Result<(), StorageError> {
        let Some(head) = self.head().filter(|_| self.pulled.loss.is_none()) else { return Ok(()) };
        let is_known = head.generation > 0 && head.doubt.iter().all(|doubt| doubt.keys != Keys::All);
        if is_known == self.cache.is_surveyed()? {
            return Ok(());
        }
        let mark = if is_known { CacheManager::survey_mark() } else { CacheManager::no_survey() };
        self.cache.apply(&[mark])
    }

    /// The head that was read last.
    fn head(&self) -> Option<&Head> {
        self.pulled.head.as_ref().map(|seen| &seen.head)
    }

    pub(crate) fn is_held(&self) -> bool {
        self.claim.is_some()
    }

    /// The time for which this run has waited for others.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }

    pub(crate) fn held(&self) -> Option<&Arc<HeldClaim>> {
        self.claim.as_ref()
    }

    /// Returns true if the state calls for a claim although the tree is as it says: another run's claim may have ended
    /// with a crash, something is in doubt for long enough, the record is lost or older than the cache, or it says of keys
    /// of the tree that an incomplete run has added them.
    pub(crate) fn has_work(&self) -> Result<bool, StorageError> {
        if self.claim.is_some() {
            return Ok(false);
        }
        if self.pulled.loss.is_some() || self.cache.unpushed().next().transpose()?.is_some() {
            return Ok(true);
        }
        if self.cache.has_recent()? {
            return Ok(true);
        }
        // What was published without a record in the bucket is recorded there now.
        let Some(seen) = &self.pulled.head else { return Ok(self.cache.published_count()? > 0) };
        let now = self.access.store_time().unwrap_or(StoreTime::new(0));
        let modified = seen.modified.unwrap_or(now);
        Ok(seen.head.claim.is_some() || seen.head.due_doubts(modified, now).next().is_some())
    }

    /// Returns true if the plan of a run that claims may change under the claim: something is in doubt, or lost.
    pub(crate) fn has_doubts(&self) -> bool {
        let is_open = |head: &Head| head.claim.is_some() || !head.doubt.is_empty();
        self.pulled.loss.is_some() || self.head().is_some_and(is_open)
    }

    /// Returns true if the claim names no keys yet.
    pub(crate) fn lacks_intent(&self) -> bool {
        let names = |head: Head| head.claim.is_some_and(|claim| !claim.intents.is_empty());
        self.claim.as_ref().is_some_and(|claim| !names(claim.head()))
    }

    fn who(&self) -> String {
        self.settings.publisher.clone().unwrap_or_else(|| {
            let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let host: String = host.chars().filter(|c| !c.is_control()).take(100).collect();
            format!("{host}, process {}", std::process::id())
        })
    }

    /// Gives the claim back, if there is one. The last rows go first, as long as the claim is renewed.
    pub(crate) fn release(&mut self, complete: bool, cancelled: bool) -> Result<Released, StorageError> {
        let Some(claim) = self.claim.take() else { return Ok(Released::Done) };
        let rows = claim.push_last_rows(cancelled);
        // It must not renew what is given back.
        self.renewal = None;
        let complete = complete && self.all_looked;
        let words =
            LastWords { complete, looked: std::mem::take(&mut self.looked), probe: self.probe.take() };
        let released = claim.release(rows, words)?;
        self.describe(&claim.head());
        Ok(released)
    }

    /// What the report says of the state; `None` if it could not be read.
    pub(crate) fn known_report(&self) -> Option<StateReport> {
        let known = self.report.epoch > 0 || self.report.was_lost;
        known.then(|| self.report.clone())
    }

    /// Puts the head into the report.
    pub(crate) fn describe_pulled(&mut self) {
        if let Some(head) = self.head().cloned() {
            self.describe(&head);
        }
    }

    fn describe(&mut self, head: &Head) {
        let before = std::mem::replace(&mut self.report, report_of(head));
        let ours = head.claim.as_ref().is_some_and(|claim| claim.token == self.token);
        let claimed_by = self.report.claimed_by.take().filter(|_| !ours);
        self.report = StateReport { claimed_by, ..self.report.clone() }.with_findings_of(&before);
    }
}

/// The way to the state of a run.
pub(crate) fn access_for(
    settings: &RemoteState,
    objects: &Arc<dyn StorageBackend>,
    like: &RequestContext<'_>,
    clock: &Arc<dyn crate::clock::Clock>,
) -> Result<StateAccess, StorageError> {
    StateAccess::new(objects, settings.elsewhere.as_ref(), settings.tree.clone(), like, clock.clone())
}
