//! The pool of workers and the job queue in front of it, shared by everything that one process publishes.
//!
//! # Architecture
//!
//! - [`EngineConfig`] holds the settings; [`Engine`] is a cheap handle on the one `Inner` that they build.
//! - `Inner` owns the thread pool, the bounded job queue, the clock, the trace and the gates.
//! - A caller's thread (a run's) puts jobs into the queue and waits while it is full. For each job the pool
//!   gets one call of `run_next_job`, which takes whichever job is first. A worker never waits for a worker.
//! - [`Gate`](gate::Gate): one per destination, shared by all backends that lead there. The engine keeps only
//!   weak references; a gate lives as long as its backends.
//! - [`BatchQueue`](batch_queue::BatchQueue): how results travel back from the workers to a run's thread.

pub(crate) mod batch_queue;
pub(crate) mod gate;

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::clock::{Clock, SystemClock};
use crate::engine::gate::Gate;
use crate::error::StorageError;
use crate::observe::event::Observer;
use crate::observe::metrics::{Metrics, MetricsSnapshot};
use crate::observe::trace::Trace;

/// The default number of workers: files in flight at a time.
pub const DEFAULT_WORKERS: usize = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The stack of a thread in bytes: what the standard library takes, which otherwise asks the environment for it.
const STACK: usize = 2 * 1024 * 1024;

/// Begins a thread of the library.
pub(crate) fn thread_named(name: impl Into<String>) -> Builder {
    Builder::new().name(name.into()).stack_size(STACK)
}

/// The settings of an [`Engine`].
///
/// ```
/// use bucket_brigade::EngineConfig;
/// let engine = EngineConfig::new().workers(4).build().unwrap();
/// assert_eq!(engine.workers(), 4);
/// ```
#[derive(Clone)]
pub struct EngineConfig {
    workers: usize,
    clock: Arc<dyn Clock>,
    observers: Vec<Arc<dyn Observer>>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { workers: DEFAULT_WORKERS, clock: Arc::new(SystemClock::default()), observers: Vec::new() }
    }
}

impl EngineConfig {
    /// The defaults: ten workers, the system's clocks, no observer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the number of threads in the pool (1 to 256, default 10). It also limits the requests in flight and
    /// the connections kept open to one destination. A thread that waits for a store costs no CPU.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    #[cfg(feature = "config")]
    pub(crate) fn worker_count(&self) -> usize {
        self.workers
    }

    /// Replaces the clock, for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Adds an observer, which receives the events of everything that this engine does.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observers.push(observer);
        self
    }

    /// Builds the engine and starts its workers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the number of workers is out of range or
    /// the system refuses the threads.
    pub fn build(self) -> Result<Engine, StorageError> {
        // Each worker is a thread and may keep a connection: a typing error should not start thousands.
        if !(1..=256).contains(&self.workers) {
            return Err(StorageError::config("workers", format!("{} is not from 1 to 256", self.workers)));
        }
        let mut threads = Vec::with_capacity(self.workers);
        let pool = ThreadPoolBuilder::new()
            .num_threads(self.workers)
            .spawn_handler(|worker| {
                let thread = thread_named(format!("brigade-{}", worker.index()));
                threads.push(thread.spawn(|| worker.run())?);
                Ok(())
            })
            .build()
            .map_err(|error| {
                StorageError::config("workers", "cannot start the threads").with_source(error)
            })?;
        Ok(Engine(Arc::new(Inner {
            pool,
            threads,
            // Two jobs ready for each worker, so that none waits for the feeding thread.
            queue: crossbeam_channel::bounded(2 * self.workers),
            workers: self.workers,
            clock: self.clock,
            trace: Trace::new(self.observers, Metrics::default()),
            gates: Mutex::default(),
        })))
    }
}

struct Inner {
    pool: ThreadPool,
    threads: Vec<JoinHandle<()>>,
    queue: (Sender<Job>, Receiver<Job>),
    workers: usize,
    clock: Arc<dyn Clock>,
    trace: Trace,
    gates: Mutex<HashMap<String, Weak<Gate>>>,
}

/// The workers, their job queue, and the clock. Cheap to clone. One engine serves any number of
/// orchestrators, roots and destinations of a process.
///
/// A worker never waits for another worker: one job is one piece of work, and only callers' threads fill the
/// queue. The pool belongs to the engine, so a rescan may be called from a worker of the host's own pool.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl Engine {
    /// Builds an engine with the defaults of [`EngineConfig`].
    ///
    /// # Errors
    /// As [`EngineConfig::build`].
    pub fn new() -> Result<Self, StorageError> {
        EngineConfig::default().build()
    }

    /// The number of threads in the pool.
    pub fn workers(&self) -> usize {
        self.0.workers
    }

    /// The counters of everything that this engine has done.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.0.trace.metrics.snapshot()
    }

    /// Ends the workers and waits until they have ended. Without this call they end by themselves some time after the last
    /// handle on the engine is dropped.
    ///
    /// Returns false, and ends nothing, while there are other handles: clones, backends and orchestrators.
    ///
    /// ```
    /// let engine = bucket_brigade::Engine::new().unwrap();
    /// assert!(!engine.clone().join());
    /// assert!(engine.join());
    /// ```
    pub fn join(self) -> bool {
        let Ok(Inner { pool, threads, .. }) = Arc::try_unwrap(self.0) else { return false };
        // Without its pool a worker ends once it has nothing left to do.
        drop(pool);
        for thread in threads {
            // A worker's panic was caught and reported where it happened.
            let _ = thread.join();
        }
        true
    }

    /// Refuses a call from one of the engine's own threads: a worker that waited for the pool could wait for ever.
    pub(crate) fn refuse_own_worker(&self) -> Result<(), StorageError> {
        // An index means that the current thread is one of this pool's; other pools' threads have none here.
        if self.0.pool.current_thread_index().is_none() {
            return Ok(());
        }
        let why = "called from a worker of the same engine (in an observer or a backend), which would wait for itself: call it from another thread";
        Err(StorageError::config("engine", why))
    }

    /// Adds one job to the queue; waits while the queue is full. Never called by a worker.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        // This cannot fail: the receiver lives as long as the sender, both are in `Inner`.
        let _ = self.0.queue.0.send(Box::new(job));
        let queue = self.0.queue.1.clone();
        // The pool's own queue is unbounded. The wait above is what keeps it short.
        self.0.pool.spawn(move || run_next_job(&queue));
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.clock
    }

    pub(crate) fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Returns the gate of `destination`: the same one for every backend that leads there.
    pub(crate) fn gate(&self, destination: &str) -> Arc<Gate> {
        let mut gates = self.0.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(destination).and_then(Weak::upgrade) {
            return gate;
        }
        // A new destination is rare, so this is the time to drop the entries of those that are gone.
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::new(self.0.workers));
        gates.insert(destination.to_owned(), Arc::downgrade(&gate));
        gate
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("workers", &self.0.workers).finish_non_exhaustive()
    }
}

/// Runs the job at the head of the queue. A panic of the job must not end the worker.
fn run_next_job(queue: &Receiver<Job>) {
    // There is a job for every call, so this never has to wait.
    if let Ok(job) = queue.try_recv()
        && catch_unwind(AssertUnwindSafe(job)).is_err()
    {
        // Jobs report their own panics. One that gets here had no receiver left to report to.
        log::error!(target: crate::observe::trace::TARGET, "a worker's job panicked");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_item_is_done_once_even_when_some_panic() {
        let engine = EngineConfig::new().workers(3).build().unwrap();
        let (sender, receiver) = crossbeam_channel::unbounded();
        let done = Arc::new(AtomicUsize::new(0));
        for number in 0..200 {
            let (sender, done) = (sender.clone(), done.clone());
            engine.submit(move || {
                done.fetch_add(1, Ordering::SeqCst);
                assert!(number % 50 != 0, "item {number}");
                sender.send(number).unwrap();
            });
        }
        drop(sender);
        let mut numbers: Vec<_> = receiver.iter().collect();
        numbers.sort_unstable();
        assert_eq!((numbers.len(), done.load(Ordering::SeqCst)), (196, 200));
    }

    #[test]
    fn one_destination_has_one_gate() {
        let engine = Engine::new().unwrap();
        let gate = engine.gate("a");
        assert!(Arc::ptr_eq(&gate, &engine.gate("a")));
        assert!(!Arc::ptr_eq(&gate, &engine.gate("b")));
    }

    #[test]
    fn a_number_of_workers_out_of_range_is_refused_by_name() {
        let error = EngineConfig::new().workers(0).build().unwrap_err();
        assert_eq!(error.message(), "workers: 0 is not from 1 to 256");
    }
}
