//! The state that outlives a process: the published versions, and the work that is still to be done.

pub(crate) mod cache;
pub(crate) mod catalog;
pub(crate) mod file_mark;
pub(crate) mod recorder;
pub(crate) mod records;
mod redb;
pub(crate) mod remote;
pub(crate) mod resolve;
pub(crate) mod rows;
pub(crate) mod store;
pub(crate) mod summary;
