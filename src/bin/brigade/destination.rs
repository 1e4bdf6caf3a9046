//! A destination: how it is reached, what its URLs are, and where the record of it lies.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket_brigade::{
    AwsEnvironment, CacheManager, CancelToken, Credentials, Engine, EngineConfig, ErrorKind, Operation,
    RetryPolicy, S3Address, S3Backend, S3Config, StorageError,
};
use sha2::{Digest as _, Sha256};

use crate::args::{DestinationArgs, SpeedArgs};
use crate::text;

/// Characters of a bucket's and a prefix's name that are kept in a cache's.
const NAME_LENGTH: usize = 64;

/// Whoever waits for a lock looks this often whether it was stopped.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Where a command publishes to, from its arguments and the environment.
pub(crate) struct Destination {
    config: S3Config,
    pub(crate) address: S3Address,
    pub(crate) cache_path: PathBuf,
    profile: Option<String>,
    quiet: bool,
}

impl Destination {
    /// Reads no credentials and sends nothing.
    pub(crate) fn find(args: &DestinationArgs) -> Result<Self, StorageError> {
        let connection = &args.connection;
        let aws = environment(connection.profile.as_deref());
        let mut config = S3Config::for_url(&args.dest)?;
        if let Some(endpoint) = given_or(connection.endpoint_url.as_ref(), || aws.endpoint_url())? {
            config = config.endpoint(endpoint);
        }
        if let Some(region) = given_or(connection.region.as_ref(), || aws.region())? {
            config = config.region(region);
        }
        if let Some(path) = given_or(connection.ca_file.as_ref(), || aws.ca_bundle())? {
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
            None => state_folder(&|name| std::env::var_os(name))?.join(cache_name(&address.destination())),
        };
        Ok(Self {
            config,
            address,
            cache_path,
            profile: connection.profile.clone(),
            quiet: args.output.quiet,
        })
    }

    /// Opens the cache for writing, which is created if it is not there. Waits for another run to end.
    pub(crate) fn open_cache(
        &self,
        wait: Duration,
        stop: &CancelToken,
    ) -> Result<CacheManager, StorageError> {
        let (began, mut told) = (Instant::now(), self.quiet);
        loop {
            let left = wait.saturating_sub(began.elapsed());
            let held = match CacheManager::open_waiting(&self.cache_path, left.min(LOOK_EVERY)) {
                Err(held) if held.kind() == ErrorKind::CacheLocked => held,
                other => return other,
            };
            let wait = humantime::format_duration(wait);
            if left.is_zero() {
                return Err(self.failed(held.kind(), &format!("another run holds this cache; waited {wait}")));
            }
            if stop.is_cancelled() {
                return Err(self.failed(ErrorKind::Cancelled, "stopped while another run held this cache"));
            }
            if !std::mem::replace(&mut told, true) {
                text::note(&format!(
                    "waiting up to {wait} for the run that holds {}",
                    self.cache_path.display()
                ));
            }
        }
    }

    /// Opens the cache for reading, if there is one: whoever writes it is not hindered.
    pub(crate) fn read_cache(&self) -> Result<Option<CacheManager>, StorageError> {
        if self.has_cache()? { CacheManager::open_read_only(&self.cache_path).map(Some) } else { Ok(None) }
    }

    /// Whether there is a cache, or anything else in its place.
    pub(crate) fn has_cache(&self) -> Result<bool, StorageError> {
        match fs::symlink_metadata(&self.cache_path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed(ErrorKind::Cache, "it cannot be looked at").with_source(error)),
        }
    }

    /// A cache in the directory that is published would be published itself, and change with every run. Nothing is
    /// made to find out.
    pub(crate) fn refuse_cache_inside(&self, dir: &Path) -> Result<(), StorageError> {
        let (root, cache) = (fs::canonicalize(dir), led_to(&self.cache_path));
        let (Ok(root), Ok(cache)) = (root, cache) else {
            // Whoever opens them says why.
            return Ok(());
        };
        if !cache.starts_with(&root) {
            return Ok(());
        }
        let (cache, root) = (cache.display(), root.display());
        let why = format!("{cache} lies inside the root {root}: it would be published");
        Err(StorageError::config("cache", why))
    }

    fn failed(&self, kind: ErrorKind, why: &str) -> StorageError {
        StorageError::new(kind, Operation::Cache, why).with_path(&self.cache_path)
    }

    /// The workers, and the store with the credentials of the environment.
    pub(crate) fn connect(
        &self,
        speed: &SpeedArgs,
        headers: &[(String, String)],
    ) -> Result<(Engine, Arc<S3Backend>), StorageError> {
        let aws = environment(self.profile.as_deref());
        let find = move || aws.credentials();
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

/// Without a cache nothing is known of the bucket.
pub(crate) fn must_be_there(
    cache: Option<CacheManager>,
    destination: &Destination,
) -> Result<CacheManager, StorageError> {
    cache.ok_or_else(|| {
        let why = "there is no such cache: nothing was published from here, or it lies elsewhere (--cache)";
        StorageError::new(ErrorKind::Config, Operation::Cache, why).with_path(&destination.cache_path)
    })
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

fn environment(profile: Option<&str>) -> AwsEnvironment {
    profile.into_iter().fold(AwsEnvironment::from_env(), AwsEnvironment::profile)
}

/// Where records of what is published are kept: below `XDG_STATE_HOME`, or `~/.local/state`.
fn state_folder(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, StorageError> {
    let path = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let given = path("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let base = given.or_else(|| path("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("brigade")).ok_or_else(|| {
        let why = "neither XDG_STATE_HOME nor HOME is set: say with --cache where it is kept";
        StorageError::config("cache", why)
    })
}

fn given_or<T: Clone>(
    given: Option<&T>,
    other: impl FnOnce() -> Result<Option<T>, StorageError>,
) -> Result<Option<T>, StorageError> {
    if let Some(given) = given { Ok(Some(given.clone())) } else { other() }
}

/// Where a path leads, of which the end need not be there.
fn led_to(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let parts: Vec<_> = path.components().collect();
    for count in (0..=parts.len()).rev() {
        match fs::canonicalize(parts[..count].iter().collect::<PathBuf>()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(mut there) => {
                for part in &parts[count..] {
                    match part {
                        Component::ParentDir => drop(there.pop()),
                        other => there.push(other),
                    }
                }
                return Ok(there);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
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
    fn the_state_folder_is_below_xdg_state_home_or_home() {
        let folder = |variables: &'static [(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(other, _)| *other == name);
            state_folder(&|name| find(name).map(|(_, value)| OsString::from(value)))
        };
        assert_eq!(folder(&[("HOME", "/home/a")]).unwrap(), PathBuf::from("/home/a/.local/state/brigade"));
        let both = folder(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/var/state")]);
        assert_eq!(both.unwrap(), PathBuf::from("/var/state/brigade"));
        assert!(folder(&[]).unwrap_err().message().contains("--cache"));
    }

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
