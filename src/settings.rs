//! Settings by name: defined once, for configuration files, the command's flags, the manual and other languages.
//!
//! # Architecture
//! - [`Setting`]: name, type, default, range and text of one setting, and the function that puts its value into
//!   [`Parts`](parts::Parts). All of them stand in `definitions`, a file a group.
//! - [`Config`]: the values given for one destination, each with its [`Origin`](given::Origin). Nothing is read or
//!   opened until its parts are asked for.
//! - [`ConfigFile`]: a TOML file with several destinations, each of which becomes a `Config`.
//! - [`Reference`](reference::Reference): a value that stands elsewhere: in a variable, a file, or the output of a command.
//! - `open`: makes the engine, the backend, the cache and the orchestrator of a `Config`.

pub(crate) mod config;
mod definitions;
pub(crate) mod file;
mod given;
mod kind;
mod manual;
mod nearest;
pub(crate) mod open;
mod parts;
mod reference;
mod setting;
pub(crate) mod shown;
mod tables;
mod values;

pub use crate::settings::definitions::{all_settings, find_setting};
pub use crate::settings::manual::settings_chapter;
pub use crate::settings::setting::Setting;
