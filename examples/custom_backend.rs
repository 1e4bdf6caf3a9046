//! A custom backend in four methods, here for a folder on a mounted share that a web server serves. The orchestrator
//! uses it like any other store, with retries, cache and deletes.
//! (Unlike a bucket, a folder cannot hold both `a` and `a/b`. Where a file is replaced by a folder of the same name,
//! the old file has to be removed by hand.)
//!
//! ```text
//! cargo run --example custom_backend [DIR]
//! ```

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind as Io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket_brigade::{
    CacheManager, Engine, ErrorKind, Operation, RescanOrchestrator, StorageBackend, StorageError,
};

/// Publishes into a folder. Each file appears as a whole or not at all.
struct MountedShare {
    folder: PathBuf,
    base_url: String,
}

impl MountedShare {
    fn failed(operation: Operation, error: std::io::Error) -> StorageError {
        // A share that is unreachable may come back, so a retry may help. A full or read-only one stays so.
        let passing = matches!(error.kind(), Io::TimedOut | Io::HostUnreachable | Io::StaleNetworkFileHandle);
        let kind = if passing { ErrorKind::Network } else { ErrorKind::Rejected };
        StorageError::new(kind, operation, "the share failed").with_source(error)
    }

    /// The temporary path for a key: outside of the published tree, on the same file system.
    fn temporary(&self, remote_key: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        remote_key.hash(&mut hasher);
        self.folder.join(".incoming").join(format!("{:016x}", hasher.finish()))
    }
}

impl StorageBackend for MountedShare {
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        let (target, temporary) = (self.folder.join(remote_key), self.temporary(remote_key));
        let copy = || {
            for path in [&target, &temporary] {
                fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
            }
            fs::copy(local_path, &temporary)?;
            fs::File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &target)
        };
        copy().map_err(|error| Self::failed(Operation::Upload, error))?;
        Ok(self.get_url(remote_key))
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        match fs::remove_file(self.folder.join(remote_key)) {
            Err(error) if error.kind() != Io::NotFound => Err(Self::failed(Operation::Delete, error)),
            _ => Ok(()),
        }
    }

    fn get_url(&self, remote_key: &str) -> String {
        let path: String = remote_key
            .bytes()
            .map(|byte| match byte {
                b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("{}/{path}", self.base_url)
    }

    fn is_remote(&self) -> bool {
        true
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source =
        std::env::args_os().nth(1).unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/src").into());
    let scratch = tempfile::tempdir()?;
    let share = MountedShare {
        folder: scratch.path().join("share"),
        base_url: "https://files.example.com".to_owned(),
    };
    let cache = CacheManager::open(scratch.path().join("share.cache"))?;
    let tree = RescanOrchestrator::new(&Engine::new()?, source, Arc::new(share), cache)?;
    for title in ["first rescan", "second rescan"] {
        let report = tree.rescan()?;
        println!(
            "{title}: {}, {} uploaded, {} unchanged",
            report.outcome.as_str(),
            report.uploaded_count,
            report.unchanged
        );
        for file in report.uploaded.iter().take(3) {
            println!("  {}", file.url);
        }
    }
    Ok(())
}
