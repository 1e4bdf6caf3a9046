//! Writes a segment.

use std::io::{self, Write};
use std::marker::PhantomData;

use flate2::{Compress, Compression, FlushCompress, Status};
use sha2::{Digest as _, Sha256};

use crate::state::remote::head::SegmentRef;
use crate::state::remote::head::codec::{MAX_ROW, MAX_ROWS, MAX_SEGMENT};
use crate::state::remote::name::{SegmentKind, SegmentName};
use crate::state::remote::segment::block::{Block, put_number};
use crate::state::remote::segment::row::{Content, Last, check_kind};
use crate::state::remote::segment::{BLOCK, KeyIntent, KeyState, MAGIC, Row, SegmentError, VERSION, code};

/// Writes rows in order. Holds one block of them in memory.
#[derive(Debug)]
pub(crate) struct Writer<W, T> {
    to: Hashed<W>,
    kind: SegmentKind,
    block: Block,
    /// The block's header and fields as they are stored.
    head: Vec<u8>,
    packed: Vec<u8>,
    deflate: Compress,
    last: Last,
    rows: u64,
    unpacked: u64,
    content: PhantomData<T>,
}

/// A segment that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) rows: u64,
    /// The size in bytes of the rows before compression.
    pub(crate) unpacked: u64,
    /// The size in bytes of the segment.
    pub(crate) size: u64,
    /// The SHA-256 of the segment.
    pub(crate) sha256: [u8; 32],
}

impl Written {
    /// The reference to the segment, for the head.
    pub(crate) fn stored_as(&self, name: SegmentName) -> SegmentRef {
        let Self { rows, unpacked, size, sha256 } = *self;
        SegmentRef { name, size, sha256, rows, unpacked }
    }
}

impl<W: Write> Writer<W, KeyState> {
    pub(crate) fn snapshot(to: W) -> Self {
        Self::new(to, SegmentKind::Snapshot)
    }

    pub(crate) fn delta(to: W) -> Self {
        Self::new(to, SegmentKind::Delta)
    }
}

impl<W: Write> Writer<W, KeyIntent> {
    pub(crate) fn intent(to: W) -> Self {
        Self::new(to, SegmentKind::Intent)
    }
}

impl<W: Write, T: Content> Writer<W, T> {
    fn new(to: W, kind: SegmentKind) -> Self {
        Self {
            to: Hashed { to, hasher: Sha256::new(), size: 0 },
            kind,
            block: Block::default(),
            head: [MAGIC.as_slice(), &[VERSION, code(kind)]].concat(),
            packed: Vec::new(),
            deflate: Compress::new(Compression::default(), false),
            last: Last::default(),
            rows: 0,
            unpacked: 0,
            content: PhantomData,
        }
    }

    /// Writes the next row.
    ///
    /// # Errors
    /// After [`SegmentError::NotInOrder`], [`SegmentError::RowTooLong`] and [`SegmentError::RemovedInSnapshot`] the
    /// writer can go on without the row; after any other error it cannot.
    pub(crate) fn write(&mut self, row: &Row<T>) -> Result<(), SegmentError> {
        if !self.last.is_before(row) {
            return Err(SegmentError::NotInOrder(row.key.as_str().to_owned()));
        }
        if check_kind(&row.content, self.kind).is_err() {
            return Err(SegmentError::RemovedInSnapshot(row.key.as_str().to_owned()));
        }
        if self.block.len() >= BLOCK {
            self.write_block()?;
        }
        let shared = count_shared(&self.last.key, row.key.as_str().as_bytes());
        self.put(row, shared)?;
        self.last.replace(row, shared);
        Ok(())
    }

    fn put(&mut self, row: &Row<T>, shared: usize) -> Result<(), SegmentError> {
        let block = &mut self.block;
        let (fields, hashes, before) = (block.fields.len(), block.hashes.len(), block.len());
        row.content.put(block);
        let suffix = &row.key.as_str().as_bytes()[shared..];
        block.put_number(shared as u64);
        block.put_number(suffix.len() as u64);
        block.fields.extend_from_slice(suffix);
        let bytes = block.len() - before;
        if bytes as u64 > MAX_ROW {
            block.fields.truncate(fields);
            block.hashes.truncate(hashes);
            return Err(SegmentError::RowTooLong { key: row.key.as_str().to_owned(), bytes });
        }
        block.rows += 1;
        Ok(())
    }

    fn write_block(&mut self) -> Result<(), SegmentError> {
        let fields = pack(&mut self.deflate, &self.block.fields, &mut self.packed);
        let lengths = [self.block.fields.len(), fields.len(), self.block.hashes.len()];
        put_number(self.block.rows, &mut self.head);
        for length in lengths {
            put_number(length as u64, &mut self.head);
        }
        let parts = [&self.head, fields, &self.block.hashes];
        parts.into_iter().try_for_each(|part| self.to.write_all(part)).map_err(SegmentError::Write)?;
        self.rows += self.block.rows;
        self.unpacked += self.block.len() as u64;
        self.head.clear();
        self.block.rows = 0;
        self.block.fields.clear();
        self.block.hashes.clear();
        if self.rows > MAX_ROWS || self.to.size > MAX_SEGMENT {
            return Err(SegmentError::TooLarge { rows: self.rows, size: self.to.size });
        }
        Ok(())
    }

    /// Writes what is left, and returns the output and what is in it.
    ///
    /// # Errors
    /// Those of the output, and [`SegmentError::TooLarge`].
    pub(crate) fn finish(mut self) -> Result<(W, Written), SegmentError> {
        if self.block.rows > 0 {
            self.write_block()?;
        }
        // A segment without rows has its header alone.
        self.to.write_all(&self.head).and_then(|()| self.to.flush()).map_err(SegmentError::Write)?;
        let Hashed { to, hasher, size } = self.to;
        let sha256 = hasher.finalize().into();
        Ok((to, Written { rows: self.rows, unpacked: self.unpacked, size, sha256 }))
    }
}

/// Returns the fields deflated, or as they are if that is not smaller.
fn pack<'a>(deflate: &mut Compress, fields: &'a [u8], packed: &'a mut Vec<u8>) -> &'a [u8] {
    packed.resize(fields.len().saturating_sub(1), 0);
    deflate.reset();
    match deflate.compress(fields, packed, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => {
            // It wrote no more than `packed` holds.
            packed.truncate(usize::try_from(deflate.total_out()).unwrap_or(usize::MAX));
            packed
        }
        _ => fields,
    }
}

/// Returns the number of bytes at the beginning that are the same.
fn count_shared(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(left, right)| left == right).count()
}

/// An output, with the size and the SHA-256 of what went through.
#[derive(Debug)]
struct Hashed<W> {
    to: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
