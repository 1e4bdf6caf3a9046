//! `DeleteObjects` and `DeleteObject`: one request for many keys if the store supports it, else one for each.

use std::collections::HashMap;
use std::io::empty;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::{Digest as _, Sha256};

use crate::backend::s3::S3Backend;
use crate::backend::s3::errors::{kind_of_code, with_advice_for_key};
use crate::backend::s3::operations::conditional::{check_deleted, is_refused, set_condition};
use crate::backend::s3::redaction::truncated;
use crate::backend::s3::request::{Changed, S3Request, S3Response};
use crate::backend::s3::xml::{self, KeyRefusal};
use crate::backend::{Condition, Deleted};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// Deletes keys, with one request for all that XML can carry, if the store supports that.
pub(crate) fn delete_many(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    keys: &[(RemoteKey, Condition)],
) -> Result<Deleted, StorageError> {
    // One key needs no batch, and a plain DELETE needs no XML.
    let bulk = keys.len() > 1 && !s3.lacks_bulk_delete.load(Relaxed);
    let (together, alone): (Vec<_>, Vec<_>) =
        keys.iter().cloned().partition(|target| bulk && fits_into_batch(target));
    let mut results = Deleted::with_capacity(keys.len());
    if !together.is_empty() {
        match delete_batch(s3, context, &together) {
            // Deletes one by one, and remembers a store that cannot do it together.
            Err(error) if may_lack_bulk_delete(&error) => {
                let each = delete_one_by_one(s3, context, together);
                if proves_no_bulk_delete(&error, &each) {
                    s3.lacks_bulk_delete.store(true, Relaxed);
                }
                results.extend(each);
            }
            done => results.extend(done?),
        }
    }
    results.extend(delete_one_by_one(s3, context, alone));
    Ok(results)
}

/// Returns whether a key and its condition can be written in XML.
fn fits_into_batch((key, condition): &(RemoteKey, Condition)) -> bool {
    let carries = |etag: String| xml::can_carry(&etag);
    xml::can_carry(key.as_str())
        && *condition != Condition::Absent
        && condition.quoted_etag().is_none_or(carries)
}

const INVALID_ARGUMENT: &str = "InvalidArgument";

/// Returns whether the store may not support `DeleteObjects`. GCS parses the request as an upload form and reports an
/// invalid argument.
fn may_lack_bulk_delete(error: &StorageError) -> bool {
    error.kind() == ErrorKind::Unsupported || error.code() == Some(INVALID_ARGUMENT)
}

/// Returns whether the store refused the operation, not one of the keys.
fn proves_no_bulk_delete(error: &StorageError, each: &Deleted) -> bool {
    let invalid = |result: &Result<(), StorageError>| {
        result.as_ref().is_err_and(|error| error.code() == Some(INVALID_ARGUMENT))
    };
    // If single deletes work and none is an invalid argument, the batch itself was.
    error.kind() == ErrorKind::Unsupported
        || (each.iter().any(|(_, result)| result.is_ok()) && !each.iter().any(|(_, result)| invalid(result)))
}

fn delete_one_by_one(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    keys: Vec<(RemoteKey, Condition)>,
) -> Deleted {
    keys.into_iter()
        .map(|(key, condition)| {
            let result = delete_one(s3, context, &key, &condition);
            (key, result)
        })
        .collect()
}

/// Deletes an object of the state, without a log record of its own. One that is gone already is success.
pub(crate) fn delete_of_state(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
) -> Result<(), StorageError> {
    let request = delete_request(s3, key, &Condition::None)?;
    let sent = retry::run(&s3.settings.retry, context, Operation::Delete, |attempt| {
        s3.client.send(context, attempt, &request, &mut empty()).map(drop)
    });
    match sent {
        Err(error) if error.code() == Some("NoSuchKey") => Ok(()),
        other => other,
    }
}

fn delete_request<'a>(
    s3: &S3Backend,
    key: &'a RemoteKey,
    condition: &Condition,
) -> Result<S3Request<'a>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let (path, mut headers) = (s3.object_path(&object), HeaderMap::new());
    set_condition(&mut headers, condition)?;
    let plain = S3Request::plain(Operation::Delete, Method::DELETE, key.as_str(), path, String::new());
    Ok(S3Request { headers, ..plain })
}

/// Deletes one object on its condition. One that is gone already is success.
pub(crate) fn delete_one(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    condition: &Condition,
) -> Result<(), StorageError> {
    let request = delete_request(s3, key, condition)?;
    s3.with_records(context, Operation::Delete, key.as_str(), 0, |attempts| {
        // Where nothing is expected there is nothing to send.
        if *condition == Condition::Absent {
            let refusal = StorageError::new(ErrorKind::Conflict, Operation::Delete, "not sent");
            return Ok((check_deleted(s3, context, key, condition, &refusal)?, String::new()));
        }
        let sent = retry::run(&s3.settings.retry, context, Operation::Delete, |attempt| {
            *attempts = attempt;
            s3.client.send(context, attempt, &request, &mut empty())
        });
        match sent {
            Ok(response) => Ok(((), response.request_id())),
            Err(error) if is_refused(condition, &error) => {
                Ok((check_deleted(s3, context, key, condition, &error)?, String::new()))
            }
            // Only a store sends this code: any other 404 comes from a proxy in between.
            Err(error) if error.code() == Some("NoSuchKey") => Ok(((), String::new())),
            Err(error) => Err(error),
        }
    })
}

/// Deletes keys with one request, and sends further ones for the keys that the store defers. The outer error means
/// that no try had a response.
fn delete_batch(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    keys: &[(RemoteKey, Condition)],
) -> Result<Deleted, StorageError> {
    let objects = keys.iter().map(|(key, _)| s3.settings.address.prefix.join_checked(key));
    let mut batch = Batch::new(keys, objects.collect::<Result<_, _>>()?);
    for (key, _) in keys {
        context.trace.started("delete", key.as_str(), &s3.bucket, 0);
    }
    let began = context.clock.now();
    let (mut changed, mut attempts) = (Changed::default(), 0);
    let sent = retry::run(&s3.settings.retry, context, Operation::Delete, |attempt| {
        attempts = attempt;
        // The errors of an earlier try are outdated, whatever this one brings.
        batch.deferred.clear();
        let response = send_batch(s3, context, attempt, &batch.body(), &mut changed)?;
        batch.apply_response(s3, attempt, context.clock.now().saturating_sub(began), &response)
    });
    let elapsed = context.clock.now().saturating_sub(began);
    if let Err(error) = &sent {
        batch.fail_pending(error, attempts, elapsed);
    }
    batch.settle_refused(s3, context);
    batch.record_ends(s3, context, elapsed);
    // Once a try had a response, each key has its own result, also if the last try failed.
    match sent {
        Err(error) if !batch.answered => Err(error),
        _ => Ok(batch.into_results()),
    }
}

/// Sends one `DeleteObjects`. The response names only the objects that were not deleted (`quiet`).
fn send_batch(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    attempt: u32,
    body: &str,
    changed: &mut Changed,
) -> Result<S3Response, StorageError> {
    let payload = hex::encode(Sha256::digest(body));
    // S3 requires the MD5 of this request, although the signature covers the body.
    let md5 = BASE64_STANDARD.encode(md5::compute(body).0);
    let md5 =
        HeaderValue::from_str(&md5).map_err(|_| StorageError::config("content-md5", "cannot be sent"))?;
    let (path, query) = (s3.settings.address.path.clone(), "delete=".to_owned());
    let request = S3Request {
        headers: HeaderMap::from_iter([
            (HeaderName::from_static("content-md5"), md5),
            (CONTENT_TYPE, HeaderValue::from_static("application/xml")),
        ]),
        payload: &payload,
        length: body.len() as u64,
        changed: std::mem::take(changed),
        ..S3Request::plain(Operation::Delete, Method::POST, "", path, query)
    };
    let result = s3.client.send(context, attempt, &request, &mut body.as_bytes());
    *changed = request.changed;
    result
}

/// The keys of one `DeleteObjects`, across its retries.
struct Batch<'a> {
    keys: &'a [(RemoteKey, Condition)],
    /// The names of the keys' objects in the bucket.
    objects: Vec<String>,
    /// The results, by the index of the key; `None` if it is still to be deleted.
    results: Vec<Option<KeyResult>>,
    /// The errors of the keys that the last response deferred, by index.
    deferred: HashMap<usize, StorageError>,
    /// At least one try had a response.
    answered: bool,
}

/// The result of one key, with the facts for its log record.
struct KeyResult {
    result: Result<(), StorageError>,
    attempts: u32,
    request_id: String,
}

impl<'a> Batch<'a> {
    fn new(keys: &'a [(RemoteKey, Condition)], objects: Vec<String>) -> Self {
        let results = keys.iter().map(|_| None).collect();
        Self { keys, objects, results, deferred: HashMap::new(), answered: false }
    }

    fn pending_indexes(&self) -> Vec<usize> {
        (0..self.keys.len()).filter(|index| self.results[*index].is_none()).collect()
    }

    /// The body of a request for the keys that are still to be deleted.
    fn body(&self) -> String {
        let pending = self.pending_indexes().into_iter();
        xml::delete_body(
            pending.map(|index| (self.objects[index].as_str(), self.keys[index].1.quoted_etag())),
        )
    }

    /// Records the results in a response. Returns an error if it defers keys: they are worth a retry.
    fn apply_response(
        &mut self,
        s3: &S3Backend,
        attempt: u32,
        elapsed: Duration,
        response: &S3Response,
    ) -> Result<(), StorageError> {
        let refused = xml::parse_refused_keys(&response.body, &response.secrets)?;
        let mut refused: HashMap<String, KeyRefusal> =
            refused.into_iter().map(|refusal| (refusal.key.clone(), refusal)).collect();
        let found: Vec<_> = self
            .pending_indexes()
            .into_iter()
            .map(|index| (index, refused.remove(&self.objects[index])))
            .collect();
        // Such a response says nothing about our keys.
        if let Some(unknown) = refused.into_keys().next() {
            let what =
                format!("the response names a key that is not in the request: {:?}", truncated(&unknown));
            return Err(StorageError::new(ErrorKind::Protocol, Operation::Delete, what));
        }
        self.answered = true;
        for (index, refusal) in found {
            match refusal.map_or(Ok(()), |refusal| check_key_refusal(s3, &self.keys[index], refusal)) {
                // The next try sends this key again.
                Err(error) if error.is_retryable() => {
                    self.deferred.insert(index, error);
                }
                result => {
                    let result = result.map_err(|error| error.with_attempts(attempt, elapsed));
                    let request_id = response.request_id();
                    self.results[index] = Some(KeyResult { result, attempts: attempt, request_id });
                }
            }
        }
        self.deferred_error().map_or(Ok(()), Err)
    }

    /// Returns one error for all deferred keys. A busy store comes first: it is retried longer.
    fn deferred_error(&self) -> Option<StorageError> {
        let busy = |error: &&StorageError| error.kind() == ErrorKind::Throttled;
        let first = self.deferred.values().find(busy).or_else(|| self.deferred.values().next())?;
        let (count, all) = (self.deferred.len(), self.keys.len());
        let what = format!("the store deferred {count} of {all} keys: {}", first.message());
        let code = first.code().map(str::to_owned);
        Some(StorageError::new(first.kind(), Operation::Delete, what).with_code(code))
    }

    /// Ends the retries: the remaining keys fail with the store's error for them, or with `error`.
    fn fail_pending(&mut self, error: &StorageError, attempts: u32, elapsed: Duration) {
        for index in self.pending_indexes() {
            let of_key = self.deferred.remove(&index).unwrap_or_else(|| error.repeated());
            let of_key = of_key.with_key(self.keys[index].0.as_str()).with_attempts(attempts, elapsed);
            let request_id = of_key.request_id().unwrap_or_default().to_owned();
            self.results[index] = Some(KeyResult { result: Err(of_key), attempts, request_id });
        }
    }

    /// Looks at the objects whose conditions failed.
    fn settle_refused(&mut self, s3: &S3Backend, context: &RequestContext<'_>) {
        for ((key, condition), ended) in self.keys.iter().zip(&mut self.results) {
            if let Some(KeyResult { result, .. }) = ended
                && let Err(refusal) = result
                && is_refused(condition, refusal)
            {
                *result = check_deleted(s3, context, key, condition, refusal);
            }
        }
    }

    fn record_ends(&self, s3: &S3Backend, context: &RequestContext<'_>, elapsed: Duration) {
        for ((key, _), ended) in self.keys.iter().zip(self.results.iter().flatten()) {
            let outcome = ended.result.as_ref().copied().map_err(ToString::to_string);
            let (key, id) = (key.as_str(), ended.request_id.as_str());
            s3.record_end(context, Operation::Delete, key, 0, ended.attempts, elapsed, outcome, id);
        }
    }

    fn into_results(self) -> Deleted {
        let ended = self.results.into_iter().flatten().map(|ended| ended.result);
        self.keys.iter().map(|(key, _)| key.clone()).zip(ended).collect()
    }
}

/// Returns the error that a response reports for one key. A missing object is success if the key had no condition.
fn check_key_refusal(
    s3: &S3Backend,
    (key, condition): &(RemoteKey, Condition),
    refusal: KeyRefusal,
) -> Result<(), StorageError> {
    let KeyRefusal { code, message, .. } = refusal;
    // Deleting what is gone is success, though only some stores report it.
    if code == "NoSuchKey" && *condition == Condition::None {
        return Ok(());
    }
    // An error without a code is the store's own failure, and may be retried.
    let kind = if code.is_empty() { ErrorKind::Server } else { kind_of_code(400, &code) };
    let text = format!("the store refused to delete it: {code} {message}");
    let error = StorageError::new(kind, Operation::Delete, text.trim_end());
    Err(with_advice_for_key(error, &s3.bucket).with_key(key.as_str()).with_code(Some(code)))
}
