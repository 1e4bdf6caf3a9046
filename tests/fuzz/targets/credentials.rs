//! Answers of the services that give out credentials: their heads and bodies on the wire, the JSON and the XML in them.

use std::time::Duration;

use http::StatusCode;
use ureq::Agent;
use zeroize::Zeroizing;

use super::wire::Server;
use super::{SECRET, check_error, check_no_secret, parts};
use crate::backend::s3::auth::chain::document::Document;
use crate::backend::s3::auth::chain::{process, sso, sts};
use crate::backend::s3::http::network::NetworkSettings;
use crate::backend::s3::http::plain::{MAX_ANSWER, PlainClient, PlainRequest, PlainResponse};
use crate::backend::s3::http::transport::basic_config;
use crate::backend::s3::redaction::Secrets;
use crate::error::StorageError;
use crate::{Credentials, NetworkConfig};

const LIMIT: Duration = Duration::from_secs(10);

/// The first byte is that of the bytes that come in at a time. The rest is an answer, and a body, too.
pub(crate) fn target(data: &[u8]) {
    let Some((chunk, rest)) = data.split_first() else { return };
    check_body(rest);
    let network = NetworkConfig::new().proxy("socks5h://127.0.0.1:9").check().unwrap();
    let request = PlainRequest::get("http://127.0.0.1:9/");
    let sealed =
        PlainClient::new(network.clone()).send_over(&request, LIMIT, Server::new(parts(rest), *chunk));
    // The body that was hidden from the HTTP layer is the one that it would have read.
    match (sealed, read_plainly(&network, Server::new(parts(rest), *chunk))) {
        (Ok(sealed), Some((status, body))) => {
            assert_eq!((sealed.status, sealed.body.as_slice()), (status, body.as_slice()));
            check_response(&sealed);
        }
        (Err(error), None) => check_error(&error, 0),
        (Ok(sealed), None) => panic!("only the sealed answer is one: {:?}", sealed.status),
        (Err(error), Some((status, body))) => panic!("{error}: {status}, {}", body.escape_ascii()),
    }
}

/// Reads the answer without hiding anything.
fn read_plainly(network: &NetworkSettings, server: Server) -> Option<(StatusCode, Vec<u8>)> {
    let (_, tls) = network.tls(false).unwrap();
    let config = basic_config(network, tls)
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .input_buffer_size(16 * 1024)
        .timeout_global(Some(LIMIT))
        .build();
    let agent = Agent::with_parts(config, server, Nowhere);
    let mut response = agent.get("http://127.0.0.1:9/").call().ok()?;
    let body = response.body_mut().with_config().limit(MAX_ANSWER as u64).read_to_vec().ok()?;
    Some((response.status(), body))
}

/// Finds no address, and needs none.
#[derive(Debug)]
struct Nowhere;

impl ureq::unversioned::resolver::Resolver for Nowhere {
    fn resolve(
        &self,
        _: &http::Uri,
        _: &ureq::config::Config,
        _: ureq::unversioned::transport::NextTimeout,
    ) -> Result<ureq::unversioned::resolver::ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}

fn check_body(body: &[u8]) {
    for status in [200, 400, 503] {
        let status = StatusCode::from_u16(status).unwrap();
        check_response(&PlainResponse { status, body: Zeroizing::new(body.to_vec()) });
    }
    if let Ok(document) = Document::parse(body) {
        check_credentials(document.credentials("Token"));
    }
    check_credentials(process::read_output(body));
    check_credentials(sso::read_answer(body));
}

fn check_response(response: &PlainResponse) {
    let secrets = Secrets::of([SECRET]);
    match sts::read_answer("the role", response, &secrets) {
        Ok(credentials) => {
            assert!(response.status.is_success());
            check_credentials(Ok::<_, StorageError>(credentials));
        }
        Err(error) => check_error(&error, 0),
    }
}

fn check_credentials<E>(credentials: Result<Credentials, E>) {
    let Ok(credentials) = credentials else { return };
    assert_eq!(format!("{credentials:?}"), "Credentials { [secret] }");
    check_no_secret(&credentials.expiry());
    // What cannot be sent is refused, and never signed with.
    if let Err(error) = credentials.check() {
        check_error(&error, 0);
    }
}
