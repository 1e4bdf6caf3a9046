//! Who is asking.

use std::fmt;

use crate::backend::s3::auth::secret::Secret;
use crate::error::StorageError;

/// A header is written whole into the connection's buffer.
const MOST_OF_A_TOKEN: usize = 8 * 1024;

/// An access key, its secret and, for temporary credentials, a session token. The secrets are wiped
/// from memory when dropped and appear in no `Debug` text.
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
}

impl Credentials {
    /// Static credentials.
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: Secret::new(access_key), secret_key: Secret::new(secret_key), session_token: None }
    }

    /// Adds the token of temporary credentials.
    pub fn with_session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::new(token));
        self
    }

    /// Takes `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if it is there, `AWS_SESSION_TOKEN`
    /// from the environment. Profiles in `~/.aws` are read with the feature `profiles`.
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

    /// Whether a request that is signed with them is signed the same.
    pub(crate) fn are_the_same_as(&self, other: &Self) -> bool {
        self.access_key() == other.access_key()
            && self.secret_key() == other.secret_key()
            && self.session_token() == other.session_token()
    }

    /// Catches what pasting does: an empty field, a line end, a space; and what cannot be sent.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        let fields = [("access_key", Some(self.access_key())), ("secret_key", Some(self.secret_key()))];
        for (field, value) in fields.into_iter().chain([("session_token", self.session_token())]) {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(StorageError::config(field, "it is empty"));
            }
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(StorageError::config(
                    field,
                    "it holds a space, a line end or a byte beyond ASCII",
                ));
            }
        }
        match self.session_token() {
            Some(token) if token.len() > MOST_OF_A_TOKEN => {
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
