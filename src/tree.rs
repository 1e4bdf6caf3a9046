//! What is on disk.

pub(crate) mod diff;
pub(crate) mod digest;
pub(crate) mod exclusions;
pub(crate) mod filter;
pub(crate) mod fingerprint;
pub(crate) mod folder;
pub(crate) mod ignore_file;
pub(crate) mod private;
pub(crate) mod source;
pub(crate) mod version;
pub(crate) mod walk;
