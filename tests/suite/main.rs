//! All integration tests, in one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers of tests are small"
)]
#![allow(unreachable_pub, reason = "support is shared with examples and benchmarks")]

#[path = "../support/mod.rs"]
mod support;

mod adoption;
mod answers;
mod answers_store;
mod bandwidth;
mod cache_file;
#[cfg(feature = "capi")]
mod capi;
mod catalog;
#[cfg(feature = "cli")]
mod command;
mod conformance;
mod contents;
mod crash;
#[cfg(feature = "profiles")]
mod credentials;
mod files;
mod headers;
mod headers_shared;
mod hostile;
mod ignore;
mod keys;
mod large;
mod large_faults;
mod leftovers;
mod mends;
mod network;
mod observe;
mod old_copies;
mod outage;
mod preflight;
mod proxies;
mod publishers;
mod rebuild;
mod regressions;
mod reserved;
mod runs;
mod security;
#[cfg(feature = "config")]
mod settings;
mod shared_state;
mod shared_state_deletes;
mod shared_state_doubt;
mod shared_state_faults;
mod shared_state_loss;
mod store_conditions;
mod store_seaweedfs;
mod tls_settings;
