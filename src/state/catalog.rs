//! The catalog: what is published, in an immutable file that any number of processes read at once.
//!
//! The cache has one writer; its catalog is what all others read without a lock. It is written anew where something changed and
//! takes the old one's place by a rename, so that a reader has one whole version or another. A file that has the
//! name was finished and synced before, and is never changed in place.

mod file;
mod format;
mod keys;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::backend::StorageBackend;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::url_below;
use crate::state::cache::binding::foreign;
use crate::state::cache::{CacheManager, PendingFile};
use crate::state::catalog::file::{Identity, Opened, flawed, unreadable};
use crate::state::catalog::format::{Base, Flaw, Tail};
use crate::state::catalog::keys::Walk;
use crate::state::catalog::write::Bases;
pub(crate) use crate::state::catalog::write::{follow, update};
use crate::state::resolve::{Known, Places, Resolved, Urls};
use crate::state::summary::CacheSummary;
use crate::tree::version::moment_of;

/// The name of a cache's catalog is the cache's and this.
const SUFFIX: &str = ".catalog";

/// What is published, as the last rescan left it: an immutable, memory-mapped file beside the cache, that any number
/// of threads and processes read without a lock. The processes share its pages in memory.
///
/// A rescan writes it where something changed ([`RescanConfig::catalog`](crate::RescanConfig::catalog)), and a verification
/// that found something keeps it true;
/// [`refresh`](Self::refresh) takes notice of that. Clones share the mapping and are cheap; each has the version that it
/// had until it is refreshed itself. It may be inherited over `fork`: nothing in it changes.
///
/// The checksum shows damage by accident. A file that somebody made to do harm may have the right one: what an access
/// comes upon in it then counts as not there, [`is_damaged`](Self::is_damaged) and [`refresh`](Self::refresh) say so,
/// and the next rescan writes the file anew. Such an access may call the host's panic hook; the panic itself goes no
/// further.
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
    /// URLs of places that are not a base and a key.
    places: Option<Places>,
    opened: Arc<Opened>,
}

impl Catalog {
    /// Where the catalog of a cache lies: `CACHE.catalog`.
    pub fn path_for(cache: impl AsRef<Path>) -> PathBuf {
        path_for(cache.as_ref())
    }

    /// Writes the catalog of a cache (mode 0444), in the place of the one that may be there; gives its path. A rescan
    /// does this by itself. Takes about 1.2 s for a million keys, and memory that does not grow with them.
    ///
    /// # Errors
    /// [`ErrorKind::CacheLocked`] while a rescan of this process uses the cache; [`ErrorKind::Config`] before an
    /// orchestrator, or [`CacheManager::use_urls_of`], has told the cache its URLs; [`ErrorKind::Cache`] if it cannot be
    /// read, or the catalog not be written: the old one then stands.
    pub fn write(cache: &CacheManager) -> Result<PathBuf, StorageError> {
        let _lock = cache.lock()?;
        write::write(cache, Bases::of(cache.places()?), SystemTime::now())
    }

    /// Maps a catalog and verifies its checksum: about 6 ms for a million keys (`cargo bench --bench catalog`).
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if it is missing or cannot be read, [`ErrorKind::CacheDamaged`] if it is no catalog, is
    /// damaged or was written by a newer version, [`ErrorKind::Unsupported`] if the URLs of its backend are not
    /// made of a base and the key: see [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self { places: None, opened: Arc::new(Opened::open(path.as_ref())?), path: path.as_ref().to_owned() }
            .checked()
    }

    /// The same with the URLs of these places, whatever was recorded.
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

    fn checked(self) -> Result<Self, StorageError> {
        let Tail { store, fallback, .. } = &self.opened.tail;
        if self.places.is_some() || (store.plain && fallback.as_ref().is_none_or(|base| base.plain)) {
            return Ok(self);
        }
        let why = "the URLs of its backend are not a base and the key: use open_with";
        Err(StorageError::new(ErrorKind::Unsupported, Operation::Cache, why).with_path(&self.path))
    }

    /// Looks by one `stat` whether a newer version is there, and maps it; says whether it did. On an error the version
    /// that was there stays.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`ErrorKind::CacheDamaged`] while the version that is there is
    /// [damaged](Self::is_damaged).
    pub fn refresh(&mut self) -> Result<bool, StorageError> {
        let metadata = std::fs::metadata(&self.path).map_err(|error| unreadable(&self.path, error))?;
        if Identity::of(&metadata) == self.opened.identity {
            return if self.is_damaged() { Err(flawed(&self.path, Flaw::Damaged)) } else { Ok(false) };
        }
        let opened = Arc::new(Opened::open(&self.path)?);
        *self = Self { opened, ..self.clone() }.checked()?;
        Ok(true)
    }

    /// Where a key is to be read now; `None` if it is neither published nor on disk. As
    /// [`CacheManager::resolve`], without a lock and without allocating more than the URL.
    pub fn get(&self, key: &str) -> Option<Resolved> {
        let number = self.opened.keys.number_of(key)?;
        self.resolved(key, &self.opened.known(number)?)
    }

    fn resolved(&self, key: &str, known: &Known) -> Option<Resolved> {
        match &self.places {
            None => known.resolved(key, &self.opened.tail),
            Some(places) => known.resolved(key, places),
        }
    }

    /// Every key that is published or on disk, in the order of their bytes.
    pub fn iter(&self) -> Entries<'_> {
        self.prefix("")
    }

    /// Those that begin so.
    pub fn prefix(&self, prefix: &str) -> Entries<'_> {
        Entries { catalog: self, prefix: prefix.to_owned(), keys: self.opened.keys.walk(prefix) }
    }

    /// What was still to be done when it was written, in key order. Looks at every key.
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

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.opened.keys.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the cache held when it was written, in a few numbers.
    pub fn summary(&self) -> CacheSummary {
        let Tail { destination, published, published_bytes, pending, open_uploads, synced, .. } =
            self.opened.tail.clone();
        CacheSummary { destination, published, published_bytes, pending, open_uploads, synced }
    }

    /// [`ErrorKind::CacheForeign`] if this is the catalog of another destination ([`StorageBackend::destination`]).
    ///
    /// # Errors
    /// That alone.
    pub fn check_destination(&self, destination: &str) -> Result<(), StorageError> {
        match &self.opened.tail.destination {
            Some(bound) if bound != destination => Err(foreign(&self.path, bound, destination)),
            _ => Ok(()),
        }
    }

    /// Whether it is the one that was last written for the cache, and shows what that holds now.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the cache cannot be read.
    pub fn is_current(&self, cache: &CacheManager) -> Result<bool, StorageError> {
        let is_its_own = cache.is_its_catalog(self.opened.head.checksum)?;
        Ok(is_its_own && write::shows(&self.opened.tail, cache)?)
    }

    /// When it was written.
    pub fn created(&self) -> SystemTime {
        moment_of(self.opened.tail.created)
    }

    /// Whether an access of this version, or of a clone of it, came upon damage: what it asked for may be missing from
    /// its answer. Delete the file, or let the next rescan write it anew.
    pub fn is_damaged(&self) -> bool {
        self.opened.keys.is_damaged()
    }

    /// The file.
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

/// Keys of a [`Catalog`] and where they are to be read, in the order of their bytes.
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
            let (key, number) = self.keys.next_key()?;
            let Ok(key) = std::str::from_utf8(key) else {
                return opened.keys.note_damage();
            };
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
