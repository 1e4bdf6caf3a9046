//! `pull`: makes the cache and its catalog a copy of the state in the bucket, on a machine without a tree.

use std::sync::Arc;

use bucket_brigade::{CacheManager, Config, ErrorKind, Run, StateReport, StorageBackend, StorageError};

use crate::args::PullArgs;
use crate::commands::each::Each;
use crate::destination::Destination;
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

/// Pulls, and prints what the cache then holds.
pub(crate) fn pull(args: &PullArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let configs = targets::of_destinations(&args.destinations, &args.settings);
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("pull", &args.output, Some(&stop)).run(configs, print_failed, |mut destination| {
        choose_state(&mut destination.config)?;
        pull_one(args, &destination, &stop, display)
    })
}

/// Sets the default of a pull, which has no use for a local state.
fn choose_state(config: &mut Config) -> Result<(), StorageError> {
    // Its variable or file was read before.
    match config.get("state").as_deref() {
        Some("local") if config.is_set("state") => {
            Err(StorageError::config("--state", "use bucket or s3://BUCKET/PREFIX"))
        }
        Some("local") | None => config.set_from("state", "bucket", "default of pull"),
        Some(_) => Ok(()),
    }
}

fn pull_one(
    args: &PullArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let (state, cache) = match run_pull(destination, stop, display) {
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
    if args.output.json {
        let text::state::Pulled { destination: name, cache, published, state } = pulled;
        print_json_of(destination, &json::state::pulled_object(name, cache, published, state))?;
    } else if !args.output.quiet {
        check_output(text::state::print_pulled(&pulled))?;
    }
    Ok(exit::DONE)
}

fn run_pull(
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<(StateReport, CacheManager), StorageError> {
    let (engine, backend) = destination.connect()?;
    let state = destination.config.remote_state(&engine)?.unwrap_or_default();
    let cache = destination.open_cache(&stop.token)?;
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
pub(super) fn without_state(error: &StorageError) -> StorageError {
    let why = format!(
        "{}; publish there with brigade sync --state bucket, or say with --state s3://BUCKET/PREFIX where the state \
         lies",
        error.message()
    );
    StorageError::config("--state", why)
}
