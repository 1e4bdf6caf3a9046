//! An in-memory store with the semantics of S3. Tests can inspect it and inject faults.
#![allow(dead_code, unused_imports, unreachable_pub, reason = "each binary uses a part")]

#[path = "memory_answers.rs"]
mod answers;
#[path = "memory_conditions.rs"]
mod conditions;
#[path = "memory_contents.rs"]
mod contents;
#[path = "memory_copies.rs"]
mod copies;
#[path = "memory_etags.rs"]
mod etags;
#[path = "memory_modes.rs"]
mod modes;
#[path = "memory_state.rs"]
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::HeaderValue;
use s3s::crypto::{Checksum, Sha256};
#[allow(clippy::wildcard_imports, reason = "the names of the protocol: two for each operation")]
use s3s::dto::*;
use s3s::service::S3Service;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, StdError, s3_error};

pub use self::conditions::Conditional;
use self::conditions::Conditions;
pub use self::etags::ETags;
use self::state::State;
pub use self::state::StoredObject;

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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_bucket(&self, bucket: &str) -> S3Result<MutexGuard<'_, State>> {
        if *self.bucket == *bucket { Ok(self.state()) } else { Err(s3_error!(NoSuchBucket)) }
    }

    /// In a store that checks conditions and writes later: checks them, then waits until another write of this key
    /// has passed the check, but not longer than the gap.
    async fn pass_gap(&self, bucket: &str, key: &str, conditions: &Conditions) -> S3Result<()> {
        let entered = self.in_bucket(bucket)?.enter_gap(key, conditions)?;
        if let Some((longest, passed)) = entered {
            let end = Instant::now() + longest;
            while Instant::now() < end && !self.state().others_passed(key, passed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.state().leave_gap(key);
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl S3 for MemoryStore {
    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        drop(self.in_bucket(&req.input.bucket)?);
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let headers = texts_of(&req.headers);
        let mut input = req.input;
        let bytes = drain(input.body.take(), input.content_length).await?;
        check_sha256(&bytes, input.checksum_sha256.as_deref())?;
        let conditions = Conditions::of_put(&input);
        self.pass_gap(&input.bucket, &input.key, &conditions).await?;

        let mut state = self.in_bucket(&input.bucket)?;
        state.check_refusals(&input.key)?;
        state.check_folders(&input.key)?;
        state.check_conditions(&input.key, &conditions)?;
        let object = state.new_object(bytes).with_put(&input, headers);
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

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let headers = texts_of(&req.headers);
        let mut state = self.in_bucket(&req.input.bucket)?;
        Ok(S3Response::new(state.copy(&self.bucket, req.input, headers)?))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let GetObjectInput { bucket, key, if_match, if_none_match, checksum_mode, .. } = req.input;
        let mut state = self.in_bucket(&bucket)?;
        state.check_conditions(&key, &Conditions::of_read(if_match, if_none_match))?;
        Ok(S3Response::new(answers::get_object(state.object(&key)?, checksum_mode.as_ref())))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let HeadObjectInput { bucket, key, if_match, if_none_match, checksum_mode, .. } = req.input;
        let mut state = self.in_bucket(&bucket)?;
        state.check_conditions(&key, &Conditions::of_read(if_match, if_none_match))?;
        let object = state.object(&key)?;
        let encrypted = state.encrypted.contains(&object.etag);
        let mut output = answers::head_object(object, checksum_mode.as_ref());
        output.server_side_encryption =
            encrypted.then(|| ServerSideEncryption::from_static(ServerSideEncryption::AWS_KMS));
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        req: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        let conditions = Conditions::of_delete(&input);
        self.pass_gap(&input.bucket, &input.key, &conditions).await?;
        self.in_bucket(&input.bucket)?.delete(&input.key, &conditions)?;
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
            upload_id: Some(state.begin(input)),
            ..Default::default()
        };
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let mut input = req.input;
        let bytes = drain(input.body.take(), input.content_length).await?;
        check_sha256(&bytes, input.checksum_sha256.as_deref())?;
        let mut state = self.in_bucket(&input.bucket)?;
        let part = state.new_object(bytes);
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
        let conditions = Conditions::of_complete(&input);
        self.pass_gap(&input.bucket, &input.key, &conditions).await?;
        let parts = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let mut state = self.in_bucket(&input.bucket)?;
        state.check_folders(&input.key)?;
        state.check_conditions(&input.key, &conditions)?;
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

/// The headers of a request as texts.
fn texts_of(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
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
        Some(declared) if declared != BASE64_STANDARD.encode(Sha256::checksum(bytes)) => {
            Err(s3_error!(BadDigest))
        }
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
