//! The requests that a run may send first: a GET of the state's head, and a listing of one object. Both are small, and
//! find what would be wrong with every other request.

use std::io::{Read, empty};
use std::time::Duration;

use serde::Deserialize;

use crate::backend::s3::S3Backend;
use crate::backend::s3::operations::{list_objects, state_reads};
use crate::backend::s3::redaction::{RawText, Secrets};
use crate::backend::s3::request::S3Request;
use crate::backend::{FoundState, HEAD_KEY};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;

/// The wait for the first response of a run: it finds a server that accepts connections and never responds.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The bytes that are read of a head. A marker that names another place has fewer.
const MAX_MARKER_BYTES: u64 = 8 * 1024;

/// Looks for the head of a state that lies with the bucket.
pub(crate) fn find_head(
    s3: &S3Backend,
    context: &RequestContext<'_>,
) -> Result<Option<FoundState>, StorageError> {
    let key = RemoteKey::new(HEAD_KEY)?;
    let request = state_reads::get_request(s3, &key, MAX_MARKER_BYTES)?;
    let request = S3Request {
        // Not a download, whose bytes a log would show as they are.
        operation: Operation::State,
        // Its errors are about all keys.
        key: "",
        timeout: Some(time_limit(s3)),
        ..request
    };
    let found = send_first(s3, context, Operation::State, |attempt| {
        let mut bytes = Vec::new();
        let mut sink = |body: &mut dyn Read| body.take(MAX_MARKER_BYTES).read_to_end(&mut bytes).map(drop);
        let response = s3.client.send_with_sink(context, attempt, &request, &mut empty(), Some(&mut sink))?;
        Ok(place_of(&bytes, &response.secrets))
    });
    match found {
        Err(error) if error.code() == Some("NoSuchKey") => Ok(None),
        other => other.map(Some),
    }
}

/// Lists one object.
pub(crate) fn list_one(s3: &S3Backend, context: &RequestContext<'_>) -> Result<(), StorageError> {
    send_first(s3, context, Operation::List, |attempt| {
        list_objects::send_list_one(s3, context, attempt, Some(time_limit(s3)))
    })
}

fn time_limit(s3: &S3Backend) -> Duration {
    TIMEOUT.min(s3.settings.network.answer_timeout)
}

/// Sends a first request, with retries.
fn send_first<T>(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    operation: Operation,
    mut send: impl FnMut(u32) -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    retry::run(&s3.settings.retry, context, operation, |attempt| {
        send(attempt).map_err(|error| {
            // Each retry would wait as long again.
            let is_silent = error.kind() == ErrorKind::Timeout;
            if is_silent { error.retryable(false) } else { error }
        })
    })
}

/// A head that names another place, where the state lies.
#[derive(Deserialize)]
struct Marker {
    elsewhere: Place,
}

#[derive(Deserialize)]
struct Place {
    bucket: RawText,
    #[serde(default)]
    prefix: RawText,
}

/// Returns the place that a head names. Any other object is a head, too: of another version, or damaged.
fn place_of(bytes: &[u8], secrets: &Secrets) -> FoundState {
    match serde_json::from_slice(bytes) {
        Ok(Marker { elsewhere: Place { bucket, prefix } }) => {
            FoundState::Elsewhere(format!("s3://{}/{}", bucket.text(secrets), prefix.text(secrets)))
        }
        Err(_) => FoundState::Here,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::s3::auth::credentials::Credentials;

    #[test]
    fn a_marker_names_its_place_and_anything_else_lies_here() {
        let place = |text: &str| place_of(text.as_bytes(), &Secrets::none());
        let elsewhere = |text: &str| FoundState::Elsewhere(text.to_owned());
        assert_eq!(
            place(r#"{"format": 1, "elsewhere": {"bucket": "b", "prefix": "p/q/", "more": 1}}"#),
            elsewhere("s3://b/p/q/")
        );
        assert_eq!(place(r#"{"elsewhere": {"bucket": "b", "prefix": ""}}"#), elsewhere("s3://b/"));
        assert_eq!(place(r#"{"elsewhere": {"bucket": "b"}}"#), elsewhere("s3://b/"));
        for other in [
            "",
            "{}",
            "no JSON",
            r#"{"format": 99, "target": {"bucket": "b", "prefix": "p/"}}"#,
            r#"{"elsewhere": null}"#,
            r#"{"elsewhere": {"prefix": "p/"}}"#,
            r#"{"elsewhere": {"bucket": 7, "prefix": "p/"}}"#,
            r#"{"elsewhere": {"bucket": "b", "prefix": "p/"}"#,
        ] {
            assert_eq!(place(other), FoundState::Here, "{other}");
        }
    }

    #[test]
    fn a_secret_in_a_marker_is_not_shown() {
        let (plain, escaped) = ("SECRETKEY", r"\u0053ECRETKEY");
        let secrets = Secrets::new(&Credentials::new("id", plain), "");
        for text in [plain, escaped] {
            let marker = format!(r#"{{"elsewhere": {{"bucket": "{text}", "prefix": "x/{text}"}}}}"#);
            assert_eq!(
                place_of(marker.as_bytes(), &secrets),
                FoundState::Elsewhere("s3://[secret]/x/[secret]".to_owned())
            );
        }
    }
}
