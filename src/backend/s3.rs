//! The backend for S3-compatible stores.
//!
//! # Architecture
//! - [`S3Backend`] owns the client, the checked settings and the gate of its destination. Each of its methods calls
//!   one function of `operations`.
//! - `operations`: one file per S3 operation. Builds requests, retries them, reads the responses.
//! - `client`: signs one request, sends it once, and turns the response into a result.
//! - `http`: connections, proxies, DNS, TLS, the rate, and the secret headers that only the wire sees.
//! - `auth`: credentials, their renewal, the signature.
//! - `state_objects`: calls the operations for the state that lies with the bucket.
//! - `standalone`: runs the operations for a caller that has no rescan.
//! - Pure functions: `headers`, `checks`, `address`, `xml`, `errors`, `acknowledgement`, `redaction`.

mod acknowledgement;
pub(crate) mod address;
pub(crate) mod auth;
pub(crate) mod checks;
mod client;
pub(crate) mod config;
mod errors;
pub(crate) mod headers;
pub(crate) mod http;
mod operations;
pub(crate) mod redaction;
mod request;
mod standalone;
mod state_objects;
pub(crate) mod xml;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log::Level;

use crate::backend::s3::checks::is_loopback;
use crate::backend::s3::client::Client;
use crate::backend::s3::config::{S3Config, S3Settings};
#[cfg(any(test, fuzzing))]
use crate::backend::s3::http::transport::{Connections, Wire};
use crate::backend::s3::operations::copy_object::CopySupport;
use crate::backend::s3::operations::{
    copy_object, delete_objects, first_request, get_object, head_object, list_objects, multipart,
    multipart_lookup, put_object,
};
use crate::backend::{
    Assembly, Begun, Condition, Copied, Creation, Deleted, DueHeaders, Finished, HeaderCopy, Page,
    PartUpload, Receipt, Reconciled, StateObjects, StorageBackend, StoredObject, Transfers, Upload,
    UploadMarker, UploadName, UploadPage, sealed,
};
use crate::clock::CancelToken;
use crate::engine::Engine;
use crate::engine::gate::Gate;
use crate::error::{Operation, StorageError};
use crate::key::{RemoteKey, encode_path};
use crate::observe::trace::RequestEnd;
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};

/// Publishes to a bucket of any S3-compatible store: AWS, R2, `MinIO`, Garage, Ceph, Spaces, B2,
/// GCS. All threads share its connections, which are reused; files are streamed from disk.
///
/// Use it alone, through the four blocking methods of [`StorageBackend`], or let a
/// [`RescanOrchestrator`](crate::RescanOrchestrator) drive it. Used alone it sends a large file as a multipart upload,
/// one part after another, and aborts an upload that fails. It keeps no state: if the process ends during an upload,
/// the parts stay in the bucket until a lifecycle rule removes them.
///
/// # Which responses count as a success
/// A successful status counts only with evidence that a store sent it, not a login page or a proxy: an `ETag`, a
/// request ID (`x-amz-request-id`, `x-amz-id-2`, moto's `x-amzn-requestid`, GCS's `x-guploader-uploadid`) or an XML
/// result, and no HTML page. A 204 to a delete may lack all of these: the next listing shows what it deleted. Any other
/// success is an error of the kind [`Protocol`](crate::ErrorKind::Protocol) that says what the response was, and is
/// retried.
///
/// A store may repeat the secret key, the session token, the signature or the `Authorization` header. They are removed
/// from everything that is stored, logged or shown if they have at least 8 bytes; from object keys, which are compared,
/// if they have at least 16. The access key ID may be shown.
///
/// # Limits
/// | Of a store's responses | At most |
/// |---|---|
/// | a response, an error response, a text that is shown | 8 MiB, 64 KiB, 1 KiB |
/// | an `ETag`, an upload ID, a continuation token | 1 KiB, 8 KiB, 8 KiB; a longer one is refused |
/// | consecutive pages of a listing that are empty or hold nothing new | 1,000 |
/// | parts of an upload, unfinished uploads shown for a key | 10,000, 1,000 |
///
/// A listing that keeps naming new objects, in whatever order, is a large bucket: only the run's deadline and the
/// cancel token end it. Watching it takes 1 MiB.
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
    /// Set once the store has refused `DeleteObjects`.
    lacks_bulk_delete: AtomicBool,
    copies: CopySupport,
}

impl S3Backend {
    /// Checks the configuration; sends nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with a message that begins with the field's name, also if an
    /// https endpoint finds no trusted certificates on this system.
    pub fn new(engine: &Engine, config: S3Config) -> Result<Self, StorageError> {
        let settings = config.validate()?;
        let bucket = settings.address.bucket.name();
        let destination = settings.address.destination();
        // Requests to this machine cannot be read on the way.
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
            copies: CopySupport::default(),
        })
    }

    /// Replaces the network by connections that `wire` makes.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn over(mut self, wire: impl Wire) -> Result<Self, StorageError> {
        self.client.replace_connections(Connections::over(&self.settings.network, wire)?);
        Ok(self)
    }

    /// Returns the object's name in the bucket: the prefix, then `remote_key`.
    pub fn build_key(&self, remote_key: &str) -> String {
        self.settings.address.build_key(remote_key)
    }

    fn url(&self, key: &str) -> String {
        self.settings.address.get_url(key)
    }

    /// The path of a request for an object, from its name in the bucket.
    fn object_path(&self, object: &str) -> String {
        format!("{}{}", self.settings.address.path, encode_path(object))
    }

    /// Runs `step` between the two log records of an upload, delete or abort. `step` counts its tries and returns the
    /// store's request ID.
    fn with_records<T>(
        &self,
        context: &RequestContext<'_>,
        operation: Operation,
        key: &str,
        bytes: u64,
        step: impl FnOnce(&mut u32) -> Result<(T, String), StorageError>,
    ) -> Result<T, StorageError> {
        context.trace.started(&operation.to_string(), key, &self.bucket, bytes);
        let (began, mut attempts) = (context.clock.now(), 0);
        let result = step(&mut attempts);
        let elapsed = context.clock.now().saturating_sub(began);
        // The record of a failure has the ID of the request that failed.
        let (outcome, id) = match &result {
            Ok((_, id)) => (Ok(()), id.as_str()),
            Err(error) => (Err(error.to_string()), error.request_id().unwrap_or_default()),
        };
        self.record_end(context, operation, key, bytes, attempts, elapsed, outcome, id);
        result.map(|(value, _)| value)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn record_end(
        &self,
        context: &RequestContext<'_>,
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
        context.trace.ended(
            Level::Info,
            &RequestEnd { operation, key, bucket, bytes, attempts, elapsed, outcome, request_id },
        );
    }
}

#[cfg(feature = "capi")]
impl S3Backend {
    /// Uploads a file until the token is cancelled.
    pub(crate) fn upload_file_until(
        &self,
        cancel: &CancelToken,
        local_path: &Path,
        remote_key: &str,
    ) -> Result<String, StorageError> {
        standalone::upload_file(self, local_path, remote_key, cancel)
    }

    /// Deletes an object, unless the token is cancelled before.
    pub(crate) fn delete_file_until(
        &self,
        cancel: &CancelToken,
        remote_key: &str,
    ) -> Result<(), StorageError> {
        standalone::delete_file(self, remote_key, cancel)
    }
}

impl StorageBackend for S3Backend {
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        standalone::upload_file(self, local_path, remote_key, &CancelToken::new())
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        standalone::delete_file(self, remote_key, &CancelToken::new())
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
    fn preflight(&self, context: &RequestContext<'_>) -> Result<(), StorageError> {
        first_request::list_one(self, context)
    }

    fn headers_of(&self, key: &RemoteKey) -> Result<DueHeaders, StorageError> {
        headers::due_headers(self, key)
    }

    fn put(&self, context: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError> {
        put_object::put(self, context, file)
    }

    fn may_copy(&self, size: u64) -> bool {
        copy_object::may_copy(self, size)
    }

    fn copy_in_place(
        &self,
        context: &RequestContext<'_>,
        object: &HeaderCopy<'_>,
    ) -> Result<Copied, StorageError> {
        copy_object::copy_in_place(self, context, object)
    }

    fn content(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError> {
        get_object::read_digest(self, context, key, size, part_size)
    }

    fn delete_many(
        &self,
        context: &RequestContext<'_>,
        keys: &[(RemoteKey, Condition)],
    ) -> Result<Deleted, StorageError> {
        delete_objects::delete_many(self, context, keys)
    }

    fn list(&self, context: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError> {
        list_objects::list_objects(self, context, "", from).map(Page::without_states)
    }

    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError> {
        multipart::plan_parts(self, size)
    }

    fn head(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        with_checksum: bool,
    ) -> Result<Option<StoredObject>, StorageError> {
        head_object::head(self, context, key, with_checksum)
    }

    fn begin(&self, context: &RequestContext<'_>, key: &RemoteKey, creation: &Creation<'_>) -> Begun {
        multipart::create_upload(self, context, key, creation)
    }

    fn part(&self, context: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError> {
        multipart::upload_part(self, context, part)
    }

    fn finish(&self, context: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError> {
        multipart::complete_upload(self, context, upload)
    }

    fn abort(&self, context: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError> {
        multipart::abort_upload(self, context, upload)
    }

    fn reconcile(
        &self,
        context: &RequestContext<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError> {
        multipart_lookup::reconcile(self, context, upload, size)
    }

    fn list_uploads(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError> {
        multipart_lookup::list_uploads(self, context, key, from)
    }

    fn state_objects(&self) -> &dyn StateObjects {
        self
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
