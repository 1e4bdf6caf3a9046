//! Records of the cache, with a right checksum: what is left if the file was forged, or the code that wrote it was wrong.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::backend::SentPart;
use crate::state::records::{OpenUpload, Pending, Published, decode, encode};
use crate::state::resolve::Known;

const KEY: &str = "a/b";

/// The first byte chooses the type, the others are the fields of the record.
pub(crate) fn target(data: &[u8]) {
    let Some((kind, fields)) = data.split_first() else { return };
    match kind % 4 {
        0 => check_published(fields),
        1 => drop(check::<Pending>(fields)),
        2 => drop(check::<Vec<OpenUpload>>(fields)),
        _ => drop(check::<(u32, SentPart)>(fields)),
    }
}

fn check_published(fields: &[u8]) {
    let Some(published) = check::<Published>(fields) else { return };
    assert!(published.is_same_object(&published.clone()));
    let pending = check::<Pending>(fields);
    let known = Known::new(Some(&published), pending.as_ref());
    assert_eq!(known.published.unwrap().size, published.stat.size);
}

/// Decodes fields with a right checksum. What is accepted is the same after it was written and read again.
fn check<T: DeserializeOwned + Serialize + Debug + PartialEq>(fields: &[u8]) -> Option<T> {
    let bytes = [fields, checksum_of(fields).as_slice()].concat();
    assert!(decode::<T>("a/c", &bytes).is_none(), "a record of another key");
    let record: T = decode(KEY, &bytes)?;
    let written = encode(KEY, &record).unwrap();
    // Numbers may be written in more bytes than they need, and bytes behind the record are ignored.
    assert!(written.len() <= bytes.len());
    assert_eq!(decode::<T>(KEY, &written).as_ref(), Some(&record));
    Some(record)
}

fn checksum_of(fields: &[u8]) -> [u8; 8] {
    let length = (KEY.len() as u64).to_le_bytes();
    let hash = Sha256::digest([length.as_slice(), KEY.as_bytes(), fields].concat());
    hash[..8].try_into().unwrap()
}
