//! The record of what is published, for commands that only read: the cache, or its catalog where that is current
//! or all that can be read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket_brigade::{
    CacheManager, CacheSummary, Catalog, ErrorKind, LocalBackend, Operation, PendingFile, Resolved,
    StateReport, StorageBackend, StorageError,
};

use crate::destination::Destination;
use crate::{exit, text};

/// The source of what is known about a destination.
pub(crate) enum Record {
    Cache(CacheManager),
    /// With the cache, if that can be read.
    Catalog(Catalog, Option<CacheManager>),
    Nothing,
}

impl Record {
    /// Opens the record, with URLs as the flags set them. Does not lock out a run that writes the cache. If the cache
    /// cannot be read, the catalog of the last sync answers, and a note prints its age.
    pub(crate) fn open(destination: &Destination, fallback_url: Option<&str>) -> Result<Self, StorageError> {
        let bound_to = destination.address.destination();
        let store: Arc<dyn StorageBackend> =
            Arc::new(LocalBackend::new(destination.address.get_url(""), "/"));
        let fallback =
            fallback_url.map(|url| Arc::new(LocalBackend::new(url, "/")) as Arc<dyn StorageBackend>);
        let catalog =
            Catalog::open_with(Catalog::path_for(&destination.cache_path), store.clone(), fallback.clone());
        match (destination.read_cache(), catalog) {
            (Ok(None), _) => Ok(Self::Nothing),
            (Ok(Some(cache)), catalog) => {
                cache.check_destination(&bound_to)?;
                cache.use_urls_of(store, fallback);
                // A current catalog answers without a read of the whole cache.
                match catalog {
                    Ok(catalog) if catalog.is_current(&cache)? => Ok(Self::Catalog(catalog, Some(cache))),
                    _ => Ok(Self::Cache(cache)),
                }
            }
            (Err(error), Ok(catalog)) if is_inaccessible(&error) => {
                catalog.check_destination(&bound_to)?;
                let age = SystemTime::now().duration_since(catalog.created()).unwrap_or_default();
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                text::print_note(&format!("{error}; showing the state after the last sync, {age} ago"));
                Ok(Self::Catalog(catalog, None))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Returns the counts and the pending files; `None` if there is no record.
    pub(crate) fn contents(&self) -> Result<Option<(CacheSummary, Vec<PendingFile>)>, StorageError> {
        Ok(match self {
            Self::Cache(cache) => Some((cache.summary()?, cache.pending()?)),
            Self::Catalog(catalog, _) => {
                let contents = (catalog.summary(), catalog.pending());
                check_damage(catalog)?;
                Some(contents)
            }
            Self::Nothing => None,
        })
    }

    /// Returns what the cache knows of the state in the bucket; `None` if that is local, or not known.
    pub(crate) fn state(&self) -> Result<Option<StateReport>, StorageError> {
        match self {
            Self::Cache(cache) | Self::Catalog(_, Some(cache)) => cache.state(),
            Self::Catalog(_, None) | Self::Nothing => Ok(None),
        }
    }

    /// Returns where a key is to be read, if it is recorded.
    pub(crate) fn resolve(&self, key: &str) -> Result<Option<Resolved>, StorageError> {
        match self {
            Self::Cache(cache) => cache.resolve(key),
            Self::Catalog(catalog, _) => {
                let found = catalog.get(key);
                check_damage(catalog).map(|()| found)
            }
            Self::Nothing => Ok(None),
        }
    }

    /// Iterates over all keys, in order.
    pub(crate) fn entries(&self) -> Box<dyn Iterator<Item = Result<(String, Resolved), StorageError>> + '_> {
        match self {
            Self::Cache(cache) => Box::new(cache.entries()),
            Self::Catalog(catalog, _) => {
                // The iterator leaves out what is damaged: without this error, the list would look complete.
                let damage = std::iter::once_with(|| check_damage(catalog).err());
                Box::new(catalog.iter().map(Ok).chain(damage.flatten().map(Err)))
            }
            Self::Nothing => Box::new(std::iter::empty()),
        }
    }
}

/// Returns true if the cache exists and only we cannot read it, or not now.
fn is_inaccessible(error: &StorageError) -> bool {
    let forbidden =
        exit::os_error(error).is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    error.kind() == ErrorKind::CacheLocked || (error.kind() == ErrorKind::Cache && forbidden)
}

fn check_damage(catalog: &Catalog) -> Result<(), StorageError> {
    if !catalog.is_damaged() {
        return Ok(());
    }
    let why = "the catalog is damaged: delete it, and the next sync writes a new one";
    Err(StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(catalog.path()))
}
