//! The trusted certificates: those of the system, and those of a file.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::error::StorageError;

/// Returns the TLS settings of one destination.
pub(crate) fn tls_config(ca_file: Option<&Path>) -> Result<TlsConfig, StorageError> {
    let mut roots = system_certificates();
    if let Some(path) = ca_file {
        roots.extend(file_certificates(path)?);
    }
    // Otherwise every request would fail with an error that blames the server's certificate.
    if roots.is_empty() {
        let why =
            "this system has no trusted certificates: install its ca-certificates package, or set ca_file";
        return Err(StorageError::config("ca_file", why));
    }
    let roots = roots.into_iter().map(|root| Certificate::from_der(&root).to_owned());
    Ok(TlsConfig::builder().root_certs(RootCerts::from(roots)).build())
}

/// Reads all certificates of a PEM file.
fn file_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StorageError> {
    let wrong = |what: &str| StorageError::config("ca_file", format!("{}: {what}", path.display()));
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
            let error = tls_config(Some(&path)).unwrap_err().to_string();
            assert!(error.contains("ca.pem") && error.contains(problem), "{error}");
        }
        let error = tls_config(Some(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(error.contains("ca_file: /nowhere/ca.pem"), "{error}");
    }
}
