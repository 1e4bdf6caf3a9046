//! The phases of a run that has its state in the bucket: pull, claim, push.

use std::sync::Arc;

use crate::backend::StorageBackend;
use crate::error::{ErrorKind, StorageError};
use crate::rescan::bucket_state::claim::Claiming;
use crate::rescan::bucket_state::held_claim::Released;
use crate::rescan::bucket_state::pull::scratch_of;
use crate::rescan::bucket_state::{StateRun, access_for};
use crate::rescan::context::Context;
use crate::rescan::delete::guard;
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::outcome::{End, Tally};
use crate::rescan::plan::Plan;
use crate::rescan::preflight::{Preflight, classify_first_result};
use crate::rescan::report::{RescanReport, StopReason};
use crate::state::cache::pulled::PulledInto;
use crate::state::records::PendingKind;

/// How often a run pulls and plans again because the head has changed as it claimed.
const MOST_CLAIMS: usize = 20;

impl RescanOrchestrator {
    /// The state in the bucket, if the configuration says that it lies there.
    pub(super) fn open_state(&self, context: &Context) -> Result<Option<StateRun>, StorageError> {
        let (Some(settings), Some(shared)) = (&self.config.state, &context.shared) else { return Ok(None) };
        let like = context.request_context();
        let access = access_for(settings, &self.backend, &like, self.engine.clock())?;
        StateRun::new(settings, &self.backend, &self.cache, &shared.guard, &context.token, access).map(Some)
    }

    /// Makes the cache a copy of the state in the bucket: the first request of a run. Returns what it says of the store.
    pub(super) fn pull_state(
        &self,
        context: &Context,
        state: &mut StateRun,
    ) -> Result<Preflight, StorageError> {
        let into = PulledInto { root: context.known.number, root_device: context.root_device };
        let result = state.pull(into);
        state.describe_pulled();
        match result {
            // Neither is an outage, and a refusal is not absence.
            Err(error) if error.is_about_the_cache() => Err(error),
            Err(error) if matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::StateDamaged) => {
                Err(error)
            }
            Err(error) if error.kind() == ErrorKind::Protocol && !error.is_retryable() => Err(error),
            result => classify_first_result(context, &self.cache, self.config.first_run, result),
        }
    }

    /// Claims the state for the work of this plan. If the head has changed since the pull, it is pulled and planned again.
    /// Returns the plan as it is then; nothing may be written if the run is stopped.
    pub(super) fn claim_state(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        state: &mut StateRun,
        mut plan: Plan,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        let mut tries = 0;
        while !dispatcher.tally.is_stopped() {
            // What is learned under the claim may change the plan: its keys are named afterwards.
            let learns = self.learns(state)?;
            let is_large = |size| is_large(&*self.backend, size);
            let waited = state.waited();
            let claimed = state.claim((!learns).then_some(&is_large as &dyn Fn(u64) -> bool));
            let claimed = match claimed {
                Err(error) => {
                    dispatcher.absorb_outage(error)?;
                    return Ok(plan);
                }
                Ok(claimed) => claimed,
            };
            match claimed {
                Claiming::Held => break,
                // A wait has a limit of its own.
                Claiming::Again if state.waited() > waited => {}
                Claiming::Again if tries < MOST_CLAIMS => tries += 1,
                Claiming::Again => dispatcher.stop(StopReason::Claimed),
                Claiming::Refused(reason) => dispatcher.stop(reason),
            }
            if claimed == Claiming::Again && !dispatcher.tally.is_stopped() {
                dispatcher.begin(self.pull_state(context, state)?);
                plan = self.plan_again(context, dispatcher, plan, report)?;
            }
        }
        if let (Some(shared), Some(claim)) = (&context.shared, state.held()) {
            shared.set_claim(claim);
        }
        Ok(plan)
    }

    /// Names the keys of the plan in the bucket, unless the claim has named them.
    pub(super) fn name_keys(
        &self,
        dispatcher: &mut Dispatcher<'_>,
        state: &StateRun,
    ) -> Result<(), StorageError> {
        let Some(claim) = state.held().filter(|_| !dispatcher.tally.is_stopped()) else { return Ok(()) };
        let is_large = |size| is_large(&*self.backend, size);
        match claim.add_intent(&scratch_of(&self.cache), &is_large) {
            Ok(Released::Done) => Ok(()),
            Ok(Released::Superseded) => {
                dispatcher.stop(StopReason::Superseded);
                Ok(())
            }
            Err(error) => dispatcher.absorb_outage(error),
        }
    }

    /// Returns true if the run looks at objects under its claim before it writes any.
    fn learns(&self, state: &StateRun) -> Result<bool, StorageError> {
        if state.is_held() || state.has_doubts() || !self.cache.is_surveyed()? {
            return Ok(true);
        }
        for row in self.cache.pending_rows() {
            if row?.pending.is_some_and(|pending| pending.kind == PendingKind::Unsettled) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds out for a dry run what the run would adopt, and what would stop it.
    pub(super) fn preview(
        &self,
        context: &Arc<Context>,
        state: Option<&mut StateRun>,
        found: Option<Preflight>,
        plan: &mut Plan,
        report: &mut RescanReport,
    ) -> Result<Option<StopReason>, StorageError> {
        if let Some(Preflight::Unreachable(error)) = found {
            report.outage = Some(error);
            return Ok(Some(StopReason::Unavailable));
        }
        let refused = state.and_then(StateRun::preview);
        self.preview_first_run(context, plan, report)?;
        report.deletes_refused = guard::too_many(plan.counts(), self.delete_limits());
        Ok(refused.or(report.deletes_refused.map(|_| StopReason::DeletesRefused)))
    }

    /// Publishes the last rows and gives the claim back, however the run ended.
    pub(super) fn release_state(
        &self,
        context: &Context,
        state: &mut StateRun,
        result: &mut Result<End, StorageError>,
        report: &mut RescanReport,
    ) -> Result<(), StorageError> {
        let counted = self.cache.pending_count();
        report.pending = *counted.as_ref().unwrap_or(&1);
        let complete = result.as_ref().is_ok_and(|end| end.is_complete(report));
        let stopped = context.session.cancel.is_cancelled();
        let released = state.release(complete, stopped);
        report.state = state.known_report();
        counted?;
        let Ok(end) = result else {
            if let Err(error) = released {
                warn_unreleased(context, &error);
            }
            return Ok(());
        };
        match released {
            Ok(Released::Done) => {}
            Ok(Released::Superseded) => end.tally.stop = Some(StopReason::Superseded),
            Err(error) => {
                warn_unreleased(context, &error);
                if error.kind().is_transient() {
                    end.tally.stop.get_or_insert(StopReason::Unavailable);
                    report.outage.get_or_insert(error);
                } else {
                    report.add_failed(error);
                }
            }
        }
        Ok(())
    }
}

/// Returns true if a run whose tree is as the state says has to claim all the same. Raises the order of the head where
/// that is all there is to do.
pub(super) fn has_state_work(
    state: Option<&mut StateRun>,
    found: Option<&Preflight>,
    tally: &mut Tally,
) -> Result<bool, StorageError> {
    let Some(state) = state else { return Ok(false) };
    // Without the head nobody knows whether there is anything to do.
    if !matches!(found, Some(Preflight::Passed)) || state.has_work()? {
        return Ok(true);
    }
    match state.raise_order()? {
        Claiming::Held => Ok(false),
        Claiming::Again => Ok(true),
        Claiming::Refused(reason) => {
            tally.stop = Some(reason);
            Ok(false)
        }
    }
}

fn warn_unreleased(context: &Context, error: &StorageError) {
    let what = "the claim could not be given back: other publishers wait until its lease ends";
    context.session.trace.warn(what, &[("error", error)]);
}

/// Returns true for the size of a file that becomes a multipart upload.
fn is_large(backend: &dyn StorageBackend, size: u64) -> bool {
    backend.transfers().is_some_and(|transfers| transfers.part_plan(size).is_ok_and(|plan| plan.is_some()))
}
