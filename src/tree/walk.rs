//! The walk: every file below a root, in the order of keys, following no links.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::fs::FileType;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use walkdir::{DirEntry, WalkDir};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::{MAX_KEY_BYTES, RemoteKey};
use crate::tree::filter::Filter;
use crate::tree::version::{FileEntry, FileStat, Version};

/// One thing that the walk came upon.
#[derive(Debug)]
pub(crate) enum Found {
    File(FileEntry),
    /// Not published and not followed; what was published there is kept.
    Skipped(Skip),
    /// Something could not be read: nothing may be deleted on this run.
    Failed(StorageError),
}

/// Why something on disk is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skip {
    /// Where it is, below the root.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

impl fmt::Display for Skip {
    /// The path, with control characters and what is not UTF-8 escaped, and the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.as_os_str().as_bytes().escape_ascii(), self.reason.as_str())
    }
}

/// Why something on disk is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Special,
    /// Its name is not UTF-8, or longer than a key may be.
    Name,
}

impl SkipReason {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => "a symbolic link is not followed",
            Self::Special => "not a regular file",
            Self::Name => "its name cannot be a key (not UTF-8, or longer than 1,024 bytes with the prefix)",
        }
    }
}

/// Walks `root` in the order of keys, directories sorted as `name/`. Errors are items; a directory
/// that cannot be read does not end the walk. Keys may have up to `longest` bytes. What `filter` does not
/// admit is not there; nothing below a folder that it excludes is looked at.
pub(crate) fn walk<'a>(
    root: &Path,
    longest: usize,
    filter: &'a Filter,
) -> impl Iterator<Item = Found> + use<'a> {
    let (base, top) = (root.to_owned(), root.to_owned());
    WalkDir::new(root)
        .follow_links(false)
        .follow_root_links(true)
        .min_depth(1)
        .sort_by(|a, b| order(a.file_name(), a.file_type(), b.file_name(), b.file_type()))
        .into_iter()
        .filter_entry(move |entry| !below(&top, entry.path()).is_some_and(|path| filter.excludes(path)))
        .filter_map(move |entry| match entry {
            Ok(entry) if entry.file_type().is_dir() => None,
            Ok(entry) if below(&base, entry.path()).is_some_and(|path| !filter.admits(path)) => None,
            Ok(entry) => Some(look_at(&base, longest, &entry)),
            Err(error) => Some(Found::Failed(failure(&base, error))),
        })
}

/// The path from the root, where it can be a key.
fn below<'a>(root: &Path, path: &'a Path) -> Option<&'a str> {
    path.strip_prefix(root).ok()?.to_str()
}

impl Version {
    /// What a directory holds now: its regular files, without digests. No file's content is read.
    ///
    /// # Errors
    /// The first directory or file that cannot be looked at, with its path: a version with gaps would
    /// be taken for one with removals.
    pub fn scan(root: impl AsRef<Path>) -> Result<Self, StorageError> {
        let seen = SystemTime::now();
        let mut entries = Vec::new();
        for found in walk(root.as_ref(), MAX_KEY_BYTES, &Filter::default()) {
            match found {
                Found::File(entry) => entries.push(entry),
                Found::Skipped(_) => {}
                Found::Failed(error) => return Err(error),
            }
        }
        Ok(Self::new(entries).seen_at(seen))
    }
}

/// Siblings in the order of the keys below them: by bytes, a directory as if its name ended in `/`.
fn order(a: &OsStr, a_type: FileType, b: &OsStr, b_type: FileType) -> Ordering {
    name_order((a.as_bytes(), a_type.is_dir()), (b.as_bytes(), b_type.is_dir()))
}

fn name_order(a: (&[u8], bool), b: (&[u8], bool)) -> Ordering {
    fn bytes((name, is_dir): (&[u8], bool)) -> impl Iterator<Item = u8> + '_ {
        name.iter().copied().chain(is_dir.then_some(b'/'))
    }
    bytes(a).cmp(bytes(b))
}

fn look_at(root: &Path, longest: usize, entry: &DirEntry) -> Found {
    let relative = entry.path().strip_prefix(root).unwrap_or(entry.path());
    let skipped = |reason| Found::Skipped(Skip { path: relative.to_owned(), reason });
    let file_type = entry.file_type();
    if file_type.is_symlink() {
        return skipped(SkipReason::Symlink);
    }
    if file_type.is_fifo() || !file_type.is_file() {
        return skipped(SkipReason::Special);
    }
    let key = match RemoteKey::from_relative(relative) {
        Some(Ok(key)) if key.as_str().len() <= longest => key,
        _ => return skipped(SkipReason::Name),
    };
    match entry.metadata() {
        Ok(metadata) if !metadata.is_file() => skipped(SkipReason::Special),
        Ok(metadata) => Found::File(FileEntry { key, stat: FileStat::of(&metadata), digest: None }),
        Err(error) => Found::Failed(failure(root, error)),
    }
}

fn failure(root: &Path, error: walkdir::Error) -> StorageError {
    let path = error.path().unwrap_or(root).to_owned();
    let vanished = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
    let kind = if vanished { ErrorKind::SourceVanished } else { ErrorKind::SourceUnreadable };
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("cannot be walked"));
    StorageError::io(kind, Operation::Walk, &path, source)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn keys(root: &Path) -> Vec<String> {
        walk(root, MAX_KEY_BYTES, &Filter::default())
            .filter_map(|found| match found {
                Found::File(entry) => Some(entry.key.into_string()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn directories_sort_as_their_name_and_a_slash() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a-", "a.b", "b", "a!"] {
            fs::write(root.path().join(name), "").unwrap();
        }
        fs::create_dir(root.path().join("a")).unwrap();
        fs::write(root.path().join("a/x"), "").unwrap();
        assert_eq!(keys(root.path()), ["a!", "a-", "a.b", "a/x", "b"]);
    }

    #[test]
    fn f6_links_and_fifos_are_skipped_with_their_reason_and_loops_do_not_hang() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        let skipped: Vec<_> = walk(root.path(), MAX_KEY_BYTES, &Filter::default())
            .filter_map(|found| match found {
                Found::Skipped(skip) => Some((skip.path.display().to_string(), skip.reason)),
                _ => None,
            })
            .collect();
        assert_eq!(
            skipped,
            [("loop".to_owned(), SkipReason::Symlink), ("socket".to_owned(), SkipReason::Special)]
        );
        assert_eq!(keys(root.path()), ["file"]);
    }

    // Other systems refuse such names themselves.
    #[cfg(target_os = "linux")]
    #[test]
    fn k2_names_that_are_not_utf8_or_too_long_are_skipped_and_the_others_go_on() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(OsStr::from_bytes(b"bad\xff")), "x").unwrap();
        fs::write(root.path().join("n".repeat(200)), "x").unwrap();
        let found: Vec<_> = walk(root.path(), 199, &Filter::default()).collect();
        assert!(found.iter().all(|f| matches!(f, Found::Skipped(s) if s.reason == SkipReason::Name)));
        assert_eq!((found.len(), keys(root.path()).len()), (2, 1));
        let Found::Skipped(skip) = &found[0] else { panic!("{found:?}") };
        assert!(skip.to_string().starts_with("bad\\xff: its name"), "{skip}");
    }

    proptest! {
        #[test]
        fn siblings_are_in_the_order_of_the_keys_below_them(
            a in "[a-c./ -]{1,3}", b in "[a-c./ -]{1,3}", a_dir: bool, b_dir: bool,
        ) {
            prop_assume!(!a.contains('/') && !b.contains('/') && a != b);
            let key = |name: &str, is_dir| if is_dir { format!("{name}/x") } else { name.to_owned() };
            let by_key = key(&a, a_dir).cmp(&key(&b, b_dir));
            prop_assert_eq!(name_order((a.as_bytes(), a_dir), (b.as_bytes(), b_dir)), by_key);
        }
    }
}
