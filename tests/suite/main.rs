//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, reason = "support is shared with examples and benchmarks")]

#[path = "../support/mod.rs"]
mod support;

mod conformance;
mod keys;
mod large;
mod observe;
mod outage;
mod regressions;
mod runs;
