//! HTTP on the wire: connections, proxies, DNS, TLS, bodies, and their rate.

pub(crate) mod bandwidth;
pub(crate) mod body;
#[cfg(feature = "profiles")]
mod body_taker;
mod dial;
mod dns;
pub(crate) mod meter;
pub(crate) mod network;
pub(crate) mod no_proxy;
#[cfg(feature = "profiles")]
pub(crate) mod plain;
pub(crate) mod proxy;
pub(crate) mod thread_context;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod tunnel;
