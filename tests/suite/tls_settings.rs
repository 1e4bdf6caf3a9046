//! Mutual TLS and the lowest version of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bucket_brigade::{
    ErrorKind, NetworkConfig, RetryPolicy, S3Backend, StorageBackend, StorageError, TlsVersion,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};

use crate::support::World;
use crate::support::server::S3Server;
use crate::support::tls::TestCa;

const VERSIONS: [&[&SupportedProtocolVersion]; 3] = [&[&TLS12], &[&TLS13], &[&TLS12, &TLS13]];

fn keys(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/client_keys").join(name)
}

/// Uploads to a server that asks for the certificate in `asks_for`, if any.
fn upload(
    asks_for: Option<&str>,
    versions: &[&'static SupportedProtocolVersion],
    change: impl Fn(NetworkConfig) -> NetworkConfig,
) -> Result<(), StorageError> {
    let world = World::new();
    world.write("f", "x");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = asks_for.map(|name| {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(keys(name)).unwrap()).unwrap();
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap()
    });
    let ca = TestCa::new();
    let server = S3Server::start_tls(world.store.service(), ca.server_config_with(versions, verifier));
    let folder = tempfile::tempdir().unwrap();
    let network = change(NetworkConfig::new().ca_file(ca.write_into(folder.path())));
    let config = world.s3_config().endpoint(server.endpoint()).network(network);
    let s3 = S3Backend::new(&world.engine, config.retry(RetryPolicy::default().with_attempts(1)))?;
    s3.upload_file(&world.path("f"), "f")?;
    assert_eq!(world.keys(), ["f"]);
    Ok(())
}

#[test]
fn certificate_is_shown_to_a_server_that_asks_with_a_key_of_any_form() {
    for versions in VERSIONS {
        for (cert, key) in
            [("rsa.crt", "rsa_pkcs1.pem"), ("rsa.crt", "rsa_pkcs8.pem"), ("ec.crt", "ec_sec1.pem")]
        {
            let network = |network: NetworkConfig| network.client_certificate(keys(cert), keys(key));
            upload(Some(cert), versions, network).unwrap();
        }
    }
    // A server that does not ask gets none.
    upload(None, VERSIONS[2], |network| network.client_certificate(keys("ec.crt"), keys("ec_sec1.pem")))
        .unwrap();
}

#[test]
fn missing_or_strange_certificate_is_an_error_of_tls() {
    let error = upload(Some("rsa.crt"), VERSIONS[1], |network| network).unwrap_err();
    assert!(error.message().contains("set client_certificate"), "{error}");
    for versions in VERSIONS {
        let strange =
            |network: NetworkConfig| network.client_certificate(keys("ec.crt"), keys("ec_sec1.pem"));
        let error = upload(Some("rsa.crt"), versions, strange).unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Tls, false), "{error}");
    }
}

#[test]
fn i7_wrong_files_are_named_and_not_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let broken = "-----BEGIN PRIVATE KEY-----\nCANARY!\n-----END PRIVATE KEY-----\n";
    let nonsense = "-----BEGIN PRIVATE KEY-----\nQ0FOQVJZ\n-----END PRIVATE KEY-----\n";
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nQ0FOQVJZ\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (cert, key, names, says) in [
        (keys("none.crt"), keys("ec_sec1.pem"), "none.crt", "cannot be read"),
        (file("empty.crt", ""), keys("ec_sec1.pem"), "empty.crt", "holds no certificate"),
        (keys("ec.crt"), keys("none.pem"), "none.pem", "cannot be read"),
        (keys("ec.crt"), file("broken.pem", broken), "broken.pem", "holds no private key"),
        (keys("ec.crt"), file("locked.pem", locked), "locked.pem", "without a passphrase"),
        (keys("ec.crt"), file("nonsense.pem", nonsense), "nonsense.pem", "the key is not supported"),
        (keys("ec.crt"), keys("rsa_pkcs8.pem"), "rsa_pkcs8.pem", "not that of the certificate in"),
    ] {
        let error = upload(None, VERSIONS[2], |network| network.client_certificate(&cert, &key)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let text = format!("{error} {error:?}");
        assert!(error.message().starts_with("client_certificate: "), "{error}");
        assert!(error.message().contains(names) && error.message().contains(says), "{error}");
        assert!(!text.contains("CANARY") && !text.contains("Q0FOQVJZ"), "{text}");
    }
}

#[test]
fn server_below_the_lowest_version_is_refused_and_others_are_not() {
    for (versions, lowest, accepted) in [
        (VERSIONS[0], TlsVersion::V1_2, true),
        (VERSIONS[1], TlsVersion::V1_2, true),
        (VERSIONS[0], TlsVersion::V1_3, false),
        (VERSIONS[1], TlsVersion::V1_3, true),
        (VERSIONS[2], TlsVersion::V1_3, true),
    ] {
        let result = upload(None, versions, |network| network.min_tls(lowest));
        assert_eq!(result.is_ok(), accepted, "{result:?}");
        if let Err(error) = result {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Tls, false), "{error}");
            assert!(error.message().contains("min_tls"), "{error}");
        }
    }
}
