//! What a worker does for a large file: one task at a time, which waits for no other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::backend::{
    Assembly, Begun, Finished, Intent, Journal, PartUpload, SentPart, Transfers, UploadName, new_token,
};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::rescan::context::{Context, open_source, panicked};
use crate::rescan::multipart::task::{Answer, Opened, Opening, Part, Prepared, Task};
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::Pending;
use crate::tree::source::Source;
use crate::tree::version::{FileStat, wall_nanos};

/// What the tasks of one large file need.
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
        let exchange = self.context.exchange();
        exchange.check(Operation::Upload)?;
        let seen = wall_nanos(exchange.clock);
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
        let exchange = self.context.exchange();
        let sha256 = source.hash_range(offset, length, |count| {
            exchange.trace.bytes_hashed(count);
            exchange.check(Operation::Read)
        })?;
        source.check_unchanged()?;
        Ok(sha256)
    }

    /// Sends a part, unless its hash shows that the store has it.
    fn send(&self, part: &PartUpload<'_>, known: Part) -> Result<SentPart, StorageError> {
        let exchange = self.context.exchange();
        let known = Part { sha256: Some(*part.sha256), ..known };
        let done = known.is_done();
        let etag = if let Some(held) = known.held.filter(|_| done) {
            exchange.trace.progress.bytes_present(part.length);
            held.etag
        } else {
            self.transfers()?.part(&exchange, part)?
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
        headers: [u8; 32],
    ) -> Result<Opened, StorageError> {
        let Opening { settled, parts, .. } = opening;
        let (token, stat, part_size) = (new_token(), *source.stat(), parts.plan.part_size());
        let intent = Intent { token: token.clone(), stat, settled, part_size, headers };
        self.tell_start(stat.size);
        self.recorder.intend(&self.key, &intent)?;
        let Begun { upload_id, lost } = self.transfers()?.begin(&self.context.exchange(), &self.key, &token);
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
        Ok(Opened { upload, parts, completed: None })
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
        let assembly = Assembly { upload, parts, size: source.stat().size };
        self.transfers()?.finish(&self.context.exchange(), &assembly)
    }

    /// Aborts an upload, and says whether it is gone. One that may not be aborted stays recorded.
    pub(crate) fn abort(&self, upload: &UploadName) -> bool {
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
