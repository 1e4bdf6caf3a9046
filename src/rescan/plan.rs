//! The plan of a run: the walk and the cache, merged in key order, give the pending records. They are durable before
//! any request is sent, so the next run finds all the work, whatever happens to this one.
//!
//! # Architecture
//! - [`PlanInput`]: everything that a plan depends on, borrowed from the run.
//! - [`Planner`]: one pass over the merged streams. It decides key by key, gathers the records to write and commits
//!   them [`WRITES_AT_ONCE`] at a time.
//! - [`Evidence`]: the facts about a key without a file; `delete::guard` decides whether its object is kept.
//! - [`Plan`]: the totals that the rest of the run needs.
//!
//! All of it runs on the thread of the rescan. No request is sent.

pub(crate) mod content;
pub(crate) mod headers;
mod left;
mod preview;
mod private_files;
mod root;
mod totals;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use crate::backend::{StorageBackend, Transfers};
use crate::error::{Operation, StorageError};
use crate::key::MAX_KEY_BYTES;
use crate::request_context::RequestContext;
use crate::rescan::config::RescanConfig;
use crate::rescan::delete::evidence::Evidence;
use crate::rescan::delete::guard;
use crate::rescan::plan::headers::{due_headers, have_changed};
use crate::rescan::plan::private_files::PrivateFiles;
use crate::rescan::plan::root::{own_files, refuse_empty};
pub(crate) use crate::rescan::plan::totals::Plan;
use crate::rescan::report::{KeptReason, RescanReport};
use crate::state::cache::CacheManager;
use crate::state::cache::binding::KnownRoot;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::Row;
use crate::state::store::Write;
use crate::tree::diff::{Change, classify, merge};
use crate::tree::exclusions::Exclusions;
use crate::tree::filter::Filter;
use crate::tree::folder::Folder;
use crate::tree::version::{FileEntry, FileStat, wall_nanos};
use crate::tree::walk::{Found, Skip, SkipReason, walk};

/// Planned changes written in one transaction.
const WRITES_AT_ONCE: usize = 4096;

/// Everything that a plan depends on.
pub(crate) struct PlanInput<'a> {
    pub(crate) root: &'a Arc<Folder>,
    /// The root as the cache knows it.
    pub(crate) known: KnownRoot,
    /// The device that the root is on now.
    pub(crate) root_device: u64,
    pub(crate) backend: &'a dyn StorageBackend,
    pub(crate) cache: &'a CacheManager,
    pub(crate) config: &'a RescanConfig,
    pub(crate) filter: &'a Filter,
    pub(crate) request_context: RequestContext<'a>,
    /// Records nothing; the report shows what would be done.
    pub(crate) dry_run: bool,
    /// Trusts no published record: every file is sent.
    pub(crate) force: bool,
}

impl PlanInput<'_> {
    /// Returns the most bytes that a key may have without the prefix.
    pub(crate) fn key_room(&self) -> usize {
        self.backend.transfers().map_or(MAX_KEY_BYTES, Transfers::key_room)
    }

    /// Returns the error for a file that is too large for the store.
    fn size_error(&self, size: u64) -> Option<StorageError> {
        self.backend.transfers()?.part_plan(size).err()
    }
}

/// Walks the tree, compares it with the cache and records the work. Failures, skipped entries and kept objects go into
/// the report.
pub(crate) fn plan(input: &PlanInput<'_>, report: &mut RescanReport) -> Result<Plan, StorageError> {
    let published = input.cache.published_count()?;
    if !guard::may_be_published(false, published, input.config.allow_empty) {
        refuse_empty(input, published)?;
    }
    let mut planner = Planner {
        input,
        plan: Plan { published, ..Plan::default() },
        report,
        evidence: Evidence {
            root: input.root,
            known: input.known,
            root_device: input.root_device,
            config: input.config,
            exclusions: Exclusions::new(input.root, input.filter),
            skipped: HashSet::new(),
            outside_sizes: false,
            ancestor: None,
        },
        writes: Vec::new(),
        seen: wall_nanos(input.request_context.clock),
        private: PrivateFiles::default(),
        left_in_doubt: input.cache.is_left_in_doubt()?,
    };
    planner.run()?;
    planner.judge_left()?;
    planner.private.warn(input.request_context.trace);
    Ok(planner.plan)
}

/// One pass over the walk and the cache.
struct Planner<'a> {
    input: &'a PlanInput<'a>,
    plan: Plan,
    report: &'a mut RescanReport,
    evidence: Evidence<'a>,
    /// Records that are not committed yet.
    writes: Vec<Write>,
    /// When the walk began: a stat whose ctime is too close to it is racy.
    seen: i64,
    /// New files whose names suggest that they are private.
    private: PrivateFiles,
    /// The objects that runs without deletes have left count as files that are gone.
    left_in_doubt: bool,
}

impl Planner<'_> {
    /// Merges the cache's rows and the files of the walk, both in key order, and decides for each key.
    fn run(&mut self) -> Result<(), StorageError> {
        let rows = self.input.cache.rows();
        let own = own_files(self.input.cache);
        let mut found = walk(self.input.root, self.input.key_room(), self.input.filter);
        // Entries that are not files go through a channel of their own. They are recorded before the keys below their
        // paths are decided, because those depend on them.
        let (side, note) = crossbeam_channel::unbounded();
        let files = std::iter::from_fn(move || {
            loop {
                match found.next()? {
                    // A followed link may lead to the cache.
                    Found::File(entry) if own.contains(&(entry.stat.device, entry.stat.inode)) => {
                        let (path, reason) = (entry.key.into_string().into(), SkipReason::Own);
                        drop(side.send(Found::Skipped(Skip { path, reason })));
                    }
                    Found::File(entry) => return Some(entry),
                    other => drop(side.send(other)),
                }
            }
        });
        let order = |row: &Result<Row, StorageError>, file: &FileEntry| match row {
            Ok(row) => row.key.as_str().cmp(file.key.as_str()),
            // An error has no key: it is returned at once.
            Err(_) => Ordering::Less,
        };
        for (row, file) in merge(rows, files, order) {
            note.try_iter().try_for_each(|other| self.record_found(other))?;
            let file = self.admit_size(file);
            self.plan_key(row.transpose()?, file)?;
            self.input.request_context.check(Operation::Walk)?;
        }
        note.try_iter().try_for_each(|other| self.record_found(other))?;
        self.flush_writes(0)
    }

    /// Records an item of the walk that is not a regular file.
    ///
    /// # Errors
    /// An ignore file cannot be used. It may be the one that says what must not be published, so the run ends.
    fn record_found(&mut self, found: Found) -> Result<(), StorageError> {
        match found {
            Found::Failed(error) => {
                // Files may be missing from the walk without being gone: this run deletes nothing.
                self.plan.blocked = true;
                self.report.add_failed(error);
            }
            Found::Unnamable(error) => self.report.add_failed(error),
            Found::Skipped(skip) => {
                if let Some(key) = skip.path.to_str() {
                    self.evidence.skipped.insert(key.to_owned());
                }
                self.report.add_skipped(skip);
            }
            Found::IgnoreFile => self.evidence.exclusions.expect_ignore_files(),
            Found::BadIgnoreFile(error) => return Err(error),
            Found::File(_) => {}
        }
        Ok(())
    }

    /// Returns the file of a key, unless its size leaves it out.
    fn admit_size(&mut self, file: Option<FileEntry>) -> Option<FileEntry> {
        let admits = |file: &FileEntry| self.input.filter.admits_size(file.stat.size);
        let left_out = file.as_ref().is_some_and(|file| !admits(file));
        self.report.outside_sizes += u64::from(left_out);
        self.evidence.outside_sizes = left_out;
        file.filter(|_| !left_out)
    }

    /// Decides what is to be done for one key, from its records (`row`) and its file on disk.
    fn plan_key(&mut self, row: Option<Row>, file: Option<FileEntry>) -> Result<(), StorageError> {
        let key = match (&row, &file) {
            (Some(row), _) => row.key.clone(),
            (None, Some(file)) => file.key.as_str().to_owned(),
            (None, None) => return Ok(()),
        };
        let (recent, left) = row.as_ref().map_or((false, false), |row| (row.recent, row.left));
        let (published, pending) = row.map_or((None, None), |row| (row.published, row.pending));
        self.report.scanned += u64::from(file.is_some());
        self.plan.files += u64::from(file.is_some());
        self.plan.common += u64::from(file.is_some() && published.is_some() && !recent);
        // The file came back: from now on the key counts as part of the tree again.
        if left && file.is_some() && !self.input.dry_run {
            self.writes.push(Write::Returned(key.clone()));
        }
        let old = published.as_ref().map(|record| (record.stat, record.not_racy));
        let new = file.as_ref().map(|file| (file.stat, true));
        let attempted = pending.as_ref().is_some_and(|pending| pending.attempted);
        // Equal stats mean equal content only if the record is trusted and its stat was not racy.
        let trusted = !attempted && !self.input.force;
        let same = |old: &(FileStat, bool), new: &(FileStat, bool)| trusted && old.1 && old.0 == new.0;
        let mut change = classify(old.as_ref(), new.as_ref(), same);
        // A dry run hashes the file now; any other run does so before it uploads.
        if let (true, Some(Change::Modified), Some(there), true) =
            (self.input.dry_run, change, &published, trusted)
            && self.has_published_content(&key, there)
        {
            change = Some(Change::Unchanged);
        }
        let wanted = match (change, file, &published) {
            (Some(Change::Added), Some(file), _) => {
                self.plan_upload(PendingKind::Added, &file, pending.as_ref())
            }
            (Some(Change::Modified), Some(file), published) => {
                let same_size = published.as_ref().is_some_and(|there| there.stat.size == file.stat.size);
                self.plan.may_be_same += u64::from(same_size && trusted);
                self.plan_upload(PendingKind::Modified, &file, pending.as_ref())
            }
            (Some(Change::Removed), _, Some(published)) => {
                self.plan_delete(&key, published, attempted, (recent, left))
            }
            (Some(Change::Unchanged), Some(file), Some(published))
                if have_changed(due_headers(self.input.backend, &file.key)?, published) =>
            {
                Some(self.plan_headers(&file, published))
            }
            (Some(Change::Unchanged), Some(file), Some(published)) => {
                self.report.unchanged += 1;
                self.writes.extend(self.relocated(&key, published, &file.stat));
                None
            }
            // Never acknowledged, and the file is gone: an upload without a response may have stored the object.
            (None, ..) if attempted => {
                self.plan.leftovers += 1;
                pending.as_ref().map(|before| self.keep_unsettled(&key, before.stat, KeptReason::Unsettled))
            }
            _ => None,
        };
        self.record_wanted(key, wanted, (published.as_ref(), pending.as_ref()))
    }

    /// Returns the new record of an unchanged file whose root, or whose device number, is another one than recorded.
    fn relocated(&self, key: &str, there: &Published, stat: &FileStat) -> Option<Write> {
        let (root, with_root) = (self.input.known.number, stat.device == self.input.root_device);
        // `moved`: the root may be an empty mount point, so its devices are not recorded.
        let is_as_recorded =
            there.root == root && there.stat.device == stat.device && there.with_root == with_root;
        if self.input.dry_run || self.input.known.moved || is_as_recorded {
            return None;
        }
        let published = Published { stat: *stat, root, with_root, ..there.clone() };
        Some(Write::Published(key.to_owned(), published))
    }

    /// Plans the upload of a file.
    fn plan_upload(
        &mut self,
        kind: PendingKind,
        file: &FileEntry,
        before: Option<&Pending>,
    ) -> Option<Pending> {
        let stat = file.stat;
        // Any other run meets this error when the file is opened.
        if let Some(error) = self.input.size_error(stat.size).filter(|_| self.input.dry_run) {
            self.report.add_failed(error.with_key(file.key.as_str()));
            return None;
        }
        match kind {
            PendingKind::Added => self.plan.added += 1,
            _ => self.plan.modified += 1,
        }
        self.plan.bytes += stat.size;
        // A file that is published already needs no warning.
        if kind == PendingKind::Added {
            self.private.note_if_private(self.input.root, file.key.as_str());
        }
        let digest = before.filter(|before| before.stat == stat).and_then(Pending::known);
        let attempted = before.is_some_and(|before| before.attempted);
        Some(Pending { kind, stat, not_racy: stat.is_not_racy(self.seen), digest, attempted })
    }

    /// Plans other headers for the object of a file that did not change.
    fn plan_headers(&mut self, file: &FileEntry, published: &Published) -> Pending {
        self.plan.headers += 1;
        let (stat, not_racy) = (file.stat, file.stat.is_not_racy(self.seen));
        let digest = published.known_digest().filter(|_| not_racy);
        Pending { kind: PendingKind::Headers, stat, not_racy, digest, attempted: false }
    }

    /// Plans the delete of an object whose file was not found, unless there is a reason to keep it.
    fn plan_delete(
        &mut self,
        key: &str,
        published: &Published,
        attempted: bool,
        (recent, left): (bool, bool),
    ) -> Option<Pending> {
        let stat = published.stat;
        // Of the last complete tree: neither added by an incomplete run, nor left by one that was whole.
        let counts = !recent && (!left || self.left_in_doubt);
        match self.evidence.reason_to_keep(key, published) {
            // The disk cannot tell whether the file is gone.
            Err(error) => {
                self.plan.blocked = true;
                self.report.add_failed(error.with_key(key));
                attempted.then(|| unsettled_pending(stat))
            }
            // A delete without a response may have been carried out, so the record stays marked as well.
            Ok(Some(reason)) if attempted => Some(self.keep_unsettled(key, stat, reason)),
            Ok(Some(reason)) => {
                self.report.add_kept(key.to_owned(), reason);
                // A later run that deletes must not count it among the files that went missing since.
                if reason == KeptReason::DeletesOff {
                    self.plan.left += u64::from(counts);
                }
                if reason == KeptReason::DeletesOff && !left && !self.input.dry_run {
                    self.writes.push(Write::Left(key.to_owned()));
                }
                None
            }
            Ok(None) => {
                self.plan.gone += u64::from(counts);
                self.plan.removed += 1;
                Some(Pending { kind: PendingKind::Removed, attempted, ..unsettled_pending(stat) })
            }
        }
    }

    /// Keeps a key pending for which nothing can be done now.
    fn keep_unsettled(&mut self, key: &str, stat: FileStat, reason: KeptReason) -> Pending {
        self.report.add_kept(key.to_owned(), reason);
        self.plan.unsettled += 1;
        unsettled_pending(stat)
    }

    /// Records the work for a key, if it differs from the pending record.
    fn record_wanted(
        &mut self,
        key: String,
        wanted: Option<Pending>,
        (published, before): (Option<&Published>, Option<&Pending>),
    ) -> Result<(), StorageError> {
        if self.input.dry_run {
            self.add_to_preview(key, wanted, published);
            return Ok(());
        }
        if wanted.as_ref() != before {
            self.writes.push(match wanted {
                Some(pending) => Write::Pending(key, pending),
                None => Write::Settled(key),
            });
        }
        // Marks of keys that need no other record are gathered, too.
        self.flush_writes(WRITES_AT_ONCE)
    }

    /// Commits the gathered records if there are more than `from`.
    fn flush_writes(&mut self, from: usize) -> Result<(), StorageError> {
        if self.writes.len() > from {
            self.input.cache.apply(&std::mem::take(&mut self.writes))?;
        }
        Ok(())
    }
}

/// The pending record of a key whose file is gone and whose last request got no response.
fn unsettled_pending(stat: FileStat) -> Pending {
    Pending { kind: PendingKind::Unsettled, stat, not_racy: false, digest: None, attempted: true }
}
