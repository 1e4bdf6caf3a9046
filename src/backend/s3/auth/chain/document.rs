//! The JSON objects in which processes and metadata services print credentials.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::secret::Secret;

/// A JSON object. Errors name its fields and never quote it.
pub(crate) struct Document(Map<String, Value>);

impl Document {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err("it is no JSON object".to_owned()),
        }
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// Returns a text for people: it may be missing.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Takes an object out.
    pub(crate) fn object(&mut self, name: &str) -> Result<Self, String> {
        match self.0.remove(name) {
            Some(Value::Object(fields)) => Ok(Self(fields)),
            _ => Err(format!("{name} is missing")),
        }
    }

    fn optional_secret(&mut self, name: &str) -> Result<Option<Secret>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Secret::new(text))),
            Some(_) => Err(format!("{name} is no text")),
        }
    }

    /// Takes a secret out.
    pub(crate) fn secret(&mut self, name: &str) -> Result<Secret, String> {
        let secret = self.optional_secret(name)?;
        secret.filter(|text| !text.expose().is_empty()).ok_or_else(|| format!("{name} is missing"))
    }

    /// Returns a time of RFC 3339; `None` if there is none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<SystemTime>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_str()
                .and_then(parse_time)
                .map(Some)
                .ok_or_else(|| format!("{name} is no time such as 2026-01-31T12:00:00Z")),
        }
    }

    /// Takes credentials out, whose session token has this name.
    pub(crate) fn credentials(mut self, token: &str) -> Result<Credentials, String> {
        let expiry = self.time("Expiration")?;
        let (key, secret) = (self.secret("AccessKeyId")?, self.secret("SecretAccessKey")?);
        let token = self.optional_secret(token)?.filter(|text| !text.expose().is_empty());
        Ok(temporary(&key, &secret, token.as_ref(), expiry))
    }
}

/// Makes credentials from their parts.
pub(crate) fn temporary(
    key: &Secret,
    secret: &Secret,
    token: Option<&Secret>,
    expiry: Option<SystemTime>,
) -> Credentials {
    let mut credentials = Credentials::new(key.expose(), secret.expose());
    if let Some(token) = token {
        credentials = credentials.with_session_token(token.expose());
    }
    expiry.into_iter().fold(credentials, Credentials::with_expiry)
}

/// Reads a time of RFC 3339. Old SSO tokens end it with `UTC`.
pub(crate) fn parse_time(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |time| format!("{time}Z"));
    OffsetDateTime::parse(&text, &Rfc3339).ok().map(SystemTime::from)
}

/// Returns a time from milliseconds since 1970.
pub(crate) fn time_of_millis(millis: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_tools_of_aws_write_them() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_580_472_000);
        for text in [
            "2020-01-31T12:00:00Z",
            "2020-01-31T12:00:00UTC",
            "2020-01-31T13:00:00+01:00",
            "2020-01-31T12:00:00.000Z",
        ] {
            assert_eq!(parse_time(text), Some(noon), "{text}");
        }
        for text in ["", "soon", "2020-01-31", "2020-13-31T12:00:00Z"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(time_of_millis(1_580_472_000_000), Some(noon));
    }
}
