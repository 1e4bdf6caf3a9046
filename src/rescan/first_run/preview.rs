//! The first run as a dry run: files are looked up on disk, and results go into the report.

use std::collections::BTreeSet;
use std::path::Path;

use crate::backend::Listed;
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::rescan::config::FirstRun;
use crate::rescan::first_run::FirstRunContext;
use crate::rescan::first_run::adopt::{AdoptionSink, FileState, adopt};
use crate::rescan::plan::Plan;
use crate::rescan::plan::headers::{copyable_etag, headers_to_do};
use crate::rescan::report::{KeptReason, RescanReport};
use crate::state::records::{Pending, PendingKind, Published};
use crate::tree::exclusions::Exclusions;
use crate::tree::filter::Filter;
use crate::tree::folder::{file_type, is_absent};
use crate::tree::version::FileStat;

/// Adds to a dry run's report, and to the totals of its plan, what a first run would take over.
pub(crate) fn preview(
    first_run: &FirstRunContext<'_>,
    filter: &Filter,
    plan: &mut Plan,
    report: &mut RescanReport,
) -> Result<(), StorageError> {
    let mirrors = first_run.policy == FirstRun::Mirror;
    let mut exclusions = Exclusions::new(&first_run.context.root, filter);
    exclusions.expect_ignore_files();
    let adopted = BTreeSet::new();
    let mut preview = Preview { first_run, filter, exclusions, mirrors, plan, report, adopted };
    let found = adopt(first_run.engine, first_run.context, first_run.transfers, &mut preview);
    let adopted = preview.adopted;
    let mut index = 0;
    report.uploaded.retain(|_| {
        index += 1;
        !adopted.contains(&(index - 1))
    });
    report.adoption = Some(found?);
    Ok(())
}

/// Takes results into the report of a dry run.
struct Preview<'a> {
    first_run: &'a FirstRunContext<'a>,
    filter: &'a Filter,
    exclusions: Exclusions<'a>,
    mirrors: bool,
    plan: &'a mut Plan,
    report: &'a mut RescanReport,
    /// The places of adopted files in the report's list of uploads.
    adopted: BTreeSet<usize>,
}

impl Preview<'_> {
    /// Counts an object whose file exists as one of the last tree.
    fn count_common(&mut self) {
        self.plan.common += u64::from(self.mirrors);
        self.plan.published += u64::from(self.mirrors);
    }

    /// Returns the state of the file of an object, as it is on disk.
    fn file_state(&mut self, object: &Listed) -> Result<FileState, StorageError> {
        // Checked first: a listed key is no path to be trusted.
        if RemoteKey::new(object.key.clone()).is_err() || self.exclusions.contain(&object.key)? {
            return Ok(FileState::NoFile);
        }
        let (published, pending) = self.first_run.cache.records(&object.key)?;
        if published.is_some() || pending.is_some_and(|pending| pending.attempted) {
            return Ok(FileState::Known);
        }
        let file = |stat| Pending {
            kind: PendingKind::Added,
            stat,
            not_racy: false,
            digest: None,
            attempted: false,
        };
        Ok(self.stat_of(&object.key).map_or(FileState::NoFile, |stat| FileState::File(file(stat))))
    }

    /// Returns the stat of the file of a key; `None` if there is none, or it is not published.
    fn stat_of(&self, key: &str) -> Option<FileStat> {
        let (root, path) = (&self.first_run.context.root, Path::new(key));
        let stat = root.stat(path).ok()?;
        // A case-insensitive file system finds a name that the walk does not.
        if cfg!(target_os = "macos") && !root.lists_exactly(path).ok()? {
            return None;
        }
        let is_published = file_type(&stat).is_file() && self.filter.admits_size(FileStat::of(&stat).size);
        is_published.then(|| FileStat::of(&stat))
    }

    /// Returns the reason why the object of a key without a file would be kept.
    fn reason_to_keep(&mut self, key: &str) -> Result<Option<KeptReason>, StorageError> {
        if self.exclusions.contain(key)? {
            return Ok(Some(KeptReason::Excluded));
        }
        let gone = match self.first_run.context.root.stat(Path::new(key)) {
            Ok(stat) if file_type(&stat).is_file() && !self.filter.admits_size(FileStat::of(&stat).size) => {
                return Ok(Some(KeptReason::OutsideSizes));
            }
            Ok(stat) => file_type(&stat).is_dir(),
            Err(error) => is_absent(error),
        };
        if !gone {
            return Ok(Some(KeptReason::Skipped));
        }
        Ok((!self.first_run.delete).then_some(KeptReason::DeletesOff))
    }
}

impl AdoptionSink for Preview<'_> {
    fn file_states(&mut self, page: &[Listed]) -> Result<Vec<FileState>, StorageError> {
        page.iter().map(|object| self.file_state(object)).collect()
    }

    fn same(&mut self, key: String, published: Published) {
        self.count_common();
        let backend = &*self.first_run.context.session.backend;
        if headers_to_do(backend, &key, &published).is_some() {
            self.plan.headers += 1;
            if copyable_etag(self.first_run.transfers, &published).is_none() {
                // It is sent all the same.
                self.report.headers_resent_count += 1;
                return self.report.add_adopted(key, published.stat.size);
            }
            self.report.add_headers_updated(key.clone());
        }
        self.plan.added = self.plan.added.saturating_sub(1);
        self.report.uploaded_count = self.report.uploaded_count.saturating_sub(1);
        self.report.uploaded_bytes = self.report.uploaded_bytes.saturating_sub(published.stat.size);
        // The list is in key order, as the plan was made.
        let place = self.report.uploaded.binary_search_by(|uploaded| uploaded.key.as_str().cmp(&key));
        self.adopted.extend(place.ok());
        self.report.add_adopted(key, published.stat.size);
    }

    fn differs(&mut self, _: String, _: Pending, _: Listed) {
        self.count_common();
    }

    fn no_file(&mut self, object: Listed) {
        if !self.mirrors || RemoteKey::new(object.key.clone()).is_err() {
            return;
        }
        self.plan.published += 1;
        match self.reason_to_keep(&object.key) {
            Ok(None) => {}
            Ok(Some(reason)) => return self.report.add_kept(object.key, reason),
            Err(error) => {
                self.plan.blocked = true;
                return self.report.add_failed(error.with_key(object.key));
            }
        }
        self.plan.removed += 1;
        self.plan.gone += 1;
        self.report.add_deleted(object.key);
    }
}
