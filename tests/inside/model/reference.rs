//! The reference model: what the tree is, what is published, pending and in doubt, what the bucket holds, and what a
//! rescan makes of it. It is pure. The requests of a run and their answers are its input, so that it has one result
//! where the order of requests and the faults have many.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::{Content, Deletes, Excluded, Key, Mode, Op, Run, Step};
use crate::{ErrorKind, KeptReason, KeyState, PendingKind, RescanOutcome, StopReason};

/// Numbers the stats of files: each edit gives a file another one.
pub(super) type Stamp = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Content,
    pub(super) stamp: Stamp,
}

/// A published version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct There {
    /// `None` if the record has no digest.
    pub(super) content: Option<Content>,
    /// `None` for a stat that no file ever had.
    pub(super) stamp: Option<Stamp>,
    /// An equal stat means equal content.
    pub(super) trusted: bool,
}

/// Work that is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Todo {
    pub(super) kind: PendingKind,
    pub(super) stamp: Option<Stamp>,
    /// A request without an answer may have changed the object.
    pub(super) in_doubt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) content: Content,
    /// A run of ours has stored it.
    pub(super) ours: bool,
}

/// A request and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) op: Op,
    pub(super) keys: Vec<Key>,
    pub(super) answer: Answer,
    /// The fault, where it failed by one.
    pub(super) mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Acknowledged. HEAD: there is an object. Reconcile: the upload was completed.
    Done(bool),
    Failed(Class),
    /// The run had stopped.
    NotTried,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Outage,
    Refused,
    Credentials,
    /// The file changed.
    Source,
}

impl Sent {
    pub(super) fn took_effect(&self) -> bool {
        matches!(self.answer, Answer::Done(_)) || self.mode == Some(Mode::Lost)
    }

    pub(super) fn leaves_doubt(&self) -> bool {
        self.mode.is_some_and(Mode::leaves_doubt)
    }
}

/// The records of the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) published: BTreeMap<Key, There>,
    pub(super) pending: BTreeMap<Key, Todo>,
}

/// Everything that a run shows.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) sent: Vec<Sent>,
    pub(super) edited: bool,
    pub(super) result: Result<Report, ErrorKind>,
    pub(super) records: Records,
    pub(super) surveyed: bool,
    pub(super) synced: bool,
    /// The catalog: the state of each key, and the content that its URL serves, if the catalog says so.
    pub(super) catalog: BTreeMap<Key, (KeyState, Option<Content>)>,
    pub(super) objects: BTreeMap<Key, Object>,
    /// Multipart uploads at the store whose upload ID was received, and those in the cache.
    pub(super) uploads: Vec<Key>,
    pub(super) recorded_uploads: u64,
}

#[derive(Debug)]
pub(super) struct Report {
    pub(super) outcome: RescanOutcome,
    pub(super) stop: Option<StopReason>,
    pub(super) scanned: u64,
    pub(super) unchanged: u64,
    pub(super) uploaded: BTreeMap<Key, PendingKind>,
    pub(super) adopted: BTreeSet<Key>,
    pub(super) deleted: BTreeSet<Key>,
    pub(super) kept: BTreeMap<Key, KeptReason>,
    pub(super) failed: u64,
    pub(super) pending: u64,
    pub(super) bytes_hashed: u64,
    pub(super) requests: u64,
    pub(super) commits: u64,
}

/// What a run decides for a key before it sends anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Unchanged,
    Send(PendingKind),
    Remove,
    Keep(KeptReason),
    /// Kept, and an earlier delete or upload is still in doubt.
    KeepInDoubt(KeptReason),
    /// Never acknowledged, and its file is gone: the store is asked.
    Leftover,
    /// Nothing is left to do.
    Forget,
}

#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) tree: BTreeMap<Key, File>,
    pub(super) excluded: BTreeMap<Key, Excluded>,
    pub(super) records: Records,
    pub(super) objects: BTreeMap<Key, Object>,
    /// The prefix was listed.
    pub(super) surveyed: bool,
    pub(super) recorded_uploads: u64,
    /// Multipart uploads that can be resumed while their file has this stat.
    pub(super) open: BTreeMap<Key, Stamp>,
    pub(super) stamps: Stamp,
}

/// Returns true if one of the names is a folder of the other.
pub(super) fn are_in_each_others_way(a: Key, b: Key) -> bool {
    let below = |key: Key, above: Key| key.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    below(a, b) || below(b, a)
}

impl State {
    /// Applies an edit of the tree, or an object of somebody else. Returns false if there is nothing to do.
    pub(super) fn edit(&mut self, step: Step) -> bool {
        match step {
            Step::Write(key, content) | Step::Replace(key, content) => self.write(key, content),
            Step::Rename(from, to) => {
                let Some(file) = self.tree.get(from).copied() else { return false };
                if from == to || are_in_each_others_way(from, to) {
                    return false;
                }
                self.tree.remove(from);
                self.write(to, file.content);
            }
            Step::Chmod(key) | Step::Touch(key) => match self.tree.get(key).copied() {
                Some(file) => self.write(key, file.content),
                None => return false,
            },
            Step::Delete(key) => return self.tree.remove(key).is_some(),
            Step::Exclude(top, how) => return self.excluded.insert(top, how) != Some(how),
            Step::Stranger(key, content) => {
                if self.records.published.contains_key(key) {
                    return false;
                }
                self.objects.insert(key, Object { content, ours: false });
            }
            Step::Rescan(_) => return false,
        }
        true
    }

    pub(super) fn write(&mut self, key: Key, content: Content) {
        self.stamps += 1;
        self.tree.retain(|other, _| !are_in_each_others_way(other, key));
        self.tree.insert(key, File { content, stamp: self.stamps });
    }

    pub(super) fn is_excluded(&self, key: Key) -> bool {
        let top = key.split('/').next().unwrap_or(key);
        self.excluded.get(top).is_some_and(|how| *how != Excluded::No)
    }

    /// The files that may be published.
    pub(super) fn files(&self) -> impl Iterator<Item = (Key, File)> {
        self.tree.iter().map(|(key, file)| (*key, *file)).filter(|(key, _)| !self.is_excluded(key))
    }

    /// What a run decides. An error: the root looks like a disk that is not mounted.
    pub(super) fn plan(&self, run: &Run) -> Result<BTreeMap<Key, Plan>, ErrorKind> {
        let files: BTreeMap<_, _> = self.files().collect();
        if files.is_empty() && !self.records.published.is_empty() && !run.allow_empty {
            return Err(ErrorKind::RootEmpty);
        }
        let Records { published, pending } = &self.records;
        let keys: BTreeSet<_> = files.keys().chain(published.keys()).chain(pending.keys()).copied().collect();
        Ok(keys.into_iter().map(|key| (key, self.plan_key(key, files.get(key).copied(), run))).collect())
    }

    fn plan_key(&self, key: Key, file: Option<File>, run: &Run) -> Plan {
        let in_doubt = self.is_in_doubt(key);
        match (file, self.records.published.get(key)) {
            (Some(_), None) => Plan::Send(PendingKind::Added),
            (Some(file), Some(there)) => {
                let same = there.trusted && there.stamp == Some(file.stamp) && !in_doubt && !run.force;
                if same { Plan::Unchanged } else { Plan::Send(PendingKind::Modified) }
            }
            (None, Some(_)) => match self.reason_to_keep(key, run) {
                Some(reason) if in_doubt => Plan::KeepInDoubt(reason),
                Some(reason) => Plan::Keep(reason),
                None => Plan::Remove,
            },
            (None, None) if in_doubt => Plan::Leftover,
            (None, None) => Plan::Forget,
        }
    }

    pub(super) fn is_in_doubt(&self, key: Key) -> bool {
        self.records.pending.get(key).is_some_and(|todo| todo.in_doubt)
    }

    /// The reason to keep a published object whose file is not there.
    pub(super) fn reason_to_keep(&self, key: Key, run: &Run) -> Option<KeptReason> {
        if self.is_excluded(key) {
            return Some(KeptReason::Excluded);
        }
        (run.deletes == Deletes::Off).then_some(KeptReason::DeletesOff)
    }

    /// The published version is believed, and is what the file holds: it is not sent.
    pub(super) fn is_known_to_be_published(&self, key: Key, run: &Run) -> bool {
        let (there, file) = (self.records.published.get(key), self.tree.get(key));
        let same = there.zip(file).is_some_and(|(there, file)| there.content == Some(file.content));
        same && !self.is_in_doubt(key) && !run.force
    }

    /// The records as the plan leaves them, before the first request.
    pub(super) fn planned(&self, plan: &BTreeMap<Key, Plan>) -> Records {
        let mut records = self.records.clone();
        for (key, plan) in plan {
            let published = self.records.published.get(key).and_then(|there| there.stamp);
            let (before, in_doubt) = (self.records.pending.get(key), self.is_in_doubt(key));
            let todo = match plan {
                Plan::Send(kind) => Todo { kind: *kind, stamp: Some(self.tree[key].stamp), in_doubt },
                Plan::Remove => Todo { kind: PendingKind::Removed, stamp: published, in_doubt },
                Plan::KeepInDoubt(_) => Todo { kind: PendingKind::Unsettled, stamp: published, in_doubt },
                Plan::Leftover => {
                    let stamp = before.and_then(|todo| todo.stamp);
                    Todo { kind: PendingKind::Unsettled, stamp, in_doubt }
                }
                Plan::Unchanged | Plan::Keep(_) | Plan::Forget => {
                    records.pending.remove(key);
                    continue;
                }
            };
            records.pending.insert(key, todo);
        }
        records
    }
}

pub(super) fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
