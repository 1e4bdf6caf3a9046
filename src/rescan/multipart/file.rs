//! A file that goes up in parts: where it stands and what is to be done next. It is owned by the thread
//! that feeds the workers, so it needs no lock; the work itself is in [`crate::rescan::multipart::task`].

mod transitions;

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Receipt, SentPart, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::context::{Context, given_up};
use crate::rescan::multipart::task::{Opening, Part, Task};
use crate::rescan::upload::{Ending, Item};
use crate::state::records::{Pending, Published};
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
pub(crate) struct MultipartFile {
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
    restart: Restart,
    /// The token of an upload that is recorded and known to be gone.
    gone: Option<String>,
    /// During an outage it is hashed to its end all the same.
    hash_on: bool,
    /// It could not be hashed to its end.
    unreadable: bool,
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

impl MultipartFile {
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
            restart: Restart::Possible,
            gone: None,
            hash_on: false,
            unreadable: false,
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

    /// The next task, if there is one to be had now.
    pub(crate) fn next_task(&mut self, may_send: bool) -> Option<Task> {
        let idle = self.under_way == 0;
        let task = match self.stage {
            Stage::Prepare if idle => Task::Prepare { stat: self.item.pending.stat },
            Stage::Open if idle && may_send => Task::Open(Opening {
                plan: self.wanted,
                settled: self.item.pending.settled,
                gone: self.gone.clone(),
            }),
            Stage::Finish if idle => {
                let attempted = Pending { attempted: true, ..self.item.pending.clone() };
                self.before = attempted.clone();
                Task::Finish { parts: self.sent(), size: self.plan.size(), attempted }
            }
            Stage::Abandon if idle => Task::Abandon,
            Stage::Hash if self.failure.is_none() || self.hashes_on() => {
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

    /// The run has stopped: what is under way is waited for, nothing new is begun. With `hash_on` the file
    /// is hashed all the same.
    pub(crate) fn stop(&mut self, why: StorageError, hash_on: bool, context: &Context) {
        self.hash_on = hash_on;
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

    fn hashes_on(&self) -> bool {
        self.hash_on && !self.unreadable
    }

    fn fail(&mut self, error: StorageError) {
        let code = error.code().unwrap_or_default();
        let lost = code == "NoSuchUpload" || code.starts_with("InvalidPart");
        if lost && self.restart == Restart::Possible && self.failure.is_none() {
            self.restart = Restart::Due;
        }
        self.failure.get_or_insert(error);
    }

    fn sent(&self) -> Vec<SentPart> {
        let sent =
            |part: &Part| Some(SentPart { etag: part.held.as_ref()?.etag.clone(), sha256: part.sha256? });
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
