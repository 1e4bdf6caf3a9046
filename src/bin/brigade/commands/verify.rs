//! `verify`: what the store holds, compared with what the cache knows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    CacheManager, CancelToken, ErrorKind, Run, StorageBackend, StorageError, Verify, VerifyReport,
};

use crate::args::VerifyArgs;
use crate::destination::{Destination, must_be_there};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{exit, json, print_json, printed, text};

/// The cache, to note in it what is found; where it cannot be written, to read it.
fn cache_to_mend(
    destination: &Destination,
    wait: Duration,
    stop: &CancelToken,
) -> Result<CacheManager, StorageError> {
    if !destination.has_cache()? {
        return must_be_there(None, destination);
    }
    match destination.open_cache(wait, stop) {
        Err(error) if is_unwritable(&error) => must_be_there(destination.read_cache()?, destination),
        other => other,
    }
}

fn is_unwritable(error: &StorageError) -> bool {
    let kinds = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
    error.kind() == ErrorKind::Cache && exit::cause(error).is_some_and(|cause| kinds.contains(&cause.kind()))
}

/// Compares, and tells what is missing, different or unknown.
pub(crate) fn verify(args: &VerifyArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let (found, is_recorded) = match compared(args, &stop, display) {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            text::error(&error);
            return Ok(stop.code().unwrap_or(exit::FAILED));
        }
        other => other?,
    };
    text::failures(&found.failed, found.failed_count);
    if args.destination.output.json {
        print_json(&json::verified(&found))?;
    } else if !args.destination.output.quiet {
        printed(text::verified(&found, is_recorded))?;
    } else if !found.is_good() {
        text::note(&text::verified_in_short(&found));
    }
    Ok(match stop.code().filter(|_| !found.complete) {
        Some(signal) => signal,
        None if found.is_good() => exit::DONE,
        None => exit::of_errors(&found.failed).unwrap_or(exit::FAILED),
    })
}

/// What was found, and whether the cache has it, too.
fn compared(args: &VerifyArgs, stop: &Stop, display: &Display) -> Result<(VerifyReport, bool), StorageError> {
    let destination = Destination::find(&args.destination)?;
    let cache = cache_to_mend(&destination, args.lock.lock_wait, &stop.token)?;
    let (engine, backend) = destination.connect(&args.speed, &[])?;
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
        text::note(&format!(
            "{} cannot be written: what is missing or different is not noted in it, and not published again by itself",
            destination.cache_path.display()
        ));
    }
    Ok((found, !cache.is_read_only()))
}
