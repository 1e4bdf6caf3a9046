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
use crate::rescan::dispatch::heads::{self, Answer, Unanswered};
use crate::rescan::verify::mark_lost;
use crate::state::cache::CacheManager;
use crate::state::cache::pushed::of_segment;
use crate::state::records::Published;
use crate::state::remote::doubt::Looked;
use crate::state::remote::head::{Doubt, Head, Keys, Segment};
use crate::state::remote::name::SegmentKind;
use crate::state::remote::segment::{Bounds, KeyIntent, Planned, Row, Writer};
use crate::state::store::Write;
use crate::tree::digest::Digest;
use crate::tree::version::FileStat;

/// With more keys in doubt than this they are not asked for one by one: a listing shows which have moved.
const MOST_HEADS: u64 = 1000;
/// The most keys of large files whose uploads are looked for.
const MOST_LARGE: usize = 10_000;
/// The most keys that doubts are merged from: some 100 bytes of memory each.
const MOST_MERGED: usize = 500_000;

impl StateRun {
    /// Looks at everything that is in doubt, under our claim.
    pub(crate) fn look_at_doubts(
        &mut self,
        engine: &Engine,
        context: &Arc<Context>,
    ) -> Result<LookedAt, StorageError> {
        let Some(claim) = self.claim.clone() else { return Ok(LookedAt::default()) };
        let head = claim.head();
        if head.doubt.is_empty() {
            return Ok(LookedAt::default());
        }
        self.all_looked = false;
        // Before the first key is asked for.
        let Some(at) = claim.store_time()? else { return Ok(LookedAt::default()) };
        let look = Look { engine, context, access: &self.access, cache: &self.cache, head: &head };
        let mut all = LookedAt::default();
        for doubt in &head.doubt {
            let looked = look.at(doubt)?;
            all.changed |= looked.changed;
            if looked.unanswered.count == 0 {
                self.looked.push(Looked { token: doubt.token, at });
            }
            all.unanswered.add(looked.unanswered);
        }
        self.all_looked = all.unanswered.count == 0;
        Ok(all)
    }
}

/// What became of a look at keys in doubt.
#[derive(Debug, Default)]
pub(crate) struct LookedAt {
    /// The records have changed.
    pub(crate) changed: bool,
    /// Keys that could not be asked for.
    pub(crate) unanswered: Unanswered,
}

struct Look<'a> {
    engine: &'a Engine,
    context: &'a Arc<Context>,
    access: &'a StateAccess,
    cache: &'a CacheManager,
    head: &'a Head,
}

impl Look<'_> {
    /// Looks at the keys of one doubt.
    fn at(&self, doubt: &Doubt) -> Result<LookedAt, StorageError> {
        let mut findings = LookedAt::default();
        let count: u64 = doubt.keys.intents().iter().map(|intent| Bounds::from(intent).rows).sum();
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
            self.by_listing(doubt, named, &mut findings)?;
        } else {
            for intent in keys {
                self.by_heads(doubt, intent, &mut findings)?;
            }
        }
        Ok(findings)
    }

    /// Asks for each key.
    fn by_heads(
        &self,
        doubt: &Doubt,
        intent: FetchedSegment,
        findings: &mut LookedAt,
    ) -> Result<(), StorageError> {
        let (mut rows, mut large) = (intent.into_intents(), Vec::new());
        let next = || {
            let Some(row) = rows.next().transpose().map_err(of_segment)? else { return Ok(None) };
            note_if_large(&mut large, &row);
            Ok(Some((row.key.into_string(), ())))
        };
        let changed = &mut findings.changed;
        let took = |answers| self.record(answers, changed);
        findings.unanswered.add(heads::ask(self.engine, self.context, next, took)?);
        self.abort_uploads(doubt, &large)
    }

    /// Aborts the multipart uploads that the claim of a doubt left open.
    fn abort_uploads(&self, doubt: &Doubt, large: &[String]) -> Result<(), StorageError> {
        if large.is_empty() {
            return Ok(());
        }
        let Some(dead) = DeadUploads::of(self.head, doubt, self.cache)? else { return Ok(()) };
        large.iter().try_for_each(|key| dead.abort(self.context, key))
    }

    /// Asks only for objects whose ETag has moved, and for those that are not listed. `named` are the keys in doubt;
    /// without them it is all that is published.
    fn by_listing(
        &self,
        doubt: &Doubt,
        named: Option<Vec<FetchedSegment>>,
        findings: &mut LookedAt,
    ) -> Result<(), StorageError> {
        let transfers = self.transfers()?;
        let mut large = Vec::new();
        let doubted = named.map(|intents| KeySet::of(intents, &mut large)).transpose()?;
        self.abort_uploads(doubt, &large)?;
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
        findings: &mut LookedAt,
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
        let took = |answers| self.record(answers, changed);
        findings.unanswered.add(heads::ask(self.engine, self.context, next, took)?);
        Ok(())
    }

    fn ask_for(&self, keys: Vec<(String, ())>, findings: &mut LookedAt) -> Result<(), StorageError> {
        let mut keys = keys.into_iter();
        let changed = &mut findings.changed;
        let took = |answers| self.record(answers, changed);
        findings.unanswered.add(heads::ask(self.engine, self.context, || Ok(keys.next()), took)?);
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
                match (found.map(|found| self.as_published(&key, found, published.as_ref())), published) {
                    (None, _) => writes.push(Write::Deleted(key)),
                    (Some(ours), _) if !ours.is_empty() => writes.extend(ours),
                    // Somebody else's: it is met again as a conflict, where the run sends or deletes it.
                    (Some(_), Some(there)) => writes.push(mark_lost(key, &there, pending)),
                    (Some(_), None) => continue,
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
    fn as_published(&self, key: &str, found: StoredObject, there: Option<&Published>) -> Vec<Write> {
        let Some(proof) = found.proof.filter(|_| found.is_as_stored) else { return Vec::new() };
        let digest = proof.digest.unwrap_or(Digest::UNKNOWN);
        let new = FileStat { device: self.context.root_device, ..FileStat::default() };
        let mut published = self.context.published(new, false, digest, found.etag);
        // The file's place on this machine is still known.
        if let Some(there) = there {
            (published.root, published.with_root) = (there.root, there.with_root);
            published.stat.device = there.stat.device;
        }
        published.stat.size = found.size;
        vec![Write::Published(key.to_owned(), published), Write::Recent(key.to_owned())]
    }

    fn transfers(&self) -> Result<&dyn Transfers, StorageError> {
        self.context.session.backend.transfers().ok_or_else(|| {
            StorageError::new(ErrorKind::Unsupported, Operation::List, "this backend cannot list objects")
        })
    }
}

/// Notes the key of a file that was to be sent as a multipart upload.
fn note_if_large(large: &mut Vec<String>, row: &Row<KeyIntent>) {
    if row.content.planned == Planned::Multipart && large.len() < MOST_LARGE {
        large.push(row.key.as_str().to_owned());
    }
}

/// Keys as hashes: 8 bytes each. Two keys with one hash only lead to a HEAD more, or to a key that a later look sees.
#[derive(Default)]
struct KeySet {
    hasher: RandomState,
    hashes: HashSet<u64>,
}

impl KeySet {
    /// The keys of these intents; those of large files are noted as well.
    fn of(intents: Vec<FetchedSegment>, large: &mut Vec<String>) -> Result<Self, StorageError> {
        let mut set = Self::default();
        for intent in intents {
            for row in intent.into_intents() {
                let row = row.map_err(of_segment)?;
                note_if_large(large, &row);
                set.insert(row.key.as_str());
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

/// Returns one intent with the keys of all doubts of a head and of its claim, for an epoch that is about to be claimed,
/// and whether it has all of them. Without all, everything is in doubt.
pub(crate) fn merge_doubts(
    access: &StateAccess,
    cache: &CacheManager,
    head: Option<&Head>,
    epoch: u64,
) -> Result<(Segment, bool), StorageError> {
    let intents = head.into_iter().flat_map(|head| {
        let claimed = head.claim.iter().flat_map(|claim| &claim.intents);
        head.doubt.iter().flat_map(|doubt| doubt.keys.intents()).chain(claimed)
    });
    let (mut keys, mut whole) = (BTreeMap::<RemoteKey, KeyIntent>::new(), true);
    for intent in intents {
        let Some(fetched) = intent_keys(access, cache, intent)? else {
            whole = false;
            continue;
        };
        for row in fetched.into_intents() {
            let Row { key, content } = row.map_err(of_segment)?;
            if keys.len() >= MOST_MERGED {
                whole = false;
                break;
            }
            keys.entry(key).or_insert(content);
        }
    }
    let file = scratch_file(&scratch_of(cache))?;
    let mut writer = Writer::intent(file);
    for (key, content) in keys {
        writer.write(&Row { key, content }).map_err(of_segment)?;
    }
    let (file, written) = writer.finish().map_err(of_segment)?;
    Ok((store_file(access, new_name(SegmentKind::Intent, epoch), &file, &written)?, whole))
}
