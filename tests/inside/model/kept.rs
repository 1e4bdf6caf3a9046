//! Cases that are kept.
