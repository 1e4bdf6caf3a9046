//! HTTP on the wire: connections, DNS, TLS, bodies.

pub(crate) mod body;
mod dns;
pub(crate) mod thread_context;
pub(crate) mod tls;
pub(crate) mod transport;
