//! The beginning of a run: its context and its plan.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::backend::new_token;
use crate::error::StorageError;
use crate::observe::trace::Trace;
use crate::rescan::bucket_state::shared_writes::SharedWrites;
use crate::rescan::bucket_state::write_guard::WriteGuard;
use crate::rescan::context::{Context, open_root};
use crate::rescan::options::Run;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::rescan::orchestrator::copied::own_files;
use crate::rescan::plan::{Plan, PlanInput, plan};
use crate::rescan::report::RescanReport;
use crate::rescan::session::Session;
use crate::state::cache::binding::Root;
use crate::state::cache::identity::Origin;
use crate::state::store::Write;

impl RescanOrchestrator {
    /// Opens the root, checks that the cache is bound to this destination, and builds the context of the run.
    pub(super) fn prepare_context(
        &self,
        run: &Run,
        trace: &Trace,
        began: Duration,
    ) -> Result<Context, StorageError> {
        let (root, stat) = open_root(&self.root, self.cache.path())?;
        let root = root.following(self.config.follow_symlinks);
        let bound = self.cache.bind(&self.destination)?;
        if self.config.state.is_none() && self.cache.has_state_in_bucket()? {
            let why = "the state of this destination lies in the bucket, and this cache is a copy of it: set the state \
                       to the bucket; or, if nobody publishes that way any more, use another cache file";
            return Err(StorageError::config("state", why));
        }
        let identity = Root {
            path: root.path().as_os_str().as_bytes().to_vec(),
            device: stat.device,
            inode: stat.inode,
        };
        let (known, named) = self.cache.known_root(&identity, self.config.allow_new_root)?;
        // A dry run does not bind the cache, unless it makes it a copy of the state in the bucket.
        if !run.dry_run || self.config.state.is_some() {
            // With the state in the bucket its head tells whether the cache is up to date.
            let is_new = self.config.state.is_none() && self.cache.origin()? == Origin::Unrecorded;
            let own = if is_new { own_files(&self.cache)? } else { Vec::new() };
            let writes: Vec<Write> = bound.into_iter().chain(named).chain(own).collect();
            self.cache.apply(&writes)?;
        }
        Ok(Context {
            session: Session::new(&self.engine, &self.backend, trace, run, began),
            token: new_token(),
            root: Arc::new(root),
            known,
            root_device: stat.device,
            offline: AtomicBool::new(false),
            force: AtomicBool::new(run.force),
            hash_only: AtomicBool::new(false),
            unverified: AtomicBool::new(false),
            shared: self.config.state.as_ref().map(|state| {
                let place = state.elsewhere.as_ref().unwrap_or(&self.backend);
                let guard = WriteGuard::new(place, self.engine.clock());
                SharedWrites::new(guard, state.on_conflict)
            }),
        })
    }

    pub(super) fn make_plan(
        &self,
        context: &Context,
        report: &mut RescanReport,
    ) -> Result<Plan, StorageError> {
        let input = PlanInput {
            root: &context.root,
            known: context.known,
            root_device: context.root_device,
            backend: &*self.backend,
            cache: &self.cache,
            config: &self.config,
            filter: &self.filter,
            request_context: context.request_context(),
            dry_run: report.dry_run,
            force: context.is_forced(),
        };
        plan(&input, report)
    }
}
