//! `ListObjectsV2`: pages of the listing, and the small request that finds a general refusal.

use std::io::empty;
use std::time::Duration;

use http::Method;
use s3::signing::uri_encode;

use crate::backend::Page;
use crate::backend::s3::request::S3Request;
use crate::backend::s3::{S3Backend, xml};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// Lists one object under the prefix, and reads nothing of it.
pub(crate) fn send_list_one(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    attempt: u32,
    timeout: Option<Duration>,
) -> Result<(), StorageError> {
    let prefix = uri_encode(s3.settings.address.prefix.as_str(), true);
    let query = format!("list-type=2&max-keys=1&prefix={prefix}");
    let path = s3.settings.address.path.clone();
    let request = S3Request { timeout, ..S3Request::plain(Operation::List, Method::GET, "", path, query) };
    s3.client.send(context, attempt, &request, &mut empty()).map(drop)
}

/// Lists one object, without retries: if the store refuses every request, its error says why.
pub(crate) fn list_one_object(s3: &S3Backend, context: &RequestContext<'_>) -> Result<(), StorageError> {
    send_list_one(s3, context, 1, None)
}

/// Returns one page of the objects under the prefix whose keys begin with `under`.
pub(crate) fn list_objects(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    under: &str,
    from: Option<&str>,
) -> Result<Page, StorageError> {
    let prefix = &s3.settings.address.prefix;
    let mut query = String::new();
    if let Some(token) = from {
        query = format!("continuation-token={}&", uri_encode(token, true));
    }
    query.push_str("encoding-type=url&list-type=2&max-keys=1000&prefix=");
    query.push_str(&uri_encode(&prefix.join(under), true));
    let request = S3Request::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    retry::run(&s3.settings.retry, context, Operation::List, |attempt| {
        let response = s3.client.send(context, attempt, &request, &mut empty())?;
        let page = xml::parse_list_page(&response.body, &response.secrets, prefix.as_str())?;
        // Such a page is the answer to another request, as one outside of the prefix is.
        if !page.objects.iter().all(|object| object.key.starts_with(under)) {
            let what = format!("the listing holds keys that do not begin with {under:?}");
            return Err(StorageError::new(ErrorKind::Protocol, Operation::List, what));
        }
        Ok(page)
    })
}
