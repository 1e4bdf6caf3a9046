//! The bytes of a catalog. All numbers are little-endian.
//!
//! ```text
//! head      64 bytes
//! records   56 bytes for each key, in key order
//! details   96 bytes for each key that has two versions, a composite digest, or a whole-file digest beside it
//! keys      an fst::Map: key -> record number
//! tail      facts about the whole catalog (postcard)
//! ```

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::state::records::PendingKind;
use crate::state::resolve::{Facts, Known};
use crate::tree::digest::Digest;

const MAGIC: [u8; 8] = *b"brigcatl";
/// The version of this layout; every change of it raises the number.
const VERSION: u32 = 2;

pub(crate) const HEAD: usize = 64;
pub(crate) const RECORD: usize = 56;
pub(crate) const DETAIL: usize = 96;
/// The longest tail that is believed: a tail is a few URLs and numbers.
const LONGEST_TAIL: u64 = 1 << 20;

/// The detail number of a record that has no detail.
const NO_DETAIL: u32 = u32::MAX;

const PUBLISHED: u8 = 1;
const ATTEMPTED: u8 = 1 << 1;
const HAS_DIGEST: u8 = 1 << 3;
const DISK_HAS_DIGEST: u8 = 1 << 4;
const HAS_WHOLE: u8 = 1 << 5;

/// The first bytes of a catalog: the lengths of its sections and their checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) checksum: u64,
    pub(crate) file_len: u64,
    pub(crate) records: u64,
    pub(crate) details: u64,
    pub(crate) keys_len: u64,
    pub(crate) tail_len: u64,
}

/// The reason why a file cannot be read as a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    Foreign,
    Newer(u32),
    Damaged,
}

impl Head {
    pub(crate) fn encode(&self) -> [u8; HEAD] {
        let Self { checksum, file_len, records, details, keys_len, tail_len } = *self;
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, number) in [checksum, file_len, records, details, keys_len, tail_len].into_iter().enumerate()
        {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Decodes the head of a file of `file_len` bytes.
    pub(crate) fn decode(bytes: &[u8], file_len: u64) -> Result<Self, Flaw> {
        if bytes.get(..8).is_some_and(|magic| magic != MAGIC) {
            return Err(Flaw::Foreign);
        }
        // Too short even for the magic bytes: probably a catalog that was cut off.
        if bytes.len() < HEAD {
            return Err(Flaw::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            newer if newer > VERSION => return Err(Flaw::Newer(newer)),
            // An older version needs no converter: the next rescan writes the file again.
            _ => return Err(Flaw::Damaged),
        }
        let number = |at: usize| u64_at(bytes, 16 + at * 8);
        let head = Self {
            checksum: number(0),
            file_len: number(1),
            records: number(2),
            details: number(3),
            keys_len: number(4),
            tail_len: number(5),
        };
        // All offsets are computed from these numbers later, so they must add up here.
        let is_whole = u32_at(bytes, 12) == 0
            && head.file_len == file_len
            && head.length() == Some(file_len)
            && head.tail_len <= LONGEST_TAIL;
        if is_whole { Ok(head) } else { Err(Flaw::Damaged) }
    }

    /// The length of a file with these sections; `None` if it overflows.
    fn length(&self) -> Option<u64> {
        let records = self.records.checked_mul(RECORD as u64)?;
        let details = self.details.checked_mul(DETAIL as u64)?;
        [records, details, self.keys_len, self.tail_len].into_iter().try_fold(HEAD as u64, u64::checked_add)
    }

    /// The offset of the tail.
    pub(crate) fn tail_at(&self) -> u64 {
        self.file_len - self.tail_len
    }

    /// Sets the checksum, which covers the body (already hashed) and the rest of the head.
    pub(crate) fn with_checksum(mut self, body: &mut Xxh3) -> Self {
        self.checksum = 0;
        body.update(&self.encode());
        self.checksum = body.digest();
        self
    }

    /// Returns true if the head's checksum is the right one for this body.
    pub(crate) fn checksum_matches(&self, body: &[u8]) -> bool {
        let mut hasher = Xxh3::new();
        hasher.update(body);
        self.with_checksum(&mut hasher).checksum == self.checksum
    }
}

/// Facts about the whole catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tail {
    pub(crate) destination: Option<String>,
    pub(crate) store: Base,
    pub(crate) fallback: Option<Base>,
    /// The cache's change number from when the catalog was written.
    pub(crate) changes: u64,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    pub(crate) published: u64,
    pub(crate) published_bytes: u64,
    pub(crate) pending: u64,
    pub(crate) open_uploads: u64,
    pub(crate) synced: bool,
}

/// The base URL of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) url: String,
    /// Set if every URL is this base and the encoded key.
    pub(crate) plain: bool,
}

/// Encodes the record of a key, and its detail if it needs one.
pub(crate) fn encode(known: &Known, detail_number: u32) -> ([u8; RECORD], Option<[u8; DETAIL]>) {
    let (mut record, mut detail) = ([0; RECORD], [0; DETAIL]);
    let (kind, wanted) = match known.pending {
        None => (0, None),
        Some((kind, facts)) => (code_of_kind(kind), Some((kind, facts))),
    };
    let on_disk = |kind| matches!(kind, PendingKind::Added | PendingKind::Modified);
    // The main facts are the published version's, or else the pending file's. A second version needs a detail.
    let disk = wanted.filter(|(kind, _)| known.published.is_some() && on_disk(*kind));
    let disk = disk.map(|(_, facts)| facts);
    let main = known.published.or(wanted.map(|(_, facts)| facts));
    let mut flags = if known.published.is_some() { PUBLISHED } else { 0 };
    flags |= if known.attempted { ATTEMPTED } else { 0 };
    let mut needs_detail = false;
    if let Some(facts) = main {
        record[32..40].copy_from_slice(&facts.size.to_le_bytes());
        record[40..48].copy_from_slice(&facts.mtime.to_le_bytes());
        if let Some(digest) = facts.digest {
            flags |= HAS_DIGEST;
            record[..32].copy_from_slice(digest.as_bytes());
            // A plain digest fits into the record. A composite one needs room for its part size.
            needs_detail |= digest.part_size().is_some();
            detail[56..64].copy_from_slice(&digest.part_size().unwrap_or(0).to_le_bytes());
        }
        if let Some(whole) = facts.whole {
            (flags, needs_detail) = (flags | HAS_WHOLE, true);
            detail[64..96].copy_from_slice(&whole);
        }
    }
    if let Some(facts) = disk {
        needs_detail = true;
        detail[..8].copy_from_slice(&facts.size.to_le_bytes());
        detail[8..16].copy_from_slice(&facts.mtime.to_le_bytes());
        if let Some(digest) = facts.digest {
            flags |= DISK_HAS_DIGEST;
            detail[16..48].copy_from_slice(digest.as_bytes());
            detail[48..56].copy_from_slice(&digest.part_size().unwrap_or(0).to_le_bytes());
        }
    }
    let number = if needs_detail { detail_number } else { NO_DETAIL };
    record[48..52].copy_from_slice(&number.to_le_bytes());
    (record[52], record[53]) = (flags, kind);
    (record, needs_detail.then_some(detail))
}

/// Decodes a record; `detail` returns the bytes of the detail of a number.
pub(crate) fn decode<'a>(record: &[u8], detail: impl FnOnce(u32) -> Option<&'a [u8]>) -> Option<Known> {
    let flags = record[52];
    let number = u32_at(record, 48);
    // A number without its detail is damage, and the whole record counts as such.
    let detail = if number == NO_DETAIL { None } else { Some(detail(number)?) };
    let digest = |on: u8, sha256: &[u8], part_size: u64| {
        (flags & on != 0).then(|| Digest::known(bytes32(sha256), NonZeroU64::new(part_size)))
    };
    let main = Facts {
        size: u64_at(record, 32),
        mtime: i64_at(record, 40),
        digest: digest(HAS_DIGEST, &record[..32], detail.map_or(0, |detail| u64_at(detail, 56))),
        whole: detail.filter(|_| flags & HAS_WHOLE != 0).map(|detail| bytes32(&detail[64..96])),
    };
    let published = (flags & PUBLISHED != 0).then_some(main);
    let kind = kind_of_code(record[53]);
    let disk = match (published, kind, detail) {
        (Some(_), Some(PendingKind::Added | PendingKind::Modified), Some(detail)) => Facts {
            size: u64_at(detail, 0),
            mtime: i64_at(detail, 8),
            digest: digest(DISK_HAS_DIGEST, &detail[16..48], u64_at(detail, 48)),
            whole: None,
        },
        // There is one version only: it is the published one, or the one on disk.
        _ => main,
    };
    let attempted = flags & ATTEMPTED != 0;
    Some(Known { published, pending: kind.map(|kind| (kind, disk)), attempted })
}

// The codes are part of the layout, whatever the order of the enum's variants.
fn code_of_kind(kind: PendingKind) -> u8 {
    match kind {
        PendingKind::Added => 1,
        PendingKind::Modified => 2,
        PendingKind::Removed => 3,
        PendingKind::Unsettled => 4,
        PendingKind::Headers => 5,
    }
}

fn kind_of_code(code: u8) -> Option<PendingKind> {
    match code {
        1 => Some(PendingKind::Added),
        2 => Some(PendingKind::Modified),
        3 => Some(PendingKind::Removed),
        4 => Some(PendingKind::Unsettled),
        5 => Some(PendingKind::Headers),
        _ => None,
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn bytes32(bytes: &[u8]) -> [u8; 32] {
    array(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(&bytes[at..]))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array(&bytes[at..]))
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    fn facts(with_digest: bool) -> impl Strategy<Value = Facts> {
        let digest = (any::<[u8; 32]>(), of(1_u64..))
            .prop_map(|(sha256, part_size)| Digest::known(sha256, part_size.and_then(NonZeroU64::new)));
        let digest = if with_digest { digest.prop_map(Some).boxed() } else { of(digest).boxed() };
        (any::<u64>(), any::<i64>(), digest).prop_map(|(size, mtime, digest)| Facts {
            size,
            mtime,
            digest,
            whole: None,
        })
    }

    fn known() -> impl Strategy<Value = Known> {
        let kinds = prop_oneof![
            Just(PendingKind::Added),
            Just(PendingKind::Modified),
            Just(PendingKind::Removed),
            Just(PendingKind::Unsettled),
        ];
        let published =
            (facts(true), of(any::<[u8; 32]>())).prop_map(|(facts, whole)| Facts { whole, ..facts });
        (of(published), of((kinds, facts(false))), any::<bool>()).prop_map(
            |(published, pending, attempted)| {
                // A file that is gone is recorded as it was published.
                let pending = match (pending, published) {
                    (Some((kind @ (PendingKind::Removed | PendingKind::Unsettled), _)), Some(there)) => {
                        Some((kind, there))
                    }
                    (pending, _) => pending,
                };
                Known { published, pending, attempted }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(known in known(), number in 0_u32..1000) {
            let (record, detail) = encode(&known, number);
            let decoded = decode(&record, |asked| {
                assert_eq!(asked, number);
                detail.as_ref().map(|detail| &detail[..])
            });
            if known.published.is_some() || known.pending.is_some() {
                prop_assert_eq!(decoded, Some(known));
            }
        }
    }

    #[test]
    fn heads_are_read_back_and_flaws_are_told_apart() {
        let head = Head {
            checksum: 0,
            file_len: 64 + 56 + 96 + 7 + 9,
            records: 1,
            details: 1,
            keys_len: 7,
            tail_len: 9,
        };
        let bytes = head.encode();
        assert_eq!(Head::decode(&bytes, head.file_len), Ok(head));
        assert_eq!(Head::decode(&bytes, head.file_len - 1), Err(Flaw::Damaged));
        assert_eq!(Head::decode(&bytes[..63], head.file_len), Err(Flaw::Damaged));
        let with = |at: usize, byte: u8| {
            let mut bytes = bytes;
            bytes[at] = byte;
            Head::decode(&bytes, head.file_len)
        };
        assert_eq!(
            (with(0, b'x'), with(8, 3), with(8, 0)),
            (Err(Flaw::Foreign), Err(Flaw::Newer(3)), Err(Flaw::Damaged))
        );
        let huge = Head { records: u64::MAX, ..head };
        assert_eq!(Head::decode(&huge.encode(), head.file_len), Err(Flaw::Damaged));
    }
}
