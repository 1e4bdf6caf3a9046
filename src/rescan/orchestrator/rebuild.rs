//! Makes a damaged or lost cache anew: from the state in the bucket, or from the tree and the objects that hold its files.
//!
//! Nothing is written to the bucket, and nothing is deleted. The new cache is complete before it takes the place of the old
//! one, so a rebuild can be interrupted at any moment and repeated.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::StorageBackend;
use crate::engine::Engine;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::config::{FirstRun, RescanConfig};
use crate::rescan::context::Context;
use crate::rescan::first_run::adopt_or_survey;
use crate::rescan::options::Run;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::preflight::{Preflight, preflight};
use crate::rescan::report::{Adoption, RescanReport, StateReport};
use crate::state::cache::CacheManager;
use crate::state::cache::replacement::{CacheFound, Replacement};
use crate::state::catalog;
use crate::state::recorder::Recorder;

/// Makes the cache at a path anew.
///
/// A file that is there is kept beside it, as `CACHE.damaged-1` or `CACHE.old-1`. Nothing is written to the bucket and
/// nothing is deleted. If it fails or is interrupted, the path leads to what was there before.
///
/// ```no_run
/// use std::sync::Arc;
/// use bucket_brigade::{Credentials, Engine, Rebuild, RescanConfig, S3Backend, S3Config, StorageBackend};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let engine = Engine::new()?;
/// let config = S3Config::new("site").region("eu-central-1").credentials(Credentials::new("key", "secret"));
/// let backend: Arc<dyn StorageBackend> = Arc::new(S3Backend::new(&engine, config)?);
/// let made = Rebuild::new("/var/lib/site.cache").from_tree(&engine, "/srv/www", &backend, RescanConfig::new())?;
/// println!("{} files are published, {} are to be sent", made.published, made.pending);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Rebuild {
    path: PathBuf,
    force: bool,
    wait: Duration,
    run: Run,
}

/// The result of a [`Rebuild`].
#[derive(Debug)]
#[non_exhaustive]
pub struct RebuildReport {
    /// What was at the path.
    pub found: CacheFound,
    /// The path of the file that was there.
    pub kept_as: Option<PathBuf>,
    /// Published keys in the new cache.
    pub published: u64,
    /// Files that the next rescan sends, as far as is known.
    pub pending: u64,
    /// The comparison of the tree with the objects, if the cache was made from these.
    pub adoption: Option<Adoption>,
    /// The state in the bucket, if the cache was made from it.
    pub state: Option<StateReport>,
    /// Files and folders of the tree that could not be read.
    pub failed_count: u64,
    /// The errors, up to [`REPORT_LIST_LIMIT`](crate::REPORT_LIST_LIMIT).
    pub failed: Vec<StorageError>,
}

impl Rebuild {
    /// A rebuild of the cache at this path.
    pub fn new(cache: impl AsRef<Path>) -> Self {
        let path = cache.as_ref().to_owned();
        Self { path, force: false, wait: Duration::ZERO, run: Run::new() }
    }

    /// Also replaces a cache that can be used. Default: that is an error.
    pub fn force(mut self, yes: bool) -> Self {
        self.force = yes;
        self
    }

    /// Waits this long for another process to close the cache. Default: it does not wait.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// The cancel token, the deadline, the observer and the progress. Nothing else of a run is used.
    pub fn run(mut self, run: Run) -> Self {
        self.run = Run {
            cancel: run.cancel,
            deadline: run.deadline,
            observer: run.observer,
            progress: run.progress,
            ..Run::new()
        };
        self
    }

    /// Makes the cache from the state in the bucket, as [`CacheManager::pull`] does, and its catalog.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] if another process has the cache open; [`ErrorKind::Cache`] if it can be used, unless
    /// [forced](Self::force); [`ErrorKind::CacheForeign`] if it belongs to another destination; those of
    /// [`CacheManager::pull`].
    pub fn from_state(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        state: &RemoteState,
    ) -> Result<RebuildReport, StorageError> {
        engine.refuse_own_worker()?;
        state.check()?;
        self.replace(backend, |cache| {
            let _lock = cache.lock()?;
            let state = cache.pull_records(engine, backend, state, &self.run)?;
            Ok(RebuildReport { state: Some(state), ..RebuildReport::empty() })
        })
        .and_then(|made| self.write_catalog(engine, backend, None).map(|()| made))
    }

    /// Makes the cache from a tree and the objects that hold its files, as
    /// [`FirstRun::Adopt`](crate::FirstRun::Adopt) does: one listing, and a HEAD where that does not tell. Every other file
    /// is pending. Writes the catalog, unless the configuration says otherwise.
    ///
    /// # Errors
    /// Those of [`from_state`](Self::from_state) about the cache; [`ErrorKind::Config`] if the configuration says that the
    /// state lies in the bucket; those of [`RescanOrchestrator::rescan`], also if the store cannot be reached, or does not
    /// permit to list the prefix.
    pub fn from_tree(
        &self,
        engine: &Engine,
        root: impl AsRef<Path>,
        backend: &Arc<dyn StorageBackend>,
        config: RescanConfig,
    ) -> Result<RebuildReport, StorageError> {
        if config.state.is_some() {
            return Err(StorageError::config("state", "it lies in the bucket: use Rebuild::from_state"));
        }
        let (catalog, fallback) = (config.catalog, config.fallback.clone());
        let config = config.first_run(FirstRun::Adopt);
        let made = self.replace(backend, |cache| {
            let site =
                RescanOrchestrator::with_config(engine, root.as_ref(), backend.clone(), cache, config)?;
            let report = site.adopt_alone(&self.run)?;
            let RescanReport { adoption, failed_count, failed, .. } = report;
            Ok(RebuildReport { adoption, failed_count, failed, ..RebuildReport::empty() })
        })?;
        if catalog {
            self.write_catalog(engine, backend, fallback)?;
        }
        Ok(made)
    }

    /// Makes a new cache by `fill`, and puts it in the place of the old one.
    fn replace(
        &self,
        backend: &Arc<dyn StorageBackend>,
        fill: impl FnOnce(CacheManager) -> Result<RebuildReport, StorageError>,
    ) -> Result<RebuildReport, StorageError> {
        let destination = caught(Operation::Configure, || Ok(backend.destination()))?;
        let place = Replacement::find(&self.path, &destination, self.wait)?;
        if matches!(place.found, CacheFound::Healthy) && !self.force {
            let what = "it can be used as it is; to replace it all the same, use Rebuild::force (--force)";
            return Err(StorageError::new(ErrorKind::Cache, Operation::Cache, what).with_path(&self.path));
        }
        let cache = place.begin()?;
        let filled = caught(Operation::Rescan, || {
            let made = fill(cache.clone())?;
            let (published, pending) = (cache.published_count()?, cache.pending_count()?);
            Ok(RebuildReport { published, pending, ..made })
        });
        // Closed, so that everything is in the file.
        drop(cache);
        let made = filled.inspect_err(|_| place.give_up())?;
        let (found, kept_as) = place.finish()?;
        Ok(RebuildReport { found, kept_as, ..made })
    }

    fn write_catalog(
        &self,
        engine: &Engine,
        backend: &Arc<dyn StorageBackend>,
        fallback: Option<Arc<dyn StorageBackend>>,
    ) -> Result<(), StorageError> {
        let cache = CacheManager::open(&self.path)?;
        let _lock = cache.lock()?;
        cache.use_urls_of(backend.clone(), fallback);
        caught(Operation::Rescan, || catalog::update(&cache, engine.clock().wall()))
    }
}

impl std::fmt::Debug for Rebuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rebuild")
            .field("path", &self.path)
            .field("force", &self.force)
            .finish_non_exhaustive()
    }
}

impl RebuildReport {
    fn empty() -> Self {
        Self {
            found: CacheFound::Missing,
            kept_as: None,
            published: 0,
            pending: 0,
            adoption: None,
            state: None,
            failed_count: 0,
            failed: Vec::new(),
        }
    }
}

impl RescanOrchestrator {
    /// Plans, and takes over the objects that hold files. Sends no file, and deletes nothing.
    fn adopt_alone(&self, run: &Run) -> Result<RescanReport, StorageError> {
        self.check_preconditions(run)?;
        let _lock = self.cache.lock()?;
        let began = self.engine.clock().now();
        let trace = self.engine.trace().for_run(run.observer.clone(), run.progress.clone());
        let all = || {
            let mut report = RescanReport::new(false);
            let context = Arc::new(self.prepare_context(run, &trace, began)?);
            let plan = self.make_plan(&context, &mut report)?;
            trace.progress.planned(plan.files_to_do(), plan.bytes, 0);
            self.adopt_files(&context, &mut report)?;
            self.cache.record_end(false, false)?;
            Ok(report)
        };
        caught(Operation::Rescan, all)
    }

    fn adopt_files(&self, context: &Arc<Context>, report: &mut RescanReport) -> Result<(), StorageError> {
        // As if a listing that is refused were a reason to end: without it nothing can be taken over.
        match preflight(context, &self.cache, FirstRun::Refuse)? {
            Preflight::Passed => {}
            Preflight::Unreachable(error) => return Err(error),
            Preflight::Stopped => context.request_context().check(Operation::List)?,
            Preflight::Denied | Preflight::Unknown => {
                let what = "the prefix cannot be listed, so nothing shows what is published";
                return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, what));
            }
        }
        let Some(first_run) = self.first_run_due(context)? else {
            let what = "this backend cannot list objects, so nothing shows what is published";
            return Err(StorageError::new(ErrorKind::Unsupported, Operation::List, what));
        };
        let recorder = Recorder::start(&self.cache, &context.session.trace.metrics)?;
        adopt_or_survey(&first_run, &recorder, report)?;
        recorder.sync()
    }
}
