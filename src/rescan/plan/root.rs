//! The root and the files in it that are asked about before the walk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::error::{ErrorKind, Operation, StorageError};
use crate::rescan::delete::guard;
use crate::rescan::plan::PlanInput;
use crate::state::cache::CacheManager;
use crate::state::catalog::Catalog;
use crate::tree::walk::{Found, walk};

/// Refuses a root without a single file if files were published from it: probably a disk is not mounted.
pub(crate) fn refuse_empty(input: &PlanInput<'_>, published: u64) -> Result<(), StorageError> {
    let (mut holds_a_file, mut left_out) = (false, false);
    for found in walk(input.root, input.key_room(), input.filter) {
        match found {
            Found::Skipped(_) | Found::Unnamable(_) => {}
            Found::IgnoreFile => left_out = true,
            Found::File(file) if !input.filter.admits_size(file.stat.size) => left_out = true,
            // The first file, or the first entry that cannot be read, ends the search.
            Found::File(_) | Found::Failed(_) => {
                holds_a_file = true;
                break;
            }
            Found::BadIgnoreFile(error) => return Err(error),
        }
    }
    if guard::may_be_published(holds_a_file, published, false) {
        return Ok(());
    }
    let what = match (left_out, input.filter.is_trivial()) {
        (true, _) => "patterns, ignore files and sizes leave no file",
        (false, true) => "it holds no file",
        (false, false) => "include and exclude leave no file",
    };
    let why = format!(
        "{what}, but {published} are published: is it mounted? Nothing was deleted; allow_empty permits it"
    );
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(input.root.path()))
}

/// Returns device and inode of the cache file and of its catalog.
pub(crate) fn own_files(cache: &CacheManager) -> Vec<(u64, u64)> {
    let cache = cache.path();
    let files = [cache.to_owned(), Catalog::path_for(cache)];
    files.iter().filter_map(|file| fs::metadata(file).ok()).map(|own| (own.dev(), own.ino())).collect()
}
