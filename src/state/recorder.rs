//! The recorder: one thread that commits what the store has acknowledged to the cache.
//!
//! # Architecture
//!
//! - [`Recorder`]: the handle of a run. It owns the thread and ends it when it is dropped. Workers and the run's
//!   thread send it writes; [`Recorder::sync`] waits until they are durable. It is also the [`Journal`] of
//!   multipart uploads.
//! - `Message`: what travels through the [`BatchQueue`]: writes, a request to sync, the end.
//! - `Committer`: the thread's side. It takes all messages that have arrived and commits their writes in one
//!   transaction, so that many acknowledgements cost one disk sync.
//!
//! The first failure is kept in `failure`, which both sides share.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::backend::{Intent, Journal, SentPart, UploadName};
use crate::engine::batch_queue::BatchQueue;
use crate::engine::thread_named;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::metrics::Metrics;
use crate::state::cache::CacheManager;
use crate::state::records::{Pending, UploadStep};
use crate::state::store::Write;

/// The interval between commits, unless a sync is asked for. A commit costs about 0.5 ms of CPU and two disk syncs
/// (`cargo bench --bench main_line -- files`), however many writes it holds. After a crash, what was acknowledged
/// within this time is sent again.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);

enum Message {
    Writes(Vec<Write>),
    /// Answered once all earlier messages are durable: true, or false after a failure.
    Sync(Sender<bool>),
    /// The last message.
    Close,
}

/// Takes writes from any thread and commits them in order. After the first failure it commits nothing more: the next
/// run does again what is not recorded.
pub(crate) struct Recorder {
    queue: BatchQueue<Message>,
    thread: Option<JoinHandle<()>>,
    failure: Arc<Mutex<Option<StorageError>>>,
    cache: CacheManager,
}

impl Recorder {
    /// Starts the recorder's thread.
    pub(crate) fn start(cache: &CacheManager, metrics: &Metrics) -> Result<Self, StorageError> {
        let queue = BatchQueue::new();
        let failure = Arc::new(Mutex::new(None));
        let worker = Committer { cache: cache.clone(), failure: failure.clone(), metrics: metrics.clone() };
        let thread = thread_named("brigade-recorder")
            .spawn({
                let queue = queue.clone();
                move || worker.run(&queue)
            })
            .map_err(|error| {
                StorageError::new(ErrorKind::Cache, Operation::Cache, "cannot start the recorder's thread")
                    .with_source(error)
            })?;
        Ok(Self { queue, thread: Some(thread), failure, cache: cache.clone() })
    }

    /// Sends writes to the thread and does not wait. They are durable after the next commit.
    pub(crate) fn record(&self, writes: Vec<Write>) {
        // An empty message would only wake the thread.
        if !writes.is_empty() {
            self.queue.push(Message::Writes(writes));
        }
    }

    /// Waits until all writes sent before are durable.
    pub(crate) fn sync(&self) -> Result<(), StorageError> {
        let (sender, receiver) = bounded(1);
        self.queue.push_urgent(Message::Sync(sender));
        // An error here means that the thread has panicked and dropped the sender.
        if receiver.recv() == Ok(true) {
            return Ok(());
        }
        Err(self.failure().unwrap_or_else(|| {
            StorageError::new(ErrorKind::Cache, Operation::Cache, "the cache cannot be written")
                .with_path(self.cache.path())
        }))
    }

    /// The error after which nothing more is recorded, if there was one. Each call returns a copy of the same.
    pub(crate) fn failure(&self) -> Option<StorageError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(StorageError::repeated)
    }

    /// Records durably that a request for a file is about to be sent.
    pub(crate) fn attempt(&self, key: &RemoteKey, pending: Pending) -> Result<(), StorageError> {
        self.record(vec![Write::Pending(key.as_str().to_owned(), pending)]);
        self.sync()
    }

    fn record_step(&self, key: &RemoteKey, step: UploadStep) {
        self.record(vec![Write::Upload(key.as_str().to_owned(), step)]);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Urgent, so that the last writes are committed now and not after the interval.
        self.queue.push_urgent(Message::Close);
        if let Some(thread) = self.thread.take() {
            // A panic of the database is caught and kept as the failure. Any other has no receiver left.
            let _ = thread.join();
        }
    }
}

impl Journal for Recorder {
    fn intend(&self, key: &RemoteKey, intent: &Intent) -> Result<(), StorageError> {
        self.record_step(key, UploadStep::Intended(intent.clone()));
        self.sync()
    }

    fn begun(&self, upload: &UploadName, lost: bool) -> Result<(), StorageError> {
        let (token, upload_id) = (upload.token.clone(), upload.upload_id.clone());
        self.record_step(&upload.key, UploadStep::Begun { token, upload_id, lost });
        self.sync()
    }

    // Not synced: a part that is forgotten in a crash is only sent again.
    fn part(&self, upload: &UploadName, number: u32, part: &SentPart) {
        self.record_step(&upload.key, UploadStep::Part(upload.token.clone(), number, part.clone()));
    }

    fn closed(&self, key: &RemoteKey, token: &str) {
        self.record_step(key, UploadStep::Closed(token.to_owned()));
    }
}

struct Committer {
    cache: CacheManager,
    failure: Arc<Mutex<Option<StorageError>>>,
    metrics: Metrics,
}

impl Committer {
    fn run(&self, queue: &BatchQueue<Message>) {
        let (mut healthy, mut closed) = (true, false);
        while !closed {
            // Sleeps for as long as there is nothing to do, then gathers messages for one interval.
            queue.wait_for_any();
            let (mut writes, mut waiting) = (Vec::new(), Vec::new());
            for message in queue.take(usize::MAX, COMMIT_INTERVAL) {
                match message {
                    Message::Writes(more) => writes.extend(more),
                    Message::Sync(done) => waiting.push(done),
                    Message::Close => closed = true,
                }
            }
            // After a failure later writes must not be committed: they may rely on those that were lost.
            healthy = healthy && self.commit(&writes);
            // Answered after the commit, which holds all that was sent before them.
            for done in waiting {
                let _ = done.send(healthy);
            }
        }
    }

    fn commit(&self, writes: &[Write]) -> bool {
        let result = self.cache.apply(writes);
        self.cache.count_commits(&self.metrics);
        match result {
            Ok(()) => true,
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::version::FileStat;

    /// What a crash must not forget of a multipart upload is durable when the call returns.
    #[test]
    fn a_journal_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache");
        let key = RemoteKey::new("a/large").unwrap();
        let name = |token: &str| UploadName {
            key: RemoteKey::new("a/large").unwrap(),
            token: token.to_owned(),
            upload_id: "id-1".to_owned(),
        };
        let opened = |path: &std::path::Path| {
            let cache = CacheManager::open(path).unwrap();
            let recorder = Recorder::start(&cache, &Metrics::default()).unwrap();
            (cache, recorder)
        };
        let (stat, sent) =
            (FileStat { size: 9, ..FileStat::default() }, SentPart { etag: "e".to_owned(), sha256: [7; 32] });
        {
            let (_cache, recorder) = opened(&path);
            let intent = |token: &str| Intent {
                token: token.to_owned(),
                stat,
                not_racy: true,
                part_size: 4,
                headers: [0; 32],
            };
            recorder.intend(&key, &intent("token")).unwrap();
            recorder.begun(&name("token"), false).unwrap();
            recorder.part(&name("token"), 2, &sent);
            recorder.part(&name("token"), 10_000, &sent);
            recorder.intend(&key, &intent("token-of-another")).unwrap();
        }
        let (cache, recorder) = opened(&path);
        let uploads = cache.open_uploads("a/large").unwrap();
        assert_eq!(uploads.len(), 2);
        assert_eq!((uploads[0].upload_id.as_deref(), uploads[0].stat), (Some("id-1"), stat));
        assert_eq!((uploads[1].token.as_str(), &uploads[1].upload_id), ("token-of-another", &None));
        assert_eq!(cache.sent_parts("token").unwrap(), [(2, sent.clone()), (10_000, sent)]);
        recorder.closed(&key, "token");
        recorder.sync().unwrap();
        assert_eq!(cache.open_uploads("a/large").unwrap().len(), 1);
        assert_eq!(cache.sent_parts("token").unwrap(), []);
    }
}
