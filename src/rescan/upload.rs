//! Publishes one file on one worker: opens it, hashes it, sends it in one request, and checks that it did not change.

pub(crate) mod headers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::backend::{Copied, DueHeaders, Receipt, Upload, adapter};
use crate::error::caught::panicked;
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::conditional_writes::write_key;
use crate::rescan::context::{Context, given_up, open_source};
use crate::rescan::plan::content;
use crate::rescan::plan::headers::{due_headers, have_changed};
use crate::rescan::upload::headers::update_headers;
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

impl Item {
    /// Notes that the file is sent, although it was planned for its headers alone.
    pub(crate) fn note_sent_for_headers(&mut self, context: &Context, copied: &Copied) {
        if self.pending.kind == PendingKind::Headers {
            context.session.trace.progress.planned(0, self.pending.stat.size, 0);
        }
        // Somebody else has changed the object.
        if matches!(copied, Copied::Changed) {
            self.pending.kind = PendingKind::Modified;
        }
    }
}

/// The result of an item.
pub(crate) enum Ending {
    /// Sent and acknowledged.
    Uploaded(Published, Receipt),
    /// The published version has the same content: only the stat is to be recorded.
    Confirmed(Published),
    /// The published version has the same content, and its object has got other headers by a copy in place.
    HeadersUpdated(Published),
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
                let (bytes, replaced) = (published.stat.size, self.item.pending.kind != PendingKind::Added);
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
            Ending::HeadersUpdated(published) => {
                if self.item.pending.kind != PendingKind::Headers {
                    trace.progress.bytes_present(published.stat.size);
                }
                trace.metrics.headers_updated(1);
                trace.progress.file_done();
                trace.emit(|| Event::HeadersUpdated { key: key() });
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
            Ending::Uploaded(published, _)
            | Ending::Confirmed(published)
            | Ending::HeadersUpdated(published) => Some(Write::Published(key, published.clone())),
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
    let due = due_headers(&*context.session.backend, &item.key)?;
    // After an attempt without an answer the store may hold either version: only an upload settles that.
    let trusted = item.published.clone().filter(|_| !item.pending.attempted);
    let trusted = match trusted {
        Some(there) if is_known_to_match(&request_context, &source, item, &there)? => {
            (item.pending.not_racy, item.pending.digest) = (not_racy, Some(there.digest));
            let record = context.published(stat, not_racy, there.digest, there.etag.clone());
            let record = Published { whole: there.whole, ..record };
            if let Some(ending) = settle_same_content(context, item, &there, record, due)? {
                return Ok(ending);
            }
            None
        }
        other => other,
    };
    // A plain digest that is known already still holds: the file was opened with the planned stat.
    let (digest, not_racy) = match item.pending.digest.filter(|known| known.part_size().is_none()) {
        Some(digest) => (digest, item.pending.not_racy),
        None => (content::hash_file(&request_context, &source)?, not_racy),
    };
    // A file that changed while it was hashed would have a digest of two versions.
    source.check_as_opened()?;
    (item.pending.not_racy, item.pending.digest) = (not_racy, Some(digest));
    let headers = due.map(|due| due.recorded());
    let record = |etag| Published { headers, ..context.published(stat, not_racy, digest, etag) };
    if let Some(there) = trusted.filter(|there| there.digest == digest && there.stat.size == stat.size)
        && let Some(ending) = settle_same_content(context, item, &there, record(there.etag.clone()), due)?
    {
        return Ok(ending);
    }
    if context.is_offline() || context.hash_only.load(Ordering::Relaxed) {
        return Err(given_up(Operation::Upload));
    }
    let receipt = send(context, &source, item, &digest)
        .inspect_err(|error| item.pending.attempted |= error.may_have_taken_effect())?;
    Ok(Ending::Uploaded(record(receipt.etag.clone()), receipt))
}

/// Returns true if the file has the published content by a digest that is known, or by one of its parts.
fn is_known_to_match(
    request_context: &RequestContext<'_>,
    source: &Source,
    item: &Item,
    there: &Published,
) -> Result<bool, StorageError> {
    let is_known = item.pending.known() == Some(there.digest) && source.stat().size == there.stat.size;
    Ok(is_known || content::matches_published_parts(request_context, source, there)?)
}

/// Ends an item that has the published content: its object may lack nothing but headers. Returns `None` if the file has to
/// be sent for these.
fn settle_same_content(
    context: &Context,
    item: &mut Item,
    there: &Published,
    record: Published,
    due: Option<DueHeaders>,
) -> Result<Option<Ending>, StorageError> {
    if !have_changed(due, there) {
        return Ok(Some(Ending::Confirmed(Published { headers: there.headers, ..record })));
    }
    if context.is_offline() || context.hash_only.load(Ordering::Relaxed) {
        return Err(given_up(Operation::Upload));
    }
    let copied = update_headers(context, &item.key, there)
        .inspect_err(|error| item.pending.attempted |= error.may_have_taken_effect())?;
    if let Copied::Done(receipt) = copied {
        let headers = due.map(|due| due.recorded());
        return Ok(Some(Ending::HeadersUpdated(Published { etag: receipt.etag, headers, ..record })));
    }
    item.note_sent_for_headers(context, &copied);
    Ok(None)
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
