//! Handing tasks of a large file to the workers, and doing them: a task waits for no other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{
    Assembly, Begun, Copied, Creation, DueHeaders, Finished, Intent, Journal, PartUpload, Proof, SentPart,
    Transfers, UploadName, new_token,
};
use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::conditional_writes::{write_key, write_part};
use crate::rescan::context::{Context, given_up, open_source};
use crate::rescan::multipart::queue::{MultipartQueue, Permit};
use crate::rescan::multipart::task::{Answer, Opened, Opening, Part, Parts, Piece, Prepared, Task};
use crate::rescan::plan::headers::copyable_etag;
use crate::rescan::upload::headers::update_headers;
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::{Pending, Published};
use crate::tree::source::Source;
use crate::tree::version::{FileStat, wall_nanos};

/// Hands tasks to the workers for one large file, as the queue permits, and waits for the answers. No worker does.
pub(crate) struct TaskRunner {
    /// The file's place in the queue.
    pub(crate) number: u64,
    pub(crate) queue: MultipartQueue,
    pub(crate) engine: Engine,
    pub(crate) worker: Arc<Worker>,
    pub(crate) has_fallback: bool,
}

impl TaskRunner {
    pub(crate) fn context(&self) -> &Context {
        &self.worker.context
    }

    pub(crate) fn set_left(&self, parts: usize) {
        self.queue.set_left(self.number, parts);
    }

    /// Has a worker do something, and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Worker) -> Result<T, StorageError> + Send + 'static,
    ) -> Result<T, StorageError> {
        let answers = BatchQueue::new();
        self.submit(self.queue.permit(self.number), &answers, work);
        // There is an answer: the wait has no other end.
        answers.take(1, Duration::MAX).pop().unwrap_or_else(|| Err(given_up(Operation::Upload)))
    }

    /// Hands out a task for each piece and waits for all answers. Parts are sent where there is an upload, else
    /// hashed. After the first failure nothing more is handed out.
    pub(crate) fn run_all(
        &self,
        source: &Arc<Source>,
        upload: Option<&Arc<UploadName>>,
        parts: &mut Parts,
        pieces: Vec<Piece>,
    ) -> Result<(), StorageError> {
        let (mut pieces, answers) = (pieces.into_iter(), BatchQueue::<Result<Answer, _>>::new());
        let _end = answers.wait_at_end();
        let (mut under_way, mut result) = (0, Ok(()));
        loop {
            let more = result.is_ok() && pieces.len() > 0;
            if !more && under_way == 0 {
                return result;
            }
            let permit = more.then(|| self.queue.permit(self.number));
            // With a permit in hand, only what has come meanwhile is looked at: it may be a failure.
            let patience = if more { Duration::ZERO } else { Duration::MAX };
            for answer in answers.take(1, patience) {
                under_way -= 1;
                result = result.and(answer.map(|answer| parts.note(answer)));
            }
            if let Some(permit) = permit {
                result = result.and_then(|()| self.check_running(upload.is_some()));
                if result.is_ok()
                    && let Some(task) = pieces.next().and_then(|piece| Task::of(piece, parts, upload))
                {
                    let source = source.clone();
                    self.submit(permit, &answers, move |worker| worker.perform(&source, task));
                    under_way += 1;
                }
            }
            if upload.is_some() {
                self.set_left(pieces.len() + under_way);
            }
        }
    }

    fn submit<T: Send + 'static>(
        &self,
        permit: Permit,
        answers: &BatchQueue<Result<T, StorageError>>,
        work: impl FnOnce(&Worker) -> Result<T, StorageError> + Send + 'static,
    ) {
        let worker = self.worker.clone();
        answers.submit_with(&self.engine, permit, move || worker.attempt(work));
    }

    /// An error if the run has stopped. Hashing goes on where it is wanted all the same.
    fn check_running(&self, sends: bool) -> Result<(), StorageError> {
        if !sends && self.hashes_on() {
            return self.context().request_context().check(Operation::Read);
        }
        self.context().check_running()
    }

    /// Returns whether files are hashed although nothing is sent.
    pub(crate) fn hashes_on(&self) -> bool {
        // The dispatcher notices an open circuit, which ends the run, only when it looks.
        let is_outage = || self.context().session.gate.is_circuit_open();
        self.queue.hashes_on() || (self.has_fallback && is_outage())
    }
}

/// Does the tasks of one large file, on whichever worker they run.
pub(crate) struct Worker {
    pub(crate) context: Arc<Context>,
    pub(crate) cache: CacheManager,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) key: RemoteKey,
}

impl Worker {
    /// Does something for the file. Never panics.
    pub(crate) fn attempt<T>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        catch_unwind(AssertUnwindSafe(|| work(self)))
            .unwrap_or_else(|panic| Err(panicked(Operation::Upload, &*panic)))
    }

    /// Opens the file, if it is as it was planned.
    pub(crate) fn prepare(&self, planned: &FileStat) -> Result<Prepared, StorageError> {
        let request_context = self.context.request_context();
        request_context.check(Operation::Upload)?;
        let seen = wall_nanos(request_context.clock);
        Ok(Prepared { source: open_source(&self.context, &self.key, planned)?, seen })
    }

    /// Hashes or sends a piece of the file.
    pub(crate) fn perform(&self, source: &Source, task: Task) -> Result<Answer, StorageError> {
        Ok(match task {
            Task::HashFile => Answer::FileHashed(self.hash(source, 0, source.stat().size)?),
            Task::HashPart { number, offset, length } => {
                Answer::PartHashed(number, self.hash(source, offset, length)?)
            }
            Task::SendPart { upload, number, offset, length, known } => {
                self.context.check_running()?;
                let sha256 = match known.sha256 {
                    Some(sha256) => sha256,
                    None => self.hash(source, offset, length)?,
                };
                let part = PartUpload { upload: &upload, source, number, offset, length, sha256: &sha256 };
                Answer::PartSent(number, self.send(&part, known)?)
            }
        })
    }

    fn hash(&self, source: &Source, offset: u64, length: u64) -> Result<[u8; 32], StorageError> {
        let request_context = self.context.request_context();
        let sha256 = source.hash_range(offset, length, |count| {
            request_context.trace.bytes_hashed(count);
            request_context.check(Operation::Read)
        })?;
        source.check_unchanged()?;
        Ok(sha256)
    }

    /// Sends a part, unless its hash shows that the store has it.
    fn send(&self, part: &PartUpload<'_>, known: Part) -> Result<SentPart, StorageError> {
        let request_context = self.context.request_context();
        let known = Part { sha256: Some(*part.sha256), ..known };
        let done = known.is_done();
        let etag = if let Some(held) = known.held.filter(|_| done) {
            request_context.trace.progress.bytes_present(part.length);
            held.etag
        } else {
            let transfers = self.transfers()?;
            write_part(&self.context, |request_context| transfers.part(request_context, part))?
        };
        let sent = SentPart { etag, sha256: *part.sha256 };
        self.recorder.part(part.upload, part.number, &sent);
        self.tell_part(part.source, part.number, part.length, done);
        Ok(sent)
    }

    /// Creates an upload. Its intent is durable before the request is sent, and its ID before any part is.
    pub(crate) fn create(
        &self,
        source: &Source,
        opening: Opening,
        headers: DueHeaders,
    ) -> Result<Opened, StorageError> {
        let Opening { not_racy, parts, .. } = opening;
        let (token, stat, part_size) = (new_token(), *source.stat(), parts.plan.part_size());
        let digest = headers.digest;
        let intent = Intent { token: token.clone(), stat, not_racy, part_size, headers: digest };
        self.tell_start(stat.size);
        self.recorder.intend(&self.key, &intent)?;
        // A racy file may have changed since it was hashed, and its upload may be resumed with the new content.
        let digest = parts.known_digest().filter(|_| not_racy);
        let proof = Proof::of_parts(digest, &parts.plan, &self.context.token);
        let creation = Creation { token: &token, proof: &proof };
        let transfers = self.transfers()?;
        let begin =
            |request_context: &RequestContext<'_>| transfers.begin(request_context, &self.key, &creation);
        let Begun { upload_id, lost } = write_part(&self.context, begin);
        let upload_id = upload_id.inspect_err(|_| {
            if !lost {
                self.recorder.closed(&self.key, &token);
            }
        })?;
        let upload = UploadName { key: self.key.clone(), token, upload_id };
        self.recorder.begun(&upload, lost).inspect_err(|_| {
            // What cannot be remembered must not be left behind.
            self.abort(&upload);
        })?;
        Ok(Opened { upload, parts, completed: None, headers })
    }

    /// Makes the object of its parts. The key is marked as attempted, durably, before the request is sent.
    pub(crate) fn complete(
        &self,
        source: &Source,
        upload: &UploadName,
        parts: &[SentPart],
        attempted: Pending,
    ) -> Result<Finished, StorageError> {
        source.check_unchanged()?;
        self.recorder.attempt(&self.key, attempted)?;
        let (size, transfers) = (source.stat().size, self.transfers()?);
        let there = || self.cache.published_record(self.key.as_str());
        write_key(&self.context, &self.key, there, |request_context, condition| {
            transfers.finish(request_context, &Assembly { upload, parts, size, condition })
        })
    }

    /// Gives the object other headers by a copy in place. The key is marked as attempted, durably, before the request is
    /// sent.
    pub(crate) fn update_headers(
        &self,
        there: &Published,
        attempted: Pending,
    ) -> Result<Copied, StorageError> {
        if copyable_etag(self.transfers()?, there).is_none() {
            return Ok(Copied::Refused);
        }
        self.recorder.attempt(&self.key, attempted)?;
        update_headers(&self.context, &self.key, there)
    }

    /// Aborts an upload, and says whether it is gone. One that may not be aborted stays recorded.
    pub(crate) fn abort(&self, upload: &UploadName) -> bool {
        let Ok(transfers) = self.transfers() else { return false };
        let result = transfers.abort(&self.context.request_context(), upload);
        if let Err(error) = &result {
            self.context.session.trace.warn(
                "an upload could not be aborted; it stays recorded, and its parts stay in the bucket",
                &[("key", &self.key), ("upload_id", &upload.upload_id), ("error", error)],
            );
        }
        result.is_ok()
    }

    pub(crate) fn transfers(&self) -> Result<&dyn Transfers, StorageError> {
        self.context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Other, Operation::Upload, "this backend has no multipart uploads")
        })
    }

    pub(crate) fn tell_start(&self, bytes: u64) {
        let (session, key) = (&self.context.session, self.key.as_str());
        let bucket = session.backend.transfers().map(Transfers::bucket).unwrap_or_default();
        session.trace.started("upload", key, bucket, bytes);
        session.trace.emit(|| Event::UploadStarted { key: key.to_owned(), bytes });
    }

    /// Tells observers of a part that the store has.
    pub(crate) fn tell_part(&self, source: &Source, number: u32, bytes: u64, resumed: bool) {
        self.context.session.trace.emit(|| Event::PartFinished {
            key: self.key.as_str().to_owned(),
            number,
            bytes,
            of: source.stat().size,
            resumed,
        });
    }
}
