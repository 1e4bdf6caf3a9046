//! A certificate authority for tests.
#![allow(dead_code, unreachable_pub, reason = "each binary uses a part")]
#![allow(clippy::expect_used, reason = "support code ends the test that it cannot support")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ALL_VERSIONS, ServerConfig, SupportedProtocolVersion};

/// A certificate authority, and a server configuration with a certificate that it has signed.
pub struct TestCa {
    pem: String,
    config: Arc<ServerConfig>,
    certificate: CertificateDer<'static>,
    private: PrivateKeyDer<'static>,
}

impl TestCa {
    /// An authority for a server named `localhost` or `127.0.0.1`.
    pub fn new() -> Self {
        Self::for_names(&["localhost", "127.0.0.1"])
    }

    /// An authority for a server with these names.
    pub fn for_names(names: &[&str]) -> Self {
        Self::made(names, false)
    }

    /// An authority for a local server whose certificate expired in 2001.
    pub fn expired() -> Self {
        Self::made(&["localhost", "127.0.0.1"], true)
    }

    /// A server with a self-signed certificate, which its clients are told to trust. With `is_ca` the certificate is
    /// one of an authority, as `openssl req -x509` makes them.
    pub fn self_signed(is_ca: bool) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("the names can be certified");
        params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
        let certificate = params.self_signed(&key).expect("it signs itself");
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Self::of(certificate.pem(), certificate.der().clone(), private)
    }

    fn made(names: &[&str], expired: bool) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("the authority signs itself");
        let issuer = Issuer::new(params, key);

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server_key = KeyPair::generate().expect("a key can be made");
        let mut server = CertificateParams::new(names).expect("the names can be certified");
        if expired {
            (server.not_before, server.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
        }
        let server = server.signed_by(&server_key, &issuer).expect("the authority signs");
        let private = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
        Self::of(ca.pem(), server.der().clone(), private)
    }

    fn of(pem: String, certificate: CertificateDer<'static>, private: PrivateKeyDer<'static>) -> Self {
        let config = server_config(certificate.clone(), private.clone_key(), ALL_VERSIONS, None);
        Self { pem, config, certificate, private }
    }

    /// The configuration for a server.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// The configuration for a server of these versions of TLS that asks clients for a certificate.
    pub fn server_config_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        verifier: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Arc<ServerConfig> {
        server_config(self.certificate.clone(), self.private.clone_key(), versions, verifier)
    }

    /// Writes the authority's certificate into a folder and returns its path.
    pub fn write_into(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, &self.pem).expect("the folder can be written");
        path
    }
}

fn server_config(
    certificate: CertificateDer<'static>,
    private: PrivateKeyDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("the versions are supported");
    let config = match verifier {
        Some(verifier) => config.with_client_cert_verifier(verifier),
        None => config.with_no_client_auth(),
    };
    Arc::new(config.with_single_cert(vec![certificate], private).expect("the key is the certificate's"))
}
