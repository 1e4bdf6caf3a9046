//! Reads the cache as a stream in key order, a page at a time. No read transaction stays open for long: it would keep
//! the database from reusing any page that is freed meanwhile.

use std::collections::VecDeque;

use crate::error::StorageError;
use crate::state::records::{Pending, Published, decode};
use crate::state::store::{Store, Table};

/// The number of records read in one transaction.
const PAGE: usize = 1024;

/// All that the cache knows about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) published: Option<Published>,
    pub(crate) pending: Option<Pending>,
    /// An incomplete run has added it: it is not part of the last complete tree.
    pub(crate) recent: bool,
    /// Its file is gone, and a run with deletes switched off has left the object.
    pub(crate) left: bool,
}

/// A stream of [`Row`]s. Changes made meanwhile are seen only after the current page.
pub(crate) struct Rows<'a> {
    store: &'a dyn Store,
    /// `None` if only pending keys are read.
    published: Option<Pages>,
    pending: Pages,
    recent: Pages,
    left: Pages,
}

/// The encoded records of one table, a page at a time.
#[derive(Default)]
struct Pages {
    page: VecDeque<(String, Vec<u8>)>,
    /// The last key that was read; the next page follows it.
    last: Option<String>,
    at_end: bool,
}

impl Pages {
    /// Reads the next page if this one is used up.
    fn fill(
        &mut self,
        read: impl FnOnce(Option<&str>) -> Result<Vec<(String, Vec<u8>)>, StorageError>,
    ) -> Result<(), StorageError> {
        if self.page.is_empty() && !self.at_end {
            self.page = read(self.last.as_deref())?.into();
            // A page that is not full is the last one.
            self.at_end = self.page.len() < PAGE;
            self.last = self.page.back().map(|(key, _)| key.clone());
        }
        Ok(())
    }

    /// The key of the next record.
    fn key(&self) -> Option<&str> {
        self.page.front().map(|(key, _)| key.as_str())
    }

    /// Takes the record of `key`, if the table has one.
    fn take(&mut self, key: &str) -> Option<Vec<u8>> {
        // A mark whose published record was changed meanwhile is skipped.
        while self.key().is_some_and(|first| first < key) {
            self.page.pop_front();
        }
        if self.key() == Some(key) { self.page.pop_front().map(|(_, bytes)| bytes) } else { None }
    }
}

/// A stream of the records of one table as they are stored.
pub(crate) struct Marks<'a> {
    store: &'a dyn Store,
    table: Table,
    pages: Pages,
}

impl<'a> Marks<'a> {
    pub(crate) fn new(store: &'a dyn Store, table: Table) -> Self {
        Self { store, table, pages: Pages::default() }
    }
}

impl Marks<'_> {
    /// Returns true if the table has the key. The keys of later calls must follow it.
    pub(crate) fn has(&mut self, key: &str) -> Result<bool, StorageError> {
        loop {
            self.pages.fill(|after| self.store.page(self.table, after, PAGE))?;
            if self.pages.key().is_none_or(|first| first >= key) {
                return Ok(self.pages.key() == Some(key));
            }
            self.pages.page.pop_front();
        }
    }
}

impl Iterator for Marks<'_> {
    type Item = Result<(String, Vec<u8>), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let filled = self.pages.fill(|after| self.store.page(self.table, after, PAGE));
        filled.map(|()| self.pages.page.pop_front()).transpose()
    }
}

impl<'a> Rows<'a> {
    /// A stream of all keys, or of the pending ones only.
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

    /// A stream of the pending keys that follow `key`.
    pub(crate) fn pending_after(store: &'a dyn Store, key: &str) -> Self {
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
        // The next row is the smallest key of both tables.
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
