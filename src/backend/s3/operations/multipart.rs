//! Sending a file in parts: begin, part, finish, abort.

use std::io::empty;
use std::time::Duration;

use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use crate::backend::s3::S3Backend;
use crate::backend::s3::checks::UPLOAD_TOKEN;
use crate::backend::s3::operations::head_object::{Owner, owner_of, upload_request};
use crate::backend::s3::operations::multipart_lookup::query_of;
use crate::backend::s3::operations::put_object::{add_checksum, explained, object_headers, set};
use crate::backend::s3::request::{Answer, S3Request};
use crate::backend::s3::xml;
use crate::backend::{Assembly, Begun, Finished, PartUpload, Receipt, UploadName};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::{LARGEST_PART, PartPlan};

/// A store puts an object of thousands of parts together while the client waits; AWS says "several minutes"
/// (Amazon S3 API Reference, `CompleteMultipartUpload`).
const PATIENCE_FOR_COMPLETE: Duration = Duration::from_secs(600);

/// How a file is cut; `None`: it goes in one request.
pub(crate) fn plan(s3: &S3Backend, size: u64) -> Result<Option<PartPlan>, StorageError> {
    let settings = &s3.settings;
    let too_large = || {
        let most = settings.largest_object;
        let why = format!("{size} bytes are more than the {most} of the store's largest object");
        StorageError::new(ErrorKind::TooLarge, Operation::Upload, why)
            .advise("largest_object says what the store takes")
    };
    if size > settings.largest_object {
        return Err(too_large());
    }
    if size <= settings.part_threshold.min(LARGEST_PART) {
        return Ok(None);
    }
    PartPlan::new(size, settings.part_size).map(Some).ok_or_else(too_large)
}

/// Begins an upload.
pub(crate) fn begin(s3: &S3Backend, exchange: &RequestContext<'_>, key: &RemoteKey, token: &str) -> Begun {
    let mut lost = false;
    let upload_id = initiate(s3, key, token).and_then(|ask| {
        retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
            let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty());
            let upload_id = answer.and_then(|answer| xml::upload_id(&answer.body, &answer.secrets));
            upload_id
                .inspect_err(|error| lost |= may_have_had_an_effect(error))
                .map_err(|e| e.with_key(key.as_str()))
        })
    });
    Begun { upload_id, lost }
}

fn initiate<'a>(s3: &S3Backend, key: &'a RemoteKey, token: &str) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let mut headers = object_headers(s3, key)?;
    set(&mut headers, UPLOAD_TOKEN, token)?;
    if s3.settings.checksum_header {
        set(&mut headers, "x-amz-checksum-algorithm", "SHA256")?;
    }
    let (path, query) = (s3.object_path(&object), "uploads=".to_owned());
    Ok(S3Request { headers, ..S3Request::plain(Operation::Upload, Method::POST, key.as_str(), path, query) })
}

/// Whether a request that ended so was, perhaps, carried out all the same.
fn may_have_had_an_effect(error: &StorageError) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network | ErrorKind::Protocol | ErrorKind::Server)
}

/// Sends a part, streamed from disk, repeated where that may help.
pub(crate) fn part(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    part: &PartUpload<'_>,
) -> Result<String, StorageError> {
    let (source, payload) = (part.source, hex::encode(part.sha256));
    let mut headers = HeaderMap::new();
    add_checksum(s3, &mut headers, part.sha256)?;
    let query = format!("partNumber={}&{}", part.number, query_of(part.upload));
    let ask = S3Request {
        headers,
        payload: &payload,
        length: part.length,
        ..upload_request(s3, Method::PUT, part.upload, query)?
    };
    let mut reread = false;
    retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
        let mut body = source.range_reader(part.offset, part.length, s3.settings.chunk_size);
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut body).map_err(|error| {
            let same = || Ok(source.hash_range(part.offset, part.length, |_| Ok(()))? == *part.sha256);
            explained(s3, exchange, attempt, error, &mut reread, same)
        })?;
        tag_of_part(&answer).map_err(|error| error.with_key(part.upload.key.as_str()))
    })
}

fn tag_of_part(answer: &Answer) -> Result<String, StorageError> {
    answer.etag(Operation::Upload)?.ok_or_else(|| {
        let why = "the answer to a part has no ETag, which is needed to put the parts together";
        StorageError::new(ErrorKind::Protocol, Operation::Upload, why).retryable(false)
    })
}

/// Makes the object of its parts. Where the answer was lost, the object itself says whether it is ours.
pub(crate) fn finish(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    assembly: &Assembly<'_>,
) -> Result<Finished, StorageError> {
    let upload = assembly.upload;
    let body = xml::complete_body(assembly.parts, s3.settings.checksum_header);
    let payload = hex::encode(Sha256::digest(&body));
    let ask = S3Request {
        headers: HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/xml"),
        )]),
        payload: &payload,
        length: body.len() as u64,
        patience: Some(PATIENCE_FOR_COMPLETE),
        ..upload_request(s3, Method::POST, upload, query_of(upload))?
    };
    let mut in_doubt = false;
    let result = retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut body.as_bytes());
        let finished = answer.and_then(|answer| finished(s3, upload, &answer));
        in_doubt |= finished.as_ref().is_err_and(may_have_had_an_effect);
        match finished {
            Err(error) if error.code() == Some("NoSuchUpload") => look(s3, exchange, assembly, error),
            other => other,
        }
    });
    match result {
        Err(error) if in_doubt && error.kind().is_outage() => look(s3, exchange, assembly, error),
        other => other,
    }
    .map_err(|error| error.with_key(upload.key.as_str()))
}

fn finished(s3: &S3Backend, upload: &UploadName, answer: &Answer) -> Result<Finished, StorageError> {
    let etag = xml::completed(&answer.body, &answer.secrets)?;
    let receipt = Receipt { url: s3.url(upload.key.as_str()), etag };
    Ok(Finished { receipt, request_id: answer.request_id() })
}

/// Whether our own upload is what lies there, although `error` is all that was heard of it.
fn look(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    assembly: &Assembly<'_>,
    error: StorageError,
) -> Result<Finished, StorageError> {
    match owner_of(s3, exchange, assembly.upload, assembly.size) {
        Ok(Owner::Us(receipt)) => Ok(Finished { receipt, request_id: String::new() }),
        Ok(Owner::Another) if error.code() == Some("NoSuchUpload") => {
            let why = "the upload is gone, and another object lies in its place; the next rescan sends the file again";
            Err(StorageError::new(ErrorKind::NotFound, Operation::Upload, why).with_source(error))
        }
        // Not there, not to be known, or not to be reached: what was heard stands.
        _ => Err(error),
    }
}

/// Gives up an upload; one that is gone is given up.
pub(crate) fn abort(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    upload: &UploadName,
) -> Result<(), StorageError> {
    let ask = S3Request {
        operation: Operation::Abort,
        ..upload_request(s3, Method::DELETE, upload, query_of(upload))?
    };
    s3.watched(exchange, Operation::Abort, upload.key.as_str(), 0, |attempts| {
        let sent = retry::run(&s3.settings.retry, exchange, Operation::Abort, |attempt| {
            *attempts = attempt;
            s3.client.exchange(exchange, attempt, &ask, &mut empty())
        });
        match sent {
            Ok(answer) => Ok(((), answer.request_id())),
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(((), String::new())),
            Err(error) => Err(error),
        }
    })
}
