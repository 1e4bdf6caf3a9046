//! A file being read: exactly the bytes of the version that was opened, or the error `SourceChanged`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, fstat, lstat, openat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::tree::digest::Digest;
use crate::tree::folder::{Folder, file_type, is_absent};
use crate::tree::version::FileStat;

/// The bytes read at a time for hashing; larger reads are not faster (measured from 64 KiB to 1 MiB).
const HASH_CHUNK: usize = 64 * 1024;

/// Follows no symbolic link and does not wait for the writer of a FIFO: between the walk and the open, a regular
/// file may have been replaced by either.
const OPEN_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);

/// An open regular file and its stat from when it was opened.
#[derive(Debug)]
#[doc(hidden)]
pub struct Source {
    file: File,
    path: PathBuf,
    /// The folder that it was opened below, and its path there; `None` if it was opened by its path alone.
    below: Option<(Arc<Folder>, PathBuf)>,
    stat: FileStat,
}

impl Source {
    /// Opens a file by its path. Symbolic links on the way are followed, one in the place of the file is not.
    pub(crate) fn open(path: &Path) -> Result<Self, StorageError> {
        let file = openat(CWD, path, OPEN_FLAGS | OFlags::CLOEXEC, Mode::empty());
        Self::from_opened(file.map(File::from), path.to_owned(), None)
    }

    /// Opens a file of a tree. No symbolic link is followed, so nothing outside of the folder can be opened.
    pub(crate) fn open_below(folder: &Arc<Folder>, below: &str) -> Result<Self, StorageError> {
        let file = folder.open_below(Path::new(below), OPEN_FLAGS);
        let below = PathBuf::from(below);
        Self::from_opened(file.map(File::from), folder.path().join(&below), Some((folder.clone(), below)))
    }

    fn from_opened(
        file: Result<File, Errno>,
        path: PathBuf,
        below: Option<(Arc<Folder>, PathBuf)>,
    ) -> Result<Self, StorageError> {
        let file = file.map_err(|error| read_error(&path, error.into()))?;
        let stat = fstat(&file).map_err(|error| read_error(&path, error.into()))?;
        // The walk saw a regular file under this name.
        if !file_type(&stat).is_file() {
            return Err(changed_error(&path, "it is no longer a regular file"));
        }
        Ok(Self { file, path, below, stat: FileStat::of(&stat) })
    }

    pub(crate) fn stat(&self) -> &FileStat {
        &self.stat
    }

    /// Hashes the whole file. `on_chunk` gets the size of each read; its error ends the hashing.
    pub(crate) fn hash(
        &self,
        on_chunk: impl FnMut(u64) -> Result<(), StorageError>,
    ) -> Result<Digest, StorageError> {
        self.hash_range(0, self.stat.size, on_chunk).map(Digest::whole)
    }

    /// Hashes `length` bytes from `offset`. Fails if the file has fewer.
    pub(crate) fn hash_range(
        &self,
        offset: u64,
        length: u64,
        mut on_chunk: impl FnMut(u64) -> Result<(), StorageError>,
    ) -> Result<[u8; 32], StorageError> {
        let mut hasher = Sha256::new();
        self.read_range(offset, length, |bytes| {
            on_chunk(bytes.len() as u64)?;
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(hasher.finalize().into())
    }

    /// Reads `length` bytes from `offset`, a chunk at a time. Fails if the file has fewer.
    pub(crate) fn read_range(
        &self,
        mut offset: u64,
        length: u64,
        mut on_bytes: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        // A small file gets a small buffer.
        let room = usize::try_from(length).unwrap_or(HASH_CHUNK).clamp(1, HASH_CHUNK);
        let (mut buffer, end) = (vec![0; room], offset + length);
        while offset < end {
            let count = self.read_at(&mut buffer, offset, end)?;
            on_bytes(&buffer[..count])?;
            offset += count as u64;
        }
        Ok(())
    }

    /// A new reader of the whole file that returns at most `chunk` bytes at a time.
    pub(crate) fn reader(&self, chunk: usize) -> SourceReader<'_> {
        self.range_reader(0, self.stat.size, chunk)
    }

    /// A new reader of `length` bytes from `offset`. It fails if the file has fewer.
    pub(crate) fn range_reader(&self, offset: u64, length: u64, chunk: usize) -> SourceReader<'_> {
        SourceReader { source: self, chunk, offset, end: offset + length }
    }

    /// Returns true if the stat says that the file is empty and yet it has bytes, as files in `/proc` do.
    pub(crate) fn is_sizeless(&self) -> bool {
        self.stat.size == 0 && self.file.read_at(&mut [0], 0).is_ok_and(|count| count > 0)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that the open file has not changed, whatever its name is now: all that was hashed is one version.
    /// The name itself is checked once, when the last bytes are sent.
    pub(crate) fn check_as_opened(&self) -> Result<(), StorageError> {
        if fstat(&self.file).is_ok_and(|stat| FileStat::of(&stat) == self.stat) {
            return Ok(());
        }
        Err(changed_error(&self.path, "it changed while it was being read"))
    }

    /// Checks that the name still leads to the file that was opened, and that the file has not changed. No other
    /// file gets the inode of an open file, so one stat of the name answers both.
    pub(crate) fn check_unchanged(&self) -> Result<(), StorageError> {
        let found = match &self.below {
            Some((folder, below)) => folder.stat(below),
            None => lstat(&self.path),
        };
        if found.is_ok_and(|stat| FileStat::of(&stat) == self.stat) {
            return Ok(());
        }
        Err(changed_error(&self.path, "it changed while it was being published"))
    }

    /// Reads at least one byte between `offset` and `end`.
    fn read_at(&self, buffer: &mut [u8], offset: u64, end: u64) -> Result<usize, StorageError> {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
        loop {
            match self.file.read_at(&mut buffer[..left], offset) {
                // A signal interrupted the read: read again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The end of the file, although more bytes were announced.
                Ok(0) => return Err(changed_error(&self.path, "it was truncated while it was being read")),
                result => return result.map_err(|error| read_error(&self.path, error)),
            }
        }
    }
}

/// Reads a source, or a range of it, as the body of a request. It never returns more bytes than the request
/// announced. It fails if the file was truncated, or if it has changed by the time of its last bytes, so no request
/// completes with bytes of two versions.
pub(crate) struct SourceReader<'a> {
    source: &'a Source,
    chunk: usize,
    offset: u64,
    end: u64,
}

impl SourceReader<'_> {
    fn next_chunk(&mut self, buffer: &mut [u8]) -> Result<usize, StorageError> {
        let room = buffer.len().min(self.chunk);
        if room == 0 || self.offset == self.end {
            return Ok(0);
        }
        let count = self.source.read_at(&mut buffer[..room], self.offset, self.end)?;
        self.offset += count as u64;
        // Before the last bytes are handed out: without them the request cannot complete.
        if self.offset == self.end {
            self.source.check_unchanged()?;
        }
        Ok(count)
    }
}

impl Read for SourceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The transport would spin on a body that ends early, so a short source must be an error.
        self.next_chunk(buffer).map_err(|error| io::Error::new(io::ErrorKind::UnexpectedEof, error))
    }
}

fn changed_error(path: &Path, how: &str) -> StorageError {
    let text = format!("{how}; the next rescan publishes it");
    StorageError::new(ErrorKind::SourceChanged, Operation::Read, text).with_path(path)
}

fn read_error(path: &Path, error: io::Error) -> StorageError {
    let kind = match Errno::from_io_error(&error) {
        Some(absent) if is_absent(absent) => ErrorKind::SourceVanished,
        // LOOP: the name, or a folder above it, became a symbolic link. NXIO: it became a socket.
        Some(Errno::LOOP | Errno::NXIO) => ErrorKind::SourceChanged,
        _ => ErrorKind::SourceUnreadable,
    };
    StorageError::io(kind, Operation::Read, path, error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn kind_of(error: io::Error) -> ErrorKind {
        error.into_inner().unwrap().downcast::<StorageError>().unwrap().kind()
    }

    #[test]
    fn it_reads_in_chunks_and_hashes_what_it_reads() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let (_folder, path) = file(&bytes);
        let source = Source::open(&path).unwrap();
        let mut read = Vec::new();
        source.reader(8192).read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes);
        assert_eq!(source.reader(8192).read(&mut vec![0; 20_000]).unwrap(), 8192);
        let mut seen = 0;
        let digest = source
            .hash(|count| {
                seen += count;
                Ok(())
            })
            .unwrap();
        assert_eq!(digest.as_bytes()[..], Sha256::digest(&bytes)[..]);
        assert_eq!(seen, 100_000);
    }

    #[test]
    fn a_range_is_read_and_hashed_to_its_end_and_no_further() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let (_folder, path) = file(&bytes);
        let source = Source::open(&path).unwrap();
        let mut read = Vec::new();
        source.range_reader(70_000, 20_000, 8192).read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes[70_000..90_000]);
        let hash = source.hash_range(70_000, 20_000, |_| Ok(())).unwrap();
        assert_eq!(hash[..], Sha256::digest(&bytes[70_000..90_000])[..]);
        fs::write(&path, &bytes[..80_000]).unwrap();
        let error = source.range_reader(70_000, 20_000, 8192).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(kind_of(error), ErrorKind::SourceChanged);
    }

    #[test]
    fn f1_a_file_that_shrinks_while_it_is_read_is_an_error_and_never_a_spin() {
        let (_folder, path) = file(&vec![7; 50_000]);
        let source = Source::open(&path).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        let error = source.reader(8192).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind_of(error), ErrorKind::SourceChanged);
        assert_eq!(source.hash(|_| Ok(())).unwrap_err().kind(), ErrorKind::SourceChanged);
    }

    #[test]
    fn f1_a_file_that_grows_or_is_replaced_is_noticed_before_its_last_bytes_leave() {
        let (_folder, path) = file(&vec![7; 50_000]);
        let source = Source::open(&path).unwrap();
        fs::File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        let mut read = Vec::new();
        let error = source.reader(8192).read_to_end(&mut read).unwrap_err();
        assert_eq!(kind_of(error), ErrorKind::SourceChanged);
        assert!(read.len() < 50_000);

        let source = Source::open(&path).unwrap();
        let other = path.with_extension("new");
        fs::write(&other, vec![7; 50_004]).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(source.check_unchanged().unwrap_err().kind(), ErrorKind::SourceChanged);
    }

    #[test]
    fn f6_what_became_a_link_or_a_folder_is_not_read() {
        let (folder, path) = file(b"x");
        let link = folder.path().join("l");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(Source::open(&link).unwrap_err().kind(), ErrorKind::SourceChanged);
        assert_eq!(Source::open(folder.path()).unwrap_err().kind(), ErrorKind::SourceChanged);
        assert_eq!(Source::open(&path.join("x")).unwrap_err().kind(), ErrorKind::SourceVanished);
    }
}
