//! Checks of the settings that name the bucket, the endpoint and the region.
//!
//! [`headers`](crate::backend::s3::headers) checks the headers.

use std::net::IpAddr;

use http::Uri;
use s3::region::Region;

use crate::error::StorageError;

/// Checks a bucket name against the union of what stores allow: some accept more than AWS.
pub(crate) fn check_bucket(name: &str) -> Result<(), StorageError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.contains('/') {
        "a bucket name has no '/'; put what follows it into bucket_prefix"
    } else if name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        "use letters, digits, '-', '.' and '_', 255 at most"
    } else {
        return Ok(());
    };
    Err(StorageError::config("bucket", format!("{name:?}: {problem}")))
}

/// Returns a URL without query and fragment: those of a signed URL must not appear in an error.
fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Returns `scheme://authority` of an endpoint, without a default port.
pub(crate) fn check_endpoint(text: &str) -> Result<String, StorageError> {
    let wrong =
        |problem: &str| StorageError::config("endpoint", format!("{:?}: {problem}", without_query(text)));
    if text.contains('@') {
        // The text may hold a password: it is not quoted.
        return Err(StorageError::config("endpoint", "it holds a user name; use credentials instead"));
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = with_scheme
        .trim_end_matches('/')
        .parse()
        .map_err(|_| wrong("not a URL; write https://HOST or http://HOST:PORT"))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| wrong("the scheme must be https:// or http://"))?;
    // A port alone is an authority, too.
    let authority = uri.authority().filter(|authority| !authority.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("it has no host"))?.as_str();
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(wrong("it has a path; set bucket and bucket_prefix instead"));
    }
    // With and without the default port, the destination must be the same: a cache is bound to its name.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

/// Checks the name of a region.
pub(crate) fn check_region(name: &str) -> Result<(), StorageError> {
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    let why = format!("invalid name {name:?}: use a name such as eu-central-1");
    Err(StorageError::config("region", why))
}

/// Returns the region that requests are signed for, with its host.
pub(crate) fn resolve_region(name: Option<&str>, endpoint: Option<String>) -> Result<Region, StorageError> {
    name.map_or(Ok(()), check_region)?;
    match (name, endpoint) {
        // Most stores ignore the region. One that checks it names the right one in its error.
        (name, Some(endpoint)) => {
            Ok(Region::Custom { region: name.unwrap_or("us-east-1").to_owned(), endpoint })
        }
        (None, None) => Err(StorageError::config("region", "missing: AWS needs one, such as us-east-1")),
        (Some("auto"), None) => Err(StorageError::config(
            "region",
            "\"auto\" needs an endpoint: set endpoint, or name the region",
        )),
        (Some(name), None) => match name.parse() {
            // A region newer than the list of rust-s3 is served at the usual host.
            Ok(Region::Custom { .. }) | Err(_) => Ok(Region::Custom {
                region: name.to_owned(),
                endpoint: format!("https://s3.{name}.amazonaws.com"),
            }),
            Ok(known) => Ok(known),
        },
    }
}

/// Returns whether a host is one of AWS.
pub(crate) fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// Checks that `url` can stand before keys: absolute, without query and fragment.
pub(crate) fn check_base_url(field: &str, url: &str) -> Result<String, StorageError> {
    let has_host = |uri: &Uri| uri.host().is_some_and(|host| !host.is_empty());
    let absolute =
        url.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && has_host(&uri) && uri.query().is_none());
    if !absolute || url.contains('#') {
        let why = format!(
            "{:?} is no absolute URL without a query: write https://HOST or https://HOST/PATH",
            without_query(url)
        );
        return Err(StorageError::config(field, why));
    }
    Ok(url.to_owned())
}

/// Returns whether `host`, with or without a port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    // An IPv6 address stands in brackets: the colons in it begin no port.
    let name = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    // RFC 6761: every name below .localhost is this machine.
    let is_local_name = name == "localhost" || name.strip_suffix(".localhost").is_some();
    is_local_name || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_this_machine_is_known_by_its_name_or_address() {
        for host in
            ["localhost", "localhost:9000", "s3.localhost", "127.0.0.1:1", "127.1.2.3", "[::1]:9000", "[::1]"]
        {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com",
            "10.0.0.1",
            "128.0.0.1",
            "[2001:db8::1]:1",
            "mylocalhost",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
