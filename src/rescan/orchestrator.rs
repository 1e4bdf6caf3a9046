//! The main line of a rescan, its phases in order.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::backend::{StorageBackend, Transfers};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::event::Event;
use crate::observe::trace::Trace;
use crate::rescan::config::{RescanConfig, Verify};
use crate::rescan::context::{Context, panicked};
use crate::rescan::delete::guard;
use crate::rescan::delete::guard::{Allowed, Conditions, Refusal};
use crate::rescan::dispatch::{DispatchLimits, Dispatcher};
use crate::rescan::multipart::sweep::abort_unwanted_uploads;
use crate::rescan::options::Run;
use crate::rescan::outcome::Tally;
use crate::rescan::outcome::{End, announce, outcome};
use crate::rescan::plan::{Plan, PlanInput, plan};
use crate::rescan::preflight::preflight;
use crate::rescan::report::{RescanOutcome, RescanReport, StopReason};
use crate::rescan::session::Session;
use crate::rescan::verify;
use crate::state::cache::CacheManager;
use crate::state::cache::binding::Root;
use crate::state::catalog;
use crate::state::recorder::Recorder;
use crate::state::records::PendingKind;
use crate::state::store::Write;
use crate::text::PrintablePath;
use crate::tree::filter::Filter;
use crate::tree::folder::Folder;
use crate::tree::version::FileStat;

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
    /// What the cache is bound to.
    destination: String,
}

impl RescanOrchestrator {
    /// With the defaults of [`RescanConfig`].
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

    /// For one root, one backend and the cache of that backend's destination. From now on
    /// [`CacheManager::resolve`] knows the backend's URLs.
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
        let filter = Filter::new(&config.include, &config.exclude)?;
        let destination = backend.destination();
        cache.bind(&destination)?;
        cache.use_urls_of(backend.clone(), config.fallback.clone());
        let (engine, root) = (engine.clone(), root.as_ref().to_owned());
        Ok(Self { engine, root, backend, cache, config, filter, destination })
    }

    /// The cache.
    pub fn cache(&self) -> &CacheManager {
        &self.cache
    }

    /// Walks the tree, publishes what is new or changed, deletes what is gone, and returns when all of
    /// that is done and recorded. Blocks the calling thread, which may be any: the work is done by the
    /// engine's own workers.
    ///
    /// What fails stays pending and is in the report; the next call tries it again. A store that
    /// cannot be reached is no error: the report says [`RescanOutcome::LocalOnly`].
    ///
    /// # Errors
    /// When nothing can be done, or nothing would be right: the root is missing
    /// ([`ErrorKind::RootMissing`]), a file ([`ErrorKind::Config`]) or empty ([`ErrorKind::RootEmpty`]); the cache is in use
    /// ([`ErrorKind::CacheLocked`]), foreign, damaged or unwritable; or the first request shows that the
    /// configuration, the bucket, the certificate or the credentials are wrong.
    pub fn rescan(&self) -> Result<RescanReport, StorageError> {
        self.rescan_with(&Run::default())
    }

    /// The same, with what belongs to this call.
    ///
    /// # Errors
    /// As [`rescan`](Self::rescan).
    pub fn rescan_with(&self, run: &Run) -> Result<RescanReport, StorageError> {
        self.refuse_what_cannot_work(run)?;
        let _lock = self.cache.lock()?;
        let began = self.engine.clock().now();
        let trace = self.engine.trace().for_run(run.observer.clone(), run.progress.clone());
        trace.emit(|| Event::RunStarted { destination: self.destination.clone() });
        let mut report = RescanReport::new(run.dry_run);
        let all = || {
            let end = self.phases(run, &trace, began, &mut report)?;
            self.conclude(&end, &trace, began, &mut report)
        };
        // No panic of a backend's getters, or of ours, crosses into the host.
        let result = catch_unwind(AssertUnwindSafe(all))
            .unwrap_or_else(|panic| Err(panicked(Operation::Rescan, &*panic)));
        if matches!(&result, Err(error) if !error.is_about_the_cache()) && !run.dry_run {
            // The run's error is what the caller should see.
            if let Err(error) = self.cache.set_synced(false).and_then(|()| self.keep_catalog()) {
                trace.warn("the end of a failed rescan is not recorded", &[("error", &error)]);
            }
        }
        let outcome = result.as_ref().map_or("error", |()| report.outcome.as_str());
        trace.emit(|| Event::RunFinished { outcome });
        announce(&trace, &self.destination, &result, &report);
        result.map(|()| report)
    }

    fn refuse_what_cannot_work(&self, run: &Run) -> Result<(), StorageError> {
        self.engine.refuse_own_worker()?;
        if run.verify != Verify::Ack && self.backend.transfers().is_none() {
            let why = "this backend cannot list; use Verify::Ack";
            return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, why));
        }
        Ok(())
    }

    /// lock, then what `publish` says, verify, report.
    fn phases(
        &self,
        run: &Run,
        trace: &Trace,
        began: Duration,
        report: &mut RescanReport,
    ) -> Result<End, StorageError> {
        let context = Arc::new(self.prepare(run, trace, began)?);
        let mut end = self.publish(&context, trace, run.force, report)?;
        if run.dry_run || run.verify == Verify::Ack || end.tally.stop.is_some() {
            return Ok(end);
        }
        end.tally.stop = verify::after_run(&self.engine, &context.session, &self.cache, run.verify, report)?;
        if end.tally.stop.is_some() || report.failed_count > 0 || !report.has_losses() {
            return Ok(end);
        }
        // What is not there as it was acknowledged is published once more, and looked at.
        let lost = report.begin_again();
        let mut again = self.publish(&context, trace, false, report)?;
        again.follows(&end);
        if again.tally.stop.is_none() {
            again.tally.stop =
                verify::after_run(&self.engine, &context.session, &self.cache, run.verify, report)?;
        }
        report.verified.get_or_insert_default().repaired = lost;
        Ok(again)
    }

    /// walk, diff, batches, hash, upload, record, delete.
    fn publish(
        &self,
        context: &Arc<Context>,
        trace: &Trace,
        force: bool,
        report: &mut RescanReport,
    ) -> Result<End, StorageError> {
        let plan = match self.plan(context, force, report) {
            Ok(plan) => plan,
            Err(error) => return End::of_stopped_plan(error),
        };
        trace.progress.planned(plan.added + plan.modified, plan.bytes, plan.removed);
        trace.emit(|| Event::Planned {
            scanned: report.scanned,
            to_upload: plan.added + plan.modified,
            bytes: plan.bytes,
            to_delete: plan.removed,
        });
        let mut end = End { blocked: plan.blocked, ..End::default() };
        if report.dry_run {
            report.deletes_refused = guard::too_many(plan.counts(), self.allowed());
            end.tally.stop = report.deletes_refused.map(|_| StopReason::DeletesRefused);
            end.unsettled = plan.unsettled > 0;
        } else if !plan.is_empty() || self.cache.open_upload_count()? > 0 {
            end.tally = self.carry_out(context, &plan, report)?;
        }
        Ok(end)
    }

    /// The root is there, the cache is ours, the circuit is closed: what all work of this run shares.
    fn prepare(&self, run: &Run, trace: &Trace, began: Duration) -> Result<Context, StorageError> {
        let (root, stat) = self.find_root()?;
        let bound = self.cache.bind(&self.destination)?;
        let identity = Root {
            path: root.path().as_os_str().as_bytes().to_vec(),
            device: stat.device,
            inode: stat.inode,
        };
        let (known, named) = self.cache.root(&identity, self.config.allow_new_root)?;
        if !run.dry_run {
            let writes: Vec<Write> = bound.into_iter().chain(named).collect();
            self.cache.apply(&writes)?;
        }
        Ok(Context {
            session: Session::new(&self.engine, &self.backend, trace, run, began),
            root: Arc::new(root),
            known,
            root_device: stat.device,
            offline: AtomicBool::new(false),
            hash_only: AtomicBool::new(false),
        })
    }

    /// The root, held open from here to the end of the run.
    fn find_root(&self) -> Result<(Folder, FileStat), StorageError> {
        let missing = |error| {
            StorageError::io(ErrorKind::RootMissing, Operation::Rescan, &self.root, error)
                .advise("nothing was deleted; is it mounted?")
        };
        let root = fs::canonicalize(&self.root).map_err(missing)?;
        let metadata = fs::metadata(&root).map_err(missing)?;
        if !metadata.is_dir() {
            let why = format!("{} is a file; the root is a directory", PrintablePath(&self.root));
            return Err(StorageError::config("root", why));
        }
        let folder = Folder::open(&root).map_err(|error| missing(error.into()))?;
        let stat = FileStat::of(&folder.stat_self().map_err(|error| missing(error.into()))?);
        let own = fs::canonicalize(self.cache.path()).unwrap_or_default();
        if own.starts_with(&root) {
            let why =
                format!("{} lies inside the root {}: it would be published", own.display(), root.display());
            return Err(StorageError::config("cache", why));
        }
        Ok((folder.following(self.config.follow_symlinks), stat))
    }

    fn plan(&self, context: &Context, force: bool, report: &mut RescanReport) -> Result<Plan, StorageError> {
        let scope = PlanInput {
            root: &context.root,
            known: context.known,
            root_device: context.root_device,
            backend: &*self.backend,
            cache: &self.cache,
            config: &self.config,
            filter: &self.filter,
            exchange: context.exchange(),
            dry_run: report.dry_run,
            force,
        };
        plan(&scope, report)
    }

    /// Sends, records and deletes what is planned.
    fn carry_out(
        &self,
        context: &Arc<Context>,
        plan: &Plan,
        report: &mut RescanReport,
    ) -> Result<Tally, StorageError> {
        let recorder = Arc::new(Recorder::start(&self.cache, &context.session.trace.metrics)?);
        let limits = DispatchLimits {
            batch_size: self.config.batch_size.unwrap_or(self.engine.workers()),
            delete_chunk: self.backend.transfers().map_or(1, Transfers::delete_limit),
            parts_in_flight: self.config.parts_in_flight.unwrap_or(self.engine.workers()),
            whole_file_digest: self.config.whole_file_digest,
            has_fallback: self.config.fallback.is_some(),
        };
        let mut flow = Dispatcher::new(&self.engine, context.clone(), &self.cache, &recorder, limits);
        if plan.may_need_no_store() && self.cache.open_upload_count()? == 0 {
            flow.confirm(report);
            recorder.sync()?;
            if !self.cache.has_work()? {
                return Ok(std::mem::take(&mut flow.tally));
            }
        }
        flow.begin(preflight(context, &self.cache, self.config.first_run, report)?);
        if flow.tally.stop == Some(StopReason::Unavailable) {
            flow.confirm(report);
        }
        // All added before any modified: no replaced index names a file that is not there yet.
        flow.upload(PendingKind::Added, report);
        flow.upload(PendingKind::Modified, report);
        if flow.has_obstacles() {
            let may_delete = self.why_not_delete(context, plan, &flow).is_none();
            flow.clear_obstacles(may_delete, report);
        }
        if let Err(error) = recorder.sync() {
            flow.fail(error);
        }
        if !flow.tally.is_stopped() {
            let stop = abort_unwanted_uploads(context, &self.cache, &recorder, report)?;
            if let Some(reason) = stop {
                flow.stop(reason);
            }
        }
        match self.why_not_delete(context, plan, &flow) {
            None => flow.delete(report),
            Some(refusal) => flow.refuse_deletes(refusal, plan, &self.root, report),
        }
        flow.settle_refusals(report);
        report.outage = flow.tally.outage.take();
        let mut tally = std::mem::take(&mut flow.tally);
        if let Some(error) = tally.fatal.take() {
            return Err(error);
        }
        recorder.sync()?;
        Ok(tally)
    }

    /// Deletes come last, and only if everything before went well and they are not too many.
    fn why_not_delete(&self, context: &Context, plan: &Plan, flow: &Dispatcher<'_>) -> Option<Refusal> {
        guard::refusal(&Conditions {
            counts: plan.counts(),
            allowed: self.allowed(),
            stopped: flow.tally.is_stopped(),
            blocked: plan.blocked,
            failed_uploads: flow.tally.failed_uploads,
            same_root: context.root.is_at(&self.root).unwrap_or(false),
        })
    }

    fn allowed(&self) -> Allowed {
        Allowed { max_delete: self.config.max_delete, empty: self.config.allow_empty }
    }

    fn keep_catalog(&self) -> Result<(), StorageError> {
        if self.config.catalog { catalog::update(&self.cache, self.engine.clock().wall()) } else { Ok(()) }
    }

    fn conclude(
        &self,
        end: &End,
        trace: &Trace,
        began: Duration,
        report: &mut RescanReport,
    ) -> Result<(), StorageError> {
        report.pending = self.cache.pending_count()?;
        report.open_uploads = self.cache.open_upload_count()?;
        report.stop_reason = end.tally.stop;
        report.unchanged += end.tally.confirmed;
        report.outcome = outcome(end, report);
        if !report.dry_run {
            self.cache.check_file()?;
            let synced = matches!(report.outcome, RescanOutcome::Unchanged | RescanOutcome::Published);
            self.cache.set_synced(synced)?;
            if let Err(error) = self.keep_catalog() {
                report.add_failed(error);
                report.outcome = outcome(end, report);
            }
        }
        self.cache.count_commits(&trace.metrics);
        report.elapsed = self.engine.clock().now().saturating_sub(began);
        trace.metrics.rescan_ended(report.elapsed, report.pending);
        report.metrics = trace.metrics.snapshot();
        Ok(())
    }
}

impl fmt::Debug for RescanOrchestrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RescanOrchestrator")
            .field("root", &self.root)
            .field("destination", &self.destination)
            .finish_non_exhaustive()
    }
}
