//! What can be seen of the work: counters, events, log records.

pub(crate) mod event;
pub(crate) mod metrics;
pub(crate) mod trace;
