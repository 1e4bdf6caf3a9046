//! `verify` and `uploads`: what the store holds, compared with what the cache knows.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bucket_brigade::{
    CacheManager, CancelToken, ErrorKind, Operation, Run, StorageBackend, StorageError, Verify, VerifyReport,
};

use crate::args::{SpeedArgs, UploadsArgs, VerifyArgs};
use crate::place::Place;
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{exit, json, print_json, printed, text};

/// Without a cache nothing is known of the bucket.
fn must_be_there(cache: Option<CacheManager>, place: &Place) -> Result<CacheManager, StorageError> {
    cache.ok_or_else(|| {
        let why = "there is no such cache: nothing was published from here, or it lies elsewhere (--cache)";
        StorageError::new(ErrorKind::Config, Operation::Cache, why).with_path(&place.cache_path)
    })
}

/// The cache, to note in it what is found; where it cannot be written, to read it.
fn cache_to_mend(place: &Place, wait: Duration, stop: &CancelToken) -> Result<CacheManager, StorageError> {
    if !place.has_cache()? {
        return must_be_there(None, place);
    }
    match place.open_cache(wait, stop) {
        Err(error) if is_unwritable(&error) => must_be_there(place.read_cache()?, place),
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
    if args.place.output.json {
        print_json(&json::verified(&found))?;
    } else if !args.place.output.quiet {
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
    let place = Place::find(&args.place)?;
    let cache = cache_to_mend(&place, args.lock.lock_wait, &stop.token)?;
    let (engine, backend) = place.connect(&args.speed, &[])?;
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
            place.cache_path.display()
        ));
    }
    Ok((found, !cache.is_read_only()))
}

/// Lists the uploads that were left open, or aborts them.
pub(crate) fn uploads(args: &UploadsArgs) -> Result<u8, StorageError> {
    let place = Place::find(&args.place)?;
    let cache = if args.abort && place.has_cache()? {
        Some(place.open_cache(args.lock.lock_wait, &CancelToken::new())?)
    } else {
        place.read_cache()?
    };
    let cache = must_be_there(cache, &place)?;
    let (engine, backend) = place.connect(&SpeedArgs::default(), &[])?;
    if !args.abort {
        let open = cache.unfinished_uploads(&engine, &*backend)?;
        if args.place.output.json {
            print_json(&json::inquiry::uploads(&open))?;
        } else {
            printed(text::uploads(&open))?;
        }
        return Ok(exit::DONE);
    }
    let result = cache.abort_uploads(&engine, &*backend)?;
    text::failures(&result.failed, result.failed.len() as u64);
    if args.place.output.json {
        print_json(&json::inquiry::aborted(&result))?;
    } else if !args.place.output.quiet {
        printed(text::aborted(&result))?;
    }
    Ok(exit::of_errors(&result.failed).unwrap_or(exit::DONE))
}
