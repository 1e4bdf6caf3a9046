//! HTTP on the wire: connections, proxies, DNS, TLS, bodies, and their rate.

pub(crate) mod bandwidth;
pub(crate) mod body;
mod dial;
mod dns;
mod meter;
pub(crate) mod network;
mod no_proxy;
mod proxy;
pub(crate) mod thread_context;
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod tunnel;
