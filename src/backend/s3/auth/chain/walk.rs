//! One walk along the chain of credentials, and what all places share.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::profiles::WholeProfile;
use crate::backend::s3::auth::providers::AwsEnvironment;
use crate::backend::s3::http::plain::{MAX_BODY, PlainClient, PlainRequest, PlainResponse};
use crate::error::{ErrorKind, Operation, StorageError};

/// The attempts at a request to STS, SSO or a container's endpoint.
const ATTEMPTS: u32 = 3;

/// The answer of one place.
pub(crate) enum Answer {
    Credentials(Credentials),
    /// It is not configured. The text names the place and says why.
    Nothing(String),
}

impl From<Result<Credentials, String>> for Answer {
    fn from(found: Result<Credentials, String>) -> Self {
        found.map_or_else(Self::Nothing, Self::Credentials)
    }
}

/// The limits of time, and the addresses that no setting changes.
#[derive(Clone)]
pub(crate) struct Limits {
    pub(crate) request: Duration,
    /// The wait before the second attempt; it doubles.
    pub(crate) pause: Duration,
    pub(crate) process: Duration,
    /// For all requests to the instance metadata.
    pub(crate) instance: Duration,
    /// The URL that a container's relative URI belongs to.
    pub(crate) container: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(10),
            pause: Duration::from_millis(200),
            process: Duration::from_secs(60),
            instance: Duration::from_secs(1),
            container: "http://169.254.170.2".to_owned(),
        }
    }
}

/// One walk: the settings as they are now.
pub(crate) struct Walk<'a> {
    pub(crate) environment: &'a AwsEnvironment,
    /// The profile that the walk began with.
    pub(crate) profile: WholeProfile,
    pub(crate) client: PlainClient,
    pub(crate) limits: &'a Limits,
}

impl Walk<'_> {
    /// Sends a request, and again if the server cannot be reached or fails. `place` begins the text of an error.
    pub(crate) fn send(
        &self,
        place: &str,
        request: &PlainRequest<'_>,
    ) -> Result<PlainResponse, StorageError> {
        let mut attempt = 1;
        loop {
            let result = self.client.send(request, self.limits.request);
            let may_help = match &result {
                Ok(response) => is_busy(response),
                Err(error) => error.is_retryable(),
            };
            if !may_help || attempt == ATTEMPTS {
                return result.map_err(|error| unreachable_place(place, &error));
            }
            std::thread::sleep(self.limits.pause * 2_u32.pow(attempt - 1));
            attempt += 1;
        }
    }
}

/// Returns whether the server may give another answer to the same request.
pub(crate) fn is_busy(response: &PlainResponse) -> bool {
    response.status.is_server_error() || response.status.as_u16() == 429
}

/// The error of a place that is configured and has no credentials.
pub(crate) fn failed(place: impl Display, why: impl Display) -> StorageError {
    StorageError::new(ErrorKind::Credentials, Operation::Configure, format!("{place}: {why}"))
}

/// The error of a setting that is wrong.
pub(crate) fn misconfigured(place: impl Display, why: impl Display) -> StorageError {
    StorageError::new(ErrorKind::Config, Operation::Configure, format!("{place}: {why}"))
}

fn unreachable_place(place: &str, error: &StorageError) -> StorageError {
    failed(place, error.repeated().message()).retryable(error.is_retryable())
}

/// Reads a token from a file, without the line end.
pub(crate) fn read_token(place: &str, path: &Path) -> Result<Zeroizing<String>, StorageError> {
    let wrong = |why: &str| failed(place, format!("the token file {}: {why}", path.display()));
    let mut token = Zeroizing::new(String::with_capacity(MAX_BODY + 1));
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_BODY as u64 + 1).read_to_string(&mut token));
    read.map_err(|error| wrong("it cannot be read").with_source(error))?;
    if token.len() > MAX_BODY {
        return Err(wrong("it is longer than 64 KiB"));
    }
    let length = token.trim_end().len();
    token.truncate(length);
    if token.is_empty() {
        return Err(wrong("it is empty"));
    }
    Ok(token)
}
