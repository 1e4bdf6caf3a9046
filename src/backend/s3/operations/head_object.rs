//! `HeadObject`: whose object lies under a key.

use std::io::empty;

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::checks::UPLOAD_TOKEN;
use crate::backend::s3::request::S3Request;
use crate::backend::{Receipt, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// Whose object lies under a key.
pub(crate) enum Owner {
    /// It carries our token and has our size.
    Us(Receipt),
    Another,
    Nobody,
    /// The credentials may not look.
    Unknown,
}

/// Asks by HEAD. Without permission to list, a missing object is 403 too: that means unknown.
pub(crate) fn owner_of(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Owner, StorageError> {
    let ask = upload_request(s3, Method::HEAD, upload, String::new())?;
    let looked = retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
        s3.client.exchange(exchange, attempt, &ask, &mut empty())
    });
    let answer = match looked {
        Ok(answer) => answer,
        Err(error) => {
            return match error.kind() {
                ErrorKind::NotFound => Ok(Owner::Nobody),
                ErrorKind::AccessDenied => Ok(Owner::Unknown),
                _ => Err(error),
            };
        }
    };
    let ours = answer.header(UPLOAD_TOKEN) == Some(upload.token.as_str())
        && answer.header("content-length").and_then(|length| length.parse().ok()) == Some(size);
    let receipt = Receipt { url: s3.url(upload.key.as_str()), etag: answer.etag(Operation::Upload)? };
    Ok(if ours { Owner::Us(receipt) } else { Owner::Another })
}

/// Makes a request about the object of a multipart upload.
pub(crate) fn upload_request<'a>(
    s3: &S3Backend,
    method: Method,
    upload: &'a UploadName,
    query: String,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(&upload.key)?;
    Ok(S3Request::plain(Operation::Upload, method, upload.key.as_str(), s3.object_path(&object), query))
}
