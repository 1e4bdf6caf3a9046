//! What a run learns from the bucket before it sends anything: the objects of a first run, and what interrupted runs
//! have left.

use std::sync::Arc;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::StateRun;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::delete::leftovers::{self, Settled};
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::first_run::{FirstRunContext, adopt_or_survey, preview};
use crate::rescan::orchestrator::{RescanOrchestrator, emit_planned};
use crate::rescan::plan::Plan;
use crate::rescan::preflight::{Preflight, go_on_without_listing, preflight};
use crate::rescan::report::{KeptReason, RescanReport};
use crate::state::cache::CacheManager;

impl RescanOrchestrator {
    /// Sends the first requests: what concerns all others, the claim, and what the bucket holds that the cache does not
    /// know. Returns the plan as it is then.
    pub(super) fn meet_store(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        mut state: Option<&mut StateRun>,
        found: Option<Preflight>,
        mut plan: Plan,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        match found {
            Some(found) => dispatcher.begin(found),
            None => dispatcher.begin(preflight(context, &self.cache, self.config.first_run)?),
        }
        // A second pass has keys of its own.
        let was_held = state.as_ref().is_some_and(|state| state.is_held());
        if let Some(state) = &mut state {
            self.record_run(context, dispatcher)?;
            plan = self.claim_state(context, dispatcher, state, plan, report)?;
        }
        plan = self.plan_with_store(context, dispatcher, state.as_deref_mut(), plan, report)?;
        match state {
            Some(state) if was_held || state.lacks_intent() => self.name_keys(dispatcher, state)?,
            Some(_) => {}
            None => self.record_run(context, dispatcher)?,
        }
        Ok(plan)
    }

    /// Records the run before anything is stored. An outage stores nothing, and would push older runs out of the record.
    fn record_run(&self, context: &Context, dispatcher: &Dispatcher<'_>) -> Result<(), StorageError> {
        if dispatcher.tally.is_stopped() { Ok(()) } else { self.cache.record_run(context.run_record()) }
    }

    /// Learns from the bucket. Returns the plan, made again if the cache now has keys that it did not know.
    fn plan_with_store(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        state: Option<&mut StateRun>,
        mut plan: Plan,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        let Settled { changed, not_ours } = self.settle_existing(context, dispatcher, state, report)?;
        if changed {
            plan = self.plan_again(context, dispatcher, plan, report)?;
        }
        for key in not_ours {
            report.add_kept(key, KeptReason::NotOurs);
        }
        Ok(plan)
    }

    /// Makes the plan of this pass again. If the run is stopped meanwhile, the plan before holds, without deletes.
    pub(super) fn plan_again(
        &self,
        context: &Context,
        dispatcher: &mut Dispatcher<'_>,
        before: Plan,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        report.forget_scan();
        let plan = match self.make_plan(context, report) {
            Ok(plan) => plan,
            Err(error) if dispatcher.not_tried(&error) => return Ok(Plan { blocked: true, ..before }),
            Err(error) => return Err(error),
        };
        dispatcher.tally.counted_again = report.adopted_count;
        // The files were counted before, but for those that were taken over; the deletes are new.
        let (headers, removed) = (plan.headers, plan.removed);
        let progress = &context.session.trace.progress;
        progress.planned(headers.saturating_sub(before.headers), 0, removed.saturating_sub(before.removed));
        emit_planned(&context.session.trace, &plan, report);
        Ok(plan)
    }

    /// Takes over what a first run finds, and settles what interrupted runs may have stored. The records may
    /// then have keys that the plan does not know.
    fn settle_existing(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        state: Option<&mut StateRun>,
        report: &mut RescanReport,
    ) -> Result<Settled, StorageError> {
        if dispatcher.tally.is_stopped() {
            return Ok(Settled::default());
        }
        let looked = state.map(|state| state.look_at_doubts(&self.engine, context)).transpose();
        let looked = match looked {
            Ok(looked) => looked.unwrap_or_default(),
            Err(error) => return dispatcher.absorb_outage(error).map(|()| Settled::default()),
        };
        if let Some(error) = looked.unanswered.into_error() {
            report.add_failed(error);
        }
        let taken = match self.first_run_due(context)? {
            // Denied, or not supported: the preflight has said so.
            Some(_) if !dispatcher.tally.permitted => {
                self.cache.apply(&[CacheManager::survey_mark()]).map(|()| false)
            }
            Some(first_run) => adopt_or_survey(&first_run, dispatcher.recorder, report)
                .or_else(|error| self.take_over_nothing(context, dispatcher, error)),
            None => Ok(false),
        };
        let looked = taken.and_then(|taken| {
            let settled = leftovers::settle(&self.engine, context, &self.cache)?;
            Ok(Settled { changed: settled.changed || taken || looked.changed, ..settled })
        });
        looked.or_else(|error| dispatcher.absorb_outage(error).map(|()| Settled::default()))
    }

    /// Returns the error of a first listing, unless that only means that nothing can be taken over: it is refused, or
    /// broken.
    fn take_over_nothing(
        &self,
        context: &Context,
        dispatcher: &mut Dispatcher<'_>,
        error: StorageError,
    ) -> Result<bool, StorageError> {
        let policy = self.config.first_run;
        let broken = error.kind() == ErrorKind::Protocol && !error.is_retryable();
        if broken && policy == FirstRun::Adopt {
            let what = "the prefix cannot be listed: no object is taken over, every file is sent";
            context.session.trace.warn(what, &[("error", &error)]);
        } else if error.operation() == Operation::List {
            // Some stores tell whether there is a head to those who may not list.
            go_on_without_listing(context, policy, error)?;
            dispatcher.tally.permitted = false;
        } else {
            return Err(error);
        }
        self.cache.apply(&[CacheManager::survey_mark()])?;
        Ok(false)
    }

    /// The parts that the first listing of the prefix needs; `None` if it was made, or the backend has none.
    pub(super) fn first_run_due<'a>(
        &'a self,
        context: &'a Arc<Context>,
    ) -> Result<Option<FirstRunContext<'a>>, StorageError> {
        if self.cache.is_surveyed()? {
            return Ok(None);
        }
        let (engine, cache, policy) = (&self.engine, &self.cache, self.config.first_run);
        let transfers = self.backend.transfers();
        let delete = self.config.delete;
        Ok(transfers.map(|transfers| FirstRunContext { engine, context, transfers, cache, policy, delete }))
    }

    /// Returns true if a first run has objects to delete although nothing is to be uploaded: the tree is empty, and may
    /// be.
    pub(super) fn is_mirror_due(&self, plan: &Plan) -> Result<bool, StorageError> {
        let wanted = self.config.first_run == FirstRun::Mirror && (plan.files > 0 || self.config.allow_empty);
        Ok(wanted && !self.cache.is_surveyed()?)
    }

    /// Adds to the report of a dry run what a first run would take over. If the store cannot be reached or listed, the
    /// report shows all files as uploads; that of a mirror would lack its deletes, which is an error.
    pub(super) fn preview_first_run(
        &self,
        context: &Arc<Context>,
        plan: &mut Plan,
        report: &mut RescanReport,
    ) -> Result<(), StorageError> {
        let adopts = matches!(self.config.first_run, FirstRun::Adopt | FirstRun::Mirror);
        let forced = context.is_forced() && self.config.first_run == FirstRun::Adopt;
        if !adopts || forced || (plan.is_empty() && !self.is_mirror_due(plan)?) {
            return Ok(());
        }
        let Some(first_run) = self.first_run_due(context)? else { return Ok(()) };
        let policy = self.config.first_run;
        let looked = preflight(context, &self.cache, policy).and_then(|found| match found {
            Preflight::Passed => {
                preview(&first_run, &self.filter, plan, report).or_else(|error| match error.operation() {
                    Operation::List => go_on_without_listing(context, policy, error).map(drop),
                    _ => Err(error),
                })
            }
            Preflight::Unreachable(error) => Err(error),
            Preflight::Stopped => context.request_context().check(Operation::List),
            Preflight::Denied | Preflight::Unknown => Ok(()),
        });
        looked.or_else(|error| {
            let unreachable = error.kind().is_transient() || error.is_without_address();
            if !unreachable || self.config.first_run == FirstRun::Mirror {
                return Err(error);
            }
            let what = "what would be taken over is not known: the store cannot be reached";
            context.session.trace.warn(what, &[("error", &error)]);
            Ok(())
        })
    }
}
