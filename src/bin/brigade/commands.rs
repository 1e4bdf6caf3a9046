//! The subcommands, a file each, and what they share.

pub(crate) mod config;
mod each;
mod events;
pub(crate) mod man;
pub(crate) mod pull;
pub(crate) mod rebuild;
mod record;
mod run_tracker;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod uploads;
pub(crate) mod url;
pub(crate) mod verify;
