//! Catalog files whose checksum is right: mapped, and read by `get`, `iter`, `prefix` and `pending`.

use std::path::PathBuf;
use std::sync::LazyLock;

use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

use super::check_error;
use crate::state::resolve::Resolved;
use crate::{Catalog, ErrorKind};

const HEAD: usize = 64;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

thread_local! {
    static PATH: PathBuf = FOLDER.path().join(format!("{:?}.catalog", std::thread::current().id()));
}

/// The first byte: 0 for a file as it is, else its lengths and its checksum are made right.
pub(crate) fn target(data: &[u8]) {
    let Some((mode, file)) = data.split_first() else { return };
    let mut file = file.to_vec();
    if *mode > 0 && file.len() >= HEAD {
        mend(&mut file);
    }
    PATH.with(|path| {
        // As a rescan does: what is mapped is never written to.
        let _ = std::fs::remove_file(path);
        std::fs::write(path, &file).unwrap();
        match Catalog::open(path) {
            Ok(catalog) => check_catalog(catalog, file.len()),
            Err(error) => {
                check_error(&error, 0);
                assert!(matches!(error.kind(), ErrorKind::CacheDamaged | ErrorKind::Unsupported), "{error}");
            }
        }
    });
}

/// Makes magic bytes, version, lengths and checksum those of a catalog.
fn mend(file: &mut [u8]) {
    let number = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    let length = file.len() as u64;
    file[..16].copy_from_slice(b"brigcatl\x02\0\0\0\0\0\0\0");
    file[24..32].copy_from_slice(&length.to_le_bytes());
    let mut left = length - HEAD as u64;
    // Tail, records and details take what they say, as far as there is room; the keys have the rest.
    for (at, size) in [(56, 1), (32, 56), (40, 96)] {
        let count = number(file, at).min(left / size);
        file[at..at + 8].copy_from_slice(&count.to_le_bytes());
        left -= count * size;
    }
    file[48..56].copy_from_slice(&left.to_le_bytes());
    file[16..24].fill(0);
    let mut hasher = Xxh3::new();
    hasher.update(&file[HEAD..]);
    hasher.update(&file[..HEAD]);
    let checksum = hasher.digest();
    file[16..24].copy_from_slice(&checksum.to_le_bytes());
}

fn check_catalog(mut catalog: Catalog, length: usize) {
    assert!(catalog.len() * 56 <= length);
    let all: Vec<(String, Resolved)> = catalog.iter().collect();
    assert!(all.len() <= catalog.len() && all.is_sorted_by(|one, next| one.0 < next.0));
    for (key, resolved) in all.iter().take(64) {
        assert!(key.len() <= 1024 + 4);
        assert!(catalog.get(key).as_ref() == Some(resolved) || catalog.is_damaged(), "{key}");
    }
    let prefixes = all.iter().take(8).map(|(key, _)| key.chars().take(2).collect::<String>());
    for prefix in prefixes.chain(["a/".to_owned(), "zz".to_owned(), "é".to_owned()]) {
        let below: Vec<_> = catalog.prefix(&prefix).collect();
        let expected: Vec<_> = all.iter().filter(|(key, _)| key.starts_with(&prefix)).cloned().collect();
        assert!(below == expected || catalog.is_damaged());
    }
    for absent in ["", "\u{ff}", "a", "a/../b"] {
        let found = catalog.get(absent);
        assert!(found.is_none() || all.iter().any(|(key, _)| key == absent) || catalog.is_damaged());
    }
    assert!(catalog.pending().len() <= catalog.len());
    let _ = (catalog.summary(), catalog.created());
    match catalog.refresh() {
        Ok(changed) => assert!(!changed && !catalog.is_damaged()),
        Err(error) => assert!(catalog.is_damaged() && error.kind() == ErrorKind::CacheDamaged),
    }
}
