//! Detects a listing without end, which a broken store may send.
//!
//! A listing may continue as long as it names something new, in whatever order. The check takes a fixed amount of
//! memory, whatever the store sends.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::error::{ErrorKind, Operation, StorageError};

/// The limit of consecutive pages that are empty or hold nothing new. Empty pages occur in a versioned bucket in which
/// many objects were deleted.
const MAX_PAGES_WITHOUT_NEW: u32 = 1000;

/// The number of continuation tokens or markers whose hashes are kept: one that repeats within as many pages is seen
/// at once.
const MAX_TOKENS: usize = 16 * 1024;

/// Checks that the pages of one listing make progress. Takes 1 MiB at most.
pub(crate) struct Pages {
    hasher: RandomState,
    followed: HashSet<u64>,
    names: Sample,
    /// Consecutive empty pages.
    empty: u32,
    /// Consecutive pages without a name that was new to the sample.
    without_new: u32,
}

impl Pages {
    pub(crate) fn new() -> Self {
        let (hasher, followed, names) = (RandomState::new(), HashSet::new(), Sample::new(MAX_NAMES));
        Self { hasher, followed, names, empty: 0, without_new: 0 }
    }

    /// Records a page with these names, whose next page begins at `next`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the listing repeats itself or makes no progress.
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
        self.without_new = if is_new { 0 } else { self.without_new.saturating_add(1) };
        if next.is_some() && self.without_new > MAX_PAGES_WITHOUT_NEW && self.names.shows_nothing_new() {
            return Err(listing_error("the listing has no end: 1,000 pages in a row hold nothing new"));
        }
        self.check_next(next, is_empty)
    }

    fn check_next(&mut self, next: Option<&impl Hash>, is_empty: bool) -> Result<(), StorageError> {
        // The last page ends the listing, whatever it holds.
        let Some(next) = next else {
            return Ok(());
        };
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        // A circle longer than this is found by its names.
        if self.followed.len() == MAX_TOKENS {
            self.followed.clear();
        }
        if !self.followed.insert(self.hasher.hash_one(next)) {
            return Err(listing_error("the listing repeats a continuation token"));
        }
        if self.empty > MAX_PAGES_WITHOUT_NEW {
            return Err(listing_error("the listing has no end: 1,000 pages in a row are empty"));
        }
        Ok(())
    }
}

fn listing_error(what: &str) -> StorageError {
    StorageError::new(ErrorKind::Protocol, Operation::List, what).retryable(false)
}

/// The number of names whose hashes are kept.
const MAX_NAMES: usize = 16 * 1024;

/// The evidence for "nothing new": this many times the names that one name of the sample stands for, none of them
/// new to it. By chance that happens once in e^32 times.
const CERTAINTY: u64 = 32;

/// A sample of hashes with a bounded size: those that end in `zeros` zero bits, one more whenever the sample is full.
/// The hashes are keyed, so nobody can choose names that are not in it.
struct Sample {
    hashes: HashSet<u64>,
    most: usize,
    zeros: u32,
    /// The number of hashes added since the last one that was new to the sample.
    since: u64,
}

impl Sample {
    fn new(most: usize) -> Self {
        Self { hashes: HashSet::new(), most, zeros: 0, since: 0 }
    }

    /// Adds a hash. Returns whether it is new to the sample.
    fn add(&mut self, hash: u64) -> bool {
        self.since += 1;
        if hash.trailing_zeros() < self.zeros || !self.hashes.insert(hash) {
            return false;
        }
        self.since = 0;
        // Halves the sample: each remaining name now stands for twice as many.
        while self.hashes.len() > self.most {
            self.zeros += 1;
            self.hashes.retain(|hash| hash.trailing_zeros() >= self.zeros);
        }
        true
    }

    /// Returns whether so many names came that a new one would be in the sample.
    fn shows_nothing_new(&self) -> bool {
        // With no zeros asked for, the sample holds every name.
        self.zeros == 0 || self.since >= CERTAINTY << self.zeros
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_token_is_seen_at_once_and_empty_pages_after_a_thousand() {
        let mut pages = Pages::new();
        for next in ["a", "b"] {
            pages.follow(Some(&next), [&next].into_iter()).unwrap();
        }
        assert!(
            pages
                .follow(Some(&"a"), ["c"].into_iter())
                .unwrap_err()
                .message()
                .contains("repeats a continuation token")
        );
        let mut pages = Pages::new();
        let ended = (0..2000_u32).find_map(|n| {
            pages.follow(Some(&n), (n == 500).then_some(n).into_iter()).err().map(|error| (n, error))
        });
        let (at, error) = ended.unwrap();
        assert_eq!((at, error.kind()), (1501, ErrorKind::Protocol));
        assert!(
            pages.follow(None::<&u32>, std::iter::empty::<u32>()).is_ok(),
            "the last page has no next one"
        );
    }

    /// Returns the number of pages with these names, each with its own token, until the first error.
    fn followed(pages: &mut Pages, most: u32, names: impl Fn(u32) -> Vec<u32>) -> u32 {
        (0..most).find(|n| pages.follow(Some(n), names(*n).into_iter()).is_err()).unwrap_or(most)
    }

    /// A listing with ever new tokens and the same objects continued for 30 million pages and 876 MiB of tokens.
    #[test]
    fn n16_pages_that_hold_nothing_new_end_soon_in_little_memory() {
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
        assert!(ended < 20_000 && pages.followed.len() <= MAX_TOKENS, "{ended}");
        assert!(pages.names.hashes.len() <= MAX_NAMES && pages.names.hashes.capacity() <= 4 * MAX_NAMES);
    }

    /// A large bucket, in no order, in pages of one object or of many, some of which came before.
    #[test]
    fn n16_pages_that_hold_something_new_continue() {
        let shuffled = |n: u32| n.wrapping_mul(2_654_435_761);
        assert_eq!(followed(&mut Pages::new(), 300_000, |n| vec![shuffled(n)]), 300_000);
        let thousand = |n: u32| (n * 1000..n * 1000 + 1000).map(shuffled).collect();
        assert_eq!(followed(&mut Pages::new(), 3000, thousand), 3000);
        assert_eq!(followed(&mut Pages::new(), 100_000, |n| vec![1, 2, 3 + n / 500]), 100_000);
    }
}
