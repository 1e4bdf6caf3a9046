//! Output about the state in the bucket.

use std::io::{self, Write};
use std::path::Path;

use bucket_brigade::{Catalog, PublishedBy, RescanOutcome, RescanReport, StateReport};
use indicatif::HumanCount;

use super::{counted, print_note};
use crate::printable::Printable;

/// The result of a pull.
pub(crate) struct Pulled<'a> {
    pub(crate) destination: &'a str,
    pub(crate) cache: &'a Path,
    pub(crate) published: u64,
    pub(crate) state: &'a StateReport,
}

fn publisher(by: &PublishedBy) -> String {
    Printable(&by.to_string()).to_string()
}

fn publishing(by: &PublishedBy) -> String {
    format!("{} is publishing since {}", Printable(&by.who), httpdate::fmt_http_date(by.since))
}

/// Explains why a run did not publish although nothing failed: a newer build, or another publisher.
pub(super) fn refusal(state: Option<&StateReport>) -> String {
    let state = state.cloned().unwrap_or_default();
    if let Some(newer) = state.newer_order {
        return format!(
            "order {newer} was published, so an older one is refused; to go back, use --reset-order"
        );
    }
    match &state.claimed_by {
        Some(by) => format!(
            "{}; wait for it with --wait TIME, or, if it is certainly gone, use --take-over",
            publishing(by)
        ),
        None => "other publishers are changing the state; sync again".to_owned(),
    }
}

/// Formats the generation that a run left, for its summary.
pub(super) fn generation_clause(report: &RescanReport) -> String {
    let is_whole = matches!(report.outcome, RescanOutcome::Published | RescanOutcome::Unchanged);
    match &report.state {
        Some(state) if is_whole && !report.dry_run => {
            format!(" (generation {})", HumanCount(state.generation))
        }
        _ => String::new(),
    }
}

/// Prints a note about interrupted runs whose requests may still take effect.
pub(crate) fn print_doubts(report: &RescanReport) {
    let in_doubt = report.state.as_ref().map_or(0, |state| state.in_doubt);
    if in_doubt > 0 {
        let runs = counted(in_doubt, "interrupted run");
        print_note(&format!(
            "{runs} may still change objects; a sync in half an hour or later looks at them"
        ));
    }
}

/// Prints what a plan found of the state.
pub(super) fn write_plan(out: &mut impl Write, report: &RescanReport) -> io::Result<()> {
    let Some(state) = &report.state else { return Ok(()) };
    if state.was_lost {
        writeln!(out, "the state in the bucket is lost or damaged: sync would make it anew")?;
    } else {
        writeln!(out, "{}", overview(state))?;
    }
    match &state.claimed_by {
        Some(by) => {
            writeln!(out, "{}: sync would wait for it (--wait TIME), or end with exit code 6", publishing(by))
        }
        None => Ok(()),
    }
}

/// Prints what the cache knows of the state.
pub(super) fn write_status(out: &mut impl Write, state: &StateReport) -> io::Result<()> {
    writeln!(out, "state       {}, as of the last pull", overview(state))?;
    if let Some(by) = &state.published_by {
        writeln!(out, "publisher   {}", publisher(by))?;
    }
    if let Some(by) = &state.claimed_by {
        writeln!(out, "claim       {}", publisher(by))?;
    }
    if state.in_doubt > 0 {
        writeln!(out, "in doubt    {}", counted(state.in_doubt, "interrupted run"))?;
    }
    Ok(())
}

/// Formats the generation and the order.
fn overview(state: &StateReport) -> String {
    let order = state.order.map(|order| format!(", order {order}")).unwrap_or_default();
    format!("generation {}{order}", HumanCount(state.generation))
}

/// Prints one line about a pull.
pub(crate) fn print_pulled(pulled: &Pulled<'_>) -> io::Result<()> {
    let Pulled { destination, cache, published, state } = pulled;
    let catalog = Catalog::path_for(cache).display().to_string();
    writeln!(
        anstream::stdout(),
        "{} of {}: {}, {} changed; catalog {}",
        overview(state),
        Printable(destination),
        counted(*published, "key"),
        HumanCount(state.pulled),
        Printable(&catalog),
    )
}
