//! Compares all records of a cache with one listing, before they are believed again: the cache was copied, put back by a
//! backup, or is to be bound to another endpoint.
//!
//! A record is proven if the listing has its object with the same size and `ETag`. Any other record is forgotten: its file,
//! if there is one, is published again, and its object, if there is one, is no longer ours to delete. The whole prefix is
//! listed before the first record is forgotten, so a listing that fails changes nothing. It takes 24 bytes of memory for
//! each record whose object is there.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::backend::pagination::Pages;
use crate::backend::{Listed, Transfers};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::is_reserved;
use crate::rescan::report::VerifyReport;
use crate::rescan::session::Session;
use crate::rescan::verify::WRITES_AT_ONCE;
use crate::state::cache::CacheManager;
use crate::state::records::{Pending, Published};
use crate::state::rows::Row;
use crate::state::store::Write;

/// The recorded keys that a listing has, by their hashes.
pub(crate) struct ListedRecords {
    hasher: (RandomState, RandomState),
    /// `true` if the object is the one that is recorded.
    listed: HashMap<(u64, u64), bool>,
}

impl ListedRecords {
    fn hash(&self, key: &str) -> (u64, u64) {
        (self.hasher.0.hash_one(key), self.hasher.1.hash_one(key))
    }

    /// Notes an object whose key is recorded.
    fn add(&mut self, key: &str, is_proven: bool) -> Result<(), StorageError> {
        if self.listed.insert(self.hash(key), is_proven).is_none() {
            return Ok(());
        }
        let what = "the store's listing contains this key twice";
        Err(StorageError::new(ErrorKind::Protocol, Operation::List, what).with_key(key).retryable(false))
    }

    /// Forgets every record that is not proven. Calls `different` with the keys of those whose objects are other ones.
    pub(crate) fn forget_others(
        &self,
        cache: &CacheManager,
        report: &mut VerifyReport,
        mut different: impl FnMut(&str),
    ) -> Result<(), StorageError> {
        let mut writes = Vec::new();
        for row in cache.rows() {
            let Row { key, published, pending, .. } = row?;
            // A listing leaves out reserved names, which are never deleted.
            if published.is_none() || is_reserved(&key) {
                continue;
            }
            match self.listed.get(&self.hash(&key)) {
                Some(true) => continue,
                Some(false) => different(&key),
                None => report.add_missing(key.clone()),
            }
            writes.extend(forget(key, pending));
            if writes.len() >= WRITES_AT_ONCE {
                cache.apply(&std::mem::take(&mut writes))?;
            }
        }
        cache.apply(&writes)
    }
}

/// Lists the prefix, and finds out which records hold.
pub(crate) fn list_records(
    transfers: &dyn Transfers,
    session: &Session,
    cache: &CacheManager,
    report: &mut VerifyReport,
) -> Result<ListedRecords, StorageError> {
    let hasher = (RandomState::new(), RandomState::new());
    let mut records = ListedRecords { hasher, listed: HashMap::new() };
    let (mut from, mut pages) = (None, Pages::new());
    loop {
        let page = transfers.list(&session.request_context(), from.as_deref())?;
        pages.follow(page.next.as_ref(), page.keys())?;
        let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
        let known = cache.records_of(&keys)?;
        for (object, (published, _)) in page.objects.into_iter().zip(known) {
            let Some(published) = published else {
                report.add_unknown(object.key);
                continue;
            };
            let is_proven = is_as_recorded(&object, &published);
            records.add(&object.key, is_proven)?;
            report.matching += u64::from(is_proven);
            if !is_proven {
                report.add_different(object.key);
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok(records);
        }
    }
}

/// Returns true if the object is the version that is recorded. Without `ETag`s nothing shows that.
fn is_as_recorded(object: &Listed, published: &Published) -> bool {
    let tags = object.etag.as_deref().map(|tag| tag.trim_matches('"')).zip(published.etag.as_deref());
    object.size == published.stat.size && tags.is_some_and(|(listed, recorded)| listed == recorded)
}

/// Returns the writes that forget the published version of a key. What got no response stays in doubt: the object may be
/// what an interrupted run stored, and its proof of origin tells.
fn forget(key: String, pending: Option<Pending>) -> impl Iterator<Item = Write> {
    let in_doubt = pending.filter(|pending| pending.attempted);
    let in_doubt = in_doubt.map(|pending| Write::Pending(key.clone(), pending));
    std::iter::once(Write::Deleted(key)).chain(in_doubt)
}
