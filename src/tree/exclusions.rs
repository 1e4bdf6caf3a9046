//! Decides for a key alone, without a walk, whether patterns or ignore files leave it out.

use std::path::{Path, PathBuf};

use crate::error::StorageError;
use crate::tree::filter::Filter;
use crate::tree::folder::Folder;
use crate::tree::ignore_file::IgnoredPaths;

/// The patterns and the ignore files of a tree. Both paths of a file count, if it was reached through links.
pub(crate) struct Exclusions<'a> {
    root: &'a Folder,
    filter: &'a Filter,
    ignored: IgnoredPaths<'a>,
    /// The tree may have ignore files. If not, none is looked for.
    has_ignore_files: bool,
}

impl<'a> Exclusions<'a> {
    /// The walk says whether there are ignore files. Where links are followed, they may be in folders that it has not
    /// reached yet.
    pub(crate) fn new(root: &'a Folder, filter: &'a Filter) -> Self {
        let has_ignore_files = root.follows_links();
        Self { root, filter, ignored: IgnoredPaths::new(root), has_ignore_files }
    }

    /// Looks for ignore files from now on.
    pub(crate) fn expect_ignore_files(&mut self) {
        self.has_ignore_files = true;
    }

    /// Returns true if the file of this key would be left out, whatever its size.
    ///
    /// # Errors
    /// An ignore file cannot be used.
    pub(crate) fn contain(&mut self, key: &str) -> Result<bool, StorageError> {
        let path = Path::new(key);
        let reads = self.has_ignore_files && self.filter.reads_ignore_files();
        if !self.filter.admits(key) || (reads && self.ignored.contain(path, false)?) {
            return Ok(true);
        }
        let Some(real) = self.real_path(path) else { return Ok(false) };
        Ok(self.filter.excludes_path(&real) || (reads && self.ignored.contain(&real, false)?))
    }

    /// Returns the path without links of a file, or of the place where it was; `None` if that is its own path.
    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        if !self.root.follows_links() {
            return None;
        }
        let real = path.ancestors().find_map(|above| {
            let real = self.root.resolve_links(above).ok()?;
            // An empty rest would add a slash.
            let below = path.strip_prefix(above).ok()?;
            Some(if below.as_os_str().is_empty() { real } else { real.join(below) })
        });
        real.filter(|real| real != path)
    }
}
