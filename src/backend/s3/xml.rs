//! The XML that stores answer with, read leniently: what we do not need may be missing.

use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::backend::{Listed, Page};
use crate::error::{ErrorKind, Operation, StorageError};

/// An `<Error>` document; stores leave out what they please.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ErrorBody {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
}

/// The error in a body, if the body is one; also behind leading white space.
pub(crate) fn error_body(body: &[u8]) -> Option<ErrorBody> {
    let text = std::str::from_utf8(body).ok()?.trim_start();
    if !text.contains("<Error") {
        return None;
    }
    quick_xml::de::from_str(text).ok()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ListBody {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_continuation_token: Option<String>,
    contents: Vec<ObjectBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectBody {
    key: String,
    size: u64,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

/// A page of `ListObjectsV2`; `prefix` is cut off the keys, what lies outside of it is an error.
pub(crate) fn list_page(body: &[u8], prefix: &str) -> Result<Page, StorageError> {
    let list: ListBody = parse(body, Operation::List, "ListBucketResult")?;
    let encoded = list.encoding_type.as_deref() == Some("url");
    let objects = list
        .contents
        .into_iter()
        .map(|object| listed(object, encoded, prefix))
        .collect::<Result<Vec<_>, _>>()?;
    let next = match (list.is_truncated, list.next_continuation_token) {
        (false, _) => None,
        (true, Some(token)) => Some(token),
        (true, None) => return Err(unexpected(Operation::List, "a truncated listing has no token")),
    };
    Ok(Page { objects, next })
}

fn listed(object: ObjectBody, encoded: bool, prefix: &str) -> Result<Listed, StorageError> {
    let key = if encoded { url_decode(&object.key)? } else { object.key };
    let Some(key) = key.strip_prefix(prefix) else {
        return Err(unexpected(Operation::List, "a listing holds keys outside of the prefix"));
    };
    Ok(Listed { key: key.to_owned(), size: object.size, etag: object.etag })
}

/// Listings encode as forms do: a space may come as `+`, a plus never does.
fn url_decode(key: &str) -> Result<String, StorageError> {
    let plain = key.replace('+', " ");
    let decoded = percent_decode_str(&plain).decode_utf8();
    Ok(decoded.map_err(|_| unexpected(Operation::List, "a listed key is not UTF-8"))?.into_owned())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DeleteBody {
    #[serde(rename = "Error")]
    errors: Vec<DeleteErrorBody>,
}

/// Why one key of a `DeleteObjects` was not deleted.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct DeleteErrorBody {
    pub(crate) key: String,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

/// The keys that a `DeleteObjects` did not delete. An `<Error>` document with status 200 is an error.
pub(crate) fn delete_errors(body: &[u8]) -> Result<Vec<DeleteErrorBody>, StorageError> {
    let result: DeleteBody = parse(body, Operation::Delete, "DeleteResult")?;
    Ok(result.errors)
}

fn parse<T: serde::de::DeserializeOwned>(
    body: &[u8],
    operation: Operation,
    root: &str,
) -> Result<T, StorageError> {
    let text = std::str::from_utf8(body).map_err(|_| unexpected(operation, "the answer is not UTF-8"))?;
    let text = text.trim_start();
    if text.contains("<!DOCTYPE") || !text.contains(&format!("<{root}")) {
        return Err(unexpected(operation, &format!("the answer is no {root}")));
    }
    quick_xml::de::from_str(text)
        .map_err(|error| unexpected(operation, "the answer cannot be read").with_source(error))
}

fn unexpected(operation: Operation, what: &str) -> StorageError {
    StorageError::new(ErrorKind::Protocol, operation, what)
}

/// Whether XML carries the key unharmed: XML 1.0 has no form for most control characters, and parsers
/// differ on line ends and on space at either end of a text.
pub(crate) fn can_carry(key: &str) -> bool {
    key.trim() == key && !key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_read_with_whatever_they_have() {
        let full = error_body(b" \n<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>m</Message><RequestId>r</RequestId></Error>");
        assert_eq!(full.unwrap().code.as_deref(), Some("NoSuchBucket"));
        assert_eq!(error_body(b"<Error><Code>X</Code></Error>").unwrap().message, None);
        assert_eq!(error_body(b"<html>gateway</html>"), None);
    }

    #[test]
    fn a_listing_decodes_keys_only_when_the_store_says_that_it_encoded_them() {
        let page = |encoding: &str, key: &str| {
            let body = format!(
                "<ListBucketResult>{encoding}<IsTruncated>false</IsTruncated><Contents><Key>p/{key}</Key>\
                 <LastModified>x</LastModified><Size>3</Size></Contents></ListBucketResult>"
            );
            list_page(body.as_bytes(), "p/").unwrap().objects.remove(0).key
        };
        assert_eq!(page("<EncodingType>url</EncodingType>", "a+b%2Bc%0A"), "a b+c\n");
        assert_eq!(page("", "a+b%2B"), "a+b%2B");
    }

    #[test]
    fn interleaved_elements_of_a_delete_are_read() {
        let body = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error>\
            <Deleted><Key>c</Key></Deleted><Error><Key>d</Key></Error></DeleteResult>";
        let keys: Vec<_> = delete_errors(body).unwrap().into_iter().map(|error| error.key).collect();
        assert_eq!(keys, ["b", "d"]);
    }

    #[test]
    fn n8_n16_errors_doctypes_and_truncation_are_never_taken_for_an_answer() {
        for body in [
            "<Error><Code>InternalError</Code></Error>",
            "<!DOCTYPE x><DeleteResult/>",
            "",
            "<DeleteResult><Del",
        ] {
            assert!(delete_errors(body.as_bytes()).is_err(), "{body}");
        }
        let endless = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(list_page(endless, "").is_err());
        let foreign =
            b"<ListBucketResult><Contents><Key>q/x</Key><Size>1</Size></Contents></ListBucketResult>";
        assert!(list_page(foreign, "p/").is_err());
    }

    #[test]
    fn keys_that_xml_cannot_carry_are_known() {
        assert!(can_carry("a b/ü+&<😀"));
        for key in ["a\u{1}b", "a\rb", "a\nb", "\u{ffff}", " a", "a "] {
            assert!(!can_carry(key), "{key:?}");
        }
    }
}
