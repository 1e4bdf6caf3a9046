//! Values with a form of their own.

use bytesize::ByteSize;
use http::HeaderMap;

use crate::backend::s3::headers::check_headers;
use crate::backend::s3::headers::rules::{HeaderRule, HeaderRules};
use crate::error::StorageError;
use crate::rescan::config::MaxDelete;
use crate::settings::parts::{Parts, StatePlace};

/// Reads `100` or `10%`.
pub(crate) fn parse_max_delete(text: &str) -> Result<MaxDelete, StorageError> {
    let wrong = || {
        let why = "use a number of files, such as 100, or a percentage from 0% to 100%";
        StorageError::config("max_delete", why)
    };
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().map(MaxDelete::Count).map_err(|_| wrong());
    };
    match percent.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(MaxDelete::Share(percent / 100.0)),
        _ => Err(wrong()),
    }
}

/// Reads a rate such as `10MB/s` or `512KiB`.
pub(crate) fn parse_rate(text: &str, least: u64) -> Result<u64, StorageError> {
    let wrong = |why: &str| StorageError::config("bandwidth", why);
    let size = text.trim().strip_suffix("/s").unwrap_or(text);
    let size: ByteSize =
        size.parse().map_err(|_| wrong("use bytes per second, such as 10MB/s or 512KiB/s"))?;
    if size.as_u64() < least { Err(wrong("use 16KiB/s or more")) } else { Ok(size.as_u64()) }
}

/// Reads `local`, `bucket` or the URL of a prefix.
pub(crate) fn parse_state_place(text: &str) -> Result<StatePlace, StorageError> {
    match text {
        "local" => Ok(StatePlace::Local),
        "bucket" => Ok(StatePlace::Bucket),
        url if url.starts_with("s3://") => Ok(StatePlace::At(url.to_owned())),
        _ => Err(StorageError::config("state", "use local, bucket or s3://BUCKET/PREFIX")),
    }
}

/// Adds the header of a line such as `Cache-Control: no-cache`, for every object, or `[*.html] Cache-Control: no-cache`,
/// for those whose keys match. A later line replaces an earlier one.
pub(crate) fn add_header(parts: &mut Parts, line: &str) -> Result<(), StorageError> {
    let (glob, name, value) = split_header(line)?;
    if glob.is_none() && parts.common_headers.insert(name.to_ascii_lowercase()) {
        check_headers(&[(name.to_owned(), value.to_owned())])?;
        parts.s3(|s3| s3.header(name, value));
    } else if glob.is_none() {
        parts.has_header_rule = true;
    }
    // Behind a rule or a header of the same name, a header of every object is a rule, too: the later one counts.
    let glob = glob.or(parts.has_header_rule.then_some("*"));
    let Some(glob) = glob else { return Ok(()) };
    let rule = HeaderRule::new(glob).set(name, value);
    HeaderRules::new(HeaderMap::new(), std::slice::from_ref(&rule))?;
    parts.has_header_rule = true;
    parts.s3(|s3| s3.header_rule(rule));
    Ok(())
}

/// Splits a line into a pattern, if it begins with one in brackets, a name and a value.
fn split_header(line: &str) -> Result<(Option<&str>, &str, &str), StorageError> {
    let wrong = || {
        let why = "write it as 'Name: value', or as '[GLOB] Name: value' for some files";
        StorageError::config("headers", format!("{line:?}: {why}"))
    };
    let (glob, header) = match line.trim_start().strip_prefix('[') {
        None => (None, line),
        Some(rest) => {
            // A pattern may hold brackets, and a value anything: what follows the pattern is a name and a colon.
            let is_name = |header: &str| {
                let name = header.split(':').next().unwrap_or_default();
                header.contains(':') && !name.is_empty() && !name.contains([' ', ']'])
            };
            let split = rest.match_indices("] ").find(|(at, _)| is_name(rest[at + 2..].trim_start()));
            let (at, _) = split.ok_or_else(wrong)?;
            (Some(&rest[..at]), &rest[at + 2..])
        }
    };
    let (name, value) = header.split_once(':').ok_or_else(wrong)?;
    Ok((glob, name.trim(), value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_delete_is_a_count_or_a_share() {
        assert_eq!(parse_max_delete("10").unwrap(), MaxDelete::Count(10));
        assert_eq!(parse_max_delete("2.5%").unwrap(), MaxDelete::Share(0.025));
        for wrong in ["", "-1", "101%", "half", "NaN%", "1.5"] {
            assert!(parse_max_delete(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_may_have_a_pattern_in_brackets() {
        assert_eq!(split_header("Cache-Control: a, b").unwrap(), (None, "Cache-Control", "a, b"));
        assert_eq!(
            split_header("[*.html] Link: <x>; a=[b] c: d").unwrap(),
            (Some("*.html"), "Link", "<x>; a=[b] c: d")
        );
        assert_eq!(split_header("[[a-z]*.js] A:").unwrap(), (Some("[a-z]*.js"), "A", ""));
        assert_eq!(split_header("[a] b] A: c").unwrap(), (Some("a] b"), "A", "c"));
        for wrong in ["nothing", "[*.html]", "[*.html] none", "[*.html Name: x"] {
            assert!(split_header(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_bytes_per_second() {
        assert_eq!(parse_rate("10MB/s", 1).unwrap(), 10_000_000);
        assert_eq!(parse_rate("512KiB", 1).unwrap(), 512 * 1024);
        for wrong in ["", "fast", "1KiB/s", "10MB/m"] {
            assert!(parse_rate(wrong, 16 * 1024).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_state_is_local_in_the_bucket_or_at_a_url() {
        assert_eq!(parse_state_place("local").unwrap(), StatePlace::Local);
        assert_eq!(parse_state_place("bucket").unwrap(), StatePlace::Bucket);
        assert_eq!(parse_state_place("s3://b/p").unwrap(), StatePlace::At("s3://b/p".to_owned()));
        for wrong in ["", "Bucket", "b/p", "https://b"] {
            assert!(parse_state_place(wrong).is_err(), "{wrong}");
        }
    }
}
