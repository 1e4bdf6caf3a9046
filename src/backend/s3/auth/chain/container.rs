//! Credentials of the container that this process runs in: ECS, and EKS Pod Identity.

use std::net::IpAddr;

use http::Uri;
use zeroize::Zeroizing;

use crate::backend::s3::auth::chain::document::Document;
use crate::backend::s3::auth::chain::walk::{Answer, Walk, failed, is_busy, misconfigured, read_token};
use crate::backend::s3::checks::is_loopback;
use crate::backend::s3::http::plain::{PlainRequest, PlainResponse};
use crate::backend::s3::redaction::Secrets;
use crate::error::StorageError;

const RELATIVE: &str = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
const FULL: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";

/// The hosts that may be asked over http: ECS, and the agent of EKS.
const LINK_LOCAL: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// Returns the credentials of the endpoint that the variables name.
pub(crate) fn of_variables(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    let environment = walk.environment;
    let (place, url) = match (environment.text(RELATIVE)?, environment.text(FULL)?) {
        (Some(path), _) => (RELATIVE, relative_url(&walk.limits.container, &path)?),
        (None, Some(url)) => {
            check_url(&url).map_err(|why| misconfigured(FULL, why))?;
            (FULL, url)
        }
        (None, None) => return Ok(Answer::Nothing(format!("{RELATIVE} and {FULL}: not set"))),
    };
    let token = authorization(walk)?;
    let mut request = PlainRequest::get(&url);
    request.is_direct = true;
    request.headers.push(("accept", "application/json"));
    request.secret_headers.extend(token.iter().map(|token| ("authorization", token.as_str())));
    let response = walk.send(place, &request)?;
    if !response.status.is_success() {
        return Err(refusal(place, &response, token.as_ref().map(|token| token.as_str())));
    }
    let credentials = Document::parse(&response.body).and_then(|document| document.credentials("Token"));
    let credentials = credentials.map_err(|why| failed(place, format!("the endpoint's answer: {why}")));
    credentials.map(Answer::Credentials)
}

fn relative_url(base: &str, path: &str) -> Result<String, StorageError> {
    if path.starts_with('/') && !path.starts_with("//") {
        Ok(format!("{base}{path}"))
    } else {
        Err(misconfigured(RELATIVE, "it is no path that begins with a slash"))
    }
}

/// Returns what is wrong with a full URL. It is not quoted: its path is as good as a password.
fn check_url(url: &str) -> Result<(), String> {
    let uri: Option<Uri> = url.parse().ok();
    let (scheme, authority) = uri
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)))
        .ok_or("it is no absolute URL")?;
    if authority.as_str().contains('@') {
        return Err("it holds a user name".to_owned());
    }
    let host = authority.host();
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(host) || is_link_local(host) => Ok(()),
        "http" => Err(format!(
            "{host} may be asked over https only: http is for this machine and for {}",
            LINK_LOCAL.join(", ")
        )),
        _ => Err("the scheme must be https or http".to_owned()),
    }
}

fn is_link_local(host: &str) -> bool {
    let parse = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    parse(host).is_some_and(|host| LINK_LOCAL.iter().any(|known| parse(known) == Some(host)))
}

/// Returns the value of the `Authorization` header, if one is configured. The file is read anew each time.
fn authorization(walk: &Walk<'_>) -> Result<Option<Zeroizing<String>>, StorageError> {
    let (place, token) = match walk.environment.path(TOKEN_FILE) {
        Some(path) => (TOKEN_FILE, Some(read_token(TOKEN_FILE, &path)?)),
        None => (TOKEN, walk.environment.text(TOKEN)?.map(Zeroizing::new)),
    };
    let is_unfit = |token: &Zeroizing<String>| token.contains(['\r', '\n']);
    if token.as_ref().is_some_and(is_unfit) {
        return Err(misconfigured(place, "it holds a line end"));
    }
    Ok(token)
}

fn refusal(place: &str, response: &PlainResponse, token: Option<&str>) -> StorageError {
    let document = Document::parse(&response.body).ok();
    let text = |name| document.as_ref().and_then(|document| document.text(name));
    let shown: Vec<_> = ["code", "Code", "message", "Message"].into_iter().filter_map(text).collect();
    let shown = Secrets::of(token).redact_text(&shown.join(": "));
    let why = format!("the endpoint answered with status {}: {shown}", response.status.as_u16());
    failed(place, why).retryable(is_busy(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_plain_http_stays_on_this_machine_and_at_the_known_addresses() {
        for url in [
            "https://example.com/x",
            "http://localhost:51679/x",
            "http://127.0.0.1/x",
            "http://[::1]:1/x",
            "http://169.254.170.2/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://[fd00:0ec2:0:0:0:0:0:23]/",
        ] {
            assert_eq!(check_url(url), Ok(()), "{url}");
        }
        for url in [
            "http://example.com/CANARY",
            "http://169.254.169.254/CANARY",
            "http://169.254.170.2.example.com/CANARY",
            "http://127.0.0.1@example.com/CANARY",
            "ftp://127.0.0.1/CANARY",
            "/CANARY",
            "",
        ] {
            let why = check_url(url).unwrap_err();
            assert!(!why.contains("CANARY"), "{why}");
        }
    }

    #[test]
    fn s_a_relative_uri_stays_at_its_host() {
        assert_eq!(relative_url("http://h", "/v2/x").unwrap(), "http://h/v2/x");
        for path in ["v2/x", "//example.com/x", "@example.com/x", ".example.com/x"] {
            assert!(relative_url("http://h", path).is_err(), "{path}");
        }
    }
}
