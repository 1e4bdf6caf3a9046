//! A file that goes up in parts: where it stands and what is to be done next. It is owned by the thread
//! that feeds the workers, so it needs no lock; the work itself is in [`super::parts`].

use std::sync::Arc;
use std::time::Duration;

use super::parts::{Opened, Opening, Outcome, Part, Task};
use super::record::{Pending, Published};
use super::work::{Context, Ending, Item, given_up};
use crate::backend::{Receipt, SentPart, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// What is being done; each stage but `Hash` and `Send` is one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The file is opened and looked at.
    Prepare,
    /// It may be published as it is: it is hashed to find out, its parts in parallel.
    Hash,
    /// An upload is begun, or gone on with.
    Open,
    /// Parts are hashed, where that was not done, and sent.
    Send,
    /// The object is made of them.
    Finish,
    /// The upload is given up.
    Abandon,
    Ended,
}

/// The plain digest of the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    NotWanted,
    Wanted,
    UnderWay,
    Known([u8; 32]),
}

/// An upload that is gone, or lost parts, is begun again, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Possible,
    Due,
    Done,
}

#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; what excludes another is an enum"
)]
pub(crate) struct Large {
    pub(crate) item: Item,
    before: Pending,
    stage: Stage,
    /// Tasks given out and not answered.
    under_way: u32,
    /// The next part to look at in this stage, from 0.
    next: usize,
    source: Option<Arc<Source>>,
    /// How it is to be sent, unless an upload that was begun before has another plan.
    wanted: PartPlan,
    plan: PartPlan,
    parts: Vec<Part>,
    /// Hashed as one part, to be compared with a plain digest.
    plain: bool,
    upload: Option<Arc<UploadName>>,
    /// It was finished before, and that is only known now.
    there: Option<Receipt>,
    whole: Whole,
    confirmed: bool,
    /// The first upload of the run is under way; this one waits for its end.
    waits_for_probe: bool,
    restart: Restart,
    /// The token of an upload that is recorded and known to be gone.
    gone: Option<String>,
    /// During an outage it is hashed to its end all the same.
    hashes_on: bool,
    /// The upload is finished or aborted.
    closed: bool,
    request_id: String,
    began: Option<Duration>,
    failure: Option<StorageError>,
}

/// A large file that is done with, well or not.
pub(crate) struct Settled {
    pub(crate) item: Item,
    pub(crate) before: Pending,
    pub(crate) ending: Ending,
    /// The upload that is no more, to be recorded so.
    pub(crate) closed: Option<Arc<UploadName>>,
    /// When it was begun, if it came to that.
    pub(crate) began: Option<Duration>,
    /// The store's id of the request that finished it.
    pub(crate) request_id: String,
}

impl Large {
    pub(crate) fn new(item: Item, plan: PartPlan, whole: bool) -> Self {
        Self {
            before: item.pending.clone(),
            item,
            stage: Stage::Prepare,
            under_way: 0,
            next: 0,
            source: None,
            wanted: plan,
            plan,
            parts: vec![Part::default(); plan.count() as usize],
            plain: false,
            upload: None,
            there: None,
            whole: if whole { Whole::Wanted } else { Whole::NotWanted },
            confirmed: false,
            waits_for_probe: false,
            restart: Restart::Possible,
            gone: None,
            hashes_on: false,
            closed: false,
            request_id: String::new(),
            began: None,
            failure: None,
        }
    }

    /// How many parts it may still give work for.
    pub(crate) fn parts_to_come(&self) -> usize {
        match self.stage {
            Stage::Send => self.parts.iter().filter(|part| !part.is_done()).count().max(1),
            Stage::Prepare | Stage::Hash | Stage::Open => self.parts.len(),
            Stage::Finish | Stage::Abandon | Stage::Ended => 1,
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// The next task, if there is one to be had now. `probing`: the first upload of the run is under way.
    pub(crate) fn next_task(&mut self, probing: bool) -> Option<Task> {
        let idle = self.under_way == 0;
        let task = match self.stage {
            Stage::Prepare if idle => Task::Prepare { stat: self.item.pending.stat },
            Stage::Open if idle && !(self.waits_for_probe && probing) => Task::Open(Opening {
                plan: self.wanted,
                settled: self.item.pending.settled,
                gone: self.gone.clone(),
            }),
            Stage::Finish if idle => {
                // From now on the store may hold either version.
                self.item.pending.doubt |= self.item.published.is_some();
                Task::Finish { parts: self.sent(), size: self.plan.size() }
            }
            Stage::Abandon if idle => Task::Abandon,
            Stage::Hash if self.failure.is_none() || self.hashes_on => {
                self.next_part(|part| part.sha256.is_none())?
            }
            Stage::Send if self.failure.is_none() && self.whole == Whole::Wanted => {
                self.whole = Whole::UnderWay;
                Task::HashWhole
            }
            Stage::Send if self.failure.is_none() => self.next_part(|part| !part.is_done())?,
            _ => return None,
        };
        self.under_way += 1;
        Some(task)
    }

    fn next_part(&mut self, lacks: impl Fn(&Part) -> bool) -> Option<Task> {
        let index = self.next + self.parts.get(self.next..)?.iter().position(lacks)?;
        self.next = index + 1;
        let number = u32::try_from(self.next).ok()?;
        let (offset, length) = self.plan.part(number)?;
        Some(match self.stage {
            Stage::Hash => Task::HashPart { number, offset, length },
            _ => Task::SendPart { number, offset, length, known: self.parts[index].clone() },
        })
    }

    /// What a task's worker needs besides the task.
    pub(crate) fn tools(&self) -> (Option<Arc<Source>>, Option<Arc<UploadName>>) {
        (self.source.clone(), self.upload.clone())
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.next = 0;
    }

    /// Takes the answer of a task.
    pub(crate) fn absorb(&mut self, outcome: Outcome, context: &Context) {
        self.under_way -= 1;
        match outcome {
            Outcome::Failed(error) => self.fail(error),
            Outcome::Prepared { source, seen } => self.prepared(source, seen, context),
            Outcome::Hashed(number, sha256) => {
                self.part_mut(number).sha256 = Some(sha256);
            }
            Outcome::Whole(sha256) => self.whole = Whole::Known(sha256),
            Outcome::Opened(opened, as_probe) => {
                self.item.is_probe |= as_probe;
                match opened {
                    Ok(opened) => self.opened(opened, context),
                    Err(error) => self.fail(error),
                }
            }
            Outcome::Sent(number, SentPart { etag, sha256 }) => {
                *self.part_mut(number) = Part { sha256: Some(sha256), etag: Some(etag), claimed: false };
            }
            Outcome::Finished(finished) => {
                (self.there, self.closed) = (Some(finished.receipt), true);
                self.request_id = finished.request_id;
                self.enter(Stage::Ended);
            }
            Outcome::Abandoned { gone } => {
                self.closed = gone;
                self.enter(Stage::Ended);
            }
        }
        self.advance(context);
    }

    fn part_mut(&mut self, number: u32) -> &mut Part {
        // Numbers come back as they were given out.
        &mut self.parts[number as usize - 1]
    }

    /// The run has stopped: what is under way is waited for, nothing new is begun. With `hash_on` the file
    /// is hashed all the same.
    pub(crate) fn stop(&mut self, why: StorageError, hash_on: bool, context: &Context) {
        self.hashes_on = hash_on;
        let goes_on = match self.stage {
            Stage::Prepare | Stage::Hash => hash_on,
            Stage::Open | Stage::Send => false,
            Stage::Finish | Stage::Abandon | Stage::Ended => true,
        };
        if !goes_on {
            self.fail(why);
            self.advance(context);
        }
    }

    fn fail(&mut self, error: StorageError) {
        let code = error.code().unwrap_or_default();
        let lost = code == "NoSuchUpload" || code.starts_with("InvalidPart");
        if lost && self.restart == Restart::Possible && self.failure.is_none() {
            self.restart = Restart::Due;
        }
        self.failure.get_or_insert(error);
    }

    /// What is published already, if it is to be believed and may be what is on disk.
    fn believed(&self) -> Option<&Published> {
        let size = self.plan.size();
        self.item.published.as_ref().filter(|there| !self.item.pending.doubt && there.stat.size == size)
    }

    fn prepared(&mut self, source: Source, seen: i64, context: &Context) {
        let known = self.item.pending.known();
        self.item.pending.settled = source.stat().is_settled(seen);
        self.source = Some(Arc::new(source));
        let believed = self.believed().map(|there| there.digest);
        let known = known.filter(|known| believed.is_none_or(|there| there.part_size() == known.part_size()));
        match (believed, known) {
            (Some(there), Some(known)) if there == known => self.confirm(),
            (Some(there), None) => {
                let part_size = there.part_size().unwrap_or(self.plan.size());
                self.plain = there.part_size().is_none();
                if let Some(plan) = PartPlan::exactly(self.plan.size(), part_size) {
                    self.cut(plan);
                }
                self.enter(Stage::Hash);
            }
            (None, None) if context.is_offline() => self.enter(Stage::Hash),
            _ => self.enter(Stage::Open),
        }
    }

    fn confirm(&mut self) {
        self.confirmed = true;
        self.enter(Stage::Ended);
    }

    /// Forgets what is known of parts that another plan has.
    fn cut(&mut self, plan: PartPlan) {
        if plan != self.plan {
            self.parts = vec![Part::default(); plan.count() as usize];
            self.plan = plan;
        }
    }

    fn opened(&mut self, opened: Opened, context: &Context) {
        self.waits_for_probe = matches!(opened, Opened::NotYet);
        match opened {
            Opened::NotYet => {}
            Opened::Upload { upload, plan, parts } => {
                self.adopt(plan, parts);
                self.upload = Some(Arc::new(upload));
                self.began.get_or_insert(context.clock.now());
                self.enter(Stage::Send);
            }
            Opened::There { upload, receipt, plan, parts } => {
                self.adopt(plan, parts);
                self.upload = Some(Arc::new(upload));
                self.began.get_or_insert(context.clock.now());
                (self.there, self.closed) = (Some(receipt), true);
                self.enter(Stage::Hash);
            }
        }
    }

    /// Takes over the parts of an upload, and keeps the hashes that are known by now.
    fn adopt(&mut self, plan: PartPlan, parts: Vec<Part>) {
        self.plain = false;
        self.cut(plan);
        for (own, found) in self.parts.iter_mut().zip(parts) {
            let sha256 = found.sha256.or(own.sha256);
            *own = Part { sha256, ..found };
        }
    }

    /// Goes on to the next stage where this one is done.
    fn advance(&mut self, context: &Context) {
        if self.under_way > 0 || matches!(self.stage, Stage::Ended | Stage::Abandon) {
            return;
        }
        let all_hashed = self.parts.iter().all(|part| part.sha256.is_some());
        match self.stage {
            Stage::Hash if all_hashed => self.hashed(context),
            Stage::Hash if self.hashes_on => {}
            _ if self.failure.is_some() => self.fall_back(context),
            Stage::Send if self.parts.iter().all(Part::is_done) && self.whole != Whole::Wanted => {
                self.enter(Stage::Finish);
            }
            _ => {}
        }
    }

    fn hashed(&mut self, context: &Context) {
        let digest = self.digest();
        self.item.pending.digest = Some(digest);
        if self.there.is_some() || self.failure.is_some() {
            self.enter(Stage::Ended);
        } else if self.believed().is_some_and(|there| there.digest == digest) {
            self.confirm();
        } else if context.is_offline() {
            self.fail(given_up(Operation::Upload));
            self.fall_back(context);
        } else {
            self.plain = false;
            self.cut(self.wanted);
            self.enter(Stage::Open);
        }
    }

    /// Nothing is under way any more, and something failed.
    fn fall_back(&mut self, context: &Context) {
        let failure = self.failure.as_ref();
        if self.restart == Restart::Due && context.may_send() {
            return self.begin_again();
        }
        let keep = failure.is_some_and(is_resumable);
        let outage = failure.is_some_and(|error| error.kind().is_transient());
        if self.upload.is_some() && !keep && !self.closed {
            self.enter(Stage::Abandon);
        } else if self.hashes_on && outage && self.source.is_some() {
            self.enter(Stage::Hash);
            self.advance(context);
        } else {
            self.enter(Stage::Ended);
        }
    }

    /// The upload, or parts of it, are gone; what was hashed still counts.
    fn begin_again(&mut self) {
        self.restart = Restart::Done;
        let failure = self.failure.take();
        let gone = failure.is_some_and(|error| error.code() == Some("NoSuchUpload"));
        self.gone = self.upload.take().filter(|_| gone).map(|upload| upload.token.clone());
        for part in &mut self.parts {
            *part = Part { sha256: part.sha256.filter(|_| !part.claimed), ..Part::default() };
        }
        self.cut(self.wanted);
        self.enter(Stage::Open);
    }

    fn sent(&self) -> Vec<SentPart> {
        let sent = |part: &Part| Some(SentPart { etag: part.etag.clone()?, sha256: part.sha256? });
        self.parts.iter().filter_map(sent).collect()
    }

    fn digest(&self) -> Digest {
        let hashes: Vec<_> = self.parts.iter().filter_map(|part| part.sha256).collect();
        match hashes.as_slice() {
            [only] if self.plain => Digest::whole(*only),
            all => Digest::of_parts(&self.plan, all),
        }
    }

    /// What came of it; asked once, at the end.
    pub(crate) fn settled(mut self, context: &Context) -> Settled {
        let ending = self.ending(context);
        Settled {
            closed: self.upload.filter(|_| self.closed),
            item: self.item,
            before: self.before,
            ending,
            began: self.began,
            request_id: self.request_id,
        }
    }

    fn ending(&mut self, context: &Context) -> Ending {
        let (stat, settled) = (self.item.pending.stat, self.item.pending.settled);
        let record = |digest, etag| context.published(stat, settled, digest, etag);
        if let Some(error) = self.failure.take() {
            return Ending::Failed(error.with_key(self.item.key.as_str()));
        }
        if let Some(receipt) = self.there.take() {
            let whole = if let Whole::Known(sha256) = self.whole { Some(sha256) } else { None };
            let published = Published { whole, ..record(self.digest(), receipt.etag.clone()) };
            return Ending::Uploaded(published, receipt);
        }
        match self.item.published.as_ref().filter(|_| self.confirmed) {
            Some(there) => {
                let published = record(there.digest, there.etag.clone());
                Ending::Confirmed(Published { whole: there.whole, ..published })
            }
            None => Ending::Failed(given_up(Operation::Upload).with_key(self.item.key.as_str())),
        }
    }
}

/// Whether an upload that failed so is kept, for the next rescan to go on with.
fn is_resumable(error: &StorageError) -> bool {
    let kind = error.kind();
    kind.is_transient()
        || error.is_not_tried()
        || matches!(
            kind,
            ErrorKind::Credentials | ErrorKind::ClockSkew | ErrorKind::Cache | ErrorKind::Panicked
        )
}
