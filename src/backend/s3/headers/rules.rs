//! Rules that give headers to the objects of some keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use globset::GlobSet;
use http::{HeaderMap, HeaderName};

use crate::backend::s3::headers::{MAX_HEADERS_BYTES, ObjectHeaders, check_header, is_stored};
use crate::error::StorageError;
use crate::tree::filter::{compile_patterns, matching_patterns};

/// The kinds of objects that are remembered. More of them means rules that nearly every key combines anew.
const MOST_REMEMBERED: usize = 4096;

/// Headers for the objects whose keys match a pattern.
///
/// ```
/// use bucket_brigade::HeaderRule;
/// let pages = HeaderRule::new("*.html").set("Cache-Control", "no-cache");
/// let wasm = HeaderRule::new("/app/*.wasm").set("Content-Type", "application/wasm").set("x-amz-meta-app", "1");
/// # let _ = (pages, wasm);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRule {
    glob: String,
    headers: Vec<(String, String)>,
}

impl HeaderRule {
    /// Starts a rule without headers. The pattern is one as in [`RescanConfig::include`](crate::RescanConfig::include),
    /// matched against the key without the prefix: `*.html` matches at any depth, `/assets` only at the top, and a
    /// pattern that matches a folder matches everything below it.
    pub fn new(glob: impl Into<String>) -> Self {
        Self { glob: glob.into(), headers: Vec::new() }
    }

    /// Sets a header, also `Content-Type`. An empty value removes the header that earlier rules or
    /// [`S3Config::header`](crate::S3Config::header) set; an empty `Content-Type` is the one by the file's name again.
    /// Names and values are as those of `S3Config::header`; a rule has each name once.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// The headers of all objects, and the checked rules.
pub(crate) struct HeaderRules {
    /// The headers of every object.
    pub(crate) common: HeaderMap,
    /// `None` if there are no rules.
    globs: Option<GlobSet>,
    /// The headers of each rule, in order. An empty value removes the header.
    rules: Vec<HeaderMap>,
    known: Mutex<HashMap<Kind, Arc<ObjectHeaders>>>,
}

/// What decides the headers of an object: its media type by name, and the rules that match its key.
type Kind = (&'static str, Vec<usize>);

impl HeaderRules {
    /// Checks rules, and compiles them.
    ///
    /// # Errors
    /// One that names the field `headers`, the rule and the header.
    pub(crate) fn new(common: HeaderMap, given: &[HeaderRule]) -> Result<Self, StorageError> {
        let patterns: Vec<_> = given.iter().map(|rule| rule.glob.clone()).collect();
        let globs = compile_patterns("headers", &patterns)?;
        let rules = given.iter().map(check_rule).collect::<Result<Vec<_>, _>>()?;
        check_size(&common, &rules)?;
        Ok(Self { common, globs, rules, known: Mutex::default() })
    }

    /// Returns the headers of an object with this key and media type. `make` is called once for each kind of object, with
    /// the merged headers and whether settings gave any.
    pub(crate) fn of<E>(
        &self,
        key: &str,
        media_type: &'static str,
        make: impl FnOnce(HeaderMap, bool) -> Result<ObjectHeaders, E>,
    ) -> Result<Arc<ObjectHeaders>, E> {
        let matching = self.globs.as_ref().map_or_else(Vec::new, |globs| matching_patterns(globs, key));
        let kind = (media_type, matching);
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&kind) {
            return Ok(known.clone());
        }
        let is_explicit = self.common.keys().any(is_stored) || !kind.1.is_empty();
        let headers = Arc::new(make(self.merged(&kind.1), is_explicit)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(kind, headers.clone());
        Ok(headers)
    }

    /// Merges the headers of these rules, in order, into those of every object.
    fn merged(&self, rules: &[usize]) -> HeaderMap {
        let mut headers = self.common.clone();
        for (name, value) in rules.iter().filter_map(|rule| self.rules.get(*rule)).flatten() {
            if value.is_empty() {
                headers.remove(name);
            } else {
                headers.insert(name, value.clone());
            }
        }
        headers
    }
}

fn check_rule(rule: &HeaderRule) -> Result<HeaderMap, StorageError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &rule.headers {
        let wrong = |problem: &str| {
            StorageError::config("headers", format!("the rule for {:?}: {name:?}: {problem}", rule.glob))
        };
        let (header, value) = check_header(name, value).map_err(wrong)?;
        if headers.insert(header, value).is_some() {
            return Err(wrong("it is given twice"));
        }
    }
    Ok(headers)
}

/// Checks that no object has too many bytes of headers, whichever rules match it.
fn check_size(common: &HeaderMap, rules: &[HeaderMap]) -> Result<(), StorageError> {
    let mut longest: HashMap<&HeaderName, usize> = HashMap::new();
    for (name, value) in std::iter::once(common).chain(rules).flatten() {
        let longest = longest.entry(name).or_default();
        *longest = value.len().max(*longest);
    }
    if longest.iter().map(|(name, value)| name.as_str().len() + value).sum::<usize>() > MAX_HEADERS_BYTES {
        let why = "the headers of an object that every rule matches are longer than 4 KiB: use fewer or shorter ones";
        return Err(StorageError::config("headers", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::DueHeaders;
    use crate::backend::s3::headers::check_headers;

    fn rules(common: &[(&str, &str)], rules: &[HeaderRule]) -> Result<HeaderRules, StorageError> {
        let owned = common.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        HeaderRules::new(check_headers(&owned.collect::<Vec<_>>())?, rules)
    }

    fn headers(rules: &HeaderRules, key: &str) -> Vec<String> {
        let due = |is_explicit| DueHeaders { digest: [0; 32], is_explicit };
        let make = |headers, is_explicit| Ok::<_, ()>(ObjectHeaders { headers, due: due(is_explicit) });
        let of_key = rules.of(key, "text/html", make).unwrap();
        let lines = of_key.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable();
        lines
    }

    #[test]
    fn later_rules_replace_and_remove_what_earlier_ones_set() {
        let given = [
            HeaderRule::new("*.html").set("Cache-Control", "no-cache").set("x-amz-meta-page", "1"),
            HeaderRule::new("/docs").set("cache-control", "max-age=60").set("content-type", "text/plain"),
            HeaderRule::new("docs/raw/*").set("Content-Type", "").set("x-amz-meta-page", ""),
            HeaderRule::new("robots.txt").set("Cache-Control", ""),
        ];
        let rules = rules(&[("Cache-Control", "public"), ("x-amz-acl", "private")], &given).unwrap();
        let acl = "x-amz-acl: private";
        for (key, expected) in [
            ("a.js", vec!["cache-control: public", acl]),
            ("x/a.html", vec!["cache-control: no-cache", acl, "x-amz-meta-page: 1"]),
            ("docs", vec!["cache-control: max-age=60", "content-type: text/plain", acl]),
            (
                "docs/a.html",
                vec!["cache-control: max-age=60", "content-type: text/plain", acl, "x-amz-meta-page: 1"],
            ),
            ("docs/raw/a.html", vec!["cache-control: max-age=60", acl]),
            ("x/docs/a", vec!["cache-control: public", acl]),
            ("x/robots.txt", vec![acl]),
        ] {
            assert_eq!(headers(&rules, key), expected, "{key}");
        }
    }

    #[test]
    fn wrong_rules_are_refused_by_field_rule_and_header() {
        let long = "x".repeat(4000);
        for (given, expected) in [
            (HeaderRule::new("["), "headers: \"[\" is not a valid pattern"),
            (HeaderRule::new("../a"), "headers: \"../a\" matches no path"),
            (
                HeaderRule::new("*.a").set("a b", "c"),
                "headers: the rule for \"*.a\": \"a b\": not a header name",
            ),
            (
                HeaderRule::new("*.a").set("x-amz-copy-source", "/b/k"),
                "headers: the rule for \"*.a\": \"x-amz-copy-source\": it is set by this library",
            ),
            (
                HeaderRule::new("*.a").set("Expires", "1").set("expires", ""),
                "headers: the rule for \"*.a\": \"expires\": it is given twice",
            ),
            (
                HeaderRule::new("*.a").set("x-amz-meta-a", long.as_str()),
                "headers: the headers of an object that every rule matches are longer than 4 KiB",
            ),
        ] {
            let error = rules(&[("x-amz-meta-b", &long[..90])], &[given]).err().unwrap();
            assert!(error.message().starts_with(expected), "{error}");
        }
        // Of two values for one header only one is sent.
        let alternatives =
            ["*.a", "*.b"].map(|glob| HeaderRule::new(glob).set("x-amz-meta-a", long.as_str()));
        assert!(rules(&[], &alternatives).is_ok());
    }
}
