//! Publishes a directory tree to S3-compatible storage and keeps it published, from programs that have
//! no async runtime and want none.
//!
//! [`RescanOrchestrator::rescan`] is one blocking call. It walks a directory, takes the difference to what
//! is published, hashes and uploads what is new or changed, ten files at a time on a pool of threads,
//! deletes what is gone, and leaves a durable cache of what the store has acknowledged:
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
//!   signature, so the store itself refuses a body that is not what was hashed. (A writer that changes a
//!   file in place and leaves size, mtime and ctime as they were is outside of this.)
//! - The cache says "published" only of what the store acknowledged. What failed, at whatever moment, is in
//!   the difference of the next rescan by itself. From before a request for a key is sent until the store
//!   acknowledges something, what is recorded of the key is neither believed nor forgotten: it is sent again if its
//!   file is there, and reported and kept pending ([`PendingKind::Unsettled`]) if its file is gone.
//! - Deletes come last, and only when every upload of the run is acknowledged (what is published may still refer to
//!   what is gone), everything could be read, the root is there, not empty and the same folder all the time, and the
//!   removals are few enough ([`RescanConfig::max_delete`]). Only what this cache published from this root is ever deleted.
//! - Nothing outside the root is read: files are opened from its descriptor, through no link, whatever is renamed
//!   meanwhile. (A backend of four methods opens them by their path.)
//! - A rescan of an unchanged tree sends no request, reads no file's content and commits nothing, once its
//!   files were older than 2 s at the last scan. It cannot know, then, what happened to the bucket: one that was
//!   changed by others, or restored from a backup, and a cache that was restored together with an older tree, show in
//!   a verification only, which publishes again in the same run what it finds missing or different ([`Run::verify`]).
//! - A run that has work sends one small signed request before anything else. Wrong endpoint, certificate,
//!   credentials, bucket or clock are one error, and a server that does not answer is found out within 30 s. After it
//!   a refusal concerns its key, and the others go on.
//! - Memory does not grow with the size of files: a file is streamed in chunks of 8 KiB, a large one in parts by
//!   all workers.
//! - No upload in parts whose id was received outlives the next rescan that ends well; none that others began is
//!   touched. One that was cut off is gone on with, if its file is still the same.
//! - Time is limited, too: a request by its idle limits and a deadline that grows with its body, its tries by
//!   [`RetryPolicy`], a run that is cancelled by 3 s for answers under way.
//! - No global state, no signal handler, no logger installed, no thread but the engine's own, one recorder
//!   a run, and one for each look-up of a host name (the system's cannot be ended; at most one a destination at a
//!   time). No environment variable read unless asked for by a function of the name `from_env`; on macOS `SSL_CERT_FILE` and
//!   `SSL_CERT_DIR` are, where certificates are looked for.
//!
//! # Many readers
//!
//! One process at a time writes the cache, others may read it beside that ([`CacheManager::open_read_only`]). A rescan
//! writes its [`Catalog`] beside it, a memory-mapped file from which any number of
//! threads and processes learn without a lock where a key is to be read now. Make [`Engine`], [`CacheManager`] and
//! [`RescanOrchestrator`] after a fork; a catalog may be inherited over it.
//!
//! # Results
//!
//! | What happened | Result |
//! |---|---|
//! | nothing to do, all done | `Ok`, [`Unchanged`](RescanOutcome::Unchanged) or [`Published`](RescanOutcome::Published) |
//! | some files failed, something is left to do | `Ok`, [`Partial`](RescanOutcome::Partial); the failures are in the report |
//! | the store cannot be reached, or fails throughout | `Ok`, [`LocalOnly`](RescanOutcome::LocalOnly); the warning "Cloud sync failed" |
//! | cancelled, deadline, deletes refused, credentials refused in the middle | `Ok`, `Partial`, with a [`StopReason`] |
//! | configuration, bucket, certificate or credentials wrong; cache in use, foreign, damaged or removed; root missing or empty | `Err` |
//!
//! # The log
//!
//! Records go to the [`log`] facade with the target `bucket_brigade`, and as [`Event::Log`] to observers. Their
//! messages and the names of their key-values are part of the interface:
//!
//! | Level | Message | Key-values |
//! |---|---|---|
//! | info | `upload started`, `delete started`, `abort started` | `operation`, `key`, `bucket`, `bytes` |
//! | info | `upload ended`, `delete ended`, `abort ended` | those, `attempts`, `elapsed` (seconds), `outcome` (`ok` or the error), `request_id` |
//! | debug | `PUT ended`, `GET ended`, `HEAD ended`, `DELETE ended`, `POST ended`: each request | the same, `operation` being the method |
//! | debug | `trying again` | `error`, `attempt`, `wait` (seconds) |
//! | info | `rescan ended` | `destination`, `outcome`, `stop_reason`, `cause` (why the store could not be reached or could not work, the first time), `uploaded`, `deleted`, `failed`, `kept`, `pending`, `elapsed` |
//! | warn | `rescan ended with something left to do`, `Cloud sync failed` | the same |
//! | warn | `deletes wait for a run without errors` | `pending_deletes`, `reason` |
//! | warn | `too many files are gone: …` | `why`, `gone`, `published` |
//! | warn | `files that look private are about to be published; …` (once a run) | `first`, `count`, `exclude` (patterns) |
//! | warn | `N objects under the prefix were not published by this cache; …` (first run) | `destination` |
//! | warn | `what lies under the prefix cannot be listed`, `the store cannot be reached` | `error` |
//! | warn | `an upload could not be aborted; …` | `key`, `upload_id`, `error` |
//! | warn | `uploads that were left open may not be aborted; …` | `error` |
//! | warn | `http endpoint: …` (once a backend, unless it is on this machine) | `bucket`, `host` |
//! | warn | `the cache can be forged: …` (when it is opened) | `path` |
//! | warn | `the end of a failed rescan is not recorded` | `error` |
//! | error | `rescan failed` | `destination`, `error` |
//! | error | `an observer panicked`, `a worker's job panicked` | |
//!
//! `abort` gives up an upload in parts; a file that goes up in parts has one pair of upload records, whose `attempts`
//! is 1: its requests have records of their own. `key` stands before the prefix; a request that deletes many objects has two records for each of them. Control
//! characters are escaped. Secret keys, session tokens and signatures appear in no record, at no level, of this
//! crate or of the HTTP layer under it.
//!
//! # Backends
//!
//! [`S3Backend`] speaks to any S3-compatible store; [`LocalBackend`] leaves files where they are; anything else is
//! four methods of [`StorageBackend`].
//!
//! The [`guide`] is the manual: the command, operations, embedding, reliability, benchmarks, architecture.

mod backend;
mod clock;
mod engine;
mod error;
mod key;
mod observe;
mod request_context;
mod rescan;
mod retry;
mod state;
mod text;
mod tree;

pub mod guide;

pub use backend::local::LocalBackend;
pub use backend::s3::S3Backend;
pub use backend::s3::address::S3Address;
pub use backend::s3::auth::credentials::Credentials;
#[cfg(feature = "profiles")]
pub use backend::s3::auth::providers::AwsEnvironment;
pub use backend::s3::config::S3Config;
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
pub use rescan::config::{FirstRun, MaxDelete, RescanConfig, Verify};
pub use rescan::multipart::unfinished::{AbortedUploads, UnfinishedUpload};
pub use rescan::options::Run;
pub use rescan::orchestrator::RescanOrchestrator;
pub use rescan::report::{
    DeletesRefused, Kept, KeptReason, REPORT_LIST_LIMIT, RescanOutcome, RescanReport, StopReason, TooMany,
    UnknownObjects, Uploaded, VerifyReport,
};
pub use retry::RetryPolicy;
pub use state::cache::{CacheManager, PendingFile};
pub use state::catalog::{Catalog, Entries};
pub use state::records::PendingKind;
pub use state::resolve::{KeyState, Resolved};
pub use state::summary::CacheSummary;
pub use tree::diff::FileDiff;
pub use tree::digest::{Digest, PartPlan};
pub use tree::folder::FollowSymlinks;
pub use tree::version::{FileEntry, FileStat, Version};
pub use tree::walk::{Skip, SkipReason};
