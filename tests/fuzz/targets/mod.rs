//! Fuzz targets: each takes any bytes, hands them to the code that reads such bytes, and checks what comes out.
//!
//! A target panics if a promise is broken. The bytes come from `seeds` and from a mutator in plain tests, and from
//! libFuzzer in `tests/fuzz/libfuzzer`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]

mod catalog;
#[cfg(feature = "profiles")]
mod credentials;
#[cfg(test)]
mod found;
mod globs;
mod head;
mod headers;
mod http;
mod ignore;
mod keys;
#[cfg(test)]
mod mutator;
#[cfg(feature = "profiles")]
mod profiles;
mod records;
#[cfg(test)]
mod seeds;
mod segment;
#[cfg(feature = "config")]
mod toml;
mod tunnel;
mod wire;
#[cfg(test)]
mod write_seeds;
mod xml;

use std::fmt::Debug;

use crate::error::StorageError;
use crate::text::is_hidden;

type Target = fn(&[u8]);

/// The targets by name. The names are those of the folders of seeds.
const TARGETS: &[(&str, Target)] = &[
    ("catalog", catalog::target),
    #[cfg(feature = "profiles")]
    ("credentials", credentials::target),
    ("globs", globs::target),
    ("head", head::target),
    ("headers", headers::target),
    ("http", http::target),
    ("ignore", ignore::target),
    ("keys", keys::target),
    #[cfg(feature = "profiles")]
    ("profiles", profiles::target),
    ("records", records::target),
    ("segment", segment::target),
    #[cfg(feature = "config")]
    ("toml", toml::target),
    ("tunnel", tunnel::target),
    ("xml", xml::target),
];

pub(crate) fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}

/// A secret key. No input has it, so it may come from nowhere but a leak.
const SECRET: &str = "fuzz-secret-key-CANARY-0123456789";
/// A session token.
const TOKEN: &str = "fuzz-session-token-CANARY-0123456789";
/// Ends a part of an input that has several.
const END_OF_PART: u8 = 0x1e;
/// The longest text of an error. The parts of it that a server chooses have 1 KiB each.
const LONGEST_ERROR: usize = 16 * 1024;

fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == END_OF_PART)
}

/// Checks an error about bytes from outside: it is short but for `quoted` bytes that it may quote, and shows neither
/// secrets nor control characters.
fn check_error(error: &StorageError, quoted: usize) {
    let text = error.to_string();
    // An escaped character takes up to ten times its bytes.
    assert!(text.len() <= LONGEST_ERROR + 10 * quoted, "an error of {} bytes", text.len());
    assert!(!text.contains(is_hidden), "{text:?}");
    check_no_secret(error);
    check_no_secret(&text);
}

/// Checks that a value shows no secret.
fn check_no_secret(value: &impl Debug) {
    let text = format!("{value:?}");
    assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
}
