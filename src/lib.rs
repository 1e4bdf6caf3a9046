//! Publishes a directory tree to S3-compatible storage and keeps it published, from programs without an async
//! runtime.
//!
//! [`RescanOrchestrator::rescan`] is one blocking call. It walks a directory and compares it with what is
//! published. It hashes and uploads new and changed files, ten at a time on a pool of threads, and deletes what is
//! gone. A durable cache records what the store has acknowledged:
//!
//! ```no_run
//! use std::sync::Arc;
//! use bucket_brigade::{CacheManager, Credentials, Engine, RescanOrchestrator, S3Backend, S3Config};
//!
//! # fn main() -> Result<(), bucket_brigade::StorageError> {
//! let engine = Engine::new()?;
//! let config = S3Config::new("releases").region("eu-central-1").credentials(Credentials::from_env()?);
//! let backend = Arc::new(S3Backend::new(&engine, config)?);
//! let cache = CacheManager::open("/var/lib/site/releases.cache")?;
//! let site = RescanOrchestrator::new(&engine, "/srv/site", backend, cache)?;
//! let report = site.rescan()?;
//! println!("{}: {} uploaded", report.outcome.as_str(), report.uploaded_count);
//! # Ok(()) }
//! ```
//!
//! # What it promises
//!
//! - An object is always one whole version of its file. The SHA-256 of the file is part of each request's
//!   signature, so the store refuses a body that is not what was hashed. One case is not covered: a writer that
//!   changes a file in place and keeps its size, mtime and ctime.
//! - The cache says "published" only of what the store acknowledged. Whatever fails, the next rescan finds it and
//!   tries again. While a request for a key is unanswered, the record of the key is unsettled: the next rescan
//!   uploads the file again, or reports the key and keeps it pending ([`PendingKind::Unsettled`]) if its file is gone.
//! - Deletes come last, after every upload of the run is acknowledged, because published files may refer to what is
//!   gone. Nothing is deleted unless everything could be read, the root exists, is not empty and is the same folder
//!   throughout, and few enough files are gone ([`RescanConfig::max_delete`]). Only objects that this cache published
//!   from this root are deleted.
//! - Nothing outside the root is read, unless [`FollowSymlinks::All`] asks for it. Files are opened relative to the
//!   root's descriptor, and through no link that is not followed on request, even if paths are renamed meanwhile. (A
//!   backend of four methods opens files by path.)
//! - A rescan of an unchanged tree sends no request, reads no file's content but that of ignore files
//!   ([`RescanConfig::ignore_files`]), and commits nothing, if the files were older than 2 s at the last scan. It
//!   therefore does not notice a bucket that others changed or that was restored from a backup. A verification does,
//!   and publishes what it finds missing or different in the same run ([`Run::verify`]).
//! - A run that has work first sends one small signed request. A wrong endpoint, certificate, credential, bucket or
//!   clock is one error, and a server that does not respond is detected within 30 s. Later, an error that
//!   concerns one key does not stop the others.
//! - Memory does not grow with file size. Files are streamed in chunks of 8 KiB; a large file becomes a multipart
//!   upload, sent by all workers.
//! - An interrupted multipart upload is resumed if its file is unchanged, and aborted otherwise. None whose upload ID
//!   was received stays open after the next successful rescan. Uploads that others started are never touched.
//! - Time is limited. A request has idle timeouts and a deadline that grows with its body, retries are limited by
//!   [`RetryPolicy`], and a cancelled run waits at most 3 s for requests in flight (and for a renewal of credentials).
//! - No global state, no signal handler, no logger. The only threads are the engine's own, one recorder per run, one
//!   with a stack of 256 KiB for each large file in flight (at most [`RescanConfig::parts_in_flight`]), and
//!   one for each host name lookup, because the system's cannot be cancelled (at most one per destination at a time, one
//!   for the name of its proxy, and one per request for credentials). No process is started, except a
//!   `credential_process` by `CredentialChain` and the command of a secret in a configuration file.
//!   Environment variables are used only by functions named for it (`from_env` and what they return,
//!   [`NetworkConfig::proxy_from_env`], a value that a configuration file takes from a variable), except that on macOS
//!   `SSL_CERT_FILE` and `SSL_CERT_DIR` are read to find the trusted certificates. The HTTP client below looks at
//!   `HTTP_PROXY` and the like when a backend is made; what it finds is dropped.
//!
//! # Many readers
//!
//! One process at a time writes the cache. Others may read it meanwhile ([`CacheManager::open_read_only`]). A rescan
//! also writes a [`Catalog`] beside it: a memory-mapped file from which any number of threads and processes learn,
//! without a lock, where a key is to be read now. Create [`Engine`], [`CacheManager`] and [`RescanOrchestrator`]
//! after a fork. A catalog may be inherited by a fork.
//!
//! # Results
//!
//! | What happened | Result |
//! |---|---|
//! | nothing to do, or everything done | `Ok`, [`Unchanged`](RescanOutcome::Unchanged) or [`Published`](RescanOutcome::Published) |
//! | some files failed, or something is left to do | `Ok`, [`Partial`](RescanOutcome::Partial); the failures are in the report |
//! | the store could not be reached, or fails all requests | `Ok`, [`LocalOnly`](RescanOutcome::LocalOnly); the warning "Cloud sync failed" |
//! | cancelled, deadline passed, deletes refused, credentials refused during the run | `Ok`, `Partial`, with a [`StopReason`] |
//! | configuration, bucket, certificate or credentials wrong; cache in use, foreign, damaged or removed; root missing or empty | `Err` |
//!
//! # The log
//!
//! Records go to the [`log`] facade with the target `bucket_brigade`, and to observers as [`Event::Log`]. Messages
//! and the names of key-values are part of the interface:
//!
//! | Level | Message | Key-values |
//! |---|---|---|
//! | info | `upload started`, `delete started`, `abort started`, `copy started` | `operation`, `key`, `bucket`, `bytes` |
//! | info | `upload ended`, `delete ended`, `abort ended`, `copy ended` | those, `attempts`, `elapsed` (seconds), `outcome` (`ok` or the error), `request_id` |
//! | debug | `PUT ended`, `GET ended`, `HEAD ended`, `DELETE ended`, `POST ended`: each request | the same, `operation` being the method |
//! | debug | `trying again` | `error`, `attempt`, `wait` (seconds) |
//! | info | `rescan ended` | `destination`, `outcome`, `stop_reason`, `cause` (why the store could not be reached or could not work, the first time), `uploaded`, `headers_updated`, `deleted`, `failed`, `kept`, `pending`, `elapsed` |
//! | warn | `rescan ended with something left to do`, `Cloud sync failed` | the same |
//! | warn | `deletes wait for a run without errors` | `pending_deletes`, `reason` |
//! | warn | `too many files are gone: …` | `why`, `gone`, `published` |
//! | warn | `files that look private are about to be published; …` (once a run) | `first`, `count`, `exclude` (patterns) |
//! | warn | `N objects under the prefix were not published by this cache; …` (first run) | `destination` |
//! | warn | `what lies under the prefix cannot be listed`, `the store cannot be reached` | `error` |
//! | warn | `an upload could not be aborted; …` | `key`, `upload_id`, `error` |
//! | warn | `the store refuses to copy objects in place: …` (once a backend) | `bucket`, `error` |
//! | warn | `uploads that were left open may not be aborted; …` | `error` |
//! | warn | `the credentials could not be renewed; …` (once for each that expire) | `error` |
//! | warn | `http endpoint: …` (once a backend, unless it is on this machine) | `bucket`, `host` |
//! | warn | `the cache can be forged: …` (when it is opened) | `path` |
//! | warn | `the end of a failed rescan is not recorded` | `error` |
//! | error | `rescan failed` | `destination`, `error` |
//! | error | `an observer panicked`, `a worker's job panicked` | |
//!
//! `abort` aborts a multipart upload; `copy` gives an object other headers by a copy onto itself. A file that becomes a multipart upload has one pair of upload records, whose
//! `attempts` is 1; each of its requests has records of its own. `key` is the key without the prefix. A request that
//! deletes many objects has two records for each of them. Control characters are escaped. Secret keys, session
//! tokens and signatures appear in no record, at no level, of this crate or of the HTTP layer below it.
//!
//! # Backends
//!
//! [`S3Backend`] works with any S3-compatible store. [`LocalBackend`] leaves files where they are. Anything else is
//! an implementation of [`StorageBackend`], which requires four methods.
//!
//! The [`guide`] is the manual: the command, operations, embedding, reliability, security, benchmarks, architecture.

#[cfg(any(test, feature = "capi"))]
extern crate self as bucket_brigade;
#[cfg(test)]
#[path = "../tests/inside/mod.rs"]
mod inside;

#[cfg(any(test, fuzzing))]
#[path = "../tests/fuzz/targets/mod.rs"]
#[forbid(unsafe_code)]
mod fuzz_targets;

/// Returns the fuzz target of a name.
#[cfg(fuzzing)]
pub fn fuzz_target(name: &str) -> Option<fn(&[u8])> {
    fuzz_targets::find(name)
}

#[forbid(unsafe_code)]
mod backend;
#[cfg(feature = "capi")]
pub mod capi;
#[forbid(unsafe_code)]
mod clock;
#[forbid(unsafe_code)]
mod engine;
#[forbid(unsafe_code)]
mod error;
#[cfg(feature = "capi")]
#[allow(
    dead_code,
    unreachable_patterns,
    reason = "the command has the same file, and sees the crate from outside"
)]
#[forbid(unsafe_code)]
mod json;
#[forbid(unsafe_code)]
mod key;
#[forbid(unsafe_code)]
mod observe;
#[forbid(unsafe_code)]
mod request_context;
#[forbid(unsafe_code)]
mod rescan;
#[forbid(unsafe_code)]
mod retry;
#[cfg(feature = "config")]
#[forbid(unsafe_code)]
mod settings;
mod state;
#[forbid(unsafe_code)]
mod text;
#[forbid(unsafe_code)]
mod tree;

#[forbid(unsafe_code)]
pub mod guide;

// The name that `json` has for it in the command, too.
#[cfg(feature = "capi")]
use text as printable;

pub use backend::local::LocalBackend;
pub use backend::s3::S3Backend;
pub use backend::s3::address::S3Address;
pub use backend::s3::auth::credentials::Credentials;
#[cfg(feature = "profiles")]
pub use backend::s3::auth::{chain::CredentialChain, providers::AwsEnvironment};
pub use backend::s3::config::S3Config;
pub use backend::s3::headers::rules::HeaderRule;
pub use backend::s3::http::bandwidth::Bandwidth;
pub use backend::s3::http::network::NetworkConfig;
pub use backend::s3::http::tls::TlsVersion;
pub use backend::{Deleted, Journal, Listed, Page, Receipt, StorageBackend, Transfers, Upload};
pub use clock::{CancelToken, Clock, SystemClock, VirtualClock};
pub use crossbeam_channel::Receiver;
pub use engine::{DEFAULT_WORKERS, Engine, EngineConfig};
pub use error::{ErrorKind, Operation, StorageError};
pub use key::{MAX_KEY_BYTES, RemoteKey};
pub use log::Level;
pub use observe::event::{ChannelObserver, Event, Observer, Progress, ProgressSnapshot, channel};
pub use observe::metrics::MetricsSnapshot;
pub use request_context::RequestContext;
pub use rescan::bucket_state::settings::{OnConflict, RemoteState};
pub use rescan::config::{FirstRun, MaxDelete, RescanConfig, Verify};
pub use rescan::multipart::unfinished::{AbortedUploads, UnfinishedUpload};
pub use rescan::options::Run;
pub use rescan::orchestrator::RescanOrchestrator;
pub use rescan::orchestrator::rebuild::{Rebuild, RebuildReport};
pub use rescan::report::{
    Adoption, DeletesRefused, Kept, KeptReason, PublishedBy, REPORT_LIST_LIMIT, RescanOutcome, RescanReport,
    StateReport, StopReason, TooMany, UnknownObjects, Uploaded, VerifyReport,
};
pub use retry::RetryPolicy;
#[cfg(feature = "config")]
pub use settings::{
    Setting, all_settings, config::Config, file::ConfigFile, find_setting, open::open, settings_chapter,
    shown::ConfigEntry,
};
pub use state::cache::CacheManager;
pub use state::cache::replacement::CacheFound;
pub use state::catalog::{Catalog, Entries};
pub use state::records::PendingKind;
pub use state::resolve::{KeyState, Resolved};
pub use state::summary::{CacheSummary, PendingFile};
pub use tree::diff::FileDiff;
pub use tree::digest::{Digest, PartPlan};
pub use tree::folder::FollowSymlinks;
pub use tree::version::{FileEntry, FileStat, Version};
pub use tree::walk::{Skip, SkipReason};
