//! Lifecycle events, their observers, and progress counters to poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::error::{ErrorKind, StorageError};

/// Something that happened in a run. Sizes are in bytes; keys do not include the bucket prefix.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A rescan began.
    RunStarted {
        /// The destination that it publishes to.
        destination: String,
    },
    /// The tree was walked and compared with what is published.
    Planned {
        /// Files found.
        scanned: u64,
        /// Files to be uploaded, or to be hashed first to see if they must be, and those whose objects get other
        /// headers.
        to_upload: u64,
        /// Their total size, without those that only get other headers.
        bytes: u64,
        /// Objects to be deleted.
        to_delete: u64,
    },
    /// A file is about to be sent.
    UploadStarted {
        /// Its key.
        key: String,
        /// Its size.
        bytes: u64,
    },
    /// A part of a multipart upload was sent and acknowledged, or was already there from an earlier run.
    PartFinished {
        /// The key of its file.
        key: String,
        /// The part number, from 1.
        number: u32,
        /// Its size.
        bytes: u64,
        /// The size of the whole file.
        of: u64,
        /// Set if the part was already there from an earlier run and was not sent again.
        resumed: bool,
    },
    /// A file was sent and acknowledged.
    UploadFinished {
        /// Its key.
        key: String,
        /// Its size.
        bytes: u64,
        /// Its public URL.
        url: String,
        /// Set if an earlier version of the file was published before.
        replaced: bool,
    },
    /// A file could not be published; it stays pending.
    UploadFailed {
        /// Its key.
        key: String,
        /// The error's text.
        reason: String,
        /// The error's kind.
        kind: ErrorKind,
        /// Set if the next run may succeed with nothing changed.
        retryable: bool,
    },
    /// A file's content turned out to be what is already published.
    Confirmed {
        /// Its key.
        key: String,
    },
    /// A file's content is what is published, and its object got other headers by a copy in place.
    HeadersUpdated {
        /// Its key.
        key: String,
    },
    /// An object held the content of its file already, and was taken over without an upload.
    Adopted {
        /// Its key.
        key: String,
        /// Its size.
        bytes: u64,
    },
    /// An object was deleted.
    Deleted {
        /// Its key.
        key: String,
    },
    /// An object could not be deleted; it stays pending.
    DeleteFailed {
        /// Its key.
        key: String,
        /// The error's text.
        reason: String,
        /// The error's kind.
        kind: ErrorKind,
        /// Set if the next run may succeed with nothing changed.
        retryable: bool,
    },
    /// A request is about to be retried.
    Retrying {
        /// The error of the last attempt.
        reason: String,
        /// The number of attempts so far.
        attempt: u32,
        /// The wait before the next attempt.
        wait: Duration,
    },
    /// A log record, which also went to the `log` facade.
    Log {
        /// Its level.
        level: log::Level,
        /// Its message.
        message: String,
        /// Its key-values.
        fields: Vec<(&'static str, String)>,
    },
    /// A rescan ended.
    RunFinished {
        /// `published`, `unchanged`, `partial`, `local_only` or `error`.
        outcome: &'static str,
    },
}

impl Event {
    pub(crate) fn upload_failed(key: String, error: &StorageError) -> Self {
        let (kind, retryable) = (error.kind(), error.may_go_away());
        Self::UploadFailed { key, reason: error.to_string(), kind, retryable }
    }

    pub(crate) fn delete_failed(key: String, error: &StorageError) -> Self {
        let (kind, retryable) = (error.kind(), error.may_go_away());
        Self::DeleteFailed { key, reason: error.to_string(), kind, retryable }
    }
}

/// Receives every event, on the thread where it happens. Be quick, and do not call back into the same
/// orchestrator. No event is dropped. A panic of an observer is caught and logged, and changes nothing.
///
/// Closures are observers:
/// ```
/// use std::sync::Arc;
/// use bucket_brigade::{Event, Observer};
/// let _: Arc<dyn Observer> = Arc::new(|event: &Event| println!("{event:?}"));
/// ```
pub trait Observer: Send + Sync {
    /// Called for each event.
    fn event(&self, event: &Event);
}

impl<F: Fn(&Event) + Send + Sync> Observer for F {
    fn event(&self, event: &Event) {
        self(event);
    }
}

/// An observer that sends events into a bounded channel, for a reader on another thread.
#[derive(Debug)]
pub struct ChannelObserver {
    sender: Sender<Event>,
    missed: AtomicU64,
}

/// Returns an observer and the channel that it sends to. While `capacity` events wait unread, further ones are
/// dropped and counted ([`ChannelObserver::missed`]): a slow reader never delays an upload.
///
/// ```
/// use bucket_brigade::{Event, Level, Receiver, channel};
/// let (observer, receiver): (_, Receiver<Event>) = channel(1000);
/// # drop(observer);
/// for event in receiver {
///     match event {
///         Event::UploadFailed { key, kind, retryable, .. } => println!("{key}: {kind:?}, again: {retryable}"),
///         Event::Log { level: Level::Warn, message, .. } => println!("{message}"),
///         _ => {}
///     }
/// }
/// ```
pub fn channel(capacity: usize) -> (Arc<ChannelObserver>, Receiver<Event>) {
    let (sender, receiver) = crossbeam_channel::bounded(capacity);
    (Arc::new(ChannelObserver { sender, missed: AtomicU64::new(0) }), receiver)
}

impl ChannelObserver {
    /// The number of events that were dropped because the channel was full.
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}

impl Observer for ChannelObserver {
    fn event(&self, event: &Event) {
        // Events after the receiver was dropped are not counted: nobody misses them.
        if let Err(TrySendError::Full(_)) = self.sender.try_send(event.clone()) {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Counts {
    files_total: AtomicU64,
    files_done: AtomicU64,
    files_failed: AtomicU64,
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_hashed: AtomicU64,
    bytes_sent: AtomicU64,
    deletes_total: AtomicU64,
    deletes_done: AtomicU64,
}

/// The progress of a run. Cheap to clone; may be polled from any thread.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counts>);

/// A [`Progress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProgressSnapshot {
    /// Files to be uploaded, or whose objects get other headers.
    pub files_total: u64,
    /// Files uploaded, or found to be unchanged after hashing, and objects that got other headers.
    pub files_done: u64,
    /// Files that failed.
    pub files_failed: u64,
    /// Bytes of the files to be uploaded.
    pub bytes_total: u64,
    /// Bytes that are finished: sent, already there from an earlier run, or found to be unchanged.
    pub bytes_done: u64,
    /// Bytes read for hashing: of the files to be uploaded, and of parts that are read again.
    pub bytes_hashed: u64,
    /// Bytes of files written to connections in this run; the bytes of a retry are counted once.
    pub bytes_sent: u64,
    /// Objects to be deleted.
    pub deletes_total: u64,
    /// Objects deleted.
    pub deletes_done: u64,
}

impl Progress {
    /// Counters that are all zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters as they are now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let counts = &self.0;
        ProgressSnapshot {
            files_total: counts.files_total.load(Relaxed),
            files_done: counts.files_done.load(Relaxed),
            files_failed: counts.files_failed.load(Relaxed),
            bytes_total: counts.bytes_total.load(Relaxed),
            bytes_done: counts.bytes_done.load(Relaxed),
            bytes_hashed: counts.bytes_hashed.load(Relaxed),
            bytes_sent: counts.bytes_sent.load(Relaxed),
            deletes_total: counts.deletes_total.load(Relaxed),
            deletes_done: counts.deletes_done.load(Relaxed),
        }
    }

    pub(crate) fn planned(&self, files: u64, bytes: u64, deletes: u64) {
        self.0.files_total.fetch_add(files, Relaxed);
        self.0.bytes_total.fetch_add(bytes, Relaxed);
        self.0.deletes_total.fetch_add(deletes, Relaxed);
    }

    pub(crate) fn file_done(&self) {
        self.0.files_done.fetch_add(1, Relaxed);
    }

    pub(crate) fn file_failed(&self) {
        self.0.files_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn delete_done(&self) {
        self.0.deletes_done.fetch_add(1, Relaxed);
    }

    pub(crate) fn bytes_hashed(&self, bytes: u64) {
        self.0.bytes_hashed.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn bytes_sent(&self, bytes: u64) {
        // Sent bytes count as done at once; `bytes_lost` takes both counts back.
        self.0.bytes_sent.fetch_add(bytes, Relaxed);
        self.bytes_present(bytes);
    }

    /// Takes back bytes that a failed attempt had sent: they are sent again.
    pub(crate) fn bytes_lost(&self, bytes: u64) {
        self.0.bytes_sent.fetch_sub(bytes, Relaxed);
        self.bytes_missing(bytes);
    }

    /// Takes back bytes that the store no longer has: they are sent again.
    pub(crate) fn bytes_missing(&self, bytes: u64) {
        self.0.bytes_done.fetch_sub(bytes, Relaxed);
    }

    /// Counts bytes that the store already has.
    pub(crate) fn bytes_present(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reader_of_a_channel_loses_events_and_learns_how_many() {
        let (observer, receiver) = channel(2);
        for _ in 0..5 {
            observer.event(&Event::RunFinished { outcome: "unchanged" });
        }
        assert_eq!((receiver.len(), observer.missed()), (2, 3));
    }
}
