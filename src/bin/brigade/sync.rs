//! `sync` and `plan`: one rescan, or what it would do.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use bucket_brigade::{
    ErrorKind, Event, FirstRun, LocalBackend, Observer, Operation, RescanConfig, RescanOrchestrator,
    RescanReport, Run, StopReason, StorageError, Verify,
};

use crate::args::{FirstRunHow, PlaceArgs, PlanArgs, SpeedArgs, SyncArgs, VerifyHow, WorkArgs};
use crate::place::Place;
use crate::progress::{Display, Follower};
use crate::stop::Stop;
use crate::{exit, json, print_json, printed, text};

/// What both commands need to look at a tree.
struct Asked<'a> {
    dir: &'a Path,
    work: &'a WorkArgs,
    speed: &'a SpeedArgs,
    place: &'a PlaceArgs,
}

impl Asked<'_> {
    fn site(&self) -> Result<(RescanOrchestrator, String), StorageError> {
        let place = Place::find(self.place)?;
        let (engine, backend) = place.connect(self.speed, &self.work.header)?;
        // What is wrong with DIR is told before a cache is made for it.
        self.check_dir()?;
        let cache = place.open_cache()?;
        let site = RescanOrchestrator::with_config(&engine, self.dir, backend, cache, self.config())?;
        Ok((site, place.cache_path.display().to_string()))
    }

    fn check_dir(&self) -> Result<(), StorageError> {
        let looked = std::fs::metadata(self.dir);
        let why = match looked {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => "it is a file; DIR is a directory, all of which is published".to_owned(),
            Err(error) => format!("{error}; nothing was deleted. Is it mounted?"),
        };
        Err(StorageError::new(ErrorKind::RootMissing, Operation::Rescan, why).with_path(self.dir))
    }

    fn config(&self) -> RescanConfig {
        let work = self.work;
        let first_run = match work.first_run {
            FirstRunHow::Overwrite => FirstRun::Overwrite,
            FirstRunHow::Refuse => FirstRun::Refuse,
        };
        let mut config = RescanConfig::new()
            .batch_size(self.speed.batch_size)
            .max_delete(work.max_delete)
            .delete(!work.no_delete)
            .allow_empty(work.allow_empty)
            .allow_new_root(work.allow_new_root)
            .first_run(first_run);
        config = work.include.iter().fold(config, RescanConfig::include);
        config = work.exclude.iter().fold(config, RescanConfig::exclude);
        match &work.fallback_url {
            Some(url) => config.fallback(Arc::new(LocalBackend::new(url, self.dir))),
            None => config,
        }
    }

    /// A tree without a file is a mistake as long as nobody says that it is none.
    fn refuse_nothing(&self, report: &RescanReport) -> Result<(), StorageError> {
        let nothing = report.scanned == 0 && report.failed_count == 0 && report.stop_reason.is_none();
        if !nothing || self.work.allow_empty {
            return Ok(());
        }
        let filtered = !self.work.include.is_empty() || !self.work.exclude.is_empty();
        let why = if filtered { "--include and --exclude leave no file" } else { "it holds no file" };
        let why = format!("{why}: nothing was published and nothing deleted; --allow-empty permits it");
        Err(StorageError::new(ErrorKind::RootEmpty, Operation::Rescan, why).with_path(self.dir))
    }
}

/// Publishes, and tells how it went.
pub(crate) fn sync(args: &SyncArgs, display: &Display) -> Result<u8, StorageError> {
    let stop = Stop::on_signals(display)?;
    let asked = Asked { dir: &args.dir, work: &args.work, speed: &args.speed, place: &args.place };
    let (report, cache) = published(args, &asked, &stop, display).inspect_err(|error| {
        if args.json_events {
            // The error itself goes to standard error, whatever becomes of this.
            let _ = print_json(&json::refusal(error));
        }
    })?;
    tell(args, &report, &cache)?;
    let signal = stop.code().filter(|_| report.stop_reason == Some(StopReason::Cancelled));
    Ok(signal.unwrap_or_else(|| exit::of_report(&report)))
}

fn published(
    args: &SyncArgs,
    asked: &Asked<'_>,
    stop: &Stop,
    display: &Display,
) -> Result<(RescanReport, String), StorageError> {
    let (site, cache) = asked.site()?;
    let what = format!("looking at {}", text::printable(&args.dir.to_string_lossy()));
    let follower = Follower::start(display, &what, args.speed.part_threshold.as_u64());
    let verify = match args.verify {
        VerifyHow::Ack => Verify::Ack,
        VerifyHow::List => Verify::List,
        VerifyHow::Content => Verify::Content,
    };
    let observer = if args.json_events { events(follower.observer()) } else { follower.observer() };
    let run = Run::new()
        .cancel(stop.token.clone())
        .verify(verify)
        .observer(observer)
        .progress(follower.progress.clone());
    let run = args.deadline.into_iter().fold(run, Run::deadline);
    let report = site.rescan_with(&run)?;
    drop(follower);
    asked.refuse_nothing(&report)?;
    Ok((report, cache))
}

/// Every event as a line, on the thread where it happens: a slow reader slows the run, and loses nothing.
fn events(also: Arc<dyn Observer>) -> Arc<dyn Observer> {
    Arc::new(move |event: &Event| {
        also.event(event);
        // A reader that has gone misses the rest; the run goes on.
        let _ = writeln!(io::stdout().lock(), "{}", json::event(event));
    })
}

fn tell(args: &SyncArgs, report: &RescanReport, cache: &str) -> Result<(), StorageError> {
    text::failures(&report.failed, report.failed_count);
    if let Some(found) = &report.verified {
        text::failures(&found.failed, found.failed_count);
    }
    let machine = args.place.output.json || args.json_events;
    let unsaid = report.failed_count == 0 && exit::of_report(report) != exit::DONE;
    if unsaid && (machine || args.place.output.quiet) {
        text::shortfall(report, &args.place.dest);
    }
    if machine {
        return print_json(&json::report(report));
    }
    if args.place.output.quiet {
        return Ok(());
    }
    text::remarks(report);
    if let Some(found) = report.verified.as_ref() {
        printed(text::verified(found))?;
    }
    printed(text::summary(report, &args.place.dest, cache))
}

/// Tells what `sync` would do.
pub(crate) fn plan(args: &PlanArgs, display: &Display) -> Result<u8, StorageError> {
    let asked = Asked { dir: &args.dir, work: &args.work, speed: &SpeedArgs::default(), place: &args.place };
    let (site, _) = asked.site()?;
    let follower = Follower::start(display, "looking", u64::MAX);
    let report = site.rescan_with(&Run::new().dry_run(true))?;
    drop(follower);
    asked.refuse_nothing(&report)?;
    text::failures(&report.failed, report.failed_count);
    if args.place.output.json {
        print_json(&json::plan(&report))?;
    } else if !args.place.output.quiet {
        printed(text::plan(&report))?;
    }
    Ok(exit::of_report(&report))
}
