//! The proof of origin: metadata of an object that tells which run stored it, and what it holds.

use std::fmt;
use std::num::NonZeroU64;

use sha2::{Digest as _, Sha256};

use crate::tree::digest::{Digest, PartPlan};

/// The longest value that is read.
const MAX_BYTES: usize = 512;

/// The proof of origin that every object carries in `x-amz-meta-brigade`, as `sha256=…;size=…;run=…;key=…`. An object of
/// a multipart upload also has `part-size=…`, and lacks the digest if the file was not hashed when the upload was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The digest of the content: by parts if `part_size` is set.
    pub(crate) digest: Option<Digest>,
    /// The size in bytes.
    pub(crate) size: u64,
    /// The part size of a multipart upload.
    pub(crate) part_size: Option<NonZeroU64>,
    /// The token of the run that sent the object, or created its multipart upload.
    pub(crate) run: String,
    /// The key that it was stored under, prefix included, as a hash. A copy under another key proves the content, not
    /// that a run stored it there.
    pub(crate) key: Option<KeyHash>,
}

/// The first bytes of the SHA-256 of an object's key.
pub(crate) type KeyHash = [u8; 8];

/// Returns the hash of an object's key, prefix included.
pub(crate) fn hash_of_key(object: &str) -> KeyHash {
    let (hash, mut short) = (Sha256::digest(object), KeyHash::default());
    short.copy_from_slice(&hash[..8]);
    short
}

impl Proof {
    /// The proof of a file that is sent in one request.
    pub(crate) fn of_file(digest: Digest, size: u64, run: &str) -> Self {
        Self { digest: Some(digest), size, part_size: None, run: run.to_owned(), key: None }
    }

    /// The proof of an object that is stored already, and keeps its content.
    pub(crate) fn of_stored(digest: Digest, size: u64, run: &str) -> Self {
        let part_size = digest.part_size().and_then(NonZeroU64::new);
        Self { part_size, ..Self::of_file(digest, size, run) }
    }

    /// The proof of a multipart upload, with the digest of the file if it was hashed already.
    pub(crate) fn of_parts(digest: Option<Digest>, plan: &PartPlan, run: &str) -> Self {
        Self {
            digest,
            size: plan.size(),
            part_size: NonZeroU64::new(plan.part_size()),
            run: run.to_owned(),
            key: None,
        }
    }

    /// The proof for an object of this key, prefix included.
    pub(crate) fn stored_under(mut self, object: &str) -> Self {
        self.key = Some(hash_of_key(object));
        self
    }

    /// Reads the metadata. Returns `None` if this library did not write it. Fields of later versions are ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_BYTES {
            return None;
        }
        let (mut sha256, mut size, mut part_size, mut run, mut key) = (None, None, None, None, None);
        for field in text.split(';') {
            let (name, value) = field.trim().split_once('=')?;
            match name {
                "sha256" => sha256 = Some(parse_sha256(value)?),
                "size" => size = Some(value.parse().ok()?),
                "part-size" => part_size = Some(value.parse().ok()?),
                "run" => run = Some(value).filter(|run| is_token(run)),
                "key" => key = Some(hex::decode(value).ok()?.try_into().ok()?),
                _ => {}
            }
        }
        let digest = sha256.map(|sha256| Digest::known(sha256, part_size));
        Some(Self { digest, size: size?, part_size, run: run?.to_owned(), key })
            .filter(|proof| proof.digest.is_some() || proof.part_size.is_some())
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(digest) = &self.digest {
            write!(f, "sha256={};", digest.to_hex())?;
        }
        write!(f, "size={};", self.size)?;
        if let Some(part_size) = self.part_size {
            write!(f, "part-size={part_size};")?;
        }
        write!(f, "run={}", self.run)?;
        self.key.map_or(Ok(()), |key| write!(f, ";key={}", hex::encode(key)))
    }
}

fn parse_sha256(text: &str) -> Option<[u8; 32]> {
    hex::decode(text).ok()?.try_into().ok()
}

fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_read_as_it_was_written() {
        let file = Proof::of_file(Digest::whole([0xab; 32]), 12, "0f");
        let text = file.to_string();
        assert_eq!(text, format!("sha256={};size=12;run=0f", "ab".repeat(32)));
        assert_eq!(Proof::parse(&text), Some(file.clone()));
        let keyed = file.clone().stored_under("site/a");
        assert_eq!(keyed.to_string(), format!("{text};key={}", hex::encode(hash_of_key("site/a"))));
        assert_eq!(Proof::parse(&keyed.to_string()), Some(keyed));
        let part_size = NonZeroU64::new(16);
        let parts =
            Proof { digest: Some(Digest::known([1; 32], part_size)), part_size, size: 40, ..file.clone() };
        assert_eq!(Proof::parse(&parts.to_string()), Some(parts.clone()));
        let unhashed = Proof { digest: None, ..parts };
        assert_eq!(unhashed.to_string(), "size=40;part-size=16;run=0f");
        assert_eq!(Proof::parse(&unhashed.to_string()), Some(unhashed));
        // A later version may add fields, a store may fold the header.
        assert_eq!(Proof::parse(&text.replace(';', "; ").replace("run", "new=1;run")), Some(file));
    }

    #[test]
    fn s6_what_this_library_did_not_write_is_no_proof() {
        let sha256 = "ab".repeat(32);
        for text in [
            String::new(),
            "1".into(),
            "size=1;run=a".into(),
            format!("sha256={sha256};size=1"),
            format!("sha256={sha256};run=a"),
            format!("sha256={sha256};size=-1;run=a"),
            format!("sha256={sha256};size=99999999999999999999999;run=a"),
            format!("sha256={}0;size=1;run=a", &sha256[2..]),
            format!("sha256={sha256};size=1;run="),
            format!("sha256={sha256};size=1;run=a/b"),
            format!("sha256={sha256};size=1;run={}", "a".repeat(65)),
            format!("sha256={sha256};size=1;part-size=0;run=a"),
            format!("sha256={sha256};size=1;run=a;{}", "x=y;".repeat(200)),
            format!("sha256={sha256};size=1;run=a;nothing"),
            format!("sha256={sha256};size=1;run=a;key=ab"),
        ] {
            assert_eq!(Proof::parse(&text), None, "{text}");
        }
    }
}
