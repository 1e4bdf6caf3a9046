//! All integration tests, in one binary.

#[path = "../support/mod.rs"]
mod support;

mod conformance;
mod keys;
mod observe;
mod outage;
mod regressions;
mod runs;
