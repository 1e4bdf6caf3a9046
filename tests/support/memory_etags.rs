//! How the in-memory store makes `ETag`s. Part of `memory_store.rs`.

use super::state::{State, StoredObject};

/// What the `ETag` of an object says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ETags {
    /// The MD5 of the content; of a multipart upload the MD5 of its parts' MD5s and their number, as in `…-3`.
    #[default]
    Md5,
    /// Nothing of the content, and no MD5 by its form: `etag-00002a`.
    MadeUp,
    /// 32 hex digits, never the same twice, that are no MD5 of the content, as under SSE-KMS.
    Encrypted,
}

impl State {
    /// The `ETag` of an object, or of a part, with this content.
    pub(super) fn etag_of(&mut self, bytes: &[u8]) -> String {
        self.counter += 1;
        match self.etags {
            ETags::Md5 => hex::encode(*md5::compute(bytes)),
            ETags::MadeUp => format!("etag-{:06x}", self.counter),
            ETags::Encrypted => {
                let etag = hex::encode(*md5::compute(format!("SSE-KMS {}", self.counter)));
                self.encrypted.insert(etag.clone());
                etag
            }
        }
    }

    /// The `ETag` of the object that these parts make.
    pub(super) fn etag_of_parts(&mut self, parts: &[StoredObject]) -> String {
        if self.etags == ETags::MadeUp {
            return format!("{}-{}", self.etag_of(&[]), parts.len());
        }
        let md5_of = |part: &StoredObject| {
            hex::decode(&part.etag).unwrap_or_else(|_| md5::compute(&part.bytes).to_vec())
        };
        let md5s: Vec<u8> = parts.iter().flat_map(md5_of).collect();
        let etag = format!("{}-{}", hex::encode(*md5::compute(md5s)), parts.len());
        if self.etags == ETags::Encrypted {
            self.encrypted.insert(etag.clone());
        }
        etag
    }
}
