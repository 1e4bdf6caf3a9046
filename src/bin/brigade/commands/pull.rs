//! `pull`: makes the cache and its catalog a copy of the state in the bucket, on a machine without a tree.

use std::sync::Arc;

use bucket_brigade::{CacheManager, ErrorKind, RemoteState, Run, StateReport, StorageBackend, StorageError};

use crate::args::SpeedArgs;
use crate::args::state::PullArgs;
use crate::commands::shared_state;
use crate::destination::Destination;
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{check_output, exit, json, print_json, text};

/// Pulls, and prints what the cache then holds.
pub(crate) fn pull(args: &PullArgs, display: &Display) -> Result<u8, StorageError> {
    let (stop, destination) = (Stop::on_signals(display)?, Destination::from_args(&args.destination)?);
    let (state, cache) = match run_pull(args, &destination, &stop, display) {
        Err(error) if error.kind() == ErrorKind::Cancelled => {
            text::print_error(&error);
            return Ok(stop.exit_code().unwrap_or(exit::FAILED));
        }
        // Every other error of this kind is about a single object.
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(without_state(&error)),
        other => other?,
    };
    let pulled = text::state::Pulled {
        destination: &destination.address.destination(),
        cache: cache.path(),
        published: cache.published_count()?,
        state: &state,
    };
    if args.destination.output.json {
        print_json(&json::state::pulled_object(&pulled))?;
    } else if !args.destination.output.quiet {
        check_output(text::state::print_pulled(&pulled))?;
    }
    Ok(exit::DONE)
}

fn run_pull(
    args: &PullArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<(StateReport, CacheManager), StorageError> {
    let speed = SpeedArgs::default();
    let (engine, backend) = destination.connect(&speed, &[])?;
    let state = shared_state::place(&args.state, destination, &engine, &args.destination, &speed)?;
    let state = args.tree.iter().fold(state.unwrap_or_default(), RemoteState::tree);
    let cache = destination.open_cache(args.lock.lock_wait, &stop.token)?;
    let backend: Arc<dyn StorageBackend> = backend;
    let follower = Follower::start(display, "pulling", u64::MAX);
    let run = Run::new()
        .cancel(stop.token.clone())
        .observer(follower.observer())
        .progress(follower.progress.clone());
    let pulled = cache.pull(&engine, &backend, &state, &run);
    drop(follower);
    pulled.map(|state| (state, cache))
}

/// Returns the error of a pull where there is no state.
fn without_state(error: &StorageError) -> StorageError {
    let why = format!(
        "{}; publish there with brigade sync --state bucket, or say with --state s3://BUCKET/PREFIX where the state \
         lies",
        error.message()
    );
    StorageError::config("--state", why)
}
