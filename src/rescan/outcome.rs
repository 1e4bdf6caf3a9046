//! What became of the work of a run, and how it ended: in one word and in one record.

use crate::error::StorageError;
use crate::observe::trace::Trace;
use crate::rescan::report::{RescanOutcome, RescanReport, StopReason};

/// An upload that was refused while an object was in its way.
pub(crate) struct Obstructed {
    pub(crate) key: String,
    pub(crate) refusal: StorageError,
    /// What is to be deleted and is above the key, or below it.
    pub(crate) obstacles: Vec<String>,
}

/// What became of the work so far.
#[derive(Default)]
pub(crate) struct Tally {
    /// Files that the store took, and objects that it deleted.
    pub(crate) done: u64,
    pub(crate) confirmed: u64,
    pub(crate) failed_uploads: u64,
    pub(crate) failed_deletes: u64,
    /// Failures that were the store's outage.
    pub(crate) outages: u64,
    pub(crate) outages_in_a_row: u64,
    /// The store knows the credentials: a request succeeded, or was denied for what it asked.
    pub(crate) reached: bool,
    /// A request succeeded.
    pub(crate) permitted: bool,
    /// Why the store could not be reached, or could not work, at first.
    pub(crate) outage: Option<StorageError>,
    /// What was refused before anything succeeded, and may be wrong with all.
    pub(crate) refused: Vec<StorageError>,
    /// Refusals of signatures that are taken for their keys' own, before that is asked again.
    pub(crate) good_signatures: usize,
    /// Uploads that were refused, perhaps for an object that is to be deleted.
    pub(crate) obstructed: Vec<Obstructed>,
    pub(crate) stop: Option<StopReason>,
    /// Every other request would end like this one.
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

/// How the phases ended.
#[derive(Default)]
pub(crate) struct End {
    pub(crate) tally: Tally,
    /// Something could not be read, or not everything was looked at.
    pub(crate) blocked: bool,
    /// A dry run: keys would stay pending.
    pub(crate) unsettled: bool,
}

impl End {
    /// Counts what was done before on the same run. What was confirmed then is looked at anew.
    pub(crate) fn follows(&mut self, before: &Self) {
        self.blocked |= before.blocked;
        self.tally.done += before.tally.done;
        self.tally.outages += before.tally.outages;
        self.tally.reached |= before.tally.reached;
    }

    /// Whether the store holds the tree and nothing else of it: nothing is left to be done.
    pub(crate) fn is_complete(&self, report: &RescanReport) -> bool {
        let failed = self.tally.failed_uploads + self.tally.failed_deletes;
        !self.blocked && !self.tally.is_stopped() && failed == 0 && report.pending == 0
    }

    /// A plan that was cancelled or ran out of time is a run that stopped; any other failure is one.
    pub(crate) fn of_stopped_plan(error: StorageError) -> Result<Self, StorageError> {
        let Some(stop) = StopReason::of(&error) else {
            return Err(error);
        };
        Ok(Self { tally: Tally::stopped(stop), blocked: true, unsettled: false })
    }
}

/// The table of results. An outcome is never better than the truth.
pub(crate) fn outcome(end: &End, report: &RescanReport) -> RescanOutcome {
    let tally = &end.tally;
    let failed = tally.failed_uploads + tally.failed_deletes;
    // A key that always fails is no outage where the store answers otherwise.
    let only_outages = tally.outages > 0 && tally.outages >= failed && !tally.reached;
    if tally.done == 0 && (tally.stop == Some(StopReason::Unavailable) || only_outages) {
        return RescanOutcome::LocalOnly;
    }
    let differs = report.verified.as_ref().is_some_and(|found| !found.is_good());
    let pending = if report.dry_run { end.unsettled } else { report.pending > 0 };
    if end.blocked || tally.stop.is_some() || report.failed_count > 0 || pending || differs {
        return RescanOutcome::Partial;
    }
    let planned = report.dry_run && report.uploaded_count + report.deleted_count > 0;
    if tally.done > 0 || planned { RescanOutcome::Published } else { RescanOutcome::Unchanged }
}

/// One record at the end of a run, in words that fit its outcome.
pub(crate) fn announce(
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
        outcome(&end, &report)
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
