//! The identity of a file on its file system: a copy has another one, a renamed file keeps its own.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use crate::tree::version::nanos_of;

/// The inode of a file and the time of its creation. Its device is left out: it may have another number after each mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    inode: u64,
    /// In nanoseconds since 1970; `None` if the file system does not record it. A file that replaces a deleted one may get
    /// its inode.
    created: Option<i64>,
}

impl FileMark {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { inode: metadata.ino(), created: metadata.created().ok().map(nanos_of) }
    }

    /// Returns true if both are of one file.
    pub(crate) fn is_same_file(self, other: Self) -> bool {
        let created = self.created.zip(other.created);
        self.inode == other.inode && created.is_none_or(|(this, other)| this == other)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn copy_is_another_file_and_a_renamed_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        let mark = |path| FileMark::of(&fs::metadata(path).unwrap());
        fs::write(&one, "x").unwrap();
        let first = mark(&one);
        fs::rename(&one, &two).unwrap();
        fs::write(&two, "other content").unwrap();
        assert!(first.is_same_file(mark(&two)));
        fs::copy(&two, &one).unwrap();
        assert!(!first.is_same_file(mark(&one)));
        // A new file may get the inode of one that was deleted.
        let reused = FileMark { created: first.created.map(|at| at + 1), ..first };
        assert_eq!(first.is_same_file(reused), first.created.is_none());
        assert!(first.is_same_file(FileMark { created: None, ..first }), "not every file system records it");
    }
}
