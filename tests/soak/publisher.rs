//! The process of a machine: publishes a tree again and again, and prints how each run ended.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    CacheManager, Credentials, Engine, EngineConfig, ErrorKind, NetworkConfig, RemoteState, RescanConfig,
    RescanOrchestrator, RescanReport, RetryPolicy, S3Backend, S3Config, StorageError,
};
use serde::{Deserialize, Serialize};

use crate::support::BUCKET;
use crate::support::server::{ACCESS_KEY, SECRET_KEY};

/// What a process is to publish, as JSON.
const TASK: &str = "BRIGADE_SOAK_TASK";
/// The lease of the runs of processes. The next ones wait for it and 30 s more.
const LEASE: Duration = Duration::from_secs(8);

/// A tree, its cache, its place in the store, and how often it is published.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    pub root: PathBuf,
    pub cache: PathBuf,
    pub endpoint: String,
    pub prefix: String,
    /// The name of the publisher, if the state lies in the bucket.
    pub shares_state_as: Option<String>,
    /// Seconds that it waits for another publisher.
    pub wait: u64,
    /// The number of runs before the process ends.
    pub runs: u64,
    pub pause_millis: u64,
}

/// How a run ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
    pub outcome: String,
    pub stop_reason: Option<String>,
    /// The kinds of the failures, and of the error that ended the run.
    pub kinds: Vec<u16>,
    /// What failed for a reason that no fault of this test explains.
    pub unexplained: Vec<String>,
    pub uploaded: u64,
    pub deleted: u64,
    /// It found claims of publishers that had died.
    pub was_in_doubt: bool,
}

impl Ended {
    fn of(result: &Result<RescanReport, StorageError>) -> Self {
        match result {
            Ok(report) => Self {
                outcome: report.outcome.as_str().to_owned(),
                stop_reason: report.stop_reason.map(|reason| reason.as_str().to_owned()),
                kinds: report.failed.iter().map(|error| error.kind().code()).collect(),
                unexplained: report.failed.iter().filter(|error| !is_explained(error)).map(text).collect(),
                uploaded: report.uploaded_count,
                deleted: report.deleted_count,
                was_in_doubt: report.state.as_ref().is_some_and(|state| state.in_doubt > 0),
            },
            Err(error) => Self {
                outcome: "error".to_owned(),
                kinds: vec![error.kind().code()],
                unexplained: Some(error).filter(|error| !is_explained(error)).map(text).into_iter().collect(),
                ..Self::default()
            },
        }
    }
}

fn text(error: &StorageError) -> String {
    format!("{:?}: {error}", error.kind())
}

/// Failures that belong to the faults, to a tree that changes meanwhile, and to several publishers.
fn is_explained(error: &StorageError) -> bool {
    let kind = error.kind();
    kind.is_outage()
        || matches!(
            kind,
            ErrorKind::Throttled
                | ErrorKind::SourceChanged
                | ErrorKind::SourceVanished
                | ErrorKind::Superseded
                | ErrorKind::Conflict
        )
}

impl Task {
    fn settings(&self) -> S3Config {
        let mut retry = RetryPolicy::default().with_attempts(4);
        (retry.base, retry.cap) = (Duration::from_millis(50), Duration::from_secs(1));
        retry.throttled_for = Duration::from_secs(5);
        let limit = Duration::from_secs(2);
        let network = NetworkConfig::new().connect_timeout(limit).idle_timeout(limit).answer_timeout(limit);
        S3Config::new(BUCKET)
            .endpoint(&self.endpoint)
            .credentials(Credentials::new(ACCESS_KEY, SECRET_KEY))
            .bucket_prefix(&self.prefix)
            .part_threshold(8 << 20)
            .part_size(8 << 20)
            .retry(retry)
            .network(network)
    }

    pub fn backend(&self, engine: &Engine) -> Arc<S3Backend> {
        Arc::new(S3Backend::new(engine, self.settings()).unwrap())
    }

    pub fn site(&self, engine: &Engine) -> Result<RescanOrchestrator, StorageError> {
        let state = |who: &String| {
            RemoteState::new().publisher(who).lease(LEASE).wait(Duration::from_secs(self.wait))
        };
        let config = RescanConfig::new();
        let config = match &self.shares_state_as {
            Some(who) => config.state(state(who)),
            None => config,
        };
        let cache = CacheManager::open(&self.cache)?;
        RescanOrchestrator::with_config(engine, &self.root, self.backend(engine), cache, config)
    }

    /// Publishes, and prints how that ended.
    fn carry_out(&self) {
        let engine = EngineConfig::new().workers(3).build().unwrap();
        let site = match self.site(&engine) {
            Ok(site) => site,
            Err(error) => return say(&Ended::of(&Err(error))),
        };
        for _ in 0..self.runs {
            say(&Ended::of(&site.rescan()));
            std::thread::sleep(Duration::from_millis(fastrand::u64(0..self.pause_millis)));
        }
    }

    pub fn to_variable(&self) -> (&'static str, String) {
        (TASK, serde_json::to_string(self).unwrap())
    }
}

fn say(ended: &Ended) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(ended).unwrap()).and_then(|()| out.flush()).unwrap();
}

/// True if this process was started to publish, and has done it.
pub fn acted_as_one() -> bool {
    let Ok(task) = std::env::var(TASK) else {
        return false;
    };
    // A process that is stopped would outlive its parent otherwise.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).unwrap();
    serde_json::from_str::<Task>(&task).unwrap().carry_out();
    true
}
