//! The report of a rescan.

mod kept;
mod publication;
mod refusal;
mod verification;

use std::time::Duration;

use crate::error::{ErrorKind, StorageError};
use crate::observe::metrics::MetricsSnapshot;
pub use crate::rescan::report::kept::{Kept, KeptReason};
pub use crate::rescan::report::publication::{PublishedBy, StateReport};
pub use crate::rescan::report::refusal::{DeletesRefused, TooMany};
pub use crate::rescan::report::verification::VerifyReport;
use crate::state::records::PendingKind;
use crate::tree::walk::Skip;

/// The most entries in each list of a report. The counts beside the lists are always complete, and an observer gets
/// every event.
pub const REPORT_LIST_LIMIT: usize = 100_000;

/// The outcome of a rescan, from best to worst. The list is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanOutcome {
    /// There was nothing to do.
    Unchanged,
    /// Everything was done.
    Published,
    /// Something failed or was skipped, and stays pending.
    Partial,
    /// The store was unavailable. The changes on disk are recorded, and nothing was published.
    LocalOnly,
}

impl RescanOutcome {
    /// `unchanged`, `published`, `partial` or `local_only`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::Published => "published",
            Self::Partial => "partial",
            Self::LocalOnly => "local_only",
        }
    }
}

/// The reason why a rescan stopped before everything was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The caller cancelled.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// Too many files are gone. [`RescanReport::deletes_refused`] says how many, and which rule that breaks.
    DeletesRefused,
    /// The store refused the credentials.
    Credentials,
    /// The store was unavailable.
    Unavailable,
    /// Another run is publishing, or a newer build was published. [`RescanReport::state`] says which.
    Claimed,
    /// Another run has taken over.
    Superseded,
}

impl StopReason {
    /// Returns the stop reason behind an error that only says that the run was stopped.
    pub(crate) fn of(error: &StorageError) -> Option<Self> {
        match error.kind() {
            ErrorKind::Cancelled => Some(Self::Cancelled),
            ErrorKind::Deadline => Some(Self::Deadline),
            ErrorKind::Unavailable => Some(Self::Unavailable),
            ErrorKind::Superseded => Some(Self::Superseded),
            _ => None,
        }
    }

    /// Returns true if nothing more may be sent. After the others, what is in flight goes on.
    pub(crate) fn ends_all_requests(self) -> bool {
        matches!(self, Self::Unavailable | Self::Credentials | Self::Claimed | Self::Superseded)
    }

    /// `cancelled`, `deadline`, `deletes_refused`, `credentials`, `unavailable`, `claimed` or `superseded`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::DeletesRefused => "deletes_refused",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
            Self::Claimed => "claimed",
            Self::Superseded => "superseded",
        }
    }
}

/// A file that was uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Its key.
    pub key: String,
    /// Its public URL.
    pub url: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// [`PendingKind::Added`] or [`PendingKind::Modified`].
    pub kind: PendingKind,
}

/// The comparison of the tree with the objects under the prefix, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Adoption {
    /// Objects listed, without those of other publishers.
    pub listed: u64,
    /// Objects that have the key of a file, and another content as far as is known.
    pub different: u64,
    /// Objects whose key no file of the tree has.
    pub without_file: u64,
    /// HEAD requests sent, because the listing did not tell the content.
    pub head_requests: u64,
}

/// Objects under the prefix that neither this cache nor, as far as is known, another publisher has stored.
/// [`FirstRun::Adopt`](crate::FirstRun::Adopt) counts all of them, [`Overwrite`](crate::FirstRun::Overwrite) and
/// [`Refuse`](crate::FirstRun::Refuse) those on the first page of the listing that has any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownObjects {
    /// The number of objects, on one page of the listing or in all.
    pub count: u64,
    /// Set if the listing has more pages.
    pub at_least: bool,
}

/// The report of a rescan. Keys are without the prefix; sizes are in bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct RescanReport {
    /// The outcome.
    pub outcome: RescanOutcome,
    /// The reason why it stopped early, if it did.
    pub stop_reason: Option<StopReason>,
    /// Set if part of the tree could not be read, so that nothing was (in a dry run: would be) deleted.
    pub blocked: bool,
    /// Set if the deletes were refused because they were too many for one run.
    pub deletes_refused: Option<DeletesRefused>,
    /// Set for a dry run. Then `uploaded`, `headers_updated` and `deleted` hold what would have
    /// been done.
    pub dry_run: bool,
    /// Files found.
    pub scanned: u64,
    /// Files whose published version is up to date.
    pub unchanged: u64,
    /// Files uploaded.
    pub uploaded_count: u64,
    /// The sum of their sizes.
    pub uploaded_bytes: u64,
    /// The uploaded files, up to [`REPORT_LIST_LIMIT`], in the order in which they finished.
    pub uploaded: Vec<Uploaded>,
    /// Objects that got other headers by a copy in place: the contents of their files did not change.
    pub headers_updated_count: u64,
    /// Their keys, up to [`REPORT_LIST_LIMIT`], in the order in which they were finished.
    pub headers_updated: Vec<String>,
    /// Those among the uploaded files whose contents did not change: they were sent again for other headers, because
    /// their objects cannot be copied in place.
    pub headers_resent_count: u64,
    /// Objects that held the content of their files already, and were taken over without an upload.
    pub adopted_count: u64,
    /// The sum of their sizes.
    pub adopted_bytes: u64,
    /// Their keys, up to [`REPORT_LIST_LIMIT`].
    pub adopted: Vec<String>,
    /// Objects deleted.
    pub deleted_count: u64,
    /// Their keys, up to [`REPORT_LIST_LIMIT`], in the order in which they were deleted.
    pub deleted: Vec<String>,
    /// The number of failures.
    pub failed_count: u64,
    /// The failures, up to [`REPORT_LIST_LIMIT`], each with its key or path and the reason.
    pub failed: Vec<StorageError>,
    /// Objects kept although their files were not found, or are left out now.
    pub kept_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub kept: Vec<Kept>,
    /// Directory entries that are not published, such as symbolic links, special files and what is named `.brigade`.
    pub skipped_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub skipped: Vec<Skip>,
    /// Files left out because of their size ([`RescanConfig::min_size`](crate::RescanConfig::min_size),
    /// [`RescanConfig::max_size`](crate::RescanConfig::max_size)).
    pub outside_sizes: u64,
    /// Keys with work left to do.
    pub pending: u64,
    /// Multipart uploads that are left open. The next rescan resumes or aborts them. If the store does not permit
    /// aborting one, the log says so.
    pub open_uploads: u64,
    /// The comparison of a first run with the objects under the prefix, if there was one.
    pub adoption: Option<Adoption>,
    /// On a first run: the objects under the prefix that this cache neither published nor took over. `None` for
    /// [`FirstRun::Mirror`](crate::FirstRun::Mirror), which takes over all of them.
    pub unknown_objects: Option<UnknownObjects>,
    /// The comparison with a listing of the records of a cache that was copied, or put back by a backup. Objects that are
    /// missing or different are no longer recorded.
    pub copied_cache: Option<VerifyReport>,
    /// The state in the bucket, if the configuration says that it lies there and it could be read.
    pub state: Option<StateReport>,
    /// The first error that showed the store unreachable or out of order.
    pub outage: Option<StorageError>,
    /// The result of the verification, if one was asked for.
    pub verified: Option<VerifyReport>,
    /// Requests, connections, retries, bytes on the wire.
    pub metrics: MetricsSnapshot,
    /// The duration of the rescan.
    pub elapsed: Duration,
}

impl RescanReport {
    pub(crate) fn new(dry_run: bool) -> Self {
        Self {
            outcome: RescanOutcome::Unchanged,
            stop_reason: None,
            blocked: false,
            deletes_refused: None,
            dry_run,
            scanned: 0,
            unchanged: 0,
            uploaded_count: 0,
            uploaded_bytes: 0,
            uploaded: Vec::new(),
            headers_updated_count: 0,
            headers_updated: Vec::new(),
            headers_resent_count: 0,
            adopted_count: 0,
            adopted_bytes: 0,
            adopted: Vec::new(),
            deleted_count: 0,
            deleted: Vec::new(),
            failed_count: 0,
            failed: Vec::new(),
            kept_count: 0,
            kept: Vec::new(),
            skipped_count: 0,
            skipped: Vec::new(),
            outside_sizes: 0,
            pending: 0,
            open_uploads: 0,
            adoption: None,
            unknown_objects: None,
            copied_cache: None,
            state: None,
            outage: None,
            verified: None,
            metrics: MetricsSnapshot::default(),
            elapsed: Duration::ZERO,
        }
    }

    /// Returns true if the verification found objects missing or different.
    pub(crate) fn has_missing_or_different(&self) -> bool {
        self.verified.as_ref().is_some_and(|found| found.missing_count + found.different_count > 0)
    }

    /// Resets what a second pass over the tree counts anew. Returns how many objects were missing or different.
    pub(crate) fn reset_for_second_pass(&mut self) -> u64 {
        (self.scanned, self.unchanged, self.outside_sizes) = (0, 0, 0);
        // What was settled for good is not found again.
        self.kept.retain(|kept| matches!(kept.reason, KeptReason::NotOurs | KeptReason::NotAsRecorded));
        (self.kept_count, self.skipped_count) = (self.kept.len() as u64, 0);
        self.skipped.clear();
        let found = self.verified.take().unwrap_or_default();
        found.missing_count + found.different_count
    }

    /// Resets what a second plan of the same pass counts anew. Nothing was sent before it.
    pub(crate) fn forget_scan(&mut self) {
        self.reset_for_second_pass();
        self.failed_count = 0;
        self.failed.clear();
    }

    pub(crate) fn add_uploaded(&mut self, key: String, url: String, bytes: u64, kind: PendingKind) {
        let for_headers = kind == PendingKind::Headers;
        let kind = if for_headers { PendingKind::Modified } else { kind };
        self.headers_resent_count += u64::from(for_headers);
        self.uploaded_count += 1;
        self.uploaded_bytes += bytes;
        push(&mut self.uploaded, Uploaded { key, url, bytes, kind });
    }

    pub(crate) fn add_headers_updated(&mut self, key: String) {
        self.headers_updated_count += 1;
        push(&mut self.headers_updated, key);
    }

    pub(crate) fn add_adopted(&mut self, key: String, bytes: u64) {
        self.adopted_count += 1;
        self.adopted_bytes += bytes;
        push(&mut self.adopted, key);
    }

    pub(crate) fn add_deleted(&mut self, key: String) {
        self.deleted_count += 1;
        push(&mut self.deleted, key);
    }

    pub(crate) fn add_failed(&mut self, error: StorageError) {
        self.failed_count += 1;
        push(&mut self.failed, error);
    }

    pub(crate) fn add_kept(&mut self, key: String, reason: KeptReason) {
        self.kept_count += 1;
        push(&mut self.kept, Kept { key, reason });
    }

    pub(crate) fn add_skipped(&mut self, skip: Skip) {
        self.skipped_count += 1;
        push(&mut self.skipped, skip);
    }
}

pub(crate) fn push<T>(list: &mut Vec<T>, item: T) {
    // Beyond the limit only the count beside the list grows.
    if list.len() < REPORT_LIST_LIMIT {
        list.push(item);
    }
}
