//! What the store knows of uploads that were begun before, and whose object lies there.

use std::io::empty;

use http::Method;
use s3::signing::uri_encode;

use super::S3Backend;
use super::ask::Ask;
use super::parts::{ask, query_of};
use super::xml;
use crate::backend::{Exchange, ListedPart, Receipt, Reconciled, UploadMarker, UploadName, UploadPage};
use crate::config::UPLOAD_TOKEN;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::retry;
use crate::tree::digest::MOST_PARTS;

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
    exchange: &Exchange<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Owner, StorageError> {
    let ask = ask(s3, Method::HEAD, upload, String::new())?;
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

/// What became of an upload.
pub(crate) fn reconcile(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    upload: &UploadName,
    size: u64,
) -> Result<Reconciled, StorageError> {
    let (mut parts, mut marker) = (Vec::new(), 0);
    loop {
        let query = format!("max-parts=1000&part-number-marker={marker}&{}", query_of(upload));
        let ask = Ask { operation: Operation::List, ..ask(s3, Method::GET, upload, query)? };
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
    exchange: &Exchange<'_>,
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
    let ask = Ask::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty())?;
        xml::uploads_page(&answer.body, &answer.secrets, prefix.as_str())
    })
}
