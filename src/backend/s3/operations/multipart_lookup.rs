//! What the store knows of uploads that were begun before, and whose object lies there.

use std::io::empty;

use http::Method;
use s3::signing::uri_encode;

use crate::backend::s3::S3Backend;
use crate::backend::s3::operations::head_object::{Owner, owner_of, upload_request};
use crate::backend::s3::request::S3Request;
use crate::backend::s3::xml;
use crate::backend::{ListedPart, Reconciled, UploadMarker, UploadName, UploadPage};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::MOST_PARTS;

pub(crate) fn query_of(upload: &UploadName) -> String {
    format!("uploadId={}", uri_encode(&upload.upload_id, true))
}

/// What became of an upload.
pub(crate) fn reconcile(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Reconciled, StorageError> {
    let (mut parts, mut marker) = (Vec::new(), 0);
    loop {
        let query = format!("max-parts=1000&part-number-marker={marker}&{}", query_of(upload));
        let ask = S3Request { operation: Operation::List, ..upload_request(s3, Method::GET, upload, query)? };
        let page = retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
            let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty())?;
            xml::parts_page(&answer.body, &answer.secrets)
        });
        let (page, next) = match page {
            Ok(page) => page,
            Err(error) if error.code() == Some("NoSuchUpload") => {
                return Ok(match owner_of(s3, exchange, upload, size)? {
                    Owner::Us(receipt) => Reconciled::Finished(receipt),
                    _ => Reconciled::Gone,
                });
            }
            Err(error) if cannot_list(&error) => return Ok(Reconciled::Unlisted),
            Err(error) => return Err(error),
        };
        if !goes_on(&parts, &page) {
            return Ok(Reconciled::Unlisted);
        }
        parts.extend(page);
        match next {
            None => return Ok(Reconciled::Open(parts)),
            Some(next) if next > marker && u64::from(next) <= MOST_PARTS => marker = next,
            Some(next) => {
                let why = format!("the list of parts goes on behind part {next}, after part {marker}");
                return Err(StorageError::new(ErrorKind::Protocol, Operation::List, why).retryable(false));
            }
        }
    }
}

/// Whether a page lists each part once, in order, behind those before it: parts are at most 10,000 then.
fn goes_on(before: &[ListedPart], page: &[ListedPart]) -> bool {
    let numbers = before.last().into_iter().chain(page).map(|part| part.number);
    numbers.clone().is_sorted_by(|a, b| a < b)
        && numbers.max().is_none_or(|last| u64::from(last) <= MOST_PARTS)
}

/// Whether the list is not to be had from a store that may be there all the same: that must not keep the
/// parts from it.
fn cannot_list(error: &StorageError) -> bool {
    use ErrorKind::{AccessDenied, Protocol, Rejected, Server, Unsupported};
    matches!(error.kind(), AccessDenied | Unsupported | Rejected | Server | Protocol)
}

/// One page of the unfinished uploads of a key. `MinIO` lists none unless the prefix is a whole key; others list keys
/// that begin with it as well.
pub(crate) fn list(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    key: &RemoteKey,
    from: Option<&UploadMarker>,
) -> Result<UploadPage, StorageError> {
    let prefix = &s3.settings.address.prefix;
    let object = prefix.join_checked(key)?;
    let after = |name: &str, value: &str| format!("{name}={}&", uri_encode(value, true));
    let mut query = "encoding-type=url&".to_owned();
    query.extend(from.map(|from| after("key-marker", &from.key)));
    query.extend(["max-uploads=1000&".to_owned(), after("prefix", &object)]);
    let with_id = from.filter(|from| !from.upload_id.is_empty());
    query.extend(with_id.map(|from| after("upload-id-marker", &from.upload_id)));
    query.push_str("uploads=");
    let ask = S3Request::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty())?;
        xml::uploads_page(&answer.body, &answer.secrets, prefix.as_str())
    })
}
