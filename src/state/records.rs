//! The cache's records and their form on disk.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backend::{Intent, SentPart};
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// What the store has acknowledged for a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) stat: FileStat,
    /// Whether the stat may stand for the content ([`FileStat::is_settled`]).
    pub(crate) settled: bool,
    pub(crate) digest: Digest,
    /// The plain SHA-256 of a file that was sent in parts, where it was asked for.
    pub(crate) whole: Option<[u8; 32]>,
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
    /// Nothing is to be sent, but a request for it had no answer: its object may be there, or not. Its file
    /// is gone, and it may not be deleted now, or nothing proves that it is ours.
    Unsettled,
}

/// A file on disk that differs from what is published, or an object whose file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// On disk; of a removed file, as it was published.
    pub(crate) stat: FileStat,
    pub(crate) settled: bool,
    /// Of the file on disk, once it was hashed. A plan keeps only one that the stat may stand for: any other is
    /// of this run.
    pub(crate) digest: Option<Digest>,
    /// From before a request for it is sent until the store acknowledges something: the store may hold the old
    /// version, the new one, or none. What is recorded as published is neither believed nor forgotten.
    pub(crate) attempted: bool,
}

impl Pending {
    /// The digest, if the stat may stand for it.
    pub(crate) fn known(&self) -> Option<Digest> {
        self.digest.filter(|_| self.settled)
    }
}

/// An upload in parts that was begun, or was about to be. A key may have several: one that is gone on
/// with, and those whose name was lost or that may not be aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenUpload {
    /// Stored with the object; names the upload here.
    pub(crate) token: String,
    /// Of the file when it was opened.
    pub(crate) stat: FileStat,
    /// Whether the stat may stand for the content.
    pub(crate) settled: bool,
    pub(crate) part_size: u64,
    /// Names the headers that its object gets; `None`: not known.
    pub(crate) headers: Option<[u8; 32]>,
    /// `None` until the store named it; for good where its answer was lost.
    pub(crate) upload_id: Option<String>,
    /// Another one of the same token may have been begun, whose name was lost.
    pub(crate) lost: bool,
}

/// What happened to an upload in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadStep {
    /// It is about to be begun.
    Intended(Intent),
    /// The store named it, and may (`lost`) have begun another whose name was lost.
    Begun { token: String, upload_id: String, lost: bool },
    /// A part was acknowledged: of which upload, its number, what it is.
    Part(String, u32, SentPart),
    /// The upload of this token is completed or aborted.
    Closed(String),
    /// Nothing of this token is left at the store, its lost ones included.
    Forgotten(String),
}

/// Uploads of one key whose names were lost are remembered up to so many.
const LOST_AT_MOST: usize = 16;

/// A key's open uploads after a step; a part is no step of these.
pub(crate) fn after(mut uploads: Vec<OpenUpload>, step: &UploadStep) -> Vec<OpenUpload> {
    match step {
        UploadStep::Intended(Intent { token, stat, settled, part_size, headers }) => {
            uploads.push(OpenUpload {
                token: token.clone(),
                stat: *stat,
                settled: *settled,
                part_size: *part_size,
                headers: Some(*headers),
                upload_id: None,
                lost: false,
            });
        }
        UploadStep::Begun { token, upload_id, lost } => {
            for upload in uploads.iter_mut().filter(|upload| upload.token == *token) {
                upload.upload_id = Some(upload_id.clone());
                upload.lost = *lost;
            }
        }
        UploadStep::Part(..) => {}
        UploadStep::Closed(token) => uploads.retain_mut(|upload| {
            let kept = upload.token != *token || upload.lost;
            if upload.token == *token {
                upload.upload_id = None;
            }
            kept
        }),
        UploadStep::Forgotten(token) => uploads.retain(|upload| upload.token != *token),
    }
    while uploads.iter().filter(|upload| upload.upload_id.is_none()).count() > LOST_AT_MOST {
        let oldest = uploads.iter().position(|upload| upload.upload_id.is_none());
        uploads.remove(oldest.unwrap_or_default());
    }
    uploads
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
            whole: None,
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
    #[test]
    fn an_upload_whose_name_was_lost_outlives_the_one_that_was_named() {
        let intent = |token: &str| {
            UploadStep::Intended(Intent {
                token: token.to_owned(),
                stat: FileStat::default(),
                settled: true,
                part_size: 1,
                headers: [0; 32],
            })
        };
        let begun = |token: &str, lost| UploadStep::Begun {
            token: token.to_owned(),
            upload_id: "id".to_owned(),
            lost,
        };
        let closed = |token: &str| UploadStep::Closed(token.to_owned());
        let tokens = |uploads: &[OpenUpload]| -> Vec<(String, bool)> {
            uploads.iter().map(|upload| (upload.token.clone(), upload.upload_id.is_some())).collect()
        };
        let uploads = [intent("a"), begun("a", true), intent("b"), begun("b", false), intent("c")]
            .iter()
            .fold(Vec::new(), after);
        assert_eq!(tokens(&uploads), [("a".into(), true), ("b".into(), true), ("c".into(), false)]);
        let uploads = [closed("a"), closed("b")].iter().fold(uploads, after);
        assert_eq!(tokens(&uploads), [("a".into(), false), ("c".into(), false)]);
        let uploads = after(uploads, &UploadStep::Forgotten("a".into()));
        assert_eq!(tokens(&uploads), [("c".into(), false)]);
        let many = (0..100).map(|n| intent(&n.to_string()));
        let uploads = many.fold(uploads, |uploads, step| after(uploads, &step));
        assert_eq!((uploads.len(), uploads[15].token.as_str()), (LOST_AT_MOST, "99"));
    }
}
