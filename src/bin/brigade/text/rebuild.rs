//! Output of `rebuild`.

use std::io::{self, Write};
use std::path::Path;

use bucket_brigade::{CacheFound, RebuildReport, VerifyReport};
use indicatif::HumanCount;

use super::{counted, print_note, verification_summary};
use crate::printable::Printable;

/// A cache that was made anew.
pub(crate) struct Rebuilt<'a> {
    pub(crate) destination: &'a str,
    pub(crate) cache: &'a Path,
    pub(crate) made: &'a RebuildReport,
}

/// A cache that was bound to another destination.
pub(crate) struct Rebound<'a> {
    pub(crate) destination: &'a str,
    pub(crate) cache: &'a Path,
    pub(crate) was: Option<&'a str>,
}

fn shown(path: &Path) -> String {
    Printable(&path.display().to_string()).to_string()
}

/// Prints what was found and where it is now, also with `--quiet`: somebody has to look at it, or remove it.
pub(crate) fn print_found(rebuilt: &Rebuilt<'_>) {
    if let CacheFound::Damaged(error) = &rebuilt.made.found {
        print_note(&format!("the cache was damaged: {error}"));
    }
    if let Some(kept_as) = &rebuilt.made.kept_as {
        print_note(&format!("the old file is kept as {}", kept_as.display()));
    }
}

/// Prints one line about the new cache.
pub(crate) fn print_rebuilt(rebuilt: &Rebuilt<'_>) -> io::Result<()> {
    let Rebuilt { destination, cache, made } = rebuilt;
    let from = match (&made.state, &made.adoption) {
        (Some(state), _) => {
            format!("from generation {} of the state in the bucket", HumanCount(state.generation))
        }
        (None, Some(found)) => {
            let kept = counted(found.without_file, "object");
            format!("{} to be sent by the next sync, {kept} without a file", counted(made.pending, "file"))
        }
        (None, None) => String::new(),
    };
    writeln!(
        anstream::stdout(),
        "{} of {}: {} published, {from}",
        shown(cache),
        Printable(destination),
        counted(made.published, "key"),
    )
}

/// Prints what a rebind found.
pub(crate) fn print_rebound(rebound: &Rebound<'_>, found: &VerifyReport) -> io::Result<()> {
    let was = rebound.was.map(|was| format!(", no longer to {}", Printable(was))).unwrap_or_default();
    let mut out = anstream::stdout().lock();
    writeln!(out, "{}", verification_summary(found))?;
    writeln!(out, "{} is bound to {}{was}", shown(rebound.cache), Printable(rebound.destination))?;
    if found.missing_count + found.different_count > 0 {
        writeln!(out, "the next sync publishes the files of missing and different objects again")?;
    }
    Ok(())
}
