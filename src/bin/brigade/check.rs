//! `verify` and `uploads`: what the store holds, compared with what the cache knows.

use std::sync::Arc;

use bucket_brigade::{CacheManager, ErrorKind, Operation, Run, StorageBackend, StorageError, Verify};

use crate::args::{SpeedArgs, UploadsArgs, VerifyArgs};
use crate::place::Place;
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{exit, json, print_json, printed, text};

/// The cache, which must be there: without it nothing is known of the bucket.
fn cache_of(place: &Place) -> Result<CacheManager, StorageError> {
    place.existing_cache()?.ok_or_else(|| {
        let why = "there is no such cache: nothing was published from here, or it lies elsewhere (--cache)";
        StorageError::new(ErrorKind::Config, Operation::Cache, why).with_path(&place.cache_path)
    })
}

/// Compares, and tells what is missing, different or unknown.
pub(crate) fn verify(args: &VerifyArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let place = Place::find(&args.place)?;
    let cache = cache_of(&place)?;
    let (engine, backend) = place.connect(&args.speed, &[])?;
    let backend: Arc<dyn StorageBackend> = backend;
    let how = if args.content { Verify::Content } else { Verify::List };
    let follower = Follower::start(display, "listing", u64::MAX);
    let run = Run::new()
        .cancel(stop.token.clone())
        .verify(how)
        .observer(follower.observer())
        .progress(follower.progress.clone());
    let result = cache.verify(&engine, &backend, &run);
    drop(follower);
    let found = match result {
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
        printed(text::verified(&found))?;
    } else if !found.is_good() {
        text::note(&text::verified_in_short(&found));
    }
    Ok(match stop.code().filter(|_| !found.complete) {
        Some(signal) => signal,
        None if found.is_good() => exit::DONE,
        None => exit::of_errors(&found.failed).unwrap_or(exit::FAILED),
    })
}

/// Lists the uploads that were left open, or aborts them.
pub(crate) fn uploads(args: &UploadsArgs) -> Result<u8, StorageError> {
    let place = Place::find(&args.place)?;
    let cache = cache_of(&place)?;
    let (engine, backend) = place.connect(&SpeedArgs::default(), &[])?;
    if !args.abort {
        let open = cache.unfinished_uploads(&engine, &*backend)?;
        if args.place.output.json {
            print_json(&json::uploads(&open))?;
        } else {
            printed(text::uploads(&open))?;
        }
        return Ok(exit::DONE);
    }
    let result = cache.abort_uploads(&engine, &*backend)?;
    text::failures(&result.failed, result.failed.len() as u64);
    if args.place.output.json {
        print_json(&json::aborted(&result))?;
    } else if !args.place.output.quiet {
        printed(text::aborted(&result))?;
    }
    Ok(exit::of_errors(&result.failed).unwrap_or(exit::DONE))
}
