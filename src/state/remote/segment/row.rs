//! Rows, and their fields in a block.

use std::num::NonZeroU64;

use crate::backend::HeadersDigest;
use crate::key::RemoteKey;
use crate::state::remote::name::{MAX_NUMBER, SegmentKind};
use crate::state::remote::segment::block::{Block, Cursor, Decoded};
use crate::state::remote::segment::etag::Form;
use crate::tree::digest::Digest;

/// A row of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row<T> {
    pub(crate) key: RemoteKey,
    pub(crate) content: T,
}

/// A row of a snapshot or a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// The store has acknowledged this version of the object.
    Published {
        size: u64,
        /// None if it is not known.
        digest: Option<Digest>,
        /// The ETag exactly as it was given.
        etag: Option<String>,
        /// The generation of the head under which a run that was not complete has added the key; none if the key was
        /// part of the complete tree. Once the head has a later generation, the key is part of that tree.
        recent: Option<u64>,
        /// The digest of the object's headers; none if they are not known.
        headers: Option<HeadersDigest>,
    },
    /// The object was deleted. In deltas only.
    Removed,
    /// A multipart upload that was created.
    Open { upload_id: String, token: String },
}

/// A row of an intent: a request that a run may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyIntent {
    pub(crate) planned: Planned,
    /// The object's ETag before, if it is known and there is an object.
    pub(crate) before: Option<String>,
}

/// The kind of request that a run may send for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planned {
    Put,
    Delete,
    Multipart,
}

/// The content of a row.
pub(crate) trait Content: Sized {
    /// Returns the upload ID of an open upload.
    fn upload_id(&self) -> Option<&str> {
        None
    }

    /// Returns true for a key that was deleted.
    fn is_removed(&self) -> bool {
        false
    }

    /// Appends the tag and what it calls for.
    fn put(&self, block: &mut Block);

    /// Takes what the tag calls for.
    fn take(tag: u8, from: &mut Cursor<'_>) -> Decoded<Self>;
}

const WHAT: u8 = 0b11;
const DIGEST_AT: u8 = 2;
const DIGEST: u8 = 0b11 << DIGEST_AT;
const ETAG_AT: u8 = 4;
const ETAG: u8 = 0b111 << ETAG_AT;
const RECENT: u8 = 1 << 7;

const PUBLISHED: u8 = 0;
const REMOVED: u8 = 1;
const OPEN: u8 = 2;
/// Since version 2.
const PUBLISHED_WITH_HEADERS: u8 = 3;

const UNKNOWN: u8 = 0;
const WHOLE: u8 = 1;
const OF_PARTS: u8 = 2;

impl Content for KeyState {
    fn upload_id(&self) -> Option<&str> {
        match self {
            Self::Open { upload_id, .. } => Some(upload_id),
            _ => None,
        }
    }

    fn is_removed(&self) -> bool {
        *self == Self::Removed
    }

    fn put(&self, block: &mut Block) {
        match self {
            Self::Published { size, digest, etag, recent, headers } => {
                let what = headers.map_or(PUBLISHED, |_| PUBLISHED_WITH_HEADERS);
                let form = Form::of(etag.as_deref());
                let mark = recent.map_or(0, |_| RECENT);
                let digest_form = digest_bits(digest.as_ref());
                block.fields.push(what | digest_form << DIGEST_AT | form.bits() << ETAG_AT | mark);
                block.put_number(*size);
                if let Some(digest) = digest {
                    put_digest(digest, block);
                }
                form.put(block);
                if let Some(generation) = recent {
                    block.put_number(*generation);
                }
                // Not among the hashes: many objects have the same, so it compresses.
                block.fields.extend_from_slice(headers.as_ref().map_or(&[], |headers| headers.as_slice()));
            }
            Self::Removed => block.fields.push(REMOVED),
            Self::Open { upload_id, token } => {
                block.fields.push(OPEN);
                block.put_text(upload_id);
                block.put_text(token);
            }
        }
    }

    fn take(tag: u8, from: &mut Cursor<'_>) -> Decoded<Self> {
        match (tag & WHAT, tag & !WHAT) {
            (what @ (PUBLISHED | PUBLISHED_WITH_HEADERS), form) => {
                let size = from.number()?;
                let digest = take_digest((form & DIGEST) >> DIGEST_AT, from)?;
                let etag = Form::take((form & ETAG) >> ETAG_AT, from)?;
                let recent = (form & RECENT != 0).then(|| take_generation(from)).transpose()?;
                let headers = (what == PUBLISHED_WITH_HEADERS).then(|| from.fixed()).transpose()?;
                Ok(Self::Published { size, digest, etag, recent, headers })
            }
            (REMOVED, 0) => Ok(Self::Removed),
            (OPEN, 0) => {
                Ok(Self::Open { upload_id: from.text()?.to_owned(), token: from.text()?.to_owned() })
            }
            _ => Err("an unknown tag"),
        }
    }
}

fn digest_bits(digest: Option<&Digest>) -> u8 {
    digest.map_or(UNKNOWN, |digest| digest.part_size().map_or(WHOLE, |_| OF_PARTS))
}

fn put_digest(digest: &Digest, block: &mut Block) {
    block.hashes.extend_from_slice(digest.as_bytes());
    if let Some(part_size) = digest.part_size() {
        block.put_number(part_size);
    }
}

fn take_digest(form: u8, from: &mut Cursor<'_>) -> Decoded<Option<Digest>> {
    match form {
        UNKNOWN => Ok(None),
        WHOLE => Ok(Some(Digest::whole(from.hash()?))),
        OF_PARTS => {
            let part_size = NonZeroU64::new(from.number()?).ok_or("a part size of zero")?;
            Ok(Some(Digest::known(from.hash()?, Some(part_size))))
        }
        _ => Err("an unknown form of digest"),
    }
}

fn take_generation(from: &mut Cursor<'_>) -> Decoded<u64> {
    let generation = from.number()?;
    if generation <= MAX_NUMBER { Ok(generation) } else { Err("a generation is too large") }
}

impl Content for KeyIntent {
    fn put(&self, block: &mut Block) {
        let form = Form::of(self.before.as_deref());
        let planned = match self.planned {
            Planned::Put => 0,
            Planned::Delete => 1,
            Planned::Multipart => 2,
        };
        block.fields.push(planned | form.bits() << ETAG_AT);
        form.put(block);
    }

    fn take(tag: u8, from: &mut Cursor<'_>) -> Decoded<Self> {
        let planned = match tag & !ETAG {
            0 => Planned::Put,
            1 => Planned::Delete,
            2 => Planned::Multipart,
            _ => return Err("an unknown tag"),
        };
        Ok(Self { planned, before: Form::take((tag & ETAG) >> ETAG_AT, from)? })
    }
}

/// The row that comes before, which decides what may follow.
#[derive(Debug, Default)]
pub(super) struct Last {
    /// Empty before the first row. No key is.
    pub(super) key: Vec<u8>,
    upload_id: Option<String>,
}

impl Last {
    /// Returns true if the row comes after this one.
    pub(super) fn is_before<T: Content>(&self, row: &Row<T>) -> bool {
        let last = (self.key.as_slice(), self.upload_id.as_deref());
        last < (row.key.as_str().as_bytes(), row.content.upload_id())
    }

    /// Puts the row in place of this one. The first `shared` bytes of the keys are known to be equal.
    pub(super) fn replace<T: Content>(&mut self, row: &Row<T>, shared: usize) {
        self.key.truncate(shared);
        self.key.extend_from_slice(&row.key.as_str().as_bytes()[shared..]);
        self.upload_id = row.content.upload_id().map(str::to_owned);
    }
}

/// Returns an error text if a segment of the kind has no such rows.
pub(super) fn check_kind<T: Content>(content: &T, kind: SegmentKind) -> Decoded<()> {
    if kind == SegmentKind::Snapshot && content.is_removed() {
        Err("a removed key in a snapshot")
    } else {
        Ok(())
    }
}
