//! What a run's end means to a shell.

use bucket_brigade::{ErrorKind, RescanOutcome, RescanReport, StopReason, StorageError};

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
        | ErrorKind::CacheForeign
        | ErrorKind::CacheLocked
        | ErrorKind::CacheDamaged => REFUSED,
        kind if kind.is_transient() => UNAVAILABLE,
        _ => FAILED,
    }
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

/// What to do about an error, where its text does not say it.
pub(crate) fn advice(error: &StorageError) -> Option<&'static str> {
    Some(match error.kind() {
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
        | ErrorKind::Server => "it stays pending: sync again later",
        ErrorKind::NotFound | ErrorKind::Rejected | ErrorKind::Integrity => {
            "it stays pending; if it fails again, show the request id to the store's operator"
        }
        ErrorKind::CacheLocked => "wait for the other run to end, or give this one a --cache of its own",
        ErrorKind::CacheForeign => "choose another file with --cache",
        ErrorKind::CacheDamaged => {
            "move it away: the next sync sends everything again, and deletes nothing that it did not publish itself"
        }
        ErrorKind::Cache => {
            "look at the disk's space and permissions; nothing was taken for published that is not"
        }
        ErrorKind::FirstRunRefused => "choose another prefix, or --first-run overwrite",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bucket_brigade::Operation;

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
            (ErrorKind::Cache, 1),
            (ErrorKind::Panicked, 1),
        ] {
            assert_eq!(of_error(&StorageError::new(kind, Operation::Rescan, "x")), code, "{kind:?}");
        }
    }
}
