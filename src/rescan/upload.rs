//! Publishes one file on one worker: opens it, hashes it, sends it in one request, and checks that it did not change.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::backend::{Receipt, Upload, adapter};
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::rescan::bucket_state::conditional_writes::write_key;
use crate::rescan::context::{Context, given_up, open_source, panicked};
use crate::rescan::plan::content;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::store::Write;
use crate::tree::digest::Digest;
use crate::tree::source::Source;
use crate::tree::version::wall_nanos;
use crate::tree::walk::SkipReason;

/// A file to be published.
pub(crate) struct Item {
    pub(crate) key: RemoteKey,
    pub(crate) pending: Pending,
    /// The published version of a modified file.
    pub(crate) published: Option<Published>,
    /// What the state says of the object, where it lies in the bucket.
    pub(crate) there: Option<Published>,
    /// The batch that it is recorded with; `None`: it is recorded alone.
    pub(crate) batch: Option<u64>,
}

/// The result of an item.
pub(crate) enum Ending {
    /// Sent and acknowledged.
    Uploaded(Published, Receipt),
    /// The published version has the same content: only the stat is to be recorded.
    Confirmed(Published),
    /// Not a file that can be published.
    Skipped(SkipReason),
    Failed(StorageError),
}

/// An item and its result. The digest, once it is known, is in `item.pending`.
pub(crate) struct Worked {
    pub(crate) item: Item,
    pub(crate) ending: Ending,
}

impl Worked {
    /// Updates metrics and progress, and tells observers.
    pub(crate) fn report_ending(&self, context: &Context) {
        let trace = &context.session.trace;
        let key = || self.item.key.as_str().to_owned();
        match &self.ending {
            Ending::Uploaded(published, receipt) => {
                let (bytes, replaced) =
                    (published.stat.size, self.item.pending.kind == PendingKind::Modified);
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
            // Nothing was sent yet. It is reported when its turn to be sent comes.
            Ending::Failed(_) if context.hash_only.load(Ordering::Relaxed) => {}
            Ending::Failed(error) if error.is_not_tried() => {}
            Ending::Failed(error) => {
                trace.metrics.uploads_failed(1);
                trace.progress.file_failed();
                trace.emit(|| Event::upload_failed(key(), error));
            }
        }
    }

    /// Returns the record to write: the receipt, or the digest that is known by now. `before` is the pending record.
    pub(crate) fn to_write(&self, before: &Pending) -> Option<Write> {
        let key = self.item.key.as_str().to_owned();
        match &self.ending {
            Ending::Uploaded(published, _) | Ending::Confirmed(published) => {
                Some(Write::Published(key, published.clone()))
            }
            Ending::Skipped(_) => Some(Write::Settled(key)),
            // A digest saves the next run from hashing the file again.
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
            // Nobody knows whether the request was sent before the panic.
            item.pending.attempted = true;
            Ending::Failed(panicked(Operation::Upload, &*panic).with_key(item.key.as_str()))
        }
    };
    let worked = Worked { item, ending };
    worked.report_ending(context);
    worked
}

fn try_publish(context: &Context, item: &mut Item) -> Result<Ending, StorageError> {
    let request_context = context.request_context();
    request_context.check(Operation::Upload)?;
    let seen = wall_nanos(request_context.clock);
    let source = open_source(context, &item.key, &item.pending.stat)?;
    if source.is_sizeless() {
        return Ok(Ending::Skipped(SkipReason::Sizeless));
    }
    if let Some(transfers) = context.session.backend.transfers() {
        // A file that is too large for the store fails here, before it is hashed.
        transfers.part_plan(source.stat().size)?;
    }
    let stat = *source.stat();
    let not_racy = stat.is_not_racy(seen);
    // After an attempt without an answer the store may hold either version: only an upload settles that.
    let trusted = item.published.as_ref().filter(|_| !item.pending.attempted);
    if let Some(there) = trusted
        && content::matches_published_parts(&request_context, &source, there)?
    {
        let record = context.published(stat, not_racy, there.digest, there.etag.clone());
        return Ok(Ending::Confirmed(Published { whole: there.whole, ..record }));
    }
    // A plain digest that is known already still holds: the file was opened with the planned stat.
    let (digest, not_racy) = match item.pending.digest.filter(|known| known.part_size().is_none()) {
        Some(digest) => (digest, item.pending.not_racy),
        None => (content::hash_file(&request_context, &source)?, not_racy),
    };
    // A file that changed while it was hashed would have a digest of two versions.
    source.check_as_opened()?;
    (item.pending.not_racy, item.pending.digest) = (not_racy, Some(digest));
    let record = |etag| context.published(stat, not_racy, digest, etag);
    if let Some(there) = trusted.filter(|there| there.digest == digest && there.stat.size == stat.size) {
        return Ok(Ending::Confirmed(record(there.etag.clone())));
    }
    if context.is_offline() || context.hash_only.load(Ordering::Relaxed) {
        return Err(given_up(Operation::Upload));
    }
    let receipt = send(context, &source, item, &digest)
        .inspect_err(|error| item.pending.attempted |= error.may_have_taken_effect())?;
    Ok(Ending::Uploaded(record(receipt.etag.clone()), receipt))
}

fn send(context: &Context, source: &Source, item: &Item, digest: &Digest) -> Result<Receipt, StorageError> {
    let (key, bytes) = (item.key.as_str(), source.stat().size);
    context.session.trace.emit(|| Event::UploadStarted { key: key.to_owned(), bytes });
    write_key(
        context,
        &item.key,
        || Ok(item.there.clone()),
        |request_context, condition| {
            let file = Upload { source, key: &item.key, digest, run: &context.token, condition };
            adapter::put(&*context.session.backend, request_context, &file)
        },
    )
}
