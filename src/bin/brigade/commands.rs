//! What the command does, a file for each of its commands.

mod course;
mod events;
mod record;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod uploads;
pub(crate) mod url;
pub(crate) mod verify;
