//! What identifies a file's content.

use std::fmt;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// SHA-256 of a file's bytes; or, for a file sent in parts, of its parts' SHA-256s (S3's composite
/// form), together with the part size that it was taken with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    sha256: [u8; 32],
    part_size: Option<NonZeroU64>,
}

impl Digest {
    pub(crate) fn whole(sha256: [u8; 32]) -> Self {
        Self { sha256, part_size: None }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.sha256
    }

    /// The size of the parts in bytes, if it is a composite digest; `None`: a plain SHA-256.
    pub fn part_size(&self) -> Option<u64> {
        self.part_size.map(NonZeroU64::get)
    }

    /// 64 hexadecimal digits.
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
