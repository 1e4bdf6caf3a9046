//! The first run of a cache: finds out what lies under the prefix already, and takes over what holds the tree's files.
//!
//! # Architecture
//! - [`adopt_or_survey`]: the entry for a run; [`preview`]: the entry for a dry run.
//! - [`survey`]: counts the objects, for policies that take over nothing.
//! - [`listing`]: the objects under the prefix without those of other publishers, which are in [`others`].
//! - [`adopt`]: lists the prefix and hands each object that may hold its file to the workers, which [`compare`] the two.
//! - [`Records`] and [`Preview`]: where files are looked up and results go: the cache, or the disk and the report. Both
//!   belong to the thread of the run.
//!
//! Objects are looked up by key, so the order of the listing does not matter, and memory is bounded for any number. All
//! of the prefix is listed before the first object is looked at: what belongs to another publisher is known by then.

mod adopt;
mod compare;
mod etags;
mod listing;
mod others;
mod preview;
mod survey;

use std::sync::Arc;

use crate::backend::{Listed, Transfers};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::rescan::config::FirstRun;
use crate::rescan::context::Context;
use crate::rescan::first_run::adopt::{AdoptionSink, FileState, adopt};
pub(crate) use crate::rescan::first_run::preview::preview;
use crate::rescan::first_run::survey::count_unknown;
use crate::rescan::plan::headers::headers_to_do;
use crate::rescan::report::{RescanReport, UnknownObjects};
use crate::state::cache::CacheManager;
use crate::state::recorder::Recorder;
use crate::state::records::{Pending, PendingKind, Published};
use crate::state::store::{KeyRecords, Write};
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// The parts of a run that its first listing needs.
pub(crate) struct FirstRunContext<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) context: &'a Arc<Context>,
    pub(crate) transfers: &'a dyn Transfers,
    pub(crate) cache: &'a CacheManager,
    pub(crate) policy: FirstRun,
    /// Deletes are switched on.
    pub(crate) delete: bool,
}

/// Does what the policy says about the objects under the prefix, once in the life of a cache. Returns true if the
/// records now have keys that the plan does not know.
pub(crate) fn adopt_or_survey(
    first_run: &FirstRunContext<'_>,
    recorder: &Recorder,
    report: &mut RescanReport,
) -> Result<bool, StorageError> {
    let mirrors = first_run.policy == FirstRun::Mirror;
    if let Some(shared) = &first_run.context.shared {
        shared.expect_unknown();
    }
    let adopts = first_run.policy == FirstRun::Adopt && !first_run.context.is_forced();
    if !mirrors && !adopts {
        survey_prefix(first_run, report)?;
        return Ok(false);
    }
    let mut records = Records { first_run, recorder, mirrors, taken: false, report };
    let found = adopt(first_run.engine, first_run.context, first_run.transfers, &mut records)?;
    let taken = records.taken;
    report.adoption = Some(found);
    if !mirrors {
        let unknown = UnknownObjects { count: found.without_file + found.different, at_least: false };
        report.unknown_objects = Some(unknown);
        if unknown.count > 0 {
            refuse_or_warn(first_run.context, first_run.policy, unknown)?;
        }
    }
    // In this order, so that a crash leads to another listing, not to a lost record.
    recorder.sync()?;
    first_run.cache.apply(&[CacheManager::survey_mark()])?;
    Ok(taken)
}

/// Takes results into the cache.
struct Records<'a> {
    first_run: &'a FirstRunContext<'a>,
    recorder: &'a Recorder,
    /// All objects under the prefix are taken for ours.
    mirrors: bool,
    /// An object was taken for ours whose content is not that of a file.
    taken: bool,
    report: &'a mut RescanReport,
}

impl Records<'_> {
    /// Records an object as ours, whatever it holds.
    fn take_over(&mut self, key: String, listed: Listed) {
        if !self.mirrors {
            return;
        }
        self.taken = true;
        let context = self.first_run.context;
        let stat = FileStat { size: listed.size, device: context.root_device, ..FileStat::default() };
        let published = context.published(stat, false, Digest::UNKNOWN, listed.etag);
        self.recorder.record(vec![Write::Published(key, published)]);
    }
}

impl AdoptionSink for Records<'_> {
    fn file_states(&mut self, page: &[Listed]) -> Result<Vec<FileState>, StorageError> {
        let keys: Vec<_> = page.iter().map(|object| object.key.as_str()).collect();
        let records = self.first_run.cache.records_of(&keys)?;
        Ok(records.into_iter().map(file_state_of).collect())
    }

    fn same(&mut self, key: String, published: Published) {
        let trace = &self.first_run.context.session.trace;
        trace.progress.file_done();
        trace.progress.bytes_present(published.stat.size);
        trace.emit(|| Event::Adopted { key: key.clone(), bytes: published.stat.size });
        self.report.add_adopted(key.clone(), published.stat.size);
        let to_do = headers_to_do(&*self.first_run.context.session.backend, &key, &published);
        trace.progress.planned(u64::from(to_do.is_some()), 0, 0);
        // In this order: what is published has no other work.
        let published = Write::Published(key.clone(), published);
        let to_do = to_do.map(|pending| Write::Pending(key, pending));
        self.recorder.record(std::iter::once(published).chain(to_do).collect());
    }

    fn differs(&mut self, key: String, pending: Pending, listed: Listed) {
        if let Some(shared) = self.first_run.context.shared.as_ref().filter(|_| !self.mirrors) {
            shared.note_unknown(&key, listed.etag.as_deref());
        }
        self.take_over(key.clone(), listed);
        // Its digest spares the upload from hashing the file again.
        if pending.digest.is_some() {
            self.recorder.record(vec![Write::Pending(key, pending)]);
        }
    }

    fn no_file(&mut self, object: Listed) {
        // No file can have such a key; it is the marker of a folder, for example.
        if RemoteKey::new(object.key.clone()).is_ok() {
            self.take_over(object.key.clone(), object);
        }
    }
}

fn file_state_of(records: KeyRecords) -> FileState {
    match records {
        (None, None) => FileState::NoFile,
        (None, Some(pending)) if pending.kind == PendingKind::Added && !pending.attempted => {
            FileState::File(pending)
        }
        _ => FileState::Known,
    }
}

/// Counts the unknown objects under the prefix. The count goes into the report and the log. It is an error only if the
/// policy says so.
fn survey_prefix(first_run: &FirstRunContext<'_>, report: &mut RescanReport) -> Result<(), StorageError> {
    let FirstRunContext { context, cache, policy, .. } = first_run;
    let unknown = count_unknown(first_run)?;
    report.unknown_objects = Some(unknown);
    if unknown.count > 0 {
        refuse_or_warn(context, *policy, unknown)?;
    }
    // Durable before the first upload, or the next run would count our own objects as unknown.
    cache.apply(&[CacheManager::survey_mark()])
}

fn refuse_or_warn(context: &Context, policy: FirstRun, unknown: UnknownObjects) -> Result<(), StorageError> {
    let more = if unknown.at_least { "at least " } else { "" };
    let what = format!("{more}{} objects under the prefix were not published by this cache", unknown.count);
    if policy == FirstRun::Refuse {
        let why = format!("{what}, and first_run is Refuse; use another prefix, or Adopt or Overwrite");
        return Err(StorageError::new(ErrorKind::FirstRunRefused, Operation::Rescan, why));
    }
    context.session.trace.warn(
        &format!("{what}; they are never deleted, but files with the same key overwrite them"),
        &[("destination", &context.session.backend.destination())],
    );
    Ok(())
}
