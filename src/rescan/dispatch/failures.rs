//! Decides what successes and failures mean for the rest of a run.

use std::sync::atomic::Ordering::Relaxed;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::preflight::Preflight;
use crate::rescan::report::{RescanReport, StopReason};

/// So many files in a row fail by an outage, before any request has succeeded, and the rest is not tried.
const OUTAGES_AT_FIRST: u64 = 3;
/// So many keys are refused for a reason that holds for all, before any request has succeeded, and it is believed.
const REFUSALS_AT_FIRST: usize = 3;

impl Dispatcher<'_> {
    /// Returns whether the error only says that the run had stopped: its file stays pending.
    pub(crate) fn not_tried(&mut self, error: &StorageError) -> bool {
        let reason = StopReason::of(error);
        if let Some(reason) = reason {
            self.stop(reason);
        }
        reason.is_some()
    }

    /// Notes that the store took something.
    pub(crate) fn succeeded(&mut self, report: &mut RescanReport) {
        self.tally.done += 1;
        self.tally.outages_in_a_row = 0;
        (self.tally.reached, self.tally.permitted) = (true, true);
        self.tally.refused.drain(..).for_each(|error| report.add_failed(error));
    }

    /// Decides what a failure means for the rest of the run.
    pub(crate) fn apply_failure(&mut self, error: StorageError, report: &mut RescanReport) {
        let kind = error.kind();
        if kind.is_transient() {
            self.outage(&error);
        } else {
            self.tally.outages_in_a_row = 0;
        }
        // Who may write and not delete has published all the same.
        let to_delete = error.operation() == Operation::Delete;
        let denied = kind == ErrorKind::AccessDenied && !self.tally.permitted && !to_delete;
        if denied || (!self.tally.reached && kind.is_fatal_at_first()) {
            return self.refused_at_first(error);
        }
        if kind == ErrorKind::Credentials && !self.is_about_its_key(&error) {
            self.stop(StopReason::Credentials);
        }
        report.add_failed(error);
    }

    /// Counts an outage. Several in a row stop the run.
    fn outage(&mut self, error: &StorageError) {
        self.tally.outages += 1;
        self.tally.outages_in_a_row += 1;
        self.tally.outage.get_or_insert_with(|| error.repeated());
        let most = if self.tally.reached { self.window() as u64 } else { OUTAGES_AT_FIRST };
        if self.tally.outages_in_a_row >= most {
            self.stop(StopReason::Unavailable);
        }
    }

    /// Holds a refusal back while nothing has succeeded: it may hold for all keys.
    fn refused_at_first(&mut self, error: StorageError) {
        let waits = match error.kind() {
            // A policy may refuse a prefix, a firewall a name: other keys are tried.
            ErrorKind::AccessDenied => true,
            ErrorKind::Credentials => {
                is_a_wrong_signature(&error) && self.tally.refused.len() + 1 < REFUSALS_AT_FIRST
            }
            _ => false,
        };
        self.tally.refused.push(error);
        if !waits {
            self.believe_refusals();
        }
    }

    /// Makes the first refusal the error of the whole run.
    fn believe_refusals(&mut self) {
        if !self.tally.refused.is_empty() {
            let first = self.tally.refused.swap_remove(0);
            self.fail(first);
        }
    }

    /// Ends the run: refusals are its error if nothing else happened, else failures of their keys.
    pub(crate) fn settle_refusals(&mut self, report: &mut RescanReport) {
        let failed = self.tally.failed_uploads + self.tally.failed_deletes;
        if failed == self.tally.refused.len() as u64 && self.tally.done == 0 {
            self.believe_refusals();
        }
        self.tally.refused.drain(..).for_each(|error| report.add_failed(error));
    }

    /// Returns whether refused credentials are good for other keys: a proxy may rewrite this key, so that its
    /// signature no longer matches. One small request tells.
    fn is_about_its_key(&mut self, error: &StorageError) -> bool {
        let Some(transfers) = self.context.session.backend.transfers() else { return false };
        if !is_a_wrong_signature(error) {
            return false;
        }
        if self.tally.good_signatures == 0 {
            let asked = transfers.preflight(&self.context.request_context());
            if asked.is_err_and(|error| error.kind() == ErrorKind::Credentials) {
                return false;
            }
            self.tally.good_signatures = self.window();
        }
        self.tally.good_signatures -= 1;
        true
    }

    /// Takes over the result of the preflight.
    pub(crate) fn begin(&mut self, found: Preflight) {
        match found {
            Preflight::Passed => (self.tally.reached, self.tally.permitted) = (true, true),
            Preflight::Denied => self.tally.reached = true,
            Preflight::Unknown => {}
            Preflight::Stopped => self.look_for_stop(),
            Preflight::Unreachable(error) => {
                self.outage(&error);
                self.stop(StopReason::Unavailable);
            }
        }
    }

    /// Stops the run if an error says that it was stopped, or shows the store unreachable. Returns any other error.
    pub(crate) fn absorb_outage(&mut self, error: StorageError) -> Result<(), StorageError> {
        if self.not_tried(&error) {
            return Ok(());
        }
        if !error.kind().is_transient() || !error.is_retryable() || error.is_about_the_cache() {
            return Err(error);
        }
        self.context.session.trace.warn("the store cannot be reached", &[("error", &error)]);
        self.begin(Preflight::Unreachable(error));
        Ok(())
    }

    /// Ends the run with this error: nothing more is sent.
    pub(crate) fn fail(&mut self, error: StorageError) {
        self.tally.fatal.get_or_insert(error);
        self.go_offline();
    }

    pub(crate) fn stop(&mut self, reason: StopReason) {
        self.tally.stop.get_or_insert(reason);
        if reason.ends_all_requests() {
            self.go_offline();
        }
    }

    fn go_offline(&self) {
        // In this order: a file that sees the run offline stops at once unless hashing goes on.
        self.multipart.set_hash_on(self.goes_on_hashing());
        self.context.offline.store(true, Relaxed);
    }

    pub(crate) fn look_for_stop(&mut self) {
        if let Err(error) = self.context.request_context().check(Operation::Rescan) {
            self.not_tried(&error);
        }
        if self.context.session.gate.is_circuit_open() {
            self.stop(StopReason::Unavailable);
        }
        if self.context.shared.as_ref().is_some_and(|shared| shared.guard.is_superseded()) {
            self.stop(StopReason::Superseded);
        }
        if let Some(error) = self.recorder.failure() {
            self.fail(error);
        }
    }
}

/// Returns whether the store calls the signature wrong, not the credentials: one key alone may have that.
fn is_a_wrong_signature(error: &StorageError) -> bool {
    error.code().is_none_or(|code| code == "SignatureDoesNotMatch")
}
