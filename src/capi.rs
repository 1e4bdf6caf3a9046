//! The C ABI: one header, one library, calls that block. Behind the feature `capi`.
//!
//! The rules that C callers rely on stand in the header, `src/capi/bucket_brigade.h`. It is made from this module by
//! cbindgen, and so are its comments. How to build, link and use the library: [`guide::embedding`](crate::guide::embedding),
//! "From C and C++".
//!
//! # Architecture
//! - `guard`: turns a panic or a fault into a status and an error. `boundary`: makes values from pointers, and pointers from
//!   values. `host`: its process, its signals, the threads of calls.
//! - Each type of the header, `bb_site` and so on, is a handle: a box that the caller owns. Only `bb_site` owns threads. It
//!   knows the process that opened it, and answers no other.
//! - `callbacks`: the caller's functions, called by the threads of a site.
//!
//! Functions are only added, and numbers are never used again, so that the name of the shared object never changes.

#![allow(
    unsafe_code,
    reason = "pointers of C callers; the crate's only other place is the mapping of a catalog"
)]
#![allow(non_camel_case_types, reason = "the names of C")]
#![allow(clippy::doc_markdown, reason = "the comments are those of the header, too")]
#![allow(clippy::missing_safety_doc, reason = "the rules of the header hold for every function")]

#[cfg(panic = "abort")]
compile_error!("the feature `capi` needs panic = \"unwind\": it turns a panic into BB_ERR_PANICKED");

mod boundary;
mod callbacks;
mod catalog;
mod config;
mod error;
mod guard;
mod host;
mod objects;
mod record;
mod report;
mod resolved;
mod run;
mod site;
mod state;
mod status;

use std::ffi::{CStr, CString, c_char};

pub use self::callbacks::{
    bb_log_callback, bb_log_level, bb_progress, bb_progress_callback, bb_progress_count, bb_progress_value,
};
pub use self::catalog::{
    bb_catalog, bb_catalog_clone, bb_catalog_count, bb_catalog_free, bb_catalog_get, bb_catalog_is_damaged,
    bb_catalog_iter, bb_catalog_open, bb_catalog_refresh, bb_iter, bb_iter_free, bb_iter_key, bb_iter_next,
    bb_iter_resolved,
};
pub use self::config::{
    bb_config, bb_config_check, bb_config_free, bb_config_get, bb_config_load, bb_config_new,
    bb_config_on_log, bb_config_on_progress, bb_config_proxy_from_env, bb_config_set, bb_config_set_url,
};
pub use self::error::{
    bb_error, bb_error_attempts, bb_error_code, bb_error_free, bb_error_is_retryable, bb_error_key,
    bb_error_path, bb_error_request_id, bb_error_status, bb_error_text,
};
pub use self::objects::{bb_delete_file, bb_resolve, bb_upload_file, bb_url};
pub use self::record::{
    bb_metric, bb_pending, bb_pending_bytes, bb_pending_count, bb_pending_free, bb_pending_key,
    bb_pending_kind, bb_pending_kind_at, bb_site_metric, bb_site_pending, bb_site_summary, bb_summary,
    bb_summary_count, bb_summary_destination, bb_summary_free, bb_summary_is_synced, bb_summary_value,
};
pub use self::report::{
    bb_count, bb_list, bb_outcome, bb_outcome_name, bb_report, bb_report_count, bb_report_failure,
    bb_report_free, bb_report_is_complete, bb_report_item, bb_report_json, bb_report_list_length,
    bb_report_outage, bb_report_outcome, bb_report_state, bb_report_stop_reason, bb_stop_reason,
};
pub use self::resolved::{
    bb_key_state, bb_resolved, bb_resolved_digest, bb_resolved_free, bb_resolved_modified,
    bb_resolved_sha256, bb_resolved_size, bb_resolved_state, bb_resolved_url,
};
pub use self::run::{bb_plan, bb_pull, bb_rescan};
pub use self::site::{
    bb_site, bb_site_cancel, bb_site_close, bb_site_free, bb_site_open, bb_site_reset_cancel,
};
pub use self::state::{
    bb_state, bb_state_claimed_by, bb_state_count, bb_state_free, bb_state_json, bb_state_order,
    bb_state_published_by, bb_state_value,
};
pub use self::status::{bb_status, bb_status_name};

/// Returns the version of the library, such as "0.1.0". The text lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn bb_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL"),
        };
    VERSION.as_ptr()
}

/// Frees a text that a function of this library has given to the caller (`char *`, not `const char *`). NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bb_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: the caller passes what `give_text` gave it, once.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// What the header says of threads: these handles may be used by several at once, those by one after another.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    const fn is_sent<T: Send>() {}
    is_shared::<bb_site>();
    is_shared::<bb_catalog>();
    is_shared::<bb_report>();
    is_shared::<bb_error>();
    is_shared::<bb_resolved>();
    is_shared::<bb_state>();
    is_shared::<bb_summary>();
    is_shared::<bb_pending>();
    is_sent::<bb_config>();
    is_sent::<bb_iter>();
};
