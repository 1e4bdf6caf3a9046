//! An in-memory store with the semantics of S3. Tests can inspect it and inject faults.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each binary uses a part")]

#[path = "memory_answers.rs"]
mod answers;
#[path = "memory_state.rs"]
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::HeaderValue;
use s3s::crypto::{Checksum, Sha256};
#[allow(clippy::wildcard_imports, reason = "the names of the protocol: two for each operation")]
use s3s::dto::*;
use s3s::service::S3Service;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, s3_error};

pub use self::state::StoredObject;
use self::state::{State, Upload};

/// One bucket in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    bucket: Arc<str>,
    state: Arc<Mutex<State>>,
}

impl MemoryStore {
    /// A store with this bucket, which is empty, and no other.
    pub fn with_bucket(bucket: &str) -> Self {
        Self { bucket: bucket.into(), state: Arc::default() }
    }

    /// The service to give to a server. It accepts the server module's keys; single objects are public.
    pub fn service(&self) -> S3Service {
        super::server::guarded(self.clone())
    }

    /// The contents of all objects, by key.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.iter().map(|(key, object)| (key.clone(), object.bytes.to_vec())).collect()
    }

    /// The sizes of all objects, by key.
    pub fn sizes(&self) -> BTreeMap<String, usize> {
        self.state().objects.iter().map(|(key, object)| (key.clone(), object.bytes.len())).collect()
    }

    /// One object with all its headers and metadata.
    pub fn get(&self, key: &str) -> Option<StoredObject> {
        self.state().objects.get(key).cloned()
    }

    /// Stores an object as another program would; `puts` does not list it.
    pub fn put_raw(&self, key: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state();
        let object = StoredObject::new(bytes.into(), state.next_etag());
        state.objects.insert(key.to_owned(), object);
    }

    /// Changes the bytes of an object and keeps its `ETag`, as a bad disk under the store would.
    pub fn corrupt(&self, key: &str, bytes: &[u8]) {
        if let Some(object) = self.state().objects.get_mut(key) {
            object.bytes = Bytes::copy_from_slice(bytes);
        }
    }

    /// Removes an object as another program would; `deletes` does not list it. Returns true if it existed.
    pub fn remove_raw(&self, key: &str) -> bool {
        self.state().objects.remove(key).is_some()
    }

    /// The unfinished multipart uploads: pairs of key and upload ID.
    pub fn uploads(&self) -> Vec<(String, String)> {
        self.state().uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).collect()
    }

    /// Creates a multipart upload as another program would; returns its upload ID.
    pub fn begin_raw(&self, key: &str) -> String {
        let input = CreateMultipartUploadInput {
            bucket: self.bucket.to_string(),
            key: key.to_owned(),
            ..Default::default()
        };
        self.state().begin(Upload::new(input))
    }

    /// Removes all unfinished uploads, as a lifecycle rule would.
    pub fn expire_uploads(&self) {
        self.state().uploads.clear();
    }

    /// The part numbers of an unfinished upload.
    pub fn parts_of(&self, upload_id: &str) -> Vec<i32> {
        self.state()
            .uploads
            .get(upload_id)
            .map(|upload| upload.parts.keys().copied().collect())
            .unwrap_or_default()
    }

    /// Removes one part of an unfinished upload.
    pub fn lose_part(&self, upload_id: &str, number: i32) {
        if let Some(upload) = self.state().uploads.get_mut(upload_id) {
            upload.parts.remove(&number);
        }
    }

    /// The keys in the order in which `PutObject` committed them.
    pub fn puts(&self) -> Vec<String> {
        self.state().puts.clone()
    }

    /// The keys in the order in which `PutObject` or `CompleteMultipartUpload` committed them.
    pub fn commits(&self) -> Vec<String> {
        self.state().commits.clone()
    }

    /// The keys of existing objects in the order in which `DeleteObject` or `DeleteObjects` removed them.
    pub fn deletes(&self) -> Vec<String> {
        self.state().deletes.clone()
    }

    /// Empties the logs of `puts`, `commits` and `deletes`.
    pub fn clear_logs(&self) {
        let mut state = self.state();
        state.puts.clear();
        state.commits.clear();
        state.deletes.clear();
    }

    /// Denies the deletion of this key, in `DeleteObjects` and in `DeleteObject`.
    pub fn deny_delete(&self, key: &str) {
        self.state().undeletable.insert(key.to_owned());
    }

    /// Fails the next `times` deletes of this key with this code, in `DeleteObjects` and in `DeleteObject`.
    pub fn fail_delete(&self, key: &str, code: &str, times: u32) {
        self.state().failing_deletes.insert(key.to_owned(), (code.to_owned(), times));
    }

    /// If `lacks`, answers `DeleteObjects` with `NotImplemented`.
    pub fn lacks_bulk_delete(&self, lacks: bool) {
        self.state().lacks_bulk_delete = lacks;
    }

    /// Refuses `PutObject` with this error code for keys with this suffix, after their bodies have been read.
    pub fn refuse_put(&self, key_suffix: &str, code: &str) {
        self.state().refusals.push((key_suffix.to_owned(), code.to_owned()));
    }

    /// Undoes `deny_delete`, `fail_delete`, `lacks_bulk_delete` and `refuse_put`.
    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.undeletable.clear();
        state.failing_deletes.clear();
        state.lacks_bulk_delete = false;
        state.refusals.clear();
    }

    /// Refuses `a/b` while `a` exists, and the reverse, with the error codes of `MinIO`.
    pub fn keeps_folders_as_files(&self) {
        self.state().folders_are_files = true;
    }

    /// Returns at most this many keys in each page of a listing, whatever the request asks for.
    pub fn page_limit(&self, keys: usize) {
        self.state().page_limit = Some(keys);
    }

    /// If `plus`, writes spaces as `+` in URL-encoded listings, as some stores do; else as `%20`.
    pub fn spaces_as_plus(&self, plus: bool) {
        self.state().spaces_as_plus = plus;
    }

    /// Lists unfinished uploads only if the prefix is a whole key or empty, as `MinIO` does.
    pub fn list_uploads_by_whole_key(&self) {
        self.state().lists_uploads_by_whole_key = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_bucket(&self, bucket: &str) -> S3Result<MutexGuard<'_, State>> {
        if *self.bucket == *bucket { Ok(self.state()) } else { Err(s3_error!(NoSuchBucket)) }
    }
}

#[async_trait::async_trait]
impl S3 for MemoryStore {
    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        drop(self.in_bucket(&req.input.bucket)?);
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let headers = req.headers.iter();
        let headers = headers.map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let headers = headers.collect();
        let mut input = req.input;
        let bytes = drain(input.body.take(), input.content_length).await?;
        check_sha256(&bytes, input.checksum_sha256.as_deref())?;

        let mut state = self.in_bucket(&input.bucket)?;
        state.check_refusals(&input.key)?;
        state.check_folders(&input.key)?;
        state.check_conditions(&input)?;
        let object = StoredObject::of_put(bytes, state.next_etag(), &input, headers);
        let output = PutObjectOutput {
            e_tag: Some(object.e_tag()),
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        state.puts.push(input.key.clone());
        state.commit(input.key, object);
        let mut answer = S3Response::new(output);
        answer.headers.insert("x-amz-request-id", HeaderValue::from_static("0MEMORY0PUT0"));
        Ok(answer)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(answers::get_object(state.object(&req.input.key)?)))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(answers::head_object(state.object(&req.input.key)?)))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.in_bucket(&req.input.bucket)?.delete(&req.input.key)?;
        // s3s makes a 204 of this output.
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        req: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let digest = |name: &str| name == "content-md5" || name.starts_with("x-amz-checksum-");
        if !req.headers.keys().any(|name| digest(name.as_str())) {
            return Err(s3_error!(
                InvalidRequest,
                "Missing required header: Content-MD5 or x-amz-checksum-*"
            ));
        }
        let mut state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(answers::delete_objects(&mut state, req.input.delete)?))
    }

    async fn list_objects_v2(
        &self,
        req: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(answers::list_objects(&state, req.input)?))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = req.input;
        let mut state = self.in_bucket(&input.bucket)?;
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket.clone()),
            key: Some(input.key.clone()),
            upload_id: Some(state.begin(Upload::new(input))),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = req.input;
        let bytes = drain(input.body.take(), input.content_length).await?;
        check_sha256(&bytes, input.checksum_sha256.as_deref())?;
        let mut state = self.in_bucket(&input.bucket)?;
        let part = StoredObject::new(bytes, state.next_etag());
        let output = UploadPartOutput {
            e_tag: Some(part.e_tag()),
            checksum_sha256: input.checksum_sha256,
            ..Default::default()
        };
        if !(1..=10_000).contains(&input.part_number) {
            return Err(s3_error!(InvalidArgument, "Part number must be between 1 and 10000"));
        }
        state.upload(&input.key, &input.upload_id)?.parts.insert(input.part_number, part);
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut state = self.in_bucket(&input.bucket)?;
        state.check_folders(&input.key)?;
        let output = CompleteMultipartUploadOutput {
            e_tag: Some(state.complete(&input.key, &input.upload_id, &parts)?),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let mut state = self.in_bucket(&req.input.bucket)?;
        state.upload(&req.input.key, &req.input.upload_id)?;
        state.uploads.remove(&req.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let mut state = self.in_bucket(&req.input.bucket)?;
        let upload = state.upload(&req.input.key, &req.input.upload_id)?;
        Ok(S3Response::new(answers::list_parts(upload, req.input)))
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(answers::list_uploads(&state, req.input)))
    }
}

/// Reads the whole body. s3s verifies its SHA-256 at the end of the stream, so nothing may be stored before that.
async fn drain(body: Option<StreamingBlob>, declared: Option<i64>) -> S3Result<Bytes> {
    let mut bytes = BytesMut::new();
    if let Some(mut body) = body {
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| body_error(&error))?);
        }
    }
    if declared.is_some_and(|length| usize::try_from(length) != Ok(bytes.len())) {
        return Err(s3_error!(IncompleteBody));
    }
    Ok(bytes.freeze())
}

fn body_error(error: &StdError) -> S3Error {
    let reason = error.to_string();
    if reason.contains("Sha256Mismatch") {
        return error_of("XAmzContentSHA256Mismatch");
    }
    s3_error!(IncompleteBody, "{reason}")
}

fn check_sha256(bytes: &[u8], declared: Option<&str>) -> S3Result<()> {
    match declared {
        Some(declared) if declared != state::base64(&Sha256::checksum(bytes)) => Err(s3_error!(BadDigest)),
        _ => Ok(()),
    }
}

/// The error with this code. Codes that s3s does not know get the status 400.
fn error_of(code: &str) -> S3Error {
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let mut error = S3Error::new(code);
    if let (None, Some(status)) = (error.status_code(), S3ErrorCode::InvalidRequest.status_code()) {
        error.set_status_code(status);
    }
    error
}
