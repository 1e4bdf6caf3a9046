//! Listings come in pages, and a store that is broken gives pages without end.
//!
//! A listing is bounded by what it brings: as long as it names something new, it goes on, in whatever order. That is
//! found out in memory of a fixed size, whatever the store sends.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::error::{ErrorKind, Operation, StorageError};

/// Pages in a row that are empty, or bring nothing new: some empty ones come from prefixes with many objects that
/// were deleted in a versioned bucket.
const MOST_BARREN_PAGES: u32 = 1000;

/// Marks that are remembered, as hashes: a circle of so many pages is seen as soon as it closes.
const MOST_MARKS: usize = 16 * 1024;

/// Watches that the pages of one listing lead on. Takes 1 MiB at most.
pub(crate) struct Pages {
    hasher: RandomState,
    followed: HashSet<u64>,
    names: Sample,
    empty: u32,
    /// Pages in a row without a name that was new to the sample.
    barren: u32,
}

impl Pages {
    pub(crate) fn new() -> Self {
        let (hasher, followed, names) = (RandomState::new(), HashSet::new(), Sample::new(MOST_NAMES));
        Self { hasher, followed, names, empty: 0, barren: 0 }
    }

    /// A page came that lists these names, and the next one begins at `next`.
    pub(crate) fn follow(
        &mut self,
        next: Option<&impl Hash>,
        names: impl Iterator<Item: Hash>,
    ) -> Result<(), StorageError> {
        let (mut is_empty, mut is_new) = (true, false);
        for name in names {
            is_empty = false;
            is_new |= self.names.add(self.hasher.hash_one(name));
        }
        self.barren = if is_new { 0 } else { self.barren.saturating_add(1) };
        if next.is_some() && self.barren > MOST_BARREN_PAGES && self.names.have_no_new_one() {
            return Err(broken("the listing has no end: 1,000 pages in a row bring nothing new"));
        }
        self.go_on(next, is_empty)
    }

    fn go_on(&mut self, next: Option<&impl Hash>, is_empty: bool) -> Result<(), StorageError> {
        let Some(next) = next else {
            return Ok(());
        };
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        if self.followed.len() == MOST_MARKS {
            self.followed.clear();
        }
        if !self.followed.insert(self.hasher.hash_one(next)) {
            return Err(broken("the listing leads in a circle: a page names one that came before"));
        }
        if self.empty > MOST_BARREN_PAGES {
            return Err(broken("the listing has no end: page after page is empty"));
        }
        Ok(())
    }
}

fn broken(what: &str) -> StorageError {
    StorageError::new(ErrorKind::Protocol, Operation::List, what).retryable(false)
}

/// Names that are remembered, as hashes.
const MOST_NAMES: usize = 16 * 1024;

/// So many times the names that one of the sample stands for, and none of them new: by chance once in e^32 times.
const CERTAINTY: u64 = 32;

/// A sample of hashes whose size is bounded: those with so many zeros at their end, and one more of them whenever the
/// sample is full. The hashes are keyed, so that nobody can choose names that are not in it.
struct Sample {
    hashes: HashSet<u64>,
    most: usize,
    zeros: u32,
    /// Hashes that were added since the last one that was new to the sample.
    since: u64,
}

impl Sample {
    fn new(most: usize) -> Self {
        Self { hashes: HashSet::new(), most, zeros: 0, since: 0 }
    }

    /// Whether the hash is in the sample and was not before.
    fn add(&mut self, hash: u64) -> bool {
        self.since += 1;
        if hash.trailing_zeros() < self.zeros || !self.hashes.insert(hash) {
            return false;
        }
        self.since = 0;
        while self.hashes.len() > self.most {
            self.zeros += 1;
            self.hashes.retain(|hash| hash.trailing_zeros() >= self.zeros);
        }
        true
    }

    /// Whether there were so many names that a new one would have come into the sample.
    fn have_no_new_one(&self) -> bool {
        self.zeros == 0 || self.since >= CERTAINTY << self.zeros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_seen_when_it_closes_and_a_desert_when_it_is_too_wide() {
        let mut pages = Pages::new();
        for next in ["a", "b"] {
            pages.follow(Some(&next), [&next].into_iter()).unwrap();
        }
        assert!(pages.follow(Some(&"a"), ["c"].into_iter()).unwrap_err().message().contains("circle"));
        let mut pages = Pages::new();
        let ended = (0..2000_u32).find_map(|n| {
            pages.follow(Some(&n), (n == 500).then_some(n).into_iter()).err().map(|error| (n, error))
        });
        let (at, error) = ended.unwrap();
        assert_eq!((at, error.kind()), (1501, ErrorKind::Protocol));
        assert!(pages.follow(None::<&u32>, std::iter::empty::<u32>()).is_ok(), "the last page leads nowhere");
    }

    /// How many pages of these names are followed, each with a mark of its own.
    fn followed(pages: &mut Pages, most: u32, names: impl Fn(u32) -> Vec<u32>) -> u32 {
        (0..most).find(|n| pages.follow(Some(n), names(*n).into_iter()).is_err()).unwrap_or(most)
    }

    /// A listing of ever new tokens and the same objects went on for 30 million pages and 876 MiB of their marks.
    #[test]
    fn n16_pages_that_bring_nothing_new_end_soon_and_take_little() {
        assert_eq!(followed(&mut Pages::new(), 5000, |_| vec![1, 2, 3]), 1001);
        assert_eq!(followed(&mut Pages::new(), 5000, |n| vec![n % 7, n % 11]), 1001 + 10);
        assert_eq!(followed(&mut Pages::new(), 5000, |_| Vec::new()), 1000);
        let large = |n: u32| if n < 100 { (n * 1000..n * 1000 + 1000).collect() } else { Vec::new() };
        assert_eq!(followed(&mut Pages::new(), 5000, large), 1100);
        // Of many names, all of which came before, in whatever portions.
        let mut pages = Pages::new();
        let random = fastrand::Rng::with_seed(1);
        let random = std::cell::RefCell::new(random);
        let some = |_| (0..1000).map(|_| random.borrow_mut().u32(..200_000)).collect();
        let ended = followed(&mut pages, 20_000, some);
        assert!(ended < 20_000 && pages.followed.len() <= MOST_MARKS, "{ended}");
        assert!(pages.names.hashes.len() <= MOST_NAMES && pages.names.hashes.capacity() <= 4 * MOST_NAMES);
    }

    /// A large bucket, in no order, in pages of one object or of many, some of which came before.
    #[test]
    fn n16_pages_that_bring_something_new_go_on() {
        let shuffled = |n: u32| n.wrapping_mul(2_654_435_761);
        assert_eq!(followed(&mut Pages::new(), 300_000, |n| vec![shuffled(n)]), 300_000);
        let thousand = |n: u32| (n * 1000..n * 1000 + 1000).map(shuffled).collect();
        assert_eq!(followed(&mut Pages::new(), 3000, thousand), 3000);
        assert_eq!(followed(&mut Pages::new(), 100_000, |n| vec![1, 2, 3 + n / 500]), 100_000);
    }
}
