//! Large files: each is one multipart upload.
//!
//! # Architecture
//! - [`file`]: the life of a large file, top to bottom, on a coordinating thread of its own that is no worker.
//! - [`queue`]: limits how many tasks of all large files the workers have, and says whose turn it is.
//! - [`task`]: the parts of a file as far as they are known, the tasks, and their answers.
//! - [`worker`]: hands tasks to the workers, and does them there.
//! - [`headers`]: a file whose object may lack nothing but headers.
//! - [`resume`]: finds and resumes an upload of an earlier run.
//! - [`sweep`]: aborts, at the end of a run, what no run will resume. [`unfinished`]: lists and aborts for a caller.
//!
//! The dispatcher begins files, owns the queue, and settles the results.

pub(crate) mod file;
mod headers;
pub(crate) mod queue;
mod resume;
pub(crate) mod sweep;
mod task;
pub(crate) mod unfinished;
pub(crate) mod worker;
