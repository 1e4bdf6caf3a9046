//! The JSON of `rebuild`.

use std::path::Path;

use bucket_brigade::{CacheFound, RebuildReport, VerifyReport};
use serde::Serialize;
use serde_json::Value;

use super::state::{StateObject, state_object};
use super::{Failures, VerifiedObject, adoption_json, failures, path_text, verify_report};

/// The object of `rebuild --json`.
#[derive(Serialize)]
pub(crate) struct RebuiltObject<'a> {
    destination: &'a str,
    cache: String,
    /// `missing`, `damaged`, `empty` or `healthy`.
    found: &'static str,
    damage: Option<String>,
    kept_as: Option<String>,
    published: u64,
    pending: u64,
    adoption: Option<Value>,
    state: Option<StateObject<'a>>,
    failed: Failures<'a>,
    failed_count: u64,
}

pub(crate) fn rebuilt_object<'a>(
    destination: &'a str,
    cache: &Path,
    made: &'a RebuildReport,
) -> RebuiltObject<'a> {
    let (found, damage) = match &made.found {
        CacheFound::Missing => ("missing", None),
        CacheFound::Damaged(error) => ("damaged", Some(error.to_string())),
        CacheFound::Empty => ("empty", None),
        _ => ("healthy", None),
    };
    RebuiltObject {
        destination,
        cache: path_text(cache),
        found,
        damage,
        kept_as: made.kept_as.as_deref().map(path_text),
        published: made.published,
        pending: made.pending,
        adoption: made.adoption.as_ref().map(adoption_json),
        state: made.state.as_ref().map(state_object),
        failed: failures(&made.failed),
        failed_count: made.failed_count,
    }
}

/// The object of `rebuild --rebind --json`.
#[derive(Serialize)]
pub(crate) struct ReboundObject<'a> {
    destination: &'a str,
    cache: String,
    was: Option<&'a str>,
    verified: VerifiedObject<'a>,
}

pub(crate) fn rebound_object<'a>(
    destination: &'a str,
    cache: &Path,
    was: Option<&'a str>,
    found: &'a VerifyReport,
) -> ReboundObject<'a> {
    ReboundObject { destination, cache: path_text(cache), was, verified: verify_report(found) }
}
