//! The result of a verification.

use crate::error::StorageError;
use crate::rescan::report::push;

/// The result of a verification: the store's listing, and on request the contents, compared with the cache.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Set if everything was compared, without an error or a stop before the end.
    pub complete: bool,
    /// Objects that are still as the store acknowledged them.
    pub matching: u64,
    /// Those among them whose content was downloaded and hashed.
    pub contents: u64,
    /// Published keys that the store does not have. The next rescan publishes them again.
    pub missing_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub missing: Vec<String>,
    /// Published keys whose size, `ETag` or content differs. The next rescan publishes them again.
    pub different_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub different: Vec<String>,
    /// Objects that this cache did not publish, by their keys without the prefix.
    pub unknown_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub unknown: Vec<String>,
    /// Keys whose record is not trusted until they are published again: an earlier verification found them missing or
    /// different, or a request for them got no response. Keys that are missing or different now are not counted here.
    pub unsettled_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub unsettled: Vec<String>,
    /// Objects of which only the size was compared, because the store did not return or list an ETag.
    pub sizes_only: u64,
    /// Objects that were missing or different and that the same rescan published again.
    pub repaired: u64,
    /// Objects that could not be read.
    pub failed_count: u64,
    /// The errors, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub failed: Vec<StorageError>,
}

impl VerifyReport {
    /// Returns true if everything was compared and every published object is as the store acknowledged it.
    pub fn is_good(&self) -> bool {
        self.complete
            && self.missing_count == 0
            && self.different_count == 0
            && self.unsettled_count == 0
            && self.failed_count == 0
    }

    /// Returns true if no object was compared or found.
    pub(crate) fn is_empty(&self) -> bool {
        let found = self.missing_count + self.different_count + self.unsettled_count;
        self.matching + found + self.unknown_count == 0
    }

    pub(crate) fn add_missing(&mut self, key: String) {
        self.missing_count += 1;
        push(&mut self.missing, key);
    }

    pub(crate) fn add_different(&mut self, key: String) {
        self.different_count += 1;
        push(&mut self.different, key);
    }

    pub(crate) fn add_unsettled(&mut self, key: String) {
        self.unsettled_count += 1;
        push(&mut self.unsettled, key);
    }

    pub(crate) fn add_unknown(&mut self, key: String) {
        self.unknown_count += 1;
        push(&mut self.unknown, key);
    }

    pub(crate) fn add_failed(&mut self, error: StorageError) {
        self.failed_count += 1;
        push(&mut self.failed, error);
    }
}
