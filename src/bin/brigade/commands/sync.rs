//! `sync` and `plan`: one rescan, or a dry run of it.

use std::path::Path;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Engine, ErrorKind, FirstRun, FollowSymlinks, LocalBackend, Operation, RescanConfig,
    RescanOrchestrator, RescanReport, Run, S3Backend, StopReason, StorageError, Verify,
};

use crate::args::state::StatePlace;
use crate::args::{FirstRunHow, FollowHow, SyncArgs, VerifyHow};
use crate::commands::events::EventWriter;
use crate::commands::run_tracker::RunTracker;
use crate::commands::shared_state;
use crate::destination::Destination;
use crate::printable::{Printable, PrintablePath};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{check_output, exit, json, print_json, text};

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

fn rescan_config(args: &SyncArgs) -> Result<RescanConfig, StorageError> {
    let work = &args.work;
    let mut config = RescanConfig::new()
        .batch_size(args.speed.batch_size)
        .delete(!work.no_delete)
        .allow_empty(work.allow_empty)
        .allow_new_root(work.allow_new_root)
        .first_run(match work.first_run {
            FirstRunHow::Adopt => FirstRun::Adopt,
            FirstRunHow::Overwrite => FirstRun::Overwrite,
            FirstRunHow::Refuse => FirstRun::Refuse,
            FirstRunHow::Mirror => FirstRun::Mirror,
        })
        .follow_symlinks(match work.follow_symlinks {
            None => FollowSymlinks::No,
            Some(FollowHow::Inside) => FollowSymlinks::Inside,
            Some(FollowHow::All) => FollowSymlinks::All,
        });
    config = work.max_delete.into_iter().fold(config, RescanConfig::max_delete);
    config = work.include.iter().fold(config, RescanConfig::include);
    config = work.exclude.iter().fold(config, RescanConfig::exclude);
    config = work.include_from.iter().try_fold(config, RescanConfig::include_from)?;
    config = work.exclude_from.iter().try_fold(config, RescanConfig::exclude_from)?;
    Ok(match &work.fallback_url {
        Some(url) => config.fallback(Arc::new(LocalBackend::new(url, &args.dir))),
        None => config,
    })
}

/// Refuses a tree without files, which is a mistake unless `--allow-empty` says otherwise.
fn refuse_empty(args: &SyncArgs, report: &RescanReport) -> Result<(), StorageError> {
    // A failure or a stop explains itself.
    let is_empty = report.scanned == 0 && report.failed_count == 0 && report.stop_reason.is_none();
    if !is_empty || args.work.allow_empty {
        return Ok(());
    }
    let work = &args.work;
    let patterns = [!work.include.is_empty(), !work.exclude.is_empty()];
    let files = [!work.include_from.is_empty(), !work.exclude_from.is_empty()];
    let filtered = [patterns, files].concat().contains(&true);
    let why = if filtered { "--include and --exclude leave no files" } else { "it has no files" };
    let why = format!("{why}; nothing was uploaded or deleted. If that is right, use --allow-empty");
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(&args.dir))
}

/// Publishes, and prints the result.
pub(crate) fn sync(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    let as_json = args.json_events || args.destination.output.json;
    let (stop, tracker) = (Stop::on_signals(display)?, RunTracker::new(as_json));
    let events = args.json_events.then(EventWriter::default);
    let (report, cache) = match run_sync(args, &stop, &tracker, events.as_ref(), display) {
        Ok(result) => result,
        Err(error) => {
            if as_json {
                print_json(&json::failed_sync(&error, &tracker.take_partial_run()))?;
            }
            // Stopped before there was a report, as while waiting for the lock.
            let signal = stop.exit_code().filter(|_| error.kind() == ErrorKind::Cancelled);
            let Some(signal) = signal else {
                return Err(error);
            };
            text::print_error(&error);
            return Ok(signal);
        }
    };
    let signal = stop.exit_code().filter(|_| report.stop_reason == Some(StopReason::Cancelled));
    let code = signal.unwrap_or_else(|| exit::code_of_report(&report));
    let printed = print_report(args, &report, &cache);
    let printed = printed.and(events.map_or(Ok(()), |events| check_output(events.take_result())));
    if let Err(error) = printed {
        text::print_error(&error);
        // Output that is lost makes a good run a failure, and hides no other code.
        return Ok(if code == exit::DONE { exit::FAILED } else { code });
    }
    Ok(code)
}

/// Checks DIR and the place of the cache, for a sync as for its plan, before anything is created.
fn check_places(args: &SyncArgs, destination: &Destination) -> Result<(), StorageError> {
    check_dir(&args.dir)?;
    destination.refuse_cache_inside(&args.dir)
}

/// Runs the rescan. Returns its report, and the path of the cache.
fn run_sync(
    args: &SyncArgs,
    stop: &Stop,
    tracker: &RunTracker,
    events: Option<&EventWriter>,
    display: &Display,
) -> Result<(RescanReport, String), StorageError> {
    args.state.check()?;
    let destination = Destination::from_args(&args.destination)?;
    let (engine, backend) = destination.connect(&args.speed, &args.work.header)?;
    let engine = tracker.engine.get_or_init(|| engine);
    check_places(args, &destination)?;
    let state = shared_state::settings(args, &destination, engine)?;
    let config = state.into_iter().fold(rescan_config(args)?, RescanConfig::state);
    let cache = destination.open_cache(args.lock.lock_wait, &stop.token)?;
    let site = RescanOrchestrator::with_config(engine, &args.dir, backend, cache, config)?;
    let what = format!("scanning {}", Printable(&args.dir.to_string_lossy()));
    let follower = Follower::start(display, &what, args.speed.part_threshold.as_u64());
    let verify = match args.verify {
        VerifyHow::Ack => Verify::Ack,
        VerifyHow::List => Verify::List,
        VerifyHow::Content => Verify::Content,
    };
    let observer = match events {
        Some(events) => events.clone().observer(follower.observer()),
        None => follower.observer(),
    };
    let run = Run::new()
        .cancel(stop.token.clone())
        .verify(verify)
        .force(args.work.force)
        .observer(tracker.observer(observer))
        .progress(follower.progress.clone());
    let run = args.deadline.into_iter().fold(run, Run::deadline);
    let report = site.rescan_with(&run)?;
    drop(follower);
    refuse_empty(args, &report)?;
    Ok((report, destination.cache_path.display().to_string()))
}

/// Prints the report: failures and notes on standard error, the rest on standard output.
fn print_report(args: &SyncArgs, report: &RescanReport, cache: &str) -> Result<(), StorageError> {
    text::print_failures(&report.failed, report.failed_count);
    if let Some(found) = &report.verified {
        text::print_failures(&found.failed, found.failed_count);
    }
    let as_json = args.destination.output.json || args.json_events;
    // Failures have lines of their own; any other reason is printed here, as neither form has a summary.
    let is_unexplained = report.failed_count == 0 && exit::code_of_report(report) != exit::DONE;
    if is_unexplained && (as_json || args.destination.output.quiet) {
        text::print_shortfall(report, &args.destination.dest);
    }
    if as_json {
        return print_json(&json::sync_report(report));
    }
    if args.destination.output.quiet {
        return Ok(());
    }
    // The list that -v prints has them, too.
    if args.destination.output.verbose == 0 {
        text::print_notes(report);
    }
    text::state::print_doubts(report);
    if let Some(found) = report.verified.as_ref() {
        check_output(text::print_verification(found, true))?;
    }
    if args.destination.output.verbose > 0 {
        check_output(text::print_actions(report))?;
    }
    check_output(text::print_summary(report, &args.destination.dest, cache))
}

/// Connects for a plan. Only that of a first run sends requests; without credentials it sends none either, and shows
/// every file as an upload.
fn connect_for_plan(
    args: &SyncArgs,
    destination: &Destination,
    cache: &CacheManager,
) -> Result<(Engine, Arc<S3Backend>, RescanConfig), StorageError> {
    let config = rescan_config(args)?;
    let looks = !matches!(args.work.first_run, FirstRunHow::Overwrite | FirstRunHow::Refuse);
    let offline = || destination.connect_offline(&args.speed, &args.work.header);
    if !looks || !cache.is_first_run()? {
        let (engine, backend) = offline()?;
        return Ok((engine, backend, config));
    }
    match destination.connect(&args.speed, &args.work.header) {
        Ok((engine, backend)) => Ok((engine, backend, config)),
        // Without its deletes the plan of a mirror would be a trap.
        Err(error)
            if destination.lacks_credentials() && matches!(args.work.first_run, FirstRunHow::Adopt) =>
        {
            text::print_note(&format!("what a first sync would adopt is not known: {error}"));
            let (engine, backend) = offline()?;
            Ok((engine, backend, config.first_run(FirstRun::Overwrite)))
        }
        Err(error) => Err(error),
    }
}

fn was_cancelled(result: &Result<RescanReport, StorageError>) -> bool {
    match result {
        Ok(report) => report.stop_reason == Some(StopReason::Cancelled),
        Err(error) => error.kind() == ErrorKind::Cancelled,
    }
}

/// Opens the cache and connects for a plan whose state lies in the bucket. The pull makes the cache a copy of that.
fn open_shared(args: &SyncArgs, destination: &Destination, stop: &Stop) -> Result<Parts, StorageError> {
    let (engine, backend) = destination.connect(&args.speed, &args.work.header)?;
    let state = shared_state::settings(args, destination, &engine)?;
    let config = state.into_iter().fold(rescan_config(args)?, RescanConfig::state);
    let cache = destination.open_cache(args.lock.lock_wait, &stop.token)?;
    Ok(Parts { engine, backend, config, cache })
}

/// Opens the cache for reading, and connects if the plan has to look at the store. Without a cache, the plan uses an
/// empty temporary one, and leaves no file behind.
fn open_local(args: &SyncArgs, destination: &Destination, scratch: &Path) -> Result<Parts, StorageError> {
    let cache = match destination.read_cache()? {
        Some(cache) => cache,
        None => CacheManager::open(scratch.join("cache"))?,
    };
    let (engine, backend, config) = connect_for_plan(args, destination, &cache)?;
    Ok(Parts { engine, backend, config, cache })
}

/// The parts of a plan.
struct Parts {
    engine: Engine,
    backend: Arc<S3Backend>,
    config: RescanConfig,
    cache: CacheManager,
}

fn run_plan(args: &SyncArgs, stop: &Stop, display: &Display) -> Result<RescanReport, StorageError> {
    args.state.check()?;
    let destination = Destination::from_args(&args.destination)?;
    check_places(args, &destination)?;
    let scratch = tempfile::tempdir().map_err(|error| {
        let what = "cannot create a temporary directory";
        StorageError::new(ErrorKind::Cache, Operation::Cache, what).with_source(error)
    })?;
    let Parts { engine, backend, config, cache } = match args.state.state {
        StatePlace::Local => open_local(args, &destination, scratch.path())?,
        StatePlace::Bucket | StatePlace::At(_) => open_shared(args, &destination, stop)?,
    };
    let site = RescanOrchestrator::with_config(&engine, &args.dir, backend, cache, config)?;
    let follower = Follower::start(display, "scanning", u64::MAX);
    let run = Run::new()
        .dry_run(true)
        .force(args.work.force)
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
    let result = run_plan(args, &stop, display);
    if let Some(signal) = stop.exit_code().filter(|_| was_cancelled(&result)) {
        return Ok(signal);
    }
    let report = result?;
    refuse_empty(args, &report)?;
    text::print_failures(&report.failed, report.failed_count);
    if args.destination.output.json {
        print_json(&json::plan_report(&report))?;
    } else if !args.destination.output.quiet {
        check_output(text::print_plan(&report))?;
    }
    Ok(exit::code_of_report(&report))
}
