//! `CreateMultipartUpload`, `UploadPart`, `CompleteMultipartUpload`, `AbortMultipartUpload`.

use std::io::empty;
use std::time::Duration;

use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use crate::backend::s3::headers::{PROOF, UPLOAD_TOKEN, add_checksum, object_headers, set_header};
use crate::backend::s3::operations::conditional::{self, Found, set_condition};
use crate::backend::s3::operations::diagnose::explain_failure;
use crate::backend::s3::operations::head_object::{Owner, find_owner, upload_request};
use crate::backend::s3::operations::multipart_lookup::upload_id_query;
use crate::backend::s3::request::{BodyContent, S3Request, S3Response};
use crate::backend::s3::{S3Backend, xml};
use crate::backend::{Assembly, Begun, Condition, Creation, Finished, PartUpload, Receipt, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::{LARGEST_PART, PartPlan};

/// The wait for the response to `CompleteMultipartUpload`: the store assembles the object meanwhile, which "can take
/// several minutes" (Amazon S3 API Reference).
pub(crate) const COMPLETE_TIMEOUT: Duration = Duration::from_secs(600);

/// Returns the parts of a file of this size; `None` if it goes in one PUT.
pub(crate) fn plan_parts(s3: &S3Backend, size: u64) -> Result<Option<PartPlan>, StorageError> {
    let settings = &s3.settings;
    let too_large = || {
        let most = settings.largest_object;
        let why = format!("the file has {size} bytes, the store takes objects of up to {most}");
        StorageError::new(ErrorKind::TooLarge, Operation::Upload, why)
            .advise("if it takes larger ones, set largest_object")
    };
    // Checked before the parts: a plan for such a file may exist, but the store would refuse to complete it.
    if size > settings.largest_object {
        return Err(too_large());
    }
    // A single PUT takes no more than a part, whatever the threshold.
    if size <= settings.part_threshold.min(LARGEST_PART) {
        return Ok(None);
    }
    PartPlan::new(size, settings.part_size).map(Some).ok_or_else(too_large)
}

/// Creates a multipart upload. A try whose response was lost may have created another one.
pub(crate) fn create_upload(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    creation: &Creation<'_>,
) -> Begun {
    let mut lost = false;
    let upload_id = creation_request(s3, key, creation).and_then(|request| {
        retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
            let response = s3.client.send(context, attempt, &request, &mut empty());
            let upload_id =
                response.and_then(|response| xml::parse_upload_id(&response.body, &response.secrets));
            // The store may have created an upload for a try that failed here, and nobody knows its ID.
            upload_id
                .inspect_err(|error| lost |= may_have_been_executed(error))
                .map_err(|e| e.with_key(key.as_str()))
        })
    });
    Begun { upload_id, lost }
}

/// Builds the `CreateMultipartUpload` of a key, with the headers of its object.
fn creation_request<'a>(
    s3: &S3Backend,
    key: &'a RemoteKey,
    creation: &Creation<'_>,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let mut headers = object_headers(s3, key)?;
    set_header(&mut headers, UPLOAD_TOKEN, creation.token)?;
    let proof = creation.proof.clone().stored_under(&object);
    set_header(&mut headers, PROOF, &proof.to_string())?;
    // Without this, the store refuses parts with a checksum.
    if s3.settings.checksum_header {
        set_header(&mut headers, "x-amz-checksum-algorithm", "SHA256")?;
    }
    let (path, query) = (s3.object_path(&object), "uploads=".to_owned());
    Ok(S3Request { headers, ..S3Request::plain(Operation::Upload, Method::POST, key.as_str(), path, query) })
}

/// Returns whether the store may have executed a request that ended with this error.
fn may_have_been_executed(error: &StorageError) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network | ErrorKind::Protocol | ErrorKind::Server)
}

/// Uploads a part, streamed from disk, with retries. Returns its `ETag`.
pub(crate) fn upload_part(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    part: &PartUpload<'_>,
) -> Result<String, StorageError> {
    let (source, payload) = (part.source, hex::encode(part.sha256));
    let mut headers = HeaderMap::new();
    add_checksum(s3, &mut headers, part.sha256)?;
    let query = format!("partNumber={}&{}", part.number, upload_id_query(part.upload));
    let request = S3Request {
        headers,
        payload: &payload,
        length: part.length,
        content: BodyContent::FileSent,
        ..upload_request(s3, Method::PUT, part.upload, query)?
    };
    let mut reread = false;
    retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
        // Each try reads the part from disk again: nothing of it is kept in memory.
        let mut body = source.range_reader(part.offset, part.length, s3.settings.chunk_size);
        let response = s3.client.send(context, attempt, &request, &mut body).map_err(|error| {
            let is_same = || Ok(source.hash_range(part.offset, part.length, |_| Ok(()))? == *part.sha256);
            explain_failure(s3, context, attempt, error, &mut reread, is_same)
        })?;
        part_etag(&response).map_err(|error| error.with_key(part.upload.key.as_str()))
    })
}

/// Returns the `ETag` of an uploaded part.
fn part_etag(response: &S3Response) -> Result<String, StorageError> {
    response.etag(Operation::Upload)?.ok_or_else(|| {
        let why = "the response to a part has no ETag: the upload cannot be completed without it";
        StorageError::new(ErrorKind::Protocol, Operation::Upload, why).retryable(false)
    })
}

/// Completes an upload. If the response was lost, looks for the object under the key.
pub(crate) fn complete_upload(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    assembly: &Assembly<'_>,
) -> Result<Finished, StorageError> {
    let find = || {
        Ok(match find_owner(s3, context, assembly.upload, assembly.size)? {
            Owner::Ours(receipt) => Found::Ours(Finished { receipt, request_id: String::new() }),
            Owner::Foreign(etag) => Found::Other(etag),
            Owner::Missing => Found::Missing,
            Owner::Unknown(error) => return Err(error),
        })
    };
    let send = |condition: &Condition| send_complete(s3, context, assembly, condition);
    conditional::write(assembly.condition, &assembly.upload.key, send, find)
        .map_err(|error| error.with_key(assembly.upload.key.as_str()))
}

fn send_complete(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    assembly: &Assembly<'_>,
    condition: &Condition,
) -> Result<Finished, StorageError> {
    let upload = assembly.upload;
    let body = xml::complete_body(assembly.parts, s3.settings.checksum_header);
    let payload = hex::encode(Sha256::digest(&body));
    let mut headers = HeaderMap::new();
    set_header(&mut headers, "content-type", "application/xml")?;
    set_condition(&mut headers, condition)?;
    let request = S3Request {
        headers,
        payload: &payload,
        length: body.len() as u64,
        timeout: Some(COMPLETE_TIMEOUT),
        ..upload_request(s3, Method::POST, upload, upload_id_query(upload))?
    };
    let mut in_doubt = false;
    let result = retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
        let response = s3.client.send(context, attempt, &request, &mut body.as_bytes());
        let finished = response.and_then(|response| read_completed(s3, upload, &response));
        in_doubt |= finished.as_ref().is_err_and(may_have_been_executed);
        match finished {
            // An earlier try may have completed it, which ends the upload.
            Err(error) if error.code() == Some("NoSuchUpload") => {
                check_completed(s3, context, assembly, error)
            }
            other => other,
        }
    });
    match result {
        // The last try may have completed it, and only its response was lost.
        Err(error) if in_doubt && error.kind().is_outage() => check_completed(s3, context, assembly, error),
        other => other,
    }
}

/// Reads the response to `CompleteMultipartUpload`.
fn read_completed(
    s3: &S3Backend,
    upload: &UploadName,
    response: &S3Response,
) -> Result<Finished, StorageError> {
    let etag = xml::parse_completed(&response.body, &response.secrets)?;
    let receipt = Receipt { url: s3.url(upload.key.as_str()), etag };
    Ok(Finished { receipt, request_id: response.request_id() })
}

/// Returns success if the object under the key is the one of this upload, else `error`.
fn check_completed(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    assembly: &Assembly<'_>,
    error: StorageError,
) -> Result<Finished, StorageError> {
    match find_owner(s3, context, assembly.upload, assembly.size) {
        Ok(Owner::Ours(receipt)) => Ok(Finished { receipt, request_id: String::new() }),
        Ok(Owner::Foreign(_)) if error.code() == Some("NoSuchUpload") => {
            let why = "the upload was aborted and the key holds another object; the next rescan uploads the file again";
            Err(StorageError::new(ErrorKind::NotFound, Operation::Upload, why).with_source(error))
        }
        // No object, no permission to look, or no connection: the first error stands.
        _ => Err(error),
    }
}

/// Aborts an upload. One that is gone already is success.
pub(crate) fn abort_upload(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    upload: &UploadName,
) -> Result<(), StorageError> {
    let request = S3Request {
        operation: Operation::Abort,
        ..upload_request(s3, Method::DELETE, upload, upload_id_query(upload))?
    };
    s3.with_records(context, Operation::Abort, upload.key.as_str(), 0, |attempts| {
        let sent = retry::run(&s3.settings.retry, context, Operation::Abort, |attempt| {
            *attempts = attempt;
            s3.client.send(context, attempt, &request, &mut empty())
        });
        match sent {
            Ok(response) => Ok(((), response.request_id())),
            // Aborted or completed by an earlier try.
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(((), String::new())),
            Err(error) => Err(error),
        }
    })
}
