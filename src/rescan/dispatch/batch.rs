//! Batches: files that are recorded together. Pure: time is a parameter.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::state::store::Write;

/// A receipt waits no longer than this for the rest of its batch.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Gathers what is to be recorded until a batch of files is settled.
pub(crate) struct Batches {
    size: usize,
    filling: u64,
    filled: usize,
    open: BTreeMap<u64, Batch>,
}

#[derive(Default)]
struct Batch {
    under_way: usize,
    sealed: bool,
    writes: Vec<Write>,
    since: Option<Duration>,
}

impl Batches {
    pub(crate) fn new(size: usize) -> Self {
        Self { size, filling: 0, filled: 0, open: BTreeMap::new() }
    }

    /// The batch of the next file.
    pub(crate) fn assign(&mut self) -> u64 {
        let number = self.filling;
        let batch = self.open.entry(number).or_default();
        batch.under_way += 1;
        self.filled += 1;
        if self.filled == self.size {
            batch.sealed = true;
            self.filling += 1;
            self.filled = 0;
        }
        number
    }

    /// Takes the write of a file that is settled. Returns what is to be recorded now: all writes of the batch
    /// once all its files are settled.
    pub(crate) fn settle(&mut self, number: u64, write: Option<Write>, now: Duration) -> Vec<Write> {
        let Some(batch) = self.open.get_mut(&number) else {
            return write.into_iter().collect();
        };
        batch.under_way -= 1;
        if write.is_some() {
            batch.since.get_or_insert(now);
            batch.writes.extend(write);
        }
        if batch.sealed && batch.under_way == 0 {
            return self.open.remove(&number).map(|batch| batch.writes).unwrap_or_default();
        }
        Vec::new()
    }

    /// The writes that have waited for their batch long enough.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<Write> {
        self.open
            .values_mut()
            .filter(|batch| batch.since.is_some_and(|since| now.saturating_sub(since) >= LONGEST_WAIT))
            .flat_map(|batch| {
                batch.since = None;
                std::mem::take(&mut batch.writes)
            })
            .collect()
    }

    /// All writes that wait: no more files come.
    pub(crate) fn rest(&mut self) -> Vec<Write> {
        self.filled = 0;
        self.filling += 1;
        std::mem::take(&mut self.open).into_values().flat_map(|batch| batch.writes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn write(name: &str) -> Write {
        Write::Settled(name.to_owned())
    }

    #[test]
    fn a_batch_is_recorded_when_its_last_file_is_settled() {
        let mut batches = Batches::new(3);
        let numbers: Vec<_> = (0..4).map(|_| batches.assign()).collect();
        assert_eq!(numbers, [0, 0, 0, 1]);
        assert!(batches.settle(0, Some(write("a")), NOW).is_empty());
        assert!(batches.settle(0, None, NOW).is_empty());
        assert_eq!(batches.settle(0, Some(write("c")), NOW), [write("a"), write("c")]);
        assert!(batches.settle(1, Some(write("d")), NOW).is_empty());
        assert_eq!(batches.rest(), [write("d")]);
    }

    #[test]
    fn no_receipt_waits_longer_than_five_seconds_for_a_slow_file() {
        let mut batches = Batches::new(3);
        for _ in 0..3 {
            batches.assign();
        }
        batches.settle(0, Some(write("a")), NOW);
        assert!(batches.due(NOW + Duration::from_secs(4)).is_empty());
        assert_eq!(batches.due(NOW + Duration::from_secs(5)), [write("a")]);
        assert!(batches.due(NOW + Duration::from_secs(50)).is_empty());
        batches.settle(0, None, NOW);
        assert_eq!(batches.settle(0, Some(write("c")), NOW), [write("c")]);
    }
}
