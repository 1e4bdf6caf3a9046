//! The cache's records and their form on disk.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// What the store has acknowledged for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) stat: FileStat,
    /// Whether the stat may stand for the content ([`FileStat::is_settled`]).
    pub(crate) settled: bool,
    pub(crate) digest: Digest,
    pub(crate) etag: Option<String>,
    /// Which root published it: an index of the cache's roots.
    pub(crate) root: u32,
    /// Whether it was on the device that its root was on.
    pub(crate) with_root: bool,
}

/// What is still to be done for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PendingKind {
    /// A file that is not published yet.
    Added,
    /// A published file that changed, or may have.
    Modified,
    /// A published file that is gone.
    Removed,
}

/// A file on disk that differs from what is published, or an object whose file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// On disk; of a removed file, as it was published.
    pub(crate) stat: FileStat,
    pub(crate) settled: bool,
    /// Of the file on disk, once it was hashed.
    pub(crate) digest: Option<Digest>,
    /// A request for it was, or may have been, under way, and what came of it is not known: what is
    /// recorded as published must not be believed until the store has acknowledged something new.
    pub(crate) doubt: bool,
}

impl Pending {
    /// The digest, if the stat may stand for it.
    pub(crate) fn known(&self) -> Option<Digest> {
        self.digest.filter(|_| self.settled)
    }
}

/// A multipart upload that was begun, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct OpenUpload {
    pub(crate) token: String,
    pub(crate) upload_id: Option<String>,
    pub(crate) parts: Vec<(u32, String)>,
}

/// What happened to a multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadStep {
    /// It is about to be begun; the token will prove it ours.
    Intended(String),
    /// The store named it.
    Begun(String),
    /// A part was acknowledged: its number and tag.
    Part(u32, String),
    /// It is completed or aborted.
    Closed,
}

impl OpenUpload {
    /// The upload after a step; `None`: it is over.
    pub(crate) fn after(mut self, step: &UploadStep) -> Option<Self> {
        match step {
            UploadStep::Intended(token) => self = Self { token: token.clone(), ..Self::default() },
            UploadStep::Begun(id) => self.upload_id = Some(id.clone()),
            UploadStep::Part(number, etag) => self.parts.push((*number, etag.clone())),
            UploadStep::Closed => return None,
        }
        Some(self)
    }
}

const CHECK_BYTES: usize = 8;

/// A record as it is stored: its fields, then the beginning of SHA-256 over key and fields.
pub(crate) fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_stdvec(record)?;
    let check = check(key, &bytes);
    bytes.extend_from_slice(&check);
    Ok(bytes)
}

/// The record of this key; `None` if its bytes are not what was stored for the key.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Option<T> {
    let (fields, stored) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if stored != check(key, fields) {
        return None;
    }
    postcard::from_bytes(fields).ok()
}

fn check(key: &str, fields: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(fields);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_no_flipped_byte_and_no_other_key_goes_unnoticed() {
        let record = Published {
            stat: FileStat { size: 7, mtime: -1, ctime: 5, inode: 1 << 40, device: 2 },
            settled: true,
            digest: Digest::whole([9; 32]),
            etag: Some("\"tag\"".into()),
            root: 0,
            with_root: true,
        };
        let bytes = encode("a/b", &record).unwrap();
        assert_eq!(decode::<Published>("a/b", &bytes), Some(record));
        assert_eq!(decode::<Published>("a/c", &bytes), None);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode::<Published>("a/b", &damaged), None, "byte {at}");
        }
        assert_eq!(decode::<Published>("a/b", &bytes[..4]), None);
    }
}
