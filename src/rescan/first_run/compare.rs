//! Compares a file with an object of the same key and size, without reading the object.

use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::backend::{Listed, StoredChecksum, StoredObject, Transfers};
use crate::error::caught::panicked;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::rescan::context::{Context, open_source};
use crate::rescan::first_run::etags::possible_divisions;
use crate::state::records::{Pending, Published};
use crate::tree::digest::Digest;
use crate::tree::fingerprint::{Division, fingerprint};
use crate::tree::source::Source;
use crate::tree::version::wall_nanos;

/// So many HEAD requests in a row fail, and no more are sent.
const FAILURES_IN_A_ROW: u32 = 3;

/// What the HEAD requests of one listing have met so far.
#[derive(Default)]
pub(crate) struct Heads {
    /// Failures and refusals since the last answer.
    in_a_row: AtomicU32,
    /// The checksums of the store may not be read: it encrypts with a key of KMS that these credentials may not use.
    without_checksum: AtomicBool,
}

impl Heads {
    /// Returns true if the last HEAD requests have all failed.
    fn are_given_up(&self) -> bool {
        self.in_a_row.load(Relaxed) >= FAILURES_IN_A_ROW
    }
}

/// A file that an object may hold already.
pub(crate) struct Candidate {
    pub(crate) key: RemoteKey,
    pub(crate) pending: Pending,
    pub(crate) listed: Listed,
}

/// A candidate, compared. The file's plain digest, once it is known, is in `candidate.pending`.
pub(crate) struct Compared {
    pub(crate) candidate: Candidate,
    pub(crate) verdict: Verdict,
    /// A HEAD was sent.
    pub(crate) asked: bool,
}

/// The result of a comparison.
pub(crate) enum Verdict {
    /// The object holds the file. With the record of it.
    Same(Published),
    /// The object holds something else, or nothing shows what it holds.
    Differs,
    Failed(StorageError),
}

/// Compares a file with its object. Never panics.
pub(crate) fn compare(context: &Context, heads: &Heads, mut candidate: Candidate) -> Compared {
    let mut asked = false;
    let attempt = catch_unwind(AssertUnwindSafe(|| try_compare(context, heads, &mut candidate, &mut asked)));
    let result = attempt.unwrap_or_else(|panic| Err(panicked(Operation::Head, &*panic)));
    let verdict = match result {
        Ok(Some(published)) => Verdict::Same(published),
        Ok(None) => Verdict::Differs,
        Err(error) => Verdict::Failed(error.with_key(candidate.key.as_str())),
    };
    Compared { candidate, verdict, asked }
}

/// Returns the published record of the file if its content is proven to be the object's.
fn try_compare(
    context: &Context,
    heads: &Heads,
    candidate: &mut Candidate,
    asked: &mut bool,
) -> Result<Option<Published>, StorageError> {
    let Candidate { key, pending, listed } = candidate;
    let request_context = context.request_context();
    request_context.check(Operation::Read)?;
    let Some(transfers) = context.session.backend.transfers() else { return Ok(None) };
    let seen = wall_nanos(request_context.clock);
    let source = open_source(context, key, &pending.stat)?;
    if source.is_sizeless() {
        return Ok(None);
    }
    let stat = *source.stat();
    let not_racy = stat.is_not_racy(seen);
    let own = transfers.part_plan(stat.size)?.and_then(|plan| NonZeroU64::new(plan.part_size()));
    let mut file = Reader { context, source: &source, digests: Vec::new(), etags: Vec::new() };
    let proven = prove(&mut file, transfers, heads, key, listed, own, asked);
    // A plain digest spares the upload from reading the file again. That of a large file is made of its parts.
    let plain = file.digests.iter().find(|digest| digest.part_size().is_none() && own.is_none());
    if let Some(digest) = plain {
        (pending.not_racy, pending.digest) = (not_racy, Some(*digest));
    }
    Ok(proven?.map(|(digest, etag)| context.published(stat, not_racy, digest, etag)))
}

/// Returns the digest of the file and the `ETag` of the object if the object is proven to hold the file.
fn prove(
    file: &mut Reader<'_>,
    transfers: &dyn Transfers,
    heads: &Heads,
    key: &RemoteKey,
    listed: &Listed,
    own: Division,
    asked: &mut bool,
) -> Result<Option<(Digest, Option<String>)>, StorageError> {
    if let Some(digest) = file.digest_if_tagged(listed.etag.as_deref(), own)? {
        return Ok(Some((digest, listed.etag.clone())));
    }
    if heads.are_given_up() {
        return Ok(None);
    }
    *asked = true;
    let found = find_object(file.context, transfers, heads, key)?;
    let Some(object) = found.filter(|object| object.size == listed.size) else { return Ok(None) };
    let digest = file.digest_if_proven(&object, own)?;
    Ok(digest.map(|digest| (digest, object.etag)))
}

/// Sends a HEAD. Returns `None` if there is no object, or if it may not be read.
fn find_object(
    context: &Context,
    transfers: &dyn Transfers,
    heads: &Heads,
    key: &RemoteKey,
) -> Result<Option<StoredObject>, StorageError> {
    let request_context = context.request_context();
    let denied = |error: &StorageError| error.kind() == ErrorKind::AccessDenied;
    let with_checksum = !heads.without_checksum.load(Relaxed);
    let mut found = transfers.head(&request_context, key, with_checksum);
    if with_checksum && found.as_ref().is_err_and(denied) {
        found = transfers.head(&request_context, key, false);
        heads.without_checksum.fetch_or(found.is_ok(), Relaxed);
    }
    match &found {
        Ok(_) => heads.in_a_row.store(0, Relaxed),
        Err(_) => drop(heads.in_a_row.fetch_add(1, Relaxed)),
    }
    // Nobody knows what an object holds that may not be read.
    if found.as_ref().is_err_and(denied) { Ok(None) } else { found }
}

/// A file, and what is known of it by now: it is not read again for that.
struct Reader<'a> {
    context: &'a Context,
    source: &'a Source,
    digests: Vec<Digest>,
    /// Its `ETag`s, each with the division that gives it.
    etags: Vec<(Division, String)>,
}

impl Reader<'_> {
    fn read(&mut self, digest: Division, etags: &[Division]) -> Result<Digest, StorageError> {
        let request_context = self.context.request_context();
        let found = fingerprint(self.source, digest, etags, |count| {
            request_context.trace.bytes_hashed(count);
            request_context.check(Operation::Read)
        })?;
        // A file that changed while it was read would have the digest of two versions.
        self.source.check_as_opened()?;
        self.digests.push(found.digest);
        self.etags.extend(etags.iter().copied().zip(found.etags));
        Ok(found.digest)
    }

    /// Returns the digest of the file, divided like `own`, if the file has this `ETag` under `own` or under one of the
    /// usual part sizes.
    fn digest_if_tagged(
        &mut self,
        etag: Option<&str>,
        own: Division,
    ) -> Result<Option<Digest>, StorageError> {
        let Some(etag) = etag.map(|tag| tag.trim_matches('"')) else { return Ok(None) };
        let divisions = possible_divisions(etag, self.source.stat().size, own);
        let is_known = |division: &Division| self.etags.iter().any(|(known, _)| known == division);
        let unknown: Vec<_> = divisions.into_iter().filter(|division| !is_known(division)).collect();
        if !unknown.is_empty() {
            self.read(own, &unknown)?;
        }
        let same = self.etags.iter().any(|(_, known)| known.eq_ignore_ascii_case(etag));
        if same { self.digest(own).map(Some) } else { Ok(None) }
    }

    /// Returns the digest of the file in this division.
    fn digest(&mut self, division: Division) -> Result<Digest, StorageError> {
        let part_size = division.map(NonZeroU64::get);
        match self.digests.iter().find(|known| known.part_size() == part_size) {
            Some(known) => Ok(*known),
            None => self.read(division, &[]),
        }
    }

    /// Returns the digest of the file if a HEAD proves that the object has it. What the store says of the content comes
    /// first: its own SHA-256, then an `ETag` that is an MD5. Only if it says nothing does the proof of origin count.
    fn digest_if_proven(
        &mut self,
        object: &StoredObject,
        own: Division,
    ) -> Result<Option<Digest>, StorageError> {
        let proof = object.proof.as_ref().filter(|proof| proof.size == object.size);
        let part_size = proof.and_then(|proof| proof.part_size);
        let stored = match object.checksum {
            Some(StoredChecksum::Whole(sha256)) => Some(Digest::whole(sha256)),
            // Without our part size nobody knows how the object was divided.
            Some(StoredChecksum::OfParts(sha256)) => part_size.map(|_| Digest::known(sha256, part_size)),
            None => None,
        };
        if let Some(claimed) = stored {
            return self.digest_if_equal(claimed);
        }
        // Under our part size of then, which need not be the one of now.
        let etag = object.etag.as_deref();
        if let Some(digest) = self.digest_if_tagged(etag, part_size.or(own))? {
            return Ok(Some(digest));
        }
        let is_md5 = etag.is_some_and(|etag| !possible_divisions(etag, object.size, part_size).is_empty());
        if is_md5 && !object.encrypted {
            return Ok(None);
        }
        let claimed = proof.and_then(|proof| proof.digest);
        claimed.map_or(Ok(None), |claimed| self.digest_if_equal(claimed))
    }

    /// Returns the digest of the file if it is this one.
    fn digest_if_equal(&mut self, claimed: Digest) -> Result<Option<Digest>, StorageError> {
        let digest = self.digest(claimed.part_size().and_then(NonZeroU64::new))?;
        Ok(Some(digest).filter(|digest| *digest == claimed))
    }
}
