//! Any store that speaks S3.

mod acknowledgement;
pub(crate) mod address;
pub(crate) mod auth;
pub(crate) mod checks;
mod client;
pub(crate) mod config;
mod content_type;
mod errors;
mod http;
mod operations;
mod redaction;
mod request;
mod xml;

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log::Level;

use crate::backend::s3::client::Client;
use crate::backend::s3::config::{S3Config, S3Settings};
use crate::backend::s3::operations::{
    delete_objects, get_object, list_objects, multipart, multipart_lookup, put_object,
};
use crate::backend::{
    Assembly, Begun, Deleted, Finished, Page, PartUpload, Receipt, Reconciled, SentPart, StorageBackend,
    Transfers, Upload, UploadMarker, UploadName, UploadPage, new_token, sealed,
};
use crate::clock::CancelToken;
use crate::engine::Engine;
use crate::engine::gate::Gate;
use crate::error::{Operation, StorageError};
use crate::key::{RemoteKey, encode_path};
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

/// Publishes to a bucket of any S3-compatible store: AWS, R2, `MinIO`, Garage, Ceph, Spaces, B2,
/// GCS. Connections are kept and shared by all threads; files are streamed from disk.
///
/// It may be used alone, through [`StorageBackend`]'s four blocking methods, or driven by a
/// [`RescanOrchestrator`](crate::RescanOrchestrator). Used alone it sends the parts of a large file one after
/// another, aborts what fails, and remembers nothing: should the process end meanwhile, the parts stay in the
/// bucket until a lifecycle rule removes them.
///
/// # What is believed of a store
/// A success counts where something shows that a store gave it, and not a login page or a proxy: an `ETag`, a request ID
/// (`x-amz-request-id`, `x-amz-id-2`, moto's `x-amzn-requestid`, GCS's `x-guploader-uploadid`) or an XML result, and no
/// page of HTML. A 204 to a delete may have nothing of these: the next listing shows what it deleted. Any other success
/// is an error of the kind [`Protocol`](crate::ErrorKind::Protocol) that says what answered, and is tried again.
///
/// What a store repeats of the secret key, the session token, the signature or the `Authorization` header is cut out of
/// all that is kept, logged or shown, if it has 8 bytes or more; out of object keys, which are compared, if it has 16 or
/// more. The access key's ID may be shown.
///
/// # Limits
/// | of what a store sends | at most |
/// |---|---|
/// | an answer, an error, a text of it that is shown | 8 MiB, 64 KiB, 1 KiB |
/// | an `ETag`, an upload ID, a page token | 1 KiB, 8 KiB, 8 KiB; a longer one is refused |
/// | pages of a listing in a row that are empty or bring nothing new | 1,000 |
/// | parts of an upload, unfinished uploads shown of a key | 10,000, 1,000 |
///
/// A listing that goes on naming new objects is a large bucket, in whatever order: only the run's deadline and the
/// cancel token end it. It is watched in 1 MiB.
///
/// ```no_run
/// use bucket_brigade::{Credentials, Engine, S3Backend, S3Config, StorageBackend};
/// # fn main() -> Result<(), bucket_brigade::StorageError> {
/// let engine = Engine::new()?;
/// let config = S3Config::new("releases").region("eu-central-1").credentials(Credentials::from_env()?);
/// let bucket = S3Backend::new(&engine, config)?;
/// let url = bucket.upload_file("dist/app.tar.gz".as_ref(), "1.2.3/app.tar.gz")?;
/// # Ok(()) }
/// ```
pub struct S3Backend {
    engine: Engine,
    client: Client,
    settings: S3Settings,
    bucket: String,
    gate: Arc<Gate>,
    destination: String,
    lacks_bulk_delete: AtomicBool,
}

impl S3Backend {
    /// Checks the configuration; sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with a message that begins with the field's
    /// name, also where an https endpoint finds no certificate that it could trust.
    pub fn new(engine: &Engine, config: S3Config) -> Result<Self, StorageError> {
        let settings = config.validate()?;
        let bucket = settings.address.bucket.name();
        let destination = settings.address.destination();
        if settings.address.bucket.scheme() == "http" && !is_loopback(&settings.address.host) {
            engine.trace().warn(
                "http endpoint: requests are signed, but anyone on the way can read them",
                &[("bucket", &bucket), ("host", &settings.address.host)],
            );
        }
        Ok(Self {
            client: Client::new(engine, &settings)?,
            gate: engine.gate(&destination),
            engine: engine.clone(),
            settings,
            bucket,
            destination,
            lacks_bulk_delete: AtomicBool::new(false),
        })
    }

    /// What the object of `remote_key` is called in the bucket: prefix and key.
    pub fn build_key(&self, remote_key: &str) -> String {
        self.settings.address.build_key(remote_key)
    }

    fn url(&self, key: &str) -> String {
        self.settings.address.get_url(key)
    }

    /// The path of a request for an object, by its name in the bucket.
    fn object_path(&self, object: &str) -> String {
        format!("{}{}", self.settings.address.path, encode_path(object))
    }

    /// Runs a step for a caller that brings no exchange of its own.
    fn alone<T>(
        &self,
        step: impl FnOnce(&RequestContext<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.gate.close_circuit();
        let cancel = CancelToken::new();
        step(&RequestContext {
            cancel: &cancel,
            deadline: None,
            clock: &**self.engine.clock(),
            gate: &self.gate,
            trace: self.engine.trace(),
        })
    }

    /// All steps of a large file one after another, for a caller without workers. What fails is aborted.
    fn upload_in_parts(
        &self,
        exchange: &RequestContext<'_>,
        key: &RemoteKey,
        source: &Source,
        plan: &PartPlan,
    ) -> Result<Receipt, StorageError> {
        self.watched(exchange, Operation::Upload, key.as_str(), plan.size(), |attempts| {
            *attempts = 1;
            let token = new_token();
            let upload_id = multipart::begin(self, exchange, key, &token).upload_id?;
            let upload = UploadName { key: key.clone(), token, upload_id };
            let finished = self.parts_in_order(exchange, &upload, source, plan);
            let finished = finished.inspect_err(|_| {
                // The failure is what the caller should see.
                let _ = multipart::abort(self, exchange, &upload);
            })?;
            Ok((finished.receipt, finished.request_id))
        })
    }

    fn parts_in_order(
        &self,
        exchange: &RequestContext<'_>,
        upload: &UploadName,
        source: &Source,
        plan: &PartPlan,
    ) -> Result<Finished, StorageError> {
        let mut sent = Vec::new();
        for (number, (offset, length)) in (1..).zip((1..=plan.count()).filter_map(|number| plan.part(number)))
        {
            let sha256 = source.hash_range(offset, length, |_| Ok(()))?;
            let part = PartUpload { upload, source, number, offset, length, sha256: &sha256 };
            sent.push(SentPart { etag: multipart::part(self, exchange, &part)?, sha256 });
        }
        source.check_unchanged()?;
        multipart::finish(self, exchange, &Assembly { upload, parts: &sent, size: plan.size() })
    }

    /// An upload or delete with its two records. `step` counts its tries and gives the request's id.
    fn watched<T>(
        &self,
        exchange: &RequestContext<'_>,
        operation: Operation,
        key: &str,
        bytes: u64,
        step: impl FnOnce(&mut u32) -> Result<(T, String), StorageError>,
    ) -> Result<T, StorageError> {
        exchange.trace.started(&operation.to_string(), key, &self.bucket, bytes);
        let (began, mut attempts) = (exchange.clock.now(), 0);
        let result = step(&mut attempts);
        let elapsed = exchange.clock.now().saturating_sub(began);
        let (outcome, id) = match &result {
            Ok((_, id)) => (Ok(()), id.as_str()),
            Err(error) => (Err(error.to_string()), error.request_id().unwrap_or_default()),
        };
        self.report(exchange, operation, key, bytes, attempts, elapsed, outcome, id);
        result.map(|(value, _)| value)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn report(
        &self,
        exchange: &RequestContext<'_>,
        operation: Operation,
        key: &str,
        bytes: u64,
        attempts: u32,
        elapsed: Duration,
        outcome: Result<(), String>,
        request_id: &str,
    ) {
        let (operation, bucket) = (operation.to_string(), self.bucket.as_str());
        let outcome = outcome.err().unwrap_or_else(|| "ok".to_owned());
        let (operation, outcome) = (operation.as_str(), outcome.as_str());
        exchange.trace.ended(
            Level::Info,
            &RequestEnd { operation, key, bucket, bytes, attempts, elapsed, outcome, request_id },
        );
    }
}

impl StorageBackend for S3Backend {
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        let key = RemoteKey::new(remote_key)?;
        let source = Source::open(local_path)?;
        let plan = multipart::plan(self, source.stat().size).map_err(|error| error.with_key(remote_key))?;
        let receipt = if let Some(plan) = plan {
            self.alone(|exchange| self.upload_in_parts(exchange, &key, &source, &plan))?
        } else {
            let digest = source.hash(|_| Ok(()))?;
            let file = Upload { source: &source, key: &key, digest: &digest };
            self.alone(|exchange| put_object::put(self, exchange, &file))?
        };
        Ok(receipt.url)
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        let as_delete = |error: StorageError| error.with_operation(Operation::Delete);
        let key = RemoteKey::new(remote_key).map_err(as_delete)?;
        self.settings.address.prefix.join_checked(&key).map_err(as_delete)?;
        self.alone(|exchange| delete_objects::delete_one(self, exchange, &key))
    }

    fn get_url(&self, remote_key: &str) -> String {
        self.url(remote_key)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn transfers(&self) -> Option<&dyn Transfers> {
        Some(self)
    }

    fn destination(&self) -> String {
        self.destination.clone()
    }
}

impl sealed::Sealed for S3Backend {}

impl Transfers for S3Backend {
    fn preflight(&self, exchange: &RequestContext<'_>) -> Result<(), StorageError> {
        list_objects::preflight(self, exchange)
    }

    fn headers_of(&self, key: &RemoteKey) -> Result<[u8; 32], StorageError> {
        put_object::headers_digest(self, key)
    }

    fn put(&self, exchange: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError> {
        put_object::put(self, exchange, file)
    }

    fn content(
        &self,
        exchange: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError> {
        get_object::content(self, exchange, key, size, part_size)
    }

    fn delete_many(
        &self,
        exchange: &RequestContext<'_>,
        keys: &[RemoteKey],
    ) -> Result<Deleted, StorageError> {
        delete_objects::delete_many(self, exchange, keys)
    }

    fn list(&self, exchange: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError> {
        list_objects::list(self, exchange, from)
    }

    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError> {
        multipart::plan(self, size)
    }

    fn begin(&self, exchange: &RequestContext<'_>, key: &RemoteKey, token: &str) -> Begun {
        multipart::begin(self, exchange, key, token)
    }

    fn part(&self, exchange: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError> {
        multipart::part(self, exchange, part)
    }

    fn finish(&self, exchange: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError> {
        multipart::finish(self, exchange, upload)
    }

    fn abort(&self, exchange: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError> {
        multipart::abort(self, exchange, upload)
    }

    fn reconcile(
        &self,
        exchange: &RequestContext<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError> {
        multipart_lookup::reconcile(self, exchange, upload, size)
    }

    fn list_uploads(
        &self,
        exchange: &RequestContext<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError> {
        multipart_lookup::list(self, exchange, key, from)
    }

    fn key_room(&self) -> usize {
        self.settings.address.prefix.room()
    }
}

impl fmt::Debug for S3Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Backend").field("destination", &self.destination).finish_non_exhaustive()
    }
}
/// Whether what is sent to a host, which may have a port, stays on this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let is_local_name = name == "localhost" || name.strip_suffix(".localhost").is_some();
    is_local_name || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_this_machine_is_known_by_its_name_or_address() {
        for host in
            ["localhost", "localhost:9000", "s3.localhost", "127.0.0.1:1", "127.1.2.3", "[::1]:9000", "[::1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com",
            "10.0.0.1",
            "128.0.0.1",
            "[2001:db8::1]:1",
            "mylocalhost",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
