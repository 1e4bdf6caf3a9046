//! The hosts that are reached without the proxy: pure functions.

use std::net::IpAddr;
use std::ops::ControlFlow;

/// A list of hosts, as curl and most tools read it from `NO_PROXY`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct NoProxy(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    /// `None` stands for every port.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    All,
    /// This name and all names below it; lower case, without the dot in front.
    Domain(String),
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl NoProxy {
    /// Reads a list, its entries separated by commas or white space.
    ///
    /// # Errors
    /// The first entry that is none.
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let entries = list.split([',', ' ', '\t']).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| parse_entry(entry).ok_or_else(|| entry.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Reads a list and leaves out entries that are none, as other programs do with the variable they share.
    pub(crate) fn parse_lenient(list: &str) -> Self {
        Self(list.split([',', ' ', '\t']).filter_map(parse_entry).collect())
    }

    /// Returns whether this host is on the list. `host` may have the brackets of an IPv6 address.
    pub(crate) fn contains(&self, host: &str, port: u16) -> bool {
        let host = bare(host);
        let address = host.parse::<IpAddr>().ok();
        self.0
            .iter()
            .any(|entry| entry.port.is_none_or(|own| own == port) && entry.hosts.contain(&host, address))
    }
}

impl Hosts {
    fn contain(&self, host: &str, of_host: Option<IpAddr>) -> bool {
        match (self, of_host) {
            (Self::All, _) => true,
            (Self::Domain(domain), None) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Self::Network { address, bits }, Some(of_host)) => is_within(of_host, *address, *bits),
            _ => false,
        }
    }
}

/// Returns the host in lower case, without the brackets of an address and the dot at the end of a name.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase()
}

/// Reads `*`, `example.com`, `.example.com`, `*.example.com`, an address or a network, all but the first with a port
/// if wanted.
fn parse_entry(text: &str) -> Option<Entry> {
    let entry = |hosts, port| Some(Entry { hosts, port });
    if text == "*" {
        return entry(Hosts::All, None);
    }
    // An IPv6 address without brackets has colons, and no port.
    if let Ok(address) = text.parse::<IpAddr>() {
        return entry(whole(address), None);
    }
    if let Some((address, bits)) = text.split_once('/') {
        let address: IpAddr = bare(address).parse().ok()?;
        let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
        return entry(Hosts::Network { address, bits }, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    let host = bare(host);
    if let Ok(address) = host.parse::<IpAddr>() {
        return entry(whole(address), port);
    }
    let domain = host.strip_prefix('*').unwrap_or(&host);
    let domain = domain.strip_prefix('.').unwrap_or(domain);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if domain.is_empty() || !domain.chars().all(is_name) {
        return None;
    }
    entry(Hosts::Domain(domain.to_owned()), port)
}

fn whole(address: IpAddr) -> Hosts {
    Hosts::Network { address, bits: width(address) }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_within(one: IpAddr, network: IpAddr, bits: u8) -> bool {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (one, network) = (octets(one), octets(network));
    let compared = one.iter().zip(&network).try_fold(bits, |left, (a, b)| {
        let mask = u8::MAX.checked_shl(u32::from(8 - left.min(8))).unwrap_or(0);
        if (a ^ b) & mask == 0 {
            ControlFlow::Continue(left.saturating_sub(8))
        } else {
            ControlFlow::Break(())
        }
    });
    one.len() == network.len() && compared.is_continue()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_as_curl_does() {
        for (list, host, port, on_it) in [
            ("example.com", "example.com", 443, true),
            ("example.com", "S3.Example.com.", 443, true),
            ("example.com", "badexample.com", 443, false),
            (".example.com", "example.com", 443, true),
            ("*.example.com", "a.b.example.com", 443, true),
            ("other, example.com", "example.com", 443, true),
            ("example.com:8443", "example.com", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("*", "anything", 1, true),
            ("10.0.0.0/8", "10.200.3.4", 80, true),
            ("10.0.0.0/8", "11.0.0.1", 80, false),
            ("10.0.0.0/9", "10.128.0.1", 80, false),
            ("10.0.0.0/9", "10.127.0.1", 80, true),
            ("0.0.0.0/0", "8.8.8.8", 80, true),
            ("0.0.0.0/0", "[::1]", 80, false),
            ("192.168.1.7", "192.168.1.7", 80, true),
            ("192.168.1.7", "192.168.1.70", 80, false),
            ("192.168.1.7:9000", "192.168.1.7", 80, false),
            ("fd00::/8", "[fd12:3456::1]", 80, true),
            ("[fd00::1]:9000", "[fd00::1]", 9000, true),
            ("::1", "[::1]", 80, true),
            ("0.1", "10.0.0.1", 80, false),
            ("", "example.com", 80, false),
        ] {
            let list = NoProxy::parse(list).unwrap();
            assert_eq!(list.contains(host, port), on_it, "{list:?} {host}:{port}");
        }
    }

    #[test]
    fn wrong_entry_is_named_or_left_out() {
        for wrong in ["10.0.0.0/33", "fd00::/129", "a/b", "host:port", "http://host", "*."] {
            assert_eq!(NoProxy::parse(&format!("good.example,{wrong}")), Err(wrong.to_owned()));
            let lenient = NoProxy::parse_lenient(&format!("good.example,{wrong}"));
            assert!(lenient.contains("good.example", 1) && !lenient.contains("host", 1));
        }
    }
}
