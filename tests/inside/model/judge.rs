//! Judges a run: its requests, its report, the cache, the bucket and the catalog after it.

use std::collections::{BTreeMap, BTreeSet};

use super::course::{Course, Upload};
use super::reference::{Answer, Class, Plan, Records, Report, Seen, Sent, State, ensure};
use super::steps::{Content, Key, Op, Run, bytes_of};
use crate::{KeptReason, KeyState, PendingKind, RescanOutcome, StopReason};

/// Checks everything that a run shows. Returns the state after it.
pub(super) fn judge(before: &State, run: &Run, seen: &Seen) -> Result<State, String> {
    let mut after = match before.plan(run) {
        Ok(plan) => {
            let mut course = Course::new(before, run, plan);
            course.follow(seen)?;
            if let Ok(report) = &seen.result {
                course.check_report(report, seen)?;
            }
            course.after
        }
        Err(kind) => {
            ensure(seen.sent.is_empty(), || "sent in spite of an empty root".to_owned())?;
            let is_refused = seen.result.as_ref().err() == Some(&kind);
            ensure(is_refused, || format!("{:?}, not {kind:?}", seen.result))?;
            before.clone()
        }
    };
    let (records, objects) = (&after.records, &after.objects);
    ensure(*records == seen.records, || format!("the cache has {:#?}, not {records:#?}", seen.records))?;
    ensure(*objects == seen.objects, || format!("the bucket has {:?}, not {objects:?}", seen.objects))?;
    let catalog = catalog_of(records);
    ensure(catalog == seen.catalog, || format!("the catalog has {:?}, not {catalog:?}", seen.catalog))?;
    after.surveyed = seen.surveyed;
    after.recorded_uploads = seen.recorded_uploads;
    if let Some((key, content, _)) = run.edited.filter(|_| seen.edited) {
        after.write(key, content);
    }
    Ok(after)
}

/// What readers learn of each key.
fn catalog_of(records: &Records) -> BTreeMap<Key, (KeyState, Option<Content>)> {
    let keys: BTreeSet<_> = records.published.keys().chain(records.pending.keys()).copied().collect();
    let resolved = |key: Key| match (records.published.get(key), records.pending.get(key)) {
        (Some(there), None) => Some((KeyState::Published, there.content)),
        (Some(_), Some(todo)) if todo.in_doubt => Some((KeyState::Stale, None)),
        (Some(there), Some(_)) => Some((KeyState::Stale, there.content)),
        (None, Some(todo)) if todo.kind == PendingKind::Added => Some((KeyState::Pending, None)),
        (None, _) => None,
    };
    keys.into_iter().filter_map(|key| Some((key, resolved(key)?))).collect()
}

impl Course<'_> {
    fn check_report(&self, report: &Report, seen: &Seen) -> Result<(), String> {
        let done = self.check_work(report)?;
        self.check_failures(report, seen)?;
        let pending = self.after.records.pending.len() as u64;
        ensure(report.pending == pending, || format!("{} are pending, not {pending}", report.pending))?;
        if report.stop != Some(StopReason::Cancelled) {
            self.check_scan(report)?;
        }
        self.check_reads(report)?;
        check_outcome(report, done, seen)?;
        let is_quiet = seen.sent.is_empty();
        ensure(!is_quiet || report.requests == 0, || format!("{} requests", report.requests))
    }

    /// What was done is what was acknowledged. Returns how much that is.
    fn check_work(&self, report: &Report) -> Result<usize, String> {
        let is_acknowledged = |(key, upload): (&Key, &Upload)| match self.plan[key] {
            Plan::Send(kind) => (*upload == Upload::Acknowledged).then_some((*key, kind)),
            _ => None,
        };
        let uploaded: BTreeMap<_, _> = self.uploads.iter().filter_map(is_acknowledged).collect();
        ensure(report.uploaded == uploaded, || format!("uploaded {:?}, not {uploaded:?}", report.uploaded))?;
        let is_done = |(key, answer): (&Key, &Answer)| matches!(answer, Answer::Done(_)).then_some(*key);
        let deleted: BTreeSet<_> = self.deletes.iter().filter_map(is_done).collect();
        ensure(report.deleted == deleted, || format!("deleted {:?}, not {deleted:?}", report.deleted))?;
        let (adopted, present) = (&report.adopted, &self.present);
        ensure(adopted.is_subset(present), || format!("adopted {adopted:?} of {present:?}"))?;
        Ok(uploaded.len() + deleted.len())
    }

    /// Each failure is reported, and nothing else is.
    fn check_failures(&self, report: &Report, seen: &Seen) -> Result<(), String> {
        let edited = |key: &Key| seen.edited && self.run.edited.is_some_and(|(edited, ..)| edited == *key);
        let is_failed = |(key, upload): &(&Key, &Upload)| {
            matches!(upload, Upload::Failed(_)) || **upload == Upload::UnderWay && edited(key)
        };
        let uploads = self.uploads.iter().filter(is_failed).count();
        // One that waits for an obstacle to be deleted when the run stops has no failure of its own; one that was half
        // sent may have been stopped.
        let may_wait = |(key, upload): &(&Key, &Upload)| {
            report.stop.is_some() && (self.refused.contains(*key) || **upload == Upload::UnderWay)
        };
        let waiting = self.uploads.iter().filter(is_failed).filter(may_wait).count() as u64;
        let deletes = self.deletes.values().filter(|answer| matches!(answer, Answer::Failed(_))).count();
        let failed = (uploads + deletes) as u64;
        let range = failed - waiting..=failed + self.failed_aborts;
        ensure(range.contains(&report.failed), || format!("{} failures, not {range:?}", report.failed))
    }

    fn check_scan(&self, report: &Report) -> Result<(), String> {
        let scanned = self.before.files().count() as u64;
        ensure(report.scanned == scanned, || format!("scanned {}, not {scanned}", report.scanned))?;
        let unchanged = self.plan.values().filter(|plan| **plan == Plan::Unchanged).count();
        let unchanged = (unchanged + self.present.difference(&report.adopted).count()) as u64;
        ensure(report.unchanged == unchanged, || {
            format!("unchanged: {}, not {unchanged}", report.unchanged)
        })?;
        let kept_now = |(key, plan): (&Key, &Plan)| match plan {
            Plan::Keep(reason) | Plan::KeepInDoubt(reason) => Some((*key, *reason)),
            Plan::Leftover if self.not_ours.contains(key) => Some((*key, KeptReason::NotOurs)),
            Plan::Leftover if self.ours.contains(key) => {
                self.before.reason_to_keep(key, self.run).map(|reason| (*key, reason))
            }
            Plan::Leftover if !self.settled.contains(key) => Some((*key, KeptReason::Unsettled)),
            _ => None,
        };
        let kept: BTreeMap<_, _> = self.plan.iter().filter_map(kept_now).collect();
        // A run that stops while it asks for leftovers makes no second plan.
        let is_stopped = report.stop.is_some() && !self.settled.is_empty();
        ensure(is_stopped || report.kept == kept, || format!("kept {:?}, not {kept:?}", report.kept))
    }

    /// What a racy stat says is not believed: the file is read.
    fn check_reads(&self, report: &Report) -> Result<(), String> {
        let is_read =
            |key: &&Key| !report.adopted.contains(*key) && !self.before.records.pending.contains_key(*key);
        let read = self.present.iter().filter(is_read);
        let read: u64 = read.map(|key| bytes_of(self.before.tree[key].content).len() as u64).sum();
        ensure(report.bytes_hashed >= read, || format!("hashed {} of {read} bytes", report.bytes_hashed))
    }
}

/// I4, I6: after a good outcome nothing is left.
fn check_outcome(report: &Report, done: usize, seen: &Seen) -> Result<(), String> {
    let (found, outcome) = (report.outcome, outcome_of(report, done));
    ensure(found == outcome, || format!("the outcome is {found:?}, not {outcome:?}"))?;
    let is_good = matches!(outcome, RescanOutcome::Published | RescanOutcome::Unchanged);
    ensure(seen.synced == is_good, || format!("synced: {}, after {outcome:?}", seen.synced))?;
    // Who may not abort uploads has published all the same.
    let is_refused = |sent: &Sent| sent.op == Op::Abort && sent.answer == Answer::Failed(Class::Refused);
    let may_abort = !seen.sent.iter().any(is_refused);
    let is_left = !seen.uploads.is_empty() || seen.recorded_uploads > 0;
    ensure(!(is_good && may_abort && is_left), || format!("uploads of {:?} are left", seen.uploads))
}

/// I6: an outcome is never better than the truth.
fn outcome_of(report: &Report, done: usize) -> RescanOutcome {
    if done == 0 && report.stop == Some(StopReason::Unavailable) {
        RescanOutcome::LocalOnly
    } else if report.stop.is_some() || report.failed > 0 || report.pending > 0 {
        RescanOutcome::Partial
    } else if done > 0 {
        RescanOutcome::Published
    } else {
        RescanOutcome::Unchanged
    }
}
