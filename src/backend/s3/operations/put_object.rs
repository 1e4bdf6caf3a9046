//! `PutObject`: uploads a file in one request.

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{PROOF, add_checksum, object_headers, set_header};
use crate::backend::s3::operations::conditional::{self, Found, set_condition};
use crate::backend::s3::operations::diagnose::explain_failure;
use crate::backend::s3::operations::head_object::find_object;
use crate::backend::s3::request::{BodyContent, S3Request, S3Response};
use crate::backend::{Condition, Proof, Receipt, Upload};
use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// Uploads a file with one PUT, streamed from disk, with retries.
pub(crate) fn put(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let (key, length) = (file.key.as_str(), file.source.stat().size);
    let (payload, mut reread) = (file.digest.to_hex(), false);
    s3.with_records(context, Operation::Upload, key, length, |attempts| {
        let send = |condition: &Condition| {
            let request = put_request(s3, file, &payload, condition)?;
            // The digest is known and signed: each try streams the file again, and the store refuses other bytes.
            retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
                *attempts = attempt;
                let response = send_file(s3, context, attempt, &request, file).map_err(|error| {
                    let is_same = || Ok(file.source.hash(|_| Ok(()))? == *file.digest);
                    explain_failure(s3, context, attempt, error, &mut reread, is_same)
                })?;
                let etag = response.etag(Operation::Upload).map_err(|error| error.with_key(key))?;
                Ok((Receipt { url: s3.url(key), etag }, response.request_id()))
            })
        };
        conditional::write(file.condition, file.key, send, || find_own(s3, context, file))
    })
}

/// Builds the `PutObject` of a file, with the headers of its object.
fn put_request<'a>(
    s3: &S3Backend,
    file: &Upload<'a>,
    payload: &'a str,
    condition: &Condition,
) -> Result<S3Request<'a>, StorageError> {
    let length = file.source.stat().size;
    let object = s3.settings.address.prefix.join_checked(file.key)?;
    let mut headers = object_headers(s3, file.key)?;
    add_checksum(s3, &mut headers, file.digest.as_bytes())?;
    let proof = Proof::of_file(*file.digest, length, file.run).stored_under(&object);
    set_header(&mut headers, PROOF, &proof.to_string())?;
    set_condition(&mut headers, condition)?;
    let (key, path) = (file.key.as_str(), s3.object_path(&object));
    Ok(S3Request {
        headers,
        payload,
        length,
        content: BodyContent::FileSent,
        ..S3Request::plain(Operation::Upload, Method::PUT, key, path, String::new())
    })
}

/// Looks for the object of an upload whose condition failed. Its proof of origin tells its digest, whichever run of ours
/// sent it.
fn find_own(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Found<(Receipt, String)>, StorageError> {
    let Some(found) = find_object(s3, context, file.key, Operation::Upload)? else {
        return Ok(Found::Missing);
    };
    let is_wanted = |proof: &Proof| proof.digest.as_ref() == Some(file.digest);
    // A copy from another key has the same digest, and other headers.
    if !found.is_as_stored || !found.proof.as_ref().is_some_and(is_wanted) {
        return Ok(Found::Other(found.etag));
    }
    Ok(Found::Ours((Receipt { url: s3.url(file.key.as_str()), etag: found.etag }, String::new())))
}

fn send_file(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    attempt: u32,
    request: &S3Request<'_>,
    file: &Upload<'_>,
) -> Result<S3Response, StorageError> {
    // Nothing is read of an empty file, so its reader notices no change.
    if request.length == 0 {
        file.source.check_unchanged()?;
    }
    let mut body = file.source.reader(s3.settings.chunk_size);
    s3.client.send(context, attempt, request, &mut body)
}
