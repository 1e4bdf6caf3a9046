//! The parts that settings are put into.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::backend::s3::config::S3Config;
use crate::backend::s3::http::bandwidth::Bandwidth;
use crate::backend::s3::http::network::NetworkConfig;
use crate::engine::EngineConfig;
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::config::RescanConfig;
use crate::rescan::options::Run;
use crate::retry::RetryPolicy;

/// The place of the record of what is published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum StatePlace {
    /// The cache alone.
    #[default]
    Local,
    /// Under the prefix of the destination.
    Bucket,
    /// Under this URL.
    At(String),
}

/// Where credentials come from if no keys are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CredentialSource {
    /// Nowhere: they are missing.
    #[default]
    Keys,
    /// Variables and profiles.
    Environment,
    /// All places that the SDKs of AWS ask.
    Chain,
}

/// The configuration of each part of a run.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) bucket: String,
    pub(crate) root: Option<PathBuf>,
    pub(crate) cache: Option<PathBuf>,
    pub(crate) fallback_url: Option<String>,
    pub(crate) lock_wait: Duration,
    pub(crate) engine: EngineConfig,
    pub(crate) s3: S3Config,
    pub(crate) retry: RetryPolicy,
    /// The names of headers of every object, in lower case.
    pub(crate) common_headers: BTreeSet<String>,
    /// A rule for some objects, or a repeated header, was added.
    pub(crate) has_header_rule: bool,
    pub(crate) rescan: RescanConfig,
    pub(crate) run: Run,
    pub(crate) place: StatePlace,
    pub(crate) remote: RemoteState,
    /// The first setting that has no meaning while the state is local.
    pub(crate) needs_state: Option<&'static str>,
    pub(crate) source: CredentialSource,
    pub(crate) network: NetworkConfig,
    /// The rate of everything that is made from one configuration.
    pub(crate) rate: Arc<OnceLock<Bandwidth>>,
    pub(crate) client_certificate: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            bucket: String::new(),
            root: None,
            cache: None,
            fallback_url: None,
            lock_wait: Duration::from_secs(10),
            engine: EngineConfig::new(),
            s3: S3Config::new(""),
            retry: RetryPolicy::default(),
            common_headers: BTreeSet::new(),
            has_header_rule: false,
            rescan: RescanConfig::new(),
            run: Run::new(),
            place: StatePlace::Local,
            remote: RemoteState::new(),
            needs_state: None,
            source: CredentialSource::Keys,
            network: NetworkConfig::new(),
            rate: Arc::default(),
            client_certificate: None,
            client_key: None,
        }
    }
}

impl Parts {
    /// Changes the S3 backend's configuration.
    pub(crate) fn s3(&mut self, change: impl FnOnce(S3Config) -> S3Config) {
        self.s3 = change(self.s3.clone());
    }

    /// Changes the settings of connections.
    pub(crate) fn network(&mut self, change: impl FnOnce(NetworkConfig) -> NetworkConfig) {
        self.network = change(self.network.clone());
    }

    /// Changes the configuration of the rescan.
    pub(crate) fn rescan(&mut self, change: impl FnOnce(RescanConfig) -> RescanConfig) {
        self.rescan = change(self.rescan.clone());
    }

    /// Changes the options of the run.
    pub(crate) fn run(&mut self, change: impl FnOnce(Run) -> Run) {
        self.run = change(self.run.clone());
    }

    /// Changes what is shared with other publishers, by a setting that needs a shared state.
    pub(crate) fn remote(&mut self, setting: &'static str, change: impl FnOnce(RemoteState) -> RemoteState) {
        self.remote = change(self.remote.clone());
        self.needs_state.get_or_insert(setting);
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}
