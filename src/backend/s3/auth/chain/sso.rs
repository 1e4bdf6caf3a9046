//! Credentials of single sign-on (SSO, IAM Identity Center), with the token that `aws sso login` has stored.

use std::path::PathBuf;
use std::time::SystemTime;

use s3::signing::uri_encode;
use sha1::{Digest as _, Sha1};
use zeroize::Zeroizing;

use crate::backend::s3::auth::chain::document::{Document, temporary, time_of_millis};
use crate::backend::s3::auth::chain::sts::aws_endpoint;
use crate::backend::s3::auth::chain::walk::{Answer, Walk, failed, is_busy, misconfigured};
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::profiles::{WholeProfile, own_setting};
use crate::backend::s3::auth::secret::Secret;
use crate::backend::s3::checks::check_endpoint;
use crate::backend::s3::http::plain::{MAX_ANSWER, PlainRequest, PlainResponse};
use crate::backend::s3::redaction::Secrets;
use crate::error::StorageError;

/// Returns the credentials of the walk's profile, if it has an account of SSO.
pub(crate) fn of_profile(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    of_settings(walk, &walk.profile)
}

/// Does the same for any profile.
pub(crate) fn of_settings(walk: &Walk<'_>, profile: &WholeProfile) -> Result<Answer, StorageError> {
    if profile.value("sso_account_id").or(profile.value("sso_role_name")).is_none() {
        let why = format!("sso_account_id and sso_role_name in profile {}: not set", profile.name);
        return Ok(Answer::Nothing(why));
    }
    let settings = Settings::of(profile)?;
    let token = cached_token(walk, &settings)?;
    fetch(walk, profile, &settings, &token).map(Answer::Credentials)
}

struct Settings {
    place: String,
    /// Advice to get a new token.
    login: String,
    account: String,
    role: String,
    region: String,
    /// The name of a session, or a URL: what the stored token is named after.
    token_name: String,
}

impl Settings {
    fn of(profile: &WholeProfile) -> Result<Self, StorageError> {
        let place = format!("SSO in profile {}", profile.name);
        let session = profile.value("sso_session");
        let section = match &session {
            None => None,
            Some(name) => Some(profile.sso_session(name).ok_or_else(|| {
                misconfigured(&place, format!("there is no [sso-session {name}] in the configuration file"))
            })?),
        };
        let setting = |key: &str| {
            let (own, shared) = (profile.value(key), section.and_then(|section| own_setting(section, key)));
            match (own, shared) {
                (Some(own), Some(shared)) if own != shared => Err(misconfigured(
                    &place,
                    format!("{key} differs between the profile and its sso-session"),
                )),
                (own, shared) => own.or(shared).ok_or_else(|| {
                    misconfigured(&place, format!("{key} is missing; run `aws configure sso`"))
                }),
            }
        };
        let start_url = setting("sso_start_url")?;
        Ok(Self {
            login: format!("run `aws sso login --profile {}`", profile.name),
            account: setting("sso_account_id")?,
            role: setting("sso_role_name")?,
            region: setting("sso_region")?,
            token_name: session.unwrap_or(start_url),
            place,
        })
    }
}

/// Returns the path of a stored token.
fn token_path(walk: &Walk<'_>, settings: &Settings) -> Result<PathBuf, StorageError> {
    let home = walk.environment.home().ok_or_else(|| misconfigured(&settings.place, "HOME is not set"))?;
    let name = hex::encode(Sha1::digest(&settings.token_name));
    Ok(home.join(".aws/sso/cache").join(format!("{name}.json")))
}

/// Returns the token that is stored, if it is still valid.
fn cached_token(walk: &Walk<'_>, settings: &Settings) -> Result<Secret, StorageError> {
    let path = token_path(walk, settings)?;
    let wrong = |why: &str| {
        let shown = path.display();
        failed(&settings.place, format!("the token in {shown} {why}: {}", settings.login))
    };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) if bytes.len() <= MAX_ANSWER => Zeroizing::new(bytes),
        Ok(_) => return Err(wrong("is longer than 64 KiB")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(wrong("does not exist")),
        Err(error) => return Err(wrong("cannot be read").with_source(error)),
    };
    let mut document = Document::parse(&bytes).map_err(|_| wrong("is no JSON object"))?;
    let expiry = document.time("expiresAt").ok().flatten();
    let expiry = expiry.ok_or_else(|| wrong("has no expiresAt"))?;
    if expiry <= SystemTime::now() {
        return Err(wrong("has expired"));
    }
    document.secret("accessToken").map_err(|_| wrong("has no accessToken"))
}

/// Asks the portal for the credentials of the role (`GetRoleCredentials`).
fn fetch(
    walk: &Walk<'_>,
    profile: &WholeProfile,
    settings: &Settings,
    token: &Secret,
) -> Result<Credentials, StorageError> {
    let base = match walk.environment.service_endpoint(profile, "SSO")? {
        Some(url) => check_endpoint(&url).map_err(|error| misconfigured(&settings.place, error.message()))?,
        None => {
            aws_endpoint("portal.sso", &settings.region).map_err(|why| misconfigured(&settings.place, why))?
        }
    };
    let [role, account] = [&settings.role, &settings.account].map(|text| uri_encode(text, true));
    let url = format!("{base}/federation/credentials?role_name={role}&account_id={account}");
    let mut request = PlainRequest::get(&url);
    request.secret_headers.push(("x-amz-sso_bearer_token", token.expose()));
    let response = walk.send(&settings.place, &request)?;
    if !response.status.is_success() {
        return Err(refusal(settings, &response, token));
    }
    read_answer(&response.body).map_err(|why| failed(&settings.place, format!("the portal's answer: {why}")))
}

fn refusal(settings: &Settings, response: &PlainResponse, token: &Secret) -> StorageError {
    let document = Document::parse(&response.body).ok();
    let message = document.as_ref().and_then(|document| document.text("message")).unwrap_or_default();
    let message = Secrets::of([token.expose()]).redact_text(message);
    let why = format!("the portal answered with status {}: {message}", response.status.as_u16());
    let error = failed(&settings.place, why).retryable(is_busy(response));
    if response.status.as_u16() == 401 { error.advise(&settings.login) } else { error }
}

pub(crate) fn read_answer(body: &[u8]) -> Result<Credentials, String> {
    let mut credentials = Document::parse(body)?.object("roleCredentials")?;
    let expiry = credentials.number("expiration").and_then(time_of_millis);
    let expiry = expiry.ok_or_else(|| "expiration is missing".to_owned())?;
    let (key, secret) = (credentials.secret("accessKeyId")?, credentials.secret("secretAccessKey")?);
    let token = credentials.secret("sessionToken")?;
    Ok(temporary(&key, &secret, Some(&token), Some(expiry)))
}
