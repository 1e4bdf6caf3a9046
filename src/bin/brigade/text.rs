//! Output for people: the summary, failures, notes and lists.

pub(crate) mod rebuild;
pub(crate) mod state;
pub(crate) mod uploads;

use std::io::{self, Write};

use bucket_brigade::{
    CacheSummary, DeletesRefused, ErrorKind, Kept, KeptReason, PendingFile, PendingKind, RescanOutcome,
    RescanReport, StateReport, StopReason, StorageError, TooMany, VerifyReport,
};
use indicatif::{BinaryBytes, HumanCount};

use crate::exit;
use crate::printable::Printable;

/// Number of lines that a list shows to people; `--json` has all of them.
const MAX_LINES: usize = 20;

const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const GOOD: anstyle::Style = anstyle::AnsiColor::Green.on_default().bold();
const WARN: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();

/// Formats a count with its noun: `1 file`, `2 files`.
fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// Prints an error and what to do about it.
pub(crate) fn print_error(error: &StorageError) {
    let advice = exit::advice(error).map(|advice| format!("; {advice}")).unwrap_or_default();
    let text = match error.kind() {
        // The list of places that were searched for credentials has a line each, whose ends the library escapes.
        ErrorKind::Config => error.to_string().replace("\\n", "\n"),
        // The library names its settings, a shell has flags.
        ErrorKind::RootEmpty => error.to_string().replace("; allow_empty permits", "; --allow-empty permits"),
        ErrorKind::FirstRunRefused => error.to_string().replace(
            "first_run is Refuse; use another prefix, or Adopt or Overwrite",
            "--first-run is refuse; use another prefix, or --first-run adopt or --first-run overwrite",
        ),
        _ => error.to_string(),
    };
    // Ignored: a closed standard error has no reader.
    let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {text}{advice}");
}

/// Prints a note.
pub(crate) fn print_note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{WARN}note:{WARN:#} {}", Printable(text));
}

/// Prints the name of the destination that comes next.
pub(crate) fn print_destination(name: &str) {
    let _ = writeln!(anstream::stderr(), "{GOOD}{}:{GOOD:#}", Printable(name));
}

/// Prints the failures of a run, and the number of those that its list does not hold.
pub(crate) fn print_failures(errors: &[StorageError], count: u64) {
    errors.iter().for_each(print_error);
    let more = count.saturating_sub(errors.len() as u64);
    if more > 0 {
        let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} and {}", counted(more, "more failure"));
    }
}

/// Explains why a run did not do everything, if it did not.
fn stop_message(report: &RescanReport) -> Option<String> {
    let cause = report.outage.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
    if report.outcome == RescanOutcome::LocalOnly {
        return Some(format!("Cloud sync failed: the store is unavailable{cause}; the next sync catches up"));
    }
    let why = match report.stop_reason? {
        StopReason::Cancelled => "stopped; the next sync continues",
        StopReason::Deadline => "the deadline passed; the next sync continues",
        StopReason::DeletesRefused => return report.deletes_refused.map(|refused| refusal_message(&refused)),
        StopReason::Credentials => {
            "the store refused the credentials; earlier uploads and deletes of this run are not affected"
        }
        StopReason::Unavailable => {
            return Some(format!("the store became unavailable{cause}; the next sync continues"));
        }
        StopReason::Claimed => return Some(state::refusal(report.state.as_ref())),
        StopReason::Superseded => {
            "another run took over; the next sync pulls what it published, and continues"
        }
        _ => "stopped early; the next sync continues",
    };
    Some(why.to_owned())
}

/// Explains which rule the deletes break, which flag allows them, and what the rules are.
fn refusal_message(refused: &DeletesRefused) -> String {
    let way_out = match refused.reason {
        // An empty tree needs a flag of its own, so that no cap can allow it by accident.
        TooMany::NoneInCommon if refused.files == 0 => "--allow-empty".to_owned(),
        _ => format!("--max-delete {}", refused.removed),
    };
    format!(
        "nothing was deleted: {refused}; if that is right, use {way_out} (--max-delete N or P% is a hard cap; without it, \
         nothing is deleted if DIR has fewer than half as many files as are published, or none of those)"
    )
}

/// Prints one line about a run that did not do everything, where no summary is printed.
pub(crate) fn print_shortfall(report: &RescanReport, destination: &str) {
    let outcome = report.outcome.as_str().replace('_', " ");
    let why = stop_message(report).map(|why| format!(": {why}")).unwrap_or_default();
    let pending = HumanCount(report.pending);
    let _ = writeln!(
        anstream::stderr(),
        "{ERROR}error:{ERROR:#} {outcome} {}, {pending} pending{why}",
        Printable(destination)
    );
}

/// Prints the summary of a sync, in four lines.
pub(crate) fn print_summary(report: &RescanReport, destination: &str, cache: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let outcome = report.outcome.as_str().replace('_', " ");
    let style = if exit::code_of_report(report) == exit::DONE { GOOD } else { WARN };
    let why = stop_message(report).map(|why| format!(": {why}")).unwrap_or_default();
    let count = HumanCount;
    let generation = state::generation_clause(report);
    writeln!(out, "{style}{outcome}{style:#} {}{generation}{why}", Printable(destination))?;
    writeln!(
        out,
        "{}: {} uploaded ({}), {}{}{} unchanged, {} deleted",
        counted(report.scanned, "file"),
        count(report.uploaded_count),
        BinaryBytes(report.uploaded_bytes),
        headers_clause(report, "new headers"),
        adopted_clause(report, "adopted"),
        count(report.unchanged),
        count(report.deleted_count),
    )?;
    writeln!(
        out,
        "{} failed, {} pending, {} kept, {} skipped{}; cache {}",
        count(report.failed_count),
        count(report.pending),
        count(report.kept_count),
        count(report.skipped_count),
        sizes_clause(report),
        Printable(cache),
    )?;
    writeln!(
        out,
        "{} on {}, {}, {:.1} s",
        counted(report.metrics.requests, "request"),
        counted(report.metrics.connections, "connection"),
        if report.metrics.retries == 1 {
            "1 retry".to_owned()
        } else {
            format!("{} retries", count(report.metrics.retries))
        },
        report.elapsed.as_secs_f64(),
    )
}

/// Formats the number of objects that get new headers by a copy, and of those that are sent again for them.
fn headers_clause(report: &RescanReport, what: &str) -> String {
    let resent = match report.headers_resent_count {
        0 => String::new(),
        count => format!(" ({} more are sent again for that)", HumanCount(count)),
    };
    match report.headers_updated_count {
        0 if resent.is_empty() => String::new(),
        count => format!("{} {what}{resent}, ", HumanCount(count)),
    }
}

/// Formats the number of files that are left out by their size.
fn sizes_clause(report: &RescanReport) -> String {
    match report.outside_sizes {
        0 => String::new(),
        count => format!(", {} left out by size", HumanCount(count)),
    }
}

/// Formats the number of objects that a first run takes over, if its prefix held any.
fn adopted_clause(report: &RescanReport, what: &str) -> String {
    let Some(found) = report.adoption.filter(|found| found.listed > 0) else { return String::new() };
    let heads = match found.head_requests {
        0 => String::new(),
        count => format!(" ({} compared by HEAD)", HumanCount(count)),
    };
    format!("{} {what}{heads}, ", HumanCount(report.adopted_count))
}

/// Prints notes about objects that are kept although their files are gone, and about paths that are skipped.
pub(crate) fn print_notes(report: &RescanReport) {
    let mut err = anstream::stderr().lock();
    let kept = report.kept.iter().map(kept_line);
    let skipped = report.skipped.iter().map(|skip| format!("skipped {skip}"));
    for (lines, count) in [
        (kept.take(MAX_LINES).collect::<Vec<_>>(), report.kept_count),
        (skipped.take(MAX_LINES).collect(), report.skipped_count),
    ] {
        for line in &lines {
            let _ = writeln!(err, "{WARN}note:{WARN:#} {line}");
        }
        let more = count.saturating_sub(lines.len() as u64);
        if more > 0 {
            let _ = writeln!(err, "{WARN}note:{WARN:#} and {} more", HumanCount(more));
        }
    }
}

fn kept_line(kept: &Kept) -> String {
    let advice = if kept.reason == KeptReason::OtherRoot { "; --allow-new-root deletes it" } else { "" };
    format!("kept {}: {}{advice}", Printable(&kept.key), kept.reason.as_str())
}

/// Prints what was done, a line a file.
pub(crate) fn print_actions(report: &RescanReport) -> io::Result<()> {
    write_lists(&mut anstream::stdout().lock(), report)
}

fn write_lists(mut out: &mut impl Write, report: &RescanReport) -> io::Result<()> {
    for file in &report.uploaded {
        let sign = if file.kind == PendingKind::Modified { '~' } else { '+' };
        writeln!(out, "{sign} {} ({})", Printable(&file.key), BinaryBytes(file.bytes))?;
    }
    for key in &report.headers_updated {
        writeln!(out, "h {}", Printable(key))?;
    }
    for key in &report.adopted {
        writeln!(out, "@ {}", Printable(key))?;
    }
    for key in &report.deleted {
        writeln!(out, "- {}", Printable(key))?;
    }
    for kept in &report.kept {
        writeln!(out, "= {}", kept_line(kept))?;
    }
    for skip in &report.skipped {
        writeln!(out, "! {skip}")?;
    }
    let done =
        report.uploaded.len() + report.headers_updated.len() + report.adopted.len() + report.deleted.len();
    let listed = done + report.kept.len() + report.skipped.len();
    let done =
        report.uploaded_count + report.headers_updated_count + report.adopted_count + report.deleted_count;
    let all = done + report.kept_count + report.skipped_count;
    write_more(&mut out, all.saturating_sub(listed as u64))
}

/// Prints what would be done, a line a file.
pub(crate) fn print_plan(report: &RescanReport) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    write_lists(&mut out, report)?;
    writeln!(
        out,
        "{}: {} to upload ({}), {}{}{} unchanged, {} to delete, {} kept{}, {} failed",
        counted(report.scanned, "file"),
        HumanCount(report.uploaded_count),
        BinaryBytes(report.uploaded_bytes),
        headers_clause(report, "to get new headers"),
        adopted_clause(report, "to adopt"),
        HumanCount(report.unchanged),
        HumanCount(report.deleted_count),
        HumanCount(report.kept_count),
        sizes_clause(report),
        HumanCount(report.failed_count),
    )?;
    state::write_plan(&mut out, report)?;
    if report.blocked && report.deleted_count > 0 {
        writeln!(out, "some files could not be read: sync would delete nothing until they can be read")?;
    }
    match stop_message(report) {
        Some(why) if report.stop_reason == Some(StopReason::DeletesRefused) => {
            writeln!(out, "sync would delete nothing: {}", why.trim_start_matches("nothing was deleted: "))
        }
        Some(_) if report.stop_reason == Some(StopReason::Unavailable) => {
            let cause = report.outage.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
            writeln!(out, "the store is unavailable{cause}: this is the plan by what the last pull found")
        }
        Some(why) => writeln!(out, "{why}"),
        None => Ok(()),
    }
}

/// Prints what the cache records.
pub(crate) fn print_status(
    destination: &str,
    cache: &str,
    held: Option<(&CacheSummary, &[PendingFile])>,
    shared: Option<&StateReport>,
) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "destination {}\ncache       {}", Printable(destination), Printable(cache))?;
    let Some((summary, pending)) = held else {
        return writeln!(out, "nothing was published from here: the cache does not exist");
    };
    let published = counted(summary.published, "object");
    writeln!(out, "published   {published}, {}", BinaryBytes(summary.published_bytes))?;
    let state = match summary.synced {
        true => " (last sync complete)",
        // Perhaps the cache was only pulled.
        false if shared.is_some() && summary.pending == 0 => "",
        false => " (last sync incomplete)",
    };
    writeln!(out, "pending     {}{state}", HumanCount(summary.pending))?;
    for file in pending.iter().take(MAX_LINES) {
        let sign = match file.kind {
            PendingKind::Added => '+',
            PendingKind::Removed => '-',
            PendingKind::Unsettled => '?',
            _ => '~',
        };
        writeln!(out, "  {sign} {}", Printable(&file.key))?;
    }
    write_more(&mut out, pending.len().saturating_sub(MAX_LINES) as u64)?;
    if summary.open_uploads > 0 {
        writeln!(
            out,
            "open        {}, see brigade uploads",
            counted(summary.open_uploads, "multipart upload")
        )?;
    }
    shared.map_or(Ok(()), |shared| state::write_status(&mut out, shared))
}

fn write_more(out: &mut impl Write, count: u64) -> io::Result<()> {
    if count == 0 { Ok(()) } else { writeln!(out, "  and {} more", HumanCount(count)) }
}

/// Prints what a verification found, a line for each object that differs.
pub(crate) fn print_verification(found: &VerifyReport, is_recorded: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for (what, keys) in [
        ("missing", &found.missing),
        ("different", &found.different),
        ("unsettled", &found.unsettled),
        ("unknown", &found.unknown),
    ] {
        for key in keys {
            writeln!(out, "{what} {}", Printable(key))?;
        }
    }
    writeln!(out, "{}", verification_summary(found))?;
    if is_recorded && found.missing_count + found.different_count + found.unsettled_count > 0 {
        writeln!(out, "missing and different objects are published again by the next sync")?;
    }
    if found.sizes_only > 0 {
        let objects = counted(found.sizes_only, "object");
        writeln!(
            out,
            "{objects} compared by size only: the store lists no ETags; --content compares contents"
        )?;
    }
    Ok(())
}

/// Formats the counts of a verification.
pub(crate) fn verification_summary(found: &VerifyReport) -> String {
    let contents = match found.contents {
        0 => String::new(),
        read => format!(", {} read", HumanCount(read)),
    };
    let unsettled = match found.unsettled_count {
        0 => String::new(),
        count => {
            format!(", {} unsettled by an earlier verification or a lost response", HumanCount(count))
        }
    };
    let repaired = match found.repaired {
        0 => String::new(),
        count => format!("; {} published again", HumanCount(count)),
    };
    let incomplete = if found.complete { "" } else { "; not every object was checked" };
    format!(
        "{} match{contents}; {} missing, {} different, {} unknown, {} unreadable{unsettled}{repaired}{incomplete}",
        HumanCount(found.matching),
        HumanCount(found.missing_count),
        HumanCount(found.different_count),
        HumanCount(found.unknown_count),
        HumanCount(found.failed_count),
    )
}
