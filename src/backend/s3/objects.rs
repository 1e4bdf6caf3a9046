//! Deleting and listing.

use std::collections::HashMap;
use std::io::empty;
use std::sync::atomic::Ordering::Relaxed;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Method};
use s3::serde_types::{DeleteObjectsRequest, ObjectIdentifier};
use s3::signing::uri_encode;
use sha2::{Digest as _, Sha256};

use super::S3Backend;
use super::ask::{Answer, Ask};
use super::classify::{advised_for_key, kind_of};
use super::heard::clipped;
use super::xml::{self, KeyRefusal};
use crate::backend::{Deleted, Exchange, Page};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::retry;

/// Deletes keys, with one request for all where the store can and XML carries them.
pub(crate) fn delete_many(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    keys: &[RemoteKey],
) -> Result<Deleted, StorageError> {
    let bulk = keys.len() > 1 && !s3.lacks_bulk_delete.load(Relaxed);
    let (together, alone): (Vec<_>, Vec<_>) =
        keys.iter().cloned().partition(|key| bulk && xml::can_carry(key.as_str()));
    let mut results = Deleted::with_capacity(keys.len());
    if !together.is_empty() {
        match delete_together(s3, exchange, &together) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                s3.lacks_bulk_delete.store(true, Relaxed);
                results.extend(delete_each(s3, exchange, together));
            }
            done => results.extend(done?),
        }
    }
    results.extend(delete_each(s3, exchange, alone));
    Ok(results)
}

fn delete_each(s3: &S3Backend, exchange: &Exchange<'_>, keys: Vec<RemoteKey>) -> Deleted {
    keys.into_iter()
        .map(|key| {
            let result = delete_one(s3, exchange, &key);
            (key, result)
        })
        .collect()
}

/// Deletes one object; one that is gone is deleted.
pub(crate) fn delete_one(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    key: &RemoteKey,
) -> Result<(), StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let ask =
        Ask::plain(Operation::Delete, Method::DELETE, key.as_str(), s3.object_path(&object), String::new());
    s3.watched(exchange, Operation::Delete, key.as_str(), 0, |attempts| {
        match send(s3, exchange, attempts, &ask) {
            Ok(answer) => Ok(((), answer.request_id())),
            // Only the store knows that an object is gone; another 404 is somebody in between.
            Err(error) if error.code() == Some("NoSuchKey") => Ok(((), String::new())),
            Err(error) => Err(error),
        }
    })
}

fn delete_together(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    keys: &[RemoteKey],
) -> Result<Deleted, StorageError> {
    let objects = keys
        .iter()
        .map(|key| s3.settings.address.prefix.join_checked(key).map(ObjectIdentifier::new))
        .collect::<Result<_, _>>()?;
    let body = DeleteObjectsRequest { objects, quiet: true }.to_string();
    let payload = hex::encode(Sha256::digest(&body));
    let md5 = BASE64_STANDARD.encode(md5::compute(&body).0);
    let md5 =
        HeaderValue::from_str(&md5).map_err(|_| StorageError::config("content-md5", "cannot be sent"))?;
    let ask = Ask {
        headers: HeaderMap::from_iter([
            (http::HeaderName::from_static("content-md5"), md5),
            (http::header::CONTENT_TYPE, HeaderValue::from_static("application/xml")),
        ]),
        payload: &payload,
        length: body.len() as u64,
        ..Ask::plain(
            Operation::Delete,
            Method::POST,
            "",
            s3.settings.address.path.clone(),
            "delete=".to_owned(),
        )
    };
    for key in keys {
        exchange.trace.started("delete", key.as_str(), &s3.bucket, 0);
    }
    let (began, mut attempts) = (exchange.clock.now(), 0);
    let result = retry::run(&s3.settings.retry, exchange, Operation::Delete, |attempt| {
        attempts = attempt;
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut body.as_bytes())?;
        let refused = xml::refused_keys(&answer.body, &answer.secrets)?;
        settle(s3, keys, refused).map(|results| (results, answer.request_id()))
    });
    let elapsed = exchange.clock.now().saturating_sub(began);
    let id = result.as_ref().map_or("", |(_, id)| id.as_str());
    for (index, key) in keys.iter().enumerate() {
        let of_key = result
            .as_ref()
            .map_err(ToString::to_string)
            .and_then(|(results, _)| results[index].1.as_ref().copied().map_err(ToString::to_string));
        s3.report(exchange, Operation::Delete, key.as_str(), 0, attempts, elapsed, of_key, id);
    }
    result.map(|(results, _)| results)
}

/// What became of each key: with quiet on, the answer only names those that failed.
fn settle(s3: &S3Backend, keys: &[RemoteKey], errors: Vec<KeyRefusal>) -> Result<Deleted, StorageError> {
    let mut failed: HashMap<String, KeyRefusal> =
        errors.into_iter().map(|error| (error.key.clone(), error)).collect();
    let results = keys
        .iter()
        .map(|key| {
            let result = match failed.remove(&s3.settings.address.prefix.join(key.as_str())) {
                Some(error) => key_error(s3, key, error),
                None => Ok(()),
            };
            (key.clone(), result)
        })
        .collect();
    match failed.into_values().next() {
        None => Ok(results),
        Some(stranger) => {
            let what = format!("the answer names a key that was not asked for: {:?}", clipped(&stranger.key));
            Err(StorageError::new(ErrorKind::Protocol, Operation::Delete, what))
        }
    }
}

fn key_error(s3: &S3Backend, key: &RemoteKey, error: KeyRefusal) -> Result<(), StorageError> {
    let code = error.code;
    // Without a code of its own a key's failure is the store's.
    let kind = if code.is_empty() { ErrorKind::Server } else { kind_of(400, &code) };
    if code == "NoSuchKey" {
        return Ok(());
    }
    let text = format!("the store refused it: {code} {}", error.message);
    let error = StorageError::new(kind, Operation::Delete, text.trim_end());
    Err(advised_for_key(error, &s3.bucket).with_key(key.as_str()).with_code(Some(code)))
}

/// One small request, tried once, whose refusal says what the store has against all of them.
pub(crate) fn ask_for_one(s3: &S3Backend, exchange: &Exchange<'_>) -> Result<(), StorageError> {
    let prefix = uri_encode(s3.settings.address.prefix.as_str(), true);
    let query = format!("list-type=2&max-keys=1&prefix={prefix}");
    let ask = Ask::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    s3.client.exchange(exchange, 1, &ask, &mut empty()).map(drop)
}

/// One page of the objects under the prefix.
pub(crate) fn list(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    from: Option<&str>,
) -> Result<Page, StorageError> {
    let mut query = String::new();
    if let Some(token) = from {
        query = format!("continuation-token={}&", uri_encode(token, true));
    }
    query.push_str("encoding-type=url&list-type=2&max-keys=1000&prefix=");
    query.push_str(&uri_encode(s3.settings.address.prefix.as_str(), true));
    let ask = Ask::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    let page = retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty())?;
        xml::list_page(&answer.body, &answer.secrets, s3.settings.address.prefix.as_str())
    })?;
    Ok(page)
}

fn send(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    attempts: &mut u32,
    ask: &Ask<'_>,
) -> Result<Answer, StorageError> {
    retry::run(&s3.settings.retry, exchange, ask.operation, |attempt| {
        *attempts = attempt;
        s3.client.exchange(exchange, attempt, ask, &mut empty())
    })
}
