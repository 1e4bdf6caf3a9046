//! The bytes on the wire: connections, names, certificates, bodies.

pub(crate) mod body;
mod dns;
pub(crate) mod thread_context;
pub(crate) mod tls;
pub(crate) mod transport;
