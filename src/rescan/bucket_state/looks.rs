//! Looks at the keys in doubt: those that requests of ended claims may still change. What has moved is recorded as it is,
//! and the plan is made again.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::backend::pagination::Pages;
use crate::backend::{StoredObject, Transfers};
use crate::engine::Engine;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::bucket_state::StateRun;
use crate::rescan::bucket_state::access::StateAccess;
use crate::rescan::bucket_state::dead_uploads::DeadUploads;
use crate::rescan::bucket_state::pull::{intent_keys, scratch_of};
use crate::rescan::bucket_state::segment_objects::{FetchedSegment, new_name, scratch_file, store_file};
use crate::rescan::context::Context;
use crate::rescan::dispatch::heads::{self, Answer};
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::of_segment;
use crate::state::records::Published;
use crate::state::remote::doubt::Looked;
use crate::state::remote::head::{Doubt, Head, Keys, Segment};
use crate::state::remote::name::SegmentKind;
use crate::state::remote::segment::{KeyIntent, Planned, Row, Writer};
use crate::state::store::Write;
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// With more keys in doubt than this they are not asked for one by one: a listing shows which have moved.
const MOST_HEADS: u64 = 1000;
/// The most keys that doubts are merged from.
const MOST_MERGED: usize = 10_000_000;

impl StateRun {
    /// Looks at everything that is in doubt, under our claim. Returns true if the records have changed.
    pub(crate) fn look_at_doubts(
        &mut self,
        engine: &Engine,
        context: &Arc<Context>,
    ) -> Result<bool, StorageError> {
        let Some(claim) = self.claim.clone() else { return Ok(false) };
        let head = claim.head();
        if head.doubt.is_empty() {
            return Ok(false);
        }
        self.all_looked = false;
        // Before the first key is asked for.
        let Some(at) = claim.store_time()? else { return Ok(false) };
        let look = Look { engine, context, access: &self.access, cache: &self.cache, head: &head };
        let mut changed = false;
        let mut whole = true;
        for doubt in &head.doubt {
            let (moved, all) = look.at(doubt)?;
            changed |= moved;
            whole &= all;
            if all {
                self.looked.push(Looked { token: doubt.token, at });
            }
        }
        self.all_looked = whole;
        Ok(changed)
    }
}

struct Look<'a> {
    engine: &'a Engine,
    context: &'a Arc<Context>,
    access: &'a StateAccess,
    cache: &'a CacheManager,
    head: &'a Head,
}

/// What a look found so far.
#[derive(Default)]
struct Findings {
    changed: bool,
    failed: u64,
}

impl Look<'_> {
    /// Looks at the keys of one doubt. Returns whether the records have changed, and whether every key was seen.
    fn at(&self, doubt: &Doubt) -> Result<(bool, bool), StorageError> {
        let mut findings = Findings::default();
        let count: u64 = doubt.keys.intents().iter().map(rows_of).sum();
        let mut keys = Vec::new();
        let mut all = doubt.keys == Keys::All;
        for intent in doubt.keys.intents() {
            match intent_keys(self.access, self.cache, intent)? {
                Some(fetched) => keys.push(fetched),
                // Nobody knows what it named.
                None => all = true,
            }
        }
        if all || count > MOST_HEADS {
            let named = if all { None } else { Some(keys) };
            self.by_listing(named, &mut findings)?;
        } else {
            for intent in keys {
                self.by_heads(doubt, intent, &mut findings)?;
            }
        }
        Ok((findings.changed, findings.failed == 0))
    }

    /// Asks for each key.
    fn by_heads(
        &self,
        doubt: &Doubt,
        intent: FetchedSegment,
        findings: &mut Findings,
    ) -> Result<(), StorageError> {
        let (mut rows, mut large) = (intent.into_intents(), Vec::new());
        let next = || {
            let Some(row) = rows.next().transpose().map_err(of_segment)? else { return Ok(None) };
            let key = row.key.into_string();
            if row.content.planned == Planned::Multipart {
                large.push(key.clone());
            }
            Ok(Some((key, ())))
        };
        let changed = &mut findings.changed;
        let took = |answers| self.record(answers, changed);
        findings.failed += heads::ask(self.engine, self.context, next, took)?;
        if let Some(dead) = DeadUploads::of(self.head, doubt, self.cache)?.filter(|_| !large.is_empty()) {
            large.iter().try_for_each(|key| dead.abort(self.context, key))?;
        }
        Ok(())
    }

    /// Asks only for objects whose ETag has moved, and for those that are not listed. `named` are the keys in doubt;
    /// without them it is all that is published.
    fn by_listing(
        &self,
        named: Option<Vec<FetchedSegment>>,
        findings: &mut Findings,
    ) -> Result<(), StorageError> {
        let transfers = self.transfers()?;
        let doubted = named.map(KeySet::of).transpose()?;
        let (mut listed, mut from, mut pages) = (KeySet::default(), None, Pages::new());
        loop {
            let page = transfers.list(&self.context.request_context(), from.as_deref())?;
            pages.follow(page.next.as_ref(), page.objects.iter().map(|object| object.key.as_str()))?;
            let keys: Vec<_> = page.objects.iter().map(|object| object.key.as_str()).collect();
            let records = self.cache.records_of(&keys)?;
            let mut moved = Vec::new();
            for (object, (published, _)) in page.objects.iter().zip(records) {
                listed.insert(&object.key);
                let is_named =
                    doubted.as_ref().map_or(published.is_some(), |keys| keys.contains(&object.key));
                let tag = object.etag.as_deref().map(|tag| tag.trim_matches('"'));
                let same = published.is_some_and(|there| {
                    there.stat.size == object.size && tag.is_some() && there.etag.as_deref() == tag
                });
                if is_named && !same && RemoteKey::new(object.key.clone()).is_ok() {
                    moved.push((object.key.clone(), ()));
                }
            }
            self.ask_for(moved, findings)?;
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        self.ask_for_unlisted(&listed, doubted.as_ref(), findings)
    }

    /// Asks for what is published and was not listed: it may be gone.
    fn ask_for_unlisted(
        &self,
        listed: &KeySet,
        doubted: Option<&KeySet>,
        findings: &mut Findings,
    ) -> Result<(), StorageError> {
        let mut rows = self.cache.rows();
        let next = || {
            for row in &mut rows {
                let row = row?;
                let wanted = row.published.is_some() && doubted.is_none_or(|keys| keys.contains(&row.key));
                if wanted && !listed.contains(&row.key) {
                    return Ok(Some((row.key, ())));
                }
            }
            Ok(None)
        };
        let changed = &mut findings.changed;
        findings.failed +=
            heads::ask(self.engine, self.context, next, |answers| self.record(answers, changed))?;
        Ok(())
    }

    fn ask_for(&self, keys: Vec<(String, ())>, findings: &mut Findings) -> Result<(), StorageError> {
        let mut keys = keys.into_iter();
        let changed = &mut findings.changed;
        let took = |answers| self.record(answers, changed);
        findings.failed += heads::ask(self.engine, self.context, || Ok(keys.next()), took)?;
        Ok(())
    }

    /// Records what is there, where that is not what is recorded.
    fn record(&self, answers: Vec<Answer<()>>, changed: &mut bool) -> Result<(), StorageError> {
        let mut writes = Vec::new();
        for (key, (), found) in answers {
            let (published, pending) = self.cache.records(&key)?;
            let is_moved = match (&found, &published) {
                (None, None) => false,
                (Some(found), Some(there)) => {
                    found.size != there.stat.size || found.etag.is_none() || found.etag != there.etag
                }
                _ => true,
            };
            if is_moved {
                match found {
                    None => writes.push(Write::Deleted(key.clone())),
                    Some(found) => writes.extend(self.as_published(&key, found)),
                }
                *changed = true;
            } else if pending.is_some_and(|pending| pending.attempted) {
                // It is as it was before the request that got no answer.
                writes.push(Write::Settled(key));
                *changed = true;
            }
        }
        self.cache.apply(&writes)
    }

    /// Returns the writes that record an object of ours; none for an object of somebody else, which stays as it is.
    fn as_published(&self, key: &str, found: StoredObject) -> Vec<Write> {
        let Some(proof) = found.proof.filter(|_| found.is_as_stored) else { return Vec::new() };
        let device = self.context.root_device;
        let published = Published {
            stat: FileStat { size: found.size, device, ..FileStat::default() },
            not_racy: false,
            digest: proof.digest.unwrap_or(Digest::UNKNOWN),
            whole: None,
            etag: found.etag,
            root: self.context.known.number,
            with_root: true,
        };
        vec![Write::Published(key.to_owned(), published), Write::Recent(key.to_owned())]
    }

    fn transfers(&self) -> Result<&dyn Transfers, StorageError> {
        self.context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Unsupported, Operation::List, "this backend cannot list objects")
        })
    }
}

fn rows_of(segment: &Segment) -> u64 {
    match segment {
        Segment::Stored(stored) => stored.rows,
        Segment::Inline(inline) => inline.rows,
    }
}

/// Keys as hashes: 8 bytes each. Two keys with one hash only lead to a HEAD more, or to a key that a later look sees.
#[derive(Default)]
struct KeySet {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl KeySet {
    fn of(intents: Vec<FetchedSegment>) -> Result<Self, StorageError> {
        let mut set = Self::default();
        for intent in intents {
            for row in intent.into_intents() {
                set.insert(row.map_err(of_segment)?.key.as_str());
            }
        }
        Ok(set)
    }

    fn insert(&mut self, key: &str) {
        self.hashes.insert(self.hasher.hash_one(key));
    }

    fn contains(&self, key: &str) -> bool {
        self.hashes.contains(&self.hasher.hash_one(key))
    }
}

/// Returns one intent with the keys of all doubts of a head and of its claim, for an epoch that is about to be claimed.
pub(crate) fn merge_doubts(
    access: &StateAccess,
    cache: &CacheManager,
    head: Option<&Head>,
    epoch: u64,
) -> Result<Segment, StorageError> {
    let head = head.ok_or_else(|| {
        StorageError::new(ErrorKind::Other, Operation::State, "no head has doubts to merge")
    })?;
    let claimed = head.claim.iter().flat_map(|claim| &claim.intents);
    let doubted = head.doubt.iter().flat_map(|doubt| doubt.keys.intents());
    let mut keys: BTreeMap<RemoteKey, KeyIntent> = BTreeMap::new();
    for intent in doubted.chain(claimed) {
        let fetched = intent_keys(access, cache, intent)?.filter(|_| keys.len() < MOST_MERGED);
        let Some(fetched) = fetched else {
            let what = "the keys in doubt of an interrupted run are lost; run verify with --repair, then remove the \
                        object .brigade/head: the next run makes the state anew";
            return Err(StorageError::new(ErrorKind::StateDamaged, Operation::State, what));
        };
        for row in fetched.into_intents() {
            let Row { key, content } = row.map_err(of_segment)?;
            keys.entry(key).or_insert(content);
        }
    }
    let file = scratch_file(&scratch_of(cache))?;
    let mut writer = Writer::intent(file);
    for (key, content) in keys {
        writer.write(&Row { key, content }).map_err(of_segment)?;
    }
    let (file, written) = writer.finish().map_err(of_segment)?;
    store_file(access, new_name(SegmentKind::Intent, epoch), &file, &written)
}
