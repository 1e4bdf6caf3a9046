//! The numbers of the header, as C sees them, against those of the library; and the symbols of the shared object.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::process::Command;

use bucket_brigade::capi::{
    bb_count, bb_key_state, bb_list, bb_log_level, bb_metric, bb_outcome, bb_pending_kind, bb_progress_value,
    bb_state_value, bb_status, bb_stop_reason, bb_summary_value,
};

use crate::capi::programs::{Language, Link, compile, ended_well, library, manifest, source};

macro_rules! constants {
    ($($type:ident { $($name:ident = $number:literal),* $(,)? })*) => {
        /// Every constant: its name, its number in the library, its number for ever. Numbers are never used again, so this list
        /// only grows.
        const CONSTANTS: &[(&str, u64, u64)] = &[$($((stringify!($name), $type::$name as u64, $number)),*),*];
    };
}

constants! {
    bb_status {
        BB_OK = 0,
        BB_ERR_CONFIG = 1,
        BB_ERR_INVALID_KEY = 2,
        BB_ERR_UNSUPPORTED = 3,
        BB_ERR_CONNECT = 10,
        BB_ERR_TIMEOUT = 11,
        BB_ERR_TLS = 12,
        BB_ERR_NETWORK = 13,
        BB_ERR_UNAVAILABLE = 14,
        BB_ERR_PROTOCOL = 15,
        BB_ERR_CREDENTIALS = 20,
        BB_ERR_ACCESS_DENIED = 21,
        BB_ERR_BUCKET_MISSING = 22,
        BB_ERR_NOT_FOUND = 23,
        BB_ERR_REGION = 24,
        BB_ERR_THROTTLED = 25,
        BB_ERR_SERVER = 26,
        BB_ERR_REJECTED = 27,
        BB_ERR_CLOCK_SKEW = 28,
        BB_ERR_INTEGRITY = 29,
        BB_ERR_CONFLICT = 30,
        BB_ERR_SOURCE_CHANGED = 40,
        BB_ERR_SOURCE_VANISHED = 41,
        BB_ERR_SOURCE_UNREADABLE = 42,
        BB_ERR_TOO_LARGE = 43,
        BB_ERR_CANCELLED = 50,
        BB_ERR_DEADLINE = 51,
        BB_ERR_SUPERSEDED = 52,
        BB_ERR_CACHE = 60,
        BB_ERR_CACHE_LOCKED = 61,
        BB_ERR_CACHE_FOREIGN = 62,
        BB_ERR_CACHE_DAMAGED = 63,
        BB_ERR_ROOT_MISSING = 70,
        BB_ERR_ROOT_EMPTY = 71,
        BB_ERR_FIRST_RUN_REFUSED = 72,
        BB_ERR_STATE_DAMAGED = 73,
        BB_ERR_PANICKED = 80,
        BB_ERR_OTHER = 99,
        BB_ERR_FORKED = 100,
        BB_ERR_ARGUMENT = 101,
        BB_ERR_CLOSED = 102,
        BB_ERR_BUSY = 103,
        BB_DONE = 200,
    }
    bb_log_level {
        BB_LOG_ERROR = 1,
        BB_LOG_WARN = 2,
        BB_LOG_INFO = 3,
        BB_LOG_DEBUG = 4,
        BB_LOG_TRACE = 5,
    }
    bb_outcome {
        BB_OUTCOME_NONE = 0,
        BB_OUTCOME_UNCHANGED = 1,
        BB_OUTCOME_PUBLISHED = 2,
        BB_OUTCOME_PARTIAL = 3,
        BB_OUTCOME_LOCAL_ONLY = 4,
    }
    bb_stop_reason {
        BB_STOP_NONE = 0,
        BB_STOP_CANCELLED = 1,
        BB_STOP_DEADLINE = 2,
        BB_STOP_DELETES_REFUSED = 3,
        BB_STOP_CREDENTIALS = 4,
        BB_STOP_UNAVAILABLE = 5,
        BB_STOP_CLAIMED = 6,
        BB_STOP_SUPERSEDED = 7,
    }
    bb_pending_kind {
        BB_PENDING_NONE = 0,
        BB_PENDING_ADDED = 1,
        BB_PENDING_MODIFIED = 2,
        BB_PENDING_REMOVED = 3,
        BB_PENDING_UNSETTLED = 4,
        BB_PENDING_HEADERS = 5,
    }
    bb_key_state {
        BB_KEY_UNKNOWN = 0,
        BB_KEY_PUBLISHED = 1,
        BB_KEY_PENDING = 2,
        BB_KEY_STALE = 3,
    }
    bb_count {
        BB_COUNT_SCANNED = 1,
        BB_COUNT_UNCHANGED = 2,
        BB_COUNT_UPLOADED = 3,
        BB_COUNT_UPLOADED_BYTES = 4,
        BB_COUNT_HEADERS_UPDATED = 5,
        BB_COUNT_ADOPTED = 6,
        BB_COUNT_ADOPTED_BYTES = 7,
        BB_COUNT_DELETED = 8,
        BB_COUNT_FAILED = 9,
        BB_COUNT_KEPT = 10,
        BB_COUNT_SKIPPED = 11,
        BB_COUNT_PENDING = 12,
        BB_COUNT_OPEN_UPLOADS = 13,
        BB_COUNT_REQUESTS = 14,
        BB_COUNT_RETRIES = 15,
        BB_COUNT_ELAPSED_MS = 16,
    }
    bb_list {
        BB_LIST_UPLOADED = 1,
        BB_LIST_DELETED = 2,
        BB_LIST_HEADERS_UPDATED = 3,
        BB_LIST_ADOPTED = 4,
        BB_LIST_KEPT = 5,
        BB_LIST_SKIPPED = 6,
        BB_LIST_UPLOADED_URLS = 7,
    }
    bb_metric {
        BB_METRIC_UPLOADS = 1,
        BB_METRIC_UPLOADS_FAILED = 2,
        BB_METRIC_UPLOAD_BYTES = 3,
        BB_METRIC_HEADERS_UPDATED = 4,
        BB_METRIC_DELETES = 5,
        BB_METRIC_DELETES_FAILED = 6,
        BB_METRIC_RETRIES = 7,
        BB_METRIC_REQUESTS = 8,
        BB_METRIC_CONNECTIONS = 9,
        BB_METRIC_LOOKUPS = 10,
        BB_METRIC_BYTES_SENT = 11,
        BB_METRIC_SENDS = 12,
        BB_METRIC_BYTES_RECEIVED = 13,
        BB_METRIC_COMMITS = 14,
        BB_METRIC_BYTES_HASHED = 15,
        BB_METRIC_RESCANS = 16,
        BB_METRIC_PENDING_FILES = 17,
        BB_METRIC_RESCAN_MS = 18,
        BB_METRIC_LAST_RESCAN_MS = 19,
    }
    bb_progress_value {
        BB_PROGRESS_FILES_TOTAL = 1,
        BB_PROGRESS_FILES_DONE = 2,
        BB_PROGRESS_FILES_FAILED = 3,
        BB_PROGRESS_BYTES_TOTAL = 4,
        BB_PROGRESS_BYTES_DONE = 5,
        BB_PROGRESS_BYTES_HASHED = 6,
        BB_PROGRESS_BYTES_SENT = 7,
        BB_PROGRESS_DELETES_TOTAL = 8,
        BB_PROGRESS_DELETES_DONE = 9,
    }
    bb_summary_value {
        BB_SUMMARY_PUBLISHED = 1,
        BB_SUMMARY_PUBLISHED_BYTES = 2,
        BB_SUMMARY_PENDING = 3,
        BB_SUMMARY_OPEN_UPLOADS = 4,
    }
    bb_state_value {
        BB_STATE_GENERATION = 1,
        BB_STATE_EPOCH = 2,
        BB_STATE_PULLED = 3,
        BB_STATE_IN_DOUBT = 4,
    }
}

fn header() -> String {
    fs::read_to_string(manifest().join("src/capi/bucket_brigade.h")).unwrap()
}

/// The names in the header that are constants: those before ` = `.
fn names_of_constants(header: &str) -> Vec<&str> {
    let names = header.lines().filter_map(|line| line.trim().split_once(" = ")).map(|(name, _)| name);
    names.filter(|name| name.starts_with("BB_")).collect()
}

#[test]
fn c_and_rust_agree_on_every_constant() {
    let header = header();
    let known: BTreeMap<_, _> = CONSTANTS.iter().map(|(name, ours, ever)| (*name, (*ours, *ever))).collect();
    let names = names_of_constants(&header);
    assert_eq!(names.len(), known.len(), "a constant is in one of both only");
    let folder = tempfile::tempdir().unwrap();
    let mut program = "#include <bucket_brigade.h>\n#include <stdio.h>\nint main(void)\n{\n".to_owned();
    for name in &names {
        writeln!(program, "    printf(\"{name} %llu\\n\", (unsigned long long){name});").unwrap();
    }
    program += "    printf(\"%d\\n\", BB_NUL_TERMINATED == (size_t)-1 && sizeof(bb_status) == 4);\n    return 0;\n}\n";
    let path = folder.path().join("constants.c");
    fs::write(&path, program).unwrap();
    for language in [Language::C11, Language::Cpp17] {
        let printed = ended_well(
            &Command::new(compile(&path, language, Link::Archive, &[], folder.path())).output().unwrap(),
        );
        let mut lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.pop(), Some("1"), "the size of a status, or the length of a text with a NUL");
        for line in lines {
            let (name, number) = line.split_once(' ').unwrap();
            let number: u64 = number.parse().unwrap();
            assert_eq!(known.get(name), Some(&(number, number)), "{name}");
        }
    }
}

/// The functions that the shared object exports, in the order of their names. Functions are only added, never removed, so the name
/// of the shared object stays as it is.
const SYMBOLS: &str = include_str!("symbols.txt");

#[test]
fn the_shared_object_exports_these_functions_and_nothing_else() {
    let listed = Command::new("nm").args(["-D", "--defined-only"]).arg(&library().shared).output().unwrap();
    let listed = ended_well(&listed);
    let mut exported: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().last()).collect();
    exported.sort_unstable();
    assert_eq!(exported.join("\n"), SYMBOLS.trim());
    let header = header();
    for symbol in exported {
        assert!(header.contains(&format!("{symbol}(")), "{symbol} is not in the header");
    }
}

/// A function that is forgotten in the test of misuse would be tested by nobody.
#[test]
fn each_function_is_misused() {
    let programs = ["misuse.c", "everything.c"].map(|name| fs::read_to_string(source(name)).unwrap());
    for symbol in SYMBOLS.lines() {
        // They have no pointers.
        let alone = ["bb_version"].contains(&symbol);
        assert!(alone || programs[0].contains(&format!("{symbol}(")), "{symbol} is not in misuse.c");
    }
    assert!(programs[1].contains("bb_version("));
}
