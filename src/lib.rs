//! x
mod backend;
mod clock;
mod config;
mod engine;
mod error;
mod gate;
mod key;
mod observe;
mod rescan;
mod retry;
mod secret;
mod tree;

pub use backend::local::LocalBackend;
pub use backend::s3::S3Backend;
pub use backend::s3::credentials::Credentials;
pub use backend::{Deleted, Exchange, Journal, Listed, Page, Receipt, StorageBackend, Transfers, Upload};
pub use clock::{CancelToken, Clock, SystemClock, VirtualClock};
pub use config::{FirstRun, MaxDelete, RescanConfig, S3Config, Verify};
pub use engine::{DEFAULT_WORKERS, Engine, EngineConfig};
pub use error::{ErrorKind, Operation, StorageError};
pub use key::{MAX_KEY_BYTES, RemoteKey};
pub use observe::event::{ChannelObserver, Event, Observer, Progress, ProgressSnapshot, channel};
pub use observe::metrics::MetricsSnapshot;
pub use rescan::cache::{CacheManager, KeyState, PendingFile, Resolved};
pub use rescan::orchestrator::RescanOrchestrator;
pub use rescan::record::PendingKind;
pub use rescan::report::{
    Kept, KeptReason, REPORT_LIST_LIMIT, RescanOutcome, RescanReport, StopReason, UnknownObjects, Uploaded,
    VerifyReport,
};
pub use rescan::run::Run;
pub use retry::RetryPolicy;
pub use tree::diff::FileDiff;
pub use tree::digest::Digest;
pub use tree::version::{FileEntry, FileStat, Version};
pub use tree::walk::{Skip, SkipReason};
