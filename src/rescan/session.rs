//! The values that all requests of one run share.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::clock::{CancelToken, Clock};
use crate::engine::Engine;
use crate::engine::gate::Gate;
use crate::observe::trace::Trace;
use crate::request_context::RequestContext;
use crate::rescan::options::Run;

/// The backend of one run, with everything that a request needs besides its own content.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) backend: Arc<dyn StorageBackend>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) trace: Trace,
    pub(crate) cancel: CancelToken,
    /// A time of the monotonic clock.
    pub(crate) deadline: Option<Duration>,
}

impl Session {
    /// A session for a run that began at `began`. It closes the circuit breaker: each run finds out for itself
    /// whether the store is available.
    pub(crate) fn new(
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        trace: &Trace,
        run: &Run,
        began: Duration,
    ) -> Self {
        // A backend of four methods may wrap an S3 backend, whose requests pass the gate of that name. A gate of its
        // own for the wrapper keeps a request from passing the same gate twice.
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

    pub(crate) fn request_context(&self) -> RequestContext<'_> {
        RequestContext {
            cancel: &self.cancel,
            deadline: self.deadline,
            clock: &*self.clock,
            gate: &self.gate,
            trace: &self.trace,
            fence: None,
        }
    }
}
