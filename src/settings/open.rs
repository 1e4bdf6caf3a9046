//! Makes the parts of a run from a [`Config`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::backend::local::LocalBackend;
use crate::backend::s3::S3Backend;
use crate::backend::s3::address::{S3Address, split_url};
use crate::backend::s3::auth::chain::CredentialChain;
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::config::S3Config;
use crate::backend::s3::http::bandwidth::Bandwidth;
use crate::engine::Engine;
#[cfg(feature = "capi")]
use crate::engine::EngineConfig;
use crate::error::StorageError;
#[cfg(feature = "capi")]
use crate::observe::event::Observer;
use crate::rescan::bucket_state::settings::RemoteState;
use crate::rescan::config::RescanConfig;
use crate::rescan::options::Run;
use crate::rescan::orchestrator::RescanOrchestrator;
use crate::settings::config::{Config, KEYS};
use crate::settings::parts::{CredentialSource, Parts, StatePlace};
use crate::state::cache::CacheManager;

/// Makes the orchestrator of a configuration, with an engine of its own. Sends no request, unless `credentials` is `chain`
/// and the first place that has some needs one.
///
/// Needs `bucket`, `root`, `cache` and credentials. Options of a run, such as `deadline` and `verify`, are in
/// [`Config::run`], for [`rescan_with`](RescanOrchestrator::rescan_with).
///
/// With the feature `config`.
///
/// ```no_run
/// use bucket_brigade::{ConfigFile, open};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let file = ConfigFile::load("/etc/site/brigade.toml")?;
/// let report = open(file.destination("live")?)?.rescan()?;
/// # let _ = report; Ok(()) }
/// ```
///
/// # Errors
/// [`ErrorKind::Config`](crate::ErrorKind::Config) that begins with the name of the setting that is wrong or missing; those
/// of [`CacheManager::open`] and [`RescanOrchestrator::with_config`].
pub fn open(config: &Config) -> Result<RescanOrchestrator, StorageError> {
    config.open_with(&config.engine()?)
}

impl Config {
    /// As [`open`], with an engine that several destinations share. Its number of workers is that of the engine, not
    /// `batch_size`.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open_with(&self, engine: &Engine) -> Result<RescanOrchestrator, StorageError> {
        let mut config = self.clone();
        config.resolve()?;
        config.open_resolved(engine)
    }

    fn open_resolved(&self, engine: &Engine) -> Result<RescanOrchestrator, StorageError> {
        let root = self.root()?.ok_or_else(|| missing("root", "the directory to publish"))?;
        let (backend, cache) = self.open_ends(engine)?;
        self.orchestrator(engine, &root, backend, cache)
    }

    /// Makes the backend and opens the cache.
    pub(crate) fn open_ends(&self, engine: &Engine) -> Result<(Arc<S3Backend>, CacheManager), StorageError> {
        let path = self
            .cache_path()?
            .ok_or_else(|| missing("cache", "a file for the record of what is published"))?;
        let backend = self.backend(engine)?;
        let cache = CacheManager::open_waiting(path, self.lock_wait()?)?;
        Ok((backend, cache))
    }

    /// Makes the orchestrator between a root and these ends.
    pub(crate) fn orchestrator(
        &self,
        engine: &Engine,
        root: &Path,
        backend: Arc<S3Backend>,
        cache: CacheManager,
    ) -> Result<RescanOrchestrator, StorageError> {
        let rescan = self.rescan_config(engine)?;
        RescanOrchestrator::with_config(engine, root, backend, cache, rescan)
            .map_err(|error| self.explain(error))
    }

    /// Starts an engine with `batch_size` workers and this observer.
    #[cfg(feature = "capi")]
    pub(crate) fn engine_with(&self, observer: Option<Arc<dyn Observer>>) -> Result<Engine, StorageError> {
        observer.into_iter().fold(self.parts()?.engine, EngineConfig::observer).build()
    }

    /// The directory to publish.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if a value is wrong or cannot be read.
    pub fn root(&self) -> Result<Option<PathBuf>, StorageError> {
        self.parts().map(|parts| parts.root)
    }

    /// The record of what is published.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn cache_path(&self) -> Result<Option<PathBuf>, StorageError> {
        self.parts().map(|parts| parts.cache)
    }

    /// How long to wait for another run on the cache.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn lock_wait(&self) -> Result<Duration, StorageError> {
        self.parts().map(|parts| parts.lock_wait)
    }

    /// The destination and its URLs. Needs no credentials.
    ///
    /// # Errors
    /// As [`S3Config::address`].
    pub fn address(&self) -> Result<S3Address, StorageError> {
        s3_config(&self.parts()?)?.address().map_err(|error| self.explain(error))
    }

    /// The handle of `bandwidth`, to change the rate during a run; `None` if it is not set. All that is made from this
    /// configuration and its clones shares one rate.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn bandwidth(&self) -> Result<Option<Bandwidth>, StorageError> {
        self.parts().map(|parts| parts.rate.get().cloned())
    }

    /// The options of a run.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn run(&self) -> Result<Run, StorageError> {
        self.parts().map(|parts| parts.run)
    }

    /// The size in bytes above which a file becomes a multipart upload.
    ///
    /// # Errors
    /// As [`root`](Self::root).
    pub fn part_threshold(&self) -> Result<u64, StorageError> {
        self.parts().map(|parts| parts.s3.multipart_threshold())
    }

    /// Makes every part that needs no secret, and checks it. Sends nothing and opens nothing. A value that stands in a
    /// variable or file that is not there is left out: it may be there where the configuration is used.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names the setting that is wrong or missing.
    pub fn check(&self) -> Result<(), StorageError> {
        let parts = self.parts_here()?;
        if self.is_set("access_key_id") != self.is_set("secret_access_key") {
            return Err(StorageError::config(
                "access_key_id",
                "it and secret_access_key go together: one is missing",
            ));
        }
        if parts.bucket.is_empty() && self.is_set("bucket") {
            // Its name is not known here.
            return self.check_state(&parts);
        }
        let s3 = s3_config(&parts)?;
        let workers = parts.engine.worker_count();
        let checked = s3.credentials(Credentials::new("nobody", "nothing")).validate().map(drop);
        let checked = checked.and_then(|()| parts.rescan.check(workers)).and_then(|()| parts.remote.check());
        checked.map_err(|error| self.explain(error))?;
        self.check_state(&parts)
    }

    /// Starts an engine with `batch_size` workers.
    ///
    /// # Errors
    /// As [`EngineConfig::build`](crate::EngineConfig::build).
    pub fn engine(&self) -> Result<Engine, StorageError> {
        self.parts()?.engine.build()
    }

    /// Makes the backend of the destination.
    ///
    /// # Errors
    /// As [`S3Backend::new`]; those of the place that has the credentials.
    pub fn backend(&self, engine: &Engine) -> Result<Arc<S3Backend>, StorageError> {
        let config = self.filled()?;
        let s3 = config.with_credentials(s3_config(&config.parts()?)?)?;
        S3Backend::new(engine, s3).map(Arc::new).map_err(|error| config.explain(error))
    }

    /// Makes a backend that can only name objects and plan: its requests would be refused.
    ///
    /// # Errors
    /// As [`S3Backend::new`].
    pub fn backend_without_credentials(&self, engine: &Engine) -> Result<Arc<S3Backend>, StorageError> {
        let s3 = s3_config(&self.parts()?)?.credentials(Credentials::new("nobody", "nothing"));
        S3Backend::new(engine, s3).map(Arc::new).map_err(|error| self.explain(error))
    }

    /// The configuration of a rescan, with the state in the bucket if that is set.
    ///
    /// # Errors
    /// As [`root`](Self::root), and [`backend`](Self::backend) for a state elsewhere.
    pub fn rescan_config(&self, engine: &Engine) -> Result<RescanConfig, StorageError> {
        let Parts { rescan, root, fallback_url, .. } = self.parts()?;
        let rescan = match (fallback_url, root) {
            (Some(url), Some(root)) => rescan.fallback(Arc::new(LocalBackend::new(url, root))),
            _ => rescan,
        };
        Ok(self.remote_state(engine)?.into_iter().fold(rescan, RescanConfig::state))
    }

    /// The state in the bucket; `None` if it is local.
    ///
    /// # Errors
    /// As [`root`](Self::root), and [`backend`](Self::backend) for a state elsewhere.
    pub fn remote_state(&self, engine: &Engine) -> Result<Option<RemoteState>, StorageError> {
        let parts = self.parts()?;
        self.check_state(&parts)?;
        let url = match parts.place {
            StatePlace::Local => return Ok(None),
            StatePlace::Bucket => return Ok(Some(parts.remote)),
            StatePlace::At(url) => url,
        };
        let backend = self.state_backend(engine, &url)?;
        Ok(Some(backend.into_iter().fold(parts.remote, |state, backend| state.at(backend))))
    }

    /// Refuses settings that have no meaning while the state is local.
    fn check_state(&self, parts: &Parts) -> Result<(), StorageError> {
        match parts.needs_state.filter(|_| parts.place == StatePlace::Local) {
            None => Ok(()),
            Some(name) => {
                let why = "it needs the state in the bucket: set state to bucket or s3://BUCKET/PREFIX";
                Err(self.explain(StorageError::config(name, why)))
            }
        }
    }

    /// Makes the backend of a state at another URL, with the same connection and credentials; `None` if the URL is that of
    /// the destination itself.
    fn state_backend(&self, engine: &Engine, url: &str) -> Result<Option<Arc<S3Backend>>, StorageError> {
        let is_wrong = |error: StorageError| StorageError::config("state", error.message());
        let config = self.filled()?;
        let (bucket, prefix) = split_url(url).map_err(is_wrong)?;
        let mut parts = config.parts()?;
        let own = s3_config(&parts)?.address()?.destination();
        bucket.clone_into(&mut parts.bucket);
        parts.s3(|s3| s3.bucket_prefix(prefix));
        let s3 = s3_config(&parts)?;
        if s3.address().map_err(is_wrong)?.destination() == own {
            return Ok(None);
        }
        S3Backend::new(engine, config.with_credentials(s3)?).map(|backend| Some(Arc::new(backend)))
    }

    /// Returns this configuration with what the environment adds, if `credentials` names that.
    fn filled(&self) -> Result<Self, StorageError> {
        let mut config = self.clone();
        if self.parts()?.source != CredentialSource::Keys {
            config.fill_from_env()?;
        }
        Ok(config)
    }

    /// Returns the credentials, from where `credentials` says.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names what is missing; those of the place that has them.
    pub fn credentials(&self) -> Result<Credentials, StorageError> {
        let source = self.parts()?.source;
        if source != CredentialSource::Keys && KEYS.iter().any(|name| self.is_set(name)) {
            let why = "keys are given, too: leave out one of both";
            return Err(self.explain(StorageError::config("credentials", why)));
        }
        match source {
            CredentialSource::Keys => self.keys(),
            CredentialSource::Environment => self.aws_environment()?.credentials(),
            CredentialSource::Chain => self.chain()?.credentials(),
        }
    }

    fn chain(&self) -> Result<CredentialChain, StorageError> {
        Ok(CredentialChain::new(self.aws_environment()?).network(self.parts()?.network))
    }

    /// Adds the credentials, and the function that renews them if they may change.
    fn with_credentials(&self, s3: S3Config) -> Result<S3Config, StorageError> {
        let s3 = s3.credentials(self.credentials()?);
        let may_change =
            self.parts()?.source != CredentialSource::Keys || KEYS.iter().any(|name| self.is_elsewhere(name));
        let config = self.clone();
        Ok(if may_change { s3.renew_credentials(move || config.credentials()) } else { s3 })
    }

    /// Reads the keys that are given.
    fn keys(&self) -> Result<Credentials, StorageError> {
        let needed = |name: &'static str| {
            let why = "missing: set access_key_id and secret_access_key, or credentials to chain";
            self.text(name)?.ok_or_else(|| StorageError::config(name, why))
        };
        let keys = Credentials::new(needed("access_key_id")?.as_str(), needed("secret_access_key")?.as_str());
        Ok(match self.text("session_token")? {
            Some(token) => keys.with_session_token(token.as_str()),
            None => keys,
        })
    }
}

/// Returns the configuration of the S3 backend without credentials.
fn s3_config(parts: &Parts) -> Result<S3Config, StorageError> {
    if parts.bucket.is_empty() {
        return Err(missing("bucket", "the bucket to publish to"));
    }
    let network = match (&parts.client_certificate, &parts.client_key) {
        (Some(certificate), key) => {
            parts.network.clone().client_certificate(certificate, key.as_ref().unwrap_or(certificate))
        }
        (None, Some(_)) => return Err(missing("client_certificate", "the certificate of client_key")),
        (None, None) => parts.network.clone(),
    };
    Ok(parts.s3.clone().with_bucket(&parts.bucket).retry(parts.retry).network(network))
}

fn missing(name: &str, what: &str) -> StorageError {
    StorageError::config(name, format!("missing: set it to {what}"))
}
