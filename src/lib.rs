//! x
#![allow(missing_docs, dead_code, unused)]
mod backend; mod clock; mod config; mod engine; mod error; mod gate; mod key; mod observe; mod retry; mod secret; mod tree;
pub use backend::{StorageBackend, local::LocalBackend, s3::{S3Backend, credentials::Credentials}};
pub use backend::Transfers;
pub use clock::{CancelToken, Clock, SystemClock, VirtualClock};
pub use config::*;
pub use engine::*;
pub use error::{ErrorKind, Operation, StorageError};
pub use key::RemoteKey;
pub use observe::event::*;
pub use retry::RetryPolicy;
pub use tree::{diff::FileDiff, version::{FileEntry, FileStat, Version}};
