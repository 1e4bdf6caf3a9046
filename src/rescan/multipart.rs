//! Large files: each is one multipart upload.

pub(crate) mod file;
pub(crate) mod queue;
pub(crate) mod task;
pub(crate) mod unfinished;
