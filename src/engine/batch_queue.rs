//! A queue with one reader that is woken only when there is enough for it. Channels wake, and spin
//! for, their reader once a message: a tenth of the CPU of publishing small files.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::engine::Engine;

/// Cheap to clone; clones are the same box.
pub(crate) struct BatchQueue<T>(Arc<(Mutex<State<T>>, Condvar)>);

struct State<T> {
    items: Vec<T>,
    urgent: bool,
    /// How many items the reader waits for; `None`: it does not wait.
    wanted: Option<usize>,
}

impl<T> Clone for BatchQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> BatchQueue<T> {
    pub(crate) fn new() -> Self {
        let state = State { items: Vec::new(), urgent: false, wanted: None };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    /// Has a worker do something, and takes its result. By then the job holds nothing any more: no open file, and
    /// not the cache, which may be closed and opened again as soon as a run has its last result.
    pub(crate) fn submit(&self, engine: &Engine, job: impl FnOnce() -> T + Send + 'static)
    where
        T: Send + 'static,
    {
        let results = self.clone();
        engine.submit(move || results.push(job()));
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, item: T) {
        self.put(item, false);
    }

    /// The reader takes this one, and what was before it, at once.
    pub(crate) fn push_urgent(&self, item: T) {
        self.put(item, true);
    }

    fn put(&self, item: T, urgent: bool) {
        let mut state = self.lock();
        state.items.push(item);
        state.urgent |= urgent;
        let wake = state.wanted.is_some_and(|wanted| state.urgent || state.items.len() >= wanted);
        drop(state);
        if wake {
            self.0.1.notify_one();
        }
    }

    /// Waits until `enough` items are there, an urgent one is, or `patience` is over, and takes all.
    pub(crate) fn take(&self, enough: usize, patience: Duration) -> Vec<T> {
        let mut state = self.wait(enough, patience);
        state.urgent = false;
        std::mem::take(&mut state.items)
    }

    /// Waits until anything is there, and leaves it.
    pub(crate) fn wait_for_any(&self) {
        drop(self.wait(1, Duration::MAX));
    }

    fn wait(&self, enough: usize, patience: Duration) -> MutexGuard<'_, State<T>> {
        let mut state = self.lock();
        state.wanted = Some(enough);
        let lacking = |state: &mut State<T>| !state.urgent && state.items.len() < enough;
        let (mut state, _) =
            self.0.1.wait_timeout_while(state, patience, lacking).unwrap_or_else(PoisonError::into_inner);
        state.wanted = None;
        state
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn the_reader_gets_everything_in_order_once_there_is_enough() {
        let mailbox = BatchQueue::new();
        let writer = mailbox.clone();
        let thread = std::thread::spawn(move || (0..100).for_each(|n| writer.push(n)));
        let mut got = Vec::new();
        while got.len() < 100 {
            got.extend(mailbox.take(100 - got.len(), LONG));
        }
        thread.join().unwrap();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        assert!(mailbox.take(1, Duration::ZERO).is_empty());
    }

    /// A cache was in use for a moment after a run had ended: a worker that had given its result still held it.
    #[test]
    fn a_job_holds_nothing_once_its_result_is_there() {
        struct SlowToGo(Arc<AtomicBool>);
        impl Drop for SlowToGo {
            fn drop(&mut self) {
                std::thread::sleep(Duration::from_millis(50));
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let (mailbox, gone) = (BatchQueue::new(), Arc::new(AtomicBool::new(false)));
        let held = SlowToGo(gone.clone());
        mailbox.submit(&Engine::new().unwrap(), move || {
            let _held = &held;
        });
        mailbox.take(1, LONG);
        assert!(gone.load(Ordering::Relaxed));
    }

    #[test]
    fn an_urgent_item_wakes_the_reader_at_once() {
        let mailbox = BatchQueue::new();
        mailbox.push(1);
        let writer = mailbox.clone();
        let thread = std::thread::spawn(move || writer.push_urgent(2));
        mailbox.wait_for_any();
        let mut got = Vec::new();
        while got.len() < 2 {
            got.extend(mailbox.take(10, LONG));
        }
        thread.join().unwrap();
        assert_eq!(got, [1, 2]);
    }
}
