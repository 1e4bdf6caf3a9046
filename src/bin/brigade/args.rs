//! What can be said on the command line.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "these are the texts of --help")]

use std::path::PathBuf;
use std::time::Duration;

use bucket_brigade::MaxDelete;
use bytesize::ByteSize;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use http::Uri;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
DEST is s3://BUCKET or s3://BUCKET/PREFIX.

Exit codes, the first that fits:
  2    usage or configuration: a flag, the bucket, the region, the certificate, the clock
  5    the store refused the credentials
  4    refused for safety: too many deletes, DIR missing or empty, the cache in use, another's
       or not to be written
  3    the store was unavailable: what is to be done is recorded, and done by the next run
  1    some files failed and are pending, or something was found to differ
  0    published, or nothing to do
  130  stopped by SIGINT; 143 by SIGTERM";

const DEST: &str = "DEST is s3://BUCKET or s3://BUCKET/PREFIX.";

const EXAMPLES: &str = "\
DIR is the directory to publish, DEST is s3://BUCKET or s3://BUCKET/PREFIX. Examples:
  brigade sync ./public s3://site
  brigade sync dist s3://site/app --exclude '*.map' --header 'Cache-Control: no-cache'
  brigade sync . s3://backup --endpoint-url https://minio.example.com:9000 --json";

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
    /// Publish what is new or changed in DIR to s3://BUCKET[/PREFIX], delete what is gone
    #[command(after_help = EXAMPLES)]
    Sync(SyncArgs),
    /// Say what sync would do with the same flags, and do nothing
    #[command(after_help = DEST)]
    Plan(SyncArgs),
    /// Say what is published and what is pending, from the cache
    #[command(after_help = DEST)]
    Status(DestinationArgs),
    /// Compare what the bucket holds with what was published
    #[command(after_help = DEST)]
    Verify(VerifyArgs),
    /// Print the public URLs of keys
    #[command(after_help = DEST)]
    Url(UrlArgs),
    /// List the multipart uploads that were left open, or abort them
    #[command(after_help = DEST)]
    Uploads(UploadsArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// The directory to publish
    #[arg(hide = true)]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Say what would be done, and do nothing, as plan does
    #[arg(long, help_heading = "What is done")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
    /// Make sure by ack (the answers; default), list, or content
    #[arg(long, value_name = "HOW", default_value = "ack", help_heading = "What is done")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) verify: VerifyHow,
    /// Stop after this long, such as 10m; the rest stays pending
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Speed")]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// Print every event as a line of JSON, the report last
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) json_events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Download every object and compare its SHA-256, too
    #[arg(long)]
    pub(crate) content: bool,
    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UrlArgs {
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// The keys: paths below the published directory
    #[arg(required_unless_present = "all", value_name = "KEY", help_heading = None)]
    pub(crate) keys: Vec<String>,
    /// Every key: key, URL, size, digest, state, with tabs between
    #[arg(long, conflicts_with = "keys")]
    pub(crate) all: bool,
    /// Base URL of files that are not published yet
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub(crate) fallback_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UploadsArgs {
    /// Abort those that are ours; the next sync begins anew
    #[arg(long)]
    pub(crate) abort: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

/// What every command needs to know of a destination.
#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// s3://BUCKET or s3://BUCKET/PREFIX
    #[arg(hide = true)]
    pub(crate) dest: String,
    /// The record of what is published [default: brigade status tells]
    #[arg(long, value_name = "FILE", help_heading = "What is done")]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// What is done when another run is at work.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Wait so long for another run with this cache; 0: not at all
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    #[arg(help_heading = "What is done")]
    pub(crate) lock_wait: Duration,
}

/// What a sync does.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is done")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct WorkArgs {
    /// Publish only what matches (repeatable): *.html, /assets
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// Patterns for --include, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) include_from: Vec<PathBuf>,
    /// Leave out what matches (repeatable); what is there is kept
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Patterns for --exclude, one a line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_from: Vec<PathBuf>,
    /// Follow links that stay inside DIR; =all: every link
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "inside")]
    #[arg(hide_possible_values = true)]
    pub(crate) follow_symlinks: Option<FollowHow>,
    /// Header of every object (repeatable), 'Name: value'
    #[arg(long, value_name = "LINE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Delete nothing; what is gone from DIR is kept and said
    #[arg(long)]
    pub(crate) no_delete: bool,
    /// Delete nothing if more are gone; without it a DIR that lost
    /// half of its files, or has none of them, deletes nothing
    #[arg(long, value_name = "N|P%", value_parser = max_delete)]
    pub(crate) max_delete: Option<MaxDelete>,
    /// Send every file again, also what is published as it is
    #[arg(long)]
    pub(crate) force: bool,
    /// Allow an empty DIR, deleting everything
    #[arg(long)]
    pub(crate) allow_empty: bool,
    /// Also delete what another DIR published through this cache
    #[arg(long)]
    pub(crate) allow_new_root: bool,
    /// If others' objects are there: overwrite (default), refuse
    #[arg(long, value_name = "HOW", default_value = "overwrite")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) first_run: FirstRunHow,
    /// Base URL of DIR, for files that are not published yet
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub(crate) fallback_url: Option<String>,
}

/// How much at a time, and how often.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speed")]
pub(crate) struct SpeedArgs {
    /// Files, threads and connections at a time
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) batch_size: usize,
    /// Bytes read and sent at a time
    #[arg(long, value_name = "SIZE", default_value = "8KiB")]
    pub(crate) chunk_size: ByteSize,
    /// Size of the parts of large files
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) part_size: ByteSize,
    /// Larger files go up in parts
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) part_threshold: ByteSize,
    /// How often a failed request is tried again
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) retries: u32,
}

impl Default for SpeedArgs {
    fn default() -> Self {
        let part = ByteSize::mib(16);
        Self {
            batch_size: 10,
            chunk_size: ByteSize::kib(8),
            part_size: part,
            part_threshold: part,
            retries: 5,
        }
    }
}

/// How the store is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection (else the AWS_* variables, else ~/.aws)")]
pub(crate) struct ConnectionArgs {
    /// The store's address [default: AWS's for the region]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// The bucket's region; with an endpoint, us-east-1 will do
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// The profile in ~/.aws to take credentials from
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Base of the URLs that are printed [default: the bucket's]
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub(crate) public_url: Option<String>,
    /// BUCKET.host, not host/BUCKET, at an endpoint of one's own
    #[arg(long)]
    pub(crate) virtual_host: bool,
    /// Certificates (PEM) to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// Print one JSON object at the end, and nothing else
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress, no summary: failures only
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// List and log what is done (-v), log every request (-vv)
    #[arg(long, short, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum VerifyHow {
    Ack,
    List,
    Content,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FollowHow {
    Inside,
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FirstRunHow {
    Overwrite,
    Refuse,
}

fn base_url(text: &str) -> Result<String, String> {
    let absolute = text.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.query().is_none());
    if absolute { Ok(text.to_owned()) } else { Err("it is no absolute URL without a query".to_owned()) }
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("write it as 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn max_delete(text: &str) -> Result<MaxDelete, String> {
    let why = "it is neither a count nor a share from 0% to 100%";
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().map(MaxDelete::Count).map_err(|_| why.to_owned());
    };
    match percent.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxDelete::Share(percent / 100.0)),
        _ => Err(why.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_delete_is_a_count_or_a_share() {
        assert_eq!(max_delete("10"), Ok(MaxDelete::Count(10)));
        assert_eq!(max_delete("2.5%"), Ok(MaxDelete::Share(0.025)));
        for wrong in ["", "-1", "101%", "half", "NaN%", "1.5"] {
            assert!(max_delete(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("Cache-Control: a, b"), Ok(("Cache-Control".into(), "a, b".into())));
        assert!(header("nothing").is_err());
    }
}
