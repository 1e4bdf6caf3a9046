//! The digest of a file and the `ETag`s that stores may have given it, computed in one read.

use std::num::NonZeroU64;

use sha2::{Digest as _, Sha256};

use crate::error::StorageError;
use crate::tree::digest::Digest;
use crate::tree::source::Source;

/// How a file was divided when it was sent: into parts of this size, or not at all.
pub(crate) type Division = Option<NonZeroU64>;

/// The digest of a file, and its possible `ETag`s.
pub(crate) struct Fingerprint {
    pub(crate) digest: Digest,
    /// For each division that was asked for: the `ETag`, without quotes.
    pub(crate) etags: Vec<String>,
}

/// Reads a file once. `on_chunk` gets the size of each read; its error ends the reading.
pub(crate) fn fingerprint(
    source: &Source,
    digest: Division,
    etags: &[Division],
    mut on_chunk: impl FnMut(u64) -> Result<(), StorageError>,
) -> Result<Fingerprint, StorageError> {
    let mut sha256 = PartHashes::<Sha256>::new(digest);
    let mut md5s: Vec<_> = etags.iter().map(|division| PartHashes::<md5::Context>::new(*division)).collect();
    source.read_range(0, source.stat().size, |bytes| {
        on_chunk(bytes.len() as u64)?;
        sha256.update(bytes);
        for md5 in &mut md5s {
            md5.update(bytes);
        }
        Ok(())
    })?;
    Ok(Fingerprint { digest: sha256.digest(), etags: md5s.into_iter().map(PartHashes::etag).collect() })
}

/// A hash function.
trait Hash {
    type Output: AsRef<[u8]>;
    fn start() -> Self;
    fn update(&mut self, bytes: &[u8]);
    fn finish(self) -> Self::Output;
}

impl Hash for Sha256 {
    type Output = [u8; 32];

    fn start() -> Self {
        Self::new()
    }

    fn update(&mut self, bytes: &[u8]) {
        sha2::Digest::update(self, bytes);
    }

    fn finish(self) -> [u8; 32] {
        self.finalize().into()
    }
}

impl Hash for md5::Context {
    type Output = [u8; 16];

    fn start() -> Self {
        Self::new()
    }

    fn update(&mut self, bytes: &[u8]) {
        self.consume(bytes);
    }

    fn finish(self) -> [u8; 16] {
        self.finalize().0
    }
}

/// The hash of a stream: of its bytes, or of its parts' hashes.
struct PartHashes<H> {
    division: Division,
    /// Of the current part.
    part: H,
    /// Bytes that the current part has room for.
    room: u64,
    /// Of the hashes of the parts that are complete.
    parts: H,
    count: u64,
}

impl<H: Hash> PartHashes<H> {
    fn new(division: Division) -> Self {
        let room = division.map_or(u64::MAX, NonZeroU64::get);
        Self { division, part: H::start(), room, parts: H::start(), count: 0 }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = usize::try_from(self.room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(length);
            self.part.update(now);
            self.room -= length as u64;
            bytes = later;
            if self.room == 0 {
                self.end_part();
            }
        }
    }

    fn end_part(&mut self) {
        let hash = std::mem::replace(&mut self.part, H::start()).finish();
        self.parts.update(hash.as_ref());
        self.count += 1;
        self.room = self.division.map_or(u64::MAX, NonZeroU64::get);
    }

    /// Returns the hash, and the number of parts if the stream was divided.
    fn finish(mut self) -> (H::Output, Option<u64>) {
        let Some(part_size) = self.division else { return (self.part.finish(), None) };
        if self.room < part_size.get() {
            self.end_part();
        }
        (self.parts.finish(), Some(self.count))
    }
}

impl PartHashes<Sha256> {
    fn digest(self) -> Digest {
        let division = self.division;
        Digest::known(self.finish().0, division)
    }
}

impl PartHashes<md5::Context> {
    fn etag(self) -> String {
        match self.finish() {
            (md5, None) => hex::encode(md5),
            (md5, Some(count)) => format!("{}-{count}", hex::encode(md5)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_fingerprint_is_what_stores_and_our_own_digests_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let part = NonZeroU64::new(40_000);
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
        let tag_of_parts = |bytes: &[u8]| {
            let md5s: Vec<u8> = bytes.chunks(40_000).flat_map(|part| md5::compute(part).0).collect();
            format!("{:x}-{}", md5::compute(&md5s), bytes.chunks(40_000).count())
        };
        for size in [0, 1, 39_999, 40_000, 40_001, 100_000, 120_000, 200_000] {
            let bytes = &bytes[..size];
            fs::write(&path, bytes).unwrap();
            let source = Source::open(&path).unwrap();
            for division in [None, part] {
                let mut read = 0;
                let on_chunk = |count| {
                    read += count;
                    Ok(())
                };
                let found = fingerprint(&source, division, &[None, part], on_chunk).unwrap();
                assert_eq!(found.digest, Digest::of_stream(bytes, division.map(NonZeroU64::get)).unwrap());
                assert_eq!(found.etags, [format!("{:x}", md5::compute(bytes)), tag_of_parts(bytes)]);
                assert_eq!(read, size as u64);
            }
        }
    }
}
