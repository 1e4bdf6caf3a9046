//! Directory entries that are not published, and why.

use std::fmt;
use std::path::PathBuf;

use crate::text::PrintablePath;

/// A directory entry that is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skip {
    /// Its path below the root.
    pub path: PathBuf,
    /// The reason.
    pub reason: SkipReason,
}

impl fmt::Display for Skip {
    /// The path, with control characters and bytes that are not UTF-8 escaped, and the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", PrintablePath(&self.path), self.reason.as_str())
    }
}

/// The reason why a directory entry is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// A symbolic link, where none are followed.
    Symlink,
    /// A symbolic link that leads out of the root, where only those inside are followed.
    Outside,
    /// A symbolic link that leads to itself or to a folder that contains it.
    Loop,
    /// A symbolic link whose target does not exist.
    Dangling,
    /// The cache file or its catalog.
    Own,
    /// A file or folder named `.brigade`, or a link into such a folder. The state of the bucket's publishers lies under
    /// that name.
    Reserved,
    /// A FIFO, socket or device.
    Special,
    /// A file whose size is reported as 0 although it has content, as in `/proc`.
    Sizeless,
}

impl SkipReason {
    /// The reason in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => "a symbolic link is not followed",
            Self::Outside => "a symbolic link that leads out of the tree is not followed",
            Self::Loop => "a symbolic link that leads back to itself or to a folder that contains it",
            Self::Dangling => "a symbolic link that leads nowhere",
            Self::Own => "it is the cache of what is published, or its catalog",
            Self::Reserved => "the name .brigade is reserved for the state in the bucket",
            Self::Special => "not a regular file",
            Self::Sizeless => "its size is reported as 0 but it has content, as files in /proc do",
        }
    }
}
