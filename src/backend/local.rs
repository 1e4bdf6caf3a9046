//! The backend for files that are served in place.

use std::path::{Path, PathBuf};

use crate::backend::StorageBackend;
use crate::error::{Operation, StorageError};
use crate::key::{RemoteKey, join_url};

/// Publishes files in place, for a web server that serves `base_path` as `base_url`. Uploads and deletes do nothing:
/// whoever changed the folder has done them.
///
/// ```
/// use bucket_brigade::{LocalBackend, StorageBackend};
/// let local = LocalBackend::new("https://files.example.com/", "/srv/files");
/// assert_eq!(local.get_url("a b/c.txt"), "https://files.example.com/a%20b/c.txt");
/// ```
#[derive(Debug, Clone)]
pub struct LocalBackend {
    base_url: String,
    base_path: PathBuf,
}

impl LocalBackend {
    /// Makes a backend whose URLs are `base_url/key`, each segment percent-encoded. One trailing slash of `base_url` is
    /// trimmed. `base_path` is the folder with the files.
    pub fn new(base_url: impl Into<String>, base_path: impl Into<PathBuf>) -> Self {
        Self { base_url: base_url.into(), base_path: base_path.into() }
    }

    /// Returns the folder with the files.
    pub fn base_path(&self) -> &Path {
        &self.base_path
    }
}

impl StorageBackend for LocalBackend {
    fn upload_file(&self, _local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        let key = RemoteKey::new(remote_key)?;
        Ok(self.get_url(key.as_str()))
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        RemoteKey::new(remote_key).map(drop).map_err(|error| error.with_operation(Operation::Delete))
    }

    fn get_url(&self, remote_key: &str) -> String {
        join_url(&self.base_url, remote_key)
    }

    fn is_remote(&self) -> bool {
        false
    }
}
