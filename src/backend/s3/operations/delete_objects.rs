//! Deleting: many keys with one request where the store can, else one by one.

use std::collections::HashMap;
use std::io::empty;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use s3::serde_types::{DeleteObjectsRequest, ObjectIdentifier};
use sha2::{Digest as _, Sha256};

use crate::backend::Deleted;
use crate::backend::s3::S3Backend;
use crate::backend::s3::errors::{advised_for_key, kind_of};
use crate::backend::s3::redaction::clipped;
use crate::backend::s3::request::{Answer, Changed, S3Request};
use crate::backend::s3::xml;
use crate::backend::s3::xml::KeyRefusal;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// Deletes keys, with one request for all where the store can and XML carries them.
pub(crate) fn delete_many(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    keys: &[RemoteKey],
) -> Result<Deleted, StorageError> {
    let bulk = keys.len() > 1 && !s3.lacks_bulk_delete.load(Relaxed);
    let (together, alone): (Vec<_>, Vec<_>) =
        keys.iter().cloned().partition(|key| bulk && xml::can_carry(key.as_str()));
    let mut results = Deleted::with_capacity(keys.len());
    if !together.is_empty() {
        match delete_together(s3, exchange, &together) {
            Err(error) if may_lack_bulk_delete(&error) => {
                let each = delete_each(s3, exchange, together);
                if shows_lack(&error, &each) {
                    s3.lacks_bulk_delete.store(true, Relaxed);
                }
                results.extend(each);
            }
            done => results.extend(done?),
        }
    }
    results.extend(delete_each(s3, exchange, alone));
    Ok(results)
}

const INVALID_ARGUMENT: &str = "InvalidArgument";

/// Stores without `DeleteObjects` say so; GCS takes it for a form and calls it an invalid argument.
fn may_lack_bulk_delete(error: &StorageError) -> bool {
    error.kind() == ErrorKind::Unsupported || error.code() == Some(INVALID_ARGUMENT)
}

/// Whether it was the operation that the store refused, and not one of the keys.
fn shows_lack(error: &StorageError, each: &Deleted) -> bool {
    let invalid = |result: &Result<(), StorageError>| {
        result.as_ref().is_err_and(|error| error.code() == Some(INVALID_ARGUMENT))
    };
    error.kind() == ErrorKind::Unsupported
        || (each.iter().any(|(_, result)| result.is_ok()) && !each.iter().any(|(_, result)| invalid(result)))
}

fn delete_each(s3: &S3Backend, exchange: &RequestContext<'_>, keys: Vec<RemoteKey>) -> Deleted {
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
    exchange: &RequestContext<'_>,
    key: &RemoteKey,
) -> Result<(), StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let ask = S3Request::plain(
        Operation::Delete,
        Method::DELETE,
        key.as_str(),
        s3.object_path(&object),
        String::new(),
    );
    s3.watched(exchange, Operation::Delete, key.as_str(), 0, |attempts| {
        let sent = retry::run(&s3.settings.retry, exchange, Operation::Delete, |attempt| {
            *attempts = attempt;
            s3.client.exchange(exchange, attempt, &ask, &mut empty())
        });
        match sent {
            Ok(answer) => Ok(((), answer.request_id())),
            // Only the store knows that an object is gone; another 404 is somebody in between.
            Err(error) if error.code() == Some("NoSuchKey") => Ok(((), String::new())),
            Err(error) => Err(error),
        }
    })
}

/// One request for all, and further ones for those that the store puts off. The outer error: no try was answered.
fn delete_together(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    keys: &[RemoteKey],
) -> Result<Deleted, StorageError> {
    let objects = keys.iter().map(|key| s3.settings.address.prefix.join_checked(key));
    let mut batch = Batch::new(keys, objects.collect::<Result<_, _>>()?);
    for key in keys {
        exchange.trace.started("delete", key.as_str(), &s3.bucket, 0);
    }
    let began = exchange.clock.now();
    let (mut changed, mut attempts) = (Changed::default(), 0);
    let sent = retry::run(&s3.settings.retry, exchange, Operation::Delete, |attempt| {
        attempts = attempt;
        batch.put_off.clear();
        let answer = request(s3, exchange, attempt, &batch.left_objects(), &mut changed)?;
        batch.settle(s3, attempt, exchange.clock.now().saturating_sub(began), &answer)
    });
    let elapsed = exchange.clock.now().saturating_sub(began);
    if let Err(error) = &sent {
        batch.give_up(error, attempts, elapsed);
    }
    batch.report(s3, exchange, elapsed);
    match sent {
        Err(error) if !batch.answered => Err(error),
        _ => Ok(batch.results()),
    }
}

/// Asks once for these objects to be deleted; only those that are not are named in the answer.
fn request(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    attempt: u32,
    objects: &[&String],
    changed: &mut Changed,
) -> Result<Answer, StorageError> {
    let objects = objects.iter().map(|object| ObjectIdentifier::new((*object).clone())).collect();
    let body = DeleteObjectsRequest { objects, quiet: true }.to_string();
    let payload = hex::encode(Sha256::digest(&body));
    let md5 = BASE64_STANDARD.encode(md5::compute(&body).0);
    let md5 =
        HeaderValue::from_str(&md5).map_err(|_| StorageError::config("content-md5", "cannot be sent"))?;
    let (path, query) = (s3.settings.address.path.clone(), "delete=".to_owned());
    let ask = S3Request {
        headers: HeaderMap::from_iter([
            (HeaderName::from_static("content-md5"), md5),
            (CONTENT_TYPE, HeaderValue::from_static("application/xml")),
        ]),
        payload: &payload,
        length: body.len() as u64,
        changed: std::mem::take(changed),
        ..S3Request::plain(Operation::Delete, Method::POST, "", path, query)
    };
    let result = s3.client.exchange(exchange, attempt, &ask, &mut body.as_bytes());
    *changed = ask.changed;
    result
}

/// The keys of one `DeleteObjects`, over all its tries.
struct Batch<'a> {
    keys: &'a [RemoteKey],
    /// What they are called in the bucket.
    objects: Vec<String>,
    /// By index, what became of a key; `None`: it is still to be deleted.
    ended: Vec<Option<Ended>>,
    /// Why the last answer put off a key, by its index.
    put_off: HashMap<usize, StorageError>,
    answered: bool,
}

struct Ended {
    result: Result<(), StorageError>,
    attempts: u32,
    request_id: String,
}

impl<'a> Batch<'a> {
    fn new(keys: &'a [RemoteKey], objects: Vec<String>) -> Self {
        let ended = keys.iter().map(|_| None).collect();
        Self { keys, objects, ended, put_off: HashMap::new(), answered: false }
    }

    fn left(&self) -> Vec<usize> {
        (0..self.keys.len()).filter(|index| self.ended[*index].is_none()).collect()
    }

    fn left_objects(&self) -> Vec<&String> {
        self.left().into_iter().map(|index| &self.objects[index]).collect()
    }

    /// Notes what an answer says. An error, if it puts off keys that are worth another try.
    fn settle(
        &mut self,
        s3: &S3Backend,
        attempt: u32,
        elapsed: Duration,
        answer: &Answer,
    ) -> Result<(), StorageError> {
        let refused = xml::refused_keys(&answer.body, &answer.secrets)?;
        let mut refused: HashMap<String, KeyRefusal> =
            refused.into_iter().map(|refusal| (refusal.key.clone(), refusal)).collect();
        let found: Vec<_> =
            self.left().into_iter().map(|index| (index, refused.remove(&self.objects[index]))).collect();
        if let Some(stranger) = refused.into_keys().next() {
            let what = format!("the answer names a key that was not asked for: {:?}", clipped(&stranger));
            return Err(StorageError::new(ErrorKind::Protocol, Operation::Delete, what));
        }
        self.answered = true;
        for (index, refusal) in found {
            match refusal.map_or(Ok(()), |refusal| key_error(s3, &self.keys[index], refusal)) {
                Err(error) if error.is_retryable() => {
                    self.put_off.insert(index, error);
                }
                result => {
                    let result = result.map_err(|error| error.with_attempts(attempt, elapsed));
                    let request_id = answer.request_id();
                    self.ended[index] = Some(Ended { result, attempts: attempt, request_id });
                }
            }
        }
        self.put_off_error().map_or(Ok(()), Err)
    }

    /// What the keys that were put off say together; that the store is busy comes first, as it has more patience.
    fn put_off_error(&self) -> Option<StorageError> {
        let busy = |error: &&StorageError| error.kind() == ErrorKind::Throttled;
        let first = self.put_off.values().find(busy).or_else(|| self.put_off.values().next())?;
        let (count, all) = (self.put_off.len(), self.keys.len());
        let what = format!("the store put off {count} of {all} keys: {}", first.message());
        let code = first.code().map(str::to_owned);
        Some(StorageError::new(first.kind(), Operation::Delete, what).with_code(code))
    }

    /// No further try: keys that are left fail for what was said of them, or for `error`.
    fn give_up(&mut self, error: &StorageError, attempts: u32, elapsed: Duration) {
        for index in self.left() {
            let of_key = self.put_off.remove(&index).unwrap_or_else(|| error.repeated());
            let of_key = of_key.with_key(self.keys[index].as_str()).with_attempts(attempts, elapsed);
            let request_id = of_key.request_id().unwrap_or_default().to_owned();
            self.ended[index] = Some(Ended { result: Err(of_key), attempts, request_id });
        }
    }

    fn report(&self, s3: &S3Backend, exchange: &RequestContext<'_>, elapsed: Duration) {
        for (key, ended) in self.keys.iter().zip(self.ended.iter().flatten()) {
            let outcome = ended.result.as_ref().copied().map_err(ToString::to_string);
            let (key, id) = (key.as_str(), ended.request_id.as_str());
            s3.report(exchange, Operation::Delete, key, 0, ended.attempts, elapsed, outcome, id);
        }
    }

    fn results(self) -> Deleted {
        let ended = self.ended.into_iter().flatten().map(|ended| ended.result);
        self.keys.iter().cloned().zip(ended).collect()
    }
}

fn key_error(s3: &S3Backend, key: &RemoteKey, refusal: KeyRefusal) -> Result<(), StorageError> {
    let KeyRefusal { code, message, .. } = refusal;
    if code == "NoSuchKey" {
        return Ok(());
    }
    // Without a code of its own a key's failure is the store's.
    let kind = if code.is_empty() { ErrorKind::Server } else { kind_of(400, &code) };
    let text = format!("the store refused it: {code} {message}");
    let error = StorageError::new(kind, Operation::Delete, text.trim_end());
    Err(advised_for_key(error, &s3.bucket).with_key(key.as_str()).with_code(Some(code)))
}
