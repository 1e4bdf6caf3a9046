//! What all work of one run shares.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::rescan::session::Session;
use crate::state::cache::binding::KnownRoot;
use crate::state::records::Published;
use crate::tree::digest::Digest;
use crate::tree::folder::Folder;
use crate::tree::source::Source;
use crate::tree::version::FileStat;

/// What all items of one run share.
pub(crate) struct Context {
    pub(crate) session: Session,
    pub(crate) root: Arc<Folder>,
    pub(crate) known: KnownRoot,
    pub(crate) root_device: u64,
    /// The store is given up for this run: nothing more is sent.
    pub(crate) offline: AtomicBool,
    /// Files are hashed to be compared with what is published, and not sent.
    pub(crate) hash_only: AtomicBool,
}

impl Context {
    pub(crate) fn exchange(&self) -> RequestContext<'_> {
        self.session.exchange()
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// An error if the run has stopped.
    pub(crate) fn check_running(&self) -> Result<(), StorageError> {
        self.exchange().check(Operation::Upload)?;
        if self.is_offline() { Err(given_up(Operation::Upload)) } else { Ok(()) }
    }

    /// The record of a file of this run.
    pub(crate) fn published(
        &self,
        stat: FileStat,
        settled: bool,
        digest: Digest,
        etag: Option<String>,
    ) -> Published {
        let with_root = stat.device == self.root_device;
        Published { stat, settled, digest, whole: None, etag, root: self.known.number, with_root }
    }
}

/// The file, as it was when it was planned.
pub(crate) fn open_source(
    context: &Context,
    key: &RemoteKey,
    planned: &FileStat,
) -> Result<Source, StorageError> {
    let source = Source::open_below(&context.root, key.as_str())?;
    if source.stat() == planned {
        return Ok(source);
    }
    let what = "it changed since the scan; the next rescan publishes it";
    Err(StorageError::new(ErrorKind::SourceChanged, Operation::Read, what).with_path(source.path()))
}

pub(crate) fn given_up(operation: Operation) -> StorageError {
    let what = "skipped: the store could not be reached before on this run";
    StorageError::new(ErrorKind::Unavailable, operation, what)
}

/// What a panic said, as an error.
pub(crate) fn panicked(operation: Operation, panic: &(dyn Any + Send)) -> StorageError {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    StorageError::new(ErrorKind::Panicked, operation, format!("a panic: {text}"))
}
