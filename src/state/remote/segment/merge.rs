//! Several segments as one.

use std::mem;

use crate::key::RemoteKey;
use crate::state::remote::segment::row::Content as _;
use crate::state::remote::segment::{KeyState, Row, SegmentError};

/// An iterator over the rows of several segments, of which the later ones win.
///
/// A key's rows in a later segment replace all its open uploads, and its object's row if they have one themselves. So
/// a key that is published and whose upload was aborted is given again as it is published, and one that is not
/// published as removed. The result is the same in whatever groups neighbours are merged.
///
/// Holds one row of each segment in memory. Ends after the first error.
#[derive(Debug)]
pub(crate) struct Merged<I> {
    /// The oldest first.
    sources: Vec<Source<I>>,
    keeps_removed: bool,
    /// The key whose open uploads are next, and the source that has them: the latest one with the key.
    uploads: Option<(RemoteKey, usize)>,
    state: Progress,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    AtStart,
    InRows,
    AtEnd,
}

type Item = Result<Row<KeyState>, SegmentError>;

impl<I: Iterator<Item = Item>> Merged<I> {
    /// Merges neighbouring deltas into the rows of one delta. The oldest comes first.
    pub(crate) fn delta(deltas: Vec<I>) -> Self {
        Self::new(deltas, true)
    }

    /// Merges the snapshot, if there is one, and all deltas into the rows of a snapshot: those that say that a key was
    /// removed are left out. The oldest comes first.
    pub(crate) fn snapshot(all: Vec<I>) -> Self {
        Self::new(all, false)
    }

    fn new(sources: Vec<I>, keeps_removed: bool) -> Self {
        let sources = sources.into_iter().map(|rows| Source { rows, next: None }).collect();
        Self { sources, keeps_removed, uploads: None, state: Progress::AtStart }
    }

    fn next_row(&mut self) -> Result<Option<Row<KeyState>>, SegmentError> {
        if self.state == Progress::AtStart {
            self.sources.iter_mut().try_for_each(|source| source.advance().map(drop))?;
            self.state = Progress::InRows;
        }
        loop {
            if let Some((key, latest)) = &self.uploads {
                let source = &mut self.sources[*latest];
                if source.key() == Some(key) {
                    return source.advance();
                }
            }
            let Some(key) = self.sources.iter().filter_map(Source::key).min().cloned() else {
                return Ok(None);
            };
            let row = self.begin_key(key)?;
            if let Some(row) = row.filter(|row| self.keeps_removed || !row.content.is_removed()) {
                return Ok(Some(row));
            }
        }
    }

    /// Takes the latest row of the key's object, if there is one, and passes over all uploads but the latest source's.
    fn begin_key(&mut self, key: RemoteKey) -> Result<Option<Row<KeyState>>, SegmentError> {
        let (mut row, mut latest) = (None, 0);
        for (at, source) in
            self.sources.iter_mut().enumerate().filter(|(_, source)| source.key() == Some(&key))
        {
            latest = at;
            if source.next.as_ref().is_some_and(|next| next.content.upload_id().is_none()) {
                row = source.advance()?;
            }
        }
        for source in &mut self.sources[..latest] {
            while source.key() == Some(&key) {
                source.advance()?;
            }
        }
        self.uploads = Some((key, latest));
        Ok(row)
    }
}

impl<I: Iterator<Item = Item>> Iterator for Merged<I> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.state == Progress::AtEnd {
            return None;
        }
        let row = self.next_row();
        if !matches!(row, Ok(Some(_))) {
            self.state = Progress::AtEnd;
        }
        row.transpose()
    }
}

/// A segment, one row ahead.
#[derive(Debug)]
struct Source<I> {
    rows: I,
    next: Option<Row<KeyState>>,
}

impl<I> Source<I> {
    fn key(&self) -> Option<&RemoteKey> {
        self.next.as_ref().map(|row| &row.key)
    }
}

impl<I: Iterator<Item = Item>> Source<I> {
    /// Takes the next row, and reads the one that follows it.
    fn advance(&mut self) -> Result<Option<Row<KeyState>>, SegmentError> {
        let next = self.rows.next().transpose()?;
        Ok(mem::replace(&mut self.next, next))
    }
}
