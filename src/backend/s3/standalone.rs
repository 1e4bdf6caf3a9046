//! Uploads and deletes for a caller that has no rescan: it brings no deadline or workers of its own.

use std::path::Path;

use crate::backend::s3::S3Backend;
use crate::backend::s3::operations::{delete_objects, multipart, put_object};
use crate::backend::{
    Assembly, Condition, Creation, Finished, PartUpload, Proof, Receipt, SentPart, Upload, UploadName,
    new_token,
};
use crate::clock::CancelToken;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::tree::digest::PartPlan;
use crate::tree::source::Source;

/// Uploads a file with one PUT, or as a multipart upload if it is large. Returns its public URL.
pub(crate) fn upload_file(
    s3: &S3Backend,
    local_path: &Path,
    remote_key: &str,
    cancel: &CancelToken,
) -> Result<String, StorageError> {
    let key = RemoteKey::new(remote_key)?;
    let source = Source::open(local_path)?;
    // Before hashing: a file that the store cannot take is not read.
    let plan = multipart::plan_parts(s3, source.stat().size).map_err(|error| error.with_key(remote_key))?;
    let receipt = if let Some(plan) = plan {
        with_own_context(s3, cancel, |context| upload_multipart(s3, context, &key, &source, &plan))?
    } else {
        let digest = source.hash(|_| check_cancelled(cancel))?;
        let (run, condition) = (&new_token(), &Condition::None);
        let file = Upload { source: &source, key: &key, digest: &digest, run, condition };
        with_own_context(s3, cancel, |context| put_object::put(s3, context, &file))?
    };
    Ok(receipt.url)
}

/// Deletes one object.
pub(crate) fn delete_file(
    s3: &S3Backend,
    remote_key: &str,
    cancel: &CancelToken,
) -> Result<(), StorageError> {
    // Keys are checked as for an upload; the error must say that it was a delete.
    let as_delete = |error: StorageError| error.with_operation(Operation::Delete);
    let key = RemoteKey::new(remote_key).map_err(as_delete)?;
    s3.settings.address.prefix.join_checked(&key).map_err(as_delete)?;
    with_own_context(s3, cancel, |context| delete_objects::delete_one(s3, context, &key, &Condition::None))
}

fn check_cancelled(cancel: &CancelToken) -> Result<(), StorageError> {
    if cancel.is_cancelled() {
        return Err(StorageError::new(ErrorKind::Cancelled, Operation::Upload, "cancelled"));
    }
    Ok(())
}

/// Runs `step` with a context that has no deadline.
fn with_own_context<T>(
    s3: &S3Backend,
    cancel: &CancelToken,
    step: impl FnOnce(&RequestContext<'_>) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    // Each call tries the store anew: an open circuit would fail it without a request.
    s3.gate.close_circuit();
    step(&RequestContext {
        cancel,
        deadline: None,
        clock: &**s3.engine.clock(),
        gate: &s3.gate,
        trace: s3.engine.trace(),
        fence: None,
    })
}

/// Creates a multipart upload, sends its parts one after another, and completes it. Aborts it if that fails.
fn upload_multipart(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    source: &Source,
    plan: &PartPlan,
) -> Result<Receipt, StorageError> {
    s3.with_records(context, Operation::Upload, key.as_str(), plan.size(), |attempts| {
        // Each of its requests has its own records and counts its own tries.
        *attempts = 1;
        let token = new_token();
        let proof = Proof::of_parts(None, plan, &new_token());
        let creation = Creation { token: &token, proof: &proof };
        let upload_id = multipart::create_upload(s3, context, key, &creation).upload_id?;
        let upload = UploadName { key: key.clone(), token, upload_id };
        let finished = send_parts(s3, context, &upload, source, plan).inspect_err(|_| {
            // The caller should see why the upload failed, not why the abort did. A cancelled one is aborted, too.
            let context = RequestContext { cancel: &CancelToken::new(), ..*context };
            let _ = multipart::abort_upload(s3, &context, &upload);
        })?;
        Ok((finished.receipt, finished.request_id))
    })
}

fn send_parts(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    upload: &UploadName,
    source: &Source,
    plan: &PartPlan,
) -> Result<Finished, StorageError> {
    let mut sent = Vec::new();
    for (number, (offset, length)) in (1..).zip((1..=plan.count()).filter_map(|number| plan.part(number))) {
        let sha256 = source.hash_range(offset, length, |_| check_cancelled(context.cancel))?;
        let part = PartUpload { upload, source, number, offset, length, sha256: &sha256 };
        sent.push(SentPart { etag: multipart::upload_part(s3, context, &part)?, sha256 });
    }
    // Each part is one version of its bytes; only an unchanged file makes them one version together.
    source.check_unchanged()?;
    let (size, condition) = (plan.size(), &Condition::None);
    multipart::complete_upload(s3, context, &Assembly { upload, parts: &sent, size, condition })
}
