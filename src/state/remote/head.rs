//! The head: the one object of the state in the bucket that is overwritten.

pub(crate) mod codec;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::state::remote::lease::SLACK;
use crate::state::remote::name::{SegmentKind, SegmentName, StoreTime, Token};

/// The format that this version writes, and the newest that it reads and writes.
pub(crate) const FORMAT: u32 = 2;
/// The oldest format that this version reads. It has the same fields; its segments have no digests of headers.
pub(crate) const OLDEST_FORMAT: u32 = 1;
/// The longest head, in bytes of JSON.
pub(crate) const MAX_BYTES: usize = 96 * 1024;
/// The most deltas on a snapshot.
pub(crate) const MAX_DELTAS: usize = 16;
/// The most doubts. A claim leaves one of them free for its own.
pub(crate) const MAX_DOUBT: usize = 16;
/// The number of past claims that are remembered.
pub(crate) const MAX_HISTORY: usize = 8;
/// The most intents of one claim.
pub(crate) const MAX_INTENTS: usize = 8;
/// The most endpoints whose probe is remembered.
pub(crate) const MAX_PROBES: usize = 8;
/// The most segments that wait for being deleted by name. Others are found by listing.
pub(crate) const MAX_RETIRED: usize = 64;
/// The largest part that stands in the head itself, in bytes before base64.
pub(crate) const MAX_INLINE: usize = 8 * 1024;
/// The room that inline parts leave for all other fields at their longest.
const RESERVE: usize = 64 * 1024;

/// The record of what is published under a prefix, and of who is publishing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The version of these fields.
    pub(crate) format: u32,
    /// The oldest format that a reader must know.
    pub(crate) min_reader: u32,
    /// The oldest format that a publisher must know. It drops what a newer format added.
    pub(crate) min_writer: u32,
    pub(crate) target: Target,
    /// The name of the tree, if the publishers gave it one.
    pub(crate) tree: Option<String>,
    /// One more with each claim.
    pub(crate) epoch: u64,
    /// One more with each PUT. With the tokens it makes each head, and so each ETag, differ from all others.
    pub(crate) beat: u64,
    /// One more with each complete publish.
    pub(crate) generation: u64,
    /// The highest order of a claim (`--order`).
    pub(crate) order: Option<u64>,
    /// All rows up to some moment; none if the deltas hold everything.
    pub(crate) snapshot: Option<Segment>,
    /// What changed since, the oldest first.
    pub(crate) deltas: Vec<Segment>,
    /// Segments that this head no longer references and that nobody has deleted yet.
    pub(crate) retired: Vec<Retired>,
    /// The run that is publishing; none if nobody is.
    pub(crate) claim: Option<Claim>,
    /// The keys that requests of ended claims may still change, the oldest claim first.
    pub(crate) doubt: Vec<Doubt>,
    /// The last claims that ended, the oldest first.
    pub(crate) history: Vec<Past>,
    /// What probes found, one for each endpoint.
    pub(crate) probes: Vec<Probe>,
}

/// The place that a head describes. Without the endpoint: one bucket has several.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) bucket: String,
    /// Empty, or it ends in a slash.
    pub(crate) prefix: String,
}

/// A set of rows. A small one stands in the head, any other is an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Segment {
    Stored(SegmentRef),
    Inline(Inline),
}

/// A segment that is an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SegmentRef {
    pub(crate) name: SegmentName,
    /// The size of the object in bytes.
    pub(crate) size: u64,
    /// The SHA-256 of the object.
    #[serde(with = "codec::sha256")]
    pub(crate) sha256: [u8; 32],
    pub(crate) rows: u64,
    /// The size in bytes of the rows that are compressed in it.
    pub(crate) unpacked: u64,
}

/// A segment that stands in the head, with the bytes that its object would have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Inline {
    pub(crate) rows: u64,
    /// The size in bytes of the rows that are compressed in it.
    pub(crate) unpacked: u64,
    #[serde(with = "codec::bytes")]
    pub(crate) bytes: Vec<u8>,
}

/// A segment that is not referenced any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Retired {
    pub(crate) name: SegmentName,
    /// The epoch in which it was last referenced.
    pub(crate) epoch: u64,
}

/// A run that is publishing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Whom to ask, in words.
    pub(crate) who: String,
    /// The random name of the run, which is also in the proof of origin of what it stores.
    pub(crate) token: Token,
    pub(crate) epoch: u64,
    /// The time of the claim, to be shown only.
    pub(crate) since: StoreTime,
    /// The lease in seconds. Others judge the claim by this one, not by theirs.
    pub(crate) lease: u64,
    /// The number of deltas that it found. Those that follow are of a tree that is not whole yet.
    pub(crate) base: u64,
    /// The keys that it may write or delete. Intents are added, never replaced: what was sent under one may still land.
    pub(crate) intents: Vec<Segment>,
}

/// The keys that requests of an ended claim may still change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Doubt {
    /// The claim's token.
    pub(crate) token: Token,
    /// The claim's epoch.
    pub(crate) epoch: u64,
    /// A store time at which all those requests had begun; none if it is the date of the head that first had the
    /// entry. The next run to claim fills it in.
    pub(crate) since: Option<StoreTime>,
    pub(crate) keys: Keys,
}

/// A set of keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Keys {
    /// The keys of these intents.
    Of(Vec<Segment>),
    /// Every key under the prefix: the intents were lost with a head.
    All,
}

/// A claim that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) epoch: u64,
    pub(crate) token: Token,
    /// Whom to ask, in words.
    pub(crate) who: String,
    /// The time of the claim, to be shown only.
    pub(crate) since: StoreTime,
    /// The beat of the last head that the run stored.
    pub(crate) beat: u64,
    /// The generation after the claim.
    pub(crate) generation: u64,
    pub(crate) outcome: Outcome,
}

/// The end of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// The bucket is the run's tree, whole.
    Complete,
    /// The run gave the claim back with something left to do.
    Partial,
    /// Another run took the claim over.
    Taken,
}

/// What a probe found at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Probe {
    pub(crate) endpoint: String,
    /// The time of the probe.
    pub(crate) at: StoreTime,
    /// Of racing creates of one key, one won.
    pub(crate) create: bool,
    /// A PUT with a stale If-Match was refused.
    pub(crate) replace: bool,
    /// A delete with a stale ETag was refused.
    pub(crate) delete: bool,
}

impl Probe {
    /// Returns true if the store honours every condition that claims and data need.
    pub(crate) fn passed(&self) -> bool {
        self.create && self.replace && self.delete
    }
}

impl Segment {
    /// The reference, if the segment is an object.
    pub(crate) fn stored(&self) -> Option<&SegmentRef> {
        match self {
            Self::Stored(stored) => Some(stored),
            Self::Inline(_) => None,
        }
    }

    /// The size in bytes of the rows before compression.
    pub(crate) fn unpacked(&self) -> u64 {
        match self {
            Self::Stored(SegmentRef { unpacked, .. }) | Self::Inline(Inline { unpacked, .. }) => *unpacked,
        }
    }
}

impl Keys {
    /// The intents that name the keys; none for all keys.
    pub(crate) fn intents(&self) -> &[Segment] {
        match self {
            Self::Of(intents) => intents,
            Self::All => &[],
        }
    }
}

impl Claim {
    /// The lease.
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease)
    }

    /// The time after its last renewal at which others may take the claim over.
    pub(crate) fn limit(&self) -> Duration {
        self.lease() + SLACK
    }
}

impl Head {
    /// A head that nobody has claimed yet. It is never stored like this.
    pub(crate) fn empty(target: Target, tree: Option<String>) -> Self {
        Self {
            format: FORMAT,
            min_reader: FORMAT,
            min_writer: FORMAT,
            target,
            tree,
            epoch: 0,
            beat: 0,
            generation: 0,
            order: None,
            snapshot: None,
            deltas: Vec::new(),
            retired: Vec::new(),
            claim: None,
            doubt: Vec::new(),
            history: Vec::new(),
            probes: Vec::new(),
        }
    }

    /// Returns the head without the rows of a run that has not ended: whoever only reads gets whole trees.
    pub(crate) fn without_unfinished(&self) -> Self {
        let mut head = self.clone();
        if let Some(claim) = &self.claim {
            head.deltas.truncate(usize::try_from(claim.base).unwrap_or(usize::MAX));
        }
        head
    }

    /// What the probe found at an endpoint; none if it was never probed.
    pub(crate) fn probe(&self, endpoint: &str) -> Option<&Probe> {
        self.probes.iter().find(|probe| probe.endpoint == endpoint)
    }

    /// Every segment that the head references, with the kind that it must have.
    pub(crate) fn segments(&self) -> impl Iterator<Item = (SegmentKind, &Segment)> {
        let claimed = self.claim.iter().flat_map(|claim| &claim.intents);
        let doubted = self.doubt.iter().flat_map(|doubt| doubt.keys.intents());
        let snapshot = self.snapshot.iter().map(|segment| (SegmentKind::Snapshot, segment));
        let deltas = self.deltas.iter().map(|segment| (SegmentKind::Delta, segment));
        snapshot.chain(deltas).chain(claimed.chain(doubted).map(|segment| (SegmentKind::Intent, segment)))
    }

    /// The names of the objects that the head references.
    pub(crate) fn names(&self) -> impl Iterator<Item = SegmentName> {
        self.segments().filter_map(|(_, segment)| segment.stored()).map(|stored| stored.name)
    }

    /// Returns true if a segment of so many bytes may stand in the head.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let taken: usize = self
            .segments()
            .map(|(_, segment)| match segment {
                Segment::Stored(_) => 0,
                Segment::Inline(inline) => base64_len(inline.bytes.len()),
            })
            .sum();
        bytes <= MAX_INLINE && taken + base64_len(bytes) <= MAX_BYTES - RESERVE
    }
}

/// The length of so many bytes in base64.
fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}
