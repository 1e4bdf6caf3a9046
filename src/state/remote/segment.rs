//! The rows of a segment as bytes.
//!
//! # Architecture
//!
//! | | |
//! |---|---|
//! | [`Row`] | a key with its [`KeyState`] (snapshots and deltas) or its [`KeyIntent`] (intents) |
//! | [`Writer`] | takes rows in order and writes a segment |
//! | [`Reader`] | an iterator over the rows of a segment, within the [`Bounds`] that the head declares |
//! | [`Merged`] | several deltas, or a snapshot and its deltas, as one iterator |
//!
//! # Order
//!
//! Rows ascend strictly by key. A key has at most one row for its object (published, removed or intended); its open
//! uploads follow, in the order of their upload IDs.
//!
//! # Layout
//!
//! `BBSG`, a byte for the version, a byte for the kind; then blocks up to the number of rows in the head. Nothing
//! follows. A number is a varint: seven bits a byte, the lowest first.
//!
//! - A block: the number of rows, the bytes of its fields, of its fields as stored, and of its hashes; the fields,
//!   deflated unless that does not make them smaller; the hashes.
//! - The fields of a row: a tag; what the tag calls for (size, part size, an ETag's number of parts or its text, the
//!   generation since which the key is recent, 8 bytes of the digest of the object's headers; the upload ID and the token); the number of bytes that the key shares with the row before; the rest of the key.
//! - The hashes of a row: the SHA-256 of its digest, and its ETag if that is an MD5. They do not compress, and between
//!   the fields they would make these compress badly: 1,000,000 rows would take 2 MB more, and twice the time to deflate.
//! - A tag: bits 0 and 1 say what the row is, 2 and 3 the form of the digest, 4 to 6 the form of the ETag; bit 7
//!   is set if the key is recent: a run that was not complete has added it.
//!
//! There is no checksum: the head has the SHA-256 of the whole. It is to be verified before the first row is used.

mod block;
mod etag;
mod merge;
mod reader;
mod row;
#[cfg(test)]
mod tests;
mod writer;

use std::io;

use crate::state::remote::head::codec::{MAX_ROW, MAX_ROWS, MAX_SEGMENT};
use crate::state::remote::head::{Inline, Segment, SegmentRef};
use crate::state::remote::name::SegmentKind;

pub(crate) use self::merge::Merged;
pub(crate) use self::reader::Reader;
pub(crate) use self::row::{KeyIntent, KeyState, Planned, Row};
pub(crate) use self::writer::{Writer, Written};

const MAGIC: &[u8; 4] = b"BBSG";
/// Version 1 has no digests of headers.
const VERSION: u8 = 2;
const OLDEST_VERSION: u8 = 1;
/// A block of this many bytes before compression is complete.
const BLOCK: usize = 256 * 1024;
/// The largest block: one byte less than a complete one, and the longest row.
#[allow(clippy::cast_possible_truncation, reason = "a row has 4 KiB at most")]
const MAX_BLOCK: usize = BLOCK + MAX_ROW as usize;

/// The reason why a segment cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    /// The input failed.
    #[error("cannot read a segment: {0}")]
    Read(#[source] io::Error),
    /// The output failed.
    #[error("cannot write a segment: {0}")]
    Write(#[source] io::Error),
    /// Not a segment, not the one that the head declares, or a value out of its bounds.
    #[error("the segment is damaged after {rows} rows: {what}")]
    Damaged { rows: u64, what: &'static str },
    /// Written by a version whose segments this one cannot read.
    #[error("the segment has version {0}, and this program reads {VERSION}: update it")]
    NewerVersion(u8),
    /// A row that does not follow the one before. It was not written.
    #[error("the row of {0:?} does not follow the row before: sort rows by key, then by upload ID")]
    NotInOrder(String),
    /// A row that is too long. It was not written.
    #[error("the row of {key:?} has {bytes} bytes: at most {MAX_ROW} are allowed")]
    RowTooLong { key: String, bytes: usize },
    /// A removed key in a snapshot. It was not written.
    #[error("the row of {0:?} says that it was removed: a snapshot has no such rows")]
    RemovedInSnapshot(String),
    /// More rows or bytes than a segment may have.
    #[error("the segment has {rows} rows and {size} bytes: at most {MAX_ROWS} and {MAX_SEGMENT} are allowed")]
    TooLarge { rows: u64, size: u64 },
}

/// The size of a segment as the head declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) rows: u64,
    /// The size in bytes of the rows before compression.
    pub(crate) unpacked: u64,
}

impl From<&Segment> for Bounds {
    fn from(segment: &Segment) -> Self {
        match segment {
            Segment::Stored(SegmentRef { rows, unpacked, .. })
            | Segment::Inline(Inline { rows, unpacked, .. }) => Self { rows: *rows, unpacked: *unpacked },
        }
    }
}

impl From<&Written> for Bounds {
    fn from(written: &Written) -> Self {
        Self { rows: written.rows, unpacked: written.unpacked }
    }
}

fn code(kind: SegmentKind) -> u8 {
    match kind {
        SegmentKind::Snapshot => 0,
        SegmentKind::Delta => 1,
        SegmentKind::Intent => 2,
    }
}
