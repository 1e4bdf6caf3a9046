//! The tasks of a file that goes up in parts, each on one worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::backend::{
    Assembly, Begun, Finished, Intent, Journal, ListedPart, PartUpload, Receipt, Reconciled, SentPart,
    Transfers, UploadName, new_token,
};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::request_context::RequestContext;
use crate::rescan::context::{Context, given_up, open_source, panicked};
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::{OpenUpload, Pending};
use crate::tree::digest::PartPlan;
use crate::tree::source::Source;
use crate::tree::version::FileStat;
use crate::tree::version::wall_nanos;

/// What is known of a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Of the file on disk, once it was hashed.
    pub(crate) sha256: Option<[u8; 32]>,
    /// What the store has of it.
    pub(crate) held: Option<Held>,
}

/// A part that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) etag: String,
    /// Of the bytes that were sent; `None`: of this very file, whose stat could be trusted all the time.
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Part {
    /// Whether the store holds what is on disk.
    pub(crate) fn is_done(&self) -> bool {
        let holds =
            |held: &Held| self.sha256.is_some() && held.sha256.is_none_or(|sent| Some(sent) == self.sha256);
        self.held.as_ref().is_some_and(holds)
    }
}

/// How an upload is to be begun.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) plan: PartPlan,
    pub(crate) settled: bool,
    /// The token of one that is recorded and known to be gone.
    pub(crate) gone: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Task {
    Prepare { stat: FileStat },
    HashPart { number: u32, offset: u64, length: u64 },
    HashWhole,
    Open(Opening),
    SendPart { number: u32, offset: u64, length: u64, known: Part },
    Finish { parts: Vec<SentPart>, size: u64, attempted: Pending },
    Abandon,
}

/// How an upload was begun.
pub(crate) enum Opened {
    /// A new one, or one that is gone on with, with the parts that it has.
    Upload { upload: UploadName, plan: PartPlan, parts: Vec<Part> },
    /// One that turned out to be finished.
    There { upload: UploadName, receipt: Receipt, plan: PartPlan, parts: Vec<Part>, settled: bool },
}

/// How a task ended.
pub(crate) enum TaskResult {
    Prepared { source: Source, seen: i64 },
    Hashed(u32, [u8; 32]),
    Whole([u8; 32]),
    Opened(Opened),
    Sent(u32, SentPart),
    Finished(Finished),
    Abandoned { gone: bool },
    Failed(StorageError),
}

/// What a worker needs for a task.
pub(crate) struct Job {
    pub(crate) context: Arc<Context>,
    pub(crate) cache: CacheManager,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) key: RemoteKey,
    pub(crate) source: Option<Arc<Source>>,
    pub(crate) upload: Option<Arc<UploadName>>,
}

impl Job {
    /// Does one task. Never panics.
    pub(crate) fn run(self, task: Task) -> TaskResult {
        let attempt = catch_unwind(AssertUnwindSafe(|| self.attempt(task)));
        match attempt {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => TaskResult::Failed(error),
            Err(panic) => TaskResult::Failed(panicked(Operation::Upload, &*panic)),
        }
    }

    fn attempt(&self, task: Task) -> Result<TaskResult, StorageError> {
        let exchange = self.context.exchange();
        Ok(match task {
            Task::Abandon => TaskResult::Abandoned { gone: self.give_up(self.upload()?) },
            Task::Prepare { stat } => {
                exchange.check(Operation::Upload)?;
                let seen = wall_nanos(exchange.clock);
                TaskResult::Prepared { source: open_source(&self.context, &self.key, &stat)?, seen }
            }
            Task::HashPart { number, offset, length } => {
                TaskResult::Hashed(number, self.hash(&exchange, offset, length)?)
            }
            Task::HashWhole => TaskResult::Whole(self.hash(&exchange, 0, self.source()?.stat().size)?),
            Task::Open(opening) => TaskResult::Opened(self.open(&exchange, &opening)?),
            Task::SendPart { number, offset, length, known } => {
                TaskResult::Sent(number, self.send(&exchange, number, (offset, length), known)?)
            }
            Task::Finish { parts, size, attempted } => {
                self.source()?.check_unchanged()?;
                self.recorder.attempt(&self.key, attempted)?;
                let assembly = Assembly { upload: self.upload()?, parts: &parts, size };
                TaskResult::Finished(self.transfers()?.finish(&exchange, &assembly)?)
            }
        })
    }

    fn transfers(&self) -> Result<&dyn Transfers, StorageError> {
        self.context.session.backend.transfers().ok_or_else(|| missing("a store of parts"))
    }

    fn source(&self) -> Result<&Source, StorageError> {
        self.source.as_deref().ok_or_else(|| missing("an open file"))
    }

    fn upload(&self) -> Result<&UploadName, StorageError> {
        self.upload.as_deref().ok_or_else(|| missing("an upload"))
    }

    fn hash(
        &self,
        exchange: &RequestContext<'_>,
        offset: u64,
        length: u64,
    ) -> Result<[u8; 32], StorageError> {
        let source = self.source()?;
        let sha256 = source.hash_range(offset, length, |count| {
            exchange.trace.bytes_hashed(count);
            exchange.check(Operation::Read)
        })?;
        source.check_unchanged()?;
        Ok(sha256)
    }

    fn send(
        &self,
        exchange: &RequestContext<'_>,
        number: u32,
        (offset, length): (u64, u64),
        mut part: Part,
    ) -> Result<SentPart, StorageError> {
        exchange.check(Operation::Upload)?;
        if self.context.is_offline() {
            return Err(given_up(Operation::Upload));
        }
        let sha256 = match part.sha256 {
            Some(sha256) => sha256,
            None => self.hash(exchange, offset, length)?,
        };
        part.sha256 = Some(sha256);
        let (source, upload) = (self.source()?, self.upload()?);
        let done = part.is_done();
        let etag = if let Some(held) = part.held.filter(|_| done) {
            exchange.trace.progress.bytes_present(length);
            held.etag
        } else {
            let part = PartUpload { upload, source, number, offset, length, sha256: &sha256 };
            self.transfers()?.part(exchange, &part)?
        };
        let part = SentPart { etag, sha256 };
        self.recorder.part(upload, number, &part);
        exchange.trace.emit(|| Event::PartFinished {
            key: self.key.as_str().to_owned(),
            number,
            bytes: length,
            of: source.stat().size,
            resumed: done,
        });
        Ok(part)
    }

    /// Resumes an upload of this very file where there is one, or begins one; gives up all others.
    fn open(&self, exchange: &RequestContext<'_>, opening: &Opening) -> Result<Opened, StorageError> {
        exchange.check(Operation::Upload)?;
        if self.context.is_offline() {
            return Err(given_up(Operation::Upload));
        }
        let source = self.source()?;
        let headers = self.transfers()?.headers_of(&self.key)?;
        let recorded = self.cache.open_uploads(self.key.as_str())?;
        let mut found = None;
        for open in recorded.iter().rev() {
            let Some(upload_id) = open.upload_id.clone() else {
                continue;
            };
            let upload = UploadName { key: self.key.clone(), token: open.token.clone(), upload_id };
            if opening.gone.as_ref() == Some(&open.token) {
                self.recorder.closed(&self.key, &open.token);
            } else if found.is_none() && open.stat == *source.stat() && open.headers == Some(headers) {
                found = self.resume(exchange, open, upload)?;
            } else if self.give_up(&upload) {
                self.recorder.closed(&self.key, &open.token);
            }
        }
        match found {
            Some(found) => Ok(found),
            None => self.begin(exchange, opening, headers),
        }
    }

    fn begin(
        &self,
        exchange: &RequestContext<'_>,
        opening: &Opening,
        headers: [u8; 32],
    ) -> Result<Opened, StorageError> {
        let (source, plan) = (self.source()?, opening.plan);
        let token = new_token();
        let (stat, settled, part_size) = (*source.stat(), opening.settled, plan.part_size());
        let intent = Intent { token: token.clone(), stat, settled, part_size, headers };
        self.tell_start(exchange, plan.size());
        self.recorder.intend(&self.key, &intent)?;
        let Begun { upload_id, lost } = self.transfers()?.begin(exchange, &self.key, &token);
        let upload_id = upload_id.inspect_err(|_| {
            if !lost {
                self.recorder.closed(&self.key, &token);
            }
        })?;
        let upload = UploadName { key: self.key.clone(), token, upload_id };
        self.recorder.begun(&upload, lost).inspect_err(|_| {
            // What cannot be remembered must not be left behind.
            self.give_up(&upload);
        })?;
        Ok(Opened::Upload { upload, plan, parts: vec![Part::default(); plan.count() as usize] })
    }

    fn tell_start(&self, exchange: &RequestContext<'_>, bytes: u64) {
        let bucket = self.context.session.backend.transfers().map(Transfers::bucket).unwrap_or_default();
        exchange.trace.started("upload", self.key.as_str(), bucket, bytes);
        exchange.trace.emit(|| Event::UploadStarted { key: self.key.as_str().to_owned(), bytes });
    }

    /// What is left of an upload of this file; `None`: nothing.
    fn resume(
        &self,
        exchange: &RequestContext<'_>,
        open: &OpenUpload,
        upload: UploadName,
    ) -> Result<Option<Opened>, StorageError> {
        let size = open.stat.size;
        let Some(plan) = PartPlan::exactly(size, open.part_size) else {
            return Ok(None);
        };
        let mut parts = vec![Part::default(); plan.count() as usize];
        for (number, sent) in self.cache.sent_parts(&open.token)? {
            if let Some(part) = parts.get_mut((number as usize).wrapping_sub(1)) {
                // Of a file that was too young then, the stat does not tell: it is hashed again.
                let sha256 = Some(sent.sha256).filter(|_| open.settled);
                *part = Part { sha256, held: Some(Held { etag: sent.etag, sha256: Some(sent.sha256) }) };
            }
        }
        let reconciled = self.transfers()?.reconcile(exchange, &upload, size)?;
        Ok(match reconciled {
            Reconciled::Open(listed) => {
                agree(&mut parts, &plan, &listed, open.settled);
                self.tell_start(exchange, size);
                Some(Opened::Upload { upload, plan, parts })
            }
            Reconciled::Unlisted => {
                self.tell_start(exchange, size);
                Some(Opened::Upload { upload, plan, parts })
            }
            Reconciled::Finished(receipt) if open.settled || parts.iter().all(|part| part.held.is_some()) => {
                // It is made of what was sent, whatever the file holds by now.
                for part in &mut parts {
                    part.sha256 = part.held.as_ref().and_then(|held| held.sha256).or(part.sha256);
                }
                self.tell_start(exchange, size);
                Some(Opened::There { upload, receipt, plan, parts, settled: open.settled })
            }
            Reconciled::Finished(_) | Reconciled::Gone => {
                self.recorder.closed(&self.key, &open.token);
                None
            }
        })
    }

    /// Aborts an upload; whether it is gone. One that may not be aborted stays recorded.
    fn give_up(&self, upload: &UploadName) -> bool {
        let Ok(transfers) = self.transfers() else { return false };
        let result = transfers.abort(&self.context.exchange(), upload);
        if let Err(error) = &result {
            self.context.session.trace.warn(
                "an upload could not be aborted; it stays recorded, and its parts stay in the bucket",
                &[("key", &self.key), ("upload_id", &upload.upload_id), ("error", error)],
            );
        }
        result.is_ok()
    }
}

/// What cache and store both say a part is, is. One that only the store has counts where the file's stat could
/// be trusted all the time: it is hashed, and not sent again.
fn agree(parts: &mut [Part], plan: &PartPlan, listed: &[ListedPart], settled: bool) {
    let mut known = vec![None; parts.len()];
    for part in listed {
        let index = (part.number as usize).wrapping_sub(1);
        let right_size = plan.part(part.number).is_some_and(|(_, length)| length == part.size);
        if let Some(place) = known.get_mut(index).filter(|_| right_size) {
            // Where the store lists no tags, it has what was recorded.
            let recorded = parts.get(index).and_then(|part| Some(part.held.as_ref()?.etag.clone()));
            *place = part.etag.clone().or(recorded);
        }
    }
    for (part, etag) in parts.iter_mut().zip(known) {
        if etag.is_some() && part.held.as_ref().map(|held| &held.etag) == etag.as_ref() {
            continue;
        }
        *part = match etag {
            Some(etag) if settled => Part { sha256: None, held: Some(Held { etag, sha256: None }) },
            _ => Part { sha256: part.sha256, held: None },
        };
    }
}

fn missing(what: &str) -> StorageError {
    StorageError::new(ErrorKind::Other, Operation::Upload, format!("a task has not got {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(etag: &str, sha256: Option<[u8; 32]>) -> Held {
        Held { etag: etag.to_owned(), sha256 }
    }

    #[test]
    fn parts_count_where_cache_and_store_agree() {
        let plan = PartPlan::exactly(45, 10).unwrap();
        let hash = Some([1; 32]);
        let recorded = |etag: &str, settled: bool| Part {
            sha256: hash.filter(|_| settled),
            held: Some(held(etag, hash)),
        };
        let listed = |number, size, etag: &str| ListedPart { number, size, etag: Some(etag.to_owned()) };
        let at_store = [
            listed(1, 10, "a"),
            listed(2, 10, "other"),
            listed(3, 9, "c"),
            listed(4, 10, "d"),
            listed(0, 10, "x"),
            listed(6, 10, "x"),
        ];
        let agreed = |settled: bool| {
            let mut parts: Vec<_> = ["a", "b", "c"].map(|etag| recorded(etag, settled)).into();
            parts.extend([Part::default(), recorded("e", settled)]);
            agree(&mut parts, &plan, &at_store, settled);
            parts
        };
        let only_hash = Part { sha256: hash, held: None };
        let only_tag = |etag: &str| Part { sha256: None, held: Some(held(etag, None)) };
        assert_eq!(
            agreed(true),
            [recorded("a", true), only_tag("other"), only_hash.clone(), only_tag("d"), only_hash.clone()]
        );
        // A store that lists no tags: what is recorded and has the right size counts.
        let mut parts = vec![recorded("a", true), recorded("b", true), Part::default()];
        let untagged = [1, 3].map(|number| ListedPart { number, size: 10, etag: None });
        agree(&mut parts, &PartPlan::exactly(30, 10).unwrap(), &untagged, true);
        assert_eq!(parts, [recorded("a", true), only_hash, Part::default()]);
        let nothing = Part::default();
        assert_eq!(
            agreed(false),
            [recorded("a", false), nothing.clone(), nothing.clone(), nothing.clone(), nothing]
        );
    }

    #[test]
    fn part_of_a_file_that_was_too_young_is_done_once_its_hash_is_what_was_sent() {
        let part = |now: Option<[u8; 32]>| Part { sha256: now, held: Some(held("e", Some([1; 32]))) };
        assert!(part(Some([1; 32])).is_done());
        assert!(!part(None).is_done() && !part(Some([2; 32])).is_done());
        assert!(Part { sha256: Some([1; 32]), held: Some(held("e", None)) }.is_done());
    }
}
