//! The main line of a rescan, its phases in order.
//!
//! # Architecture
//! - [`RescanOrchestrator`]: one root, one backend, one cache. `rescan` runs on the host's thread, under the cache's lock.
//! - [`Context`]: the values that all jobs of one run share. [`Plan`]: the work in numbers; the work itself is in the
//!   cache's pending records, made durable before any request.
//! - [`Dispatcher`]: feeds the workers on the host's thread, waits for results and counts them in its [`Tally`].
//! - [`Recorder`]: the one thread of a pass that writes the cache. [`End`]: the result of a pass.
//!
//! A run is one pass over the tree, and a second one if a verification found objects missing or different.

mod copied;
mod existing;
mod limits;
mod prepare;
pub(crate) mod rebind;
pub(crate) mod rebuild;
mod shared_state;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::engine::Engine;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::event::Event;
use crate::observe::trace::Trace;
use crate::rescan::bucket_state::StateRun;
use crate::rescan::config::{RescanConfig, Verify};
use crate::rescan::context::Context;
use crate::rescan::dispatch::Dispatcher;
use crate::rescan::multipart::sweep::abort_unwanted_uploads;
use crate::rescan::options::Run;
use crate::rescan::orchestrator::shared_state::has_state_work;
use crate::rescan::outcome::{End, Tally, log_end, outcome_of};
use crate::rescan::plan::Plan;
use crate::rescan::preflight::Preflight;
use crate::rescan::report::{RescanOutcome, RescanReport, StopReason};
use crate::rescan::verify;
use crate::state::cache::CacheManager;
use crate::state::catalog;
use crate::state::recorder::Recorder;
use crate::state::records::PendingKind;
use crate::tree::filter::Filter;

/// Publishes a directory tree to a store and keeps it published.
///
/// ```
/// use std::sync::Arc;
/// use bucket_brigade::{CacheManager, Engine, LocalBackend, RescanOrchestrator, RescanOutcome};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let root = folder.path().join("www");
/// # std::fs::create_dir(&root)?;
/// # std::fs::write(root.join("index.html"), "hello")?;
/// let engine = Engine::new()?;
/// let cache = CacheManager::open(folder.path().join("www.cache"))?;
/// let backend = Arc::new(LocalBackend::new("https://example.com", &root));
/// let orchestrator = RescanOrchestrator::new(&engine, &root, backend, cache)?;
/// let report = orchestrator.rescan()?;
/// assert_eq!(report.outcome, RescanOutcome::Published);
/// assert_eq!(report.uploaded[0].url, "https://example.com/index.html");
/// # Ok(()) }
/// ```
pub struct RescanOrchestrator {
    engine: Engine,
    root: PathBuf,
    backend: Arc<dyn StorageBackend>,
    cache: CacheManager,
    config: RescanConfig,
    filter: Filter,
    /// The backend's destination, which the cache is bound to.
    destination: String,
}

impl RescanOrchestrator {
    /// Creates an orchestrator with the defaults of [`RescanConfig`].
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub fn new(
        engine: &Engine,
        root: impl AsRef<Path>,
        backend: Arc<dyn StorageBackend>,
        cache: CacheManager,
    ) -> Result<Self, StorageError> {
        Self::with_config(engine, root, backend, cache, RescanConfig::default())
    }

    /// Creates an orchestrator for one root, one backend and the cache of that backend's destination. From then on
    /// [`CacheManager::resolve`] returns the backend's URLs.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a setting is out of range; [`ErrorKind::CacheForeign`] if the cache
    /// belongs to another destination.
    pub fn with_config(
        engine: &Engine,
        root: impl AsRef<Path>,
        backend: Arc<dyn StorageBackend>,
        cache: CacheManager,
        config: RescanConfig,
    ) -> Result<Self, StorageError> {
        config.check(engine.workers())?;
        let filter = config.filter()?;
        let destination = caught(Operation::Configure, || Ok(backend.destination()))?;
        cache.bind(&destination)?;
        cache.use_urls_of(backend.clone(), config.fallback.clone());
        let (engine, root) = (engine.clone(), root.as_ref().to_owned());
        Ok(Self { engine, root, backend, cache, config, filter, destination })
    }

    /// The cache.
    pub fn cache(&self) -> &CacheManager {
        &self.cache
    }

    /// Walks the tree, publishes new and changed files, deletes the objects of files that are gone, and returns when
    /// all of that is done and recorded. Blocks the calling thread. Any thread may call it except the engine's workers.
    ///
    /// Failures are in the report and stay pending; the next call tries them again. A store that cannot be reached is
    /// not an error: the report says [`RescanOutcome::LocalOnly`].
    ///
    /// # Errors
    /// If nothing can be published: the root is missing ([`ErrorKind::RootMissing`]), a file ([`ErrorKind::Config`])
    /// or empty ([`ErrorKind::RootEmpty`]); the cache is in use ([`ErrorKind::CacheLocked`]), belongs to another
    /// destination, is damaged or cannot be written; or the first request shows that the configuration, the bucket,
    /// the certificate or the credentials are wrong.
    pub fn rescan(&self) -> Result<RescanReport, StorageError> {
        self.rescan_with(&Run::default())
    }

    /// As [`rescan`](Self::rescan), with options for this call.
    ///
    /// # Errors
    /// As [`rescan`](Self::rescan).
    pub fn rescan_with(&self, run: &Run) -> Result<RescanReport, StorageError> {
        caught(Operation::Rescan, || self.rescan_locked(run))
    }

    fn rescan_locked(&self, run: &Run) -> Result<RescanReport, StorageError> {
        self.check_preconditions(run)?;
        let _lock = self.cache.lock()?;
        let began = self.engine.clock().now();
        let trace = self.engine.trace().for_run(run.observer.clone(), run.progress.clone());
        trace.emit(|| Event::RunStarted { destination: self.destination.clone() });
        let mut report = RescanReport::new(run.dry_run);
        let all = || {
            let end = self.run_phases(run, &trace, began, &mut report)?;
            self.finish_report(&end, &trace, began, &mut report)
        };
        let result = caught(Operation::Rescan, all);
        // A cache that fails cannot record the end of the run either.
        if matches!(&result, Err(error) if !error.is_about_the_cache()) && !run.dry_run {
            // The caller gets the run's error, so this one is only logged.
            let record = || self.cache.record_end(false, false).and_then(|()| self.update_catalog());
            if let Err(error) = caught(Operation::Rescan, record) {
                trace.warn("the end of a failed rescan is not recorded", &[("error", &error)]);
            }
        }
        let outcome = result.as_ref().map_or("error", |()| report.outcome.as_str());
        trace.emit(|| Event::RunFinished { outcome });
        log_end(&trace, &self.destination, &result, &report);
        result.map(|()| report)
    }

    fn check_preconditions(&self, run: &Run) -> Result<(), StorageError> {
        self.engine.refuse_own_worker()?;
        if run.verify != Verify::Ack && self.backend.transfers().is_none() {
            let why = "this backend cannot list objects, so nothing can be verified; use Verify::Ack";
            return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, why));
        }
        Ok(())
    }

    /// Does all passes over the tree. What a run with its state in the bucket claimed is given back, however it ends.
    fn run_phases(
        &self,
        run: &Run,
        trace: &Trace,
        began: Duration,
        report: &mut RescanReport,
    ) -> Result<End, StorageError> {
        let context = Arc::new(self.prepare_context(run, trace, began)?);
        let mut state = self.open_state(&context)?;
        let mut result = caught(Operation::Rescan, || self.run_passes(run, &context, state.as_mut(), report));
        if let Some(state) = &mut state {
            self.release_state(&context, state, &mut result, report)?;
        }
        result
    }

    /// Publishes the tree, verifies it, and publishes once more if objects are missing or different.
    fn run_passes(
        &self,
        run: &Run,
        context: &Arc<Context>,
        mut state: Option<&mut StateRun>,
        report: &mut RescanReport,
    ) -> Result<End, StorageError> {
        let found = match state.as_deref_mut() {
            Some(state) => Some(self.pull_state(context, state)?),
            None => self.check_origin(context, report)?,
        };
        let mut end = self.publish_tree(context, state.as_deref_mut(), found, report)?;
        if run.dry_run || run.verify == Verify::Ack || end.tally.stop.is_some() {
            return Ok(end);
        }
        end.tally.stop = verify::after_run(&self.engine, &context.session, &self.cache, run.verify, report)?;
        // A second pass repairs what the store lost. It does not help against failures.
        if end.tally.stop.is_some() || report.failed_count > 0 || !report.has_missing_or_different() {
            return Ok(end);
        }
        let lost = report.reset_for_second_pass();
        // A forced first pass has sent every file already: only the lost objects are due now.
        context.force.store(false, Ordering::Relaxed);
        let found = state.is_some().then_some(Preflight::Passed);
        let mut again = self.publish_tree(context, state, found, report)?;
        again.add_first_pass(&end);
        again.tally.counted_again = report.adopted_count;
        if again.tally.stop.is_none() {
            again.tally.stop =
                verify::after_run(&self.engine, &context.session, &self.cache, run.verify, report)?;
        }
        report.verified.get_or_insert_default().repaired = lost;
        Ok(again)
    }

    /// Makes one pass: walk, diff, claim, hash, upload, record, delete. `found` is what the pull says of the store.
    fn publish_tree(
        &self,
        context: &Arc<Context>,
        mut state: Option<&mut StateRun>,
        found: Option<Preflight>,
        report: &mut RescanReport,
    ) -> Result<End, StorageError> {
        let trace = &context.session.trace;
        let mut plan = match self.make_plan(context, report) {
            Ok(plan) => plan,
            Err(error) => return End::of_stopped_plan(error),
        };
        trace.progress.planned(plan.files_to_do(), plan.bytes, plan.removed);
        emit_planned(trace, &plan, report);
        let mut end = End::default();
        // A dry run ends here, after the same check of its deletes.
        if report.dry_run {
            end.tally.stop = match self.preview(context, state, found, &mut plan, report) {
                Ok(stop) => stop,
                Err(error) => return End::of_stopped_plan(error),
            };
            end.unsettled = plan.unsettled > 0;
        // Multipart uploads of a killed run are aborted or resumed even if no file has changed.
        } else if !plan.is_empty()
            || self.is_mirror_due(&plan)?
            || self.cache.open_upload_count()? > 0
            || is_out_of_reach(found.as_ref())
            || has_state_work(state.as_deref_mut(), found.as_ref(), &mut end.tally)?
        {
            (end.tally, plan) = self.carry_out_plan(context, state, found, plan, report)?;
        }
        report.blocked |= plan.blocked;
        (end.blocked, end.shrunk) = (plan.blocked, plan.left_in_doubt);
        Ok(end)
    }

    /// Uploads, records and deletes what is planned. Returns the plan as it was carried out.
    fn carry_out_plan(
        &self,
        context: &Arc<Context>,
        mut state: Option<&mut StateRun>,
        found: Option<Preflight>,
        mut plan: Plan,
        report: &mut RescanReport,
    ) -> Result<(Tally, Plan), StorageError> {
        let recorder = Arc::new(Recorder::start(&self.cache, &context.session.trace.metrics)?);
        let (engine, limits) = (&self.engine, self.dispatch_limits());
        let mut dispatcher = Dispatcher::new(engine, context.clone(), &self.cache, &recorder, limits);
        if plan.may_need_no_store()
            && self.cache.open_upload_count()? == 0
            && !is_out_of_reach(found.as_ref())
        {
            // Perhaps only stats have changed. Hashing finds that out without a request.
            dispatcher.confirm(report);
            recorder.sync()?;
            let tally = &mut dispatcher.tally;
            if !self.cache.has_work()? && !has_state_work(state.as_deref_mut(), found.as_ref(), tally)? {
                return Ok((std::mem::take(&mut dispatcher.tally), plan));
            }
        }
        plan = self.meet_store(context, &mut dispatcher, state, found, plan, report)?;
        // During an outage the local work can still be done: unchanged content needs no upload later.
        if dispatcher.tally.stop == Some(StopReason::Unavailable) {
            dispatcher.confirm(report);
        }
        // New files first: no modified index page refers to a file that is not published yet.
        dispatcher.upload(PendingKind::Added, report);
        dispatcher.upload(PendingKind::Modified, report);
        dispatcher.upload(PendingKind::Headers, report);
        if dispatcher.has_obstacles() {
            let may_delete = self.delete_refusal(context, &plan, &dispatcher).is_none();
            dispatcher.clear_obstacles(may_delete, report);
        }
        // Deletes must not start before every upload is durably recorded.
        if let Err(error) = recorder.sync() {
            dispatcher.fail(error);
        }
        // After the uploads: the multipart uploads that are still open now are not resumed by this run.
        if !dispatcher.tally.is_stopped() {
            let stop = abort_unwanted_uploads(context, &self.cache, &recorder, report)?;
            if let Some(reason) = stop {
                dispatcher.stop(reason);
            }
        }
        match self.delete_refusal(context, &plan, &dispatcher) {
            None => dispatcher.delete(report),
            Some(refusal) => dispatcher.refuse_deletes(refusal, &plan, &self.root, report),
        }
        dispatcher.settle_refusals(report);
        report.outage = dispatcher.tally.outage.take();
        let mut tally = std::mem::take(&mut dispatcher.tally);
        if let Some(error) = tally.fatal.take() {
            return Err(error);
        }
        recorder.sync()?;
        Ok((tally, plan))
    }

    fn update_catalog(&self) -> Result<(), StorageError> {
        if self.config.catalog { catalog::update(&self.cache, self.engine.clock().wall()) } else { Ok(()) }
    }

    /// Completes the report and records how the run ended.
    fn finish_report(
        &self,
        end: &End,
        trace: &Trace,
        began: Duration,
        report: &mut RescanReport,
    ) -> Result<(), StorageError> {
        report.pending = self.cache.pending_count()?;
        report.open_uploads = self.cache.open_upload_count()?;
        report.stop_reason = end.tally.stop;
        report.unchanged = (report.unchanged + end.tally.confirmed).saturating_sub(end.tally.counted_again);
        report.outcome = outcome_of(end, report);
        if !report.dry_run {
            // If the file was replaced during the run, its records are lost: an error, not a success.
            self.cache.check_file()?;
            let synced = matches!(report.outcome, RescanOutcome::Unchanged | RescanOutcome::Published);
            self.cache.record_end(synced, end.is_complete(report))?;
            // The files are published all the same, so this is a failure in the report and no error of the run.
            if let Err(error) = self.update_catalog() {
                report.add_failed(error);
                report.outcome = outcome_of(end, report);
            }
        }
        self.cache.count_commits(&trace.metrics);
        report.elapsed = self.engine.clock().now().saturating_sub(began);
        trace.metrics.rescan_ended(report.elapsed, report.pending);
        report.metrics = trace.metrics.snapshot();
        Ok(())
    }
}

/// Returns true if a first request has shown that the store cannot be reached.
fn is_out_of_reach(found: Option<&Preflight>) -> bool {
    matches!(found, Some(Preflight::Unreachable(_)))
}

fn emit_planned(trace: &Trace, plan: &Plan, report: &RescanReport) {
    trace.emit(|| Event::Planned {
        scanned: report.scanned,
        to_upload: plan.files_to_do(),
        bytes: plan.bytes,
        to_delete: plan.removed,
    });
}

impl fmt::Debug for RescanOrchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RescanOrchestrator")
            .field("root", &self.root)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}
