//! TLS: the trusted certificates of the system and of a file, the certificate that is shown, the lowest version.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use crate::error::StorageError;

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// Returns the TLS settings for a peer.
pub(crate) fn tls_config(
    roots: Vec<Certificate<'static>>,
    identity: Option<&ClientIdentity>,
    lowest: TlsVersion,
) -> TlsConfig {
    let client = identity.map(|identity| identity.0.clone());
    let config = TlsConfig::builder().root_certs(RootCerts::from(roots)).client_cert(client);
    config.unversioned_rustls_crypto_provider(provider(lowest)).build()
}

/// Returns the cryptography. ureq always offers all versions, but rustls only those for which there is a cipher suite.
fn provider(lowest: TlsVersion) -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    if lowest == TlsVersion::V1_3 {
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    }
    Arc::new(provider)
}

/// Returns the certificates of the system and of `ca_file`.
pub(crate) fn trusted_roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, StorageError> {
    let mut roots = system_certificates();
    if let Some(path) = ca_file {
        roots.extend(file_certificates("ca_file", path)?);
    }
    // Otherwise every request would fail with an error that blames the server's certificate.
    if roots.is_empty() {
        let why =
            "this system has no trusted certificates: install its ca-certificates package, or set ca_file";
        return Err(StorageError::config("ca_file", why));
    }
    Ok(roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect())
}

/// A certificate that is shown to servers, and its key.
#[derive(Clone)]
pub(crate) struct ClientIdentity(ClientCert);

impl ClientIdentity {
    /// Reads both from PEM files, and checks that they belong together.
    pub(crate) fn read(cert: &Path, key: &Path) -> Result<Self, StorageError> {
        const FIELD: &str = "client_certificate";
        let wrong =
            |path: &Path, what: &str| StorageError::config(FIELD, format!("{}: {what}", path.display()));
        let chain = file_certificates(FIELD, cert)?;
        let pem = std::fs::read(key).map_err(|error| wrong(key, &format!("it cannot be read: {error}")))?;
        let pem = Zeroizing::new(pem);
        // The texts of their errors may quote the file.
        let (Ok(private), Ok(shown)) = (PrivateKeyDer::from_pem_slice(&pem), PrivateKey::from_pem(&pem))
        else {
            let what = "it holds no private key in PEM (PKCS#8, PKCS#1 or SEC1, without a passphrase)";
            return Err(wrong(key, what));
        };
        // ureq panics on what rustls refuses.
        let builder = rustls::ClientConfig::builder_with_provider(provider(TlsVersion::V1_2))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(cert, "TLS cannot be set up").with_source(error))?
            .with_root_certificates(rustls::RootCertStore::empty());
        builder.with_client_auth_cert(chain.clone(), private).map_err(|error| {
            let what = match &error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key is not that of the certificate in {}", cert.display())
                }
                rustls::Error::InvalidCertificate(_) => {
                    format!("the certificate in {} is invalid", cert.display())
                }
                _ => {
                    "the key is not supported: use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519"
                        .to_owned()
                }
            };
            wrong(key, &what).with_source(error)
        })?;
        let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
        Ok(Self(ClientCert::new_with_certs(&chain, shown)))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity")
    }
}

/// Reads all certificates of a PEM file.
fn file_certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, StorageError> {
    let wrong = |what: &str| StorageError::config(field, format!("{}: {what}", path.display()));
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let roots = read().map_err(|error| wrong("it cannot be read as PEM").with_source(error))?;
    // A file that is not PEM at all reads as an empty list.
    if roots.is_empty() {
        return Err(wrong("it holds no certificate (\"-----BEGIN CERTIFICATE-----\")"));
    }
    Ok(roots)
}

/// Reads the folders where Linux systems keep certificates; reads no environment variable.
#[cfg(not(target_os = "macos"))]
fn system_certificates() -> Vec<CertificateDer<'static>> {
    openssl_probe::candidate_cert_dirs()
        .map(|folder| rustls_native_certs::load_certs_from_paths(None, Some(folder)).certs)
        .find(|roots| !roots.is_empty())
        .unwrap_or_default()
}

/// Reads the keychains.
#[cfg(target_os = "macos")]
fn system_certificates() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_without_certificates_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for (content, problem) in [
            ("", "holds no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "cannot be read as PEM"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = trusted_roots(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("ca.pem") && error.contains(problem), "{error}");
        }
        let error = trusted_roots(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("ca_file: /nowhere/ca.pem"), "{error}");
    }
}
