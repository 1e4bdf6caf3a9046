//! The difference between two versions: a merge of two sorted streams.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::key::RemoteKey;
use crate::tree::version::{FileEntry, Version};

/// The items of two streams in key order, paired by key. Neither stream is collected in memory.
pub(crate) struct Merge<A: Iterator, B: Iterator, F> {
    old: Peekable<A>,
    new: Peekable<B>,
    order: F,
}

/// Merges two streams in key order. `order` compares the key of an old item with that of a new one.
pub(crate) fn merge<A, B, F>(old: A, new: B, order: F) -> Merge<A::IntoIter, B::IntoIter, F>
where
    A: IntoIterator,
    B: IntoIterator,
    F: Fn(&A::Item, &B::Item) -> Ordering,
{
    Merge { old: old.into_iter().peekable(), new: new.into_iter().peekable(), order }
}

impl<A, B, F> Iterator for Merge<A, B, F>
where
    A: Iterator,
    B: Iterator,
    F: Fn(&A::Item, &B::Item) -> Ordering,
{
    type Item = (Option<A::Item>, Option<B::Item>);

    fn next(&mut self) -> Option<Self::Item> {
        let order = match (self.old.peek(), self.new.peek()) {
            (None, None) => return None,
            // A stream that has ended counts as greater than all keys.
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => (self.order)(old, new),
        };
        Some(match order {
            Ordering::Less => (self.old.next(), None),
            Ordering::Equal => (self.old.next(), self.new.next()),
            Ordering::Greater => (None, self.new.next()),
        })
    }
}

/// The change of one key from the old side to the new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Unchanged,
    Added,
    Modified,
    Removed,
}

/// Decides the change of one key. `same` compares the two sides if both have the key.
pub(crate) fn classify<T>(old: Option<&T>, new: Option<&T>, same: impl Fn(&T, &T) -> bool) -> Option<Change> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        (Some(old), Some(new)) => Some(if same(old, new) { Change::Unchanged } else { Change::Modified }),
    }
}

/// The difference between two versions, each list in key order.
///
/// ```
/// use bucket_brigade::{FileDiff, FileEntry, FileStat, RemoteKey, Version};
/// let file = |key: &str, size| FileEntry {
///     key: RemoteKey::new(key).unwrap(),
///     stat: FileStat { size, ..FileStat::default() },
///     digest: None,
/// };
/// let old = Version::new([file("a", 1), file("b", 1)]);
/// let new = Version::new([file("b", 2), file("c", 1)]);
/// let diff = FileDiff::compute(&old, &new);
/// assert_eq!(diff.added[0].key.as_str(), "c");
/// assert_eq!(diff.modified[0].key.as_str(), "b");
/// assert_eq!(diff.removed[0].as_str(), "a");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FileDiff {
    /// Files that only the new version has.
    pub added: Vec<FileEntry>,
    /// Files of both versions whose content differs or may differ, with the entries of the new version.
    pub modified: Vec<FileEntry>,
    /// Keys that only the old version has.
    pub removed: Vec<RemoteKey>,
}

impl FileDiff {
    /// Compares two versions. If both sides have a digest of the same kind (with the same part size), the digests
    /// decide. Else the stats do, and a file whose old stat is racy ([`Version::seen_at`]) counts as modified.
    pub fn compute(old: &Version, new: &Version) -> Self {
        let (old_version, new_version) = (old, new);
        let mut diff = Self::default();
        for (old, new) in merge(old_version.entries(), new_version.entries(), |a, b| a.key.cmp(&b.key)) {
            let same = |a: &&FileEntry, b: &&FileEntry| same_content(a, b, old_version.trusts_stat_of(a));
            match classify(old.as_ref(), new.as_ref(), same) {
                Some(Change::Added) => diff.added.extend(new.cloned()),
                Some(Change::Modified) => diff.modified.extend(new.cloned()),
                Some(Change::Removed) => diff.removed.extend(old.map(|entry| entry.key.clone())),
                Some(Change::Unchanged) | None => {}
            }
        }
        diff
    }

    /// Returns true if nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

fn same_content(old: &FileEntry, new: &FileEntry, trusted: bool) -> bool {
    match (&old.digest, &new.digest) {
        // Digests of different kinds cannot be compared.
        (Some(a), Some(b)) if a.part_size() == b.part_size() => a == b && old.stat.size == new.stat.size,
        // An equal but racy stat proves nothing.
        _ => trusted && old.stat == new.stat,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::tree::version::FileStat;

    fn version(files: &BTreeMap<String, u64>) -> Version {
        Version::new(files.iter().map(|(key, size)| FileEntry {
            key: RemoteKey::new(key.clone()).unwrap(),
            stat: FileStat { size: *size, ..FileStat::default() },
            digest: None,
        }))
    }

    fn tree() -> impl Strategy<Value = BTreeMap<String, u64>> {
        prop::collection::btree_map("[ab/-]{1,4}", 0_u64..3, 0..12).prop_map(|files| {
            files.into_iter().filter(|(key, _)| RemoteKey::new(key.clone()).is_ok()).collect()
        })
    }

    proptest! {
        #[test]
        fn applying_a_diff_to_the_old_version_gives_the_new_one(old in tree(), new in tree()) {
            let diff = FileDiff::compute(&version(&old), &version(&new));
            let mut applied = old.clone();
            for key in &diff.removed {
                prop_assert!(applied.remove(key.as_str()).is_some());
            }
            for entry in &diff.added {
                prop_assert!(applied.insert(entry.key.as_str().to_owned(), entry.stat.size).is_none());
            }
            for entry in &diff.modified {
                prop_assert_ne!(applied.insert(entry.key.as_str().to_owned(), entry.stat.size), None);
                prop_assert_ne!(old[entry.key.as_str()], entry.stat.size);
            }
            prop_assert_eq!(applied, new);
        }

        #[test]
        fn a_version_against_itself_has_no_difference(tree in tree()) {
            prop_assert!(FileDiff::compute(&version(&tree), &version(&tree)).is_empty());
        }
    }

    #[test]
    fn f2_file_with_a_racy_stat_is_modified_until_digests_agree() {
        use crate::tree::digest::Digest;
        use std::time::{Duration, UNIX_EPOCH};
        let entry = |digest| FileEntry {
            key: RemoteKey::new("k").unwrap(),
            stat: FileStat { ctime: 10_000_000_000, ..FileStat::default() },
            digest,
        };
        let at = |seconds, digest| {
            Version::new([entry(digest)]).seen_at(UNIX_EPOCH + Duration::from_secs(seconds))
        };
        let now = at(100, None);
        assert_eq!(FileDiff::compute(&at(11, None), &now).modified.len(), 1);
        assert_eq!(FileDiff::compute(&at(9, None), &now).modified.len(), 1);
        assert!(FileDiff::compute(&at(12, None), &now).is_empty());
        let digest = Some(Digest::whole([1; 32]));
        assert!(FileDiff::compute(&at(11, digest), &at(100, digest)).is_empty());
    }

    #[test]
    fn equal_digests_outweigh_a_changed_stat_unless_they_are_of_different_kinds() {
        use crate::tree::digest::Digest;
        let entry = |mtime, digest: Digest| FileEntry {
            key: RemoteKey::new("k").unwrap(),
            stat: FileStat { mtime, ..FileStat::default() },
            digest: Some(digest),
        };
        let (old, new) = (entry(1, Digest::whole([7; 32])), entry(2, Digest::whole([7; 32])));
        assert!(same_content(&old, &new, true));
        assert!(!same_content(&old, &entry(1, Digest::whole([8; 32])), true));
    }
}
