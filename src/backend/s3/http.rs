//! HTTP on the wire: connections, DNS, TLS, bodies.

pub(crate) mod body;
mod dns;
#[cfg(feature = "profiles")]
pub(crate) mod plain;
pub(crate) mod thread_context;
pub(crate) mod tls;
pub(crate) mod transport;
