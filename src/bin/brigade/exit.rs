//! Exit codes, and the advice that is printed with an error.

use std::error::Error;
use std::io;

use bucket_brigade::{
    ErrorKind, Operation, RescanOutcome, RescanReport, Setting, StopReason, StorageError, all_settings,
};

/// Everything is published, or there was nothing to do.
pub(crate) const DONE: u8 = 0;
/// Some files failed, or a verification found a difference.
pub(crate) const FAILED: u8 = 1;
/// Usage or configuration. Clap exits with the same code.
pub(crate) const CONFIGURATION: u8 = 2;
/// The store was unavailable.
pub(crate) const UNAVAILABLE: u8 = 3;
/// Refused for safety.
pub(crate) const REFUSED: u8 = 4;
/// The store refused the credentials.
pub(crate) const CREDENTIALS: u8 = 5;
/// Another publisher holds the destination, or a newer build was published.
pub(crate) const SUPERSEDED: u8 = 6;

/// Returns the exit code of an error that ended the command.
pub(crate) fn code_of_error(error: &StorageError) -> u8 {
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
        | ErrorKind::CacheDamaged
        | ErrorKind::StateDamaged => REFUSED,
        ErrorKind::Superseded => SUPERSEDED,
        kind if kind.is_transient() => UNAVAILABLE,
        _ => FAILED,
    }
}

/// Returns the exit code of the gravest of several errors; `None` if there are none.
pub(crate) fn code_of_errors(errors: &[StorageError]) -> Option<u8> {
    let codes: Vec<u8> = errors.iter().map(code_of_error).collect();
    Some(gravest(&codes)).filter(|code| *code != DONE)
}

/// Returns the gravest of several exit codes.
pub(crate) fn gravest(codes: &[u8]) -> u8 {
    // The order of the exit codes in the help: what the user can correct comes first. A signal ends everything.
    let signal = codes.iter().copied().find(|code| *code >= 128);
    let order = [CONFIGURATION, CREDENTIALS, REFUSED, SUPERSEDED, UNAVAILABLE, FAILED];
    signal.or_else(|| order.into_iter().find(|code| codes.contains(code))).unwrap_or(DONE)
}

/// Returns the exit code of a run that returned a report.
pub(crate) fn code_of_report(report: &RescanReport) -> u8 {
    match (report.outcome, report.stop_reason) {
        // A reason to stop comes first: the outcome is the same for all of them.
        (_, Some(StopReason::Credentials)) => CREDENTIALS,
        (_, Some(StopReason::DeletesRefused)) => REFUSED,
        (_, Some(StopReason::Claimed | StopReason::Superseded)) => SUPERSEDED,
        (RescanOutcome::LocalOnly, _) | (_, Some(StopReason::Unavailable)) => UNAVAILABLE,
        (RescanOutcome::Unchanged | RescanOutcome::Published, None) => DONE,
        _ => FAILED,
    }
}

/// Returns the operating system's error that caused this one.
pub(crate) fn os_error(error: &StorageError) -> Option<&io::Error> {
    let mut next = error.source();
    while let Some(cause) = next {
        match cause.downcast_ref::<io::Error>() {
            Some(found) if found.raw_os_error().is_some() => return Some(found),
            _ => next = cause.source(),
        }
    }
    None
}

/// Returns the errno of that error.
fn os_error_number(error: &StorageError) -> Option<i32> {
    os_error(error)?.raw_os_error()
}

/// Returns the advice for a limit of the process or the machine, whatever the operation.
fn limit_advice(error: &StorageError) -> Option<&'static str> {
    match os_error_number(error)? {
        libc::EMFILE => Some("too many open files: raise ulimit -n"),
        libc::ENFILE => Some("too many open files on this machine: raise fs.file-max"),
        libc::EFBIG => Some("if the file system allows files of this size, raise ulimit -f"),
        _ => None,
    }
}

/// Returns what to do about an error, if its text does not say it.
pub(crate) fn advice(error: &StorageError) -> Option<String> {
    if let Some(limit) = limit_advice(error) {
        return Some(limit.to_owned());
    }
    match error.kind() {
        ErrorKind::Config => setting_advice(error.message()),
        _ => advice_for_kind(error).map(str::to_owned),
    }
}

/// Returns where the setting comes from that a message such as `region: missing` begins with.
fn setting_advice(message: &str) -> Option<String> {
    // Files have their place in the message; an ignore file is not to be turned off.
    if message.contains("it is set in ") || message.contains(".brigadeignore") {
        return None;
    }
    if message.contains("set state to bucket") {
        return Some("use --state bucket or --state s3://BUCKET/PREFIX".to_owned());
    }
    let mut places: Vec<String> = match message.split(':').next().unwrap_or_default() {
        "bucket" | "bucket_prefix" | "prefix" => vec!["DEST".to_owned()],
        "access_key" => vec!["AWS_ACCESS_KEY_ID".to_owned(), "the profile".to_owned()],
        "secret_key" => vec!["AWS_SECRET_ACCESS_KEY".to_owned(), "the profile".to_owned()],
        "session_token" => vec!["AWS_SESSION_TOKEN".to_owned(), "the profile".to_owned()],
        // An engine has as many workers as a batch has files.
        "workers" => vec!["--batch-size".to_owned()],
        field => {
            let is_field = |setting: &&Setting| setting.error_field() == field || setting.name() == field;
            let settings = all_settings().map(|(_, setting)| setting).filter(is_field);
            settings.flat_map(places_of).collect()
        }
    };
    // The texts of this command name the flag themselves.
    places.retain(|place| !message.contains(place.as_str()));
    (!places.is_empty() && !message.contains("--")).then(|| format!("check {}", listed(&places)))
}

/// Returns the flag of a setting, its variables, and its field in a profile.
fn places_of(setting: &Setting) -> Vec<String> {
    let variables = setting.variables_read().iter().map(|name| (*name).to_owned());
    let profile = Some(setting.profile_field()).filter(|field| !field.is_empty());
    let profile = profile.map(|field| format!("{field} in ~/.aws/config"));
    // Some are no flags, but in files or parts of DEST.
    let flag = Some(setting.flag()).filter(|_| setting.applies_to("sync") || setting.applies_to("pull"));
    flag.into_iter().chain(variables).chain(profile).collect()
}

/// Joins places: `a`, `a and b`, `a, b and c`.
fn listed(places: &[String]) -> String {
    match places.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => places.concat(),
    }
}

fn advice_for_kind(error: &StorageError) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::Region => "the flag is --region",
        // A server that does not speak TLS shows as one of several kinds.
        _ if error.message().contains("speak http") => "the flag is --endpoint-url",
        ErrorKind::Tls if error.message().contains("ca_file") => "the flag is --ca-file",
        ErrorKind::AccessDenied if error.operation() == Operation::Delete => {
            "the delete stays pending; uploads are not affected"
        }
        ErrorKind::SourceVanished => "the next sync checks whether the file is gone",
        ErrorKind::SourceUnreadable => "give this user permission to read it, or --exclude it",
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
            "it stays pending; if it fails again, send the request ID to the store's operator"
        }
        ErrorKind::Conflict => {
            "it stays pending: find out who else writes to this destination, or, with the state in the bucket, use \
             --on-conflict overwrite"
        }
        ErrorKind::Superseded => "the next sync pulls what that one published, and continues",
        ErrorKind::StateDamaged if error.message().contains("holds the tree") => "the flag is --tree",
        ErrorKind::Unsupported if error.message().contains("single_writer") => "the flag is --single-writer",
        ErrorKind::CacheLocked => {
            "wait for the other run to end, or longer with --lock-wait; for another DEST, use another --cache"
        }
        ErrorKind::CacheForeign => "the flag is --cache",
        // Without an errno, and for a symbolic link, the message says what is wrong with the path.
        ErrorKind::Cache if os_error_number(error).is_none_or(|number| number == libc::ELOOP) => return None,
        ErrorKind::Cache => {
            "check the disk's space and permissions; what is not in the cache does not count as published"
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
            (ErrorKind::Conflict, 1),
            (ErrorKind::StateDamaged, 4),
            (ErrorKind::Superseded, 6),
            (ErrorKind::Cache, 4),
            (ErrorKind::Panicked, 1),
        ] {
            assert_eq!(code_of_error(&StorageError::new(kind, Operation::Rescan, "x")), code, "{kind:?}");
        }
    }
}
