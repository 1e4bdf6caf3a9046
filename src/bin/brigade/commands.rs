//! The subcommands, a file each, and what they share.

mod events;
pub(crate) mod pull;
mod record;
mod run_tracker;
mod shared_state;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod uploads;
pub(crate) mod url;
pub(crate) mod verify;
