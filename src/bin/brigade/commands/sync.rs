//! `sync` and `plan`: one rescan, or what it would do.

use std::path::Path;
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, ErrorKind, FirstRun, FollowSymlinks, LocalBackend, Operation, RescanConfig,
    RescanOrchestrator, RescanReport, Run, StopReason, StorageError, Verify,
};

use crate::args::{FirstRunHow, FollowHow, SyncArgs, VerifyHow};
use crate::commands::course::Course;
use crate::commands::events::Events;
use crate::destination::Destination;
use crate::printable::{Printable, PrintablePath};
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{exit, json, print_json, printed, text};

fn check_dir(dir: &Path) -> Result<(), StorageError> {
    let why = match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => {
            let why =
                format!("{} is a file; DIR is a directory, all of which is published", PrintablePath(dir));
            return Err(StorageError::config("DIR", why));
        }
        Err(error) => format!("{error}; nothing was deleted. Is it mounted?"),
    };
    Err(StorageError::new(ErrorKind::RootMissing, Operation::Rescan, why).with_path(dir))
}

fn config(args: &SyncArgs) -> Result<RescanConfig, StorageError> {
    let work = &args.work;
    let first_run = match work.first_run {
        FirstRunHow::Overwrite => FirstRun::Overwrite,
        FirstRunHow::Refuse => FirstRun::Refuse,
    };
    let mut config = RescanConfig::new()
        .batch_size(args.speed.batch_size)
        .delete(!work.no_delete)
        .allow_empty(work.allow_empty)
        .allow_new_root(work.allow_new_root)
        .first_run(first_run)
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

/// A tree without a file is a mistake as long as nobody says that it is none.
fn refuse_nothing(args: &SyncArgs, report: &RescanReport) -> Result<(), StorageError> {
    let nothing = report.scanned == 0 && report.failed_count == 0 && report.stop_reason.is_none();
    if !nothing || args.work.allow_empty {
        return Ok(());
    }
    let work = &args.work;
    let patterns = [!work.include.is_empty(), !work.exclude.is_empty()];
    let files = [!work.include_from.is_empty(), !work.exclude_from.is_empty()];
    let filtered = [patterns, files].concat().contains(&true);
    let why = if filtered { "--include and --exclude leave no file" } else { "it holds no file" };
    let why = format!("{why}: nothing was published and nothing deleted; --allow-empty permits it");
    Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(&args.dir))
}

/// Publishes, and tells how it went.
pub(crate) fn sync(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    let machine = args.json_events || args.destination.output.json;
    let (stop, course) = (Stop::on_signals(display)?, Course::new(machine));
    let events = args.json_events.then(Events::default);
    let (report, cache) = match published(args, &stop, &course, events.as_ref(), display) {
        Ok(published) => published,
        Err(error) => {
            if machine {
                print_json(&json::refusal(&error, &course.done()))?;
            }
            let signal = stop.code().filter(|_| error.kind() == ErrorKind::Cancelled);
            let Some(signal) = signal else {
                return Err(error);
            };
            text::error(&error);
            return Ok(signal);
        }
    };
    let signal = stop.code().filter(|_| report.stop_reason == Some(StopReason::Cancelled));
    let code = signal.unwrap_or_else(|| exit::of_report(&report));
    let told = tell(args, &report, &cache).and(events.map_or(Ok(()), |events| printed(events.written())));
    if let Err(error) = told {
        text::error(&error);
        return Ok(if code == exit::DONE { exit::FAILED } else { code });
    }
    Ok(code)
}

/// What a sync and its plan refuse alike, before anything is made for it.
fn refuse_places(args: &SyncArgs, destination: &Destination) -> Result<(), StorageError> {
    check_dir(&args.dir)?;
    destination.refuse_cache_inside(&args.dir)
}

fn published(
    args: &SyncArgs,
    stop: &Stop,
    course: &Course,
    events: Option<&Events>,
    display: &Display,
) -> Result<(RescanReport, String), StorageError> {
    let destination = Destination::find(&args.destination)?;
    let (engine, backend) = destination.connect(&args.speed, &args.work.header)?;
    let engine = course.engine.get_or_init(|| engine);
    refuse_places(args, &destination)?;
    let cache = destination.open_cache(args.lock.lock_wait, &stop.token)?;
    let site = RescanOrchestrator::with_config(engine, &args.dir, backend, cache, config(args)?)?;
    let what = format!("looking at {}", Printable(&args.dir.to_string_lossy()));
    let follower = Follower::start(display, &what, args.speed.part_threshold.as_u64());
    let verify = match args.verify {
        VerifyHow::Ack => Verify::Ack,
        VerifyHow::List => Verify::List,
        VerifyHow::Content => Verify::Content,
    };
    let observer = match events {
        Some(events) => events.clone().before(follower.observer()),
        None => follower.observer(),
    };
    let run = Run::new()
        .cancel(stop.token.clone())
        .verify(verify)
        .force(args.work.force)
        .observer(course.before(observer))
        .progress(follower.progress.clone());
    let run = args.deadline.into_iter().fold(run, Run::deadline);
    let report = site.rescan_with(&run)?;
    drop(follower);
    refuse_nothing(args, &report)?;
    Ok((report, destination.cache_path.display().to_string()))
}

fn tell(args: &SyncArgs, report: &RescanReport, cache: &str) -> Result<(), StorageError> {
    text::failures(&report.failed, report.failed_count);
    if let Some(found) = &report.verified {
        text::failures(&found.failed, found.failed_count);
    }
    let machine = args.destination.output.json || args.json_events;
    let unsaid = report.failed_count == 0 && exit::of_report(report) != exit::DONE;
    if unsaid && (machine || args.destination.output.quiet) {
        text::shortfall(report, &args.destination.dest);
    }
    if machine {
        return print_json(&json::synced(report));
    }
    if args.destination.output.quiet {
        return Ok(());
    }
    // The list has them, too.
    if args.destination.output.verbose == 0 {
        text::remarks(report);
    }
    if let Some(found) = report.verified.as_ref() {
        printed(text::verified(found, true))?;
    }
    if args.destination.output.verbose > 0 {
        printed(text::done(report))?;
    }
    printed(text::summary(report, &args.destination.dest, cache))
}

/// Tells what `sync` would do.
pub(crate) fn plan(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    if args.json_events {
        let why = "--json-events: a dry run has no events; --json prints it as one object";
        return Err(StorageError::new(ErrorKind::Config, Operation::Configure, why));
    }
    let destination = Destination::find(&args.destination)?;
    let (engine, backend) = destination.connect_for_nothing(&args.speed, &args.work.header)?;
    refuse_places(args, &destination)?;
    // Where nothing was published yet, nothing is left behind either.
    let scratch = tempfile::tempdir().map_err(|error| {
        let what = "no temporary folder can be made";
        StorageError::new(ErrorKind::Cache, Operation::Cache, what).with_source(error)
    })?;
    let cache = match destination.read_cache()? {
        Some(cache) => cache,
        None => CacheManager::open(scratch.path().join("cache"))?,
    };
    let site = RescanOrchestrator::with_config(&engine, &args.dir, backend, cache, config(args)?)?;
    let follower = Follower::start(display, "looking", u64::MAX);
    let report = site.rescan_with(&Run::new().dry_run(true).force(args.work.force))?;
    drop(follower);
    refuse_nothing(args, &report)?;
    text::failures(&report.failed, report.failed_count);
    if args.destination.output.json {
        print_json(&json::plan(&report))?;
    } else if !args.destination.output.quiet {
        printed(text::plan(&report))?;
    }
    Ok(exit::of_report(&report))
}
