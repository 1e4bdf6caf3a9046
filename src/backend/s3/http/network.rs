//! The settings of connections: proxies, TLS, rate, time limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::tls::TlsConfig;
use zeroize::Zeroizing;

use crate::backend::s3::http::bandwidth::Bandwidth;
use crate::backend::s3::http::no_proxy::NoProxy;
use crate::backend::s3::http::proxy::{Proxy, ProxyRules, ProxyUrl, ProxyVariables};
use crate::backend::s3::http::tls::{self, ClientIdentity, TlsVersion};
use crate::error::StorageError;

const MAX_USER_AGENT_BYTES: usize = 256;

/// The settings of connections, for [`S3Config::network`](crate::S3Config::network). Cheap to clone.
/// [`S3Backend::new`](crate::S3Backend::new) checks them; its errors name the field.
///
/// ```
/// use bucket_brigade::{Bandwidth, Credentials, NetworkConfig, S3Config};
/// let network = NetworkConfig::new()
///     .proxy("http://user:p%40ss@proxy.example.com:3128")
///     .no_proxy("10.0.0.0/8, .internal.example.com")
///     .bandwidth(Bandwidth::per_second(5 << 20));
/// let config = S3Config::new("releases").region("eu-central-1").network(network);
/// # let _ = config;
/// ```
///
/// # Proxies
/// Every connection through an HTTP proxy is a tunnel (`CONNECT`), for http endpoints too, so connections are reused as
/// without a proxy. A proxy that allows `CONNECT` to port 443 only must be told to allow the port of an http endpoint.
/// The name of the store is resolved by an HTTP or `socks5h` proxy, and here for `socks5`. `connect_timeout` limits all
/// steps together: the connection to the proxy, its answer, and the TLS handshake.
///
/// | The proxy | The error |
/// |---|---|
/// | cannot be reached, does not answer, closes the connection, refuses the host (403, SOCKS "not allowed"), cannot reach it (5xx) | [`Connect`](crate::ErrorKind::Connect): retried, and five in a row are an outage |
/// | wants another user name or password (407, 401) | [`Config`](crate::ErrorKind::Config): ends the run at its first request |
/// | has a certificate that is not trusted (`https://` proxies) | [`Tls`](crate::ErrorKind::Tls): the same |
#[derive(Debug, Clone, Default)]
pub struct NetworkConfig(Arc<Fields>);

#[derive(Debug, Clone)]
struct Fields {
    proxy: ProxyChoice,
    no_proxy: Option<String>,
    bandwidth: Option<Bandwidth>,
    user_agent: String,
    ca_file: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
    min_tls: TlsVersion,
    connect_timeout: Duration,
    idle_timeout: Duration,
    answer_timeout: Duration,
}

#[derive(Debug, Clone)]
enum ProxyChoice {
    None,
    Url(ProxyUrl),
    Variables(ProxyVariables),
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            proxy: ProxyChoice::None,
            no_proxy: None,
            bandwidth: None,
            user_agent: concat!("bucket-brigade/", env!("CARGO_PKG_VERSION")).to_owned(),
            ca_file: None,
            client_certificate: None,
            min_tls: TlsVersion::V1_2,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(120),
        }
    }
}

impl NetworkConfig {
    /// Starts with the defaults: no proxy, whatever the environment says, and no limit of the rate.
    pub fn new() -> Self {
        Self::default()
    }

    fn with(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// The proxy of all connections: `http://[USER:PASSWORD@]HOST[:PORT]`, `https://…` (TLS to the proxy), `socks5://…`
    /// or `socks5h://…`. User and password are percent-encoded; an HTTP proxy gets them as `Basic` credentials. The
    /// default ports are 80, 443 and 1080. It is used for every endpoint that is not on [`no_proxy`](Self::no_proxy),
    /// even one on this machine. Takes the place of [`proxy_from_env`](Self::proxy_from_env). Default: none.
    pub fn proxy(self, url: impl Into<String>) -> Self {
        let url = ProxyUrl(Zeroizing::new(url.into()));
        self.with(|fields| fields.proxy = ProxyChoice::Url(url))
    }

    /// Hosts that are reached without the proxy, separated by commas, as curl reads `NO_PROXY`: `example.com` and
    /// `.example.com` (the name and all below it), `10.1.2.3`, `10.0.0.0/8`, `[fd00::1]`, each with `:PORT` if wanted, or
    /// `*` for all. A network holds only endpoints that are written as an address. Default: none, or `NO_PROXY` with
    /// [`proxy_from_env`](Self::proxy_from_env).
    pub fn no_proxy(self, list: impl Into<String>) -> Self {
        let list = list.into();
        self.with(|fields| fields.no_proxy = Some(list))
    }

    /// Reads the proxy from the environment, now: `https_proxy` or `HTTPS_PROXY` for https endpoints, `http_proxy` or
    /// `HTTP_PROXY` for http endpoints, else `all_proxy` or `ALL_PROXY`; and `no_proxy` or `NO_PROXY`. The lower-case name
    /// comes first, an empty value counts as none, and a URL without a scheme is http. `HTTP_PROXY` is not read if
    /// `REQUEST_METHOD` is set: in a CGI program, a request can set it. Endpoints on this machine (`localhost` and
    /// loopback addresses) are reached directly. Takes the place of [`proxy`](Self::proxy).
    pub fn proxy_from_env(self) -> Self {
        self.with_variables(ProxyVariables::read(|name| std::env::var_os(name)))
    }

    fn with_variables(self, variables: ProxyVariables) -> Self {
        self.with(|fields| fields.proxy = ProxyChoice::Variables(variables))
    }

    /// The rate of request and response bodies together. Give clones of one [`Bandwidth`] to several backends, and they
    /// share it. Default: unlimited.
    pub fn bandwidth(self, bandwidth: Bandwidth) -> Self {
        self.with(|fields| fields.bandwidth = Some(bandwidth))
    }

    /// The `User-Agent` of every request, up to 256 visible ASCII characters and single spaces between them. Default
    /// `bucket-brigade/VERSION`.
    pub fn user_agent(self, text: impl Into<String>) -> Self {
        let text = text.into();
        self.with(|fields| fields.user_agent = text)
    }

    /// A PEM file of certificates to trust in addition to the system's.
    pub fn ca_file(self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        self.with(|fields| fields.ca_file = Some(path))
    }

    /// The certificate that is shown to a server that asks for one (mutual TLS), with the certificates that lead to its
    /// authority, and its private key. Both are PEM files, and may be the same. The key is PKCS#8, PKCS#1 or SEC1, without
    /// a passphrase. Proxies do not get it. Default: none.
    pub fn client_certificate(self, cert_pem: impl Into<PathBuf>, key_pem: impl Into<PathBuf>) -> Self {
        let files = (cert_pem.into(), key_pem.into());
        self.with(|fields| fields.client_certificate = Some(files))
    }

    /// The lowest version of TLS that is accepted. Default [`TlsVersion::V1_2`].
    pub fn min_tls(self, version: TlsVersion) -> Self {
        self.with(|fields| fields.min_tls = version)
    }

    /// The longest wait for a connection, proxy and TLS handshake included; more than zero. Default 5 s.
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.with(|fields| fields.connect_timeout = limit)
    }

    /// The longest time without a byte on a connection before the request times out; more than zero. Default 30 s.
    /// Waiting for the [`bandwidth`](Self::bandwidth) does not count.
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with(|fields| fields.idle_timeout = limit)
    }

    /// The longest wait for a response after the request is sent; more than zero. Default 120 s: when the wait begins,
    /// up to 4 MB may still be in the socket's buffer.
    pub fn answer_timeout(self, limit: Duration) -> Self {
        self.with(|fields| fields.answer_timeout = limit)
    }

    /// Returns true if certificates are added to the system's.
    #[cfg(feature = "profiles")]
    pub(crate) fn has_ca_file(&self) -> bool {
        self.0.ca_file.is_some()
    }

    /// Checks every setting, and reads the client certificate.
    pub(crate) fn check(&self) -> Result<NetworkSettings, StorageError> {
        let fields = &*self.0;
        if let Some(bandwidth) = &fields.bandwidth {
            bandwidth.check()?;
        }
        check_user_agent(&fields.user_agent)?;
        // ureq takes a limit of zero for "at once": no request would succeed.
        for (field, limit) in [
            ("idle_timeout", fields.idle_timeout),
            ("connect_timeout", fields.connect_timeout),
            ("answer_timeout", fields.answer_timeout),
        ] {
            if limit.is_zero() {
                return Err(StorageError::config(field, "must not be zero"));
            }
        }
        let files = fields.client_certificate.as_ref();
        Ok(NetworkSettings {
            proxies: Arc::new(self.check_proxies()?),
            bandwidth: fields.bandwidth.clone(),
            user_agent: fields.user_agent.clone(),
            ca_file: fields.ca_file.clone(),
            identity: files.map(|(cert, key)| ClientIdentity::read(cert, key)).transpose()?,
            min_tls: fields.min_tls,
            connect_timeout: fields.connect_timeout,
            idle_timeout: fields.idle_timeout,
            answer_timeout: fields.answer_timeout,
        })
    }

    fn check_proxies(&self) -> Result<ProxyRules, StorageError> {
        let wrong = |problem: String| StorageError::config("proxy", problem);
        let list = self.0.no_proxy.as_deref().map(NoProxy::parse).transpose().map_err(|entry| {
            let why = format!(
                "\"{entry}\" is no host, address or network: write a list such as .example.com,10.0.0.0/8"
            );
            StorageError::config("no_proxy", why)
        })?;
        match &self.0.proxy {
            ProxyChoice::None => Ok(ProxyRules::default()),
            ProxyChoice::Url(url) => {
                Ok(ProxyRules::for_all(Proxy::parse(&url.0).map_err(wrong)?, list.unwrap_or_default()))
            }
            ProxyChoice::Variables(variables) => ProxyRules::from_variables(variables, list).map_err(wrong),
        }
    }
}

fn check_user_agent(text: &str) -> Result<(), StorageError> {
    let wrong = |why: &str| Err(StorageError::config("user_agent", why));
    if text.is_empty() || text.len() > MAX_USER_AGENT_BYTES {
        return wrong(&format!("it has {} bytes: write 1 to {MAX_USER_AGENT_BYTES}", text.len()));
    }
    let is_padded = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    if is_padded || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return wrong("write visible ASCII characters, and single spaces between them");
    }
    Ok(())
}

/// A checked [`NetworkConfig`].
#[derive(Debug, Clone)]
pub(crate) struct NetworkSettings {
    pub(crate) proxies: Arc<ProxyRules>,
    pub(crate) bandwidth: Option<Bandwidth>,
    pub(crate) user_agent: String,
    ca_file: Option<PathBuf>,
    identity: Option<ClientIdentity>,
    min_tls: TlsVersion,
    pub(crate) connect_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) answer_timeout: Duration,
}

impl NetworkSettings {
    /// The same without proxies.
    #[cfg(feature = "profiles")]
    pub(crate) fn without_proxies(&self) -> Self {
        Self { proxies: Arc::default(), ..self.clone() }
    }

    /// Returns the TLS settings for servers, and those for proxies. Reads no certificate if neither has TLS.
    pub(crate) fn tls(&self, is_https: bool) -> Result<(TlsConfig, TlsConfig), StorageError> {
        if !is_https && !self.proxies.needs_tls() {
            return Ok((TlsConfig::default(), TlsConfig::default()));
        }
        let roots = tls::trusted_roots(self.ca_file.as_deref().map(Path::new))?;
        let config = |identity| tls::tls_config(roots.clone(), identity, self.min_tls);
        Ok((config(self.identity.as_ref()), config(None)))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    #[test]
    fn errors_name_the_field() {
        let config = NetworkConfig::new;
        for (config, field) in [
            (config().proxy("ftp://h:1"), "proxy: the scheme"),
            (config().proxy("http://h:1").no_proxy("10.0.0.0/40"), "no_proxy: \"10.0.0.0/40\""),
            (config().no_proxy("a/b"), "no_proxy: "),
            (config().bandwidth(Bandwidth::per_second(1)), "bandwidth: 1 "),
            (config().user_agent(""), "user_agent: "),
            (config().user_agent("x".repeat(257)), "user_agent: it has 257 bytes"),
            (config().user_agent("a\r\nb: c"), "user_agent: "),
            (config().user_agent("ü"), "user_agent: "),
            (config().idle_timeout(Duration::ZERO), "idle_timeout: "),
            (config().connect_timeout(Duration::ZERO), "connect_timeout: "),
            (config().answer_timeout(Duration::ZERO), "answer_timeout: "),
            (
                config().client_certificate("/nowhere/c.pem", "/nowhere/k.pem"),
                "client_certificate: /nowhere/c.pem",
            ),
        ] {
            let error = config.check().unwrap_err();
            assert!(error.message().starts_with(field), "{field}: {error}");
            assert_eq!(error.kind(), crate::ErrorKind::Config);
        }
        let fine = config().user_agent("release-tool/1.2 (+https://example.com)").min_tls(TlsVersion::V1_3);
        assert!(fine.check().is_ok());
    }

    #[test]
    fn i7_password_of_a_proxy_is_shown_nowhere() {
        let config = NetworkConfig::new().proxy("http://user:CANARY@h:1");
        let text = format!("{config:?} {:?}", config.check().unwrap());
        assert!(!text.contains("CANARY") && text.contains("h:1"), "{text}");
        let error = NetworkConfig::new().proxy("http://user:CANARY@h:x").check().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
        let lookup = |name: &str| (name == "https_proxy").then(|| OsString::from("gopher://user:CANARY@h:1"));
        let config = NetworkConfig::new().with_variables(ProxyVariables::read(lookup));
        let error = config.check().unwrap_err();
        assert!(error.message().starts_with("proxy: https_proxy: "), "{error}");
        assert!(!format!("{config:?} {error:?}").contains("CANARY"));
    }

    #[test]
    fn last_choice_of_a_proxy_holds() {
        let lookup = |name: &str| (name == "ALL_PROXY").then(|| OsString::from("env:1"));
        let variables = ProxyVariables::read(lookup);
        let uri = http::Uri::from_static("https://store.example");
        let place = |config: NetworkConfig| {
            config.check().unwrap().proxies.proxy_for(&uri).map(|proxy| proxy.place().to_owned())
        };
        let config = NetworkConfig::new().proxy("own:1");
        assert_eq!(place(config.clone()).as_deref(), Some("own:1"));
        let config = config.with_variables(variables);
        assert_eq!(place(config.clone()).as_deref(), Some("env:1"));
        assert_eq!(place(config.no_proxy("store.example")), None);
        assert_eq!(place(NetworkConfig::new()), None);
    }
}
