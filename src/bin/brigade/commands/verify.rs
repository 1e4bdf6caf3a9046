//! `verify`: compares the objects of the store with the cache.

use std::io;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, CancelToken, ErrorKind, Run, StorageBackend, StorageError, Verify, VerifyReport,
};

use crate::args::VerifyArgs;
use crate::commands::each::Each;
use crate::destination::{Destination, require_cache};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

/// Opens the cache for writing, to record in it what differs. Opens it for reading if it cannot be written.
fn open_cache_to_update(
    destination: &Destination,
    stop: &CancelToken,
    repair: bool,
) -> Result<CacheManager, StorageError> {
    if !destination.has_cache()? {
        return require_cache(None, destination);
    }
    match destination.open_cache(stop) {
        // To repair is to record: without a cache that can be written there is no use in looking.
        Err(error) if is_unwritable(&error) && !repair => {
            require_cache(destination.read_cache()?, destination)
        }
        other => other,
    }
}

fn is_unwritable(error: &StorageError) -> bool {
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    error.kind() == ErrorKind::Cache
        && exit::os_error(error).is_some_and(|cause| kinds.contains(&cause.kind()))
}

/// Compares, and prints what is missing, different or unknown.
pub(crate) fn verify(args: &VerifyArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let configs = targets::of_destinations(&args.destinations, &args.settings);
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("verify", &args.output, Some(&stop))
        .run(configs, print_failed, |destination| verify_one(args, &destination, &stop, display))
}

fn verify_one(
    args: &VerifyArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let (found, is_recorded) = match run_verify(args, destination, stop, display) {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            text::print_error(&error);
            return Ok(stop.exit_code().unwrap_or(exit::FAILED));
        }
        other => other?,
    };
    text::print_failures(&found.failed, found.failed_count);
    if args.output.json {
        print_json_of(destination, &json::verify_report(&found))?;
    } else if !args.output.quiet {
        check_output(text::print_verification(&found, is_recorded))?;
    } else if !found.is_good() {
        text::print_note(&text::verification_summary(&found));
    }
    Ok(match stop.exit_code().filter(|_| !found.complete) {
        Some(signal) => signal,
        None if found.is_good() => exit::DONE,
        None => exit::code_of_errors(&found.failed).unwrap_or(exit::FAILED),
    })
}

/// Runs the verification. Returns the report, and whether the cache has recorded it.
fn run_verify(
    args: &VerifyArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<(VerifyReport, bool), StorageError> {
    let cache = open_cache_to_update(destination, &stop.token, args.repair)?;
    let (engine, backend) = destination.connect()?;
    let backend: Arc<dyn StorageBackend> = backend;
    let how = if args.content { Verify::Content } else { Verify::List };
    let follower = Follower::start(display, "listing", u64::MAX);
    let run = Run::new()
        .cancel(stop.token.clone())
        .verify(how)
        .observer(follower.observer())
        .progress(follower.progress.clone());
    let found = cache.verify(&engine, &backend, &run);
    drop(follower);
    let found = found?;
    if cache.is_read_only() && found.missing_count + found.different_count > 0 {
        text::print_note(&format!(
            "{} cannot be written: the next sync will not publish missing and different objects again",
            destination.cache_path.display()
        ));
    }
    Ok((found, !cache.is_read_only()))
}
