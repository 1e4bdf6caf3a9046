//! Parsing of the command line, with tips for flags of other tools.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;

/// Flags that a command accepts, so that the flags of one command also work for another, but that have no effect
/// there. Its help does not show them.
const WITHOUT_EFFECT: [(&str, &[&str]); 5] = [
    (
        "plan",
        &[
            "dry_run",
            "fallback_url",
            "verify",
            "deadline",
            "header",
            "chunk_size",
            "json_events",
            "wait",
            "lease",
            "single_writer",
            "take_over",
            "on_conflict",
            "publisher",
        ],
    ),
    ("status", &["ca_file", "public_url", "virtual_host", "quiet", "verbose"]),
    ("url", &["ca_file", "quiet", "verbose"]),
    ("verify", &["public_url", "chunk_size", "part_size", "part_threshold"]),
    ("uploads", &["public_url"]),
];

/// Returns the definition of the command line. The help of each command hides flags without effect.
pub(crate) fn command() -> clap::Command {
    WITHOUT_EFFECT.iter().fold(Cli::command(), |all, (name, flags)| {
        all.mut_subcommand(name, |command| {
            flags.iter().fold(command, |command, flag| command.mut_arg(flag, |arg| arg.hide(true)))
        })
    })
}

/// Parses the command line of this process. Prints help or an error and exits if there is nothing to run.
pub(crate) fn parse() -> Cli {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn parse_from(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = command().try_get_matches_from(&args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| with_tip(error, &args))
}

/// Flags of other tools, and a tip that names the equivalent.
const FOREIGN_FLAGS: [(&str, &str); 9] = [
    ("--delete", "sync deletes what is gone from DIR without a flag; --no-delete keeps it"),
    ("--content-type", "use --header 'Content-Type: TYPE'"),
    ("--cache-control", "use --header 'Cache-Control: VALUE'"),
    ("--acl", "use --header 'x-amz-acl: VALUE'"),
    ("--storage-class", "use --header 'x-amz-storage-class: CLASS'"),
    ("--size-only", "no flag is needed: a file whose size or time changed is compared by its SHA-256"),
    ("--checksum", "no flag is needed: a file whose size or time changed is compared by its SHA-256"),
    ("--no-progress", "use --quiet"),
    ("--filter-from", "use --include-from and --exclude-from"),
];

/// Adds a tip to the error about an unknown flag that other tools have.
fn with_tip(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let given = given.split(['=', ' ']).next().unwrap_or_default().to_owned();
    // The value must follow `=`: clap takes a separate one for DIR.
    let is_separate_value = args
        .windows(2)
        .any(|pair| pair[0] == "--follow-symlinks" && (pair[1] == "all" || pair[1] == "inside"));
    let tip = match FOREIGN_FLAGS.iter().find(|(flag, _)| *flag == given) {
        Some((_, here)) => Some(*here),
        None if is_separate_value => Some("write --follow-symlinks=all with =, or --follow-symlinks alone"),
        None => None,
    };
    let Some(tip) = tip else { return without_opposite_suggestion(error) };
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::Usage);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.to_owned().into()]));
    error
}

/// Removes clap's suggestion if it means the opposite of the given flag.
fn without_opposite_suggestion(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.split(['=', ' ']).next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let (given, suggested) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg));
    if given.starts_with("--no-") == suggested.starts_with("--no-") || suggested.is_empty() {
        return error;
    }
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::Usage);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn a_suggestion_never_means_the_opposite() {
        let said = |flag: &str| {
            let args = ["brigade", "sync", ".", "s3://b", flag].map(OsString::from);
            parse_from(args).unwrap_err().to_string()
        };
        let text = said("--delete");
        assert!(
            text.contains("sync deletes what is gone from DIR without a flag") && !text.contains("similar"),
            "{text}"
        );
        for opposite in ["--no-force", "--no-allow-empty", "--no-quiet"] {
            let flag = opposite.replace("--no-", "--");
            assert!(
                !said(opposite).contains(&format!("{flag}'"))
                    && !said(opposite).contains(&format!("{flag} ")),
                "{opposite}"
            );
        }
        assert!(said("--content-type=text/html").contains("tip: use --header 'Content-Type: TYPE'"));
        let args = ["brigade", "sync", "--follow-symlinks", "all", ".", "s3://b"].map(OsString::from);
        let text = parse_from(args).unwrap_err().to_string();
        assert!(text.contains("tip: write --follow-symlinks=all with ="), "{text}");
        assert!(said("--no-deletes").contains("similar argument exists: '--no-delete'"));
        assert!(said("--excludes").contains("similar argument exists: '--exclude'"));
    }
}
