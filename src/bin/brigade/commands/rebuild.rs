//! `rebuild`: makes a damaged or lost cache anew, or binds it to another endpoint.

use std::sync::Arc;

use bucket_brigade::{ErrorKind, Rebuild, RebuildReport, Run, StorageBackend, StorageError, VerifyReport};

use crate::args::RebuildArgs;
use crate::commands::each::Each;
use crate::commands::pull::without_state;
use crate::destination::{Destination, require_cache};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::text::rebuild::{Rebound, Rebuilt};
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

/// Makes the cache anew, or binds it, and prints what it then holds.
pub(crate) fn rebuild(args: &RebuildArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_query(error));
    Each::new("rebuild", &args.output, Some(&stop)).run(
        targets::of_rebuild(args),
        print_failed,
        |destination| {
            let ended = if args.rebind {
                rebind_one(args, &destination, &stop, display)
            } else {
                rebuild_one(args, &destination, &stop, display)
            };
            match ended {
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    text::print_error(&error);
                    Ok(stop.exit_code().unwrap_or(exit::FAILED))
                }
                // Every other error of this kind is about a single object.
                Err(error) if error.kind() == ErrorKind::NotFound => Err(without_state(&error)),
                other => other,
            }
        },
    )
}

fn rebuild_one(
    args: &RebuildArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let made = run_rebuild(args, destination, stop, display)?;
    let bound_to = destination.address.destination();
    let rebuilt = Rebuilt { destination: &bound_to, cache: &destination.cache_path, made: &made };
    text::print_failures(&made.failed, made.failed_count);
    text::rebuild::print_found(&rebuilt);
    if args.output.json {
        print_json_of(
            destination,
            &json::rebuild::rebuilt_object(rebuilt.destination, rebuilt.cache, rebuilt.made),
        )?;
    } else if !args.output.quiet {
        check_output(text::rebuild::print_rebuilt(&rebuilt))?;
    }
    Ok(if made.failed_count == 0 { exit::DONE } else { exit::FAILED })
}

fn run_rebuild(
    args: &RebuildArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<RebuildReport, StorageError> {
    let config = &destination.config;
    let root = config.root()?;
    if let Some(root) = &root {
        destination.refuse_cache_inside(root)?;
    }
    let (engine, backend) = destination.connect()?;
    let backend: Arc<dyn StorageBackend> = backend;
    let state = config.remote_state(&engine)?;
    let rescan = config.rescan_config(&engine)?;
    let follower = Follower::start(display, "comparing", u64::MAX);
    let rebuild = Rebuild::new(&destination.cache_path)
        .force(args.force)
        .wait(config.lock_wait()?)
        .run(run_of(&follower, stop));
    match (state, root) {
        (Some(state), _) => rebuild.from_state(&engine, &backend, &state),
        (None, Some(root)) => rebuild.from_tree(&engine, root, &backend, rescan),
        (None, None) => {
            let why = "missing: the objects are compared with its files, as in brigade rebuild DIR DEST; or, if the \
                       state lies in the bucket, use --state bucket";
            Err(StorageError::config("DIR", why))
        }
    }
}

fn run_of(follower: &Follower, stop: &Stop) -> Run {
    Run::new().cancel(stop.token.clone()).observer(follower.observer()).progress(follower.progress.clone())
}

fn rebind_one(
    args: &RebuildArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let (was, found) = run_rebind(destination, stop, display)?;
    let bound_to = destination.address.destination();
    let was = was.as_deref().filter(|was| *was != bound_to);
    let rebound = Rebound { destination: &bound_to, cache: &destination.cache_path, was };
    if args.output.json {
        print_json_of(
            destination,
            &json::rebuild::rebound_object(rebound.destination, rebound.cache, rebound.was, &found),
        )?;
    } else if !args.output.quiet {
        check_output(text::rebuild::print_rebound(&rebound, &found))?;
    }
    Ok(exit::DONE)
}

/// Binds the cache. Returns what it was bound to, and what the listing has shown.
fn run_rebind(
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<(Option<String>, VerifyReport), StorageError> {
    if !destination.has_cache()? {
        require_cache(None, destination)?;
    }
    let cache = destination.open_cache(&stop.token)?;
    let was = cache.summary()?.destination;
    let (engine, backend) = destination.connect()?;
    let backend: Arc<dyn StorageBackend> = backend;
    let follower = Follower::start(display, "listing", u64::MAX);
    let found = cache.rebind(&engine, &backend, &run_of(&follower, stop));
    drop(follower);
    found.map(|found| (was, found))
}
