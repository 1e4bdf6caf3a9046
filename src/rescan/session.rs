//! A store, and what every exchange of one run with it shares.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::clock::{CancelToken, Clock};
use crate::engine::Engine;
use crate::engine::gate::Gate;
use crate::observe::trace::Trace;
use crate::request_context::RequestContext;
use crate::rescan::options::Run;

/// The way of one run to its store.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) backend: Arc<dyn StorageBackend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) trace: Trace,
    pub(crate) cancel: CancelToken,
    /// On the clock's monotonic side.
    pub(crate) deadline: Option<Duration>,
}

impl Session {
    /// For a run that began at `began`. The circuit is closed: this run finds out for itself.
    pub(crate) fn new(
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        trace: &Trace,
        run: &Run,
        began: Duration,
    ) -> Self {
        // A backend of four methods may wrap one that passes a gate of its own: never the same twice.
        let kind = if backend.transfers().is_some() { "" } else { "adapter of " };
        let gate = engine.gate(&format!("{kind}{}", backend.destination()));
        gate.close_circuit();
        Self {
            backend: backend.clone(),
            clock: engine.clock().clone(),
            gate,
            trace: trace.clone(),
            cancel: run.cancel.clone(),
            deadline: run.deadline.and_then(|after| began.checked_add(after)),
        }
    }

    pub(crate) fn exchange(&self) -> RequestContext<'_> {
        RequestContext {
            cancel: &self.cancel,
            deadline: self.deadline,
            clock: &*self.clock,
            gate: &self.gate,
            trace: &self.trace,
        }
    }
}
