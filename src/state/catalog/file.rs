//! One version of a catalog's file, opened, verified and mapped.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};
use xxhash_rust::xxh3::Xxh3;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::catalog::format::{self, DETAIL, Flaw, HEAD, Head, RECORD, Tail};
use crate::state::catalog::keys::{Keys, Section};
use crate::state::resolve::Known;

/// The bytes read at a time.
const BUFFER: usize = 256 * 1024;

/// One version of the file, mapped into memory.
pub(crate) struct Opened {
    mapping: Arc<Mmap>,
    pub(crate) identity: Identity,
    pub(crate) head: Head,
    pub(crate) keys: Keys,
    pub(crate) tail: Tail,
}

/// The identity of one version of the file. While a version is mapped, no other file gets its inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    mtime: (i64, i64),
    size: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let mtime = (metadata.mtime(), metadata.mtime_nsec());
        Self { device: metadata.dev(), inode: metadata.ino(), mtime, size: metadata.size() }
    }
}

impl Opened {
    /// Maps the file and verifies its checksum and its sections.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let unread = |error| read_error(path, error);
        let (file, metadata) = open_file(path)?;
        // Read, not mapped: an empty file cannot be mapped, and the error should say which flaw it is.
        if metadata.size() < HEAD as u64 {
            let mut start = Vec::new();
            (&file).read_to_end(&mut start).map_err(unread)?;
            return Err(flaw_error(
                path,
                Head::decode(&start, metadata.size()).err().unwrap_or(Flaw::Damaged),
            ));
        }
        let mapping = Arc::new(map(&file).map_err(unread)?);
        let head = Head::decode(&mapping, mapping.len() as u64).map_err(|flaw| flaw_error(path, flaw))?;
        let damaged = || flaw_error(path, Flaw::Damaged);
        // Before anything else is decoded.
        if !head.checksum_matches(&mapping[HEAD..]) {
            return Err(damaged());
        }
        // These cannot fail: offsets into a mapping fit into a usize.
        let tail_at = usize::try_from(head.tail_at()).map_err(|_| damaged())?;
        let keys_at = usize::try_from(head.tail_at() - head.keys_len).map_err(|_| damaged())?;
        let tail = postcard::from_bytes(&mapping[tail_at..]).map_err(|_| damaged())?;
        let keys =
            Keys::new(Section::new(mapping.clone(), keys_at..tail_at), head.records).ok_or_else(damaged)?;
        Ok(Self { mapping, identity: Identity::of(&metadata), head, keys, tail })
    }

    /// Decodes the record of this number; `None` if it is damaged.
    pub(crate) fn known(&self, number: u64) -> Option<Known> {
        self.decoded(number).or_else(|| self.keys.note_damage())
    }

    fn decoded(&self, number: u64) -> Option<Known> {
        let section = |at: u64, number: u64, length: usize, count: u64| {
            // Cannot overflow: the head was checked, so a number below the count lies in the file.
            let at =
                usize::try_from(at + Some(number).filter(|number| *number < count)? * length as u64).ok()?;
            self.mapping.get(at..at + length)
        };
        let record = section(HEAD as u64, number, RECORD, self.head.records)?;
        let details_at = HEAD as u64 + self.head.records * RECORD as u64;
        format::decode(record, |number| section(details_at, number.into(), DETAIL, self.head.details))
    }
}

/// Maps the file. This is the only mapping in the library.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: what a mapping shows must not change while it is there, and the file must not become shorter. A file
    // with a catalog's name was written under another name, synced, made read-only and renamed (`write.rs`);
    // nothing here ever opens it for writing, and it is only ever replaced by another file, which leaves this one as
    // it is for those who map it. Whoever truncates it by hand ends its readers; the README says so.
    unsafe { MmapOptions::new().populate().map(file) }
}

/// Verifies the file's checksum without mapping it. Returns the checksum and the tail; needs no memory for the rest.
pub(crate) fn read_verified_tail(path: &Path) -> Result<(u64, Tail), StorageError> {
    let (unread, damaged) = (|error| read_error(path, error), || flaw_error(path, Flaw::Damaged));
    let (mut file, metadata) = open_file(path)?;
    let mut start = [0; HEAD];
    file.read_exact(&mut start).map_err(unread)?;
    let head = Head::decode(&start, metadata.size()).map_err(|flaw| flaw_error(path, flaw))?;
    let (mut hasher, mut buffer) = (Xxh3::new(), vec![0; BUFFER]);
    let mut body = (&file).take(head.tail_at() - HEAD as u64);
    loop {
        match body.read(&mut buffer).map_err(unread)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    let mut tail = Vec::new();
    file.take(head.tail_len).read_to_end(&mut tail).map_err(unread)?;
    hasher.update(&tail);
    if head.with_checksum(&mut hasher).checksum != head.checksum {
        return Err(damaged());
    }
    Ok((head.checksum, postcard::from_bytes(&tail).map_err(|_| damaged())?))
}

/// Opens a regular file. With anything else that has the name, a FIFO for example, it fails and does not wait.
fn open_file(path: &Path) -> Result<(File, Metadata), StorageError> {
    let unread = |error| read_error(path, error);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
    let metadata = file.metadata().map_err(unread)?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(flaw_error(path, Flaw::Foreign)) }
}

pub(crate) fn read_error(path: &Path, error: io::Error) -> StorageError {
    let missing = error.kind() == io::ErrorKind::NotFound;
    let error = StorageError::io(ErrorKind::Cache, Operation::Cache, path, error);
    if missing { error.advise("there is no catalog yet: a rescan writes it") } else { error }
}

pub(crate) fn flaw_error(path: &Path, flaw: Flaw) -> StorageError {
    let why = match flaw {
        Flaw::Foreign => "it is not a catalog: give the path of a cache's catalog, CACHE.catalog".to_owned(),
        Flaw::Newer(version) => format!(
            "its format version {version} is newer than this library: use a newer library, or delete the file; the next rescan writes it again"
        ),
        Flaw::Damaged => "it is damaged: delete the file; the next rescan writes it again".to_owned(),
    };
    StorageError::new(ErrorKind::CacheDamaged, Operation::Cache, why).with_path(path)
}
