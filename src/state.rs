//! The state that outlives a process: the published versions, and the work that is still to be done.

#[forbid(unsafe_code)]
pub(crate) mod cache;
pub(crate) mod catalog;
#[forbid(unsafe_code)]
pub(crate) mod file_mark;
#[forbid(unsafe_code)]
pub(crate) mod recorder;
#[forbid(unsafe_code)]
pub(crate) mod records;
#[forbid(unsafe_code)]
mod redb;
#[forbid(unsafe_code)]
pub(crate) mod remote;
#[forbid(unsafe_code)]
pub(crate) mod resolve;
#[forbid(unsafe_code)]
pub(crate) mod rows;
#[forbid(unsafe_code)]
pub(crate) mod store;
#[forbid(unsafe_code)]
pub(crate) mod summary;
