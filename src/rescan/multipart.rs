//! Large files: each is one multipart upload.
//!
//! # Architecture
//! - [`file`]: the life of a large file, top to bottom, on a coordinating thread of its own that is no worker.
//! - [`queue`]: how many tasks of all large files are with the workers at a time, and whose turn it is.
//! - [`task`]: what is known of a file's parts, what is handed to a worker, and what comes back.
//! - [`worker`]: doing it. [`resume`]: finding and resuming an upload of an earlier run.
//! - [`sweep`]: aborting, at the end of a run, what no run will resume. [`unfinished`]: the public side of that.
//!
//! The dispatcher begins files, owns the queue, and settles what comes of them.

pub(crate) mod file;
pub(crate) mod queue;
mod resume;
pub(crate) mod sweep;
mod task;
pub(crate) mod unfinished;
pub(crate) mod worker;
