//! The cache's file on disk. It is opened without following a symbolic link, refused if anybody may write it, and
//! compared with its path while it is open.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{ErrorKind, Operation, StorageError};
use crate::observe::trace::Trace;
use crate::state::file_mark::FileMark;
use crate::text::PrintablePath;

const GROUP_MAY_WRITE: u32 = 0o020;
const ALL_MAY_WRITE: u32 = 0o002;
/// In a folder with this bit, only the owner of a file may rename or remove it.
const STICKY: u32 = 0o1000;

/// An open file, and its path and identity from when it was opened.
pub(crate) struct OpenFile {
    pub(crate) path: PathBuf,
    /// The absolute path, which stays right when the process changes its directory.
    absolute: PathBuf,
    device: u64,
    inode: u64,
    mark: FileMark,
    /// The file and its folder, each if its group may write it.
    shared: Vec<PathBuf>,
}

impl OpenFile {
    /// Opens the file for reading and writing. Creates it (0600) and its folder (0700) if they are missing.
    pub(crate) fn for_writing(path: &Path) -> Result<(File, Self), StorageError> {
        create_folder(path).map_err(|error| open_error(path, error))?;
        Self::open(path, OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600))
    }

    /// Opens an existing file for reading.
    pub(crate) fn for_reading(path: &Path) -> Result<(File, Self), StorageError> {
        Self::open(path, OpenOptions::new().read(true))
    }

    fn open(path: &Path, options: &mut OpenOptions) -> Result<(File, Self), StorageError> {
        let failed = |error| open_error(path, error);
        // Nothing is waited for: a fifo has no reader yet.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = options.custom_flags(flags).open(path).map_err(failed)?;
        // Of the open file, not of the path, which may lead elsewhere by now.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(wrong_type_error(
                path,
                if metadata.is_dir() { "a folder" } else { "a special file" },
            ));
        }
        let shared = check_writers(path, &metadata)?;
        let opened = Self {
            shared,
            path: path.to_owned(),
            absolute: std::path::absolute(path).map_err(failed)?,
            device: metadata.dev(),
            inode: metadata.ino(),
            mark: FileMark::of(&metadata),
        };
        Ok((file, opened))
    }

    pub(crate) fn mark(&self) -> FileMark {
        self.mark
    }

    /// Logs a warning if the group of the file or of its folder may write it.
    pub(crate) fn warn_of_group(&self) {
        for path in &self.shared {
            Trace::default().warn(
                "the cache can be forged: its group may write it; chmod g-w, unless the whole group is trusted",
                &[("path", &path.display())],
            );
        }
    }

    /// Fails if the path now leads to another file or to none. Any other error of the stat proves neither, and is
    /// ignored.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let why = match fs::symlink_metadata(&self.absolute) {
            Ok(found) if (found.dev(), found.ino()) == (self.device, self.inode) => return Ok(()),
            Err(error) if !is_absent(&error) => return Ok(()),
            _ => {
                "the file was removed or replaced while it was in use, so nothing more can be recorded in it: open the cache again; what was not recorded is published again"
            }
        };
        Err(StorageError::new(ErrorKind::Cache, Operation::Cache, why).with_path(&self.path))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder_of(path))
}

fn wrong_type_error(path: &Path, what: &str) -> StorageError {
    let path = PrintablePath(path);
    StorageError::config("cache", format!("{path} is {what}; give a file, which is created if it is missing"))
}

fn open_error(path: &Path, error: io::Error) -> StorageError {
    if error.kind() == io::ErrorKind::IsADirectory {
        return wrong_type_error(path, "a folder");
    }
    // O_NOFOLLOW makes this of a symbolic link. Anything else is told as the system says it.
    if error.raw_os_error() != Some(libc::ELOOP) {
        return StorageError::io(ErrorKind::Cache, Operation::Cache, path, error);
    }
    // A dangling link has no canonical path, but can still be read.
    let target = fs::canonicalize(path).or_else(|_| fs::read_link(path));
    let target = target.map(|target| format!(": {}", target.display())).unwrap_or_default();
    let why = format!("it is a symbolic link; give the path it leads to{target}");
    StorageError::new(ErrorKind::Cache, Operation::Cache, why).with_path(path).with_source(error)
}

/// Refuses a cache that anybody may write: whoever writes it decides what is deleted and where readers are sent.
/// Returns the paths that their group may write.
fn check_writers(path: &Path, file: &Metadata) -> Result<Vec<PathBuf>, StorageError> {
    let folder = folder_of(path);
    let found = fs::metadata(folder).map_err(|error| open_error(path, error))?;
    // In a sticky folder such as /tmp others may create files, but not replace this one.
    let in_folder = if found.mode() & STICKY == 0 { found.mode() } else { 0 };
    let refused = |what: &str, way_out: String| {
        let why = format!("anybody on this machine may {what}: {way_out}");
        Err(StorageError::new(ErrorKind::Cache, Operation::Cache, why).with_path(path))
    };
    if file.mode() & ALL_MAY_WRITE != 0 {
        return refused("write it", format!("chmod o-w {}", path.display()));
    }
    if in_folder & ALL_MAY_WRITE != 0 {
        let way_out = format!("chmod o-w {}, or keep the cache in a folder of its own", folder.display());
        return refused("replace it", way_out);
    }
    let shared = [(file.mode(), path), (in_folder, folder)].into_iter();
    Ok(shared.filter(|(mode, _)| mode & GROUP_MAY_WRITE != 0).map(|(_, what)| what.to_owned()).collect())
}
