//! What became of the work of a run so far.

use super::report::StopReason;
use crate::error::StorageError;

/// An upload that was refused while an object was in its way.
pub(crate) struct Obstructed {
    pub(crate) key: String,
    pub(crate) refusal: StorageError,
    /// What is to be deleted and is above the key, or below it.
    pub(crate) obstacles: Vec<String>,
}

/// What became of the work so far.
#[derive(Default)]
pub(crate) struct Tally {
    /// Files that the store took, and objects that it deleted.
    pub(crate) done: u64,
    pub(crate) confirmed: u64,
    pub(crate) failed_uploads: u64,
    pub(crate) failed_deletes: u64,
    /// Failures that were the store's outage.
    pub(crate) outages: u64,
    pub(crate) outages_in_a_row: u64,
    /// The store knows the credentials: a request succeeded, or was denied for what it asked.
    pub(crate) reached: bool,
    /// A request succeeded.
    pub(crate) permitted: bool,
    /// Why the store could not be reached, or could not work, at first.
    pub(crate) outage: Option<StorageError>,
    /// What was refused before anything succeeded, and may be wrong with all.
    pub(crate) refused: Vec<StorageError>,
    /// Refusals of signatures that are taken for their keys' own, before that is asked again.
    pub(crate) good_signatures: usize,
    /// Uploads that were refused, perhaps for an object that is to be deleted.
    pub(crate) obstructed: Vec<Obstructed>,
    pub(crate) stop: Option<StopReason>,
    /// Every other request would end like this one.
    pub(crate) fatal: Option<StorageError>,
}

impl Tally {
    pub(crate) fn stopped(reason: StopReason) -> Self {
        Self { stop: Some(reason), ..Self::default() }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_some() || self.fatal.is_some()
    }
}
