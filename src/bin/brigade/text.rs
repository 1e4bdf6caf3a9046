//! What people read: the summary, the failures, the lists.

use std::io::{self, Write};

use bucket_brigade::{
    AbortedUploads, CacheSummary, DeletesRefused, ErrorKind, Kept, KeptReason, PendingFile, PendingKind,
    RescanOutcome, RescanReport, StopReason, StorageError, TooMany, UnfinishedUpload, VerifyReport,
};
use indicatif::{BinaryBytes, HumanCount};

use crate::exit;
use crate::printable::Printable;

/// Lists for people end here; `--json` has all.
const SHOWN: usize = 20;

const ERROR: anstyle::Style = anstyle::AnsiColor::Red.on_default().bold();
const GOOD: anstyle::Style = anstyle::AnsiColor::Green.on_default().bold();
const WARN: anstyle::Style = anstyle::AnsiColor::Yellow.on_default().bold();

/// A number of things in words.
fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", HumanCount(count), if count == 1 { "" } else { "s" })
}

/// An error and what to do about it.
pub(crate) fn error(error: &StorageError) {
    let advice = exit::advice(error).map(|advice| format!("; {advice}")).unwrap_or_default();
    let text = match error.kind() {
        // A list of places has lines of its own, which the library escapes.
        ErrorKind::Config => error.to_string().replace("\\n", "\n"),
        ErrorKind::RootEmpty => error.to_string().replace("; allow_empty permits", "; --allow-empty permits"),
        ErrorKind::FirstRunRefused => error.to_string().replace(
            "first_run is Refuse; use another prefix, or Overwrite",
            "--first-run is refuse; use another prefix, or --first-run overwrite",
        ),
        _ => error.to_string(),
    };
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {text}{advice}");
}

/// Something to know that is no error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{WARN}note:{WARN:#} {}", Printable(text));
}

/// Every failure of a run, and how many more there were than its list holds.
pub(crate) fn failures(errors: &[StorageError], count: u64) {
    errors.iter().for_each(error);
    let more = count.saturating_sub(errors.len() as u64);
    if more > 0 {
        let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {} more failed", HumanCount(more));
    }
}

/// What is still to be known of a run that did not do everything.
fn stopped(report: &RescanReport) -> Option<String> {
    let cause = report.outage.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
    if report.outcome == RescanOutcome::LocalOnly {
        return Some(format!("Cloud sync failed: the store is unavailable{cause}; the next sync catches up"));
    }
    let why = match report.stop_reason? {
        StopReason::Cancelled => "stopped; the next sync goes on",
        StopReason::Deadline => "the deadline passed; the next sync goes on",
        StopReason::DeletesRefused => return report.deletes_refused.map(|refused| refusal(&refused)),
        StopReason::Credentials => "the store refused the credentials; what was done before stands",
        StopReason::Unavailable => {
            return Some(format!("the store became unavailable{cause}; the next sync goes on"));
        }
        _ => "stopped early; the next sync goes on",
    };
    Some(why.to_owned())
}

/// Which rule the deletes break, what the rules are, and what to say where that is right.
fn refusal(refused: &DeletesRefused) -> String {
    let way_out = match refused.reason {
        TooMany::NoneInCommon if refused.files == 0 => "--allow-empty".to_owned(),
        _ => format!("--max-delete {}", refused.removed),
    };
    format!(
        "nothing was deleted: {refused}; if that is right, {way_out} (--max-delete N or P% is a hard cap; without it a \
         DIR with less than half as many files as are published, or with none of those, deletes nothing)"
    )
}

/// For those who get no summary: that not everything was done, and why.
pub(crate) fn shortfall(report: &RescanReport, destination: &str) {
    let outcome = report.outcome.as_str().replace('_', " ");
    let why = stopped(report).map(|why| format!(": {why}")).unwrap_or_default();
    let pending = HumanCount(report.pending);
    let _ = writeln!(
        anstream::stderr(),
        "{ERROR}error:{ERROR:#} {outcome} {}, {pending} pending{why}",
        Printable(destination)
    );
}

/// Four lines.
pub(crate) fn summary(report: &RescanReport, destination: &str, cache: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let outcome = report.outcome.as_str().replace('_', " ");
    let style = if exit::of_report(report) == exit::DONE { GOOD } else { WARN };
    let why = stopped(report).map(|why| format!(": {why}")).unwrap_or_default();
    let count = HumanCount;
    writeln!(out, "{style}{outcome}{style:#} {}{why}", Printable(destination))?;
    writeln!(
        out,
        "{}: {} uploaded ({}), {} unchanged, {} deleted",
        counted(report.scanned, "file"),
        count(report.uploaded_count),
        BinaryBytes(report.uploaded_bytes),
        count(report.unchanged),
        count(report.deleted_count),
    )?;
    writeln!(
        out,
        "{} failed, {} pending, {} kept, {} skipped; cache {}",
        count(report.failed_count),
        count(report.pending),
        count(report.kept_count),
        count(report.skipped_count),
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

/// What is kept although its file is gone, and what is on disk and cannot be published.
pub(crate) fn remarks(report: &RescanReport) {
    let mut err = anstream::stderr().lock();
    let kept = report.kept.iter().map(kept_line);
    let skipped = report.skipped.iter().map(|skip| format!("skipped {skip}"));
    for (lines, count) in [
        (kept.take(SHOWN).collect::<Vec<_>>(), report.kept_count),
        (skipped.take(SHOWN).collect(), report.skipped_count),
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
    let told = if kept.reason == KeptReason::OtherRoot { "; --allow-new-root deletes it" } else { "" };
    format!("kept {}: {}{told}", Printable(&kept.key), kept.reason.as_str())
}

/// What was done, a line a file.
pub(crate) fn done(report: &RescanReport) -> io::Result<()> {
    lists(&mut anstream::stdout().lock(), report)
}

fn lists(mut out: &mut impl Write, report: &RescanReport) -> io::Result<()> {
    for file in &report.uploaded {
        let sign = if file.kind == PendingKind::Modified { '~' } else { '+' };
        writeln!(out, "{sign} {} ({})", Printable(&file.key), BinaryBytes(file.bytes))?;
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
    let listed = report.uploaded.len() + report.deleted.len() + report.kept.len() + report.skipped.len();
    let all = report.uploaded_count + report.deleted_count + report.kept_count + report.skipped_count;
    more(&mut out, all.saturating_sub(listed as u64))
}

/// What would be done, a line a file.
pub(crate) fn plan(report: &RescanReport) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    lists(&mut out, report)?;
    writeln!(
        out,
        "{}: {} to upload ({}), {} unchanged, {} to delete, {} kept, {} failed",
        counted(report.scanned, "file"),
        HumanCount(report.uploaded_count),
        BinaryBytes(report.uploaded_bytes),
        HumanCount(report.unchanged),
        HumanCount(report.deleted_count),
        HumanCount(report.kept_count),
        HumanCount(report.failed_count),
    )?;
    if report.blocked && report.deleted_count > 0 {
        writeln!(out, "something could not be read: sync would delete nothing before that is mended")?;
    }
    match stopped(report) {
        Some(why) if report.stop_reason == Some(StopReason::DeletesRefused) => {
            writeln!(out, "sync would delete nothing: {}", why.trim_start_matches("nothing was deleted: "))
        }
        Some(why) => writeln!(out, "{why}"),
        None => Ok(()),
    }
}

/// What the cache holds.
pub(crate) fn status(
    destination: &str,
    cache: &str,
    held: Option<(&CacheSummary, &[PendingFile])>,
) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "destination {}\ncache       {}", Printable(destination), Printable(cache))?;
    let Some((summary, pending)) = held else {
        return writeln!(out, "nothing was published from here: there is no such cache");
    };
    let published = counted(summary.published, "object");
    writeln!(out, "published   {published}, {}", BinaryBytes(summary.published_bytes))?;
    let state =
        if summary.synced { "as the last sync found the tree" } else { "the last sync left something" };
    writeln!(out, "pending     {} ({state})", HumanCount(summary.pending))?;
    for file in pending.iter().take(SHOWN) {
        let sign = match file.kind {
            PendingKind::Added => '+',
            PendingKind::Removed => '-',
            PendingKind::Unsettled => '?',
            _ => '~',
        };
        writeln!(out, "  {sign} {}", Printable(&file.key))?;
    }
    more(&mut out, pending.len().saturating_sub(SHOWN) as u64)?;
    if summary.open_uploads > 0 {
        writeln!(out, "open        {} multipart uploads, see brigade uploads", summary.open_uploads)?;
    }
    Ok(())
}

fn more(out: &mut impl Write, count: u64) -> io::Result<()> {
    if count == 0 { Ok(()) } else { writeln!(out, "  and {} more", HumanCount(count)) }
}

/// What was found to differ, a line an object.
pub(crate) fn verified(found: &VerifyReport, is_recorded: bool) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for (what, keys) in [
        ("missing", &found.missing),
        ("different", &found.different),
        ("not believed", &found.unsettled),
        ("unknown", &found.unknown),
    ] {
        for key in keys {
            writeln!(out, "{what} {}", Printable(key))?;
        }
    }
    writeln!(out, "{}", verified_in_short(found))?;
    if is_recorded && found.missing_count + found.different_count + found.unsettled_count > 0 {
        writeln!(out, "what is missing or different is published again by the next sync")?;
    }
    if found.sizes_only > 0 {
        let count = HumanCount(found.sizes_only);
        writeln!(
            out,
            "only sizes were compared of {count} objects: the store lists no ETags; --content reads them"
        )?;
    }
    Ok(())
}

/// How many of each.
pub(crate) fn verified_in_short(found: &VerifyReport) -> String {
    let contents = match found.contents {
        0 => String::new(),
        read => format!(", {} read", HumanCount(read)),
    };
    let unsettled = match found.unsettled_count {
        0 => String::new(),
        count => {
            format!(", {} not believed since an earlier verification or a lost answer", HumanCount(count))
        }
    };
    let repaired = match found.repaired {
        0 => String::new(),
        count => format!("; {} were published again", HumanCount(count)),
    };
    let partly = if found.complete { "" } else { "; not everything was looked at" };
    format!(
        "{} match{contents}; {} missing, {} different, {} unknown, {} unreadable{unsettled}{repaired}{partly}",
        HumanCount(found.matching),
        HumanCount(found.missing_count),
        HumanCount(found.different_count),
        HumanCount(found.unknown_count),
        HumanCount(found.failed_count),
    )
}

fn upload_line(upload: &UnfinishedUpload) -> String {
    let id = upload.upload_id.as_deref().unwrap_or("(its id was lost)");
    let whose = if upload.certain { "" } else { "; perhaps ours, never aborted here" };
    let (sent, size) = (BinaryBytes(upload.sent), BinaryBytes(upload.size));
    format!("{} {} ({sent} of {size} sent){whose}", Printable(&upload.key), Printable(id))
}

/// The uploads that are open.
pub(crate) fn uploads(open: &[UnfinishedUpload]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if open.is_empty() {
        return writeln!(out, "no upload is open");
    }
    open.iter().try_for_each(|upload| writeln!(out, "{}", upload_line(upload)))
}

/// What became of the uploads that were open.
pub(crate) fn aborted(result: &AbortedUploads) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    for (what, uploads) in [("aborted", &result.aborted), ("left", &result.left)] {
        for upload in uploads {
            writeln!(out, "{what} {}", upload_line(upload))?;
        }
    }
    writeln!(
        out,
        "{} aborted, {} left, {} failed",
        result.aborted.len(),
        result.left.len(),
        result.failed.len()
    )
}
