//! The subcommands, a file each, and what they share.

mod events;
mod record;
mod run_tracker;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod uploads;
pub(crate) mod url;
pub(crate) mod verify;
