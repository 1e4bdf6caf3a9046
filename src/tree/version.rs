//! What a tree held at one moment.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::key::RemoteKey;
use crate::tree::digest::Digest;

/// What `stat` says of a file. Two equal ones stand for equal content, but for the racy rule
/// (see the crate's promises). Times are nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Last change of the content, as programs may set it.
    pub mtime: i64,
    /// Last change of content or attributes, as only the system sets it.
    pub ctime: i64,
    /// The inode.
    pub inode: u64,
    /// The device that holds it.
    pub device: u64,
}

/// A file whose ctime is this close to the moment it was looked at may have changed again within
/// the same tick of its file system's clock: 2 s, the coarsest in use (FAT).
pub(crate) const RACY_WINDOW: i64 = 2_000_000_000;

impl FileStat {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            size: metadata.size(),
            mtime: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        }
    }

    /// Whether this stat, taken at `seen` (nanoseconds since 1970), may stand for the content: its
    /// ctime is older than the racy window and not in the future.
    pub(crate) fn is_settled(&self, seen: i64) -> bool {
        self.ctime <= seen.saturating_sub(RACY_WINDOW)
    }
}

/// Nanoseconds since 1970, as stats have them.
pub(crate) fn nanos_of(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The moment that nanoseconds since 1970 are.
pub(crate) fn moment_of(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// One file of a [`Version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its key: the path below the root.
    pub key: RemoteKey,
    /// What `stat` said.
    pub stat: FileStat,
    /// Its content, where it is known.
    pub digest: Option<Digest>,
}

/// What a tree held at one moment: files by key, in key order.
///
/// [`Version::scan`] makes one of a directory, [`CacheManager::published`](crate::CacheManager::published)
/// one of what a store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    files: BTreeMap<RemoteKey, FileEntry>,
    /// When it was looked at, in nanoseconds since 1970.
    seen: Option<i64>,
}

impl Version {
    /// A version of these files; of two with one key the later counts.
    pub fn new(entries: impl IntoIterator<Item = FileEntry>) -> Self {
        let files = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Self { files, seen: None }
    }

    /// The same, looked at at this moment. A file whose ctime lies less than 2 s before it, or after it,
    /// may have changed again unseen: [`FileDiff::compute`](crate::FileDiff::compute) takes it for
    /// modified, unless digests say otherwise.
    pub fn seen_at(mut self, moment: SystemTime) -> Self {
        self.seen = Some(nanos_of(moment));
        self
    }

    /// Whether the stat of one of its files may stand for the file's content.
    pub(crate) fn trusts(&self, entry: &FileEntry) -> bool {
        self.seen.is_none_or(|seen| entry.stat.is_settled(seen))
    }

    /// The files in key order.
    pub fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.values()
    }

    /// The file of this key.
    pub fn get(&self, key: &RemoteKey) -> Option<&FileEntry> {
        self.files.get(key)
    }

    /// How many files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_a_stat_stands_for_content_once_its_ctime_is_two_seconds_old_and_not_in_the_future() {
        let stat = FileStat { ctime: 10_000_000_000, mtime: i64::MAX, ..FileStat::default() };
        assert!(stat.is_settled(12_000_000_000));
        assert!(!stat.is_settled(11_999_999_999));
        assert!(!stat.is_settled(9_000_000_000));
    }
}
