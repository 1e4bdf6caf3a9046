//! A destination: how it is reached, what its URLs are, and where the record of it lies.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Credentials, Engine, EngineConfig, ErrorKind, Operation, RetryPolicy, S3Address, S3Backend,
    S3Config, StorageError,
};
use sha2::{Digest as _, Sha256};

use crate::args::{PlaceArgs, SpeedArgs};
use crate::environment::Environment;

/// Characters of a bucket's and a prefix's name that are kept in a cache's.
const NAME_LENGTH: usize = 64;

/// Where a command publishes to, from its arguments and the environment.
pub(crate) struct Place {
    config: S3Config,
    pub(crate) address: S3Address,
    pub(crate) cache_path: PathBuf,
    profile: Option<String>,
}

impl Place {
    /// Reads no credentials and sends nothing.
    pub(crate) fn find(args: &PlaceArgs) -> Result<Self, StorageError> {
        let connection = &args.connection;
        let environment = Environment::new(&variable, connection.profile.as_deref());
        let mut config = S3Config::for_url(&args.dest)?;
        if let Some(endpoint) = given_or(connection.endpoint_url.as_ref(), || environment.endpoint())? {
            config = config.endpoint(endpoint);
        }
        if let Some(region) = given_or(connection.region.as_ref(), || environment.region())? {
            config = config.region(region);
        }
        if let Some(path) = given_or(connection.ca_file.as_ref(), || environment.ca_file())? {
            config = config.ca_file(path);
        }
        if let Some(url) = &connection.public_url {
            config = config.public_url(url);
        }
        if connection.virtual_host {
            config = config.path_style(false);
        }
        let address = config.address()?;
        let cache_path = match &args.cache {
            Some(path) => path.clone(),
            None => environment.state_folder()?.join(cache_name(&address.destination())),
        };
        Ok(Self { config, address, cache_path, profile: connection.profile.clone() })
    }

    /// Opens the cache, which is created if it is not there.
    pub(crate) fn open_cache(&self) -> Result<CacheManager, StorageError> {
        CacheManager::open(&self.cache_path)
    }

    /// The cache, if there is one.
    pub(crate) fn existing_cache(&self) -> Result<Option<CacheManager>, StorageError> {
        match self.cache_path.try_exists() {
            Ok(true) => self.open_cache().map(Some),
            Ok(false) => Ok(None),
            Err(error) => {
                Err(StorageError::new(ErrorKind::Cache, Operation::Cache, "it cannot be looked at")
                    .with_path(&self.cache_path)
                    .with_source(error))
            }
        }
    }

    /// The workers, and the store with the credentials of the environment.
    pub(crate) fn connect(
        &self,
        speed: &SpeedArgs,
        headers: &[(String, String)],
    ) -> Result<(Engine, Arc<S3Backend>), StorageError> {
        let profile = self.profile.clone();
        let find = move || Environment::new(&variable, profile.as_deref()).credentials();
        let config = self.config.clone().credentials(find()?).renew_credentials(find);
        connect_with(config, speed, headers)
    }

    /// The same for work that sends nothing: with nobody's credentials.
    pub(crate) fn connect_for_nothing(
        &self,
        speed: &SpeedArgs,
        headers: &[(String, String)],
    ) -> Result<(Engine, Arc<S3Backend>), StorageError> {
        connect_with(self.config.clone().credentials(Credentials::new("nobody", "nothing")), speed, headers)
    }
}

fn connect_with(
    config: S3Config,
    speed: &SpeedArgs,
    headers: &[(String, String)],
) -> Result<(Engine, Arc<S3Backend>), StorageError> {
    let engine = EngineConfig::new().workers(speed.batch_size).build()?;
    let mut config = config
        .chunk_size(usize::try_from(speed.chunk_size.as_u64()).unwrap_or(usize::MAX))
        .part_size(speed.part_size.as_u64())
        .part_threshold(speed.part_threshold.as_u64())
        .retry(RetryPolicy::default().with_attempts(speed.retries.saturating_add(1)));
    for (name, value) in headers {
        config = config.header(name, value);
    }
    let backend = Arc::new(S3Backend::new(&engine, config)?);
    Ok((engine, backend))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

fn given_or<T: Clone>(
    given: Option<&T>,
    other: impl FnOnce() -> Result<Option<T>, StorageError>,
) -> Result<Option<T>, StorageError> {
    if let Some(given) = given { Ok(Some(given.clone())) } else { other() }
}

/// One name for one destination, which a person can tell from others.
fn cache_name(destination: &str) -> String {
    let readable: String = destination
        .trim_start_matches("s3://")
        .trim_end_matches('/')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' })
        .take(NAME_LENGTH)
        .collect();
    let unique = hex::encode(&Sha256::digest(destination)[..6]);
    format!("{readable}-{unique}.cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_of_different_destinations_have_different_names() {
        let a = cache_name("s3://h:9000/b/a/x/");
        assert!(
            a.starts_with("h_9000_b_a_x-") && a.len() == "h_9000_b_a_x-".len() + 12 + ".cache".len(),
            "{a}"
        );
        assert_ne!(a, cache_name("s3://h:9000/b/a_x/"));
        assert!(cache_name(&format!("s3://b/{}", "é/".repeat(500))).len() < 100);
    }
}
