//! Reads a segment. Nothing in it is believed: each length is checked against the head's before memory is reserved.

use std::io::{BufReader, ErrorKind, Read};
use std::marker::PhantomData;

use flate2::{Decompress, FlushDecompress, Status};

use crate::key::RemoteKey;
use crate::state::remote::head::codec::MAX_ROW;
use crate::state::remote::name::SegmentKind;
use crate::state::remote::segment::block::{Block, Cursor, Decoded, take_number};
use crate::state::remote::segment::row::{Content, Last, check_kind};
use crate::state::remote::segment::{
    Bounds, KeyIntent, KeyState, MAGIC, MAX_BLOCK, OLDEST_VERSION, Row, SegmentError, VERSION, code,
};

/// An iterator over the rows of a segment. Holds one block of them in memory.
///
/// The segment's SHA-256 is to be verified before the first row is used. The last item is an error if anything is
/// missing or left over, so a segment is whole only if it was read to its end.
#[derive(Debug)]
pub(crate) struct Reader<R, T> {
    from: BufReader<R>,
    kind: SegmentKind,
    /// What the blocks that were not read yet may have.
    left: Bounds,
    /// The block that is being read, with the rows left in it.
    block: Block,
    fields_at: usize,
    hashes_at: usize,
    packed: Vec<u8>,
    inflate: Decompress,
    last: Last,
    rows: u64,
    state: Progress,
    content: PhantomData<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    AtHeader,
    InRows,
    AtEnd,
}

/// What went wrong, before it is known after how many rows.
enum Trouble {
    Damage(&'static str),
    Error(SegmentError),
}

impl From<&'static str> for Trouble {
    fn from(what: &'static str) -> Self {
        Self::Damage(what)
    }
}

impl<R: Read> Reader<R, KeyState> {
    pub(crate) fn snapshot(from: R, bounds: Bounds) -> Self {
        Self::new(from, SegmentKind::Snapshot, bounds)
    }

    pub(crate) fn delta(from: R, bounds: Bounds) -> Self {
        Self::new(from, SegmentKind::Delta, bounds)
    }
}

impl<R: Read> Reader<R, KeyIntent> {
    pub(crate) fn intent(from: R, bounds: Bounds) -> Self {
        Self::new(from, SegmentKind::Intent, bounds)
    }
}

impl<R: Read, T: Content> Reader<R, T> {
    fn new(from: R, kind: SegmentKind, bounds: Bounds) -> Self {
        Self {
            from: BufReader::new(from),
            kind,
            left: bounds,
            block: Block::default(),
            fields_at: 0,
            hashes_at: 0,
            packed: Vec::new(),
            inflate: Decompress::new(false),
            last: Last::default(),
            rows: 0,
            state: Progress::AtHeader,
            content: PhantomData,
        }
    }

    /// The memory reserved for the block, in bytes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn reserved(&self) -> usize {
        self.block.fields.capacity() + self.block.hashes.capacity() + self.packed.capacity()
    }

    fn next_row(&mut self) -> Result<Option<Row<T>>, Trouble> {
        if self.state == Progress::AtHeader {
            self.read_header()?;
            self.state = Progress::InRows;
        }
        if self.block.rows == 0 {
            self.check_block_is_used_up()?;
            if self.left.rows == 0 {
                return self.check_end().map(|()| None);
            }
            self.read_block()?;
        }
        let row = self.take_row()?;
        self.block.rows -= 1;
        self.rows += 1;
        Ok(Some(row))
    }

    fn read_header(&mut self) -> Result<(), Trouble> {
        let mut header = [0; MAGIC.len() + 2];
        read_exact(&mut self.from, &mut header)?;
        let [magic @ .., version, kind] = header;
        if magic != *MAGIC {
            return Err("it is no segment".into());
        }
        if version > VERSION {
            return Err(Trouble::Error(SegmentError::NewerVersion(version)));
        }
        if version < OLDEST_VERSION || kind != code(self.kind) {
            return Err("its kind is another".into());
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<(), Trouble> {
        let rows = self.read_number()?;
        let [fields, packed, hashes] = [self.read_length()?, self.read_length()?, self.read_length()?];
        let unpacked = (fields + hashes) as u64;
        if rows == 0 || rows > self.left.rows || unpacked > self.left.unpacked {
            return Err("more rows or bytes than declared, or an empty block".into());
        }
        if fields + hashes > MAX_BLOCK || packed > fields {
            return Err("a block is too large".into());
        }
        self.left = Bounds { rows: self.left.rows - rows, unpacked: self.left.unpacked - unpacked };
        self.block.rows = rows;
        (self.fields_at, self.hashes_at) = (0, 0);
        self.block.fields.resize(fields, 0);
        self.block.hashes.resize(hashes, 0);
        self.read_fields(packed)?;
        read_exact(&mut self.from, &mut self.block.hashes)
    }

    fn read_fields(&mut self, packed: usize) -> Result<(), Trouble> {
        let fields = &mut self.block.fields;
        if packed == fields.len() {
            return read_exact(&mut self.from, fields);
        }
        self.packed.resize(packed, 0);
        read_exact(&mut self.from, &mut self.packed)?;
        self.inflate.reset(false);
        let status = self.inflate.decompress(&self.packed, fields, FlushDecompress::Finish);
        let is_whole =
            (self.inflate.total_in(), self.inflate.total_out()) == (packed as u64, fields.len() as u64);
        if matches!(status, Ok(Status::StreamEnd)) && is_whole {
            Ok(())
        } else {
            Err("a block does not inflate to its size".into())
        }
    }

    fn read_number(&mut self) -> Result<u64, Trouble> {
        let from = &mut self.from;
        take_number(|| {
            let mut byte = [0];
            read_exact(from, &mut byte).map(|()| byte[0])
        })
    }

    fn read_length(&mut self) -> Result<usize, Trouble> {
        let length = usize::try_from(self.read_number()?).unwrap_or(usize::MAX);
        if length > MAX_BLOCK { Err("a block is too large".into()) } else { Ok(length) }
    }

    fn take_row(&mut self) -> Decoded<Row<T>> {
        // Neither is ever beyond the end of its bytes.
        let (fields, hashes) = (&self.block.fields[self.fields_at..], &self.block.hashes[self.hashes_at..]);
        let mut cursor = Cursor { fields, hashes };
        let before = cursor.len();
        let tag = cursor.byte()?;
        let content = T::take(tag, &mut cursor)?;
        check_kind(&content, self.kind)?;
        let (key, shared) = take_key(&self.last.key, &mut cursor)?;
        if (before - cursor.len()) as u64 > MAX_ROW {
            return Err("a row is too long");
        }
        let row = Row { key, content };
        if !self.last.is_before(&row) {
            return Err("its rows are not in order");
        }
        self.fields_at = self.block.fields.len() - cursor.fields.len();
        self.hashes_at = self.block.hashes.len() - cursor.hashes.len();
        self.last.replace(&row, shared);
        Ok(row)
    }

    fn check_block_is_used_up(&self) -> Decoded<()> {
        let used = (self.fields_at, self.hashes_at) == (self.block.fields.len(), self.block.hashes.len());
        if used { Ok(()) } else { Err("a block has more bytes than its rows") }
    }

    fn check_end(&mut self) -> Result<(), Trouble> {
        if self.left.unpacked > 0 {
            return Err("fewer bytes than declared".into());
        }
        match read_exact(&mut self.from, &mut [0]) {
            Ok(()) => Err("bytes follow its last row".into()),
            Err(Trouble::Damage(_)) => Ok(()),
            error => error,
        }
    }
}

/// Takes a key, and returns how many bytes it shares with the one before.
fn take_key(last: &[u8], cursor: &mut Cursor<'_>) -> Decoded<(RemoteKey, usize)> {
    let shared = usize::try_from(cursor.number()?).unwrap_or(usize::MAX);
    let (prefix, suffix) = (last.get(..shared).ok_or("a key shares more than there is")?, cursor.bytes()?);
    let key = String::from_utf8([prefix, suffix].concat()).map_err(|_| "a key is not UTF-8")?;
    RemoteKey::new(key).map(|key| (key, shared)).map_err(|_| "an invalid key")
}

fn read_exact(from: &mut impl Read, bytes: &mut [u8]) -> Result<(), Trouble> {
    from.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => "it ends early".into(),
        _ => Trouble::Error(SegmentError::Read(error)),
    })
}

impl<R: Read, T: Content> Iterator for Reader<R, T> {
    type Item = Result<Row<T>, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == Progress::AtEnd {
            return None;
        }
        let row = self.next_row();
        if !matches!(row, Ok(Some(_))) {
            self.state = Progress::AtEnd;
        }
        let rows = self.rows;
        row.transpose().map(|row| {
            row.map_err(|trouble| match trouble {
                Trouble::Damage(what) => SegmentError::Damaged { rows, what },
                Trouble::Error(error) => error,
            })
        })
    }
}
