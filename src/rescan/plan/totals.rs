//! The totals of a plan.

use crate::rescan::delete::guard::Counts;

/// The work of a run, in numbers.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) added: u64,
    pub(crate) modified: u64,
    pub(crate) removed: u64,
    /// Files that did not change, and whose objects are due other headers.
    pub(crate) headers: u64,
    /// The sizes of all added and modified files together.
    pub(crate) bytes: u64,
    /// Modified files that have the published size, so they may have the published content.
    pub(crate) may_be_same: u64,
    /// Keys that stay pending although nothing can be done for them.
    pub(crate) unsettled: u64,
    /// Keys without a file that an upload without a response may have stored.
    pub(crate) leftovers: u64,
    /// Files found by the walk.
    pub(crate) files: u64,
    /// Those that the last complete tree had too, changed or not.
    pub(crate) common: u64,
    /// Files of the last complete tree whose objects are to be deleted.
    pub(crate) gone: u64,
    /// Objects that were published before this run.
    pub(crate) published: u64,
    /// Files of the last complete tree that are gone and kept because deletes are off.
    pub(crate) left: u64,
    /// Set if deletes are off and would be too many: perhaps a part of the tree is missing.
    pub(crate) left_in_doubt: bool,
    /// Part of the tree could not be read: nothing may be deleted.
    pub(crate) blocked: bool,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.files_to_do() + self.removed + self.leftovers == 0
    }

    /// Returns the number of files that are to be uploaded, or whose objects are due other headers.
    pub(crate) fn files_to_do(&self) -> u64 {
        self.added + self.modified + self.headers
    }

    /// Returns the numbers that decide whether the deletes are too many.
    pub(crate) fn counts(&self) -> Counts {
        let Self { files, common, gone, removed, published, .. } = *self;
        Counts { files, common, gone, removed, published }
    }

    /// Returns true if hashing may show that nothing has to be sent: files were only touched, or their stats were racy.
    pub(crate) fn may_need_no_store(&self) -> bool {
        self.modified > 0
            && self.added + self.removed + self.headers + self.leftovers == 0
            && self.modified == self.may_be_same
    }
}
