//! `ListParts` and `ListMultipartUploads`: the state of uploads that an earlier run created.

use std::io::empty;

use http::Method;
use s3::signing::uri_encode;

use crate::backend::s3::operations::head_object::{Owner, find_owner, upload_request};
use crate::backend::s3::request::S3Request;
use crate::backend::s3::{S3Backend, xml};
use crate::backend::{ListedPart, Reconciled, UploadMarker, UploadName, UploadPage};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::MOST_PARTS;

/// Returns the query parameter that names an upload.
pub(crate) fn upload_id_query(upload: &UploadName) -> String {
    format!("uploadId={}", uri_encode(&upload.upload_id, true))
}

/// Returns the state of an upload: its parts if it is open, its object if it was completed.
pub(crate) fn reconcile(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Reconciled, StorageError> {
    let (mut parts, mut marker) = (Vec::new(), 0);
    loop {
        let query = format!("max-parts=1000&part-number-marker={marker}&{}", upload_id_query(upload));
        let request =
            S3Request { operation: Operation::List, ..upload_request(s3, Method::GET, upload, query)? };
        let page = retry::run(&s3.settings.retry, context, Operation::List, |attempt| {
            let response = s3.client.send(context, attempt, &request, &mut empty())?;
            xml::parse_parts_page(&response.body, &response.secrets)
        });
        let (page, next) = match page {
            Ok(page) => page,
            // A completed upload is gone from the list, too.
            Err(error) if error.code() == Some("NoSuchUpload") => {
                return Ok(match find_owner(s3, context, upload, size)? {
                    Owner::Ours(receipt) => Reconciled::Finished(receipt),
                    _ => Reconciled::Gone,
                });
            }
            Err(error) if is_listing_refused(&error) => return Ok(Reconciled::Unlisted),
            Err(error) => return Err(error),
        };
        // A list that cannot be trusted must not decide which parts are sent again.
        if !continues_in_order(&parts, &page) {
            return Ok(Reconciled::Unlisted);
        }
        parts.extend(page);
        match next {
            None => return Ok(Reconciled::Open(parts)),
            // A marker that does not advance would repeat the page for ever.
            Some(next) if next > marker && u64::from(next) <= MOST_PARTS => marker = next,
            Some(next) => {
                let why = format!("the list of parts continues at part {next} after part {marker}");
                return Err(StorageError::new(ErrorKind::Protocol, Operation::List, why).retryable(false));
            }
        }
    }
}

/// Returns whether a page lists each part once, in order, after the parts before it. That bounds them to 10,000.
fn continues_in_order(before: &[ListedPart], page: &[ListedPart]) -> bool {
    let numbers = before.last().into_iter().chain(page).map(|part| part.number);
    numbers.clone().is_sorted_by(|a, b| a < b)
        && numbers.max().is_none_or(|last| u64::from(last) <= MOST_PARTS)
}

/// Returns whether the store answers but does not list the parts. The upload may still be open, and is resumed
/// without the list.
fn is_listing_refused(error: &StorageError) -> bool {
    use ErrorKind::{AccessDenied, Protocol, Rejected, Server, Unsupported};
    matches!(error.kind(), AccessDenied | Unsupported | Rejected | Server | Protocol)
}

/// Returns one page of the unfinished uploads of a key. `MinIO` lists none unless the prefix is a whole key; other
/// stores also list the keys that begin with it.
pub(crate) fn list_uploads(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    from: Option<&UploadMarker>,
) -> Result<UploadPage, StorageError> {
    let prefix = &s3.settings.address.prefix;
    let object = prefix.join_checked(key)?;
    let after = |name: &str, value: &str| format!("{name}={}&", uri_encode(value, true));
    let mut query = "encoding-type=url&".to_owned();
    query.extend(from.map(|from| after("key-marker", &from.key)));
    query.extend(["max-uploads=1000&".to_owned(), after("prefix", &object)]);
    // A marker without an upload ID begins after all uploads of its key.
    let with_id = from.filter(|from| !from.upload_id.is_empty());
    query.extend(with_id.map(|from| after("upload-id-marker", &from.upload_id)));
    query.push_str("uploads=");
    let request = S3Request::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    retry::run(&s3.settings.retry, context, Operation::List, |attempt| {
        let response = s3.client.send(context, attempt, &request, &mut empty())?;
        xml::parse_uploads_page(&response.body, &response.secrets, prefix.as_str())
    })
}
