//! Large files in the flow of a run: which are on their way, and how many of their tasks at a time.

use std::collections::BTreeMap;

use crate::rescan::multipart::file::MultipartFile;

/// The large files on their way, in the order in which they were begun.
#[derive(Default)]
pub(crate) struct MultipartQueue {
    pub(crate) files: BTreeMap<u64, MultipartFile>,
    pub(crate) begun: u64,
    /// Tasks given out and not answered.
    pub(crate) under_way: usize,
}

impl MultipartQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = String> + '_ {
        self.files.values().map(|large| large.item.key.as_str().to_owned())
    }
}
