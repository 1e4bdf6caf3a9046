//! What a tree held at one moment.

use crate::clock::Clock;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::key::RemoteKey;
use crate::tree::digest::Digest;

/// What `stat` says of a file. Two equal ones stand for equal content, but for the racy rule
/// (see the crate's promises). Times are nanoseconds since 1970.
///
/// The device is not compared: btrfs, NFS, overlay and the device mapper number theirs anew at each mount.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FileStat {
    /// Bytes.
    pub size: u64,
    /// Last change of the content, as programs may set it.
    pub mtime: i64,
    /// Last change of content or attributes, as only the system sets it.
    pub ctime: i64,
    /// The inode.
    pub inode: u64,
    /// The device that holds it; its number may be another one after a mount.
    pub device: u64,
}

impl PartialEq for FileStat {
    fn eq(&self, other: &Self) -> bool {
        self.compared() == other.compared()
    }
}

impl Eq for FileStat {}

impl Hash for FileStat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.compared().hash(state);
    }
}

/// A file whose ctime is this close to the moment it was looked at may have changed again within
/// the same tick of its file system's clock: 2 s, the coarsest in use (FAT).
pub(crate) const RACY_WINDOW: i64 = 2_000_000_000;

impl FileStat {
    // The types of these fields differ between systems.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
    pub(crate) fn of(stat: &Stat) -> Self {
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            size: stat.st_size as u64,
            mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
        }
    }

    /// What tells one version of a file from another.
    fn compared(&self) -> (u64, i64, i64, u64) {
        (self.size, self.mtime, self.ctime, self.inode)
    }

    /// Whether this stat, taken at `seen` (nanoseconds since 1970), may stand for the content: its
    /// ctime is older than the racy window and not in the future.
    pub(crate) fn is_settled(&self, seen: i64) -> bool {
        self.ctime <= seen.saturating_sub(RACY_WINDOW)
    }
}

/// The time of day as stats have it.
pub(crate) fn wall_nanos(clock: &dyn Clock) -> i64 {
    nanos_of(clock.wall())
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

    /// Devices of btrfs, NFS, overlay and the device mapper have another number after each mount: the whole
    /// tree was hashed again, and uploads that were open were aborted.
    #[test]
    fn device_that_is_numbered_anew_is_no_other_version_of_its_files() {
        let stat = FileStat { size: 1, mtime: 2, ctime: 3, inode: 4, device: 5 };
        assert_eq!(stat, FileStat { device: 6, ..stat });
        for other in [
            FileStat { size: 9, ..stat },
            FileStat { mtime: 9, ..stat },
            FileStat { ctime: 9, ..stat },
            FileStat { inode: 9, ..stat },
        ] {
            assert_ne!(stat, other);
        }
    }

    #[test]
    fn f2_a_stat_stands_for_content_once_its_ctime_is_two_seconds_old_and_not_in_the_future() {
        let stat = FileStat { ctime: 10_000_000_000, mtime: i64::MAX, ..FileStat::default() };
        assert!(stat.is_settled(12_000_000_000));
        assert!(!stat.is_settled(11_999_999_999));
        assert!(!stat.is_settled(9_000_000_000));
    }
}
