//! The record of what is published, whoever holds it: the cache, or what its catalog said before the sync that runs now.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bucket_brigade::{
    CacheManager, CacheSummary, Catalog, ErrorKind, LocalBackend, PendingFile, Resolved, StorageBackend,
    StorageError,
};

use crate::place::Place;
use crate::text;

/// What is known of a destination.
pub(crate) enum Record {
    Cache(CacheManager),
    Catalog(Catalog),
    Nothing,
}

impl Record {
    /// With URLs as the flags say. While a sync holds the cache, the catalog of the last one answers; its
    /// age is noted. Where there is none, the error says that the cache is held.
    pub(crate) fn find(place: &Place, fallback_url: Option<&str>) -> Result<Self, StorageError> {
        let destination = place.address.destination();
        let store: Arc<dyn StorageBackend> = Arc::new(LocalBackend::new(place.address.get_url(""), "/"));
        let fallback =
            fallback_url.map(|url| Arc::new(LocalBackend::new(url, "/")) as Arc<dyn StorageBackend>);
        match place.existing_cache() {
            Ok(None) => Ok(Self::Nothing),
            Ok(Some(cache)) => {
                cache.check_destination(&destination)?;
                cache.use_urls_of(store, fallback);
                Ok(Self::Cache(cache))
            }
            Err(held) if held.kind() == ErrorKind::CacheLocked => {
                let path = Catalog::path_for(&place.cache_path);
                if !path.exists() {
                    return Err(held);
                }
                let catalog = Catalog::open_with(path, store, fallback)?;
                catalog.check_destination(&destination)?;
                let age = SystemTime::now().duration_since(catalog.created()).unwrap_or_default();
                let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
                text::note(&format!("a sync is running: this is what the last one left, {age} ago"));
                Ok(Self::Catalog(catalog))
            }
            Err(error) => Err(error),
        }
    }

    /// What it holds; `None` where there is nothing.
    pub(crate) fn contents(&self) -> Result<Option<(CacheSummary, Vec<PendingFile>)>, StorageError> {
        Ok(match self {
            Self::Cache(cache) => Some((cache.summary()?, cache.pending()?)),
            Self::Catalog(catalog) => Some((catalog.summary(), catalog.pending())),
            Self::Nothing => None,
        })
    }

    /// Where a key is to be read, if it is in there.
    pub(crate) fn resolve(&self, key: &str) -> Result<Option<Resolved>, StorageError> {
        match self {
            Self::Cache(cache) => cache.resolve(key),
            Self::Catalog(catalog) => Ok(catalog.get(key)),
            Self::Nothing => Ok(None),
        }
    }

    /// Every key, in order.
    pub(crate) fn entries(&self) -> Box<dyn Iterator<Item = Result<(String, Resolved), StorageError>> + '_> {
        match self {
            Self::Cache(cache) => Box::new(cache.entries()),
            Self::Catalog(catalog) => Box::new(catalog.iter().map(Ok)),
            Self::Nothing => Box::new(std::iter::empty()),
        }
    }
}
