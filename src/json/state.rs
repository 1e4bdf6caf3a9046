//! The JSON of the state in the bucket, and of `pull`.

use std::path::Path;
use std::time::SystemTime;

use bucket_brigade::{Catalog, PublishedBy, StateReport};
use serde::Serialize;

use super::path_text;
/// The object of `state` in a report and in `status --json`.
#[derive(Serialize)]
pub(crate) struct StateObject<'a> {
    generation: u64,
    epoch: u64,
    order: Option<u64>,
    pulled: u64,
    published_by: Option<Publisher<'a>>,
    claimed_by: Option<Publisher<'a>>,
    in_doubt: u64,
    was_lost: bool,
    newer_order: Option<u64>,
}

#[derive(Serialize)]
struct Publisher<'a> {
    who: &'a str,
    /// RFC 3339, in UTC.
    since: String,
}

fn publisher(by: &PublishedBy) -> Publisher<'_> {
    Publisher { who: &by.who, since: rfc3339(by.since) }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

pub(crate) fn state_object(state: &StateReport) -> StateObject<'_> {
    StateObject {
        generation: state.generation,
        epoch: state.epoch,
        order: state.order,
        pulled: state.pulled,
        published_by: state.published_by.as_ref().map(publisher),
        claimed_by: state.claimed_by.as_ref().map(publisher),
        in_doubt: state.in_doubt,
        was_lost: state.was_lost,
        newer_order: state.newer_order,
    }
}

/// The object of `pull --json`.
#[derive(Serialize)]
pub(crate) struct PulledObject<'a> {
    destination: &'a str,
    cache: String,
    catalog: String,
    published: u64,
    state: StateObject<'a>,
}

pub(crate) fn pulled_object<'a>(
    destination: &'a str,
    cache: &Path,
    published: u64,
    state: &'a StateReport,
) -> PulledObject<'a> {
    PulledObject {
        destination,
        cache: path_text(cache),
        catalog: path_text(&Catalog::path_for(cache)),
        published,
        state: state_object(state),
    }
}
