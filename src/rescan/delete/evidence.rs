//! Collects what the disk and the cache say about a published object whose file was not found. The [guard](guard)
//! decides.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::config::RescanConfig;
use crate::rescan::delete::guard::{self, Missing, Mount};
use crate::rescan::report::KeptReason;
use crate::state::cache::binding::KnownRoot;
use crate::state::records::Published;
use crate::tree::exclusions::Exclusions;
use crate::tree::folder::{Folder, is_absent};
use crate::tree::version::FileStat;

/// The facts of one walk from which it follows whether an object is kept.
pub(crate) struct Evidence<'a> {
    pub(crate) root: &'a Folder,
    pub(crate) known: KnownRoot,
    /// The device that the root is on now.
    pub(crate) root_device: u64,
    pub(crate) config: &'a RescanConfig,
    pub(crate) exclusions: Exclusions<'a>,
    /// Keys whose path is a symbolic link or a special file.
    pub(crate) skipped: HashSet<String>,
    /// The file of the key that is decided now is there, and too small or too large.
    pub(crate) outside_sizes: bool,
    /// The last folder that was asked for, and its result: neighbouring keys ask for the same one.
    pub(crate) ancestor: Option<(PathBuf, Option<u64>)>,
}

impl Evidence<'_> {
    /// Returns the reason to keep an object whose file was not found, or is left out, if there is one.
    pub(crate) fn reason_to_keep(
        &mut self,
        key: &str,
        published: &Published,
    ) -> Result<Option<KeptReason>, StorageError> {
        // The key itself and each folder above it.
        let mut paths = std::iter::once(key).chain(key.rmatch_indices('/').map(|(at, _)| &key[..at]));
        let missing = Missing {
            excluded: self.exclusions.contain(key)?,
            outside_sizes: self.outside_sizes,
            skipped: paths.any(|path| self.skipped.contains(path)),
            of_another_root: published.root != self.known.number || self.known.moved,
            new_root_is_allowed: self.config.allow_new_root,
            deletes_are_off: !self.config.delete,
        };
        guard::reason_to_keep(missing, || {
            let (with_root, then, root) = (published.with_root, published.stat.device, self.root_device);
            Ok(Mount { with_root, then, above: self.device_above(key)?, root })
        })
    }

    /// Returns the device of the nearest folder above a key that exists. A folder that cannot be read is an error,
    /// because nobody knows what is missing below it.
    fn device_above(&mut self, key: &str) -> Result<Option<u64>, StorageError> {
        let parent = Path::new(key).parent().unwrap_or(Path::new(""));
        if let Some((known, device)) = &self.ancestor
            && known == parent
        {
            return Ok(*device);
        }
        let mut device = None;
        for folder in parent.ancestors() {
            match self.root.stat(folder) {
                Ok(stat) => {
                    device = Some(FileStat::of(&stat).device);
                    break;
                }
                // The folder is gone too: the next one up tells the device.
                Err(error) if is_absent(error) => {}
                Err(error) => {
                    let path = self.root.path().join(folder);
                    let kind = ErrorKind::SourceUnreadable;
                    return Err(StorageError::io(kind, Operation::Walk, &path, error.into()));
                }
            }
        }
        self.ancestor = Some((parent.to_owned(), device));
        Ok(device)
    }
}
