//! The plan: walk and cache merged into what is to be done, which is made durable before anything is
//! sent. Whatever happens afterwards, the next run finds it.

pub(crate) mod content;
mod private_files;
mod totals;

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::backend::{StorageBackend, Transfers};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::MAX_KEY_BYTES;
use crate::request_context::RequestContext;
use crate::rescan::config::RescanConfig;
use crate::rescan::delete::evidence::Keeper;
use crate::rescan::delete::guard;
use crate::rescan::plan::private_files::PrivateFiles;
pub(crate) use crate::rescan::plan::totals::Plan;
use crate::rescan::report::{KeptReason, RescanReport};
use crate::state::cache::CacheManager;
use crate::state::cache::binding::KnownRoot;
use crate::state::catalog::Catalog;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::rows::Row;
use crate::state::store::Write;
use crate::tree::diff::{Change, classify, merge};
use crate::tree::filter::Filter;
use crate::tree::folder::Folder;
use crate::tree::source::Source;
use crate::tree::version::{FileEntry, FileStat, wall_nanos};
use crate::tree::walk::{Found, Skip, SkipReason, walk};

/// Planned changes written in one transaction.
const WRITES_AT_ONCE: usize = 4096;

/// What is asked of a plan.
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
    pub(crate) exchange: RequestContext<'a>,
    /// Nothing is recorded.
    pub(crate) dry_run: bool,
    /// Nothing published is believed.
    pub(crate) force: bool,
}

impl PlanInput<'_> {
    /// How many bytes a key may have before the prefix.
    fn key_room(&self) -> usize {
        self.backend.transfers().map_or(MAX_KEY_BYTES, Transfers::key_room)
    }

    /// The error that a file of this size would end with.
    fn refuses(&self, size: u64) -> Option<StorageError> {
        self.backend.transfers()?.part_plan(size).err()
    }
}

/// Walks, compares and records what is to be done; what was found on the way goes into the report.
pub(crate) fn plan(scope: &PlanInput<'_>, report: &mut RescanReport) -> Result<Plan, StorageError> {
    let published = scope.cache.published_count()?;
    if !guard::may_be_published(false, published, scope.config.allow_empty) {
        refuse_empty(scope, published)?;
    }
    let mut planner = Planner {
        scope,
        plan: Plan { published, ..Plan::default() },
        report,
        keeper: Keeper {
            root: scope.root,
            known: scope.known,
            root_device: scope.root_device,
            config: scope.config,
            filter: scope.filter,
            skipped: HashSet::new(),
            ancestor: None,
        },
        writes: Vec::new(),
        seen: wall_nanos(scope.exchange.clock),
        private: PrivateFiles::default(),
    };
    planner.run()?;
    planner.private.warn(scope.exchange.trace);
    Ok(planner.plan)
}

/// A root without a single file, where files were published, is a disk that is not mounted.
fn refuse_empty(scope: &PlanInput<'_>, published: u64) -> Result<(), StorageError> {
    let mut found = walk(scope.root, scope.key_room(), scope.filter);
    let holds_a_file = found.any(|found| !matches!(found, Found::Skipped(_) | Found::Unnamable(_)));
    if guard::may_be_published(holds_a_file, published, false) {
        return Ok(());
    }
    let what = if scope.filter.is_trivial() {
        "it holds no file"
    } else {
        "include and exclude leave no file of it"
    };
    let why = format!(
        "{what}, although {published} are published: is it mounted? Nothing was deleted; allow_empty permits it"
    );
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(scope.root.path()))
}

struct Planner<'a> {
    scope: &'a PlanInput<'a>,
    plan: Plan,
    report: &'a mut RescanReport,
    keeper: Keeper<'a>,
    writes: Vec<Write>,
    seen: i64,
    /// New files whose names say that they are private.
    private: PrivateFiles,
}

impl Planner<'_> {
    fn run(&mut self) -> Result<(), StorageError> {
        let rows = self.scope.cache.rows();
        let own = self.own_files();
        let mut found = walk(self.scope.root, self.scope.key_room(), self.scope.filter);
        // What is no file is noted when the walk comes upon it, before the keys below its path.
        let (side, note) = crossbeam_channel::unbounded();
        let files = std::iter::from_fn(move || {
            loop {
                match found.next()? {
                    // Where links lead out of the root, one may lead to the cache.
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
            // An error comes out at once.
            Err(_) => Ordering::Less,
        };
        for (row, file) in merge(rows, files, order) {
            note.try_iter().for_each(|other| self.note(other));
            self.decide(row.transpose()?, file)?;
            self.scope.exchange.check(Operation::Walk)?;
        }
        note.try_iter().for_each(|other| self.note(other));
        self.flush(0)
    }

    /// Device and inode of the cache, and of its catalog.
    fn own_files(&self) -> Vec<(u64, u64)> {
        let cache = self.scope.cache.path();
        let files = [cache.to_owned(), Catalog::path_for(cache)];
        files.iter().filter_map(|file| fs::metadata(file).ok()).map(|own| (own.dev(), own.ino())).collect()
    }

    fn note(&mut self, found: Found) {
        match found {
            Found::Failed(error) => {
                self.plan.blocked = true;
                self.report.add_failed(error);
            }
            Found::Unnamable(error) => self.report.add_failed(error),
            Found::Skipped(skip) => {
                if let Some(key) = skip.path.to_str() {
                    self.keeper.skipped.insert(key.to_owned());
                }
                self.report.add_skipped(skip);
            }
            Found::File(_) => {}
        }
    }

    fn decide(&mut self, row: Option<Row>, file: Option<FileEntry>) -> Result<(), StorageError> {
        let key = match (&row, &file) {
            (Some(row), _) => row.key.clone(),
            (None, Some(file)) => file.key.as_str().to_owned(),
            (None, None) => return Ok(()),
        };
        let beside = row.as_ref().map_or((false, false), |row| (row.recent, row.left));
        let (published, pending) = row.map_or((None, None), |row| (row.published, row.pending));
        self.report.scanned += u64::from(file.is_some());
        self.plan.files += u64::from(file.is_some());
        let (recent, left) = beside;
        self.plan.common += u64::from(file.is_some() && published.is_some() && !recent);
        if left && file.is_some() && !self.scope.dry_run {
            self.writes.push(Write::Returned(key.clone()));
        }
        let old = published.as_ref().map(|record| (record.stat, record.settled));
        let new = file.as_ref().map(|file| (file.stat, true));
        let attempted = pending.as_ref().is_some_and(|pending| pending.attempted);
        let believed = !attempted && !self.scope.force;
        let same = |old: &(FileStat, bool), new: &(FileStat, bool)| believed && old.1 && old.0 == new.0;
        let mut change = classify(old.as_ref(), new.as_ref(), same);
        if let (true, Some(Change::Modified), Some(there), true) =
            (self.scope.dry_run, change, &published, believed)
            && self.holds(&key, there)
        {
            change = Some(Change::Unchanged);
        }
        let wanted = match (change, file, &published) {
            (Some(Change::Added), Some(file), _) => {
                self.uploading(PendingKind::Added, &file, pending.as_ref())
            }
            (Some(Change::Modified), Some(file), published) => {
                let same_size = published.as_ref().is_some_and(|there| there.stat.size == file.stat.size);
                self.plan.may_be_same += u64::from(same_size && believed);
                self.uploading(PendingKind::Modified, &file, pending.as_ref())
            }
            (Some(Change::Removed), _, Some(published)) => self.deleting(&key, published, attempted, beside),
            (Some(Change::Unchanged), Some(file), Some(published)) => {
                self.report.unchanged += 1;
                if let Some(write) = self.moved(&key, published, &file.stat) {
                    self.writes.push(write);
                    return self.flush(WRITES_AT_ONCE);
                }
                None
            }
            // Its file is gone, and its object may be there all the same.
            (None, ..) if attempted => {
                pending.as_ref().map(|before| self.unsettled(&key, before.stat, KeptReason::Unsettled))
            }
            _ => None,
        };
        self.want(key, wanted, pending.as_ref())
    }

    /// What an unchanged file is to be recorded with, where it lies in another root than before, or on a device
    /// that has another number.
    fn moved(&self, key: &str, there: &Published, stat: &FileStat) -> Option<Write> {
        let (root, with_root) = (self.scope.known.number, stat.device == self.scope.root_device);
        let is_as_recorded =
            there.root == root && there.stat.device == stat.device && there.with_root == with_root;
        if self.scope.dry_run || self.scope.known.moved || is_as_recorded {
            return None;
        }
        let published = Published { stat: *stat, root, with_root, ..there.clone() };
        Some(Write::Published(key.to_owned(), published))
    }

    /// For a dry run: whether a changed file would turn out to hold what is published.
    fn holds(&mut self, key: &str, there: &Published) -> bool {
        let source = Source::open_below(self.scope.root, key);
        let holds = source.and_then(|source| content::holds(&self.scope.exchange, &source, there));
        holds.unwrap_or_else(|error| {
            if !error.is_not_tried() {
                self.report.add_failed(error);
            }
            false
        })
    }

    fn uploading(
        &mut self,
        kind: PendingKind,
        file: &FileEntry,
        before: Option<&Pending>,
    ) -> Option<Pending> {
        let stat = file.stat;
        if let Some(error) = self.scope.refuses(stat.size).filter(|_| self.scope.dry_run) {
            self.report.add_failed(error.with_key(file.key.as_str()));
            return None;
        }
        match kind {
            PendingKind::Added => self.plan.added += 1,
            _ => self.plan.modified += 1,
        }
        self.plan.bytes += stat.size;
        // What is out already is no news.
        if kind == PendingKind::Added {
            self.private.look_at(self.scope.root, file.key.as_str());
        }
        let digest = before.filter(|before| before.stat == stat).and_then(Pending::known);
        let attempted = before.is_some_and(|before| before.attempted);
        Some(Pending { kind, stat, settled: stat.is_settled(self.seen), digest, attempted })
    }

    fn deleting(
        &mut self,
        key: &str,
        published: &Published,
        attempted: bool,
        (recent, left): (bool, bool),
    ) -> Option<Pending> {
        let stat = published.stat;
        match self.keeper.reason_to_keep(key, published) {
            Err(error) => {
                self.plan.blocked = true;
                self.report.add_failed(error.with_key(key));
                attempted.then(|| unsettled(stat))
            }
            // Perhaps it was deleted before, and it is not to be deleted now: its record is kept, too.
            Ok(Some(reason)) if attempted => Some(self.unsettled(key, stat, reason)),
            Ok(Some(reason)) => {
                self.report.add_kept(key.to_owned(), reason);
                // It is no measure for what a later run finds gone.
                if reason == KeptReason::DeletesOff && !left && !self.scope.dry_run {
                    self.writes.push(Write::Left(key.to_owned()));
                }
                None
            }
            Ok(None) => {
                self.plan.gone += u64::from(!recent && !left);
                self.plan.removed += 1;
                Some(Pending { kind: PendingKind::Removed, attempted, ..unsettled(stat) })
            }
        }
    }

    /// Keeps what is known of a key for which nothing can be done now.
    fn unsettled(&mut self, key: &str, stat: FileStat, reason: KeptReason) -> Pending {
        self.report.add_kept(key.to_owned(), reason);
        self.plan.unsettled += 1;
        unsettled(stat)
    }

    /// Records what is wanted for a key, where it is news.
    fn want(
        &mut self,
        key: String,
        wanted: Option<Pending>,
        before: Option<&Pending>,
    ) -> Result<(), StorageError> {
        if self.scope.dry_run {
            self.preview(key, wanted);
            return Ok(());
        }
        if wanted.as_ref() == before {
            return Ok(());
        }
        self.writes.push(match wanted {
            Some(pending) => Write::Pending(key, pending),
            None => Write::Settled(key),
        });
        self.flush(WRITES_AT_ONCE)
    }

    fn flush(&mut self, from: usize) -> Result<(), StorageError> {
        if self.writes.len() > from {
            self.scope.cache.apply(&std::mem::take(&mut self.writes))?;
        }
        Ok(())
    }

    /// A dry run's lists are what would be done.
    fn preview(&mut self, key: String, wanted: Option<Pending>) {
        match wanted {
            Some(Pending { kind: PendingKind::Removed, .. }) => self.report.add_deleted(key),
            Some(pending) if pending.kind != PendingKind::Unsettled => {
                let url = self.scope.backend.get_url(&key);
                self.report.add_uploaded(key, url, pending.stat.size, pending.kind);
            }
            _ => {}
        }
    }
}

/// What is pending for a key whose file is gone: a request for it had no answer.
fn unsettled(stat: FileStat) -> Pending {
    Pending { kind: PendingKind::Unsettled, stat, settled: false, digest: None, attempted: true }
}
