//! Listings come in pages, and a store that is broken gives pages without end.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, RandomState};

use crate::error::{ErrorKind, Operation, StorageError};

/// Empty pages in a row: some come from prefixes with many objects that were deleted in a versioned bucket.
const MOST_EMPTY_PAGES: u32 = 1000;

/// Watches that the pages of one listing lead on.
pub(crate) struct Pages {
    hasher: RandomState,
    /// Hashes of the marks that were followed: 8 bytes a page.
    followed: HashSet<u64>,
    empty: u32,
}

impl Pages {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), followed: HashSet::new(), empty: 0 }
    }

    /// A page came, and the next one begins at `next`.
    pub(crate) fn turn(&mut self, next: Option<&impl Hash>, is_empty: bool) -> Result<(), StorageError> {
        let Some(next) = next else {
            return Ok(());
        };
        self.empty = if is_empty { self.empty + 1 } else { 0 };
        let what = if !self.followed.insert(self.hasher.hash_one(next)) {
            "the listing leads in a circle: a page names one that came before"
        } else if self.empty > MOST_EMPTY_PAGES {
            "the listing has no end: page after page is empty"
        } else {
            return Ok(());
        };
        Err(StorageError::new(ErrorKind::Protocol, Operation::List, what).retryable(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_seen_when_it_closes_and_a_desert_when_it_is_too_wide() {
        let mut pages = Pages::new();
        for next in ["a", "b"] {
            pages.turn(Some(&next), false).unwrap();
        }
        assert!(pages.turn(Some(&"a"), false).unwrap_err().message().contains("circle"));
        let mut pages = Pages::new();
        let ended = (0..2000_u32).find_map(|n| pages.turn(Some(&n), n != 500).err().map(|error| (n, error)));
        let (at, error) = ended.unwrap();
        assert_eq!((at, error.kind()), (1501, ErrorKind::Protocol));
        assert!(pages.turn(None::<&u32>, true).is_ok(), "the last page leads nowhere");
    }
}
