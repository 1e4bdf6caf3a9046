//! `sync` and `plan`: one rescan, or a dry run of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Engine, ErrorKind, FirstRun, Operation, RescanConfig, RescanOrchestrator, RescanReport,
    Run, S3Backend, StopReason, StorageError,
};

use crate::args::SyncArgs;
use crate::commands::each::Each;
use crate::commands::events::EventWriter;
use crate::commands::run_tracker::RunTracker;
use crate::destination::{Destination, refuse_inside};
use crate::printable::{Printable, PrintablePath};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{check_output, exit, json, print_json_named, print_json_of, targets, text};

fn check_dir(dir: &Path) -> Result<(), StorageError> {
    let why = match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            let why = format!("{} is a file; give the directory to publish", PrintablePath(dir));
            return Err(StorageError::config("DIR", why));
        }
        Err(error) => format!("{error}; nothing was deleted. Is it mounted?"),
    };
    Err(StorageError::new(ErrorKind::RootMissing, Operation::Rescan, why).with_path(dir))
}

/// Refuses a tree without files, which is a mistake unless `--allow-empty` says otherwise.
fn refuse_empty(destination: &Destination, report: &RescanReport) -> Result<(), StorageError> {
    // A failure or a stop explains itself.
    let is_empty = report.scanned == 0 && report.failed_count == 0 && report.stop_reason.is_none();
    let config = &destination.config;
    if !is_empty || config.get("allow_empty").as_deref() == Some("true") {
        return Ok(());
    }
    let filters = ["include", "exclude", "include_from", "exclude_from", "max_size", "min_size"];
    let is_filtered = report.outside_sizes > 0 || filters.iter().any(|name| config.is_set(name));
    let why = if is_filtered { "patterns, ignore files and sizes leave no files" } else { "it has no files" };
    let why = format!("{why}; nothing was uploaded or deleted. If that is right, use --allow-empty");
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(root_of(destination)?))
}

/// Publishes, and prints the results.
pub(crate) fn sync(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let each = Each { as_json: is_json(args), ..Each::new("sync", &args.output, Some(&stop)) };
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_sync_early(error));
    each.run(targets::of_sync(args), print_failed, |destination| sync_one(args, &destination, &stop, display))
}

/// Returns true if standard output has JSON alone.
fn is_json(args: &SyncArgs) -> bool {
    args.json_events || args.output.json
}

fn sync_one(
    args: &SyncArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let as_json = is_json(args);
    let tracker = RunTracker::new(as_json);
    let events = args.json_events.then(EventWriter::default);
    let (report, cache) = match run_sync(args, destination, stop, &tracker, events.as_ref(), display) {
        Ok(result) => result,
        Err(error) => {
            if as_json {
                print_json_of(destination, &json::failed_sync(&error, &tracker.take_partial_run()))?;
            }
            // Stopped before there was a report, as while waiting for the lock.
            let signal = stop.exit_code().filter(|_| error.kind() == ErrorKind::Cancelled);
            text::print_error(&error);
            return Ok(signal.unwrap_or_else(|| exit::code_of_error(&error)));
        }
    };
    let signal = stop.exit_code().filter(|_| report.stop_reason == Some(StopReason::Cancelled));
    let code = signal.unwrap_or_else(|| exit::code_of_report(&report));
    let printed = print_report(args, destination, &report, &cache);
    let printed = printed.and(events.map_or(Ok(()), |events| check_output(events.take_result())));
    if let Err(error) = printed {
        text::print_error(&error);
        // Output that is lost makes a good run a failure, and hides no other code.
        return Ok(if code == exit::DONE { exit::FAILED } else { code });
    }
    Ok(code)
}

/// Returns the directory to publish.
fn root_of(destination: &Destination) -> Result<PathBuf, StorageError> {
    destination
        .config
        .root()?
        .ok_or_else(|| StorageError::config("root", "missing: set it to the directory to publish"))
}

/// Checks DIR and the place of the cache, for a sync as for its plan, before anything is created. Returns DIR.
fn check_places(destination: &Destination, log_file: Option<&Path>) -> Result<PathBuf, StorageError> {
    let dir = root_of(destination)?;
    check_dir(&dir)?;
    destination.refuse_cache_inside(&dir)?;
    if let Some(log) = log_file {
        refuse_inside(&dir, log, "log-file")?;
    }
    Ok(dir)
}

/// Runs the rescan. Returns its report, and the path of the cache.
fn run_sync(
    args: &SyncArgs,
    destination: &Destination,
    stop: &Stop,
    tracker: &RunTracker,
    events: Option<&EventWriter>,
    display: &Display,
) -> Result<(RescanReport, String), StorageError> {
    let config = &destination.config;
    let (engine, backend) = destination.connect()?;
    let engine = tracker.engine.get_or_init(|| engine);
    let dir = check_places(destination, args.output.log_file.as_deref())?;
    let rescan = config.rescan_config(engine)?;
    let cache = destination.open_cache(&stop.token)?;
    let site = RescanOrchestrator::with_config(engine, &dir, backend, cache, rescan)?;
    let what = format!("scanning {}", Printable(&dir.to_string_lossy()));
    let follower = Follower::start(display, &what, config.part_threshold()?);
    let observer = match events {
        Some(events) => events.clone().observer(follower.observer()),
        None => follower.observer(),
    };
    let run = config
        .run()?
        .cancel(stop.token.clone())
        .observer(tracker.observer(observer))
        .progress(follower.progress.clone());
    let report = site.rescan_with(&run)?;
    drop(follower);
    refuse_empty(destination, &report)?;
    Ok((report, destination.cache_path.display().to_string()))
}

/// Prints the report: failures and notes on standard error, the rest on standard output.
fn print_report(
    args: &SyncArgs,
    destination: &Destination,
    report: &RescanReport,
    cache: &str,
) -> Result<(), StorageError> {
    text::print_failures(&report.failed, report.failed_count);
    if let Some(found) = &report.verified {
        text::print_failures(&found.failed, found.failed_count);
    }
    let as_json = is_json(args);
    // Failures have lines of their own; any other reason is printed here, as neither form has a summary.
    let is_unexplained = report.failed_count == 0 && exit::code_of_report(report) != exit::DONE;
    if is_unexplained && (as_json || args.output.quiet) {
        text::print_shortfall(report, &destination.label);
    }
    if as_json {
        return print_json_of(destination, &json::sync_report(report));
    }
    if args.output.quiet {
        return Ok(());
    }
    // The list that -v prints has them, too.
    if args.output.verbose == 0 {
        text::print_notes(report);
    }
    text::state::print_doubts(report);
    if let Some(found) = report.verified.as_ref() {
        check_output(text::print_verification(found, true))?;
    }
    if args.output.verbose > 0 {
        check_output(text::print_actions(report))?;
    }
    check_output(text::print_summary(report, &destination.label, cache))
}

/// Connects for a plan. Only that of a first run sends requests; without credentials it sends none either, and shows
/// every file as an upload.
fn connect_for_plan(
    destination: &Destination,
    cache: &CacheManager,
) -> Result<(Engine, Arc<S3Backend>, Option<FirstRun>), StorageError> {
    let first_run = destination.config.get("first_run").unwrap_or_default();
    let looks = !matches!(first_run.as_str(), "overwrite" | "refuse");
    let offline = || destination.connect_offline();
    if !looks || !cache.is_first_run()? {
        let (engine, backend) = offline()?;
        return Ok((engine, backend, None));
    }
    match destination.connect() {
        Ok((engine, backend)) => Ok((engine, backend, None)),
        // Without its deletes the plan of a mirror would be a trap.
        Err(error) if is_without_credentials(&error) && first_run == "adopt" => {
            // The list of places that were searched is for a sync.
            let why = error.message().lines().next().unwrap_or_default().trim_end_matches(" Looked at:");
            text::print_note(&format!("what a first sync would adopt is not known: {why}"));
            let (engine, backend) = offline()?;
            Ok((engine, backend, Some(FirstRun::Overwrite)))
        }
        Err(error) => Err(error),
    }
}

/// Returns true if no place has credentials. One that is configured and fails is an error here as for a sync.
fn is_without_credentials(error: &StorageError) -> bool {
    error.kind() == ErrorKind::Config && error.message().starts_with("credentials: none were found")
}

fn was_cancelled(result: &Result<RescanReport, StorageError>) -> bool {
    match result {
        Ok(report) => report.stop_reason == Some(StopReason::Cancelled),
        Err(error) => error.kind() == ErrorKind::Cancelled,
    }
}

/// Opens the cache and connects for a plan whose state lies in the bucket. The pull makes the cache a copy of that.
fn open_shared(destination: &Destination, stop: &Stop) -> Result<Parts, StorageError> {
    let (engine, backend) = destination.connect()?;
    let config = destination.config.rescan_config(&engine)?;
    let cache = destination.open_cache(&stop.token)?;
    Ok(Parts { engine, backend, config, cache })
}

/// Opens the cache for reading, and connects if the plan has to look at the store. Without a cache, the plan uses an
/// empty temporary one, and leaves no file behind.
fn open_local(destination: &Destination, scratch: &Path) -> Result<Parts, StorageError> {
    let cache = match destination.read_cache()? {
        Some(cache) => cache,
        None => CacheManager::open(scratch.join("cache"))?,
    };
    let (engine, backend, first_run) = connect_for_plan(destination, &cache)?;
    let config = destination.config.rescan_config(&engine)?;
    let config = first_run.into_iter().fold(config, RescanConfig::first_run);
    Ok(Parts { engine, backend, config, cache })
}

/// The parts of a plan.
struct Parts {
    engine: Engine,
    backend: Arc<S3Backend>,
    config: RescanConfig,
    cache: CacheManager,
}

fn run_plan(
    args: &SyncArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<RescanReport, StorageError> {
    let dir = check_places(destination, args.output.log_file.as_deref())?;
    let scratch = tempfile::tempdir().map_err(|error| {
        let what = "cannot create a temporary directory";
        StorageError::new(ErrorKind::Cache, Operation::Cache, what).with_source(error)
    })?;
    let is_shared = destination.config.get("state").is_some_and(|place| place != "local");
    let Parts { engine, backend, config, cache } =
        if is_shared { open_shared(destination, stop)? } else { open_local(destination, scratch.path())? };
    let site = RescanOrchestrator::with_config(&engine, &dir, backend, cache, config)?;
    let follower = Follower::start(display, "scanning", u64::MAX);
    let run = Run::new()
        .dry_run(true)
        .force(destination.config.get("force").as_deref() == Some("true"))
        .cancel(stop.token.clone())
        .observer(follower.observer())
        .progress(follower.progress.clone());
    site.rescan_with(&run)
}

/// Prints what `sync` would do.
pub(crate) fn plan(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    if args.json_events {
        let why = "--json-events: a dry run has no events; use --json";
        return Err(StorageError::new(ErrorKind::Config, Operation::Configure, why));
    }
    let stop = Stop::on_signals(display)?;
    let each = Each::new("plan", &args.output, Some(&stop));
    let print_failed =
        |name: Option<&str>, error: &StorageError| print_json_named(name, &json::failed_plan(error));
    each.run(targets::of_sync(args), print_failed, |destination| plan_one(args, &destination, &stop, display))
}

fn plan_one(
    args: &SyncArgs,
    destination: &Destination,
    stop: &Stop,
    display: &Display,
) -> Result<u8, StorageError> {
    let result = run_plan(args, destination, stop, display);
    if let Some(signal) = stop.exit_code().filter(|_| was_cancelled(&result)) {
        return Ok(signal);
    }
    let report = result?;
    refuse_empty(destination, &report)?;
    text::print_failures(&report.failed, report.failed_count);
    if args.output.json {
        print_json_of(destination, &json::plan_report(&report))?;
    } else if !args.output.quiet {
        check_output(text::print_plan(&report))?;
    }
    Ok(exit::code_of_report(&report))
}
