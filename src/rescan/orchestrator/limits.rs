//! The limits of a run: how much is in flight, and when nothing may be deleted.

use std::sync::atomic::Ordering;

use crate::backend::Transfers;
use crate::rescan::context::Context;
use crate::rescan::delete::guard::{self, Allowed, Conditions, Refusal};
use crate::rescan::dispatch::{DispatchLimits, Dispatcher};
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::plan::Plan;

impl RescanOrchestrator {
    pub(super) fn dispatch_limits(&self) -> DispatchLimits {
        DispatchLimits {
            batch_size: self.config.batch_size.unwrap_or(self.engine.workers()),
            delete_chunk: self.backend.transfers().map_or(1, Transfers::delete_limit),
            parts_in_flight: self.config.parts_in_flight.unwrap_or(self.engine.workers()),
            whole_file_digest: self.config.whole_file_digest,
            has_fallback: self.config.fallback.is_some(),
        }
    }

    /// Returns the reason to delete nothing, if there is one. Deletes come last, and only after a run without failures.
    pub(super) fn delete_refusal(
        &self,
        context: &Context,
        plan: &Plan,
        dispatcher: &Dispatcher<'_>,
    ) -> Option<Refusal> {
        guard::refusal(&Conditions {
            counts: plan.counts(),
            allowed: self.delete_limits(),
            stopped: dispatcher.tally.is_stopped(),
            blocked: plan.blocked,
            unverified: context.unverified.load(Ordering::Relaxed),
            failed_uploads: dispatcher.tally.failed_uploads,
            same_root: context.root.is_at(&self.root).unwrap_or(false),
        })
    }

    /// The limits for deletes that the caller has set.
    pub(super) fn delete_limits(&self) -> Allowed {
        Allowed { max_delete: self.config.max_delete, empty: self.config.allow_empty }
    }
}
