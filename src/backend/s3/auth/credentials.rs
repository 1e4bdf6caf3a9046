//! The credentials that requests are signed with.

use std::fmt;
use std::time::SystemTime;

use crate::backend::s3::auth::secret::Secret;
use crate::error::StorageError;

/// A token that fits into the output buffer of a connection, which takes headers whole.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// An access key, its secret key and, for temporary credentials, a session token and the time at which they expire.
/// They are wiped from memory when dropped and appear in no `Debug` text.
///
/// ```
/// use bucket_brigade::Credentials;
/// let credentials = Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI");
/// assert_eq!(format!("{credentials:?}"), "Credentials { [secret] }");
/// ```
#[derive(Clone)]
pub struct Credentials {
    access_key: Secret,
    secret_key: Secret,
    session_token: Option<Secret>,
    expiry: Option<SystemTime>,
}

impl Credentials {
    /// Makes credentials without a session token, which do not expire.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        let (access_key, secret_key) = (Secret::new(access_key), Secret::new(secret_key));
        Self { access_key, secret_key, session_token: None, expiry: None }
    }

    /// Adds the session token of temporary credentials.
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::new(token));
        self
    }

    /// Sets the time at which temporary credentials expire. They are renewed from five minutes before it
    /// ([`S3Config::renew_credentials`](crate::S3Config::renew_credentials)). Default: it is not known, and they are
    /// renewed when the store refuses them.
    pub fn with_expiry(mut self, expiry: SystemTime) -> Self {
        self.expiry = Some(expiry);
        self
    }

    /// Returns the time at which they expire, if it is known.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }

    /// Reads `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if it is set, `AWS_SESSION_TOKEN` from the
    /// environment. With the feature `profiles`, `AwsEnvironment` also reads the profiles in `~/.aws`, and
    /// `CredentialChain` fetches temporary credentials from the places that the AWS SDKs know.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that names the missing variable.
    pub fn from_env() -> Result<Self, StorageError> {
        Self::from_lookup(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, StorageError> {
        let need = |name: &str| {
            lookup(name).ok_or_else(|| StorageError::config("credentials", format!("{name} is not set")))
        };
        let credentials = Self::new(need("AWS_ACCESS_KEY_ID")?, need("AWS_SECRET_ACCESS_KEY")?);
        Ok(match lookup("AWS_SESSION_TOKEN") {
            Some(token) => credentials.with_session_token(token),
            None => credentials,
        })
    }

    pub(crate) fn access_key(&self) -> &str {
        self.access_key.expose()
    }

    pub(crate) fn secret_key(&self) -> &str {
        self.secret_key.expose()
    }

    pub(crate) fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(Secret::expose)
    }

    /// Returns whether both sign a request alike.
    pub(crate) fn are_same_as(&self, other: &Self) -> bool {
        self.access_key() == other.access_key()
            && self.secret_key() == other.secret_key()
            && self.session_token() == other.session_token()
    }

    /// Refuses what pasting goes wrong with (an empty field, a line end, a space) and what cannot be sent.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let fields = [("access_key", Some(self.access_key())), ("secret_key", Some(self.secret_key()))];
        for (field, value) in fields.into_iter().chain([("session_token", self.session_token())]) {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(StorageError::config(field, "it is empty"));
            }
            // The error names the field and never quotes the value.
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(StorageError::config(field, "it holds a space, a line end or a non-ASCII byte"));
            }
        }
        match self.session_token() {
            Some(token) if token.len() > MAX_TOKEN_BYTES => {
                Err(StorageError::config("session_token", "it is longer than 8 KiB"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials { [secret] }")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_variable_is_named() {
        let lookup = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "k".to_owned());
        let error = Credentials::from_lookup(lookup).unwrap_err();
        assert_eq!(error.message(), "credentials: AWS_SECRET_ACCESS_KEY is not set");
        let all = Credentials::from_lookup(|name| Some(name.to_lowercase())).unwrap();
        assert_eq!(all.session_token(), Some("aws_session_token"));
    }

    #[test]
    fn what_pasting_does_is_caught_by_field() {
        for (credentials, field) in [
            (Credentials::new("", "s"), "access_key"),
            (Credentials::new("k", "s\n"), "secret_key"),
            (Credentials::new("k", "s").with_session_token("a b"), "session_token"),
        ] {
            assert!(credentials.check().unwrap_err().message().starts_with(field));
        }
    }
}
