//! Limits how many tasks of large files the workers have at a time, and says whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The large files on their way, in the order in which they were begun, and the permits for their tasks.
/// Clones are the same queue.
#[derive(Clone)]
pub(crate) struct MultipartQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// A permit came back, or there are more of them.
    freed: Condvar,
    /// Parts on their way that fill the workers.
    most: usize,
    /// Called when the files on their way fill the workers no more.
    on_room: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    begun: u64,
    /// Parts that are still to be hashed or sent, by file.
    left: BTreeMap<u64, usize>,
    /// Files that wait for a permit.
    waiting: BTreeSet<u64>,
    limit: usize,
    under_way: usize,
    hash_on: bool,
}

impl State {
    fn parts_left(&self) -> usize {
        self.left.values().sum()
    }
}

impl MultipartQueue {
    pub(crate) fn new(most: usize, on_room: impl Fn() + Send + Sync + 'static) -> Self {
        let state = Mutex::new(State { limit: most, ..State::default() });
        Self(Arc::new(Shared { state, freed: Condvar::new(), most, on_room: Box::new(on_room) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a file that is begun its number.
    pub(crate) fn begin(&self, parts: usize) -> u64 {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.left.insert(number, parts);
        number
    }

    pub(crate) fn end(&self, number: u64) {
        self.lock().left.remove(&number);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().left.is_empty()
    }

    pub(crate) fn parts_left(&self) -> usize {
        self.lock().parts_left()
    }

    /// Notes how many parts of a file are left.
    pub(crate) fn set_left(&self, number: u64, parts: usize) {
        let mut state = self.lock();
        let filled = state.parts_left() >= self.0.most;
        if let Some(left) = state.left.get_mut(&number) {
            *left = parts.max(1);
        }
        let room = filled && state.parts_left() < self.0.most;
        drop(state);
        if room {
            (self.0.on_room)();
        }
    }

    /// No more than `limit` tasks at a time from now on.
    pub(crate) fn set_limit(&self, limit: usize) {
        let mut state = self.lock();
        let more = limit > state.limit;
        state.limit = limit;
        if more {
            self.0.freed.notify_all();
        }
    }

    /// Has files hashed to their end although nothing more is sent, or not.
    pub(crate) fn set_hash_on(&self, hash_on: bool) {
        self.lock().hash_on = hash_on;
    }

    pub(crate) fn hashes_on(&self) -> bool {
        self.lock().hash_on
    }

    /// Waits until one more task of this file may be handed to the workers: the file that was begun first goes
    /// first.
    pub(crate) fn permit(&self, number: u64) -> Permit {
        let mut state = self.lock();
        state.waiting.insert(number);
        while state.under_way >= state.limit || state.waiting.first() != Some(&number) {
            state = self.0.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.remove(&number);
        state.under_way += 1;
        if state.under_way < state.limit {
            // The next in line did not look while this one stood before it.
            self.0.freed.notify_all();
        }
        Permit(self.clone())
    }
}

/// Permission to hand one task to the workers. Dropping it gives it back: after the answer is there, so that whoever
/// waits for the permit sees that answer first.
pub(crate) struct Permit(MultipartQueue);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::engine::batch_queue::BatchQueue;

    fn queue(most: usize) -> (MultipartQueue, Arc<AtomicUsize>) {
        let rooms = Arc::new(AtomicUsize::new(0));
        let counted = rooms.clone();
        let queue = MultipartQueue::new(most, move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        (queue, rooms)
    }

    fn wait_until(condition: impl Fn() -> bool) {
        while !condition() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_file_that_was_begun_first_gets_the_next_permit() {
        let (queue, _) = queue(1);
        let (first, second) = (queue.begin(3), queue.begin(3));
        let order = BatchQueue::new();
        let held = queue.permit(second);
        std::thread::scope(|scope| {
            for number in [second, first] {
                let (queue, order) = (queue.clone(), order.clone());
                scope.spawn(move || {
                    let permit = queue.permit(number);
                    order.push(number);
                    drop(permit);
                });
                wait_until(|| queue_waits(&held.0, number));
            }
            drop(held);
        });
        assert_eq!(order.take(2, Duration::ZERO), [first, second]);
        assert_eq!(queue.lock().under_way, 0);
    }

    fn queue_waits(queue: &MultipartQueue, number: u64) -> bool {
        queue.lock().waiting.contains(&number)
    }

    #[test]
    fn a_higher_limit_lets_those_in_who_wait() {
        let (queue, _) = queue(1);
        let number = queue.begin(3);
        let _held = queue.permit(number);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| drop(queue.permit(number)));
            wait_until(|| queue_waits(&queue, number));
            queue.set_limit(2);
            waiter.join().unwrap();
        });
    }

    #[test]
    fn room_for_another_file_is_told_once() {
        let (queue, rooms) = queue(4);
        let number = queue.begin(6);
        let told = |left: usize| {
            queue.set_left(number, left);
            rooms.load(Ordering::SeqCst)
        };
        assert_eq!([5, 4, 3, 2, 0].map(told), [0, 0, 1, 1, 1]);
        assert_eq!(queue.parts_left(), 1, "a file that is not settled counts");
        queue.end(number);
        assert!(queue.is_empty());
    }
}
