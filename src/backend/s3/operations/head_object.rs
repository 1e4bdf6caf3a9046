//! `HeadObject`: tells whether an object is the one of our upload.

use std::io::empty;

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::UPLOAD_TOKEN;
use crate::backend::s3::request::S3Request;
use crate::backend::{Receipt, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// The upload that the object under a key came from.
pub(crate) enum Owner {
    /// The object has the token and the size of our upload.
    Ours(Receipt),
    Foreign,
    Missing,
    /// The credentials do not permit the request.
    Unknown,
}

/// Sends a HEAD for the object of an upload. Without permission to list, stores answer 403 for a missing object, too.
pub(crate) fn find_owner(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Owner, StorageError> {
    let request = upload_request(s3, Method::HEAD, upload, String::new())?;
    let result = retry::run(&s3.settings.retry, context, Operation::Upload, |attempt| {
        s3.client.send(context, attempt, &request, &mut empty())
    });
    let response = match result {
        Ok(response) => response,
        Err(error) => {
            return match error.kind() {
                ErrorKind::NotFound => Ok(Owner::Missing),
                ErrorKind::AccessDenied => Ok(Owner::Unknown),
                _ => Err(error),
            };
        }
    };
    // The token is random, so it alone identifies the upload; the size shows that the object is whole.
    let ours = response.header(UPLOAD_TOKEN) == Some(upload.token.as_str())
        && response.header("content-length").and_then(|length| length.parse().ok()) == Some(size);
    let receipt = Receipt { url: s3.url(upload.key.as_str()), etag: response.etag(Operation::Upload)? };
    Ok(if ours { Owner::Ours(receipt) } else { Owner::Foreign })
}

/// Builds a request for the object of a multipart upload.
pub(crate) fn upload_request<'a>(
    s3: &S3Backend,
    method: Method,
    upload: &'a UploadName,
    query: String,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(&upload.key)?;
    Ok(S3Request::plain(Operation::Upload, method, upload.key.as_str(), s3.object_path(&object), query))
}
