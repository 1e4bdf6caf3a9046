//! Proxies, TLS, rate and time limits of connections.

use crate::backend::s3::http::bandwidth::{Bandwidth, MIN_BYTES_PER_SECOND};
use crate::backend::s3::http::no_proxy::NoProxy;
use crate::backend::s3::http::proxy::Proxy;
use crate::backend::s3::http::tls::TlsVersion;
use crate::error::StorageError;
use crate::settings::definitions::{ALL, Group, REQUESTS};
use crate::settings::kind::Kind;
use crate::settings::setting::{Section, Setting};
use crate::settings::values::parse_rate;

const HERE: Section = Section::Connection;

pub(super) const GROUP: Group = Group {
    title: "Network",
    about: "",
    settings: &[
        Setting::new(
            "proxy",
            Kind::Text(|parts, url| {
                Proxy::parse(url).map_err(|why| StorageError::config("proxy", why))?;
                parts.network(|network| network.proxy(url));
                Ok(())
            }),
            "Proxy for all connections: http, https, socks5 or socks5h [default: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY]",
        )
        .on(REQUESTS)
        .value_name("URL")
        .example("http://proxy.example.com:3128")
        .detail(
            "User and password may stand in the URL, percent-encoded; in a file, `{ env = \"NAME\" }` keeps them out of it. \
             The library has no default; the command reads the variables as curl does.",
        )
        .section(HERE),
        Setting::new(
            "no_proxy",
            Kind::Text(|parts, list| {
                NoProxy::parse(list).map_err(|entry| {
                    StorageError::config("no_proxy", format!("{entry:?} is no host, address or network"))
                })?;
                parts.network(|network| network.no_proxy(list));
                Ok(())
            }),
            "Hosts without the proxy, with commas [default: NO_PROXY]",
        )
        .on(REQUESTS)
        .value_name("HOSTS")
        .rare()
        .example(".internal.example.com,10.0.0.0/8")
        .detail("A name stands for all names below it; `*` for all hosts.")
        .section(HERE),
        Setting::new(
            "bandwidth",
            Kind::Text(|parts, rate| {
                let rate = parse_rate(rate, MIN_BYTES_PER_SECOND)?;
                // A program may have changed it since.
                let shared = parts.rate.get_or_init(|| Bandwidth::per_second(rate)).clone();
                parts.network(|network| network.bandwidth(shared));
                Ok(())
            }),
            "Bytes per second of all bodies together, such as 10MB/s",
        )
        .on(REQUESTS)
        .value_name("RATE")
        .example("10MB/s")
        .detail("16KiB/s or more. Sent and received bodies count, headers and retransmissions do not.")
        .section(HERE),
        Setting::new(
            "user_agent",
            Kind::Text(|parts, text| {
                parts.network(|network| network.user_agent(text));
                parts.network.check().map(drop)
            }),
            "User-Agent of every request [default: bucket-brigade/VERSION]",
        )
        .on(REQUESTS)
        .value_name("TEXT")
        .rare()
        .example("release-tool/1.2")
        .section(HERE),
        Setting::new(
            "ca_file",
            Kind::Path(|parts, path| parts.network(|network| network.ca_file(path))),
            "Certificates (PEM) to trust in addition to the system's",
        )
        .on(REQUESTS)
        .accepted_by(ALL)
        .example("ca.pem")
        .variables(&["AWS_CA_BUNDLE"], "ca_bundle")
        .section(HERE),
        Setting::new(
            "client_certificate",
            Kind::Path(|parts, path| parts.client_certificate = Some(path)),
            "Certificate (PEM) for servers that ask for one",
        )
        .on(REQUESTS)
        .rare()
        .example("client.pem")
        .detail("With the certificates that lead to its authority.")
        .section(HERE),
        Setting::new(
            "client_key",
            Kind::Path(|parts, path| parts.client_key = Some(path)),
            "Its private key [default: in the same file]",
        )
        .on(REQUESTS)
        .rare()
        .example("client.key")
        .detail("PKCS#8, PKCS#1 or SEC1, without a passphrase.")
        .field("client_certificate")
        .section(HERE),
        Setting::new(
            "min_tls",
            Kind::Choice(&["1.2", "1.3"], |parts, version| {
                let lowest = if version == "1.3" { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
                parts.network(|network| network.min_tls(lowest));
            }),
            "Lowest version of TLS: 1.2 (default) or 1.3",
        )
        .on(REQUESTS)
        .value_name("VERSION")
        .default("1.2")
        .rare()
        .example("1.3")
        .section(HERE),
        Setting::new(
            "connect_timeout",
            Kind::Time(1, 3600, |parts, limit| parts.network(|network| network.connect_timeout(limit))),
            "Longest wait for a connection, proxy and TLS included",
        )
        .on(REQUESTS)
        .default("5s")
        .rare()
        .example("10s")
        .section(HERE),
        Setting::new(
            "idle_timeout",
            Kind::Time(1, 3600, |parts, limit| parts.network(|network| network.idle_timeout(limit))),
            "Longest time without a byte on a connection",
        )
        .on(REQUESTS)
        .default("30s")
        .rare()
        .example("1m")
        .section(HERE),
        Setting::new(
            "answer_timeout",
            Kind::Time(1, 3600, |parts, limit| parts.network(|network| network.answer_timeout(limit))),
            "Longest wait for a response after a request is sent",
        )
        .on(REQUESTS)
        .default("2m")
        .rare()
        .example("5m")
        .section(HERE),
    ],
};
