//! Decides whether a run may still write objects: only while its claim was renewed within half of the lease.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use crate::backend::StorageBackend;
use crate::clock::Clock;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::Fence;
use crate::state::remote::lease::{Clocks, Lease};
use crate::state::remote::name::StoreTime;

/// The keys without an answer that are remembered one by one. With more, all that the run intended is in doubt.
const MOST_UNANSWERED: usize = 10_000;

/// After so many writes what was acknowledged is published, and the claim renewed, before it is time.
const MANY_WRITES: u64 = 10_000;

/// The keys whose writes got no answer.
#[derive(Debug, Clone, Default)]
pub(crate) enum UnansweredKeys {
    #[default]
    None,
    Some(BTreeSet<String>),
    TooMany,
}

/// How far the claim of a run is.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing may be written yet.
    Unclaimed,
    Claimed(Lease),
    /// Another run has taken over.
    Superseded,
}

/// The guard of a run. Workers ask it before each write.
pub(crate) struct WriteGuard {
    /// The backend of the state, whose answers tell the store's time.
    backend: Arc<dyn StorageBackend>,
    clock: Arc<dyn Clock>,
    /// The last date that the store sent, and our clock when it was noticed.
    date: Mutex<Option<(u64, Duration)>>,
    phase: Mutex<Phase>,
    /// Writes since the last renewal.
    writes: AtomicU64,
    unanswered: Mutex<UnansweredKeys>,
}

impl WriteGuard {
    pub(crate) fn new(backend: &Arc<dyn StorageBackend>, clock: &Arc<dyn Clock>) -> Self {
        Self {
            backend: backend.clone(),
            clock: clock.clone(),
            date: Mutex::default(),
            phase: Mutex::new(Phase::Unclaimed),
            writes: AtomicU64::new(0),
            unanswered: Mutex::default(),
        }
    }

    /// What the clocks show now. The store's is its last date, and what has passed here since: an old date must not count
    /// as the start of a lease.
    pub(crate) fn clocks(&self) -> Clocks {
        let boot = self.clock.now_with_suspension();
        let wall = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let sent = self.backend.transfers().and_then(|transfers| transfers.state_objects().store_date());
        let mut date = lock(&self.date);
        if let Some(sent) = sent.filter(|sent| date.is_none_or(|(known, _)| known != *sent)) {
            *date = Some((sent, boot));
        }
        let store = date.map(|(sent, noticed)| {
            StoreTime::new(sent.saturating_add(boot.saturating_sub(noticed).as_secs()))
        });
        Clocks { boot, wall, store }
    }

    /// The store has acknowledged the claim, or its renewal, whose first try began at this time.
    pub(crate) fn renewed(&self, length: Duration, start: Clocks) {
        let mut phase = lock(&self.phase);
        if !matches!(*phase, Phase::Superseded) {
            *phase = Phase::Claimed(Lease::new(length, start));
            self.writes.store(0, Relaxed);
        }
    }

    pub(crate) fn superseded(&self) {
        *lock(&self.phase) = Phase::Superseded;
    }

    /// The claim was given back.
    pub(crate) fn released(&self) {
        *lock(&self.phase) = Phase::Unclaimed;
    }

    pub(crate) fn is_superseded(&self) -> bool {
        matches!(*lock(&self.phase), Phase::Superseded)
    }

    pub(crate) fn must_renew(&self) -> bool {
        let (now, many) = (self.clocks(), self.writes.load(Relaxed) >= MANY_WRITES);
        matches!(*lock(&self.phase), Phase::Claimed(lease) if many || lease.must_renew(&now))
    }

    /// Notes a write that the store has acknowledged.
    pub(crate) fn note_write(&self) {
        self.writes.fetch_add(1, Relaxed);
    }

    /// Returns how long a write that begins now may take.
    pub(crate) fn check(&self, operation: Operation) -> Result<Duration, StorageError> {
        let now = self.clocks();
        let (kind, what) = match *lock(&self.phase) {
            Phase::Claimed(lease) => match lease.deadline(&now) {
                Some(left) => return Ok(left),
                None => (ErrorKind::Unavailable, "the claim could not be renewed in time"),
            },
            Phase::Superseded => (ErrorKind::Superseded, "another run has taken over"),
            Phase::Unclaimed => (ErrorKind::Other, "the run has no claim"),
        };
        Err(StorageError::new(kind, operation, format!("not sent: {what}")))
    }

    /// Returns the time until the lease ends; none without a claim.
    pub(crate) fn remaining(&self) -> Duration {
        let now = self.clocks();
        match *lock(&self.phase) {
            Phase::Claimed(lease) => lease.left(&now),
            Phase::Unclaimed | Phase::Superseded => Duration::ZERO,
        }
    }

    pub(crate) fn note_unanswered(&self, keys: &[&str]) {
        let mut unanswered = lock(&self.unanswered);
        match &mut *unanswered {
            UnansweredKeys::None => {
                *unanswered = UnansweredKeys::Some(keys.iter().map(|key| (*key).to_owned()).collect());
            }
            UnansweredKeys::Some(known) => known.extend(keys.iter().map(|key| (*key).to_owned())),
            UnansweredKeys::TooMany => {}
        }
        if matches!(&*unanswered, UnansweredKeys::Some(known) if known.len() > MOST_UNANSWERED) {
            *unanswered = UnansweredKeys::TooMany;
        }
    }

    pub(crate) fn unanswered(&self) -> UnansweredKeys {
        lock(&self.unanswered).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The guard, for the writes of these keys.
pub(crate) struct KeyFence<'a> {
    pub(crate) guard: &'a WriteGuard,
    pub(crate) keys: &'a [&'a str],
}

impl Fence for KeyFence<'_> {
    fn check(&self, operation: Operation) -> Result<Option<Duration>, StorageError> {
        self.guard.check(operation).map(Some)
    }

    fn remaining(&self) -> Duration {
        self.guard.remaining()
    }

    fn note_unanswered(&self) {
        self.guard.note_unanswered(self.keys);
    }
}

/// The guard, for requests that change no object: of a multipart upload, all before the last one. Once begun, they may
/// take as long as they need.
pub(crate) struct PartFence<'a>(pub(crate) &'a WriteGuard);

impl Fence for PartFence<'_> {
    fn check(&self, operation: Operation) -> Result<Option<Duration>, StorageError> {
        self.0.check(operation).map(|_| None)
    }

    fn remaining(&self) -> Duration {
        Duration::MAX
    }

    fn note_unanswered(&self) {}
}
