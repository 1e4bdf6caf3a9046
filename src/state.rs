//! What outlives a process: what is published, and what is still to be done.

pub(crate) mod cache;
pub(crate) mod catalog;
pub(crate) mod recorder;
pub(crate) mod records;
mod redb;
pub(crate) mod resolve;
pub(crate) mod rows;
pub(crate) mod store;
pub(crate) mod summary;
