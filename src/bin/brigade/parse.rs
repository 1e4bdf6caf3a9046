//! Parsing of the command line, with tips for flags of other tools.

use std::ffi::OsString;

use bucket_brigade::all_settings;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::args::settings::COMMANDS;

/// Flags that are no settings and that a command accepts, so that the flags of one command also work for another, but
/// that have no effect there. Its help does not show them.
const WITHOUT_EFFECT: [(&str, &[&str]); 3] = [
    ("plan", &["dry_run", "json_events"]),
    ("status", &["quiet", "verbose"]),
    ("url", &["quiet", "verbose"]),
];

/// Returns the definition of the command line. The help of each command hides flags without effect.
pub(crate) fn command() -> clap::Command {
    let hide = |command: clap::Command, flag: &str| command.mut_arg(flag, |arg| arg.hide(true));
    let all = WITHOUT_EFFECT.iter().fold(Cli::command(), |all, (name, flags)| {
        all.mut_subcommand(name, |command| flags.iter().fold(command, |command, flag| hide(command, flag)))
    });
    let all = COMMANDS.iter().fold(all, |all, name| {
        // `plan` has the arguments of `sync`.
        let of = if *name == "plan" { "sync" } else { name };
        let settings =
            all_settings().map(|(_, setting)| setting).filter(|setting| setting.is_accepted_by(of));
        let hidden = settings.filter(|setting| !setting.applies_to(name));
        all.mut_subcommand(name, |command| {
            hidden.fold(command, |command, setting| hide(command, setting.name()))
        })
    });
    // A pull has no state of its own that it could prefer.
    let place =
        "Where the record of what is published lies: bucket (under\nDEST; default), or s3://BUCKET/PREFIX";
    all.mut_subcommand("pull", |command| command.mut_arg("state", |arg| arg.help(place)))
}

/// Parses the command line of this process. Prints help or an error and exits if there is nothing to run.
pub(crate) fn parse() -> Cli {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn parse_from(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    // The value must follow `=`: clap takes a separate one for DIR.
    let is_separate_value =
        |pair: &[OsString]| pair[0] == "--follow-symlinks" && (pair[1] == "all" || pair[1] == "inside");
    if args.windows(2).any(is_separate_value) {
        let tip = "write --follow-symlinks=all with =, or --follow-symlinks alone";
        return Err(command().error(ErrorKind::InvalidValue, tip));
    }
    let matches = command().try_get_matches_from(&args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(with_tip)
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
fn with_tip(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let given = given.split(['=', ' ']).next().unwrap_or_default().to_owned();
    let tip = FOREIGN_FLAGS.iter().find(|(flag, _)| *flag == given).map(|(_, here)| *here);
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
        assert!(text.contains("write --follow-symlinks=all with ="), "{text}");
        assert!(said("--no-deletes").contains("similar argument exists: '--no-delete'"));
        assert!(said("--excludes").contains("similar argument exists: '--exclude'"));
    }
}
