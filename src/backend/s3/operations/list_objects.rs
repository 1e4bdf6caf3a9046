//! Listing, and what may be asked of all objects at once.

use std::io::empty;
use std::time::Duration;

use http::Method;
use s3::signing::uri_encode;

use crate::backend::Page;
use crate::backend::s3::S3Backend;
use crate::backend::s3::request::S3Request;
use crate::backend::s3::xml;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;
use crate::retry;

/// The first answer of a run is waited for so long: a server that accepts and never answers is found out by then.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(30);

/// One small request before all others, repeated where that may help.
pub(crate) fn preflight(s3: &S3Backend, exchange: &RequestContext<'_>) -> Result<(), StorageError> {
    retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
        let asked = ask_for(s3, exchange, attempt, Some(PATIENCE_AT_FIRST.min(s3.settings.answer_timeout)));
        asked.map_err(|error| {
            let silent = error.kind() == ErrorKind::Timeout;
            if silent { error.retryable(false) } else { error }
        })
    })
}

fn ask_for(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    attempt: u32,
    patience: Option<Duration>,
) -> Result<(), StorageError> {
    let prefix = uri_encode(s3.settings.address.prefix.as_str(), true);
    let query = format!("list-type=2&max-keys=1&prefix={prefix}");
    let path = s3.settings.address.path.clone();
    let ask = S3Request { patience, ..S3Request::plain(Operation::List, Method::GET, "", path, query) };
    s3.client.exchange(exchange, attempt, &ask, &mut empty()).map(drop)
}

/// One small request, tried once, whose refusal says what the store has against all of them.
pub(crate) fn ask_for_one(s3: &S3Backend, exchange: &RequestContext<'_>) -> Result<(), StorageError> {
    ask_for(s3, exchange, 1, None)
}

/// One page of the objects under the prefix.
pub(crate) fn list(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    from: Option<&str>,
) -> Result<Page, StorageError> {
    let mut query = String::new();
    if let Some(token) = from {
        query = format!("continuation-token={}&", uri_encode(token, true));
    }
    query.push_str("encoding-type=url&list-type=2&max-keys=1000&prefix=");
    query.push_str(&uri_encode(s3.settings.address.prefix.as_str(), true));
    let ask = S3Request::plain(Operation::List, Method::GET, "", s3.settings.address.path.clone(), query);
    let page = retry::run(&s3.settings.retry, exchange, Operation::List, |attempt| {
        let answer = s3.client.exchange(exchange, attempt, &ask, &mut empty())?;
        xml::list_page(&answer.body, &answer.secrets, s3.settings.address.prefix.as_str())
    })?;
    Ok(page)
}
