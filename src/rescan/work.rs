//! One item of work: a file is opened, hashed, sent and looked at again, on one worker.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cache::{KnownRoot, Write};
use super::plan::wall_nanos;
use super::reach::Reach;
use super::record::{Pending, Published};
use crate::backend::{Deleted, Exchange, Receipt, Upload, simple};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::folder::Folder;
use crate::tree::source::Source;
use crate::tree::version::FileStat;
use crate::tree::walk::SkipReason;

/// What all items of one run share.
pub(crate) struct Context {
    pub(crate) reach: Reach,
    pub(crate) root: Arc<Folder>,
    pub(crate) known: KnownRoot,
    pub(crate) root_device: u64,
    /// The store is given up for this run: nothing more is sent.
    pub(crate) offline: AtomicBool,
    /// Files are hashed to be compared with what is published, and not sent.
    pub(crate) hash_only: AtomicBool,
}

impl Context {
    pub(crate) fn exchange(&self) -> Exchange<'_> {
        self.reach.exchange()
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// Whether the run has not stopped.
    pub(crate) fn may_send(&self) -> bool {
        !self.is_offline() && self.exchange().check(Operation::Upload).is_ok()
    }

    /// The record of a file of this run.
    pub(crate) fn published(
        &self,
        stat: FileStat,
        settled: bool,
        digest: Digest,
        etag: Option<String>,
    ) -> Published {
        let with_root = stat.device == self.root_device;
        Published { stat, settled, digest, whole: None, etag, root: self.known.number, with_root }
    }
}

/// A file to be published.
pub(crate) struct Item {
    pub(crate) key: RemoteKey,
    pub(crate) pending: Pending,
    /// What is published now; of a modified file.
    pub(crate) published: Option<Published>,
    /// Whose files it is recorded with; `None`: it is recorded alone.
    pub(crate) batch: Option<u64>,
}

/// How an item ended.
pub(crate) enum Ending {
    /// Sent and acknowledged.
    Uploaded(Published, Receipt),
    /// Published as it is; only the stat is news.
    Confirmed(Published),
    /// Not what is published, by its nature.
    Skipped(SkipReason),
    Failed(StorageError),
}

/// An item that was worked on; what was learned of its content is in `item.pending`.
pub(crate) struct Worked {
    pub(crate) item: Item,
    pub(crate) ending: Ending,
}

impl Worked {
    /// Counts it, and says it to observers.
    pub(crate) fn tell(&self, context: &Context) {
        let trace = &context.reach.trace;
        let key = || self.item.key.as_str().to_owned();
        match &self.ending {
            Ending::Uploaded(published, receipt) => {
                let (bytes, replaced) = (published.stat.size, self.item.published.is_some());
                trace.metrics.uploads(1);
                trace.metrics.upload_bytes(bytes);
                trace.progress.file_done();
                trace.emit(|| Event::UploadFinished {
                    key: key(),
                    bytes,
                    url: receipt.url.clone(),
                    replaced,
                });
            }
            Ending::Confirmed(published) => {
                trace.progress.file_done();
                trace.progress.bytes_present(published.stat.size);
                trace.emit(|| Event::Confirmed { key: key() });
            }
            Ending::Skipped(_) => trace.progress.file_done(),
            // It is told when it is its turn to be sent.
            Ending::Failed(_) if context.hash_only.load(Ordering::Relaxed) => {}
            Ending::Failed(error) if error.is_not_tried() => {}
            Ending::Failed(error) => {
                trace.metrics.uploads_failed(1);
                trace.progress.file_failed();
                trace.emit(|| Event::upload_failed(key(), error));
            }
        }
    }

    /// What is to be recorded: the receipt, or what is known now of the file on disk.
    pub(crate) fn to_write(&self, before: &Pending) -> Option<Write> {
        let key = self.item.key.as_str().to_owned();
        match &self.ending {
            Ending::Uploaded(published, _) | Ending::Confirmed(published) => {
                Some(Write::Published(key, published.clone()))
            }
            Ending::Skipped(_) => Some(Write::Settled(key)),
            Ending::Failed(_) if self.item.pending != *before => {
                Some(Write::Pending(key, self.item.pending.clone()))
            }
            Ending::Failed(_) => None,
        }
    }
}

/// Publishes one file. Never panics.
pub(crate) fn publish(context: &Context, mut item: Item) -> Worked {
    let attempt = catch_unwind(AssertUnwindSafe(|| try_publish(context, &mut item)));
    let ending = match attempt {
        Ok(Ok(ending)) => ending,
        Ok(Err(error)) => Ending::Failed(error.with_key(item.key.as_str())),
        Err(panic) => {
            item.pending.attempted = true;
            Ending::Failed(panicked(Operation::Upload, &*panic).with_key(item.key.as_str()))
        }
    };
    let worked = Worked { item, ending };
    worked.tell(context);
    worked
}

fn try_publish(context: &Context, item: &mut Item) -> Result<Ending, StorageError> {
    let exchange = context.exchange();
    exchange.check(Operation::Upload)?;
    let seen = wall_nanos(exchange.clock);
    let source = open_source(context, &item.key, &item.pending.stat)?;
    if source.is_sizeless() {
        return Ok(Ending::Skipped(SkipReason::Sizeless));
    }
    if let Some(transfers) = context.reach.backend.transfers() {
        // What the store cannot take is not even hashed.
        transfers.part_plan(source.stat().size)?;
    }
    let stat = *source.stat();
    let settled = stat.is_settled(seen);
    let believed = item.published.as_ref().filter(|_| !item.pending.attempted);
    if let Some(there) = believed
        && is_the_same_in_parts(&exchange, &source, there)?
    {
        let record = context.published(stat, settled, there.digest, there.etag.clone());
        return Ok(Ending::Confirmed(Published { whole: there.whole, ..record }));
    }
    let (digest, settled) = match item.pending.digest.filter(|known| known.part_size().is_none()) {
        Some(digest) => (digest, item.pending.settled),
        None => (hash(&exchange, &source)?, settled),
    };
    // A digest of two versions must not be taken for the file's.
    source.check_as_opened()?;
    (item.pending.settled, item.pending.digest) = (settled, Some(digest));
    let record = |etag| context.published(stat, settled, digest, etag);
    if let Some(there) = believed.filter(|there| there.digest == digest) {
        return Ok(Ending::Confirmed(record(there.etag.clone())));
    }
    if context.is_offline() || context.hash_only.load(Ordering::Relaxed) {
        return Err(given_up(Operation::Upload));
    }
    let receipt = send(context, &exchange, &source, item, &digest)
        .inspect_err(|error| item.pending.attempted |= error.may_have_taken_effect())?;
    Ok(Ending::Uploaded(record(receipt.etag.clone()), receipt))
}

/// The file, as it was when it was planned.
pub(crate) fn open_source(
    context: &Context,
    key: &RemoteKey,
    planned: &FileStat,
) -> Result<Source, StorageError> {
    let source = Source::open_below(&context.root, key.as_str())?;
    if source.stat() == planned {
        return Ok(source);
    }
    let what = "it changed since the scan; the next rescan publishes it";
    Err(StorageError::new(ErrorKind::SourceChanged, Operation::Read, what).with_path(source.path()))
}

/// Whether a file holds what is published, read as it was sent.
pub(crate) fn holds(
    exchange: &Exchange<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    if source.stat().size != there.stat.size {
        return Ok(false);
    }
    match there.digest.part_size() {
        None => Ok(hash(exchange, source)? == there.digest),
        Some(_) => is_the_same_in_parts(exchange, source, there),
    }
}

/// Whether a file that goes in one request now is what was sent in parts before: the threshold has changed.
fn is_the_same_in_parts(
    exchange: &Exchange<'_>,
    source: &Source,
    there: &Published,
) -> Result<bool, StorageError> {
    let size = source.stat().size;
    let plan = there.digest.part_size().filter(|_| there.stat.size == size);
    let Some(plan) = plan.and_then(|part_size| PartPlan::exactly(size, part_size)) else {
        return Ok(false);
    };
    let hashes = (1..=plan.count()).filter_map(|number| plan.part(number)).map(|(offset, length)| {
        source.hash_range(offset, length, |count| {
            exchange.trace.bytes_hashed(count);
            exchange.check(Operation::Read)
        })
    });
    let digest = Digest::of_parts(&plan, &hashes.collect::<Result<Vec<_>, _>>()?);
    source.check_unchanged()?;
    Ok(digest == there.digest)
}

fn hash(exchange: &Exchange<'_>, source: &Source) -> Result<Digest, StorageError> {
    source.hash(|count| {
        exchange.trace.bytes_hashed(count);
        exchange.check(Operation::Read)
    })
}

fn send(
    context: &Context,
    exchange: &Exchange<'_>,
    source: &Source,
    item: &Item,
    digest: &Digest,
) -> Result<Receipt, StorageError> {
    let (key, bytes) = (item.key.as_str(), source.stat().size);
    context.reach.trace.emit(|| Event::UploadStarted { key: key.to_owned(), bytes });
    simple::put(&*context.reach.backend, exchange, &Upload { source, key: &item.key, digest })
}

pub(crate) fn given_up(operation: Operation) -> StorageError {
    let what = "skipped: the store could not be reached before on this run";
    StorageError::new(ErrorKind::Unavailable, operation, what)
}

/// Deletes keys. Never panics; one result for each key.
pub(crate) fn delete(context: &Context, keys: &[RemoteKey]) -> Deleted {
    let exchange = context.exchange();
    if context.is_offline() {
        return keys.iter().map(|key| (key.clone(), Err(given_up(Operation::Delete)))).collect();
    }
    let attempt =
        catch_unwind(AssertUnwindSafe(|| simple::delete_many(&*context.reach.backend, &exchange, keys)));
    let failed = |error: &dyn Fn() -> StorageError| {
        keys.iter().map(|key| (key.clone(), Err(error().with_key(key.as_str())))).collect()
    };
    match attempt {
        Ok(Ok(results)) => results,
        Ok(Err(error)) => failed(&|| error.repeated()),
        Err(panic) => failed(&|| panicked(Operation::Delete, &*panic)),
    }
}

/// What a panic said, as an error.
pub(crate) fn panicked(operation: Operation, panic: &(dyn Any + Send)) -> StorageError {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    StorageError::new(ErrorKind::Panicked, operation, format!("a panic: {text}"))
}
