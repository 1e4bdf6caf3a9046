//! The plan: walk and cache merged into what is to be done, which is made durable before anything is
//! sent. Whatever happens afterwards, the next run finds it.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::cache::{CacheManager, KnownRoot, Row, Write};
use super::record::{Pending, PendingKind, Published};
use super::report::{KeptReason, RescanReport};
use super::work;
use crate::backend::Exchange;
use crate::clock::Clock;
use crate::config::RescanConfig;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::tree::diff::{Change, classify, merge};
use crate::tree::filter::Filter;
use crate::tree::source::Source;
use crate::tree::version::{FileEntry, FileStat, nanos_of};
use crate::tree::walk::{Found, SkipReason, walk};

/// Planned changes written in one transaction.
const WRITES_AT_ONCE: usize = 4096;

/// What is asked of a plan.
pub(crate) struct Scope<'a> {
    pub(crate) root: &'a Path,
    /// The root as the cache knows it.
    pub(crate) known: KnownRoot,
    /// The device that the root is on now.
    pub(crate) root_device: u64,
    /// How many bytes a key may have before the prefix.
    pub(crate) key_room: usize,
    pub(crate) cache: &'a CacheManager,
    pub(crate) config: &'a RescanConfig,
    pub(crate) filter: &'a Filter,
    pub(crate) exchange: Exchange<'a>,
    /// The public URL of a key, for a dry run's report.
    pub(crate) url: &'a dyn Fn(&str) -> String,
    /// Nothing is recorded.
    pub(crate) dry_run: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) added: u64,
    pub(crate) modified: u64,
    pub(crate) removed: u64,
    pub(crate) bytes: u64,
    /// What was published before.
    pub(crate) published: u64,
    /// Something could not be read: nothing may be deleted.
    pub(crate) blocked: bool,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.added == 0 && self.modified == 0 && self.removed == 0
    }
}

/// The time of day as stats have it.
pub(crate) fn wall_nanos(clock: &dyn Clock) -> i64 {
    nanos_of(clock.wall())
}

/// Walks, compares and records what is to be done; what was found on the way goes into the report.
pub(crate) fn plan(scope: &Scope<'_>, report: &mut RescanReport) -> Result<Plan, StorageError> {
    let published = scope.cache.published_count()?;
    if published > 0 && !scope.config.allow_empty {
        refuse_empty(scope, published)?;
    }
    let mut planner = Planner {
        scope,
        plan: Plan { published, ..Plan::default() },
        report,
        skipped: HashSet::new(),
        ancestor: None,
        writes: Vec::new(),
        seen: wall_nanos(scope.exchange.clock),
        interrupted: scope.cache.was_interrupted()?,
    };
    planner.run()?;
    Ok(planner.plan)
}

/// A root without a single file, where files were published, is a disk that is not mounted.
fn refuse_empty(scope: &Scope<'_>, published: u64) -> Result<(), StorageError> {
    let mut found = walk(scope.root, scope.key_room, scope.filter);
    if found.any(|found| !matches!(found, Found::Skipped(_))) {
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
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(scope.root))
}

struct Planner<'a> {
    scope: &'a Scope<'a>,
    plan: Plan,
    report: &'a mut RescanReport,
    /// Keys whose path is a link or a special file.
    skipped: HashSet<String>,
    /// The last folder asked for: what holds its files now.
    ancestor: Option<(PathBuf, Option<u64>)>,
    writes: Vec<Write>,
    seen: i64,
    /// The last run was cut off while it was sending.
    interrupted: bool,
}

impl Planner<'_> {
    fn run(&mut self) -> Result<(), StorageError> {
        let rows = self.scope.cache.rows();
        let mut found = walk(self.scope.root, self.scope.key_room, self.scope.filter);
        // What is no file is noted when the walk comes upon it, before the keys below its path.
        let (side, note) = crossbeam_channel::unbounded();
        let files = std::iter::from_fn(move || {
            loop {
                match found.next()? {
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

    fn note(&mut self, found: Found) {
        match found {
            Found::Failed(error) => {
                self.plan.blocked = true;
                self.report.add_failed(error);
            }
            Found::Skipped(skip) => {
                if skip.reason != SkipReason::Name
                    && let Some(key) = skip.path.to_str()
                {
                    self.skipped.insert(key.to_owned());
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
        let (published, pending) = row.map_or((None, None), |row| (row.published, row.pending));
        self.report.scanned += u64::from(file.is_some());
        let old = published.as_ref().map(|record| (record.stat, record.settled));
        let new = file.as_ref().map(|file| (file.stat, true));
        let doubtful = pending.as_ref().is_some_and(|pending| {
            pending.doubt || (self.interrupted && pending.kind == PendingKind::Modified)
        });
        let same = |old: &(FileStat, bool), new: &(FileStat, bool)| !doubtful && old.1 && old.0 == new.0;
        let mut change = classify(old.as_ref(), new.as_ref(), same);
        if let (true, Some(Change::Modified), Some(there), false) =
            (self.scope.dry_run, change, &published, doubtful)
            && self.holds(&key, there)
        {
            change = Some(Change::Unchanged);
        }
        let wanted = match (change, file, &published) {
            (Some(Change::Added), Some(file), _) => {
                Some(self.uploading(PendingKind::Added, file.stat, pending.as_ref(), doubtful))
            }
            (Some(Change::Modified), Some(file), _) => {
                Some(self.uploading(PendingKind::Modified, file.stat, pending.as_ref(), doubtful))
            }
            (Some(Change::Removed), _, Some(published)) => self.deleting(&key, published, doubtful),
            (Some(Change::Unchanged), ..) => {
                self.report.unchanged += 1;
                None
            }
            _ => None,
        };
        self.want(key, wanted, pending.as_ref())
    }

    /// For a dry run: whether a changed file would turn out to hold what is published.
    fn holds(&mut self, key: &str, there: &Published) -> bool {
        let source = Source::open(&self.scope.root.join(key));
        let holds = source.and_then(|source| work::holds(&self.scope.exchange, &source, there));
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
        stat: FileStat,
        before: Option<&Pending>,
        doubtful: bool,
    ) -> Pending {
        match kind {
            PendingKind::Added => self.plan.added += 1,
            _ => self.plan.modified += 1,
        }
        self.plan.bytes += stat.size;
        let digest = before.filter(|before| before.stat == stat).and_then(Pending::known);
        Pending { kind, stat, settled: stat.is_settled(self.seen), digest, doubt: doubtful }
    }

    fn deleting(&mut self, key: &str, published: &Published, doubtful: bool) -> Option<Pending> {
        if let Some(reason) = self.reason_to_keep(key, published) {
            self.report.add_kept(key.to_owned(), reason);
            if doubtful && !self.scope.dry_run {
                // Perhaps deleted, and not to be deleted now: nothing is known of it any more.
                self.writes.push(Write::Deleted(key.to_owned()));
            }
            return None;
        }
        self.plan.removed += 1;
        let stat = published.stat;
        Some(Pending { kind: PendingKind::Removed, stat, settled: false, digest: None, doubt: doubtful })
    }

    fn reason_to_keep(&mut self, key: &str, published: &Published) -> Option<KeptReason> {
        let config = self.scope.config;
        if !self.scope.filter.admits(key) {
            return Some(KeptReason::Excluded);
        }
        let mut paths = std::iter::once(key).chain(key.rmatch_indices('/').map(|(at, _)| &key[..at]));
        if paths.any(|path| self.skipped.contains(path)) {
            return Some(KeptReason::Skipped);
        }
        if published.root != self.scope.known.number || self.scope.known.moved {
            return (!config.allow_new_root).then_some(KeptReason::OtherRoot);
        }
        let (above, root) = (self.device_above(key), self.scope.root_device);
        if !is_still_mounted(published.with_root, published.stat.device, above, root) {
            return Some(KeptReason::OtherDevice);
        }
        (!config.delete).then_some(KeptReason::DeletesOff)
    }

    /// The device of the nearest folder above a key that is there.
    fn device_above(&mut self, key: &str) -> Option<u64> {
        let path = self.scope.root.join(key);
        let parent = path.parent().unwrap_or(self.scope.root);
        if let Some((known, device)) = &self.ancestor
            && known == parent
        {
            return *device;
        }
        let above = parent.ancestors().take_while(|folder| folder.starts_with(self.scope.root));
        let device = above
            .map(fs::symlink_metadata)
            .find(|looked| !looked.as_ref().is_err_and(is_absent))
            .and_then(Result::ok)
            .map(|folder| folder.dev());
        self.ancestor = Some((parent.to_owned(), device));
        device
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
            Some(pending) => {
                let url = (self.scope.url)(&key);
                self.report.add_uploaded(key, url, pending.stat.size, pending.kind);
            }
            None => {}
        }
    }
}

/// Whether the place of a published file is on the file system that it was published from. `then` is the device
/// that it was on, `above` that of the nearest folder that is there, `root` the root's. Numbers of devices may change with a reboot: what was on the root's own
/// still counts as there, and what was not cannot be there now, whatever its number was.
fn is_still_mounted(with_root: bool, then: u64, above: Option<u64>, root: u64) -> bool {
    let at_root = above == Some(root);
    if with_root { at_root || above == Some(then) } else { !at_root && above == Some(then) }
}

/// Whether an error of `stat` says that nothing is there.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::is_still_mounted;

    #[test]
    fn f9_disk_that_is_not_mounted_is_seen_whatever_numbers_devices_have_now() {
        for (with_root, then, above, root, there) in [
            (true, 1, Some(1), 1, true),
            // The root's own, after a reboot.
            (true, 1, Some(7), 7, true),
            // Something is mounted over it.
            (true, 1, Some(9), 7, false),
            (false, 2, Some(2), 1, true),
            (false, 2, Some(1), 1, false),
            // Not mounted, and the root has its number now.
            (false, 2, Some(2), 2, false),
            // Another disk in its place.
            (false, 2, Some(3), 1, false),
            (true, 1, None, 1, false),
        ] {
            assert_eq!(
                is_still_mounted(with_root, then, above, root),
                there,
                "{with_root} {then} {above:?} {root}"
            );
        }
    }
}
