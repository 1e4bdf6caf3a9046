//! The files of a tree at one moment, and when a stat may be trusted.
//!
//! A stat is racy, as git calls it, if it was taken so soon after the file changed that a second change could have
//! left it the same. The code calls a stat that is not racy *settled*: an equal settled stat means equal content.

use crate::clock::Clock;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;
use serde::{Deserialize, Serialize};

use crate::key::RemoteKey;
use crate::tree::digest::Digest;

/// The result of `stat` for a file. Equal stats mean equal content unless the older one is racy: taken less than
/// 2 s after the file's ctime. Times are nanoseconds since 1970.
///
/// The device is not compared: btrfs, NFS, overlayfs and the device mapper may give it another number at each mount.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct FileStat {
    /// The size in bytes.
    pub size: u64,
    /// The last change of the content. Programs can set it.
    pub mtime: i64,
    /// The last change of content or attributes. Only the system sets it.
    pub ctime: i64,
    /// The inode number.
    pub inode: u64,
    /// The device number; it may change with each mount.
    pub device: u64,
}

impl PartialEq for FileStat {
    fn eq(&self, other: &Self) -> bool {
        self.compared_fields() == other.compared_fields()
    }
}

impl Eq for FileStat {}

impl Hash for FileStat {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.compared_fields().hash(state);
    }
}

/// The age of a ctime, in nanoseconds, below which a stat is racy: the file may have changed again within the same
/// tick of its file system's clock. 2 s is the coarsest in use (FAT).
pub(crate) const RACY_WINDOW: i64 = 2_000_000_000;

impl FileStat {
    // The types of these fields differ from system to system.
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
    pub(crate) fn of(stat: &Stat) -> Self {
        // Saturating, because a file system may contain any number.
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            size: stat.st_size as u64,
            mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            inode: stat.st_ino as u64,
            device: stat.st_dev as u64,
        }
    }

    /// The fields that tell one version of a file from another.
    fn compared_fields(&self) -> (u64, i64, i64, u64) {
        (self.size, self.mtime, self.ctime, self.inode)
    }

    /// Returns true if this stat, taken at `seen` (nanoseconds since 1970), is not racy and may stand for the
    /// content: its ctime is older than the racy window and not in the future.
    pub(crate) fn is_not_racy(&self, seen: i64) -> bool {
        // A ctime in the future means that the two clocks differ: never trusted.
        self.ctime <= seen.saturating_sub(RACY_WINDOW)
    }
}

/// The wall-clock time in nanoseconds since 1970, as in a [`FileStat`].
pub(crate) fn wall_nanos(clock: &dyn Clock) -> i64 {
    nanos_of(clock.wall())
}

/// A moment in nanoseconds since 1970, as in a [`FileStat`].
pub(crate) fn nanos_of(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The inverse of [`nanos_of`].
pub(crate) fn moment_of(nanos: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanos.unsigned_abs());
    if nanos < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

/// One file of a [`Version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its key: the path below the root.
    pub key: RemoteKey,
    /// Its stat.
    pub stat: FileStat,
    /// The digest of its content, if it is known.
    pub digest: Option<Digest>,
}

/// The files of a tree at one moment, by key and in key order.
///
/// [`Version::scan`] reads one from a directory. [`CacheManager::published`](crate::CacheManager::published) returns
/// the one that a store has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Version {
    files: BTreeMap<RemoteKey, FileEntry>,
    /// When the stats were taken, in nanoseconds since 1970; `None`: all are trusted.
    seen: Option<i64>,
}

impl Version {
    /// A version of these files; of two entries with the same key the later one counts.
    pub fn new(entries: impl IntoIterator<Item = FileEntry>) -> Self {
        let files = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        Self { files, seen: None }
    }

    /// Sets the moment at which the stats were taken. A stat whose ctime is less than 2 s older, or newer than it,
    /// is racy: the file may have changed again unnoticed. [`FileDiff::compute`](crate::FileDiff::compute) counts
    /// such a file as modified unless digests prove otherwise.
    pub fn seen_at(mut self, moment: SystemTime) -> Self {
        self.seen = Some(nanos_of(moment));
        self
    }

    /// Returns true if the entry's stat is not racy and may stand for the file's content.
    pub(crate) fn trusts_stat_of(&self, entry: &FileEntry) -> bool {
        self.seen.is_none_or(|seen| entry.stat.is_not_racy(seen))
    }

    /// The files in key order.
    pub fn entries(&self) -> impl Iterator<Item = &FileEntry> {
        self.files.values()
    }

    /// The file of this key.
    pub fn get(&self, key: &RemoteKey) -> Option<&FileEntry> {
        self.files.get(key)
    }

    /// The number of files.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Returns true if there are no files.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// btrfs, NFS, overlayfs and the device mapper may number their devices differently at each mount. After one, the
    /// whole tree was hashed again and unfinished multipart uploads were aborted.
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
        assert!(stat.is_not_racy(12_000_000_000));
        assert!(!stat.is_not_racy(11_999_999_999));
        assert!(!stat.is_not_racy(9_000_000_000));
    }
}
