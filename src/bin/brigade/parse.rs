//! The command line is read here, and what is wrong with it is told in the words of those who wrote it.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;

/// Flags that change nothing about a command: it takes them, as the flags of one command serve another, and its help
/// has those that matter there.
const WITHOUT_EFFECT: [(&str, &[&str]); 5] = [
    (
        "plan",
        &[
            "dry_run",
            "fallback_url",
            "verify",
            "deadline",
            "header",
            "batch_size",
            "chunk_size",
            "part_size",
            "part_threshold",
            "retries",
            "lock_wait",
            "json_events",
            "ca_file",
            "first_run",
        ],
    ),
    ("status", &["ca_file", "public_url", "virtual_host", "quiet", "verbose"]),
    ("url", &["ca_file", "quiet", "verbose"]),
    ("verify", &["public_url", "chunk_size", "part_size", "part_threshold"]),
    ("uploads", &["public_url"]),
];

/// The command line, its help cut to what matters to each command.
pub(crate) fn command() -> clap::Command {
    WITHOUT_EFFECT.iter().fold(Cli::command(), |all, (name, flags)| {
        all.mut_subcommand(name, |command| {
            flags.iter().fold(command, |command, flag| command.mut_arg(flag, |arg| arg.hide(true)))
        })
    })
}

/// Reads the command line of this process, or ends it: with help, or with what is wrong.
pub(crate) fn parse() -> Cli {
    parsed(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn parsed(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let matches = command().try_get_matches_from(&args);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| advised(error, &args))
}

/// Flags of other tools, and what does the same here.
const ELSEWHERE: [(&str, &str); 9] = [
    ("--delete", "what is gone from DIR is deleted without a flag; --no-delete leaves it"),
    ("--content-type", "--header 'Content-Type: TYPE'"),
    ("--cache-control", "--header 'Cache-Control: VALUE'"),
    ("--acl", "--header 'x-amz-acl: VALUE'"),
    ("--storage-class", "--header 'x-amz-storage-class: CLASS'"),
    ("--size-only", "no flag is needed: files are compared by content where size or time differ"),
    ("--checksum", "no flag is needed: files are compared by content where size or time differ"),
    ("--no-progress", "--quiet"),
    ("--filter-from", "--include-from and --exclude-from"),
];

/// Says what people mean who write something that is no flag here.
fn advised(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let given = given.split(['=', ' ']).next().unwrap_or_default().to_owned();
    let follows = args
        .windows(2)
        .any(|pair| pair[0] == "--follow-symlinks" && (pair[1] == "all" || pair[1] == "inside"));
    let tip = match ELSEWHERE.iter().find(|(flag, _)| *flag == given) {
        Some((_, here)) => Some(*here),
        None if follows => Some("write --follow-symlinks=all, with =, or nothing behind it"),
        None => None,
    };
    let Some(tip) = tip else { return without_opposites(error) };
    error.remove(ContextKind::SuggestedArg);
    error.remove(ContextKind::Usage);
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.to_owned().into()]));
    error
}

/// Takes a suggestion away that means the opposite of what was written.
fn without_opposites(mut error: clap::Error) -> clap::Error {
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
            parsed(args).unwrap_err().to_string()
        };
        let text = said("--delete");
        assert!(text.contains("is deleted without a flag") && !text.contains("similar"), "{text}");
        for opposite in ["--no-force", "--no-allow-empty", "--no-quiet"] {
            let flag = opposite.replace("--no-", "--");
            assert!(
                !said(opposite).contains(&format!("{flag}'"))
                    && !said(opposite).contains(&format!("{flag} ")),
                "{opposite}"
            );
        }
        assert!(said("--content-type=text/html").contains("tip: --header 'Content-Type: TYPE'"));
        let args = ["brigade", "sync", "--follow-symlinks", "all", ".", "s3://b"].map(OsString::from);
        let text = parsed(args).unwrap_err().to_string();
        assert!(text.contains("tip: write --follow-symlinks=all"), "{text}");
        assert!(said("--no-deletes").contains("similar argument exists: '--no-delete'"));
        assert!(said("--excludes").contains("similar argument exists: '--exclude'"));
    }
}
