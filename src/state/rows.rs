//! The cache as a stream in key order, read a page at a time: no read transaction stays open for
//! long, as that would keep every page written since from being used again.

use std::collections::VecDeque;

use crate::error::StorageError;
use crate::state::records::{Pending, Published, decode};
use crate::state::store::{Store, Table};

/// Records read at a time.
const PAGE: usize = 1024;

/// What the cache knows of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) published: Option<Published>,
    pub(crate) pending: Option<Pending>,
    /// Runs that came to no good end have added it: it is not of the last tree that was published whole.
    pub(crate) recent: bool,
    /// A run that deletes nothing has left it.
    pub(crate) left: bool,
}

/// A stream of [`Row`]s. Changes behind its position are not seen, changes ahead of it are.
pub(crate) struct Rows<'a> {
    store: &'a dyn Store,
    /// `None`: only pending keys are wanted.
    published: Option<Pages>,
    pending: Pages,
    recent: Pages,
    left: Pages,
}

/// One table's raw records, a page at a time.
#[derive(Default)]
struct Pages {
    page: VecDeque<(String, Vec<u8>)>,
    last: Option<String>,
    at_end: bool,
}

impl Pages {
    fn fill(
        &mut self,
        read: impl FnOnce(Option<&str>) -> Result<Vec<(String, Vec<u8>)>, StorageError>,
    ) -> Result<(), StorageError> {
        if self.page.is_empty() && !self.at_end {
            self.page = read(self.last.as_deref())?.into();
            self.at_end = self.page.len() < PAGE;
            self.last = self.page.back().map(|(key, _)| key.clone());
        }
        Ok(())
    }

    fn key(&self) -> Option<&str> {
        self.page.front().map(|(key, _)| key.as_str())
    }

    fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        // A key that no other table has is passed over.
        while self.key().is_some_and(|first| first < key) {
            self.page.pop_front();
        }
        if self.key() == Some(key) { self.page.pop_front().map(|(_, bytes)| bytes) } else { None }
    }
}

impl<'a> Rows<'a> {
    pub(crate) fn new(store: &'a dyn Store, with_published: bool) -> Self {
        let (recent, left) = (Pages::default(), Pages::default());
        Self {
            store,
            published: with_published.then(Pages::default),
            pending: Pages::default(),
            recent,
            left,
        }
    }

    /// What is pending behind a key.
    pub(crate) fn behind(store: &'a dyn Store, key: &str) -> Self {
        let pending = Pages { last: Some(key.to_owned()), ..Pages::default() };
        Self { pending, ..Self::new(store, false) }
    }

    fn next_row(&mut self) -> Result<Option<Row>, StorageError> {
        let store = self.store;
        self.pending.fill(|after| store.page(Table::Pending, after, PAGE))?;
        if let Some(published) = &mut self.published {
            published.fill(|after| store.page(Table::Published, after, PAGE))?;
            self.recent.fill(|after| store.page(Table::Recent, after, PAGE))?;
            self.left.fill(|after| store.page(Table::Left, after, PAGE))?;
        }
        let keys = [self.pending.key(), self.published.as_ref().and_then(Pages::key)];
        let Some(key) = keys.into_iter().flatten().min().map(str::to_owned) else {
            return Ok(None);
        };
        let pending = self.pending.take(&key);
        let published = self.published.as_mut().and_then(|published| published.take(&key));
        let damaged = || store.damaged(&key);
        let published = published.map(|bytes| decode(&key, &bytes).ok_or_else(damaged)).transpose()?;
        let pending = pending.map(|bytes| decode(&key, &bytes).ok_or_else(damaged)).transpose()?;
        let (recent, left) = (self.recent.take(&key).is_some(), self.left.take(&key).is_some());
        Ok(Some(Row { key, published, pending, recent, left }))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
