//! The JSON of `rebuild`.

use bucket_brigade::{CacheFound, VerifyReport};
use serde::Serialize;
use serde_json::Value;

use super::state::{StateObject, state_object};
use super::{Failures, VerifiedObject, adoption_json, failures, path_text, verify_report};
use crate::text::rebuild::{Rebound, Rebuilt};

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

pub(crate) fn rebuilt_object<'a>(rebuilt: &Rebuilt<'a>) -> RebuiltObject<'a> {
    let made = rebuilt.made;
    let (found, damage) = match &made.found {
        CacheFound::Missing => ("missing", None),
        CacheFound::Damaged(error) => ("damaged", Some(error.to_string())),
        CacheFound::Empty => ("empty", None),
        _ => ("healthy", None),
    };
    RebuiltObject {
        destination: rebuilt.destination,
        cache: path_text(rebuilt.cache),
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

pub(crate) fn rebound_object<'a>(rebound: &Rebound<'a>, found: &'a VerifyReport) -> ReboundObject<'a> {
    ReboundObject {
        destination: rebound.destination,
        cache: path_text(rebound.cache),
        was: rebound.was,
        verified: verify_report(found),
    }
}
