//! Binds the cache to one destination, and numbers the roots that publish through it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::state::cache::CacheManager;
use crate::state::records::decode;
use crate::state::store::Write;

const META_DESTINATION: &str = "destination";
const META_ROOTS: &str = "roots";
/// Set if a run without deletes found a tree that had shrunk.
const META_LEFT_IN_DOUBT: &str = "left_in_doubt";
/// Set once the first run has looked at the objects under the prefix.
const META_SURVEYED: &str = "surveyed";

/// A root: its path, and the folder that the path led to when it was last seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Root {
    pub(crate) path: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A root as the cache knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownRoot {
    /// Its index in the cache's list of roots.
    pub(crate) number: u32,
    /// The path leads to another folder on another device than before: perhaps a file system is not mounted.
    pub(crate) moved: bool,
}

/// The error for a cache or catalog at `path` that belongs to another destination.
pub(crate) fn foreign(path: &Path, bound: &str, destination: &str) -> StorageError {
    let why = format!(
        "it records what is published at {bound}, not at {destination}; use another cache file for another destination, or, \
         if the objects are the same behind another endpoint, CacheManager::rebind (brigade rebuild --rebind)"
    );
    StorageError::new(ErrorKind::CacheForeign, Operation::Cache, why).with_path(path)
}

impl CacheManager {
    /// Returns the destination that the cache is bound to, if any.
    pub(crate) fn destination(&self) -> Result<Option<String>, StorageError> {
        let destination = self.0.store.meta(META_DESTINATION)?;
        Ok(destination.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Returns the write that binds the cache to a destination for good; `None` if it is bound to it already.
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if it is bound to another destination.
    pub(crate) fn bind(&self, destination: &str) -> Result<Option<Write>, StorageError> {
        match self.0.store.meta(META_DESTINATION)? {
            None => Ok(Some(Self::binding(destination))),
            Some(bound) if bound == destination.as_bytes() => Ok(None),
            Some(bound) => Err(foreign(self.path(), &String::from_utf8_lossy(&bound), destination)),
        }
    }

    /// Returns the write that binds the cache to this destination, whatever it was bound to.
    pub(crate) fn binding(destination: &str) -> Write {
        Write::Meta(META_DESTINATION, destination.as_bytes().to_vec())
    }

    /// Checks that the cache is not bound to another destination than this one
    /// ([`StorageBackend::destination`](crate::StorageBackend::destination)).
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if it is; [`ErrorKind::Cache`] if the file cannot be read.
    pub fn check_destination(&self, destination: &str) -> Result<(), StorageError> {
        self.bind(destination).map(drop)
    }

    /// Returns the number of a root and whether it has moved, with the write that records its current folder.
    pub(crate) fn known_root(
        &self,
        root: &Root,
        allow_new: bool,
    ) -> Result<(KnownRoot, Option<Write>), StorageError> {
        let mut roots: Vec<Root> = match self.0.store.meta(META_ROOTS)? {
            Some(stored) => decode(META_ROOTS, &stored).ok_or_else(|| self.0.store.damaged(META_ROOTS))?,
            None => Vec::new(),
        };
        let index = roots.iter().position(|known| known.path == root.path);
        let known = index.map(|index| &roots[index]);
        if known == Some(root) {
            return Ok((KnownRoot { number: number(index.unwrap_or_default()), moved: false }, None));
        }
        // A folder that was swapped keeps its device, and a reboot may number devices anew: one of the two may differ.
        let moved = known.is_some_and(|known| known.device != root.device && known.inode != root.inode);
        let index = index.unwrap_or(roots.len());
        // Not recorded, so that it still counts as moved on the next run.
        if moved && !allow_new {
            return Ok((KnownRoot { number: number(index), moved }, None));
        }
        if index == roots.len() {
            roots.push(root.clone());
        } else {
            roots[index] = root.clone();
        }
        Ok((KnownRoot { number: number(index), moved }, Some(self.meta_write(META_ROOTS, &roots)?)))
    }

    /// Returns true if the objects that runs without deletes have left may be of a tree that was not whole.
    pub(crate) fn is_left_in_doubt(&self) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_LEFT_IN_DOUBT)?.as_deref() == Some(&[1]))
    }

    /// The write that records that.
    pub(crate) fn left_in_doubt(is_so: bool) -> Write {
        Write::Meta(META_LEFT_IN_DOUBT, vec![u8::from(is_so)])
    }

    /// Returns true if no run has looked yet at the objects that lie under the prefix. The next run does so, as
    /// [`FirstRun`](crate::FirstRun) says.
    ///
    /// # Errors
    /// [`ErrorKind::Cache`] if the file cannot be read.
    pub fn is_first_run(&self) -> Result<bool, StorageError> {
        self.is_surveyed().map(|surveyed| !surveyed)
    }

    /// Returns true if the first run has looked at the objects under the prefix.
    pub(crate) fn is_surveyed(&self) -> Result<bool, StorageError> {
        Ok(self.0.store.meta(META_SURVEYED)?.is_some_and(|mark| !mark.is_empty()))
    }

    /// The write that makes the next run look once more.
    pub(crate) fn no_survey() -> Write {
        Write::Meta(META_SURVEYED, Vec::new())
    }

    /// The write that records it.
    pub(crate) fn survey_mark() -> Write {
        Write::Meta(META_SURVEYED, vec![1])
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system is not mounted, and its mount point is not empty: the same path leads to another folder on another
    /// device. A swapped folder, or a device with a new number, is still the same root.
    #[test]
    fn f9_root_is_another_one_when_both_its_folder_and_its_device_are() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CacheManager::open(folder.path().join("cache")).unwrap();
        let root = |device, inode| Root { path: b"/srv".to_vec(), device, inode };
        let look = |device, inode, allow| {
            let (known, write) = cache.known_root(&root(device, inode), allow).unwrap();
            cache.apply(&write.into_iter().collect::<Vec<_>>()).unwrap();
            (known.number, known.moved)
        };
        assert_eq!(look(1, 10, false), (0, false));
        assert_eq!(look(1, 11, false), (0, false), "the folder was swapped");
        assert_eq!(look(2, 11, false), (0, false), "the device was numbered anew");
        assert_eq!(look(3, 12, false), (0, true));
        assert_eq!(look(3, 12, false), (0, true), "not believed by being seen twice");
        assert_eq!(look(2, 11, false), (0, false), "mounted again");
        assert_eq!(look(3, 12, true), (0, true));
        assert_eq!(look(3, 12, false), (0, false), "allowed once");
        let other = Root { path: b"/other".to_vec(), device: 3, inode: 12 };
        assert_eq!(cache.known_root(&other, false).unwrap().0.number, 1);
    }
}
