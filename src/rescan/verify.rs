//! Verification: what the store lists, compared with what it acknowledged.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::cache::{CacheManager, Row, Write};
use super::record::{Pending, PendingKind, Published};
use super::report::VerifyReport;
use crate::backend::{Exchange, Listed, Transfers};
use crate::error::{ErrorKind, Operation, StorageError};

/// Lists the prefix and compares it with the cache. What is missing or different counts as not
/// published from then on, so that the next rescan publishes it.
pub(crate) fn by_listing(
    transfers: &dyn Transfers,
    exchange: &Exchange<'_>,
    cache: &CacheManager,
) -> Result<VerifyReport, StorageError> {
    let mut report = VerifyReport::default();
    let (seen, writes) = compare(transfers, exchange, cache, &mut report)?;
    let missing = lacking(cache, &seen, &mut report)?;
    cache.apply(&[writes, missing].concat())?;
    Ok(report)
}

/// Keys that were listed, as hashes: 16 bytes a key, whatever its length.
struct Seen {
    hasher: (RandomState, RandomState),
    hashes: HashSet<(u64, u64)>,
}

impl Seen {
    fn hash(&self, key: &str) -> (u64, u64) {
        (self.hasher.0.hash_one(key), self.hasher.1.hash_one(key))
    }
}

fn compare(
    transfers: &dyn Transfers,
    exchange: &Exchange<'_>,
    cache: &CacheManager,
    report: &mut VerifyReport,
) -> Result<(Seen, Vec<Write>), StorageError> {
    let mut seen = Seen { hasher: (RandomState::new(), RandomState::new()), hashes: HashSet::new() };
    let (mut writes, mut from) = (Vec::new(), None);
    loop {
        let page = transfers.list(exchange, from.as_deref())?;
        for object in page.objects {
            let Some(published) = cache.published_record(&object.key)? else {
                report.unknown += 1;
                continue;
            };
            let news = seen.hashes.insert(seen.hash(&object.key));
            if !news {
                let what = "the listing names a key twice";
                return Err(StorageError::new(ErrorKind::Protocol, Operation::List, what)
                    .with_key(object.key)
                    .retryable(false));
            }
            if is_same(&object, &published) {
                report.matching += 1;
            } else {
                writes.push(lost(object.key.clone(), &published));
                report.different.push(object.key);
            }
        }
        from = page.next;
        if from.is_none() {
            return Ok((seen, writes));
        }
    }
}

fn is_same(object: &Listed, published: &Published) -> bool {
    let tags_agree = match (&object.etag, &published.etag) {
        (Some(listed), Some(given)) => listed.trim_matches('"') == given,
        _ => true,
    };
    object.size == published.stat.size && tags_agree
}

fn lacking(cache: &CacheManager, seen: &Seen, report: &mut VerifyReport) -> Result<Vec<Write>, StorageError> {
    let mut writes = Vec::new();
    for row in cache.rows() {
        let Row { key, published: Some(published), .. } = row? else {
            continue;
        };
        if !seen.hashes.contains(&seen.hash(&key)) {
            report.missing.push(key.clone());
            writes.push(lost(key, &published));
        }
    }
    Ok(writes)
}

fn lost(key: String, published: &Published) -> Write {
    let pending = Pending {
        kind: PendingKind::Added,
        stat: published.stat,
        settled: published.settled,
        digest: Some(published.digest),
        doubt: false,
    };
    Write::Lost(key, pending)
}
