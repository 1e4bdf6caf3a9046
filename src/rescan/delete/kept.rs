//! Why a published object is kept although its file was not found.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::config::RescanConfig;
use crate::rescan::report::KeptReason;
use crate::state::cache::binding::KnownRoot;
use crate::state::records::Published;
use crate::tree::filter::Filter;
use crate::tree::folder::{Folder, is_absent};
use crate::tree::version::FileStat;

/// Knows what a walk found besides files, and where the root is.
pub(crate) struct Keeper<'a> {
    pub(crate) root: &'a Folder,
    pub(crate) known: KnownRoot,
    /// The device that the root is on now.
    pub(crate) root_device: u64,
    pub(crate) config: &'a RescanConfig,
    pub(crate) filter: &'a Filter,
    /// Keys whose path is a link or a special file.
    pub(crate) skipped: HashSet<String>,
    /// The last folder asked for: what holds its files now.
    pub(crate) ancestor: Option<(PathBuf, Option<u64>)>,
}

impl Keeper<'_> {
    /// The reason to keep an object whose file was not found, if there is one.
    pub(crate) fn reason_to_keep(
        &mut self,
        key: &str,
        published: &Published,
    ) -> Result<Option<KeptReason>, StorageError> {
        let config = self.config;
        if !self.filter.admits(key) {
            return Ok(Some(KeptReason::Excluded));
        }
        let mut paths = std::iter::once(key).chain(key.rmatch_indices('/').map(|(at, _)| &key[..at]));
        if paths.any(|path| self.skipped.contains(path)) {
            return Ok(Some(KeptReason::Skipped));
        }
        if published.root != self.known.number || self.known.moved {
            return Ok((!config.allow_new_root).then_some(KeptReason::OtherRoot));
        }
        let (above, root) = (self.device_above(key)?, self.root_device);
        if !is_still_mounted(published.with_root, published.stat.device, above, root) {
            return Ok(Some(KeptReason::OtherDevice));
        }
        Ok((!config.delete).then_some(KeptReason::DeletesOff))
    }

    /// The device of the nearest folder above a key that is there. One that cannot be looked at is an error: nobody
    /// knows what is gone below it.
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

/// Whether the place of a published file is on the file system that it was published from. `then` is the device
/// that it was on, `above` that of the nearest folder that is there, `root` the root's. Numbers of devices may change with a reboot: what was on the root's own
/// still counts as there, and what was not cannot be there now, whatever its number was.
fn is_still_mounted(with_root: bool, then: u64, above: Option<u64>, root: u64) -> bool {
    let at_root = above == Some(root);
    if with_root { at_root || above == Some(then) } else { !at_root && above == Some(then) }
}

#[cfg(test)]
mod tests {
    use crate::rescan::delete::kept::is_still_mounted;

    #[test]
    fn f9_disk_that_is_not_mounted_is_seen_whatever_numbers_devices_have_now() {
        for (with_root, then, above, root, there) in [
            (true, 1, Some(1), 1, true),
            // The root's own, after a reboot.
            (true, 1, Some(7), 7, true),
            // Something is mounted over it.
            (true, 1, Some(9), 7, false),
            (false, 2, Some(2), 1, true),
            (false, 2, Some(1), 1, false),
            // Not mounted, and the root has its number now.
            (false, 2, Some(2), 2, false),
            // Another disk in its place.
            (false, 2, Some(3), 1, false),
            (true, 1, None, 1, false),
        ] {
            assert_eq!(
                is_still_mounted(with_root, then, above, root),
                there,
                "{with_root} {then} {above:?} {root}"
            );
        }
    }
}
