//! A destination of a command: its configuration, its connection and its cache.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bucket_brigade::{
    CacheManager, CancelToken, Config, Engine, ErrorKind, Operation, S3Address, S3Backend, StorageError,
};
use sha2::{Digest as _, Sha256};

use crate::{targets, text};

/// Characters of the destination that are kept in the name of its cache.
const NAME_LENGTH: usize = 64;

/// Interval at which a command that waits for the lock checks whether it was stopped.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A destination, from its configuration and the environment.
pub(crate) struct Destination {
    pub(crate) config: Config,
    pub(crate) address: S3Address,
    pub(crate) cache_path: PathBuf,
    /// Its name in the configuration file, or its URL.
    pub(crate) label: String,
    quiet: bool,
}

impl Destination {
    /// Reads the settings, but no credentials. Sends no request.
    pub(crate) fn new(mut config: Config, command: &'static str, quiet: bool) -> Result<Self, StorageError> {
        // A value for another command may stand in a variable that is not there.
        config.keep_for(command);
        config.resolve()?;
        targets::add_publisher(&mut config)?;
        let address = config.address()?;
        let cache_path = match config.cache_path()? {
            Some(path) => path,
            None => state_folder(&|name| std::env::var_os(name))?.join(cache_name(&address.destination())),
        };
        config.set_from("cache", &cache_path, "default of the command")?;
        let label = label_of(&config);
        Ok(Self { config, address, cache_path, label, quiet })
    }

    /// Opens the cache for writing, and creates it if it does not exist. Waits up to `lock_wait` for another run.
    pub(crate) fn open_cache(&self, stop: &CancelToken) -> Result<CacheManager, StorageError> {
        let wait = self.config.lock_wait()?;
        let (began, mut is_noted) = (Instant::now(), self.quiet);
        loop {
            let left = wait.saturating_sub(began.elapsed());
            let locked = match CacheManager::open_waiting(&self.cache_path, left.min(POLL_INTERVAL)) {
                Err(locked) if locked.kind() == ErrorKind::CacheLocked => locked,
                other => return other,
            };
            let wait = humantime::format_duration(wait);
            if left.is_zero() {
                let why = format!("another run has locked this cache; waited {wait}");
                return Err(self.cache_error(locked.kind(), &why));
            }
            if stop.is_cancelled() {
                let why = "stopped while waiting for the run that has locked this cache";
                return Err(self.cache_error(ErrorKind::Cancelled, why));
            }
            if !std::mem::replace(&mut is_noted, true) {
                text::print_note(&format!(
                    "waiting up to {wait} for the run that has locked {}",
                    self.cache_path.display()
                ));
            }
        }
    }

    /// Opens the cache for reading, if it exists. Does not lock out a run that writes it.
    pub(crate) fn read_cache(&self) -> Result<Option<CacheManager>, StorageError> {
        if self.has_cache()? { CacheManager::open_read_only(&self.cache_path).map(Some) } else { Ok(None) }
    }

    /// Returns true if the path of the cache exists, whatever is there.
    pub(crate) fn has_cache(&self) -> Result<bool, StorageError> {
        match fs::symlink_metadata(&self.cache_path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(self.cache_error(ErrorKind::Cache, "cannot check whether it exists").with_source(error))
            }
        }
    }

    /// Refuses a cache inside the published directory: it would be published itself, and change with every run.
    /// Creates nothing.
    pub(crate) fn refuse_cache_inside(&self, dir: &Path) -> Result<(), StorageError> {
        refuse_inside(dir, &self.cache_path, "cache")
    }

    fn cache_error(&self, kind: ErrorKind, why: &str) -> StorageError {
        StorageError::new(kind, Operation::Cache, why).with_path(&self.cache_path)
    }

    /// Starts the workers and sets up the store, with credentials.
    pub(crate) fn connect(&self) -> Result<(Engine, Arc<S3Backend>), StorageError> {
        let engine = self.config.engine()?;
        let backend = self.config.backend(&engine)?;
        Ok((engine, backend))
    }

    /// The same with placeholder credentials, for commands that send no request.
    pub(crate) fn connect_offline(&self) -> Result<(Engine, Arc<S3Backend>), StorageError> {
        let engine = self.config.engine()?;
        let backend = self.config.backend_without_credentials(&engine)?;
        Ok((engine, backend))
    }
}

/// Returns the name of a destination in the configuration file, or `s3://BUCKET/PREFIX`.
pub(crate) fn label_of(config: &Config) -> String {
    if let Some(name) = config.name() {
        return name.to_owned();
    }
    let part = |name| config.get(name).unwrap_or_default();
    let (bucket, prefix) = (part("bucket"), part("prefix"));
    if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") }
}

/// Refuses a file of ours inside the published directory, named by its flag.
pub(crate) fn refuse_inside(dir: &Path, path: &Path, flag: &str) -> Result<(), StorageError> {
    let (root, cache) = (fs::canonicalize(dir), resolve_path(path));
    let (Ok(root), Ok(cache)) = (root, cache) else {
        // The error is reported when they are opened.
        return Ok(());
    };
    if !cache.starts_with(&root) {
        return Ok(());
    }
    let (cache, root) = (cache.display(), root.display());
    let why = format!("{cache} is inside DIR ({root}) and would be published: use a --{flag} outside of it");
    Err(StorageError::config(flag, why))
}

/// Returns the cache, or the error that it does not exist.
pub(crate) fn require_cache(
    cache: Option<CacheManager>,
    destination: &Destination,
) -> Result<CacheManager, StorageError> {
    cache.ok_or_else(|| {
        let why = "does not exist: nothing was published from here, or --cache must name another file";
        StorageError::new(ErrorKind::Config, Operation::Cache, why).with_path(&destination.cache_path)
    })
}

/// Returns the directory of the caches, below `XDG_STATE_HOME` or `~/.local/state`.
fn state_folder(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, StorageError> {
    let path = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification tells to ignore a relative path.
    let given = path("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let base = given.or_else(|| path("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("brigade")).ok_or_else(|| {
        let why = "neither XDG_STATE_HOME nor HOME is set: set one, or use --cache FILE";
        StorageError::config("cache", why)
    })
}

/// Resolves a path as `canonicalize` does, but its last components need not exist.
fn resolve_path(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let parts: Vec<_> = path.components().collect();
    // Resolve the longest prefix that exists, and append the rest.
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

/// Returns the file name of a destination's cache: readable, and unique by a hash.
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
