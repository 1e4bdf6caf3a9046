//! Segments as objects: fetched and verified, or stored.

use std::fs::File;
use std::io::{Cursor, Read, Seek};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::backend::{Condition, SmallObject};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::bucket_state::access::{StateAccess, state_key};
use crate::state::remote::head::{Head, Inline, MAX_INLINE, Segment, SegmentRef};
use crate::state::remote::name::{SegmentKind, SegmentName, Token};
use crate::state::remote::segment::{Bounds, KeyIntent, KeyState, Reader, Written};
use crate::tree::digest::Digest;
use crate::tree::source::Source;

/// The bytes of a segment that are good: they have the SHA-256 that the head says.
pub(crate) enum SegmentBytes {
    Inline(Vec<u8>),
    /// A file without a name.
    Stored(File),
}

/// A segment that was fetched and verified.
pub(crate) struct FetchedSegment {
    kind: SegmentKind,
    bounds: Bounds,
    bytes: SegmentBytes,
}

impl FetchedSegment {
    /// A delta that this run has just written.
    pub(crate) fn of_own_delta(bytes: Vec<u8>, bounds: Bounds) -> Self {
        Self { kind: SegmentKind::Delta, bounds, bytes: SegmentBytes::Inline(bytes) }
    }

    fn into_bytes(self) -> Box<dyn Read> {
        match self.bytes {
            SegmentBytes::Inline(bytes) => Box::new(Cursor::new(bytes)),
            SegmentBytes::Stored(file) => Box::new(file),
        }
    }

    /// The rows of a snapshot or a delta.
    pub(crate) fn into_rows(self) -> Reader<Box<dyn Read>, KeyState> {
        let (kind, bounds) = (self.kind, self.bounds);
        match kind {
            SegmentKind::Snapshot => Reader::snapshot(self.into_bytes(), bounds),
            SegmentKind::Delta | SegmentKind::Intent => Reader::delta(self.into_bytes(), bounds),
        }
    }

    /// The rows of an intent.
    pub(crate) fn into_intents(self) -> Reader<Box<dyn Read>, KeyIntent> {
        let bounds = self.bounds;
        Reader::intent(self.into_bytes(), bounds)
    }
}

/// Fetches a segment. `None`: its object is missing, or is not the one that the head means.
pub(crate) fn fetch(
    access: &StateAccess,
    scratch: &Path,
    kind: SegmentKind,
    segment: &Segment,
) -> Result<Option<FetchedSegment>, StorageError> {
    let bytes = match segment {
        Segment::Inline(inline) => SegmentBytes::Inline(inline.bytes.clone()),
        Segment::Stored(stored) => match fetch_object(access, scratch, stored)? {
            Some(file) => SegmentBytes::Stored(file),
            None => return Ok(None),
        },
    };
    Ok(Some(FetchedSegment { kind, bounds: Bounds::from(segment), bytes }))
}

fn fetch_object(
    access: &StateAccess,
    scratch: &Path,
    stored: &SegmentRef,
) -> Result<Option<File>, StorageError> {
    let mut file = tempfile::tempfile_in(scratch).map_err(|error| scratch_error(scratch, error))?;
    let key = segment_key(stored.name)?;
    match access.objects()?.get_to_file(&access.context(), &key, stored.size, &mut file) {
        Ok(sha256) if sha256 == stored.sha256 => {
            file.rewind().map_err(|error| scratch_error(scratch, error))?;
            Ok(Some(file))
        }
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Integrity) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns a segment of these bytes: in the head if there is room, else as an object, which is stored now.
pub(crate) fn place_bytes(
    access: &StateAccess,
    head: Option<&Head>,
    name: SegmentName,
    bytes: Vec<u8>,
    written: &Written,
) -> Result<Segment, StorageError> {
    if head.map_or(bytes.len() <= MAX_INLINE, |head| head.has_room_for(bytes.len())) {
        return Ok(Segment::Inline(Inline { rows: written.rows, unpacked: written.unpacked, bytes }));
    }
    let (key, content_type) = (segment_key(name)?, "application/octet-stream");
    let object = SmallObject { key: &key, bytes: &bytes, content_type, condition: &Condition::None };
    access.objects()?.put_small(&access.context(), &object)?;
    Ok(Segment::Stored(written.stored_as(name)))
}

/// Stores a segment that was written to a file.
pub(crate) fn store_file(
    access: &StateAccess,
    name: SegmentName,
    file: &NamedTempFile,
    written: &Written,
) -> Result<Segment, StorageError> {
    let (source, digest) = (Source::open(file.path())?, Digest::whole(written.sha256));
    access.objects()?.put_file(&access.context(), &segment_key(name)?, &source, &digest)?;
    Ok(Segment::Stored(written.stored_as(name)))
}

/// Deletes a segment's object.
pub(crate) fn delete(access: &StateAccess, name: SegmentName) -> Result<(), StorageError> {
    access.objects()?.delete_small(&access.context(), &segment_key(name)?)
}

/// A new name for a segment of this epoch.
pub(crate) fn new_name(kind: SegmentKind, epoch: u64) -> SegmentName {
    SegmentName { kind, epoch, token: Token::new(fastrand::u128(..).to_be_bytes()) }
}

/// Creates a file beside the cache for a segment that is too large for memory.
pub(crate) fn scratch_file(scratch: &Path) -> Result<NamedTempFile, StorageError> {
    NamedTempFile::new_in(scratch).map_err(|error| scratch_error(scratch, error))
}

pub(crate) fn scratch_error(scratch: &Path, error: std::io::Error) -> StorageError {
    StorageError::io(ErrorKind::Cache, Operation::State, scratch, error)
}

fn segment_key(name: SegmentName) -> Result<RemoteKey, StorageError> {
    state_key(&name.to_string())
}
