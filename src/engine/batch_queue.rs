//! A queue whose one reader wakes up only when there is enough for it to do. A channel wakes its reader, and
//! spins for it, at every message: that took a tenth of the CPU when publishing small files.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Engine;

/// A queue with many writers and one reader. Cheap to clone; all clones share one queue.
pub(crate) struct BatchQueue<T>(Arc<(Mutex<State<T>>, Condvar)>);

struct State<T> {
    items: Vec<T>,
    /// Set if one of the items must not wait for more.
    urgent: bool,
    /// The number of items that the reader waits for; `None` while it does not wait.
    wanted: Option<usize>,
    /// The jobs that have not ended.
    jobs: usize,
}

impl<T> Clone for BatchQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> BatchQueue<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: Vec::new(), urgent: false, wanted: None, jobs: 0 };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Has a worker run `job`, and queues its result. The job has dropped all that it held by then: no file is
    /// left open, nor the cache, which may be closed and opened again as soon as a run has its last result.
    pub(crate) fn submit(&self, engine: &Engine, job: impl FnOnce() -> T + Send + 'static)
    where
        T: Send + 'static,
    {
        self.submit_with(engine, (), job);
    }

    /// The same. `permit` is dropped once the result is queued, not before.
    pub(crate) fn submit_with<P: Send + 'static>(
        &self,
        engine: &Engine,
        permit: P,
        job: impl FnOnce() -> T + Send + 'static,
    ) where
        T: Send + 'static,
    {
        self.lock().jobs += 1;
        let under_way = JobUnderWay(self.clone());
        engine.submit(move || {
            // `job` is consumed, and all that it owns is dropped, before its result is pushed.
            under_way.0.push(job());
            drop(permit);
            drop(under_way);
        });
    }

    /// Returns a guard that waits for all jobs when it is dropped. However the reader ends, by an error or a panic of a
    /// backend: no job outlives what it was for.
    pub(crate) fn wait_at_end(&self) -> WaitAtEnd<'_, T> {
        WaitAtEnd(self)
    }

    pub(crate) fn wait_for_jobs(&self) {
        let jobs_left = |state: &mut State<T>| state.jobs > 0;
        drop(self.0.1.wait_while(self.lock(), jobs_left).unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an item. It wakes the reader if there are now as many as it waits for.
    pub(crate) fn push(&self, item: T) {
        self.push_and_wake(item, false);
    }

    /// Adds an item and wakes the reader, which takes it and everything before it.
    pub(crate) fn push_urgent(&self, item: T) {
        self.push_and_wake(item, true);
    }

    fn push_and_wake(&self, item: T, urgent: bool) {
        let mut state = self.lock();
        state.items.push(item);
        // Stays set until the reader has taken the items, so an urgent one is never missed between two waits.
        state.urgent |= urgent;
        let wake = state.wanted.is_some_and(|wanted| state.urgent || state.items.len() >= wanted);
        // Unlocked first, or the reader would wake up only to wait for the lock.
        drop(state);
        if wake {
            self.0.1.notify_one();
        }
    }

    /// Waits for `enough` items, for an urgent one, or until `timeout` is over, then takes all that are there.
    pub(crate) fn take(&self, enough: usize, timeout: Duration) -> Vec<T> {
        let mut state = self.wait(enough, timeout);
        state.urgent = false;
        std::mem::take(&mut state.items)
    }

    /// Waits until there is an item, and leaves it in the queue.
    pub(crate) fn wait_for_any(&self) {
        drop(self.wait(1, Duration::MAX));
    }

    fn wait(&self, enough: usize, timeout: Duration) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        state.wanted = Some(enough);
        let too_few = |state: &mut State<T>| !state.urgent && state.items.len() < enough;
        let (mut state, _) =
            self.0.1.wait_timeout_while(state, timeout, too_few).unwrap_or_else(PoisonError::into_inner);
        // From here on nobody needs to wake the reader.
        state.wanted = None;
        state
    }
}

/// A job that has not ended; it ends also by a panic.
struct JobUnderWay<T>(BatchQueue<T>);

impl<T> Drop for JobUnderWay<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.jobs -= 1;
        let was_last = state.jobs == 0;
        drop(state);
        if was_last {
            self.0.0.1.notify_all();
        }
    }
}

/// Waits for the jobs of a queue.
pub(crate) struct WaitAtEnd<'a, T>(&'a BatchQueue<T>);

impl<T> Drop for WaitAtEnd<'_, T> {
    fn drop(&mut self) {
        self.0.wait_for_jobs();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn the_reader_gets_everything_in_order_once_there_is_enough() {
        let queue = BatchQueue::new();
        let writer = queue.clone();
        let thread = std::thread::spawn(move || (0..100).for_each(|n| writer.push(n)));
        let mut got = Vec::new();
        while got.len() < 100 {
            got.extend(queue.take(100 - got.len(), LONG));
        }
        thread.join().unwrap();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert!(queue.take(1, Duration::ZERO).is_empty());
    }

    /// The cache stayed in use for a moment after its run: a worker that had handed over its result still held it.
    #[test]
    fn a_job_holds_nothing_once_its_result_is_there() {
        struct SlowToGo(Arc<AtomicBool>);
        impl Drop for SlowToGo {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(50));
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (queue, gone) = (BatchQueue::new(), Arc::new(AtomicBool::new(false)));
        let held = SlowToGo(gone.clone());
        queue.submit(&Engine::new().unwrap(), move || {
            let _held = &held;
        });
        queue.take(1, LONG);
        assert!(gone.load(Ordering::Relaxed));
    }

    #[test]
    fn an_urgent_item_wakes_the_reader_at_once() {
        let queue = BatchQueue::new();
        queue.push(1);
        let writer = queue.clone();
        let thread = std::thread::spawn(move || writer.push_urgent(2));
        queue.wait_for_any();
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(queue.take(10, LONG));
        }
        thread.join().unwrap();
        assert_eq!(got, [1, 2]);
    }
}
