//! The values that all jobs of one run share.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::rescan::bucket_state::shared_writes::SharedWrites;
use crate::rescan::session::Session;
use crate::state::cache::binding::KnownRoot;
use crate::state::cache::runs::RunRecord;
use crate::state::records::Published;
use crate::text::PrintablePath;
use crate::tree::digest::Digest;
use crate::tree::folder::Folder;
use crate::tree::source::Source;
use crate::tree::version::FileStat;

/// The values that all jobs of one run share. Workers hold it in an `Arc`; the flags are set by the rescan's thread.
pub(crate) struct Context {
    pub(crate) session: Session,
    /// The random token of the run, which all its objects carry.
    pub(crate) token: String,
    /// The root, held open for the whole run.
    pub(crate) root: Arc<Folder>,
    /// The root as the cache knows it.
    pub(crate) known: KnownRoot,
    pub(crate) root_device: u64,
    /// The store is unavailable for this run: nothing more is sent.
    pub(crate) offline: AtomicBool,
    /// Published records are not trusted: every file is sent.
    pub(crate) force: AtomicBool,
    /// Files are hashed and compared with the published version, and not sent.
    pub(crate) hash_only: AtomicBool,
    /// The records of the cache are not compared with the objects, although they should be: nothing is deleted.
    pub(crate) unverified: AtomicBool,
    /// What writes share whose state lies in the bucket.
    pub(crate) shared: Option<SharedWrites>,
}

impl Context {
    pub(crate) fn request_context(&self) -> RequestContext<'_> {
        self.session.request_context()
    }

    /// The record by which a later run recognizes the objects of this one.
    pub(crate) fn run_record(&self) -> RunRecord {
        RunRecord { token: self.token.clone(), root: self.known.number, root_device: self.root_device }
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.force.load(Ordering::Relaxed)
    }

    pub(crate) fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Relaxed)
    }

    /// An error if the run has stopped.
    pub(crate) fn check_running(&self) -> Result<(), StorageError> {
        self.request_context().check(Operation::Upload)?;
        // Before the claim nothing is sent anyway.
        if let Some(shared) = self.shared.as_ref().filter(|shared| shared.claim().is_some()) {
            shared.guard.check(Operation::Upload)?;
        }
        if self.is_offline() { Err(given_up(Operation::Upload)) } else { Ok(()) }
    }

    /// The published record of a file that this run sent or confirmed, without the headers of its object.
    pub(crate) fn published(
        &self,
        stat: FileStat,
        not_racy: bool,
        digest: Digest,
        etag: Option<String>,
    ) -> Published {
        let with_root = stat.device == self.root_device;
        Published {
            stat,
            not_racy,
            digest,
            whole: None,
            etag,
            root: self.known.number,
            with_root,
            headers: None,
        }
    }
}

/// Opens the root. It stays open until the end of the run, so a renamed path cannot swap the tree.
pub(crate) fn open_root(given: &Path, cache: &Path) -> Result<(Folder, FileStat), StorageError> {
    let missing = |error| {
        StorageError::io(ErrorKind::RootMissing, Operation::Rescan, given, error)
            .advise("nothing was deleted; is it mounted?")
    };
    let root = fs::canonicalize(given).map_err(missing)?;
    let metadata = fs::metadata(&root).map_err(missing)?;
    if !metadata.is_dir() {
        let why = format!("{} is a file; the root must be a directory", PrintablePath(given));
        return Err(StorageError::config("root", why));
    }
    let folder = Folder::open(&root).map_err(|error| missing(error.into()))?;
    let stat = FileStat::of(&folder.stat_self().map_err(|error| missing(error.into()))?);
    let own = fs::canonicalize(cache).unwrap_or_default();
    if own.starts_with(&root) {
        let why = format!(
            "{} lies inside the root {} and would be published: put it elsewhere",
            own.display(),
            root.display()
        );
        return Err(StorageError::config("cache", why));
    }
    Ok((folder, stat))
}

/// Opens a file of the tree.
///
/// # Errors
/// [`ErrorKind::SourceChanged`] if its stat is not the planned one.
pub(crate) fn open_source(
    context: &Context,
    key: &RemoteKey,
    planned: &FileStat,
) -> Result<Source, StorageError> {
    let source = Source::open_below(&context.root, key.as_str())?;
    if source.stat() == planned {
        return Ok(source);
    }
    let what = "the file changed since the scan; the next rescan publishes it";
    Err(StorageError::new(ErrorKind::SourceChanged, Operation::Read, what).with_path(source.path()))
}

/// The error of work that is skipped during an outage.
pub(crate) fn given_up(operation: Operation) -> StorageError {
    let what = "skipped: store unavailable";
    StorageError::new(ErrorKind::Unavailable, operation, what)
}
