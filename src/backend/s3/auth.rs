//! Credentials, their sources and renewal, and the signature of a request.

#[cfg(feature = "profiles")]
pub(crate) mod chain;
pub(crate) mod credentials;
#[cfg(feature = "profiles")]
pub(crate) mod profiles;
#[cfg(feature = "profiles")]
pub(crate) mod providers;
pub(crate) mod renewal;
pub(crate) mod secret;
pub(crate) mod sign;
pub(crate) mod signed_with;
