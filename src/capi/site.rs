//! The site: one destination with its threads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::backend::StorageBackend;
use crate::backend::s3::S3Backend;
use crate::capi::boundary::{Fault, Place, free, required};
use crate::capi::callbacks::{LogCallback, ProgressCallback};
use crate::capi::config::bb_config;
use crate::capi::error::bb_error;
use crate::capi::guard::guard;
use crate::capi::host::{Opener, apart};
use crate::capi::status::bb_status;
use crate::clock::CancelToken;
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::event::Progress;
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::options::Run;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::settings::config::Config;
use crate::state::cache::CacheManager;

/// A destination that is open: its cache, its threads, its connections. Any number of threads may use it at
/// once; a second `bb_rescan`, `bb_plan` or `bb_pull` at the same time is `BB_ERR_CACHE_LOCKED`. In a process
/// that was forked from the one that opened it, every call is `BB_ERR_FORKED`.
pub struct bb_site {
    /// The process that has the threads.
    opener: Opener,
    open: RwLock<Option<Arc<Site>>>,
    calls: Mutex<Calls>,
}

/// The calls that can be cancelled.
#[derive(Default)]
struct Calls {
    /// Set from `bb_site_cancel` to `bb_site_reset_cancel`.
    are_cancelled: bool,
    number: u64,
    running: BTreeMap<u64, CancelToken>,
}

/// A call that can be cancelled. It is entered as long as this lives.
pub(super) struct Call<'a> {
    site: &'a bb_site,
    number: u64,
    pub(super) cancel: CancelToken,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        lock(&self.site.calls).running.remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an open site has.
pub(super) struct Site {
    pub(super) engine: Engine,
    pub(super) backend: Arc<S3Backend>,
    pub(super) cache: CacheManager,
    /// None without a `root`.
    pub(super) orchestrator: Option<RescanOrchestrator>,
    pub(super) state: Option<RemoteState>,
    /// `deadline`, `force`, `verify`.
    run: Run,
    progress: Option<ProgressCallback>,
}

impl Site {
    fn open(settings: &bb_config) -> Result<Self, StorageError> {
        let mut config = settings.config.clone();
        config.resolve()?;
        let log = settings.log.map(LogCallback::observer);
        let engine = config.engine_with(log)?;
        let opened = Self::open_with(&engine, &config, settings.progress);
        // A host that got an error has no thread of ours.
        if opened.is_err() {
            engine.join();
        }
        opened
    }

    fn open_with(
        engine: &Engine,
        config: &Config,
        progress: Option<ProgressCallback>,
    ) -> Result<Self, StorageError> {
        let (backend, cache) = config.open_ends(engine)?;
        let root = config.root()?;
        let orchestrator = if let Some(root) = &root {
            Some(config.orchestrator(engine, root, backend.clone(), cache.clone())?)
        } else {
            // For `bb_pull` and lookups.
            cache.check_destination(&backend.destination())?;
            cache.use_urls_of(backend.clone(), None);
            None
        };
        let (state, run) = (config.remote_state(engine)?, config.run()?);
        Ok(Self { engine: engine.clone(), backend, cache, orchestrator, state, run, progress })
    }

    /// Runs a call that shows its progress.
    pub(super) fn run<T: Send>(
        &self,
        call: &Call<'_>,
        work: impl FnOnce(Run) -> Result<T, StorageError> + Send,
    ) -> Result<T, StorageError> {
        let progress = Progress::new();
        let run = self.run.clone().cancel(call.cancel.clone()).progress(progress.clone());
        let (callback, cancel) = (self.progress, &call.cancel);
        apart(|| match callback {
            Some(callback) => callback.watch(&progress, cancel, || work(run)),
            None => work(run),
        })
    }

    pub(super) fn destination(&self) -> Arc<dyn StorageBackend> {
        self.backend.clone()
    }

    /// Closes what is open and waits for the threads.
    fn close(self) -> Result<(), StorageError> {
        let Self { engine, backend, cache, orchestrator, state, run, progress: _ } = self;
        // While a file that was removed or replaced is open, it still tells.
        let checked = cache.check_file();
        drop((backend, cache, orchestrator, state, run));
        if !engine.join() {
            let what = "its threads are still in use";
            return Err(StorageError::new(ErrorKind::Other, Operation::Configure, what));
        }
        checked
    }
}

impl bb_site {
    /// Returns the open site for a call.
    pub(super) fn enter(&self) -> Result<Arc<Site>, Fault> {
        self.refuse_fork()?;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(Fault::closed)
    }

    /// Enters a call that can be cancelled.
    pub(super) fn begin(&self) -> Call<'_> {
        let cancel = CancelToken::new();
        let mut calls = lock(&self.calls);
        if calls.are_cancelled {
            cancel.cancel();
        }
        calls.number += 1;
        let number = calls.number;
        calls.running.insert(number, cancel.clone());
        drop(calls);
        Call { site: self, number, cancel }
    }

    fn refuse_fork(&self) -> Result<(), Fault> {
        if self.opener.is_here() { Ok(()) } else { Err(Fault::forked()) }
    }

    fn close(&self) -> Result<(), Fault> {
        self.refuse_fork()?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let site = match Arc::try_unwrap(open.take().ok_or_else(Fault::closed)?) {
            Ok(site) => site,
            Err(shared) => {
                *open = Some(shared);
                return Err(Fault::busy());
            }
        };
        drop(open);
        Ok(site.close()?)
    }
}

impl Drop for bb_site {
    fn drop(&mut self) {
        if self.refuse_fork().is_ok() {
            // What it reports, `bb_site_close` would have reported.
            let _ = self.close();
            return;
        }
        // Closing would wait for threads that are not here, and write the cache of the other process.
        std::mem::forget(std::mem::take(&mut self.open));
        std::mem::forget(std::mem::take(&mut self.calls));
    }
}

/// Opens a destination: opens its cache and starts its threads (`batch_size`, 10 unless set). Waits up to
/// `lock_wait` (10 s unless set) if another process has the cache open. Sends no request, unless `credentials`
/// is "chain" and the first place that has some needs one. Needs `bucket`, `cache` and credentials, and for
/// `bb_rescan` and `bb_plan` `root`. Open it after any fork, in the one process that publishes. If it fails,
/// its threads have ended.
///
/// @param site receives a handle; close it with `bb_site_close`, and free it with `bb_site_free`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_open(
    config: *const bb_config,
    site: *mut *mut bb_site,
    error: *mut *mut bb_error,
) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle; NULL or a place for a pointer.
        let (config, place) = unsafe { (required(config.as_ref(), "config")?, Place::new(site, "site")?) };
        let open = RwLock::new(Some(Arc::new(apart(|| Site::open(config))?)));
        place.give(bb_site { opener: Opener::new(), open, calls: Mutex::default() });
        Ok(())
    })
}

/// Cancels the calls that are under way on the site (`bb_rescan`, `bb_plan`, `bb_pull`, `bb_upload_file`,
/// `bb_delete_file`), and those that begin later, until `bb_site_reset_cancel`. They return within a few
/// seconds. What is finished is recorded. Any thread may call it, a callback too, but no signal handler. On a
/// closed site it does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_cancel(site: *const bb_site, error: *mut *mut bb_error) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle.
        let site = required(unsafe { site.as_ref() }, "site")?;
        site.refuse_fork()?;
        let mut calls = lock(&site.calls);
        calls.are_cancelled = true;
        calls.running.values().for_each(CancelToken::cancel);
        Ok(())
    })
}

/// Lets calls run again after `bb_site_cancel`. Those that were cancelled stay so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_reset_cancel(site: *const bb_site, error: *mut *mut bb_error) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle.
        let site = required(unsafe { site.as_ref() }, "site")?;
        site.refuse_fork()?;
        lock(&site.calls).are_cancelled = false;
        Ok(())
    })
}

/// Closes a site: closes its cache and connections, and waits until its threads have ended. Only a look-up of
/// a host name that the system has not answered yet may outlive it. `BB_ERR_BUSY` while another thread is
/// inside a call on it: then it stays open. `BB_ERR_CACHE` if the cache's file was removed or replaced
/// meanwhile: it is closed all the same. Later calls that need it open are `BB_ERR_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_close(site: *mut bb_site, error: *mut *mut bb_error) -> bb_status {
    guard(error, || {
        // SAFETY: NULL or a live handle.
        required(unsafe { site.as_ref() }, "site")?.close()
    })
}

/// Frees a site, and closes it if it is open. NULL is fine. No other thread may be inside a call on it. In a
/// forked process its memory is left as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_site_free(site: *mut bb_site) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(site) };
}
