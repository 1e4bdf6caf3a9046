//! Headers of all objects, and rules that give headers to some.

use std::convert::Infallible;

use super::{check_error, parts};
use crate::ErrorKind;
use crate::backend::DueHeaders;
use crate::backend::s3::headers::rules::{HeaderRule, HeaderRules};
use crate::backend::s3::headers::{ObjectHeaders, check_headers};
use crate::error::StorageError;

/// The bytes of all headers of an object.
const MOST_BYTES: usize = 4 * 1024;

/// A key, then headers as `name: value`. A part `[pattern` begins a rule, to which the headers that follow belong.
pub(crate) fn target(data: &[u8]) {
    let mut texts = parts(data).map(|part| std::str::from_utf8(part).unwrap_or_default());
    let key = texts.next().unwrap_or_default();
    let (mut common, mut rules) = (Vec::new(), Vec::new());
    for text in texts {
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        if let Some(glob) = text.strip_prefix('[') {
            rules.push(HeaderRule::new(glob));
        } else if let Some(rule) = rules.pop() {
            rules.push(rule.set(name, value));
        } else {
            common.push((name.to_owned(), value.to_owned()));
        }
    }
    let checked = check_headers(&common).and_then(|common| HeaderRules::new(common, &rules));
    match checked {
        Ok(rules) => check_object(&rules, key),
        Err(error) => check_refusal(&error, data.len()),
    }
}

fn check_refusal(error: &StorageError, length: usize) {
    assert_eq!(error.kind(), ErrorKind::Config);
    check_error(error, 2 * length);
}

/// Checks what would be signed and sent with an object.
fn check_object(rules: &HeaderRules, key: &str) {
    let object = |times: &mut usize| {
        rules
            .of(key, "text/plain", |headers, is_explicit| {
                *times += 1;
                let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
                assert!(size <= MOST_BYTES, "{size} bytes of headers");
                for (name, value) in &headers {
                    let name = name.as_str();
                    assert!(!matches!(name, "host" | "authorization" | "content-length" | "connection"));
                    assert!(!name.starts_with("x-amz-copy-source") && name != "x-amz-meta-brigade");
                    let value = value.to_str().unwrap();
                    assert_eq!(value, value.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                Ok::<_, Infallible>(ObjectHeaders {
                    headers,
                    due: DueHeaders { digest: [0; 32], is_explicit },
                })
            })
            .unwrap_or_else(|never| match never {})
    };
    let mut times = 0;
    let (first, second) = (object(&mut times), object(&mut times));
    // It is made once for each kind of object.
    assert!(times == 1 && std::sync::Arc::ptr_eq(&first, &second));
}
