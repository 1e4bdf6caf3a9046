//! The state in the bucket.

use std::ffi::{CString, c_char};

use crate::capi::boundary::{Lazy, access, access_text, c_text, free, write_known};
use crate::json::state::state_object;
use crate::json::write_json;
use crate::rescan::report::{PublishedBy, StateReport};

/// The state in the bucket, as a run or a pull left it. Threads may share it.
pub struct bb_state {
    state: StateReport,
    published_by: Option<CString>,
    claimed_by: Option<CString>,
    json: Lazy<CString>,
}

impl From<StateReport> for bb_state {
    fn from(state: StateReport) -> Self {
        let text = |by: &Option<PublishedBy>| by.as_ref().map(|by| c_text(by.to_string()));
        let (published_by, claimed_by) = (text(&state.published_by), text(&state.claimed_by));
        Self { state, published_by, claimed_by, json: Lazy::new() }
    }
}

/// A number of `bb_state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum bb_state_value {
    /// One more with each tree that was published completely.
    BB_STATE_GENERATION = 1,
    /// One more with each claim.
    BB_STATE_EPOCH = 2,
    /// Keys that the cache did not know as they are published.
    BB_STATE_PULLED = 3,
    /// Interrupted runs whose requests may still change objects.
    BB_STATE_IN_DOUBT = 4,
}

/// Returns a number of the state; 0 for one that is not known.
///
/// @param value a bb_state_value
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_count(state: *const bb_state, value: u32) -> u64 {
    // SAFETY: NULL or a live handle.
    access(unsafe { state.as_ref() }, 0, |state| match value {
        1 => state.state.generation,
        2 => state.state.epoch,
        3 => state.state.pulled,
        4 => state.state.in_doubt,
        _ => 0,
    })
}

/// Gets the order of the tree, such as a build number. Returns false, and writes nothing, if it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_order(state: *const bb_state, order: *mut u64) -> bool {
    // SAFETY: NULL or a live handle.
    let known = access(unsafe { state.as_ref() }, None, |state| state.state.order);
    // SAFETY: NULL or a place for a number.
    unsafe { write_known(order, known) }
}

/// Returns the last publisher and when it claimed; NULL if there was none. Lives as long as the state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_published_by(state: *const bb_state) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { state.as_ref() }, |state| state.published_by.as_deref())
}

/// Returns the other publisher that holds the claim; NULL if none does. Lives as long as the state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_claimed_by(state: *const bb_state) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { state.as_ref() }, |state| state.claimed_by.as_deref())
}

/// Returns all of it as JSON, as `state` in `brigade status --json`. Lives as long as the state.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_json(state: *const bb_state) -> *const c_char {
    // SAFETY: NULL or a live handle.
    access_text(unsafe { state.as_ref() }, |state| {
        Some(state.json.get_or_init(|| {
            let mut json = Vec::new();
            // Writing to memory cannot fail.
            let _ = write_json(&mut json, &state_object(&state.state));
            Box::new(c_text(json))
        }))
    })
}

/// Frees a state. NULL is fine. Not for one that a report has lent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_state_free(state: *mut bb_state) {
    // SAFETY: NULL or a handle that the caller owns.
    unsafe { free(state) };
}
