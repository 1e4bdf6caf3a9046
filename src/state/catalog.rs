//! The catalog: the published files, in an immutable file that any number of processes read at once.
//!
//! # Architecture
//!
//! - [`Catalog`]: the reader. It shares one `Opened` with its clones; [`refresh`](Catalog::refresh) replaces it.
//! - `file::Opened`: one version of the file, verified and mapped into memory. It owns the mapping.
//! - `keys::Keys`: the index from key to record number (an FST), which lies in the mapping. `keys::Walk` lists it.
//! - `format`: the bytes of head, records and tail; pure functions.
//! - `write`: the writer, called at the end of a run with the cache locked.
//!
//! The cache has one writer, and all other processes read its catalog, without a lock. A new version is written to a
//! temporary file, synced, and renamed over the old one. So a reader sees one complete version or another, and a file
//! with the catalog's name never changes.

mod file;
#[forbid(unsafe_code)]
mod format;
#[forbid(unsafe_code)]
mod keys;
#[forbid(unsafe_code)]
pub(crate) mod origin;
#[forbid(unsafe_code)]
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::StorageBackend;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::url_below;
use crate::state::cache::CacheManager;
use crate::state::cache::binding::foreign;
use crate::state::catalog::file::{Identity, Opened, flaw_error, read_error};
use crate::state::catalog::format::{Base, Flaw, Tail};
use crate::state::catalog::keys::Walk;
use crate::state::catalog::write::Bases;
pub(crate) use crate::state::catalog::write::{follow, update};
use crate::state::resolve::{Known, Places, Resolved, Urls};
use crate::state::summary::{CacheSummary, PendingFile};
use crate::tree::version::moment_of;

/// The suffix that makes a cache's path the path of its catalog.
const SUFFIX: &str = ".catalog";

/// The published files as the last rescan left them: an immutable, memory-mapped file next to the cache, which any
/// number of threads and processes read without a lock. The processes share its pages in memory.
///
/// A rescan writes a new version if something changed ([`RescanConfig::catalog`](crate::RescanConfig::catalog)), and so
/// does a verification that found something. [`refresh`](Self::refresh) switches to the new version. Clones are cheap
/// and share the mapping; each keeps its version until it is refreshed itself. A catalog may be inherited across
/// `fork`, because nothing in it changes.
///
/// The checksum detects accidental damage. A file that was forged may have a right checksum: an entry that turns out to
/// be malformed then counts as missing, [`is_damaged`](Self::is_damaged) and [`refresh`](Self::refresh) report it, and
/// the next rescan writes the file again. Reading such an entry may call the host's panic hook; the panic is caught.
///
/// ```no_run
/// use bucket_brigade::Catalog;
/// let mut catalog = Catalog::open("/var/lib/site/cache.catalog")?;
/// if let Some(file) = catalog.get("index.html") {
///     println!("{} ({} bytes)", file.url, file.size.unwrap_or(0));
/// }
/// if catalog.refresh()? {
///     println!("{} keys now", catalog.len());
/// }
/// # Ok::<(), bucket_brigade::StorageError>(())
/// ```
#[derive(Clone)]
pub struct Catalog {
    path: PathBuf,
    /// The backends to ask for URLs, if these are not a base URL and the key.
    places: Option<Places>,
    opened: Arc<Opened>,
}

impl Catalog {
    /// The path of a cache's catalog: `CACHE.catalog`.
    pub fn path_for(cache: impl AsRef<Path>) -> PathBuf {
        path_for(cache.as_ref())
    }

    /// Writes the catalog of a cache (mode 0444), replaces an existing one, and returns its path. A rescan does this
    /// by itself. Takes about 1.2 s for a million keys; memory does not grow with their number.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] while a rescan of this process is using the cache; [`ErrorKind::Config`] if neither
    /// an orchestrator nor [`CacheManager::use_urls_of`] has given the cache its URLs; [`ErrorKind::Cache`] if the
    /// cache cannot be read or the catalog cannot be written: the old catalog then stays.
    pub fn write(cache: &CacheManager) -> Result<PathBuf, StorageError> {
        let _lock = cache.lock()?;
        write::write(cache, Bases::of(cache.places()?), SystemTime::now())
    }

    /// Maps a catalog and verifies its checksum: about 6 ms for a million keys (`cargo bench --bench catalog`).
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if it is missing or cannot be read, [`ErrorKind::CacheDamaged`] if it is not a catalog, is
    /// damaged or was written by a newer version, [`ErrorKind::Unsupported`] if the URLs of its backend are not
    /// a base URL and the key: see [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self { places: None, opened: Arc::new(Opened::open(path.as_ref())?), path: path.as_ref().to_owned() }
            .require_plain_urls()
    }

    /// Opens a catalog and takes all URLs from these backends, not from the file.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for the last one.
    pub fn open_with(
        path: impl AsRef<Path>,
        store: Arc<dyn StorageBackend>,
        fallback: Option<Arc<dyn StorageBackend>>,
    ) -> Result<Self, StorageError> {
        let opened = Arc::new(Opened::open(path.as_ref())?);
        Ok(Self { places: Some(Places { store, fallback }), opened, path: path.as_ref().to_owned() })
    }

    /// Fails if URLs can be had from a backend only, and none was given.
    fn require_plain_urls(self) -> Result<Self, StorageError> {
        let Tail { store, fallback, .. } = &self.opened.tail;
        // Backends that were given make all URLs themselves.
        if self.places.is_some() || (store.plain && fallback.as_ref().is_none_or(|base| base.plain)) {
            return Ok(self);
        }
        let why = "the URLs of its backend are not a base URL and the key: use open_with";
        Err(StorageError::new(ErrorKind::Unsupported, Operation::Cache, why).with_path(&self.path))
    }

    /// Checks with one `stat` for a newer version and maps it; returns true if there was one. On an error the current
    /// version stays.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::CacheDamaged`] while the current version is
    /// [damaged](Self::is_damaged).
    pub fn refresh(&mut self) -> Result<bool, StorageError> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| read_error(&self.path, error))?;
        if Identity::of(&metadata) == self.opened.identity {
            // The same damaged file: an error, until somebody replaces it.
            return if self.is_damaged() { Err(flaw_error(&self.path, Flaw::Damaged)) } else { Ok(false) };
        }
        let opened = Arc::new(Opened::open(&self.path)?);
        *self = Self { opened, ..self.clone() }.require_plain_urls()?;
        Ok(true)
    }

    /// Returns the URL to read a key from now; `None` if it is neither published nor on disk. Like
    /// [`CacheManager::resolve`], but takes no lock and allocates nothing but the URL.
    pub fn get(&self, key: &str) -> Option<Resolved> {
        let number = self.opened.keys.record_number(key)?;
        self.resolved(key, &self.opened.known(number)?)
    }

    fn resolved(&self, key: &str, known: &Known) -> Option<Resolved> {
        match &self.places {
            None => known.resolved(key, &self.opened.tail),
            Some(places) => known.resolved(key, places),
        }
    }

    /// Iterates over all keys that are published or on disk, in byte order.
    pub fn iter(&self) -> Entries<'_> {
        self.prefix("")
    }

    /// Iterates over the keys that start with `prefix`, in byte order.
    pub fn prefix(&self, prefix: &str) -> Entries<'_> {
        Entries { catalog: self, prefix: prefix.to_owned(), keys: self.opened.keys.walk(prefix) }
    }

    /// The files that were pending when the catalog was written, in key order. Reads every key.
    pub fn pending(&self) -> Vec<PendingFile> {
        let mut keys = self.opened.keys.walk("");
        let mut pending = Vec::new();
        while let Some((key, number)) = keys.next_key() {
            if let Some(Known { pending: Some((kind, facts)), .. }) = self.opened.known(number) {
                let key = String::from_utf8_lossy(key).into_owned();
                pending.push(PendingFile { key, kind, size: facts.size });
            }
        }
        pending
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.opened.keys.len()
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The summary of the cache from when the catalog was written.
    pub fn summary(&self) -> CacheSummary {
        let Tail { destination, published, published_bytes, pending, open_uploads, synced, .. } =
            self.opened.tail.clone();
        CacheSummary { destination, published, published_bytes, pending, open_uploads, synced }
    }

    /// Checks that this is the catalog of the given destination ([`StorageBackend::destination`]).
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if it belongs to another one.
    pub fn check_destination(&self, destination: &str) -> Result<(), StorageError> {
        match &self.opened.tail.destination {
            Some(bound) if bound != destination => Err(foreign(&self.path, bound, destination)),
            // `None` is fine, too: that cache has published nothing yet.
            _ => Ok(()),
        }
    }

    /// Returns true if this is the catalog that was last written for the cache, and the cache has not changed since.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the cache cannot be read.
    pub fn is_current(&self, cache: &CacheManager) -> Result<bool, StorageError> {
        let is_its_own = cache.is_its_catalog(self.opened.head.checksum)?;
        Ok(is_its_own && write::is_up_to_date(&self.opened.tail, cache)?)
    }

    /// The time at which it was written.
    pub fn created(&self) -> SystemTime {
        moment_of(self.opened.tail.created)
    }

    /// Returns true if an access of this version, or of a clone of it, found damage; its answer may have been
    /// incomplete. Delete the file, or let the next rescan write it again.
    pub fn is_damaged(&self) -> bool {
        self.opened.keys.is_damaged()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("path", &self.path).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a Catalog {
    type Item = (String, Resolved);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// An iterator over keys of a [`Catalog`] and their URLs, in byte order.
pub struct Entries<'a> {
    catalog: &'a Catalog,
    prefix: String,
    keys: Walk<'a>,
}

impl Iterator for Entries<'_> {
    type Item = (String, Resolved);

    fn next(&mut self) -> Option<Self::Item> {
        let opened = &self.catalog.opened;
        loop {
            // Damage ends the iteration, here and below; whoever finds it marks the catalog.
            let (key, number) = self.keys.next_key()?;
            // Keys are written from UTF-8, so any other bytes are damage.
            let Ok(key) = std::str::from_utf8(key) else {
                return opened.keys.note_damage();
            };
            // A key without a URL, such as that of a removed file that was never published, is left out.
            if let Some(resolved) = self.catalog.resolved(key, &opened.known(number)?) {
                return Some((key.to_owned(), resolved));
            }
        }
    }
}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entries").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Urls for Tail {
    fn store(&self, key: &str) -> String {
        url_below(&self.store.url, key)
    }

    fn fallback(&self, key: &str) -> Option<String> {
        self.fallback.as_ref().map(|Base { url, .. }| url_below(url, key))
    }
}

fn path_for(cache: &Path) -> PathBuf {
    let mut path = cache.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}
