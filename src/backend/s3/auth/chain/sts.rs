//! The Security Token Service (STS): temporary credentials of roles.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Method};
use s3::region::Region;
use s3::signing::uri_encode;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::backend::s3::auth::chain::document::{parse_time, temporary};
use crate::backend::s3::auth::chain::walk::{Walk, failed, is_busy, misconfigured};
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::secret::Secret;
use crate::backend::s3::auth::sign::{Signable, Signer, amz_date};
use crate::backend::s3::checks::check_endpoint;
use crate::backend::s3::http::plain::{PlainRequest, PlainResponse};
use crate::backend::s3::redaction::{RawText, Secrets};
use crate::error::StorageError;

const FORM: &str = "application/x-www-form-urlencoded";
/// The region of the global endpoint.
const GLOBAL: &str = "us-east-1";

/// A role that is to be assumed.
pub(crate) struct Role {
    /// The setting or variable that names it, for errors.
    pub(crate) place: String,
    pub(crate) arn: String,
    pub(crate) session_name: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) duration_seconds: Option<u32>,
}

impl Role {
    /// Returns the fields of a request, of which `Action` is the first.
    fn fields(&self, action: &str) -> Vec<(&'static str, String)> {
        let session_name = self.session_name.clone().unwrap_or_else(default_session_name);
        let mut fields = vec![
            ("Action", action.to_owned()),
            ("Version", "2011-06-15".to_owned()),
            ("RoleArn", self.arn.clone()),
            ("RoleSessionName", session_name),
        ];
        fields.extend(self.external_id.clone().map(|id| ("ExternalId", id)));
        fields.extend(self.duration_seconds.map(|seconds| ("DurationSeconds", seconds.to_string())));
        fields
    }
}

/// Returns a name that tells sessions apart in the records of AWS.
fn default_session_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("bucket-brigade-{}", now.as_secs())
}

fn form(fields: &[(&str, String)]) -> Zeroizing<String> {
    let pairs: Vec<_> = fields
        .iter()
        .map(|(name, value)| Zeroizing::new(format!("{name}={}", uri_encode(value, true))))
        .collect();
    let pairs: Vec<_> = pairs.iter().map(|pair| pair.as_str()).collect();
    Zeroizing::new(pairs.join("&"))
}

/// Assumes a role with the credentials of another identity (`AssumeRole`).
pub(crate) fn assume_role(
    walk: &Walk<'_>,
    source: &Credentials,
    role: &Role,
) -> Result<Credentials, StorageError> {
    let endpoint = Endpoint::of(walk, &role.place)?;
    let body = form(&role.fields("AssumeRole"));
    let now = SystemTime::now();
    let date = amz_date(now);
    let authorization = endpoint.sign(source, &body, now)?;
    let url = format!("{}/", endpoint.base);
    let token = source.session_token();
    let tokens = token.map(|token| ("x-amz-security-token", token));
    let request = PlainRequest {
        method: Method::POST,
        url: &url,
        headers: vec![("host", endpoint.host()), ("content-type", FORM), ("x-amz-date", &date)],
        secret_headers: tokens.into_iter().chain([("authorization", authorization.as_str())]).collect(),
        body: &body,
        is_direct: false,
    };
    let secrets = Secrets::new(source, &authorization);
    let response = walk.send(&role.place, &request)?;
    read_answer(&role.place, &response, &secrets)
}

/// Assumes a role with a token of another provider of identities (`AssumeRoleWithWebIdentity`).
pub(crate) fn assume_role_with_web_identity(
    walk: &Walk<'_>,
    token: &str,
    role: &Role,
) -> Result<Credentials, StorageError> {
    let endpoint = Endpoint::of(walk, &role.place)?;
    let mut fields = role.fields("AssumeRoleWithWebIdentity");
    fields.push(("WebIdentityToken", token.to_owned()));
    let body = form(&fields);
    // The token's copy among the fields is the last one.
    if let Some((_, token)) = fields.pop() {
        drop(Zeroizing::new(token));
    }
    let url = format!("{}/", endpoint.base);
    let request = PlainRequest {
        method: Method::POST,
        url: &url,
        headers: vec![("host", endpoint.host()), ("content-type", FORM)],
        // The token itself is the proof: this request has no signature.
        secret_headers: Vec::new(),
        body: &body,
        is_direct: false,
    };
    let response = walk.send(&role.place, &request)?;
    read_answer(&role.place, &response, &Secrets::of([token]))
}

/// Where STS is asked, and for which region.
struct Endpoint {
    /// `https://sts.eu-central-1.amazonaws.com`
    base: String,
    region: String,
}

impl Endpoint {
    fn of(walk: &Walk<'_>, place: &str) -> Result<Self, StorageError> {
        let region = walk.environment.region()?.unwrap_or_else(|| GLOBAL.to_owned());
        let given = walk.environment.service_endpoint(&walk.profile, "STS")?;
        let base = match given {
            Some(url) => check_endpoint(&url).map_err(|error| misconfigured(place, error.message()))?,
            None => aws_endpoint("sts", &region).map_err(|why| misconfigured(place, why))?,
        };
        Ok(Self { base, region })
    }

    fn host(&self) -> &str {
        self.base.split_once("://").map_or(&self.base, |(_, host)| host)
    }

    /// Returns the `Authorization` header of a POST to `/`.
    fn sign(
        &self,
        credentials: &Credentials,
        body: &str,
        when: SystemTime,
    ) -> Result<Zeroizing<String>, StorageError> {
        let mut headers = HeaderMap::new();
        let date = amz_date(when);
        let given = [("host", Some(self.host())), ("content-type", Some(FORM)), ("x-amz-date", Some(&date))];
        for (name, value) in given.into_iter().chain([("x-amz-security-token", credentials.session_token())])
        {
            let Some(value) = value else { continue };
            let value = HeaderValue::from_str(value)
                .map_err(|_| misconfigured(name, "it cannot be sent in a request"))?;
            headers.insert(name, value);
        }
        let payload = hex::encode(Sha256::digest(body));
        let signable =
            Signable { method: "POST", path: "/", query: "", headers: &headers, payload: &payload };
        let region = Region::Custom { region: self.region.clone(), endpoint: self.base.clone() };
        Signer::new(region, "sts").authorization(credentials, when, &signable).map(Zeroizing::new)
    }
}

/// Returns the URL of a service of AWS in a region, or what is wrong with the region's name.
pub(crate) fn aws_endpoint(service: &str, region: &str) -> Result<String, String> {
    let is_name = !region.is_empty() && region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if !is_name {
        return Err(format!("invalid region {region:?}: use a name such as eu-central-1"));
    }
    Ok(match region {
        GLOBAL if service == "sts" => "https://sts.amazonaws.com".to_owned(),
        _ if region.starts_with("cn-") => format!("https://{service}.{region}.amazonaws.com.cn"),
        _ => format!("https://{service}.{region}.amazonaws.com"),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleAnswer {
    #[serde(alias = "AssumeRoleWithWebIdentityResult")]
    assume_role_result: RoleResult,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleResult {
    credentials: RoleCredentials,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: String,
    expiration: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refusal {
    error: RefusalError,
    request_id: Option<RawText>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RefusalError {
    code: Option<RawText>,
    message: Option<RawText>,
}

pub(crate) fn read_answer(
    place: &str,
    response: &PlainResponse,
    secrets: &Secrets,
) -> Result<Credentials, StorageError> {
    // The parser's error may quote the answer, which holds secrets: it is dropped.
    let text = std::str::from_utf8(&response.body).unwrap_or_default();
    if !response.status.is_success() {
        return Err(refusal(place, response, text, secrets));
    }
    let answer: Option<RoleAnswer> = quick_xml::de::from_str(text).ok();
    let RoleCredentials { access_key_id, secret_access_key, session_token, expiration } = answer
        .ok_or_else(|| failed(place, "STS sent an answer without credentials: is this its endpoint?"))?
        .assume_role_result
        .credentials;
    let expiry = parse_time(&expiration).ok_or_else(|| failed(place, "STS sent no time of expiry"))?;
    let [key, secret, token] = [access_key_id, secret_access_key, session_token].map(Secret::new);
    Ok(temporary(&key, &secret, Some(&token), Some(expiry)))
}

/// Returns the error that STS reports: its code and its message.
fn refusal(place: &str, response: &PlainResponse, text: &str, secrets: &Secrets) -> StorageError {
    let status = response.status.as_u16();
    let refusal: Option<Refusal> = quick_xml::de::from_str(text.trim_start()).ok();
    let Some(Refusal { error, request_id }) = refusal else {
        return failed(place, format!("STS answered with status {status}")).retryable(is_busy(response));
    };
    let [code, message] = [error.code, error.message].map(|text| text.map(|text| text.text(secrets)));
    let shown: Vec<_> = [&code, &message].into_iter().flatten().map(String::as_str).collect();
    failed(place, format!("STS answered with status {status}: {}", shown.join(": ")))
        .with_code(code)
        .with_request_id(request_id.map(|id| id.text(secrets)))
        .retryable(is_busy(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sts_is_asked_in_the_region_and_only_in_what_is_a_region() {
        for (region, host) in [
            ("us-east-1", "https://sts.amazonaws.com"),
            ("eu-central-1", "https://sts.eu-central-1.amazonaws.com"),
            ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ] {
            assert_eq!(aws_endpoint("sts", region).unwrap(), host);
        }
        assert_eq!(
            aws_endpoint("portal.sso", "us-east-1").unwrap(),
            "https://portal.sso.us-east-1.amazonaws.com"
        );
        for region in ["", "evil.example.com/", "a b"] {
            assert!(aws_endpoint("sts", region).is_err(), "{region}");
        }
    }
}
