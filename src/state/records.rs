//! The cache's records and their encoding on disk.
//!
//! `not_racy` in a record means that its stat is not racy ([`FileStat::is_not_racy`]): an equal stat later on means that
//! the content is the same.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::backend::{HeadersDigest, Intent, SentPart};
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// The version of a file that the store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) stat: FileStat,
    /// Set if the stat is not racy and may stand for the content ([`FileStat::is_not_racy`]).
    pub(crate) not_racy: bool,
    /// [`Digest::UNKNOWN`] for an object that was taken over without a look at its content.
    pub(crate) digest: Digest,
    /// The plain SHA-256 of a file that was sent as a multipart upload, if the configuration asked for it.
    pub(crate) whole: Option<[u8; 32]>,
    pub(crate) etag: Option<String>,
    /// The root that published it, as an index into the cache's roots.
    pub(crate) root: u32,
    /// Set if the file was on the same device as its root.
    pub(crate) with_root: bool,
    /// The digest of the headers that the object was stored with; `None` if they are not known: it was taken over, or
    /// recorded in an earlier format.
    pub(crate) headers: Option<HeadersDigest>,
}

impl Published {
    /// Returns true if both records are of the same object, whatever its headers and the stats of its file.
    pub(crate) fn is_same_object(&self, other: &Self) -> bool {
        let object = |record: &Self| (record.stat.size, record.digest, record.whole, record.etag.clone());
        object(self) == object(other)
    }

    /// Returns the digest, if the content is known.
    pub(crate) fn known_digest(&self) -> Option<Digest> {
        Some(self.digest).filter(|digest| *digest != Digest::UNKNOWN)
    }
}

/// The work that is still to be done for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PendingKind {
    /// A file that is not published yet.
    Added,
    /// A published file that changed, or may have changed.
    Modified,
    /// A published file that no longer exists; its object is to be deleted.
    Removed,
    /// A request for the key got no answer, so its object may exist or not, and the file is gone. Nothing is to be
    /// sent, and the object may not be deleted now, or cannot be proved to be ours.
    Unsettled,
    /// A published file that did not change, and whose object has other headers than the settings say.
    Headers,
}

/// A file on disk that differs from its published version, or an object whose file is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) kind: PendingKind,
    /// The stat of the file on disk; for a removed file the published one.
    pub(crate) stat: FileStat,
    /// Set if the stat is not racy ([`FileStat::is_not_racy`]).
    pub(crate) not_racy: bool,
    /// The digest of the file on disk, once it was hashed. A plan keeps it only if the stat is not racy; any other
    /// digest was made by this run.
    pub(crate) digest: Option<Digest>,
    /// Set before a request for the key is sent, until the store acknowledges one. Meanwhile the store may hold the
    /// old version, the new one, or none, so the published record is neither trusted nor dropped.
    pub(crate) attempted: bool,
}

impl Pending {
    /// The digest, if the stat is not racy.
    pub(crate) fn known(&self) -> Option<Digest> {
        self.digest.filter(|_| self.not_racy)
    }
}

/// A multipart upload that was created, or was about to be. A key may have several: one that is resumed, and others
/// whose upload ID was lost or that may not be aborted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenUpload {
    /// Our own name for the upload, chosen before it has an upload ID and stored with the object.
    pub(crate) token: String,
    /// The stat of the file when the upload was created.
    pub(crate) stat: FileStat,
    /// Set if the stat is not racy ([`FileStat::is_not_racy`]).
    pub(crate) not_racy: bool,
    pub(crate) part_size: u64,
    /// A hash of the headers that the object gets; `None` if not known.
    pub(crate) headers: Option<[u8; 32]>,
    /// `None` until the store answers with the upload ID, and for good if that answer was lost.
    pub(crate) upload_id: Option<String>,
    /// Set if a second upload of the same token may exist whose upload ID was lost.
    pub(crate) lost: bool,
}

/// A step in the life of a multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadStep {
    /// The upload is about to be created.
    Intended(Intent),
    /// The store created it. If `lost`, it may have created another one whose upload ID was lost.
    Begun { token: String, upload_id: String, lost: bool },
    /// A part was acknowledged: the upload's token, the part number, the part.
    Part(String, u32, SentPart),
    /// The upload of this token was completed or aborted.
    Closed(String),
    /// The store has nothing left of this token, lost uploads included.
    Forgotten(String),
}

/// The number of uploads without an upload ID that are remembered for each key.
const LOST_AT_MOST: usize = 16;

/// Returns a key's open uploads after a step. Parts have records of their own and change nothing here.
pub(crate) fn after(mut uploads: Vec<OpenUpload>, step: &UploadStep) -> Vec<OpenUpload> {
    match step {
        // Added before the store is asked, so that a crash leaves a trace of an upload without an ID.
        UploadStep::Intended(Intent { token, stat, not_racy, part_size, headers }) => {
            uploads.push(OpenUpload {
                token: token.clone(),
                stat: *stat,
                not_racy: *not_racy,
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
        // Parts are kept in a table of their own.
        UploadStep::Part(..) => {}
        UploadStep::Closed(token) => uploads.retain_mut(|upload| {
            // A lost second upload may still be at the store: its token is needed to find it.
            let kept = upload.token != *token || upload.lost;
            if upload.token == *token {
                // The upload with this ID is gone. What may be left has an unknown one.
                upload.upload_id = None;
            }
            kept
        }),
        UploadStep::Forgotten(token) => uploads.retain(|upload| upload.token != *token),
    }
    // The oldest are dropped, or a store that never answers would make the record grow without end.
    while uploads.iter().filter(|upload| upload.upload_id.is_none()).count() > LOST_AT_MOST {
        let oldest = uploads.iter().position(|upload| upload.upload_id.is_none());
        uploads.remove(oldest.unwrap_or_default());
    }
    uploads
}

const CHECK_BYTES: usize = 8;

/// Encodes a record: its fields in postcard's format, then the first bytes of the SHA-256 of key and fields.
pub(crate) fn encode<T: Serialize>(key: &str, record: &T) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_stdvec(record)?;
    let checksum = checksum_of(key, &bytes);
    bytes.extend_from_slice(&checksum);
    Ok(bytes)
}

/// Decodes the record of this key; `None` if its bytes are not those that were stored for the key.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Option<T> {
    let (fields, stored) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    // The key is part of it, so a record in the wrong place is found out, too.
    if stored != checksum_of(key, fields) {
        return None;
    }
    postcard::from_bytes(fields).ok()
}

fn checksum_of(key: &str, fields: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    // The length keeps the end of the key apart from the beginning of the fields.
    hasher.update((key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(fields);
    let mut checksum = [0; CHECK_BYTES];
    checksum.copy_from_slice(&hasher.finalize()[..CHECK_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_no_flipped_byte_and_no_other_key_goes_unnoticed() {
        let record = Published {
            stat: FileStat { size: 7, mtime: -1, ctime: 5, inode: 1 << 40, device: 2 },
            not_racy: true,
            digest: Digest::whole([9; 32]),
            whole: None,
            etag: Some("\"tag\"".into()),
            root: 0,
            with_root: true,
            headers: Some([3; 8]),
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
                not_racy: true,
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
