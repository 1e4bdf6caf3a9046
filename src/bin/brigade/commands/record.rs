//! The record of what is published: the cache, or the catalog where that says the same or is all that can be read.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket_brigade::{
    CacheManager, CacheSummary, Catalog, ErrorKind, LocalBackend, Operation, PendingFile, Resolved,
    StorageBackend, StorageError,
};

use crate::destination::Destination;
use crate::{exit, text};

/// What is known of a destination.
pub(crate) enum Record {
    Cache(CacheManager),
    Catalog(Catalog),
    Nothing,
}

impl Record {
    /// With URLs as the flags say. Nobody who writes the cache is hindered. Where it cannot be read, the catalog
    /// of the last sync answers, and its age is noted.
    pub(crate) fn find(destination: &Destination, fallback_url: Option<&str>) -> Result<Self, StorageError> {
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
                // It says the same, and need not be read from its beginning to its end.
                match catalog {
                    Ok(catalog) if catalog.is_current(&cache)? => Ok(Self::Catalog(catalog)),
                    _ => Ok(Self::Cache(cache)),
                }
            }
            (Err(error), Ok(catalog)) if is_kept_from_us(&error) => {
                catalog.check_destination(&bound_to)?;
                let age = SystemTime::now().duration_since(catalog.created()).unwrap_or_default();
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                text::note(&format!("{error}: this is what the last sync left, {age} ago"));
                Ok(Self::Catalog(catalog))
            }
            (Err(error), _) => Err(error),
        }
    }

    /// What it holds; `None` where there is nothing.
    pub(crate) fn contents(&self) -> Result<Option<(CacheSummary, Vec<PendingFile>)>, StorageError> {
        Ok(match self {
            Self::Cache(cache) => Some((cache.summary()?, cache.pending()?)),
            Self::Catalog(catalog) => {
                let contents = (catalog.summary(), catalog.pending());
                undamaged(catalog)?;
                Some(contents)
            }
            Self::Nothing => None,
        })
    }

    /// Where a key is to be read, if it is in there.
    pub(crate) fn resolve(&self, key: &str) -> Result<Option<Resolved>, StorageError> {
        match self {
            Self::Cache(cache) => cache.resolve(key),
            Self::Catalog(catalog) => {
                let found = catalog.get(key);
                undamaged(catalog).map(|()| found)
            }
            Self::Nothing => Ok(None),
        }
    }

    /// Every key, in order.
    pub(crate) fn entries(&self) -> Box<dyn Iterator<Item = Result<(String, Resolved), StorageError>> + '_> {
        match self {
            Self::Cache(cache) => Box::new(cache.entries()),
            Self::Catalog(catalog) => {
                let damage = std::iter::once_with(|| undamaged(catalog).err());
                Box::new(catalog.iter().map(Ok).chain(damage.flatten().map(Err)))
            }
            Self::Nothing => Box::new(std::iter::empty()),
        }
    }
}

/// Whether the cache is there and may only not be read by us, or not now.
fn is_kept_from_us(error: &StorageError) -> bool {
    let forbidden = exit::cause(error).is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied);
    error.kind() == ErrorKind::CacheLocked || (error.kind() == ErrorKind::Cache && forbidden)
}

fn undamaged(catalog: &Catalog) -> Result<(), StorageError> {
    if !catalog.is_damaged() {
        return Ok(());
    }
    let why = "it is damaged: delete it; the next sync writes it anew";
    Err(StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(catalog.path()))
}
