//! The flags of the command line and their help.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, reason = "these are the texts of --help")]

pub(crate) mod state;

use std::path::PathBuf;
use std::time::Duration;

use bucket_brigade::MaxDelete;
use bytesize::ByteSize;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use http::Uri;

use self::state::{PullArgs, StateArgs};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_CODES: &str = "\
DIR is the directory to publish. DEST is s3://BUCKET or s3://BUCKET/PREFIX.

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
    /// Upload what is new or changed in DIR, and delete what is gone from it
    #[command(after_help = EXAMPLES)]
    Sync(SyncArgs),
    /// Print what sync would do with the same flags, and do nothing
    Plan(SyncArgs),
    /// Print what is published and what is pending, from the cache
    Status(DestinationArgs),
    /// Compare the objects in the bucket with the cache
    Verify(VerifyArgs),
    /// Print the public URLs of keys
    Url(UrlArgs),
    /// Make the cache from the state in the bucket, without a DIR
    Pull(PullArgs),
    /// List open multipart uploads, or abort them
    Uploads(UploadsArgs),
    /// Print a completion script for a shell
    Completions {
        /// Shell that the script is for
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Directory to publish
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) work: WorkArgs,
    /// Print what would be done, and do nothing; same as plan
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Check the result by ack (the store's responses; default),
    /// list (a listing), or content (download and hash)
    #[arg(long, value_name = "HOW", default_value = "ack")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) verify: VerifyHow,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
    /// Stop after this long, such as 10m; the rest stays pending
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = "Speed")]
    pub(crate) deadline: Option<Duration>,
    #[command(flatten)]
    pub(crate) state: StateArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// Print every event as a line of JSON, then the report
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub(crate) json_events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Also download every object and compare its SHA-256
    #[arg(long)]
    pub(crate) content: bool,
    /// Record what differs, for the next sync, or fail
    #[arg(long)]
    pub(crate) repair: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) speed: SpeedArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

#[derive(Debug, Args)]
pub(crate) struct UrlArgs {
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
    /// Keys: paths of files, relative to the published directory
    #[arg(required_unless_present = "all", value_name = "KEY", help_heading = None)]
    pub(crate) keys: Vec<String>,
    /// Print every key with its URL, size, digest and state
    #[arg(long, conflicts_with = "keys", help_heading = None)]
    pub(crate) all: bool,
    /// Base URL to print for files that are not published yet
    #[arg(long, value_name = "URL", value_parser = base_url, help_heading = None)]
    pub(crate) fallback_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct UploadsArgs {
    /// Abort the uploads that this cache started
    #[arg(long)]
    pub(crate) abort: bool,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

/// The destination, its cache, and how both are reached.
#[derive(Debug, Args)]
pub(crate) struct DestinationArgs {
    /// Destination: s3://BUCKET or s3://BUCKET/PREFIX
    #[arg(help_heading = None)]
    pub(crate) dest: String,
    /// Record of what is published [default: see brigade status]
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub(crate) cache: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// Waiting for another run on the same cache.
#[derive(Debug, Args)]
pub(crate) struct LockArgs {
    /// Wait for another run on this cache
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) lock_wait: Duration,
}

/// Selection of files, their headers, and the rules of deletes.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct WorkArgs {
    /// Publish only what matches: '*.html', /assets (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// File of --include patterns, one per line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) include_from: Vec<PathBuf>,
    /// Leave out what matches, and do not delete it (repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// File of --exclude patterns, one per line (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_from: Vec<PathBuf>,
    /// Follow links to targets inside DIR; =all: to any target
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "inside")]
    #[arg(hide_possible_values = true)]
    pub(crate) follow_symlinks: Option<FollowHow>,
    /// Header for every object: 'Name: value' (repeatable)
    #[arg(long, value_name = "LINE", value_parser = header)]
    pub(crate) header: Vec<(String, String)>,
    /// Upload every file again, even if unchanged
    #[arg(long)]
    pub(crate) force: bool,
    /// First run: adopt (default), overwrite, refuse, mirror
    #[arg(long, value_name = "HOW", default_value = "adopt")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    pub(crate) first_run: FirstRunHow,
    /// Base URL to print for files that are not published yet
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub(crate) fallback_url: Option<String>,
    /// Delete nothing; report published files gone from DIR
    #[arg(long, help_heading = "Deletes")]
    pub(crate) no_delete: bool,
    /// Delete nothing if more files are gone [default: if DIR has
    /// fewer than half as many files as published, or none of them]
    #[arg(long, value_name = "N|P%", value_parser = max_delete, help_heading = "Deletes")]
    pub(crate) max_delete: Option<MaxDelete>,
    /// Allow an empty DIR, deleting everything
    #[arg(long, help_heading = "Deletes")]
    pub(crate) allow_empty: bool,
    /// Also delete what another DIR published with this cache
    #[arg(long, help_heading = "Deletes")]
    pub(crate) allow_new_root: bool,
}

/// Concurrency, sizes and retries.
#[derive(Debug, Args)]
#[command(next_help_heading = "Speed")]
pub(crate) struct SpeedArgs {
    /// Files, threads and connections at a time
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) batch_size: usize,
    /// Bytes read and sent at a time
    #[arg(long, value_name = "SIZE", default_value = "8KiB")]
    pub(crate) chunk_size: ByteSize,
    /// Size of the parts of a multipart upload
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) part_size: ByteSize,
    /// Larger files become multipart uploads
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) part_threshold: ByteSize,
    /// Retries of a failed request
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

/// Endpoint, region, credentials and URLs of the bucket.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection (default: the AWS_* variables, then ~/.aws)")]
pub(crate) struct ConnectionArgs {
    /// URL of the store [default: AWS, by region]
    #[arg(long, value_name = "URL")]
    pub(crate) endpoint_url: Option<String>,
    /// Region of the bucket [default with an endpoint: us-east-1]
    #[arg(long)]
    pub(crate) region: Option<String>,
    /// Profile in ~/.aws: credentials, region, endpoint
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Public base URL of the bucket, for the URLs that are printed
    #[arg(long, value_name = "URL", value_parser = base_url)]
    pub(crate) public_url: Option<String>,
    /// Use BUCKET.host instead of host/BUCKET with an endpoint
    #[arg(long)]
    pub(crate) virtual_host: bool,
    /// Certificates (PEM) to trust in addition to the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
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
    Adopt,
    Overwrite,
    Refuse,
    Mirror,
}

fn base_url(text: &str) -> Result<String, String> {
    let absolute = text.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.query().is_none());
    if absolute {
        Ok(text.to_owned())
    } else {
        Err("use an absolute URL without a query, such as https://cdn.example.com".to_owned())
    }
}

fn header(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("write it as 'Name: value'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn max_delete(text: &str) -> Result<MaxDelete, String> {
    let why = "use a number of files, such as 100, or a percentage from 0% to 100%";
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
