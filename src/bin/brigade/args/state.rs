//! The flags of the state: where the record of what is published lies, and how publishers share it.
#![allow(rustdoc::broken_intra_doc_links, reason = "these are the texts of --help")]

use std::time::Duration;

use bucket_brigade::StorageError;
use clap::{Args, ValueEnum};

use super::{DestinationArgs, LockArgs};

/// The place of the record of what is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StatePlace {
    /// The cache alone.
    Local,
    /// Under the prefix of the destination.
    Bucket,
    /// Under this URL.
    At(String),
}

/// Sharing a destination with other machines.
#[derive(Debug, Args)]
#[command(next_help_heading = "State")]
pub(crate) struct StateArgs {
    /// Keep the record of what is published here: local (the cache;
    /// default), bucket (under DEST), or s3://BUCKET/PREFIX
    #[arg(long, value_name = "WHERE", default_value = "local", value_parser = state_place)]
    #[arg(hide_default_value = true)]
    pub(crate) state: StatePlace,
    /// Number of this build; refuse it if a higher one was published
    #[arg(long, value_name = "N")]
    pub(crate) order: Option<u64>,
    /// Publish an older build, and count on from its --order
    #[arg(long)]
    pub(crate) reset_order: bool,
    /// Wait for another publisher [default: 0s]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// After a crash, others may publish after this [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) lease: Option<Duration>,
    /// Only one publisher runs at a time: allow every store
    #[arg(long)]
    pub(crate) single_writer: bool,
    /// Take over from another publisher that is certainly gone
    #[arg(long)]
    pub(crate) take_over: bool,
    /// Objects that somebody else changed: fail (default), overwrite
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    pub(crate) on_conflict: Option<OnConflictHow>,
    /// Name to tell others [default: the CI job, or host and process]
    #[arg(long, value_name = "NAME")]
    pub(crate) publisher: Option<String>,
    /// Name of this tree; refuse to publish over another one
    #[arg(long, value_name = "NAME")]
    pub(crate) tree: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// Where the record of what is published lies: bucket (under
    /// DEST; default), or s3://BUCKET/PREFIX
    #[arg(long, value_name = "WHERE", default_value = "bucket", value_parser = shared_place)]
    #[arg(hide_default_value = true)]
    pub(crate) state: StatePlace,
    /// Name of the tree; refuse another one
    #[arg(long, value_name = "NAME")]
    pub(crate) tree: Option<String>,
    #[command(flatten)]
    pub(crate) lock: LockArgs,
    #[command(flatten)]
    pub(crate) destination: DestinationArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum OnConflictHow {
    Fail,
    Overwrite,
}

impl StateArgs {
    /// Refuses flags that have no meaning where the record is the cache alone.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.state != StatePlace::Local {
            return Ok(());
        }
        let given = [
            ("--order", self.order.is_some()),
            ("--reset-order", self.reset_order),
            ("--wait", self.wait.is_some()),
            ("--lease", self.lease.is_some()),
            ("--single-writer", self.single_writer),
            ("--take-over", self.take_over),
            ("--on-conflict", self.on_conflict.is_some()),
            ("--publisher", self.publisher.is_some()),
            ("--tree", self.tree.is_some()),
        ];
        match given.into_iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => {
                let why = "it needs --state bucket or --state s3://BUCKET/PREFIX";
                Err(StorageError::config(flag, why))
            }
        }
    }
}

fn state_place(text: &str) -> Result<StatePlace, String> {
    match text {
        "local" => Ok(StatePlace::Local),
        "bucket" => Ok(StatePlace::Bucket),
        url if url.starts_with("s3://") => Ok(StatePlace::At(url.to_owned())),
        _ => Err("use local, bucket or s3://BUCKET/PREFIX".to_owned()),
    }
}

fn shared_place(text: &str) -> Result<StatePlace, String> {
    match state_place(text) {
        Ok(StatePlace::Local) | Err(_) => Err("use bucket or s3://BUCKET/PREFIX".to_owned()),
        shared => shared,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_local_in_the_bucket_or_at_a_url() {
        assert_eq!(state_place("local"), Ok(StatePlace::Local));
        assert_eq!(state_place("bucket"), Ok(StatePlace::Bucket));
        assert_eq!(state_place("s3://b/p"), Ok(StatePlace::At("s3://b/p".to_owned())));
        assert_eq!(shared_place("bucket"), Ok(StatePlace::Bucket));
        for wrong in ["", "Bucket", "b/p", "https://b"] {
            assert!(state_place(wrong).is_err() && shared_place(wrong).is_err(), "{wrong}");
        }
        assert!(shared_place("local").is_err());
    }
}
