//! Counts what became of the work of a run, and derives its outcome and its last log record.

use crate::error::StorageError;
use crate::observe::trace::Trace;
use crate::rescan::report::{RescanOutcome, RescanReport, StopReason};

/// An upload that was refused while an object was in its way: `a/b` while `a` exists, or the reverse.
pub(crate) struct Obstructed {
    pub(crate) key: String,
    pub(crate) refusal: StorageError,
    /// Keys above or below the key that are to be deleted.
    pub(crate) obstacles: Vec<String>,
}

/// The results of a run so far. The rescan's thread owns it.
#[derive(Default)]
pub(crate) struct Tally {
    /// Files uploaded, objects with other headers and objects deleted.
    pub(crate) done: u64,
    /// Files whose content turned out to be published already.
    pub(crate) confirmed: u64,
    /// Files that were taken over, and that a second plan has counted as unchanged.
    pub(crate) counted_again: u64,
    pub(crate) failed_uploads: u64,
    pub(crate) failed_deletes: u64,
    /// Failures because the store was unreachable or out of order.
    pub(crate) outages: u64,
    pub(crate) outages_in_a_row: u64,
    /// The store accepted the credentials: a request succeeded, or was denied only for its operation.
    pub(crate) reached: bool,
    /// A request succeeded.
    pub(crate) permitted: bool,
    /// The first error that showed the store unreachable or out of order.
    pub(crate) outage: Option<StorageError>,
    /// Refusals before the first success. They may concern every request.
    pub(crate) refused: Vec<StorageError>,
    /// The number of wrong-signature refusals that still count as problems of single keys, until the credentials are
    /// checked again.
    pub(crate) good_signatures: usize,
    /// Uploads that were refused, perhaps because of an object that is to be deleted.
    pub(crate) obstructed: Vec<Obstructed>,
    pub(crate) stop: Option<StopReason>,
    /// The error that ends the run: every other request would fail the same way.
    pub(crate) fatal: Option<StorageError>,
}

impl Tally {
    pub(crate) fn stopped(reason: StopReason) -> Self {
        Self { stop: Some(reason), ..Self::default() }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some() || self.fatal.is_some()
    }
}

/// The end of the phases of a run.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) tally: Tally,
    /// Some of the tree could not be read, or the scan did not finish.
    pub(crate) blocked: bool,
    /// Dry runs only: some keys would stay pending.
    pub(crate) unsettled: bool,
    /// Set if a run without deletes found a tree that had shrunk.
    pub(crate) shrunk: bool,
}

impl End {
    /// Adds the results of the first pass of the same run. Confirmed files are left out: this pass has confirmed them
    /// again.
    pub(crate) fn add_first_pass(&mut self, before: &Self) {
        self.blocked |= before.blocked;
        self.tally.done += before.tally.done;
        self.tally.outages += before.tally.outages;
        self.tally.reached |= before.tally.reached;
    }

    /// Returns true if the store holds exactly the tree, with nothing failed, blocked or pending.
    pub(crate) fn is_complete(&self, report: &RescanReport) -> bool {
        let failed = self.tally.failed_uploads + self.tally.failed_deletes;
        !self.blocked && !self.shrunk && !self.tally.is_stopped() && failed == 0 && report.pending == 0
    }

    /// Turns the error of a plan that was cancelled or ran out of time into a stopped run. Returns any other error.
    pub(crate) fn of_stopped_plan(error: StorageError) -> Result<Self, StorageError> {
        let Some(stop) = StopReason::of(&error) else {
            return Err(error);
        };
        Ok(Self { tally: Tally::stopped(stop), blocked: true, unsettled: false, shrunk: false })
    }
}

/// The table of outcomes. An outcome is never better than the truth.
pub(crate) fn outcome_of(end: &End, report: &RescanReport) -> RescanOutcome {
    let tally = &end.tally;
    let failed = tally.failed_uploads + tally.failed_deletes;
    // A key that always fails is no outage if the store answers other requests.
    let only_outages = tally.outages > 0 && tally.outages >= failed && !tally.reached;
    if tally.done == 0 && (tally.stop == Some(StopReason::Unavailable) || only_outages) {
        return RescanOutcome::LocalOnly;
    }
    // Not verified, or verified as wrong: either way not as it should be.
    let differs = report.verified.as_ref().is_some_and(|found| !found.is_good());
    let pending = if report.dry_run { end.unsettled } else { report.pending > 0 };
    if end.blocked || tally.stop.is_some() || report.failed_count > 0 || pending || differs {
        return RescanOutcome::Partial;
    }
    // A dry run has the outcome that the run would have had.
    let planned = report.uploaded_count + report.headers_updated_count + report.deleted_count;
    let planned = report.dry_run && planned > 0;
    if tally.done > 0 || planned { RescanOutcome::Published } else { RescanOutcome::Unchanged }
}

/// Logs one record at the end of a run. Its level and message fit the outcome.
pub(crate) fn log_end(
    trace: &Trace,
    destination: &str,
    result: &Result<(), StorageError>,
    report: &RescanReport,
) {
    if let Err(error) = result {
        trace.log(log::Level::Error, "rescan failed", &[("destination", &destination), ("error", error)]);
        return;
    }
    let (level, message) = match report.outcome {
        RescanOutcome::Unchanged | RescanOutcome::Published => (log::Level::Info, "rescan ended"),
        RescanOutcome::Partial => (log::Level::Warn, "rescan ended with something left to do"),
        RescanOutcome::LocalOnly => (log::Level::Warn, "Cloud sync failed"),
    };
    let elapsed = format!("{:.3}", report.elapsed.as_secs_f64());
    let stop = report.stop_reason.map_or("", StopReason::as_str);
    let cause = report.outage.as_ref().map(ToString::to_string).unwrap_or_default();
    trace.log(
        level,
        message,
        &[
            ("destination", &destination),
            ("outcome", &report.outcome.as_str()),
            ("stop_reason", &stop),
            ("cause", &cause),
            ("uploaded", &report.uploaded_count),
            ("headers_updated", &report.headers_updated_count),
            ("deleted", &report.deleted_count),
            ("failed", &report.failed_count),
            ("kept", &report.kept_count),
            ("pending", &report.pending),
            ("elapsed", &elapsed),
        ],
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn ended(change: impl FnOnce(&mut End, &mut RescanReport)) -> RescanOutcome {
        let (mut end, mut report) = (End::default(), RescanReport::new(false));
        change(&mut end, &mut report);
        outcome_of(&end, &report)
    }

    /// The table of results, row by row: an outcome is never better than the truth (I6).
    #[test]
    fn i6_every_kind_of_trouble_shows_in_the_outcome() {
        let failure = || StorageError::new(ErrorKind::Rejected, crate::Operation::Upload, "x");
        assert_eq!(ended(|_, _| ()), RescanOutcome::Unchanged);
        assert_eq!(ended(|end, _| end.tally.done = 1), RescanOutcome::Published);
        assert_eq!(ended(|_, report| report.pending = 1), RescanOutcome::Partial);
        assert_eq!(ended(|end, _| end.blocked = true), RescanOutcome::Partial);
        assert_eq!(ended(|_, report| report.add_failed(failure())), RescanOutcome::Partial);
        for stop in
            [StopReason::Cancelled, StopReason::Deadline, StopReason::DeletesRefused, StopReason::Credentials]
        {
            assert_eq!(ended(|end, _| end.tally = Tally::stopped(stop)), RescanOutcome::Partial);
        }
        let gone = |end: &mut End| end.tally = Tally::stopped(StopReason::Unavailable);
        assert_eq!(ended(|end, _| gone(end)), RescanOutcome::LocalOnly);
        let after_some = |end: &mut End, _: &mut RescanReport| {
            gone(end);
            end.tally.done = 1;
        };
        assert_eq!(ended(after_some), RescanOutcome::Partial);
    }
}
