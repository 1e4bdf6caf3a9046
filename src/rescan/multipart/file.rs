//! The life of a large file, top to bottom.
//!
//! # Architecture
//! - [`MultipartFile`]: the file and what is known of it. A file that may not be sent yet goes back to the
//!   dispatcher.
//! - [`Coordinator`]: the file on its way. Its thread is no worker, so that no worker waits: it hands tasks to the
//!   workers as the queue permits, and waits for their answers. There are at most `parts_in_flight` such
//!   threads, each with a stack of 256 KiB, joined before the dispatcher returns. No observer, logger or backend
//!   runs on them.
//! - [`MultipartOutcome`]: the result, which the dispatcher settles.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, Scope};
use std::time::Duration;

use crossbeam_channel::bounded;

use crate::backend::{HeadersDigest, Receipt, UploadName};
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::context::{Context, given_up};
use crate::rescan::multipart::resume::resume_or_create;
use crate::rescan::multipart::task::{EarlierCompletion, Opened, Opening, Parts, Piece, Prepared};
use crate::rescan::multipart::worker::TaskRunner;
use crate::rescan::upload::{Ending, Item};
use crate::state::records::{Pending, Published};
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// A coordinating thread calls nothing deep: what it hands out runs on the workers.
const STACK: usize = 256 * 1024;

/// A large file.
pub(crate) struct MultipartFile {
    pub(crate) item: Item,
    /// The pending record that the cache holds for it.
    pub(super) recorded: Pending,
    /// The plan of now. An upload that is resumed may have another.
    pub(super) wanted: PartPlan,
    pub(super) parts: Parts,
    /// Open, once the file was found to differ from what is published, in its content or its headers.
    differing: Option<Arc<Source>>,
    /// Only the headers of its object differ.
    pub(super) only_headers: bool,
    /// The digest of the headers that its upload was created with.
    headers: Option<HeadersDigest>,
    /// When its upload was created or resumed.
    began: Option<Duration>,
    /// The upload that was completed or aborted.
    closed: Option<Arc<UploadName>>,
    /// The store's ID of the request that completed it.
    request_id: String,
}

/// The result of a large file.
pub(crate) enum MultipartOutcome {
    Settled(Settled),
    /// It differs from what is published, and waits for its turn to be sent.
    Differs(MultipartFile),
}

/// A large file that was published, or failed.
pub(crate) struct Settled {
    pub(crate) item: Item,
    pub(crate) recorded: Pending,
    pub(crate) ending: Ending,
    pub(crate) closed: Option<Arc<UploadName>>,
    pub(crate) began: Option<Duration>,
    pub(crate) request_id: String,
}

impl MultipartFile {
    pub(crate) fn new(item: Item, plan: PartPlan) -> Self {
        Self {
            recorded: item.pending.clone(),
            item,
            wanted: plan,
            parts: Parts::new(plan),
            differing: None,
            only_headers: false,
            headers: None,
            began: None,
            closed: None,
            request_id: String::new(),
        }
    }

    pub(crate) fn part_count(&self) -> usize {
        self.parts.len()
    }

    /// The record of the published object, if it is believed and the file may hold the same.
    fn believed(&self) -> Option<&Published> {
        let (pending, size) = (&self.item.pending, self.wanted.size());
        self.item.published.as_ref().filter(|there| !pending.attempted && there.stat.size == size)
    }
}

/// A large file on its way.
pub(crate) struct Coordinator {
    pub(crate) file: MultipartFile,
    pub(crate) tasks: TaskRunner,
    pub(crate) whole_file_digest: bool,
}

impl Coordinator {
    /// Publishes the file on a thread of its own. `ended` is given what came of it, also where the system refuses
    /// the thread.
    pub(crate) fn start<'scope, F>(self, threads: &'scope Scope<'scope, '_>, ended: F)
    where
        F: FnOnce(MultipartOutcome) + Send + 'scope,
    {
        let started = start_thread(threads, STACK, (self, ended), |(file, ended)| ended(file.run()));
        if let Err((error, (file, ended))) = started {
            let what = "cannot start a thread for a multipart upload";
            let error = StorageError::new(ErrorKind::Other, Operation::Upload, what).with_source(error);
            ended(file.failed(error));
        }
    }

    fn run(mut self) -> MultipartOutcome {
        let published = catch_unwind(AssertUnwindSafe(|| self.publish()));
        match published.unwrap_or_else(|panic| Err(panicked(Operation::Upload, &*panic))) {
            Ok(Some(ending)) => self.settled(ending),
            Ok(None) => MultipartOutcome::Differs(self.file),
            Err(error) => self.failed(error),
        }
    }

    fn failed(self, error: StorageError) -> MultipartOutcome {
        let error = error.with_key(self.file.item.key.as_str());
        self.settled(Ending::Failed(error))
    }

    fn settled(self, ending: Ending) -> MultipartOutcome {
        let MultipartFile { item, recorded, closed, began, request_id, .. } = self.file;
        MultipartOutcome::Settled(Settled { item, recorded, ending, closed, began, request_id })
    }

    /// The life of a large file. `None`: it differs from what is published, and nothing is sent on this pass.
    fn publish(&mut self) -> Result<Option<Ending>, StorageError> {
        let source = if let Some(compared) = self.file.differing.take() {
            compared
        } else {
            let source = self.prepare()?;
            if let Some(confirmed) = self.compare(&source)? {
                return Ok(Some(confirmed));
            }
            source
        };
        if self.context().hash_only.load(Ordering::Relaxed) {
            // A later pass sends it, with what was hashed; if the store is given up, none does.
            self.context().check_running()?;
            self.file.differing = Some(source);
            return Ok(None);
        }
        if let Some(updated) = self.update_headers()? {
            return Ok(Some(updated));
        }
        match self.upload(&source) {
            Ok(receipt) => Ok(Some(self.uploaded(receipt))),
            Err(error) => {
                self.hash_through_outage(&source, &error);
                Err(error)
            }
        }
    }

    /// Create, send, complete; abort where that failed for good.
    fn upload(&mut self, source: &Arc<Source>) -> Result<Receipt, StorageError> {
        let (mut restarted, mut gone) = (false, None);
        loop {
            let (upload, earlier) = self.create(source, gone)?;
            if let Some(earlier) = earlier {
                return self.take_earlier(source, upload, earlier);
            }
            let sent = self.send(source, &upload);
            let error = match sent.and_then(|()| self.complete(source, &upload)) {
                Ok(receipt) => {
                    self.file.closed = Some(upload);
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            // Another upload may do better where the store has lost this one; a second loss is the store's way.
            if is_lost(&error) && !restarted && self.context().check_running().is_ok() {
                restarted = true;
                gone = self.forget_sent(&upload, &error);
                continue;
            }
            // Parts that the next run can use are worth their place in the bucket.
            if !is_resumable(&error) {
                self.abort(upload);
            }
            return Err(error);
        }
    }

    fn prepare(&mut self) -> Result<Arc<Source>, StorageError> {
        let planned = self.file.item.pending.stat;
        let Prepared { source, seen } = self.tasks.run(move |worker| worker.prepare(&planned))?;
        self.file.item.pending.not_racy = source.stat().is_not_racy(seen);
        Ok(Arc::new(source))
    }

    /// Hashes a file that may be published as it is, under the part size that it was sent with. A file without
    /// such a record is hashed here only during an outage, where nothing follows.
    fn compare(&mut self, source: &Arc<Source>) -> Result<Option<Ending>, StorageError> {
        let size = self.file.wanted.size();
        let believed = self.file.believed().map(|there| there.digest);
        let known = self.file.recorded.known();
        let known = known.filter(|known| believed.is_none_or(|there| there.part_size() == known.part_size()));
        let plan = match (believed, known) {
            (Some(there), Some(known)) if there == known => return self.settle_same_content(),
            (Some(there), None) => PartPlan::exactly(size, there.part_size().unwrap_or(size)),
            (None, None) if self.context().is_offline() => None,
            _ => return Ok(None),
        };
        self.recut(plan.unwrap_or(self.file.wanted));
        self.hash(source)?;
        let was_plain = believed.is_some_and(|there| there.part_size().is_none());
        let digest = if was_plain { self.file.parts.plain_digest() } else { self.file.parts.digest() };
        self.file.item.pending.digest = Some(digest);
        if believed == Some(digest) {
            return self.settle_same_content();
        }
        if self.context().is_offline() {
            return Err(given_up(Operation::Upload));
        }
        self.recut(self.file.wanted);
        Ok(None)
    }

    fn hash(&mut self, source: &Arc<Source>) -> Result<(), StorageError> {
        let pieces = self.file.parts.unhashed();
        self.tasks.run_all(source, None, &mut self.file.parts, pieces)
    }

    /// Resumes an upload that an earlier run left open, or creates one. It may turn out to be completed.
    fn create(
        &mut self,
        source: &Arc<Source>,
        gone: Option<String>,
    ) -> Result<(Arc<UploadName>, Option<EarlierCompletion>), StorageError> {
        let file = &self.file;
        let opening = Opening { not_racy: file.item.pending.not_racy, parts: file.parts.clone(), gone };
        let source = source.clone();
        let opened = self.tasks.run(move |worker| resume_or_create(worker, &source, opening))?;
        let Opened { upload, parts, completed, headers } = opened;
        (self.file.parts, self.file.headers) = (parts, Some(headers.recorded()));
        self.file.began.get_or_insert(self.context().session.clock.now());
        Ok((Arc::new(upload), completed))
    }

    /// An earlier run completed the upload without learning of it: what is unknown of the parts is hashed.
    fn take_earlier(
        &mut self,
        source: &Arc<Source>,
        upload: Arc<UploadName>,
        earlier: EarlierCompletion,
    ) -> Result<Receipt, StorageError> {
        // The stat does not speak for what was sent when the file was too young.
        self.file.item.pending.not_racy &= earlier.not_racy;
        let hashed = self.hash(source);
        // What is completed cannot be aborted; the next run looks at it again where that may help.
        if !hashed.as_ref().is_err_and(is_resumable) {
            self.file.closed = Some(upload);
        }
        hashed.map(|()| earlier.receipt)
    }

    fn send(&mut self, source: &Arc<Source>, upload: &Arc<UploadName>) -> Result<(), StorageError> {
        let mut pieces = self.file.parts.unsent();
        if self.whole_file_digest && self.file.parts.whole.is_none() {
            pieces.insert(0, Piece::File);
        }
        self.tasks.run_all(source, Some(upload), &mut self.file.parts, pieces)
    }

    fn complete(&mut self, source: &Arc<Source>, upload: &Arc<UploadName>) -> Result<Receipt, StorageError> {
        self.tasks.set_left(1);
        let attempted = Pending { attempted: true, ..self.file.item.pending.clone() };
        self.file.recorded = attempted.clone();
        let (source, upload, parts) = (source.clone(), upload.clone(), self.file.parts.sent());
        let completed = self.tasks.run(move |worker| worker.complete(&source, &upload, &parts, attempted));
        let completed = completed
            .inspect_err(|error| self.file.item.pending.attempted |= error.may_have_taken_effect())?;
        self.file.request_id = completed.request_id;
        Ok(completed.receipt)
    }

    /// Forgets what the store had, because the upload or parts of it are gone. What was hashed still counts. Gives
    /// the token of an upload that is known to be no more.
    fn forget_sent(&mut self, upload: &UploadName, error: &StorageError) -> Option<String> {
        let done = self.file.parts.done().map(|(_, length)| length).sum();
        self.context().session.trace.progress.bytes_missing(done);
        self.file.parts.forget_held();
        self.recut(self.file.wanted);
        (error.code() == Some("NoSuchUpload")).then(|| upload.token.clone())
    }

    fn abort(&mut self, upload: Arc<UploadName>) {
        self.tasks.set_left(1);
        let name = upload.clone();
        if let Ok(true) = self.tasks.run(move |worker| Ok(worker.abort(&name))) {
            self.file.closed = Some(upload);
        }
    }

    /// Hashes what is not hashed yet: URLs lead to a fallback meanwhile, with the digest of what is there.
    fn hash_through_outage(&mut self, source: &Arc<Source>, error: &StorageError) {
        if error.kind().is_transient() && self.tasks.hashes_on() && self.hash(source).is_ok() {
            self.file.item.pending.digest = Some(self.file.parts.digest());
        }
    }

    fn uploaded(&self, receipt: Receipt) -> Ending {
        let published = self.published(self.file.parts.digest(), receipt.etag.clone());
        let (whole, headers) = (self.file.parts.whole, self.file.headers);
        Ending::Uploaded(Published { whole, headers, ..published }, receipt)
    }

    pub(super) fn published(&self, digest: Digest, etag: Option<String>) -> Published {
        let pending = &self.file.item.pending;
        self.context().published(pending.stat, pending.not_racy, digest, etag)
    }

    pub(super) fn recut(&mut self, plan: PartPlan) {
        self.file.parts.recut(plan);
        self.tasks.set_left(self.file.parts.len());
    }

    pub(super) fn context(&self) -> &Context {
        self.tasks.context()
    }
}

/// Starts a thread and gives it a value; gives the value back with the error where the system refuses the thread.
fn start_thread<'scope, T: Send + 'scope>(
    threads: &'scope Scope<'scope, '_>,
    stack: usize,
    value: T,
    work: impl FnOnce(T) + Send + 'scope,
) -> Result<(), (io::Error, T)> {
    // What a closure holds is lost with a thread that cannot be started; so the value follows by a channel.
    let (sender, receiver) = bounded(1);
    let thread = Builder::new().name("brigade-multipart".to_owned()).stack_size(stack);
    let started = thread.spawn_scoped(threads, move || receiver.recv().map_or((), work));
    if let Err(error) = started {
        return Err((error, value));
    }
    // The thread holds the receiver until it has the value.
    let _ = sender.send(value);
    Ok(())
}

/// Returns whether the upload, or a part of it, is gone from the store.
fn is_lost(error: &StorageError) -> bool {
    error.code().is_some_and(|code| code == "NoSuchUpload" || code.starts_with("InvalidPart"))
}

/// Returns whether an upload that failed so stays open, for the next rescan to resume.
fn is_resumable(error: &StorageError) -> bool {
    let kind = error.kind();
    kind.is_transient()
        || error.is_not_tried()
        || matches!(
            kind,
            ErrorKind::Credentials | ErrorKind::ClockSkew | ErrorKind::Cache | ErrorKind::Panicked
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file whose thread is refused fails; it is not lost, and nobody waits for it.
    #[test]
    fn value_of_a_thread_that_cannot_be_started_comes_back() {
        std::thread::scope(|threads| {
            let (sender, receiver) = bounded(1);
            let work = move |value: u32| sender.send(value).unwrap();
            start_thread(threads, STACK, 1, work.clone()).unwrap();
            assert_eq!(receiver.recv(), Ok(1));
            let (_, value) = start_thread(threads, usize::MAX >> 14, 2, work).unwrap_err();
            assert_eq!(value, 2);
        });
    }
}
