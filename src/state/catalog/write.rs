//! Writes a catalog: to a temporary file next to the old one, which is synced and then renamed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use fst::MapBuilder;
use xxhash_rust::xxh3::Xxh3;

use crate::backend::StorageBackend;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::url_below;
use crate::state::cache::CacheManager;
use crate::state::catalog::file::read_verified_tail;
use crate::state::catalog::format::{self, Base, HEAD, Head, RECORD, Tail};
use crate::state::catalog::path_for;
use crate::state::file_mark::FileMark;
use crate::state::resolve::{Known, Places};
use crate::state::rows::Row;
use crate::tree::version::nanos_of;

/// The bytes gathered for one write.
const BUFFER: usize = 256 * 1024;

/// Writes the catalog of a cache, unless the existing one is undamaged, belongs to the cache, and is up to date. The
/// caller has locked the cache.
pub(crate) fn update(cache: &CacheManager, now: SystemTime) -> Result<(), StorageError> {
    let urls = Bases::of(cache.places()?);
    match last_written(cache)? {
        Some(there) if urls.match_tail(&there) && is_up_to_date(&there, cache)? => Ok(()),
        _ => write(cache, urls, now).map(drop),
    }
}

/// Brings an existing catalog up to date after a change that was not made by a rescan.
pub(crate) fn follow(cache: &CacheManager, now: SystemTime) -> Result<(), StorageError> {
    match last_written(cache)? {
        Some(there) if !cache.is_read_only() && !is_up_to_date(&there, cache)? => {
            write(cache, Bases::from_tail(there), now).map(drop)
        }
        // A missing or damaged catalog is left to the next rescan.
        _ => Ok(()),
    }
}

/// The tail of the existing catalog, if it is the one that was last written for the cache.
fn last_written(cache: &CacheManager) -> Result<Option<Tail>, StorageError> {
    match read_verified_tail(&path_for(cache.path())) {
        Ok((checksum, there)) if cache.is_its_catalog(checksum)? => Ok(Some(there)),
        // Missing, unreadable, damaged, or of another cache: it is written again.
        _ => Ok(None),
    }
}

/// Returns true if the cache has not changed since its catalog was written.
pub(crate) fn is_up_to_date(there: &Tail, cache: &CacheManager) -> Result<bool, StorageError> {
    Ok(there.changes == cache.changes()?
        && there.synced == cache.is_synced()?
        && there.open_uploads == cache.open_upload_count()?)
}

/// The base URLs that are written into the tail.
pub(crate) struct Bases {
    store: Base,
    fallback: Option<Base>,
    /// The backends whose URLs are compared with base and key; `None` if that was done for the last catalog.
    places: Option<Places>,
}

impl Bases {
    pub(crate) fn of(places: Places) -> Self {
        // Plain until a key proves otherwise.
        let base = |place: &dyn StorageBackend| Base { url: place.get_url(""), plain: true };
        let (store, fallback) = (base(&*places.store), places.fallback.as_deref().map(base));
        Self { store, fallback, places: Some(places) }
    }

    fn from_tail(there: Tail) -> Self {
        Self { store: there.store, fallback: there.fallback, places: None }
    }

    fn match_tail(&self, there: &Tail) -> bool {
        let url = |base: &Option<Base>| base.as_ref().map(|base| base.url.clone());
        self.store.url == there.store.url && url(&self.fallback) == url(&there.fallback)
    }

    /// Records if a key's URLs are not the base URLs and the key.
    fn check_plain(&mut self, key: &str) {
        // The bases come from the last catalog, for which the keys were compared.
        let Some(places) = &self.places else {
            return;
        };
        self.store.plain = is_plain(&self.store, &*places.store, key);
        if let (Some(base), Some(place)) = (&mut self.fallback, &places.fallback) {
            base.plain = is_plain(base, &**place, key);
        }
    }
}

/// Writes the catalog of a cache and returns its path.
pub(crate) fn write(cache: &CacheManager, urls: Bases, now: SystemTime) -> Result<PathBuf, StorageError> {
    let path = path_for(cache.path());
    let failed = |error| StorageError::io(ErrorKind::Cache, Operation::Cache, &path, error);
    let mut temporary = path.clone().into_os_string();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut draft = Draft::begin(&temporary, folder).map_err(failed)?;
    let written = add_rows(&mut draft, cache, urls, now).and_then(|tail| draft.finish(&tail).map_err(failed));
    let placed = written.and_then(|checksum| {
        fs::rename(&temporary, &path).and_then(|()| File::open(folder)?.sync_all()).map_err(failed)?;
        // Last: until then the cache does not take the new file for its own, and the next run writes it again.
        let file = fs::metadata(&path).map_err(failed)?;
        cache.note_catalog(checksum, FileMark::of(&file))
    });
    if placed.is_err() {
        // An error here is ignored: the next write removes the file, too.
        let _ = fs::remove_file(&temporary);
    }
    placed.map(|()| path)
}

/// Adds every key of the cache to the draft, and returns the tail.
fn add_rows(
    draft: &mut Draft,
    cache: &CacheManager,
    mut urls: Bases,
    now: SystemTime,
) -> Result<Tail, StorageError> {
    let failed = |error| StorageError::io(ErrorKind::Cache, Operation::Cache, cache.path(), error);
    // Read before the rows: a change in the meantime then makes the catalog outdated, not wrong.
    let changes = cache.changes()?;
    let (mut published, mut published_bytes, mut pending) = (0, 0, 0);
    for row in cache.rows() {
        let Row { key, published: there, pending: wanted, .. } = row?;
        published += u64::from(there.is_some());
        published_bytes += there.as_ref().map_or(0, |there| there.stat.size);
        pending += u64::from(wanted.is_some());
        urls.check_plain(&key);
        draft.add(&key, &Known::new(there.as_ref(), wanted.as_ref())).map_err(failed)?;
    }
    Ok(Tail {
        destination: cache.destination()?,
        store: urls.store,
        fallback: urls.fallback,
        changes,
        created: nanos_of(now),
        published,
        published_bytes,
        pending,
        open_uploads: cache.open_upload_count()?,
        synced: cache.is_synced()?,
    })
}

fn is_plain(base: &Base, place: &dyn StorageBackend, key: &str) -> bool {
    base.plain && place.get_url(key) == url_below(&base.url, key)
}

/// A catalog that is being written.
struct Draft {
    out: Hashing,
    records: u64,
    details: BufWriter<File>,
    details_count: u32,
    keys: MapBuilder<BufWriter<File>>,
}

impl Draft {
    fn begin(temporary: &Path, folder: &Path) -> io::Result<Self> {
        // A writer that was killed may have left one.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Creates the file and follows no link: anything that has taken the name meanwhile is refused.
        let out = OpenOptions::new().write(true).create_new(true).mode(0o400).open(temporary)?;
        let mut out = BufWriter::with_capacity(BUFFER, out);
        // A placeholder: the head has lengths and a checksum, which are known at the end.
        out.write_all(&[0; HEAD])?;
        // Details and keys come after the records in the file, but are known only while these are written.
        let scratch = || Ok::<_, io::Error>(BufWriter::with_capacity(BUFFER, tempfile::tempfile_in(folder)?));
        let keys = MapBuilder::new(scratch()?).map_err(io::Error::other)?;
        let (out, details) = (Hashing { out, hasher: Xxh3::new() }, scratch()?);
        Ok(Self { out, records: 0, details, details_count: 0, keys })
    }

    fn add(&mut self, key: &str, known: &Known) -> io::Result<()> {
        let (record, detail): ([u8; RECORD], _) = format::encode(known, self.details_count);
        self.keys.insert(key, self.records).map_err(io::Error::other)?;
        self.out.write_all(&record)?;
        self.records += 1;
        if let Some(detail) = detail {
            self.details.write_all(&detail)?;
            self.details_count =
                self.details_count.checked_add(1).ok_or_else(|| io::Error::other("too many keys"))?;
        }
        Ok(())
    }

    /// Appends details and keys from their scratch files, then the tail, and writes the head last. Returns the
    /// checksum.
    fn finish(self, tail: &Tail) -> io::Result<u64> {
        let Self { mut out, records, details, details_count, keys } = self;
        let keys = keys.into_inner().map_err(io::Error::other)?;
        append_scratch(&mut out, details)?;
        let keys_len = append_scratch(&mut out, keys)?;
        let tail = postcard::to_stdvec(tail).map_err(io::Error::other)?;
        out.write_all(&tail)?;
        let Hashing { out, mut hasher } = out;
        let file = out.into_inner()?;
        let head = Head {
            checksum: 0,
            file_len: file.metadata()?.len(),
            records,
            details: details_count.into(),
            keys_len,
            tail_len: tail.len() as u64,
        };
        let head = head.with_checksum(&mut hasher);
        file.write_all_at(&head.encode(), 0)?;
        // Read-only for all before it gets its name: readers of other users may map it, nobody changes it.
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()?;
        Ok(head.checksum)
    }
}

/// Appends a scratch file and returns its length.
fn append_scratch(out: &mut impl Write, scratch: BufWriter<File>) -> io::Result<u64> {
    let mut scratch = scratch.into_inner()?;
    scratch.seek(SeekFrom::Start(0))?;
    let (mut buffer, mut total) = (vec![0; BUFFER], 0);
    loop {
        match scratch.read(&mut buffer)? {
            0 => return Ok(total),
            count => {
                out.write_all(&buffer[..count])?;
                total += count as u64;
            }
        }
    }
}

/// A writer that hashes the bytes that it writes.
struct Hashing {
    out: BufWriter<File>,
    hasher: Xxh3,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        // Only the bytes that were taken; the caller sends the rest again.
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
