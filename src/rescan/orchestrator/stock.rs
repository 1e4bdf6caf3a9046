//! What a run learns from the bucket before it sends anything: the objects of a first run, and what interrupted runs
//! have left.

use std::sync::Arc;

use crate::error::StorageError;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::delete::leftovers::{self, Settled};
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::first_run::{Stock, preview, take_stock};
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::plan::Plan;
use crate::rescan::preflight::{Preflight, preflight};
use crate::rescan::report::{KeptReason, RescanReport};
use crate::state::cache::CacheManager;

impl RescanOrchestrator {
    /// Learns from the bucket. Returns the plan, made again if the cache now has keys that it did not know.
    pub(super) fn plan_with_store(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        mut plan: Plan,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        let Settled { changed, not_ours } = self.look_at_store(context, dispatcher, report)?;
        if changed {
            report.forget_scan();
            plan = self.make_plan(context, report)?;
            dispatcher.tally.counted_again = report.adopted_count;
        }
        for key in not_ours {
            report.add_kept(key, KeptReason::NotOurs);
        }
        Ok(plan)
    }

    /// Takes over what a first run finds, and settles what interrupted runs may have stored. The records may
    /// then have keys that the plan does not know.
    fn look_at_store(
        &self,
        context: &Arc<Context>,
        dispatcher: &mut Dispatcher<'_>,
        report: &mut RescanReport,
    ) -> Result<Settled, StorageError> {
        if dispatcher.tally.is_stopped() {
            return Ok(Settled::default());
        }
        let taken = match self.stock_due(context)? {
            // Denied, or not supported: the preflight has said so.
            Some(_) if !dispatcher.tally.permitted => {
                self.cache.apply(&[CacheManager::survey_mark()]).map(|()| false)
            }
            Some(stock) => take_stock(&stock, dispatcher.recorder, report),
            None => Ok(false),
        };
        let looked = taken.and_then(|taken| {
            let settled = leftovers::settle(&self.engine, context, &self.cache)?;
            Ok(Settled { changed: settled.changed || taken, ..settled })
        });
        looked.or_else(|error| dispatcher.absorb_outage(error).map(|()| Settled::default()))
    }

    /// The parts that the first listing of the prefix needs; `None` if it was made, or the backend has none.
    fn stock_due<'a>(&'a self, context: &'a Arc<Context>) -> Result<Option<Stock<'a>>, StorageError> {
        if self.cache.is_surveyed()? {
            return Ok(None);
        }
        let (engine, cache, policy) = (&self.engine, &self.cache, self.config.first_run);
        let transfers = self.backend.transfers();
        Ok(transfers.map(|transfers| Stock { engine, context, transfers, cache, policy }))
    }

    /// Returns true if a first run has objects to delete although nothing is to be uploaded: the tree is empty, and may
    /// be.
    pub(super) fn is_mirror_due(&self, plan: &Plan) -> Result<bool, StorageError> {
        let wanted = self.config.first_run == FirstRun::Mirror && (plan.files > 0 || self.config.allow_empty);
        Ok(wanted && !self.cache.is_surveyed()?)
    }

    /// Adds to the report of a dry run what a first run would take over. If the store cannot be reached or listed, the
    /// report shows all files as uploads.
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
        let Some(stock) = self.stock_due(context)? else { return Ok(()) };
        let looked = preflight(context, &self.cache, self.config.first_run).and_then(|found| match found {
            Preflight::Passed => preview(&stock, &self.filter, plan, report),
            Preflight::Unreachable(error) => Err(error),
            Preflight::Denied | Preflight::Unknown => Ok(()),
        });
        looked.or_else(|error| {
            if !error.kind().is_transient() && !error.is_without_address() {
                return Err(error);
            }
            let what = "what would be taken over is not known: the store cannot be reached";
            context.session.trace.warn(what, &[("error", &error)]);
            Ok(())
        })
    }
}
