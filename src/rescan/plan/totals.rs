//! What is to be done, in numbers.

use crate::rescan::delete::guard::Counts;

/// What is to be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) added: u64,
    pub(crate) modified: u64,
    pub(crate) removed: u64,
    pub(crate) bytes: u64,
    /// Modified files that may hold what is published all the same: their size is that of it.
    pub(crate) may_be_same: u64,
    /// Keys for which nothing can be done, and which stay pending.
    pub(crate) unsettled: u64,
    /// Files that were walked.
    pub(crate) files: u64,
    /// Files of the last complete tree among them, changed or not.
    pub(crate) common: u64,
    /// Files of the last complete tree whose objects are to be deleted.
    pub(crate) gone: u64,
    /// What was published before.
    pub(crate) published: u64,
    /// Something could not be read: nothing may be deleted.
    pub(crate) blocked: bool,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        self.added == 0 && self.modified == 0 && self.removed == 0
    }

    /// What decides whether these are too many deletes.
    pub(crate) fn counts(&self) -> Counts {
        let Self { files, common, gone, removed, published, .. } = *self;
        Counts { files, common, gone, removed, published }
    }

    /// Whether all that there is to do may turn out to be done: files were touched, or are too young to be trusted.
    pub(crate) fn may_need_no_store(&self) -> bool {
        self.added + self.removed == 0 && self.modified == self.may_be_same
    }
}
