//! The digest that identifies a file's content, and the plan that divides a large file into parts.

use std::fmt;
use std::io::{self, Read};
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The most parts of one upload (Amazon S3 User Guide, "Amazon S3 multipart upload limits").
pub(crate) const MOST_PARTS: u64 = 10_000;
/// The smallest part size; only the last part may be smaller. S3 allows 5 MiB, but below 8 MiB the cost of the
/// requests shows.
pub(crate) const SMALLEST_PART: u64 = 8 * MIB;
/// The largest part, which is also the largest body of one `PutObject` (same source).
pub(crate) const LARGEST_PART: u64 = 5 * GIB;
/// The largest object, unless a store says otherwise (same source).
pub(crate) const LARGEST_OBJECT: u64 = 5 * 1024 * GIB;
/// The unit of a part size that has to be larger than the configured one.
const STEP: u64 = MIB;
/// The bytes read at a time to hash a stream.
const HASH_CHUNK: usize = 64 * 1024;

/// The SHA-256 of a file's bytes; or, for a file sent as a multipart upload, the SHA-256 of its parts' SHA-256s
/// (S3's composite form) together with the part size.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    sha256: [u8; 32],
    part_size: Option<NonZeroU64>,
}

impl Digest {
    /// Stands for a content that nobody has hashed, as an object ID of zeros stands for no object in git.
    pub(crate) const UNKNOWN: Self = Self { sha256: [0; 32], part_size: None };

    /// The plain SHA-256 of a whole file.
    pub(crate) fn whole(sha256: [u8; 32]) -> Self {
        Self { sha256, part_size: None }
    }

    /// A digest that was computed before.
    pub(crate) fn known(sha256: [u8; 32], part_size: Option<NonZeroU64>) -> Self {
        Self { sha256, part_size }
    }

    /// Computes the composite digest of a file that is sent in the parts of `plan`, from the SHA-256 of each part
    /// in order.
    ///
    /// ```
    /// use bucket_brigade::{Digest, PartPlan};
    /// let plan = PartPlan::new(20 << 20, 8 << 20).unwrap();
    /// let digest = Digest::of_parts(&plan, &[[1; 32], [2; 32], [3; 32]]);
    /// assert_eq!(digest.part_size(), Some(8 << 20));
    /// ```
    pub fn of_parts(plan: &PartPlan, parts: &[[u8; 32]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self { sha256: hasher.finalize().into(), part_size: Some(plan.part_size) }
    }

    /// Computes the digest of a stream: the plain one, or the composite one with parts of `part_size` bytes.
    /// Verifies a download like this: `Digest::of_stream(file, known.part_size())? == known`.
    ///
    /// # Errors
    /// The errors of the stream.
    ///
    /// ```
    /// use bucket_brigade::Digest;
    /// let plain = Digest::of_stream(&b"abc"[..], None).unwrap();
    /// assert!(plain.to_hex().starts_with("ba7816bf"));
    /// ```
    pub fn of_stream(mut stream: impl Read, part_size: Option<u64>) -> io::Result<Self> {
        let part_size = part_size.and_then(NonZeroU64::new);
        let mut parts = Sha256::new();
        loop {
            let (sha256, count) = hash_up_to(&mut stream, part_size.map_or(u64::MAX, NonZeroU64::get))?;
            match part_size {
                None => return Ok(Self::whole(sha256)),
                // The end of the stream. No part is empty, not even the last.
                Some(_) if count == 0 => {
                    return Ok(Self { sha256: parts.finalize().into(), part_size });
                }
                Some(_) => parts.update(sha256),
            }
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The part size in bytes of a composite digest; `None` for a plain SHA-256.
    pub fn part_size(&self) -> Option<u64> {
        self.part_size.map(NonZeroU64::get)
    }

    /// The digest as 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.sha256)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.part_size {
            None => write!(f, "sha256:{}", self.to_hex()),
            Some(size) => write!(f, "sha256/{size}:{}", self.to_hex()),
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn hash_up_to(stream: &mut impl Read, most: u64) -> io::Result<([u8; 32], u64)> {
    let (mut hasher, mut buffer, mut total) = (Sha256::new(), vec![0; HASH_CHUNK], 0);
    let mut stream = stream.take(most);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok((hasher.finalize().into(), total)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                total += count as u64;
            }
            // A signal interrupted the read: read again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The division of a large file into parts: all of the same size except the last, each of at least 8 MiB, at most
/// 10,000 of them. Depends only on the file's size and the wanted part size.
///
/// ```
/// use bucket_brigade::PartPlan;
/// let plan = PartPlan::new(40_000_000, 16 << 20).unwrap();
/// assert_eq!((plan.count(), plan.part(3)), (3, Some((33_554_432, 6_445_568))));
/// // 10,000 parts of 8 MiB hold 78 GiB; a larger file gets larger parts.
/// assert_eq!(PartPlan::new(1 << 40, 8 << 20).unwrap().part_size(), 105 << 20);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartPlan {
    size: u64,
    part_size: NonZeroU64,
}

impl PartPlan {
    /// Plans a file of `size` bytes with parts of about `wanted` bytes. The part size is `wanted` if that lies
    /// between 8 MiB and 5 GiB and gives at most 10,000 parts, else the nearest size that does, in whole MiB.
    /// Returns `None` for an empty file and for one that is larger than 10,000 parts of 5 GiB.
    pub fn new(size: u64, wanted: u64) -> Option<Self> {
        let needed = size.div_ceil(MOST_PARTS);
        // Only a size that has to be raised is rounded up; the wanted one is taken as it is.
        let needed = if needed > wanted { needed.next_multiple_of(STEP) } else { wanted };
        // The upper limit may leave too many parts, which the filter below refuses.
        let part_size = needed.clamp(SMALLEST_PART, LARGEST_PART);
        Self::exactly(size, part_size).filter(|plan| size > 0 && u64::from(plan.count()) <= MOST_PARTS)
    }

    /// The plan with exactly this part size: an upload that is resumed keeps its own, whatever is configured now.
    pub(crate) fn exactly(size: u64, part_size: u64) -> Option<Self> {
        let part_size = NonZeroU64::new(part_size)?;
        // Part numbers are 32 bits wide; a stored part size may be any number.
        u32::try_from(size.div_ceil(part_size.get())).is_ok().then_some(Self { size, part_size })
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The size in bytes of every part but the last.
    pub fn part_size(&self) -> u64 {
        self.part_size.get()
    }

    /// The number of parts.
    pub fn count(&self) -> u32 {
        u32::try_from(self.size.div_ceil(self.part_size.get())).unwrap_or(u32::MAX)
    }

    /// The offset and the length in bytes of part `number`, counted from 1; `None` if there is no such part.
    pub fn part(&self, number: u32) -> Option<(u64, u64)> {
        let offset = u64::from(number.checked_sub(1)?).checked_mul(self.part_size.get())?;
        (offset < self.size).then(|| (offset, self.part_size.get().min(self.size - offset)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(size: u64, wanted: u64) -> Option<(u64, u32)> {
        PartPlan::new(size, wanted).map(|plan| (plan.part_size(), plan.count()))
    }

    #[test]
    fn k6_part_plan_at_its_limits() {
        // No part is smaller than 8 MiB (S3 allows 5 MiB) or larger than 5 GiB.
        for wanted in [0, 1, 5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 8 * MIB - 1, 8 * MIB] {
            assert_eq!(shape(40 * MIB, wanted), Some((8 * MIB, 5)), "{wanted}");
        }
        assert_eq!(shape(40 * MIB, 8 * MIB + 1), Some((8 * MIB + 1, 5)));
        assert_eq!(shape(40 * MIB - 1, 8 * MIB), Some((8 * MIB, 5)));
        assert_eq!(shape(40 * MIB + 1, 8 * MIB), Some((8 * MIB, 6)));
        for wanted in [5 * GIB - 1, 5 * GIB, 5 * GIB + 1, u64::MAX] {
            assert_eq!(shape(5 * GIB, wanted).unwrap().0, wanted.min(5 * GIB));
        }
        assert_eq!(shape(5 * GIB + 1, 5 * GIB), Some((5 * GIB, 2)));
        // 10,000 parts.
        let full = MOST_PARTS * 8 * MIB;
        assert_eq!(shape(full - 1, 8 * MIB), Some((8 * MIB, 10_000)));
        assert_eq!(shape(full, 8 * MIB), Some((8 * MIB, 10_000)));
        assert_eq!(shape(full + 1, 8 * MIB), Some((9 * MIB, 8889)));
        // 5 TiB.
        for size in [LARGEST_OBJECT - 1, LARGEST_OBJECT, LARGEST_OBJECT + 1] {
            assert_eq!(shape(size, 16 * MIB), Some((525 * MIB, 9987)), "{size}");
        }
        // Sizes that no plan can hold.
        let most = MOST_PARTS * LARGEST_PART;
        assert_eq!(shape(most - 1, 0), Some((LARGEST_PART, 10_000)));
        assert_eq!(shape(most, 0), Some((LARGEST_PART, 10_000)));
        assert_eq!((shape(most + 1, 0), shape(u64::MAX, u64::MAX), shape(0, MIB)), (None, None, None));
    }

    proptest! {
        #[test]
        fn parts_cover_the_file_once_and_only_the_last_may_be_smaller(
            size in 1..2 * LARGEST_OBJECT,
            wanted in 0..2 * LARGEST_PART,
        ) {
            let plan = PartPlan::new(size, wanted).unwrap();
            let count = plan.count();
            prop_assert!(count >= 1 && u64::from(count) <= MOST_PARTS);
            prop_assert!((SMALLEST_PART..=LARGEST_PART).contains(&plan.part_size()));
            let (last_offset, last_length) = plan.part(count).unwrap();
            prop_assert_eq!(last_offset, u64::from(count - 1) * plan.part_size());
            prop_assert!(last_length >= 1 && last_offset + last_length == size);
            prop_assert!(count == 1 || plan.part(count - 1).unwrap().1 == plan.part_size());
            prop_assert_eq!((plan.part(0), plan.part(count + 1)), (None, None));
        }
    }

    #[test]
    fn a_composite_digest_is_the_hash_of_the_parts_hashes() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let plan = PartPlan::exactly(100_000, 40_000).unwrap();
        let parts: Vec<_> = bytes.chunks(40_000).map(hash).collect();
        let digest = Digest::of_parts(&plan, &parts);
        assert_eq!(digest.as_bytes(), &hash(&parts.concat()));
        assert_eq!(Digest::of_stream(&bytes[..], Some(40_000)).unwrap(), digest);
        assert_eq!(Digest::of_stream(&bytes[..], None).unwrap(), Digest::whole(hash(&bytes)));
        assert_ne!(Digest::of_stream(&bytes[..], Some(40_001)).unwrap(), digest);
    }
}
