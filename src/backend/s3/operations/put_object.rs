//! `PutObject`: uploads a file in one request.

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{PROOF, add_checksum, object_headers, set_header};
use crate::backend::s3::operations::diagnose::explain_failure;
use crate::backend::s3::request::{S3Request, S3Response};
use crate::backend::{Proof, Receipt, Upload};
use crate::error::{Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// Uploads a file with one PUT, streamed from disk, with retries.
pub(crate) fn put(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let length = file.source.stat().size;
    let object = s3.settings.address.prefix.join_checked(file.key)?;
    let payload = file.digest.to_hex();
    let key = file.key.as_str();
    let mut headers = object_headers(s3, file.key)?;
    add_checksum(s3, &mut headers, file.digest.as_bytes())?;
    let proof = Proof::of_file(*file.digest, length, file.run).stored_under(&object);
    set_header(&mut headers, PROOF, &proof.to_string())?;
    let request = S3Request {
        headers,
        payload: &payload,
        length,
        ..S3Request::plain(Operation::Upload, Method::PUT, key, s3.object_path(&object), String::new())
    };
    let mut reread = false;
    s3.with_records(context, Operation::Upload, key, length, |attempts| {
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
    })
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
