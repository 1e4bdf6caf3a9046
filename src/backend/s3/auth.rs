//! Who asks, and how a request proves it.

pub(crate) mod credentials;
#[cfg(feature = "profiles")]
pub(crate) mod providers;
pub(crate) mod renewal;
pub(crate) mod secret;
pub(crate) mod sign;
