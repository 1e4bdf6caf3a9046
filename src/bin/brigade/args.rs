//! The commands and their arguments. The flags of settings come from the library's definitions.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "these are the texts of --help")]

pub(crate) mod settings;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;

use self::settings::SettingArgs;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
DIR is the directory to publish. DEST is s3://BUCKET or s3://BUCKET/PREFIX. NAME is a destination
in a configuration file: --config FILE, or brigade.toml in the current folder.

Exit codes, the first that applies:
  2    usage or configuration: a flag, the bucket, the region, the certificate, the clock
  5    the store refused the credentials
  4    refused for safety: too many deletes, DIR missing or empty, a cache that is in use,
       damaged, not writable, or of another destination, or a damaged state in the bucket
  6    another publisher holds the destination, or a newer build was published
  3    the store was unavailable: the work is recorded, and the next run does it
  1    some files failed and stay pending, or verify found a difference
  0    published, or nothing to do
  130  stopped by SIGINT; 143 by SIGTERM";

const EXAMPLES: &str = "\
Examples:
  brigade sync ./public s3://site
  brigade sync dist s3://site/app --exclude '*.map' --header 'Cache-Control: no-cache'
  brigade sync . s3://backup --endpoint-url https://minio.example.com:9000 --json
  brigade sync --config brigade.toml live staging";

const SYNC_USAGE: &str = "brigade sync [OPTIONS] DIR DEST\n       brigade sync [OPTIONS] [NAME]...";
const PLAN_USAGE: &str = "brigade plan [OPTIONS] DIR DEST\n       brigade plan [OPTIONS] [NAME]...";

const REBUILD_USAGE: &str = "brigade rebuild [OPTIONS] DIR DEST\n       brigade rebuild [OPTIONS] DEST --state bucket\n       brigade rebuild [OPTIONS] --rebind DEST\n       brigade rebuild [OPTIONS] [NAME]...";

/// Publish a directory tree to S3-compatible storage, and keep it published
#[derive(Debug, Parser)]
#[command(name = "brigade", version, styles = STYLES, term_width = 90, after_help = EXIT_CODES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Upload what is new or changed in DIR, and delete what is gone from it
    #[command(after_help = EXAMPLES, override_usage = SYNC_USAGE)]
    Sync(SyncArgs),
    /// Print what sync would do with the same flags, and do nothing
    #[command(override_usage = PLAN_USAGE)]
    Plan(SyncArgs),
    /// Print what is published and what is pending, from the cache
    Status(StatusArgs),
    /// Compare the objects in the bucket with the cache
    Verify(VerifyArgs),
    /// Print the public URLs of keys
    Url(UrlArgs),
    /// Make the cache from the state in the bucket, without a DIR
    Pull(PullArgs),
    /// List open multipart uploads, or abort them
    Uploads(UploadsArgs),
    /// Make a damaged or lost cache anew, from DIR and the bucket, or from the state in the bucket
    #[command(override_usage = REBUILD_USAGE)]
    Rebuild(RebuildArgs),
    /// Check a configuration file, or show its settings
    Config(ConfigArgs),
    /// Print a completion script for a shell
    Completions {
        /// Shell that the script is for
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Directory and destination, or destinations in the configuration file [default: all in the file]
    #[arg(value_name = "DIR DEST | NAME", help_heading = None)]
    pub(crate) targets: Vec<OsString>,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Print what would be done, and do nothing; same as plan
    #[arg(long, help_heading = None)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::SYNC }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    /// Print every event as a line of JSON, then the report
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) json_events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) destinations: DestinationArgs,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::STATUS }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) destinations: DestinationArgs,
    /// Also download every object and compare its SHA-256
    #[arg(long, help_heading = None)]
    pub(crate) content: bool,
    /// Record what differs, for the next sync, or fail
    #[arg(long, help_heading = None)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::VERIFY }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UrlArgs {
    /// Destination: s3://BUCKET or s3://BUCKET/PREFIX, or its name in the configuration file
    #[arg(help_heading = None)]
    pub(crate) dest: OsString,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Keys: paths of files, relative to the published directory
    #[arg(required_unless_present = "all", value_name = "KEY", help_heading = None)]
    pub(crate) keys: Vec<String>,
    /// Print every key with its URL, size, digest and state
    #[arg(long, conflicts_with = "keys", help_heading = None)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::URL }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    #[command(flatten)]
    pub(crate) destinations: DestinationArgs,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::PULL }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UploadsArgs {
    #[command(flatten)]
    pub(crate) destinations: DestinationArgs,
    /// Abort the uploads that this cache started
    #[arg(long, help_heading = None)]
    pub(crate) abort: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::UPLOADS }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArgs {
    /// Directory and destination; a destination alone if its state lies in the bucket, and with --rebind;
    /// or destinations in the configuration file [default: all in the file]
    #[arg(value_name = "DIR DEST | DEST | NAME", help_heading = None)]
    pub(crate) targets: Vec<OsString>,
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Also replace a cache that can be used
    #[arg(long, conflicts_with = "rebind", help_heading = None)]
    pub(crate) force: bool,
    /// Keep the cache, and bind it to DEST: the same objects are behind another endpoint now
    #[arg(long, help_heading = None)]
    pub(crate) rebind: bool,
    #[command(flatten)]
    pub(crate) settings: SettingArgs<{ settings::REBUILD }>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Check every line; read no secret and send no request
    Check {
        #[command(flatten)]
        file: FileArgs,
    },
    /// Print each setting with its value, and where that came from; secrets are hidden
    Show {
        /// Destinations in the configuration file [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<OsString>,
        /// Also print settings that have their default
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        file: FileArgs,
    },
}

/// Destinations, by URL or by name.
#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// Destination: s3://BUCKET or s3://BUCKET/PREFIX, or names in the configuration file [default: all
    /// in the file]
    #[arg(value_name = "DEST | NAME", help_heading = None)]
    pub(crate) targets: Vec<OsString>,
    #[command(flatten)]
    pub(crate) file: FileArgs,
}

/// The configuration file.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// Configuration file [default: brigade.toml here, if it is there]
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// Print failures and warnings only
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// List and log what is done (-v), log every request (-vv)
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Append the log to a file, with times, instead of stderr
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
}

impl Command {
    /// Returns the flags of output; `None` for commands that print a text alone.
    pub(crate) fn output(&self) -> Option<&OutputArgs> {
        match self {
            Self::Sync(args) | Self::Plan(args) => Some(&args.output),
            Self::Status(args) => Some(&args.output),
            Self::Verify(args) => Some(&args.output),
            Self::Url(args) => Some(&args.output),
            Self::Pull(args) => Some(&args.output),
            Self::Uploads(args) => Some(&args.output),
            Self::Rebuild(args) => Some(&args.output),
            Self::Config(_) | Self::Completions { .. } | Self::Man => None,
        }
    }
}
