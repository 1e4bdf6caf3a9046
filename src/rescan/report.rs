//! What a rescan did.

use std::fmt;
use std::time::Duration;

use crate::error::{ErrorKind, StorageError};
use crate::observe::metrics::MetricsSnapshot;
use crate::state::records::PendingKind;
use crate::tree::walk::Skip;

/// Lists of a report hold this many entries at most; the counts beside them are always whole, and an
/// observer gets every event.
pub const REPORT_LIST_LIMIT: usize = 100_000;

/// How a rescan ended, from best to worst. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanOutcome {
    /// There was nothing to do.
    Unchanged,
    /// Everything was done.
    Published,
    /// Something failed or was not tried; it stays pending.
    Partial,
    /// The store could not be reached; only the local side is recorded.
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

/// Why a rescan stopped before everything was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The caller cancelled.
    Cancelled,
    /// The deadline passed.
    Deadline,
    /// Too many files are gone; [`RescanReport::deletes_refused`] says how many, and which rule they break.
    DeletesRefused,
    /// The store refused the credentials.
    Credentials,
    /// The store could not be reached any more.
    Unavailable,
}

impl StopReason {
    /// The reason that an error is of, if it only says that the run was stopped.
    pub(crate) fn of(error: &StorageError) -> Option<Self> {
        match error.kind() {
            ErrorKind::Cancelled => Some(Self::Cancelled),
            ErrorKind::Deadline => Some(Self::Deadline),
            ErrorKind::Unavailable => Some(Self::Unavailable),
            _ => None,
        }
    }

    /// `cancelled`, `deadline`, `deletes_refused`, `credentials` or `unavailable`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Deadline => "deadline",
            Self::DeletesRefused => "deletes_refused",
            Self::Credentials => "credentials",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why deletes are too many for one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooMany {
    /// The tree has less than half as many files as are published: perhaps a part of it is missing.
    Shrunk,
    /// None of the published files is in the tree: perhaps it is another tree.
    NoneInCommon,
    /// They are more than `max_delete`, which is this many.
    Cap(u64),
}

/// Deletes that were too many for one run: none was made, and they stay pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletesRefused {
    /// Why.
    pub reason: TooMany,
    /// Published files that are gone.
    pub removed: u64,
    /// Files in the tree.
    pub files: u64,
    /// Files of the last tree that was published whole, but for those that are kept; for a cap, all that is published.
    pub published: u64,
}

impl fmt::Display for DeletesRefused {
    /// The numbers in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, removed, files, published } = self;
        let files = format!("{files} {}", if *files == 1 { "file" } else { "files" });
        match reason {
            TooMany::Shrunk => {
                write!(f, "the tree has {files}, less than half of the {published} published")
            }
            TooMany::NoneInCommon => {
                write!(f, "the tree ({files}) has none of the {published} published files")
            }
            TooMany::Cap(limit) => {
                write!(
                    f,
                    "{removed} of {published} published files are gone, and at most {limit} may be deleted"
                )
            }
        }
    }
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// Its key.
    pub key: String,
    /// Its public URL.
    pub url: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it was added or modified.
    pub kind: PendingKind,
}

/// A published object whose file was not found, and which is kept all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kept {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: KeptReason,
}

/// Why an object is kept although its file was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeptReason {
    /// Its path, or a folder above it, is now a link or a special file.
    Skipped,
    /// The folder it was in is on another device than before: something is not mounted.
    OtherDevice,
    /// Another root published it, or the root is another folder on another device than it was;
    /// `allow_new_root` would delete it.
    OtherRoot,
    /// Deletes are switched off.
    DeletesOff,
    /// Its path is excluded, or not included any more.
    Excluded,
    /// An upload of it had no answer, and its file is gone: its object may be there, and nothing proves that it
    /// is ours.
    Unsettled,
}

impl KeptReason {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "its path is now a link or a special file",
            Self::OtherDevice => "its folder is on another device than before",
            Self::OtherRoot => "another root published it",
            Self::DeletesOff => "deletes are switched off",
            Self::Excluded => "its path is excluded now",
            Self::Unsettled => {
                "its file is gone, and an upload of it that had no answer may have stored it; verify tells"
            }
        }
    }
}

/// Objects under the prefix that this cache did not publish, as one listing request found them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnknownObjects {
    /// How many.
    pub count: u64,
    /// Whether there are more, behind the first page.
    pub at_least: bool,
}

/// What the store lists, and on request holds, compared with the cache.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Whether everything was looked at: nothing failed or stopped it before.
    pub complete: bool,
    /// Objects that are as they were acknowledged.
    pub matching: u64,
    /// Objects among them whose content was downloaded and hashed.
    pub contents: u64,
    /// Published keys that the store does not have. The next rescan publishes them again.
    pub missing_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub missing: Vec<String>,
    /// Published keys whose size, `ETag` or content differs. The next rescan publishes them again.
    pub different_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub different: Vec<String>,
    /// Objects that this cache did not publish, by their names behind the prefix.
    pub unknown_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub unknown: Vec<String>,
    /// Keys whose record is not believed until they are published anew: a verification before found them missing
    /// or different, or a request for them had no answer. Those that are missing or different now are not
    /// among them.
    pub unsettled_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub unsettled: Vec<String>,
    /// Objects of which only the size was compared: the store lists no ETag for them, or gave none.
    pub sizes_only: u64,
    /// Objects that were missing or different, and were published again by the same rescan.
    pub repaired: u64,
    /// Objects that could not be read.
    pub failed_count: u64,
    /// The reasons, up to [`REPORT_LIST_LIMIT`].
    pub failed: Vec<StorageError>,
}

impl VerifyReport {
    /// Whether everything that was published is there as it was acknowledged, as far as was asked.
    pub fn is_good(&self) -> bool {
        self.complete
            && self.missing_count == 0
            && self.different_count == 0
            && self.unsettled_count == 0
            && self.failed_count == 0
    }

    /// Whether it found anything at all.
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

/// What a rescan did. Keys stand before the prefix; sizes are bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct RescanReport {
    /// How it ended.
    pub outcome: RescanOutcome,
    /// Why it stopped early, if it did.
    pub stop_reason: Option<StopReason>,
    /// Whether something could not be read, so that nothing was, or would be, deleted.
    pub blocked: bool,
    /// Deletes that were too many for one run, if they were.
    pub deletes_refused: Option<DeletesRefused>,
    /// Whether it only planned; then `uploaded` and `deleted` hold what would have been done.
    pub dry_run: bool,
    /// Files found.
    pub scanned: u64,
    /// Files that are published as they are.
    pub unchanged: u64,
    /// Files uploaded.
    pub uploaded_count: u64,
    /// Their sizes together.
    pub uploaded_bytes: u64,
    /// The files uploaded, up to [`REPORT_LIST_LIMIT`], in the order in which they were done.
    pub uploaded: Vec<Uploaded>,
    /// Objects that lay there already and were taken over without being sent. This version takes over none.
    pub adopted_count: u64,
    /// Their keys, up to [`REPORT_LIST_LIMIT`].
    pub adopted: Vec<String>,
    /// Objects deleted.
    pub deleted_count: u64,
    /// Their keys, up to [`REPORT_LIST_LIMIT`], in the order in which they were done.
    pub deleted: Vec<String>,
    /// What failed.
    pub failed_count: u64,
    /// The failures, up to [`REPORT_LIST_LIMIT`]: each names its key or path, and its reason.
    pub failed: Vec<StorageError>,
    /// Objects kept although their files were not found.
    pub kept_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub kept: Vec<Kept>,
    /// What is on disk and not published, by its nature.
    pub skipped_count: u64,
    /// The same, up to [`REPORT_LIST_LIMIT`].
    pub skipped: Vec<Skip>,
    /// Keys with something still to be done.
    pub pending: u64,
    /// Uploads in parts that are left open: the next rescan goes on with them, or aborts them; or they may
    /// not be aborted, which the log says.
    pub open_uploads: u64,
    /// On a first run: what lay under the prefix before.
    pub unknown_objects: Option<UnknownObjects>,
    /// Why the store could not be reached, or could not work, the first time that happened.
    pub outage: Option<StorageError>,
    /// What the verification found, if one was asked for.
    pub verified: Option<VerifyReport>,
    /// Requests, connections, retries, bytes on the wire.
    pub metrics: MetricsSnapshot,
    /// How long it took.
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
            adopted_count: 0,
            adopted: Vec::new(),
            deleted_count: 0,
            deleted: Vec::new(),
            failed_count: 0,
            failed: Vec::new(),
            kept_count: 0,
            kept: Vec::new(),
            skipped_count: 0,
            skipped: Vec::new(),
            pending: 0,
            open_uploads: 0,
            unknown_objects: None,
            outage: None,
            verified: None,
            metrics: MetricsSnapshot::default(),
            elapsed: Duration::ZERO,
        }
    }

    /// Whether the verification found objects that are not there as they were acknowledged.
    pub(crate) fn has_losses(&self) -> bool {
        self.verified.as_ref().is_some_and(|found| found.missing_count + found.different_count > 0)
    }

    /// The tree is looked at once more on this run. Gives how many objects were lost.
    pub(crate) fn begin_again(&mut self) -> u64 {
        (self.scanned, self.unchanged) = (0, 0);
        (self.kept_count, self.skipped_count) = (0, 0);
        self.kept.clear();
        self.skipped.clear();
        let found = self.verified.take().unwrap_or_default();
        found.missing_count + found.different_count
    }

    pub(crate) fn add_uploaded(&mut self, key: String, url: String, bytes: u64, kind: PendingKind) {
        self.uploaded_count += 1;
        self.uploaded_bytes += bytes;
        push(&mut self.uploaded, Uploaded { key, url, bytes, kind });
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

fn push<T>(list: &mut Vec<T>, item: T) {
    if list.len() < REPORT_LIST_LIMIT {
        list.push(item);
    }
}
