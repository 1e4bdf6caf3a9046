//! Deletes that a run refused.

use std::fmt;

/// The rule that the deletes of a run break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TooMany {
    /// The tree has less than half as many files as are published. Perhaps a part of it is missing.
    Shrunk,
    /// The tree has none of the published files. Perhaps it is the wrong tree.
    NoneInCommon,
    /// The deletes exceed `max_delete`, which is this number.
    Cap(u64),
}

/// Deletes that were refused because they were too many for one run. All of them stay pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletesRefused {
    /// The rule that they break.
    pub reason: TooMany,
    /// Published files that are gone.
    pub removed: u64,
    /// Files in the tree.
    pub files: u64,
    /// Files of the last tree that was published completely, without those that are kept. For a cap: all published
    /// files.
    pub published: u64,
}

impl fmt::Display for DeletesRefused {
    /// The rule and the numbers in one clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, removed, files, published } = self;
        let files = format!("{files} {}", if *files == 1 { "file" } else { "files" });
        match reason {
            TooMany::Shrunk => {
                write!(f, "the tree has {files}, less than half of the {published} published")
            }
            TooMany::NoneInCommon => {
                write!(f, "the tree ({files}) has none of the {published} published files")
            }
            TooMany::Cap(limit) => {
                write!(
                    f,
                    "{removed} of {published} published files are gone, and at most {limit} may be deleted"
                )
            }
        }
    }
}
