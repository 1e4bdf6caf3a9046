//! The course of a run: which requests may be sent, in which order, and what follows from their answers.

use std::collections::{BTreeMap, BTreeSet};

use super::reference::{
    Answer, Class, File, Object, Plan, Seen, Sent, State, There, Todo, are_in_each_others_way, ensure,
};
use super::steps::{Deletes, Key, Mode, Op, Run, is_large};
use crate::{ErrorKind, PendingKind, StopReason};

/// How far the upload of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upload {
    UnderWay,
    Acknowledged,
    Failed(Class),
    NotTried,
}

pub(super) struct Course<'a> {
    pub(super) before: &'a State,
    pub(super) run: &'a Run,
    pub(super) plan: BTreeMap<Key, Plan>,
    /// The state as the requests so far leave it.
    pub(super) after: State,
    pub(super) uploads: BTreeMap<Key, Upload>,
    /// Files that needed no upload: they are confirmed or adopted.
    pub(super) present: BTreeSet<Key>,
    /// Files that an obstacle may have been the reason to refuse.
    pub(super) refused: BTreeSet<Key>,
    pub(super) deletes: BTreeMap<Key, Answer>,
    /// Leftovers that turned out to be ours, or somebody else's.
    pub(super) ours: BTreeSet<Key>,
    pub(super) not_ours: BTreeSet<Key>,
    pub(super) settled: BTreeSet<Key>,
    pub(super) failed_aborts: u64,
    /// How late in the order of a run the last request was.
    rank: u8,
    /// A request showed that the run is over.
    ending: Option<Ending>,
}

/// What may still be sent when the run is over: files that were handed to a worker before.
struct Ending {
    keys: BTreeSet<Key>,
    late: BTreeSet<Key>,
    most: usize,
}

impl<'a> Course<'a> {
    pub(super) fn new(before: &'a State, run: &'a Run, plan: BTreeMap<Key, Plan>) -> Self {
        let mut after = before.clone();
        after.records = before.planned(&plan);
        Self {
            before,
            run,
            plan,
            after,
            uploads: BTreeMap::new(),
            present: BTreeSet::new(),
            refused: BTreeSet::new(),
            deletes: BTreeMap::new(),
            ours: BTreeSet::new(),
            not_ours: BTreeSet::new(),
            settled: BTreeSet::new(),
            failed_aborts: 0,
            rank: 0,
            ending: None,
        }
    }

    /// Follows the requests of a run to the state after it.
    pub(super) fn follow(&mut self, seen: &Seen) -> Result<(), String> {
        let is_work = |plan: &Plan| matches!(plan, Plan::Send(_) | Plan::Remove | Plan::Leftover);
        let work = self.plan.values().any(is_work) || self.before.recorded_uploads > 0;
        ensure(work || seen.sent.is_empty(), || format!("nothing to do, and sent {:?}", seen.sent))?;
        for (number, sent) in seen.sent.iter().enumerate() {
            let is_first = sent.op == Op::First;
            ensure(is_first == (number == 0), || format!("request {number} is {sent:?}"))?;
            self.send(sent).map_err(|why| format!("request {number}, {sent:?}: {why}"))?;
        }
        let stop = match &seen.result {
            Ok(report) => report.stop,
            Err(kind) => Some(self.stop_of(*kind, seen)?),
        };
        self.check_stop(stop, seen)?;
        self.settle_files(stop, seen)?;
        self.settle_leftovers(stop, seen);
        self.check_leftovers(stop, seen)?;
        self.settle_deletes(seen);
        self.check_deletes(stop)?;
        let listed = seen.sent.iter().any(|sent| sent.op == Op::List && sent.answer == Answer::Done(true));
        let due = seen.sent.len() > 1 && stop.is_none() && seen.result.is_ok();
        ensure(seen.surveyed >= (self.before.surveyed || due), || "the prefix was not listed".to_owned())?;
        ensure(self.before.surveyed || !seen.surveyed || listed, || "nothing was listed".to_owned())
    }

    /// An error ends a run if its first requests are refused, or if all that an empty tree has published turns out to be
    /// leftovers.
    fn stop_of(&self, kind: ErrorKind, seen: &Seen) -> Result<StopReason, String> {
        let general = |sent: &Sent| matches!(sent.op, Op::First | Op::List);
        let refused = |sent: &Sent| sent.answer == Answer::Failed(Class::Credentials) && general(sent);
        let is_empty = !self.ours.is_empty() && self.before.files().next().is_none() && !self.run.allow_empty;
        match kind {
            ErrorKind::Credentials if seen.sent.last().is_some_and(refused) => Ok(StopReason::Credentials),
            ErrorKind::RootEmpty if is_empty && self.deletes.is_empty() => Ok(StopReason::DeletesRefused),
            _ => Err(format!("the run failed: {kind:?}")),
        }
    }

    fn send(&mut self, sent: &Sent) -> Result<(), String> {
        self.check_ending(sent)?;
        match sent.op {
            Op::First => {}
            Op::List => ensure(!self.before.surveyed && self.rank == 0, || "listed once more".to_owned())?,
            Op::Head => self.head(sent)?,
            Op::Abort => self.abort(sent)?,
            Op::Delete => self.delete(sent)?,
            Op::Put | Op::Begin | Op::Part | Op::Finish | Op::Reconcile => self.upload(sent)?,
        }
        self.note_ending(sent);
        Ok(())
    }

    fn check_ending(&mut self, sent: &Sent) -> Result<(), String> {
        let Some(ending) = self.ending.as_mut().filter(|_| sent.answer != Answer::NotTried) else {
            return Ok(());
        };
        ending.late.extend(sent.keys.iter().filter(|key| !ending.keys.contains(*key)));
        ensure(ending.late.len() <= ending.most && ending.most > 0, || "the run was over".to_owned())
    }

    fn note_ending(&mut self, sent: &Sent) {
        let most = match (sent.op, sent.answer) {
            (_, Answer::NotTried)
            | (Op::First, Answer::Failed(_))
            | (Op::List, Answer::Failed(Class::Credentials)) => 0,
            (Op::Head | Op::Abort, _) => return,
            // Another small file or request of two deletes, and a large file.
            (Op::Put | Op::Delete, Answer::Failed(Class::Credentials)) => 3,
            // The thread of a large file may be slow to tell the run.
            (_, Answer::Failed(Class::Credentials)) => usize::MAX,
            _ => return,
        };
        if self.ending.as_ref().is_none_or(|ending| ending.most > most) {
            let keys = sent.keys.iter().copied().collect();
            self.ending = Some(Ending { keys, late: BTreeSet::new(), most });
        }
    }

    fn go_on_to(&mut self, rank: u8, sent: &Sent) -> Result<(), String> {
        ensure(rank >= self.rank, || format!("its turn is over: {} was under way", self.rank))?;
        let is_over = self.ending.is_some() && sent.answer != Answer::NotTried;
        ensure(rank == self.rank || !is_over, || "the run was over".to_owned())?;
        self.rank = rank;
        Ok(())
    }

    /// A HEAD settles a leftover, or compares a file with an object that others stored.
    fn head(&mut self, sent: &Sent) -> Result<(), String> {
        let key = sent.keys[0];
        if self.plan.get(key) != Some(&Plan::Leftover) {
            return ensure(!self.before.surveyed && self.rank == 0, || "nobody needs to know".to_owned());
        }
        self.go_on_to(1, sent)?;
        let Answer::Done(found) = sent.answer else { return Ok(()) };
        let object = self.after.objects.get(key).copied();
        ensure(found == object.is_some(), || "the store lies".to_owned())?;
        self.settled.insert(key);
        match object {
            None => drop(self.after.records.pending.remove(key)),
            Some(object) if object.ours => drop(self.ours.insert(key)),
            Some(_) => drop(self.not_ours.insert(key)),
        }
        Ok(())
    }

    fn upload(&mut self, sent: &Sent) -> Result<(), String> {
        let key = sent.keys[0];
        let Some(Plan::Send(kind)) = self.plan.get(key).copied() else {
            return Err("it is not to be sent".to_owned());
        };
        let file = self.before.tree[key];
        self.go_on_to(if kind == PendingKind::Added { 2 } else { 3 }, sent)?;
        ensure(!self.before.is_known_to_be_published(key, self.run), || {
            "it is published already".to_owned()
        })?;
        self.note_multipart(sent, key, file)?;
        if sent.took_effect() && matches!(sent.op, Op::Put | Op::Finish) {
            self.after.objects.insert(key, Object { content: file.content, ours: true });
        }
        if let Some(todo) = self.after.records.pending.get_mut(key)
            && matches!(sent.op, Op::Put | Op::Finish)
        {
            todo.in_doubt |= sent.leaves_doubt();
        }
        let status = match (sent.answer, sent.op) {
            (Answer::NotTried, _) => Upload::NotTried,
            (Answer::Failed(class), _) => Upload::Failed(class),
            (Answer::Done(_), Op::Put | Op::Finish) | (Answer::Done(true), Op::Reconcile) => {
                Upload::Acknowledged
            }
            (Answer::Done(_), _) => Upload::UnderWay,
        };
        self.uploads.insert(key, status);
        if sent.op == Op::Put && matches!(sent.mode, Some(Mode::Server | Mode::Refused))
            || sent.op != Op::Put && matches!(status, Upload::Failed(Class::Outage | Class::Refused))
        {
            self.refused.insert(key);
        }
        Ok(())
    }

    /// I4: an upload that was interrupted is resumed if its file is unchanged.
    fn note_multipart(&mut self, sent: &Sent, key: Key, file: File) -> Result<(), String> {
        let is_first = !self.uploads.contains_key(key) && sent.answer != Answer::NotTried;
        let is_open = self.before.open.get(key) == Some(&file.stamp);
        ensure(!(sent.op == Op::Begin && is_first && is_open), || "it is not resumed".to_owned())?;
        let is_completed = matches!(
            (sent.op, sent.answer),
            (Op::Finish, Answer::Done(_)) | (Op::Reconcile, Answer::Done(true))
        );
        // Another one is begun where the store no longer has it.
        if is_completed || sent.op == Op::Begin {
            self.after.open.remove(key);
        }
        if sent.op == Op::Begin && matches!(sent.answer, Answer::Done(_)) {
            self.after.open.insert(key, file.stamp);
        }
        Ok(())
    }

    fn abort(&mut self, sent: &Sent) -> Result<(), String> {
        let key = sent.keys[0];
        let is_open = |file: &File| self.after.open.get(key) == Some(&file.stamp);
        let is_interrupted = self.uploads.get(key).is_some_and(|upload| {
            matches!(upload, Upload::Failed(Class::Outage | Class::Credentials) | Upload::NotTried)
        });
        let is_resumable = is_interrupted && self.before.tree.get(key).is_some_and(is_open);
        ensure(!is_resumable, || "it can be resumed".to_owned())?;
        if matches!(sent.answer, Answer::Done(_)) {
            self.after.open.remove(key);
        } else {
            self.failed_aborts += 1;
        }
        Ok(())
    }

    /// I3: a delete comes after every upload is acknowledged, unless its object is in the way of one.
    fn delete(&mut self, sent: &Sent) -> Result<(), String> {
        for key in &sent.keys {
            ensure(self.is_to_be_deleted(key), || format!("{key} is not to be deleted"))?;
            ensure(!self.deletes.contains_key(key), || format!("{key} was deleted already"))?;
        }
        let failed =
            |(key, upload): (&Key, &Upload)| *upload != Upload::Acknowledged && !self.refused.contains(key);
        ensure(!self.uploads.iter().any(failed), || "an upload failed".to_owned())?;
        ensure(!self.is_too_much(), || "it is more than may be deleted".to_owned())?;
        let refused: Vec<_> =
            self.refused.iter().filter(|key| self.uploads[*key] != Upload::Acknowledged).collect();
        if refused.is_empty() {
            self.go_on_to(4, sent)?;
        } else {
            let is_obstacle = |key: &Key| refused.iter().any(|refused| are_in_each_others_way(key, refused));
            ensure(sent.keys.iter().all(is_obstacle), || "an upload failed".to_owned())?;
            self.rank = 2;
        }
        for key in &sent.keys {
            self.deletes.insert(key, sent.answer);
            if sent.took_effect() {
                self.after.objects.remove(key);
            }
        }
        Ok(())
    }

    fn is_to_be_deleted(&self, key: Key) -> bool {
        let is_ours = self.ours.contains(key) && self.before.reason_to_keep(key, self.run).is_none();
        self.plan.get(key) == Some(&Plan::Remove) || is_ours
    }

    fn is_too_much(&self) -> bool {
        let removed = self.plan.keys().filter(|key| self.is_to_be_deleted(key)).count() as u64;
        matches!(self.run.deletes, Deletes::Cap(most) if removed > most)
    }

    /// A run stops for a reason, and goes on without one.
    fn check_stop(&self, stop: Option<StopReason>, seen: &Seen) -> Result<(), String> {
        let failed = |class| seen.sent.iter().any(|sent| sent.answer == Answer::Failed(class));
        let fails = |sent: &Sent| sent.op == Op::First && sent.answer == Answer::Failed(Class::Outage);
        let first_failed = seen.sent.first().is_some_and(fails);
        let is_justified = match stop {
            None => self.ending.is_none(),
            Some(StopReason::Unavailable) => failed(Class::Outage),
            Some(StopReason::Credentials) => failed(Class::Credentials),
            Some(StopReason::Cancelled) => self.run.cancelled.is_some() && !first_failed,
            Some(StopReason::DeletesRefused) => {
                (self.is_too_much() || seen.result.is_err()) && self.deletes.is_empty()
            }
            Some(_) => false,
        };
        ensure(is_justified, || format!("it stopped because of {stop:?}, with {:?}", seen.sent))
    }

    /// What became of the files.
    fn settle_files(&mut self, stop: Option<StopReason>, seen: &Seen) -> Result<(), String> {
        for (key, plan) in self.plan.clone() {
            let Plan::Send(_) = plan else { continue };
            let file = self.before.tree[key];
            let now =
                There { content: Some(file.content), stamp: Some(file.stamp), trusted: self.run.settled };
            let seen_there =
                seen.records.published.get(key).filter(|_| !seen.records.pending.contains_key(key));
            let status = self.uploads.get(key).copied();
            let is_edited = seen.edited && self.run.edited.is_some_and(|(edited, ..)| edited == key);
            match status {
                Some(Upload::Acknowledged) => {
                    // An upload that was resumed is trusted only if its file was not racy all the time.
                    let trusted = now.trusted
                        && seen_there.is_none_or(|there| there.trusted || !is_large(file.content));
                    self.publish(key, There { trusted, ..now });
                }
                Some(Upload::UnderWay) => {
                    ensure(stop.is_some() || is_edited, || format!("{key} was left half sent"))?;
                }
                Some(Upload::Failed(_) | Upload::NotTried) => {}
                None => {
                    let is_adoptable = !self.before.surveyed
                        && !self.before.is_in_doubt(key)
                        && self.before.objects.get(key).is_some_and(|object| object.content == file.content);
                    let may_be_present = self.before.is_known_to_be_published(key, self.run)
                        || is_adoptable && !self.run.force;
                    if may_be_present && (stop.is_none() || seen_there == Some(&now)) {
                        self.publish(key, now);
                        self.present.insert(key);
                    } else {
                        ensure(stop.is_some(), || format!("{key} was forgotten"))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, key: Key, there: There) {
        self.after.records.published.insert(key, there);
        self.after.records.pending.remove(key);
    }

    /// What became of keys without a file that an upload without an answer may have stored.
    fn settle_leftovers(&mut self, stop: Option<StopReason>, seen: &Seen) {
        for key in self.not_ours.clone() {
            let left = stop.is_some() && seen.records.pending.contains_key(key);
            if !left {
                self.after.records.pending.remove(key);
            }
        }
        for key in self.ours.clone() {
            let object = self.before.objects[key].content;
            let recorded = seen.records.published.get(key);
            // The proof of a multipart upload may lack the digest.
            let content = recorded.map_or(Some(object), |there| there.content.map(|_| object));
            let stamp = recorded.and_then(|there| there.stamp);
            let todo = Todo { kind: PendingKind::Removed, stamp, in_doubt: false };
            self.publish(key, There { content, stamp, trusted: false });
            let is_planned = stop.is_none() || seen.records.pending.contains_key(key);
            if is_planned && self.before.reason_to_keep(key, self.run).is_none() {
                self.after.records.pending.insert(key, todo);
            }
        }
    }

    /// Each leftover was asked for.
    fn check_leftovers(&self, stop: Option<StopReason>, seen: &Seen) -> Result<(), String> {
        let asked = |(key, plan): (&Key, &Plan)| {
            *plan != Plan::Leftover || seen.sent.iter().any(|sent| sent.keys == [*key])
        };
        // After three failures in a row nothing more is asked.
        let heads = seen.sent.iter().filter(|sent| sent.op == Op::Head);
        let failures = heads.filter(|sent| !matches!(sent.answer, Answer::Done(_))).count();
        ensure(stop.is_some() || failures >= 3 || self.plan.iter().all(asked), || {
            "a leftover was forgotten".to_owned()
        })
    }

    /// What became of the deletes.
    fn settle_deletes(&mut self, seen: &Seen) {
        for (key, answer) in self.deletes.clone() {
            let doubt = seen
                .sent
                .iter()
                .any(|sent| sent.op == Op::Delete && sent.keys.contains(&key) && sent.leaves_doubt());
            if matches!(answer, Answer::Done(_)) {
                self.after.records.published.remove(key);
                self.after.records.pending.remove(key);
            } else if let Some(todo) = self.after.records.pending.get_mut(key) {
                todo.in_doubt |= doubt;
            }
        }
    }

    /// What is to be deleted is deleted, if nothing speaks against it.
    fn check_deletes(&self, stop: Option<StopReason>) -> Result<(), String> {
        let failed = self.uploads.values().any(|upload| *upload != Upload::Acknowledged);
        let is_left = |key: &Key| self.is_to_be_deleted(key) && !self.deletes.contains_key(key);
        let waits = stop.is_some() || failed;
        ensure(waits || !self.plan.keys().any(is_left), || "a delete was forgotten".to_owned())?;
        let must_refuse = self.is_too_much() && !waits;
        ensure(!must_refuse, || "too many deletes are no reason to stop".to_owned())
    }
}
