//! Credentials of the EC2 instance that this process runs on (instance metadata, version 2 only).

use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use crate::backend::s3::auth::chain::document::Document;
use crate::backend::s3::auth::chain::walk::{Answer, Walk, failed, misconfigured};
use crate::backend::s3::auth::secret::Secret;
use crate::backend::s3::checks::check_endpoint;
use crate::backend::s3::http::plain::{PlainRequest, PlainResponse};
use crate::backend::s3::redaction::truncated;
use crate::error::{ErrorKind, StorageError};

const ENDPOINT: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
/// The end of the time for all is near enough.
const ALMOST: Duration = Duration::from_millis(50);
/// The seconds that a token is valid. It serves the two requests that follow.
const TOKEN_SECONDS: &str = "60";

/// Returns the credentials of the role of this machine.
pub(crate) fn of_machine(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    let disabled = walk.environment.text("AWS_EC2_METADATA_DISABLED")?;
    if disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Answer::Nothing("instance metadata: off (AWS_EC2_METADATA_DISABLED)".to_owned()));
    }
    let base = endpoint(walk)?;
    let host = base.split_once("://").map_or(base.as_str(), |(_, host)| host);
    let service = Service {
        walk,
        base: &base,
        place: format!("instance metadata at {host}"),
        until: Instant::now() + walk.limits.instance,
    };
    service.ask()
}

fn endpoint(walk: &Walk<'_>) -> Result<String, StorageError> {
    let given = walk.environment.text(ENDPOINT)?;
    match given.or_else(|| walk.profile.value("ec2_metadata_service_endpoint")) {
        Some(url) => check_endpoint(&url).map_err(|error| misconfigured(ENDPOINT, error.message())),
        None => Ok("http://169.254.169.254".to_owned()),
    }
}

struct Service<'a> {
    walk: &'a Walk<'a>,
    base: &'a str,
    place: String,
    until: Instant,
}

impl Service<'_> {
    fn ask(&self) -> Result<Answer, StorageError> {
        // Most machines have no such service: whatever goes wrong with the first request, there is none.
        let token = match self.token() {
            Ok(token) => token,
            Err(why) => return Ok(Answer::Nothing(format!("{}: {why}", self.place))),
        };
        let names = self.get(ROLES, &token)?;
        if names.status == StatusCode::NOT_FOUND {
            return Ok(Answer::Nothing(format!("{}: this instance has no role", self.place)));
        }
        let names = self.body_of(&names)?;
        let role = names.lines().map(str::trim).find(|name| !name.is_empty());
        let role = role.filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'));
        let Some(role) = role else {
            return Err(failed(&self.place, "it sent no name of a role"));
        };
        let response = self.get(&format!("{ROLES}{role}"), &token)?;
        let body = self.body_of(&response)?;
        let wrong = |why: String| failed(&self.place, format!("its answer for role {role}: {why}"));
        let document = Document::parse(body.as_bytes()).map_err(wrong)?;
        // It answers with status 200 where the role cannot be assumed.
        if let Some(code) = document.text("Code").filter(|code| *code != "Success") {
            return Err(wrong(truncated(code)));
        }
        document.credentials("Token").map(Answer::Credentials).map_err(wrong)
    }

    /// Returns a token, or why there is none.
    fn token(&self) -> Result<Secret, String> {
        let url = format!("{}/latest/api/token", self.base);
        let request = PlainRequest {
            method: Method::PUT,
            url: &url,
            headers: vec![("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)],
            secret_headers: Vec::new(),
            body: "",
            is_direct: true,
        };
        let response = self.send(&request).map_err(|error| match error.kind() {
            ErrorKind::Timeout => self.no_answer(),
            // A connection that could not be made within the limit ends a moment before it.
            ErrorKind::Connect if Instant::now() + ALMOST >= self.until => self.no_answer(),
            _ => error.repeated().message().to_owned(),
        })?;
        if response.status != StatusCode::OK {
            return Err(format!("it answered with status {} instead of a token", response.status.as_u16()));
        }
        let token = std::str::from_utf8(&response.body).unwrap_or_default().trim();
        // It is sent back in a header.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it sent no token".to_owned());
        }
        Ok(Secret::new(token))
    }

    fn no_answer(&self) -> String {
        format!("no answer within {} s", self.walk.limits.instance.as_secs_f64())
    }

    fn get(&self, path: &str, token: &Secret) -> Result<PlainResponse, StorageError> {
        let url = format!("{}{path}", self.base);
        let mut request = PlainRequest::get(&url);
        request.is_direct = true;
        request.secret_headers.push(("x-aws-ec2-metadata-token", token.expose()));
        self.send(&request).map_err(|error| {
            let why = error.repeated().message().to_owned();
            failed(&self.place, why).retryable(error.is_retryable())
        })
    }

    /// Sends a request once, within what is left of the time for all.
    fn send(&self, request: &PlainRequest<'_>) -> Result<PlainResponse, StorageError> {
        let left = self.until.saturating_duration_since(Instant::now());
        // A limit of zero is none.
        self.walk.client.send(request, left.max(Duration::from_millis(1)))
    }

    fn body_of<'r>(&self, response: &'r PlainResponse) -> Result<&'r str, StorageError> {
        if response.status != StatusCode::OK {
            let why = format!("it answered with status {}", response.status.as_u16());
            return Err(failed(&self.place, why).retryable(response.status.is_server_error()));
        }
        std::str::from_utf8(&response.body).map_err(|_| failed(&self.place, "its answer is no text"))
    }
}
