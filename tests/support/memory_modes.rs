//! The faults and the habits that tests give to the in-memory store. Part of `memory_store.rs`.

use std::time::{Duration, SystemTime};

use super::MemoryStore;
use super::conditions::Conditional;
use super::etags::ETags;

impl MemoryStore {
    /// Denies the deletion of this key, in `DeleteObjects` and in `DeleteObject`.
    pub fn deny_delete(&self, key: &str) {
        self.state().undeletable.insert(key.to_owned());
    }

    /// Fails the next `times` deletes of this key with this code, in `DeleteObjects` and in `DeleteObject`.
    pub fn fail_delete(&self, key: &str, code: &str, times: u32) {
        self.state().failing_deletes.insert(key.to_owned(), (code.to_owned(), times));
    }

    /// If `lacks`, answers `DeleteObjects` with `NotImplemented`.
    pub fn lacks_bulk_delete(&self, lacks: bool) {
        self.state().lacks_bulk_delete = lacks;
    }

    /// If `lacks`, answers `CopyObject` with `NotImplemented`.
    pub fn lacks_copy(&self, lacks: bool) {
        self.state().lacks_copy = lacks;
    }

    /// Refuses `CopyObject` with this error code for keys with this suffix.
    pub fn refuse_copy(&self, key_suffix: &str, code: &str) {
        self.state().copy_refusals.push((key_suffix.to_owned(), code.to_owned()));
    }

    /// Refuses `PutObject` with this error code for keys with this suffix, after their bodies have been read.
    pub fn refuse_put(&self, key_suffix: &str, code: &str) {
        self.state().refusals.push((key_suffix.to_owned(), code.to_owned()));
    }

    /// Undoes `deny_delete`, `fail_delete`, `lacks_bulk_delete`, `lacks_copy`, `refuse_put` and `refuse_copy`.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.undeletable.clear();
        state.failing_deletes.clear();
        state.lacks_bulk_delete = false;
        state.lacks_copy = false;
        state.refusals.clear();
        state.copy_refusals.clear();
    }

    /// Refuses `a/b` while `a` exists, and the reverse, with the error codes of `MinIO`.
    pub fn keeps_folders_as_files(&self) {
        self.state().folders_are_files = true;
    }

    /// Returns at most this many keys in each page of a listing, whatever the request asks for.
    pub fn page_limit(&self, keys: usize) {
        self.state().page_limit = Some(keys);
    }

    /// If `plus`, writes spaces as `+` in URL-encoded listings, as some stores do; else as `%20`.
    pub fn spaces_as_plus(&self, plus: bool) {
        self.state().spaces_as_plus = plus;
    }

    /// Lists unfinished uploads only if the prefix is a whole key or empty, as `MinIO` does.
    pub fn list_uploads_by_whole_key(&self) {
        self.state().lists_uploads_by_whole_key = true;
    }

    /// If `lacks`, listings say no `ETag`s, as those of s3s-fs.
    pub fn lists_no_etags(&self, lacks: bool) {
        self.state().lists_no_etags = lacks;
    }

    /// If `unordered`, lists objects in an order that has nothing to do with that of their keys.
    pub fn lists_out_of_order(&self, unordered: bool) {
        self.state().lists_out_of_order = unordered;
    }

    /// Makes the `ETag`s of what is stored from now on in this way.
    pub fn etags(&self, etags: ETags) {
        self.state().etags = etags;
    }

    /// The time of the store's clock, which `Last-Modified` is taken from. `Date` is this machine's.
    pub fn now(&self) -> SystemTime {
        self.state().now()
    }

    /// Puts the store's clock forward.
    pub fn advance_clock(&self, by: Duration) {
        self.state().ahead += by;
    }

    /// If `ignores`, answers all writes and deletes as if they had no conditions, as Garage does.
    pub fn ignores_conditions(&self, ignores: bool) {
        self.ignores_conditions_of(if ignores { &Conditional::WRITES } else { &[] });
    }

    /// Ignores the conditions of these operations, and of no others.
    pub fn ignores_conditions_of(&self, operations: &[Conditional]) {
        self.state().habits.ignored = operations.iter().copied().collect();
    }

    /// Checks the condition of a PUT, Complete or DELETE, and commits without a check as soon as another such request
    /// for the same key has passed its check, after `longest` at the latest: of racing creates at least two win, as on
    /// s3s-fs. `None`: check and commit are one step again.
    pub fn honours_without_atomicity(&self, longest: Option<Duration>) {
        self.state().habits.gap = longest;
    }

    /// Answers the next `times` writes and deletes that have a condition with 409 `ConditionalRequestConflict`.
    pub fn conflicts(&self, times: u32) {
        self.state().habits.conflicts = times;
    }
}
