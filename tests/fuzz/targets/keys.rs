//! Keys, prefixes, destinations and URLs.

use http::Uri;
use percent_encoding::percent_decode_str;

use super::{check_error, parts};
use crate::backend::s3::address::{S3Address, split_url};
use crate::backend::s3::http::no_proxy::NoProxy;
use crate::backend::s3::http::proxy::Proxy;
use crate::key::{MAX_KEY_BYTES, Prefix, RemoteKey, encode_path, is_reserved};
use crate::{ErrorKind, S3Config};

/// A text, and if there is a second part, a key.
pub(crate) fn target(data: &[u8]) {
    let mut parts = parts(data).map(|part| std::str::from_utf8(part).ok());
    let Some(Some(text)) = parts.next() else { return };
    let key = parts.next().flatten().unwrap_or(text);
    check_key(key);
    check_prefix(text, key);
    check_proxies(text, key);
    if let Ok((bucket, prefix)) = split_url(text) {
        assert!(!bucket.is_empty() && !bucket.contains('/'));
        assert_eq!(text.trim_end_matches('/'), format!("s3://{bucket}/{prefix}").trim_end_matches('/'));
    }
    let of_url = S3Config::for_url(text).and_then(|config| config.endpoint("https://store.test").address());
    let base = S3Config::new("bucket").region("eu-central-1");
    for address in [of_url, base.clone().endpoint(text).address(), base.public_url(text).address()] {
        match address {
            Ok(address) => check_address(&address, key),
            Err(error) => {
                check_error(&error, text.len());
                assert_eq!(error.kind(), ErrorKind::Config);
            }
        }
    }
}

fn check_key(text: &str) {
    let is_good = (1..=MAX_KEY_BYTES).contains(&text.len())
        && !text.contains('\0')
        && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    match RemoteKey::new(text) {
        Ok(key) => {
            assert!(is_good);
            assert_eq!(key.as_str(), text);
            assert_eq!(is_reserved(text), text.split('/').any(|segment| segment == ".brigade"));
        }
        Err(error) => {
            assert!(!is_good);
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
        }
    }
    check_encoded(&encode_path(text), text);
}

/// Checks that a part of a URL is the key, and nothing else.
fn check_encoded(encoded: &str, key: &str) {
    assert!(encoded.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/%".contains(&byte)));
    assert_eq!(percent_decode_str(encoded).decode_utf8().unwrap(), key);
}

fn check_prefix(text: &str, key: &str) {
    let Ok(prefix) = Prefix::new(text) else { return };
    assert_eq!(Prefix::new(prefix.as_str()).unwrap(), prefix);
    assert!(prefix.as_str().is_empty() || prefix.as_str().ends_with('/'));
    assert!(prefix.room() > 0);
    let Ok(key) = RemoteKey::new(key) else { return };
    match prefix.join_checked(&key) {
        // The whole is a key by the same rules, below the prefix.
        Ok(full) => {
            assert!(RemoteKey::new(&full).is_ok());
            assert_eq!(full.strip_prefix(prefix.as_str()), Some(key.as_str()));
        }
        Err(_) => assert!(key.as_str().len() > prefix.room()),
    }
}

fn check_address(address: &S3Address, key: &str) {
    let url = address.get_url(key);
    let object = address.build_key(key);
    assert!(url.parse::<Uri>().is_ok(), "{url}");
    let encoded = encode_path(&object);
    let base = url.strip_suffix(&encoded).unwrap();
    assert!(base.ends_with('/') && !base.contains(['?', '#', ' ']), "{url}");
    assert!(address.destination().starts_with("s3://"));
}

fn check_proxies(text: &str, host: &str) {
    match Proxy::parse(text) {
        Ok(proxy) => {
            let place: http::uri::Authority = proxy.place().parse().unwrap();
            assert!(place.port_u16().is_some_and(|port| port > 0) && !proxy.place().contains('@'));
            // The address alone makes the same proxy.
            let again = Proxy::parse(&proxy.uri.to_string()).unwrap();
            assert_eq!(again.place(), proxy.place());
        }
        // The text may hold a password.
        Err(error) => assert!(text.len() < 12 || !error.contains(text)),
    }
    let lenient = NoProxy::parse_lenient(text);
    if let Ok(list) = NoProxy::parse(text) {
        assert_eq!(list, lenient);
    }
    // The dot at the end of a name means nothing, and neither does its case.
    let is_spared = lenient.contains(host, 443);
    assert_eq!(lenient.contains(&host.to_ascii_uppercase(), 443), is_spared);
}
