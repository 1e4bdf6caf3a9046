//! What a run's end means to a shell.

use std::error::Error;
use std::io;

use bucket_brigade::{ErrorKind, Operation, RescanOutcome, RescanReport, StopReason, StorageError};

/// Done, or nothing to do.
pub(crate) const DONE: u8 = 0;
/// Some files failed, or something differs.
pub(crate) const FAILED: u8 = 1;
/// Usage or configuration. The parser of arguments ends with it, too.
pub(crate) const CONFIGURATION: u8 = 2;
/// The store was unavailable.
pub(crate) const UNAVAILABLE: u8 = 3;
/// Refused for safety.
pub(crate) const REFUSED: u8 = 4;
/// The credentials were refused.
pub(crate) const CREDENTIALS: u8 = 5;

/// The code of an error that ended everything.
pub(crate) fn of_error(error: &StorageError) -> u8 {
    match error.kind() {
        ErrorKind::Credentials | ErrorKind::AccessDenied => CREDENTIALS,
        ErrorKind::Config
        | ErrorKind::InvalidKey
        | ErrorKind::Unsupported
        | ErrorKind::BucketMissing
        | ErrorKind::Region
        | ErrorKind::Tls
        | ErrorKind::ClockSkew => CONFIGURATION,
        ErrorKind::RootMissing
        | ErrorKind::RootEmpty
        | ErrorKind::FirstRunRefused
        | ErrorKind::Cache
        | ErrorKind::CacheForeign
        | ErrorKind::CacheLocked
        | ErrorKind::CacheDamaged => REFUSED,
        kind if kind.is_transient() => UNAVAILABLE,
        _ => FAILED,
    }
}

/// The first that fits of several errors; none of them is a failure for a reason of its own.
pub(crate) fn of_errors(errors: &[StorageError]) -> Option<u8> {
    let codes: Vec<u8> = errors.iter().map(of_error).collect();
    let order = [CONFIGURATION, CREDENTIALS, REFUSED, UNAVAILABLE, FAILED];
    order.into_iter().find(|code| codes.contains(code))
}

/// The code of a run that came to a report.
pub(crate) fn of_report(report: &RescanReport) -> u8 {
    match (report.outcome, report.stop_reason) {
        (_, Some(StopReason::Credentials)) => CREDENTIALS,
        (_, Some(StopReason::DeletesRefused)) => REFUSED,
        (RescanOutcome::LocalOnly, _) | (_, Some(StopReason::Unavailable)) => UNAVAILABLE,
        (RescanOutcome::Unchanged | RescanOutcome::Published, None) => DONE,
        _ => FAILED,
    }
}

/// Settings of the library, and where a shell sets them.
const FLAGS: [(&str, &str); 17] = [
    ("workers", "--batch-size"),
    ("batch_size", "--batch-size"),
    ("chunk_size", "--chunk-size"),
    ("part_size", "--part-size"),
    ("part_threshold", "--part-threshold"),
    ("region", "--region, AWS_REGION, or region in ~/.aws/config"),
    ("endpoint", "--endpoint-url, AWS_ENDPOINT_URL, or endpoint_url in ~/.aws/config"),
    ("ca_file", "--ca-file, AWS_CA_BUNDLE, or ca_bundle in ~/.aws/config"),
    ("access_key", "AWS_ACCESS_KEY_ID, or the profile"),
    ("secret_key", "AWS_SECRET_ACCESS_KEY, or the profile"),
    ("session_token", "AWS_SESSION_TOKEN, or the profile"),
    ("cache", "--cache"),
    ("bucket", "DEST"),
    ("bucket_prefix", "DEST"),
    ("header", "--header"),
    ("include", "--include, --include-from"),
    ("exclude", "--exclude, --exclude-from"),
];

/// The system's error that an error came of.
pub(crate) fn cause(error: &StorageError) -> Option<&io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        match cause.downcast_ref::<io::Error>() {
            Some(found) if found.raw_os_error().is_some() => return Some(found),
            _ => next = cause.source(),
        }
    }
    None
}

fn system_error(error: &StorageError) -> Option<i32> {
    cause(error)?.raw_os_error()
}

/// Limits of the process, whatever was being done when they were met.
fn limit(error: &StorageError) -> Option<&'static str> {
    match system_error(error)? {
        libc::EMFILE => Some("too many open files: raise ulimit -n"),
        libc::ENFILE => Some("too many open files on this machine: raise fs.file-max"),
        libc::EFBIG => Some("if the disk can hold such a file, raise ulimit -f"),
        _ => None,
    }
}

/// What to do about an error, where its text does not say it.
pub(crate) fn advice(error: &StorageError) -> Option<&'static str> {
    if let Some(limit) = limit(error) {
        return Some(limit);
    }
    let field = error.message().split(':').next().unwrap_or_default();
    Some(match error.kind() {
        ErrorKind::Config => FLAGS.iter().find(|(name, _)| *name == field)?.1,
        ErrorKind::Region => "--region sets it",
        _ if error.message().contains("speak http") => "--endpoint-url sets it",
        ErrorKind::Tls if error.message().contains("ca_file") => "--ca-file sets it",
        ErrorKind::AccessDenied if error.operation() == Operation::Delete => {
            "the delete stays pending; what was uploaded stands"
        }
        ErrorKind::SourceVanished => "the next sync finds out whether it is gone",
        ErrorKind::SourceUnreadable => "let this user read it, or --exclude it",
        ErrorKind::TooLarge => "--exclude it, or split it",
        ErrorKind::InvalidKey => "rename it",
        ErrorKind::Connect
        | ErrorKind::Timeout
        | ErrorKind::Network
        | ErrorKind::Unavailable
        | ErrorKind::Protocol
        | ErrorKind::Throttled
        | ErrorKind::Server => match error.operation() {
            Operation::Upload | Operation::Delete => "it stays pending: sync again later",
            _ => "try again later",
        },
        ErrorKind::NotFound | ErrorKind::Rejected | ErrorKind::Integrity => {
            "it stays pending; if it fails again, show the request id to the store's operator"
        }
        ErrorKind::CacheLocked => {
            "wait for the other run to end (--lock-wait), or give this one a --cache of its own"
        }
        ErrorKind::CacheForeign => "--cache sets it",
        ErrorKind::Cache if system_error(error).is_none_or(|number| number == libc::ELOOP) => return None,
        ErrorKind::Cache => {
            "look at the disk's space and permissions; nothing was taken for published that is not"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_codes_of_the_table() {
        for (kind, code) in [
            (ErrorKind::Config, 2),
            (ErrorKind::BucketMissing, 2),
            (ErrorKind::Region, 2),
            (ErrorKind::Tls, 2),
            (ErrorKind::ClockSkew, 2),
            (ErrorKind::Credentials, 5),
            (ErrorKind::AccessDenied, 5),
            (ErrorKind::RootMissing, 4),
            (ErrorKind::RootEmpty, 4),
            (ErrorKind::CacheForeign, 4),
            (ErrorKind::CacheLocked, 4),
            (ErrorKind::Connect, 3),
            (ErrorKind::Throttled, 3),
            (ErrorKind::Cache, 4),
            (ErrorKind::Panicked, 1),
        ] {
            assert_eq!(of_error(&StorageError::new(kind, Operation::Rescan, "x")), code, "{kind:?}");
        }
    }
}
