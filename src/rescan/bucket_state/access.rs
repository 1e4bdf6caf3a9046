//! The state's objects, as a run reaches them: the head is read, recognised and replaced here.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::{
    Condition, Fetched, HEAD_KEY, Modified, PutSmall, STATE_FOLDER, SmallObject, StateObjects, StorageBackend,
};
use crate::clock::{CancelToken, Clock};
use crate::engine::gate::Gate;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::trace::Trace;
use crate::request_context::{Fence, RequestContext};
use crate::state::cache::copy::HeadCopy;
use crate::state::remote::head::codec::{Expected, Flaw};
use crate::state::remote::head::{FORMAT, Head, MAX_BYTES, Target};
use crate::state::remote::name::{StoreTime, Token};
use crate::state::remote::recognise::{Cached, Own, recognise};
use crate::state::remote::transitions::Seen;

/// Requests for the state that are in flight together. They pass a gate of their own: a renewal must not wait behind
/// large files.
const IN_FLIGHT: usize = 2;
/// The tries of a PUT of the head that the store refuses although the head before is still there.
const TRIES: usize = 3;
const JSON: &str = "application/json";

/// The way to the state's objects.
#[derive(Clone)]
pub(crate) struct StateAccess {
    /// The backend under whose prefix the state lies.
    backend: Arc<dyn StorageBackend>,
    /// The bucket and the prefix of the objects that the state describes.
    pub(crate) target: Target,
    pub(crate) tree: Option<String>,
    /// The state lies under another prefix than the objects.
    pub(crate) is_elsewhere: bool,
    gate: Arc<Gate>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trace: Trace,
    pub(crate) cancel: CancelToken,
    pub(crate) deadline: Option<Duration>,
    limit: Option<TimeLimit>,
}

/// The time at which requests end, also those in flight.
#[derive(Clone)]
struct TimeLimit {
    clock: Arc<dyn Clock>,
    until: Duration,
}

impl Fence for TimeLimit {
    fn check(&self, operation: Operation) -> Result<Option<Duration>, StorageError> {
        match self.remaining() {
            Duration::ZERO => {
                Err(StorageError::new(ErrorKind::Timeout, operation, "the time for it is over"))
            }
            left => Ok(Some(left)),
        }
    }

    fn remaining(&self) -> Duration {
        self.until.saturating_sub(self.clock.now())
    }

    fn note_unanswered(&self) {}
}

/// A head that was read, or that a run of ours has stored.
#[derive(Debug, Clone)]
pub(crate) struct SeenHead {
    pub(crate) head: Head,
    pub(crate) etag: String,
    /// `None` if it is not known: the answer to a PUT does not tell.
    pub(crate) modified: Option<StoreTime>,
    pub(crate) bytes: Vec<u8>,
    /// The rows of a run that has not ended are left out.
    pub(crate) for_reading: bool,
}

impl SeenHead {
    pub(crate) fn seen(&self) -> Seen<'_> {
        Seen { head: &self.head, modified: self.modified.unwrap_or(StoreTime::new(0)) }
    }

    /// Returns the record of this head for the cache.
    pub(crate) fn copy(&self) -> HeadCopy {
        let modified = self.modified.map_or(0, StoreTime::seconds);
        HeadCopy {
            etag: self.etag.clone(),
            modified,
            bytes: self.bytes.clone(),
            for_reading: self.for_reading,
        }
    }

    pub(crate) fn cached(&self) -> Cached {
        Cached { epoch: self.head.epoch, beat: self.head.beat, etag: self.etag.clone() }
    }
}

/// What lies in the place of the head.
#[derive(Debug)]
pub(crate) enum ReadHead {
    /// The one that the caller knows.
    NotModified,
    Missing,
    /// Something that is no head. It is replaced only under its own `ETag`.
    Damaged {
        etag: String,
        flaw: String,
    },
    Found(Box<SeenHead>),
}

/// The end of a PUT of the head.
#[derive(Debug)]
pub(crate) enum StoredHead {
    Stored(Box<SeenHead>),
    /// It is not there: an earlier head of our claim with the same beat had landed, of which no answer came.
    Earlier(Box<SeenHead>),
    /// Another run was first, or has taken over, or the head is gone. Or it was stored, and others have gone on from it.
    Superseded,
}

/// The object in place of the head where the state lies elsewhere.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    format: u32,
    elsewhere: Target,
}

impl StateAccess {
    /// The way to the state of the objects under the prefix of `objects`, which lies there or `elsewhere`.
    pub(crate) fn new(
        objects: &Arc<dyn StorageBackend>,
        elsewhere: Option<&Arc<dyn StorageBackend>>,
        tree: Option<String>,
        like: &RequestContext<'_>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StorageError> {
        let place = state_objects(&**objects)?.place();
        Ok(Self {
            backend: elsewhere.unwrap_or(objects).clone(),
            target: Target { bucket: place.bucket, prefix: place.prefix },
            tree,
            is_elsewhere: elsewhere.is_some(),
            gate: Arc::new(Gate::new(IN_FLIGHT)),
            clock,
            trace: like.trace.clone(),
            cancel: like.cancel.clone(),
            deadline: like.deadline,
            limit: None,
        })
    }

    /// The same for the end of a run, which may take `limit` even if the run was cancelled.
    pub(crate) fn for_the_end(&self, limit: Duration) -> Self {
        Self { cancel: CancelToken::new(), ..self.without_deadline() }.limited(limit)
    }

    /// The same without the deadline of the run.
    pub(crate) fn without_deadline(&self) -> Self {
        self.gate.close_circuit();
        Self { deadline: None, ..self.clone() }
    }

    /// The same, and whatever is asked ends in this time.
    pub(crate) fn limited(&self, limit: Duration) -> Self {
        // Failures before say nothing of the store now.
        self.gate.close_circuit();
        let limit = TimeLimit { clock: self.clock.clone(), until: self.clock.now() + limit };
        Self { limit: Some(limit), ..self.clone() }
    }

    pub(crate) fn context(&self) -> RequestContext<'_> {
        RequestContext {
            cancel: &self.cancel,
            deadline: self.deadline,
            clock: &*self.clock,
            gate: &self.gate,
            trace: &self.trace,
            fence: self.limit.as_ref().map(|limit| limit as &dyn Fence),
        }
    }

    pub(crate) fn objects(&self) -> Result<&dyn StateObjects, StorageError> {
        state_objects(&*self.backend)
    }

    /// Returns the name by which what a probe found is kept.
    pub(crate) fn endpoint(&self) -> Result<String, StorageError> {
        Ok(self.objects()?.place().endpoint)
    }

    /// Returns where the state lies, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}{HEAD_KEY}", self.backend.destination())
    }

    /// Returns the store's time, as its last answer tells.
    pub(crate) fn store_time(&self) -> Option<StoreTime> {
        self.objects().ok()?.store_date().map(StoreTime::new)
    }

    /// Reads the head, unless its `ETag` is the one given.
    ///
    /// # Errors
    /// Those of the request: a refusal is not absence. [`ErrorKind::StateDamaged`] for a head that this version cannot
    /// read, or of another place or tree; [`ErrorKind::Config`] if the state lies elsewhere.
    pub(crate) fn read_head(&self, known: Option<&str>, publishes: bool) -> Result<ReadHead, StorageError> {
        let key = head_key()?;
        let fetched = self.objects()?.get_small(&self.context(), &key, MAX_BYTES as u64, known);
        let (bytes, etag, modified) = match fetched {
            Ok(Fetched::NotModified) => return Ok(ReadHead::NotModified),
            Ok(Fetched::Missing) => return Ok(ReadHead::Missing),
            Ok(Fetched::Found { bytes, etag, modified }) => (bytes, etag, modified),
            Err(error) if error.kind() == ErrorKind::TooLarge => return self.damaged(&key, &error),
            Err(error) => return Err(of_state(error)),
        };
        if let Ok(marker) = serde_json::from_slice::<Marker>(&bytes) {
            return Err(lies_elsewhere(&marker.elsewhere));
        }
        let expected = Expected { target: &self.target, tree: self.tree.as_deref(), publishes };
        match Head::decode(&bytes, &expected) {
            Ok(head) => {
                let modified = Some(StoreTime::new(modified));
                Ok(ReadHead::Found(Box::new(SeenHead { head, etag, modified, bytes, for_reading: false })))
            }
            Err(flaw @ (Flaw::TooLarge(_) | Flaw::Damaged(_))) => {
                Ok(ReadHead::Damaged { etag, flaw: flaw.to_string() })
            }
            Err(flaw) => Err(self.of_flaw(&flaw)),
        }
    }

    fn damaged(&self, key: &RemoteKey, why: &StorageError) -> Result<ReadHead, StorageError> {
        let found = self.objects()?.modified_of(&self.context(), key)?;
        let flaw = why.message().to_owned();
        Ok(found.map_or(ReadHead::Missing, |found| ReadHead::Damaged { etag: found.etag, flaw }))
    }

    /// Decodes the head of which the cache is a copy; `None` if it is none any more for this version or place.
    pub(crate) fn decode_copy(&self, copy: &HeadCopy, publishes: bool) -> Option<SeenHead> {
        if copy.for_reading && publishes {
            return None;
        }
        let expected = Expected { target: &self.target, tree: self.tree.as_deref(), publishes };
        let head = Head::decode(&copy.bytes, &expected).ok()?;
        let modified = (copy.modified > 0).then(|| StoreTime::new(copy.modified));
        let for_reading = copy.for_reading;
        Some(SeenHead { head, etag: copy.etag.clone(), modified, bytes: copy.bytes.clone(), for_reading })
    }

    /// Returns when the head was stored, by the store's clock.
    pub(crate) fn head_modified(&self) -> Result<Option<Modified>, StorageError> {
        self.objects()?.modified_of(&self.context(), &head_key()?).map_err(of_state)
    }

    /// Stores the next head of the claim of this token, on the condition that `before` is still there.
    pub(crate) fn store_head(
        &self,
        next: &Head,
        before: Option<&SeenHead>,
        condition: &Condition,
        token: Token,
    ) -> Result<StoredHead, StorageError> {
        let bytes = next.encode().map_err(|flaw| self.of_flaw(&flaw))?;
        let (key, mut last) = (head_key()?, None);
        for _ in 0..TRIES {
            let object = SmallObject { key: &key, bytes: &bytes, content_type: JSON, condition };
            match self.objects()?.put_small(&self.context(), &object) {
                Ok(PutSmall::Stored { etag, .. }) => {
                    let seen =
                        SeenHead { head: next.clone(), etag, modified: None, bytes, for_reading: false };
                    return Ok(StoredHead::Stored(Box::new(seen)));
                }
                Ok(PutSmall::Refused { .. }) => {}
                Err(error) if error.may_have_taken_effect() => last = Some(error),
                Err(error) => return Err(of_state(error)),
            }
            let read = match self.read_head(None, true)? {
                ReadHead::Found(read) => Some(read),
                ReadHead::Missing => None,
                ReadHead::NotModified | ReadHead::Damaged { .. } => return Ok(StoredHead::Superseded),
            };
            let (there, base) = (read.as_ref().map(|read| &read.head), before.map(|before| &before.head));
            match recognise(there, base, token, next.beat) {
                Own::Stored => return Ok(read.map_or(StoredHead::Superseded, |read| own(read, &bytes))),
                Own::Ended(_) | Own::Superseded => return Ok(StoredHead::Superseded),
                Own::NotStored => {}
            }
        }
        Err(last.map_or_else(
            || {
                let what = "the store refuses to replace the head although it did not change";
                StorageError::new(ErrorKind::Protocol, Operation::State, what)
            },
            of_state,
        ))
    }

    /// Says in the place of the objects that their state lies elsewhere, unless it is said there already.
    pub(crate) fn mark_objects(&self, objects: &dyn StorageBackend) -> Result<(), StorageError> {
        let (there, key) = (state_objects(objects)?, head_key()?);
        let place = self.objects()?.place();
        let elsewhere = Target { bucket: place.bucket, prefix: place.prefix };
        let marker = Marker { format: FORMAT, elsewhere };
        match there.get_small(&self.context(), &key, MAX_BYTES as u64, None)? {
            Fetched::Found { bytes, .. } => match serde_json::from_slice::<Marker>(&bytes) {
                Ok(found) if found.elsewhere == marker.elsewhere => Ok(()),
                Ok(found) => Err(lies_elsewhere(&found.elsewhere)),
                Err(_) => {
                    let why = "the state of this destination lies in its own bucket: set that, or remove \
                                   the object .brigade/head if nobody publishes that way any more";
                    Err(StorageError::config("state", why))
                }
            },
            Fetched::NotModified => Ok(()),
            Fetched::Missing => {
                let bytes = serde_json::to_vec(&marker).unwrap_or_default();
                let condition = &Condition::Absent;
                let object = SmallObject { key: &key, bytes: &bytes, content_type: JSON, condition };
                match there.put_small(&self.context(), &object).map_err(of_state)? {
                    PutSmall::Stored { .. } => Ok(()),
                    // Somebody else has stored something since: the next run reads it.
                    PutSmall::Refused { .. } => {
                        let what = "another publisher has begun to use this destination";
                        Err(StorageError::new(ErrorKind::Conflict, Operation::State, what).with_key(HEAD_KEY))
                    }
                }
            }
        }
    }

    /// Returns the error for a head that cannot be used here.
    pub(crate) fn of_flaw(&self, flaw: &Flaw) -> StorageError {
        let what = format!("{}: {flaw}", self.place());
        StorageError::new(ErrorKind::StateDamaged, Operation::State, what)
    }
}

/// Tells the head that was to be stored from an earlier one of the same beat.
fn own(read: Box<SeenHead>, bytes: &[u8]) -> StoredHead {
    match read.head.claim {
        _ if read.bytes == bytes => StoredHead::Stored(read),
        Some(_) => StoredHead::Earlier(read),
        // It ended our claim.
        None => StoredHead::Superseded,
    }
}

/// Returns the key of an object of the state.
pub(crate) fn state_key(name: &str) -> Result<RemoteKey, StorageError> {
    RemoteKey::new(format!("{STATE_FOLDER}{name}"))
}

fn head_key() -> Result<RemoteKey, StorageError> {
    RemoteKey::new(HEAD_KEY)
}

fn state_objects(backend: &dyn StorageBackend) -> Result<&dyn StateObjects, StorageError> {
    let transfers = backend.transfers().ok_or_else(|| {
        let why = "this backend cannot hold the state: use an S3Backend, or keep the state local";
        StorageError::new(ErrorKind::Unsupported, Operation::State, why)
    })?;
    Ok(transfers.state_objects())
}

fn lies_elsewhere(place: &Target) -> StorageError {
    let Target { bucket, prefix } = place;
    let why = format!("the state of this destination lies at s3://{bucket}/{prefix}: set that");
    StorageError::config("state", why)
}

/// Returns the error with the advice that a refusal needs.
fn of_state(error: StorageError) -> StorageError {
    if error.kind() == ErrorKind::AccessDenied {
        return error.advise(
            "the state in the bucket needs s3:GetObject, s3:PutObject and s3:DeleteObject on .brigade/*, and \
             s3:ListBucket",
        );
    }
    error
}
