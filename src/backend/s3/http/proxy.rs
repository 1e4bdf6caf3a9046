//! Proxies: their URLs, the environment variables that name them, and which requests go through them. Pure functions.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::uri::{Authority, Scheme};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::backend::s3::http::no_proxy::NoProxy;

/// The longest user name and password: SOCKS5 sends the length of each in a byte.
const MAX_LOGIN_BYTES: usize = 255;

/// The protocol that is spoken with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    /// HTTP, with CONNECT for every connection.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS5 with an address: names are resolved here.
    Socks5,
    /// SOCKS5 with a name: the proxy resolves it.
    Socks5h,
}

impl ProxyKind {
    fn parse(scheme: &str) -> Option<Self> {
        Some(match scheme.to_ascii_lowercase().as_str() {
            "http" => Self::Http,
            "https" => Self::Https,
            "socks5" => Self::Socks5,
            "socks5h" => Self::Socks5h,
            _ => return None,
        })
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 | Self::Socks5h => 1080,
        }
    }

    /// Returns whether the proxy resolves the names of servers.
    pub(crate) fn resolves_names(self) -> bool {
        self != Self::Socks5
    }
}

/// One proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) kind: ProxyKind,
    /// Its address, without user and password: `https://host:port/` over TLS, else `http://host:port/`.
    pub(crate) uri: Uri,
    pub(crate) login: Option<Login>,
}

/// The user name and the password for a proxy.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

impl Proxy {
    /// Reads the URL of a proxy; without a scheme it is http.
    ///
    /// # Errors
    /// The problem. It never quotes the URL, which may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        const FORM: &str = "write SCHEME://[USER:PASSWORD@]HOST:PORT";
        let (scheme, rest) = url.trim().split_once("://").unwrap_or(("http", url.trim()));
        let kind = ProxyKind::parse(scheme).ok_or(
            "the scheme is not known: use http, https, socks5 or socks5h (names resolved by the proxy)",
        )?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A password may hold such a character if it is not percent-encoded: the host would be cut wrongly.
        if rest.contains(['/', '?', '#']) {
            let why =
                "it has a path, a query, or a character that must be percent-encoded in user and password";
            return Err(format!("{why}: {FORM}"));
        }
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(Login::parse(login)?), place),
            None => (None, rest),
        };
        let invalid = || format!("the host or the port is invalid: {FORM}");
        let place: Authority = place.parse().map_err(|_| invalid())?;
        let port = match place.as_str().strip_prefix(place.host()) {
            Some("") => kind.default_port(),
            Some(port) => port.trim_start_matches(':').parse().map_err(|_| invalid())?,
            None => 0,
        };
        if place.host().is_empty() || port == 0 {
            return Err(invalid());
        }
        let scheme = if kind == ProxyKind::Https { Scheme::HTTPS } else { Scheme::HTTP };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(format!("{}:{port}", place.host()))
            .path_and_query("/")
            .build()
            .map_err(|_| invalid())?;
        Ok(Self { kind, uri, login })
    }

    /// Returns `host:port`, as errors name the proxy.
    pub(crate) fn place(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }
}

impl Login {
    fn parse(login: &str) -> Result<Self, String> {
        let decode = |text: &str, what: &str| {
            let decoded =
                percent_decode_str(text).decode_utf8().map_err(|_| format!("the {what} is not UTF-8"))?;
            if decoded.len() > MAX_LOGIN_BYTES || decoded.chars().any(char::is_control) {
                return Err(format!(
                    "the {what} has a control character or more than {MAX_LOGIN_BYTES} bytes"
                ));
            }
            Ok(decoded.into_owned())
        };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let login = Self {
            user: decode(user, "user name")?,
            password: Zeroizing::new(decode(password, "password")?),
        };
        // A header ends the name at its first colon.
        if login.user.is_empty() || login.user.contains(':') {
            return Err("the user name is empty or has a colon".to_owned());
        }
        Ok(login)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}{}",
            self.kind,
            self.place(),
            if self.login.is_some() { " with a login" } else { "" }
        )
    }
}

/// The URL of a proxy, not yet read.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProxyUrl(pub(crate) Zeroizing<String>);

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Proxy::parse(&self.0) {
            Ok(proxy) => proxy.fmt(f),
            Err(_) => f.write_str("invalid"),
        }
    }
}

/// What the environment says about proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyVariables {
    /// For https endpoints: the variable's name and its value.
    https: Option<(&'static str, ProxyUrl)>,
    http: Option<(&'static str, ProxyUrl)>,
    no_proxy: String,
    /// A variable whose value is not UTF-8.
    unreadable: Option<&'static str>,
}

impl ProxyVariables {
    /// Reads the variables that curl reads, in its order. `HTTP_PROXY` is not read in a CGI program, where a request's
    /// `Proxy` header becomes that variable ("httpoxy").
    pub(crate) fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut unreadable = None;
        let mut first_of = |names: &[&'static str]| {
            let set = |name: &&'static str| {
                lookup(name).filter(|value| !value.is_empty()).map(|value| (*name, value))
            };
            let (name, value) = names.iter().find_map(set)?;
            let text = value.into_string();
            if text.is_err() {
                unreadable = Some(name);
            }
            Some((name, text.ok()?))
        };
        let in_cgi = lookup("REQUEST_METHOD").is_some();
        let http_names: &[_] = if in_cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let all = first_of(&["all_proxy", "ALL_PROXY"]);
        let https = first_of(&["https_proxy", "HTTPS_PROXY"]).or_else(|| all.clone());
        let http = first_of(http_names).or(all);
        let no_proxy = first_of(&["no_proxy", "NO_PROXY"]).map(|(_, list)| list).unwrap_or_default();
        let url = |(name, value)| (name, ProxyUrl(Zeroizing::new(value)));
        Self { https: https.map(url), http: http.map(url), no_proxy, unreadable }
    }
}

/// The proxies of a configuration, checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProxyRules {
    https: Option<Proxy>,
    http: Option<Proxy>,
    no_proxy: NoProxy,
    /// Servers on this machine are reached directly.
    spares_loopback: bool,
}

impl ProxyRules {
    /// The rules of one proxy for everything but `no_proxy`.
    pub(crate) fn for_all(proxy: Proxy, no_proxy: NoProxy) -> Self {
        Self { https: Some(proxy.clone()), http: Some(proxy), no_proxy, spares_loopback: false }
    }

    /// The rules of the environment; a list given by the caller takes the place of `NO_PROXY`.
    ///
    /// # Errors
    /// The variable with its problem; never its value.
    pub(crate) fn from_variables(from: &ProxyVariables, no_proxy: Option<NoProxy>) -> Result<Self, String> {
        if let Some(name) = from.unreadable {
            return Err(format!("{name} is not UTF-8"));
        }
        let parse = |(name, url): &(&'static str, ProxyUrl)| {
            Proxy::parse(&url.0).map_err(|problem| format!("{name}: {problem}"))
        };
        Ok(Self {
            https: from.https.as_ref().map(parse).transpose()?,
            http: from.http.as_ref().map(parse).transpose()?,
            no_proxy: no_proxy.unwrap_or_else(|| NoProxy::parse_lenient(&from.no_proxy)),
            spares_loopback: true,
        })
    }

    /// Returns the proxy for a request to this URL.
    pub(crate) fn proxy_for(&self, uri: &Uri) -> Option<&Proxy> {
        let (host, is_https) = (uri.host()?, uri.scheme() == Some(&Scheme::HTTPS));
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let is_spared = self.spares_loopback && is_this_machine(host);
        let proxy = if is_https { self.https.as_ref() } else { self.http.as_ref() };
        proxy.filter(|_| !is_spared && !self.no_proxy.contains(host, port))
    }

    /// Returns whether a proxy is reached over TLS.
    pub(crate) fn needs_tls(&self) -> bool {
        [&self.https, &self.http].into_iter().flatten().any(|proxy| proxy.kind == ProxyKind::Https)
    }
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    bare.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> Result<ProxyRules, String> {
        let lookup = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(*value))
        };
        ProxyRules::from_variables(&ProxyVariables::read(lookup), None)
    }

    fn place(rules: &ProxyRules, uri: &'static str) -> Option<String> {
        rules.proxy_for(&Uri::from_static(uri)).map(|proxy| proxy.place().to_owned())
    }

    #[test]
    fn urls_are_read_with_their_defaults_and_decoded_logins() {
        for (url, kind, at, login) in [
            ("http://p:3128", ProxyKind::Http, "p:3128", None),
            ("p:3128/", ProxyKind::Http, "p:3128", None),
            ("http://p", ProxyKind::Http, "p:80", None),
            ("https://p", ProxyKind::Https, "p:443", None),
            ("socks5://u@[::1]", ProxyKind::Socks5, "[::1]:1080", Some(("u", ""))),
            ("SOCKS5H://u:p%40%3a%2F%25@h:1", ProxyKind::Socks5h, "h:1", Some(("u", "p@:/%"))),
            ("http://u:a@b:c@h:1", ProxyKind::Http, "h:1", Some(("u", "a@b:c"))),
        ] {
            let proxy = Proxy::parse(url).unwrap();
            let found = proxy.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()));
            assert_eq!((proxy.kind, proxy.place(), found), (kind, at, login), "{url}");
        }
    }

    #[test]
    fn i7_wrong_url_is_refused_and_its_password_shown_nowhere() {
        for url in [
            "ftp://u:CANARY@h:1",
            "http://u:CANARY@",
            "http://u:CANARY@h:x",
            "http://u:CANARY@h:99999",
            "http://u:CANARY@h/path",
            "http://u:CAN/CANARY@h:1",
            "http://u:CANARY%00@h:1",
            "http://u:CANARY%ff@h:1",
            "http://:CANARY@h:1",
            "http://a%3Ab:CANARY@h:1",
            "http://h h:CANARY",
            "",
        ] {
            let error = Proxy::parse(url).unwrap_err();
            assert!(!error.contains("CANARY") && !error.is_empty(), "{url}: {error}");
            assert!(!format!("{:?}", ProxyUrl(Zeroizing::new(url.to_owned()))).contains("CANARY"));
        }
        let long = format!("http://u:{}@h:1", "x".repeat(256));
        assert!(Proxy::parse(&long).unwrap_err().contains("255"));
        let fine = ProxyUrl(Zeroizing::new("http://u:CANARY@h:1".to_owned()));
        assert_eq!(format!("{fine:?}"), "Http h:1 with a login");
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        let both =
            rules(&[("https_proxy", "http://s:1"), ("HTTP_PROXY", "h:2"), ("ALL_PROXY", "a:3")]).unwrap();
        assert_eq!(place(&both, "https://store.example").as_deref(), Some("s:1"));
        assert_eq!(place(&both, "http://store.example").as_deref(), Some("h:2"));
        let lower = rules(&[("HTTPS_PROXY", "up:1"), ("https_proxy", "low:1")]).unwrap();
        assert_eq!(place(&lower, "https://store.example").as_deref(), Some("low:1"));
        let all = rules(&[("ALL_PROXY", "socks5h://a:3"), ("https_proxy", "")]).unwrap();
        assert_eq!(place(&all, "https://store.example").as_deref(), Some("a:3"));
        assert_eq!(place(&all, "http://store.example").as_deref(), Some("a:3"));
        let cgi = rules(&[("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert_eq!(place(&cgi, "http://store.example"), None);
        let cgi = rules(&[("http_proxy", "own:1"), ("REQUEST_METHOD", "GET")]).unwrap();
        assert_eq!(place(&cgi, "http://store.example").as_deref(), Some("own:1"));
        assert_eq!(place(&rules(&[]).unwrap(), "http://store.example"), None);
    }

    #[test]
    fn variables_spare_this_machine_and_the_hosts_of_no_proxy() {
        let env = rules(&[("ALL_PROXY", "p:1"), ("NO_PROXY", "inner.example, 10.0.0.0/8,!!")]).unwrap();
        for direct in
            ["http://localhost:9000", "https://127.9.9.9", "http://[::1]:1", "https://a.inner.example"]
        {
            assert_eq!(place(&env, direct), None, "{direct}");
        }
        assert_eq!(place(&env, "http://10.1.2.3"), None);
        assert_eq!(place(&env, "http://11.1.2.3").as_deref(), Some("p:1"));
        let one = ProxyRules::for_all(Proxy::parse("p:1").unwrap(), NoProxy::parse("inner.example").unwrap());
        assert_eq!(place(&one, "http://localhost:9000").as_deref(), Some("p:1"), "named by the caller");
        assert_eq!(place(&one, "http://inner.example"), None);
    }

    #[test]
    fn i7_wrong_variable_is_named_without_its_value() {
        let error = rules(&[("https_proxy", "ftp://u:CANARY@h")]).unwrap_err();
        assert!(error.starts_with("https_proxy: ") && !error.contains("CANARY"), "{error}");
    }
}
