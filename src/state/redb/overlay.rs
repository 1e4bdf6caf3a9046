//! An overlay on a file that may only be read: redb can repair or create a database on it, in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};

const PAGE: usize = 4096;

/// Splits an offset into a page number and the offset within that page.
fn page_and_offset(offset: u64) -> (u64, usize) {
    let size = PAGE as u64;
    // The remainder is less than a page, so it fits.
    (offset / size, usize::try_from(offset % size).unwrap_or_default())
}

type Page = Box<[u8; PAGE]>;

/// A file whose changes stay in memory: those of a repair, or of a new database in an empty file.
///
/// It takes shared locks on the file, which keep writers out meanwhile.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: FileBackend,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    length: u64,
    /// The length of the file's beginning that still shows. A truncation of the overlay shortens it for good.
    below: u64,
    /// The changed pages, by number.
    pages: BTreeMap<u64, Page>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> Result<Self, DatabaseError> {
        let file = FileBackend::new(file)?;
        let length = file.len()?;
        Ok(Self { file, changes: Mutex::new(Changes { length, below: length, pages: BTreeMap::new() }) })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a page of the file, filled with zeros after its end.
    fn read_file_page(&self, below: u64, number: u64) -> io::Result<Page> {
        let mut page = Box::new([0; PAGE]);
        let at = number * PAGE as u64;
        let length = usize::try_from(below.saturating_sub(at)).unwrap_or(usize::MAX).min(PAGE);
        if length > 0 {
            self.file.read(at, &mut page[..length])?;
        }
        Ok(page)
    }
}

/// Splits a range into its pieces in each page: page number, offset within the page, number of bytes.
fn page_pieces(mut offset: u64, mut length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    std::iter::from_fn(move || {
        let (number, within) = page_and_offset(offset);
        let count = length.min(PAGE - within);
        offset += count as u64;
        length -= count;
        (count > 0).then_some((number, within, count))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().length)
    }

    fn read(&self, offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        let changes = self.changes();
        // As a real file does, and as redb expects.
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > changes.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, count) in page_pieces(offset, out.len()) {
            let (piece, rest) = out.split_at_mut(count);
            if let Some(page) = changes.pages.get(&number) {
                piece.copy_from_slice(&page[within..within + count]);
            } else {
                let page = self.read_file_page(changes.below, number)?;
                piece.copy_from_slice(&page[within..within + count]);
            }
            out = rest;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes();
        // If the file grows again later, the bytes in between are zeros, not what was there before.
        if length < changes.length {
            changes.below = changes.below.min(length);
            changes.pages.retain(|number, _| number * (PAGE as u64) < length);
            let (last, within) = page_and_offset(length);
            if let Some(page) = changes.pages.get_mut(&last) {
                page[within..].fill(0);
            }
        }
        changes.length = length;
        Ok(())
    }

    // There is nothing to sync: the file is never written.
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, mut data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        changes.length = changes.length.max(offset + data.len() as u64);
        for (number, within, count) in page_pieces(offset, data.len()) {
            let (piece, rest) = data.split_at(count);
            // Copied on the first write, since only a part of the page may be written.
            if !changes.pages.contains_key(&number) {
                let page = self.read_file_page(changes.below, number)?;
                changes.pages.insert(number, page);
            }
            if let Some(page) = changes.pages.get_mut(&number) {
                page[within..within + count].copy_from_slice(piece);
            }
            data = rest;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // Never an exclusive lock: the file is not written.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Random reads, writes and truncations give the same as with a vector, and the file stays unchanged.
    #[test]
    fn overlay_is_as_a_file_that_was_written() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("file");
            let mut expected = vec![0; random.usize(..20_000)];
            random.fill(&mut expected);
            fs::write(&path, &expected).unwrap();
            let original = expected.clone();
            let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
            for _ in 0..60 {
                match random.u8(..3) {
                    0 => {
                        let length = random.usize(..30_000);
                        expected.resize(length, 0);
                        overlay.set_len(length as u64).unwrap();
                    }
                    1 if !expected.is_empty() => {
                        let at = random.usize(..expected.len());
                        let mut bytes = vec![0; random.usize(..9000).min(expected.len() - at)];
                        random.fill(&mut bytes);
                        expected[at..at + bytes.len()].copy_from_slice(&bytes);
                        overlay.write(at as u64, &bytes).unwrap();
                    }
                    _ => {
                        let at = random.usize(..=expected.len());
                        let mut bytes = vec![0; random.usize(..=expected.len() - at)];
                        overlay.read(at as u64, &mut bytes).unwrap();
                        assert!(bytes == expected[at..at + bytes.len()], "seed {seed}");
                    }
                }
            }
            assert_eq!(overlay.len().unwrap(), expected.len() as u64);
            assert!(overlay.read(expected.len() as u64, &mut [0]).is_err());
            assert!(fs::read(&path).unwrap() == original);
        }
    }
}
