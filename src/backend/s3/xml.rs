//! The XML that stores answer with, read leniently: what we do not need may be missing.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::backend::s3::redaction::{Raw, Secrets};
use crate::backend::{Listed, ListedPart, ListedUpload, Page, SentPart, UploadMarker, UploadPage};
use crate::error::{ErrorKind, Operation, StorageError};

/// What an `<Error>` document says, in texts for people; stores leave out what they please.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ErrorBody {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) access_key_id: Option<String>,
}

impl ErrorBody {
    pub(crate) fn of_code(code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..Self::default() }
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawError {
    code: Option<Raw>,
    message: Option<Raw>,
    request_id: Option<Raw>,
    region: Option<Raw>,
    endpoint: Option<Raw>,
    #[serde(rename = "AWSAccessKeyId")]
    access_key_id: Option<Raw>,
}

/// Whether a body is an `<Error>` document as a whole; other answers may have elements of that name.
pub(crate) fn is_error(body: &[u8]) -> bool {
    root(body).starts_with(b"<Error")
}

/// Whether a body is the XML result that an operation of S3 answers with.
pub(crate) fn is_result(body: &[u8]) -> bool {
    let root = root(body);
    let end = root.iter().position(|byte| b" \t\r\n/>".contains(byte)).unwrap_or(root.len());
    root.starts_with(b"<") && root[..end].ends_with(b"Result")
}

/// A document from its first element on.
fn root(body: &[u8]) -> &[u8] {
    let text = body.trim_ascii_start();
    let text = match text.strip_prefix(b"<?xml") {
        Some(rest) => rest.iter().position(|byte| *byte == b'>').map_or(rest, |end| &rest[end + 1..]),
        None => text,
    };
    text.trim_ascii_start()
}

/// The error in a body, if the body is one; also behind leading white space.
pub(crate) fn error_body(body: &[u8], secrets: &Secrets) -> Option<ErrorBody> {
    let text = std::str::from_utf8(body).ok()?.trim_start();
    if !text.contains("<Error") {
        return None;
    }
    let raw: RawError = quick_xml::de::from_str(text).ok()?;
    let said = |text: Option<Raw>| text.map(|text| text.text(secrets));
    Some(ErrorBody {
        code: said(raw.code),
        message: said(raw.message),
        request_id: said(raw.request_id),
        region: said(raw.region),
        endpoint: said(raw.endpoint),
        access_key_id: said(raw.access_key_id),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ListBody {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_continuation_token: Option<Raw>,
    contents: Vec<ObjectBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectBody {
    key: Raw,
    size: u64,
    #[serde(rename = "ETag")]
    etag: Option<Raw>,
}

/// A page of `ListObjectsV2`; `prefix` is cut off the keys, what lies outside of it is an error.
pub(crate) fn list_page(body: &[u8], secrets: &Secrets, prefix: &str) -> Result<Page, StorageError> {
    let list: ListBody = parse(body, secrets, Operation::List, "ListBucketResult")?;
    let encoded = list.encoding_type.as_deref() == Some("url");
    let objects = list
        .contents
        .into_iter()
        .map(|object| listed(object, secrets, encoded, prefix))
        .collect::<Result<Vec<_>, _>>()?;
    let next = match (list.is_truncated, list.next_continuation_token) {
        (false, _) => None,
        (true, Some(token)) => Some(token.page_token(secrets)?),
        (true, None) => return Err(unexpected(Operation::List, "a truncated listing has no token")),
    };
    Ok(Page { objects, next })
}

fn listed(
    object: ObjectBody,
    secrets: &Secrets,
    encoded: bool,
    prefix: &str,
) -> Result<Listed, StorageError> {
    let key = plain(object.key, encoded)?.key(secrets);
    let Some(key) = key.strip_prefix(prefix) else {
        return Err(unexpected(Operation::List, "a listing holds keys outside of the prefix"));
    };
    let etag = object.etag.map(|tag| tag.etag(secrets, Operation::List)).transpose()?;
    Ok(Listed { key: key.to_owned(), size: object.size, etag })
}

fn plain(key: Raw, encoded: bool) -> Result<Raw, StorageError> {
    if encoded { key.decoded(|key| url_decode(&key)) } else { Ok(key) }
}

/// Listings encode as forms do: a space may come as `+`, a plus never does.
fn url_decode(key: &str) -> Result<String, StorageError> {
    let plain = key.replace('+', " ");
    let decoded = percent_decode_str(&plain).decode_utf8();
    Ok(decoded.map_err(|_| unexpected(Operation::List, "a listed key is not UTF-8"))?.into_owned())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BegunBody {
    upload_id: Raw,
}

/// The ID of a new upload.
pub(crate) fn upload_id(body: &[u8], secrets: &Secrets) -> Result<String, StorageError> {
    let begun: BegunBody = parse(body, secrets, Operation::Upload, "InitiateMultipartUploadResult")?;
    let id = begun.upload_id.upload_id(secrets, Operation::Upload)?;
    if id.is_empty() {
        return Err(unexpected(Operation::Upload, "the answer names no upload"));
    }
    Ok(id)
}

/// The body of a `CompleteMultipartUpload`; with the parts' checksums where they were sent with them.
pub(crate) fn complete_body(parts: &[SentPart], with_checksums: bool) -> String {
    let mut text = String::from("<CompleteMultipartUpload>");
    for (part, number) in parts.iter().zip(1_u32..) {
        let etag = quick_xml::escape::escape(&part.etag);
        // Writing to a string cannot fail.
        let _ = write!(text, "<Part><PartNumber>{number}</PartNumber><ETag>&quot;{etag}&quot;</ETag>");
        if with_checksums {
            let sha256 = BASE64_STANDARD.encode(part.sha256);
            let _ = write!(text, "<ChecksumSHA256>{sha256}</ChecksumSHA256>");
        }
        text.push_str("</Part>");
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

#[derive(Debug, Deserialize)]
struct CompletedBody {
    #[serde(rename = "ETag")]
    etag: Option<Raw>,
}

/// The `ETag` of the object that an upload became.
pub(crate) fn completed(body: &[u8], secrets: &Secrets) -> Result<Option<String>, StorageError> {
    let completed: CompletedBody = parse(body, secrets, Operation::Upload, "CompleteMultipartUploadResult")?;
    let etag = completed.etag.map(|tag| tag.etag(secrets, Operation::Upload)).transpose()?;
    Ok(etag.filter(|tag| !tag.is_empty()))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct PartsBody {
    is_truncated: bool,
    next_part_number_marker: Option<u32>,
    #[serde(rename = "Part")]
    parts: Vec<PartBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PartBody {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: Option<Raw>,
    size: u64,
}

/// A page of `ListParts`, and behind which part the next one begins.
pub(crate) fn parts_page(
    body: &[u8],
    secrets: &Secrets,
) -> Result<(Vec<ListedPart>, Option<u32>), StorageError> {
    let list: PartsBody = parse(body, secrets, Operation::List, "ListPartsResult")?;
    let mut parts = Vec::with_capacity(list.parts.len());
    for part in list.parts {
        let etag = part.etag.map(|tag| tag.etag(secrets, Operation::List)).transpose()?;
        parts.push(ListedPart { number: part.part_number, size: part.size, etag });
    }
    match (list.is_truncated, list.next_part_number_marker) {
        (false, _) => Ok((parts, None)),
        (true, Some(next)) => Ok((parts, Some(next))),
        (true, None) => Err(unexpected(Operation::List, "a truncated list of parts has no marker")),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UploadsBody {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_key_marker: Option<Raw>,
    next_upload_id_marker: Option<Raw>,
    #[serde(rename = "Upload")]
    uploads: Vec<UploadBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadBody {
    key: Raw,
    upload_id: Raw,
}

/// A page of `ListMultipartUploads`; `prefix` is cut off the keys.
pub(crate) fn uploads_page(body: &[u8], secrets: &Secrets, prefix: &str) -> Result<UploadPage, StorageError> {
    let list: UploadsBody = parse(body, secrets, Operation::List, "ListMultipartUploadsResult")?;
    let encoded = list.encoding_type.as_deref() == Some("url");
    let mut uploads = Vec::with_capacity(list.uploads.len());
    for upload in list.uploads {
        let key = plain(upload.key, encoded)?.key(secrets);
        let key = key.strip_prefix(prefix).map(str::to_owned);
        let key = key.ok_or_else(|| {
            unexpected(Operation::List, "a list of uploads holds keys outside of the prefix")
        })?;
        uploads.push(ListedUpload { key, upload_id: upload.upload_id.upload_id(secrets, Operation::List)? });
    }
    let next = match (list.is_truncated, list.next_key_marker) {
        (false, _) => None,
        (true, Some(key)) => {
            let upload_id = list.next_upload_id_marker.unwrap_or_default().page_token(secrets)?;
            Some(UploadMarker { key: plain(key, encoded)?.page_token(secrets)?, upload_id })
        }
        (true, None) => {
            return Err(unexpected(Operation::List, "a truncated list of uploads has no marker"));
        }
    };
    Ok(UploadPage { uploads, next })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DeleteBody {
    #[serde(rename = "Error")]
    errors: Vec<RawDeleteError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RawDeleteError {
    key: Raw,
    code: Option<Raw>,
    message: Option<Raw>,
}

/// Why one key of a `DeleteObjects` was not deleted.
#[derive(Debug)]
pub(crate) struct KeyRefusal {
    pub(crate) key: String,
    /// Empty where the store gave none.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// The keys that a `DeleteObjects` did not delete. An `<Error>` document with status 200 is an error.
pub(crate) fn refused_keys(body: &[u8], secrets: &Secrets) -> Result<Vec<KeyRefusal>, StorageError> {
    let result: DeleteBody = parse(body, secrets, Operation::Delete, "DeleteResult")?;
    let said = |text: Option<Raw>| text.unwrap_or_default().text(secrets);
    let refusal = |raw: RawDeleteError| KeyRefusal {
        key: raw.key.key(secrets),
        code: said(raw.code),
        message: said(raw.message),
    };
    Ok(result.errors.into_iter().map(refusal).collect())
}

fn parse<T: serde::de::DeserializeOwned>(
    body: &[u8],
    secrets: &Secrets,
    operation: Operation,
    root: &str,
) -> Result<T, StorageError> {
    let text = std::str::from_utf8(body).map_err(|_| unexpected(operation, "the answer is not UTF-8"))?;
    let text = text.trim_start();
    if text.contains("<!DOCTYPE") || !text.contains(&format!("<{root}")) {
        return Err(unexpected(operation, &format!("the answer is no {root}")));
    }
    // What does not fit is quoted in the parser's error.
    quick_xml::de::from_str(text).map_err(|error| {
        let what = format!("the answer cannot be read: {}", secrets.text(&error.to_string()));
        unexpected(operation, &what)
    })
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
        let full = error_body(b" \n<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>m</Message><RequestId>r</RequestId></Error>", &Secrets::none());
        assert_eq!(full.unwrap().code.as_deref(), Some("NoSuchBucket"));
        assert_eq!(error_body(b"<Error><Code>X</Code></Error>", &Secrets::none()).unwrap().message, None);
        assert_eq!(error_body(b"<html>gateway</html>", &Secrets::none()), None);
    }

    #[test]
    fn n8_errors_with_status_200_are_told_from_answers_that_hold_errors() {
        assert!(is_error(b"<?xml version=\"1.0\"?>\n  <Error><Code>InternalError</Code></Error>"));
        assert!(is_error(b"   \n \n<Error/>"));
        assert!(!is_error(b"<DeleteResult><Error><Key>k</Key></Error></DeleteResult>"));
        assert!(!is_error(b"") && !is_error(b"<?xml") && !is_error(b"x"));
        assert!(
            is_result(b"<?xml version=\"1.0\"?>\n<DeleteResult xmlns=\"x\"/>")
                && is_result(b"<ListPartsResult>")
        );
        assert!(!is_result(b"<html>Result</html>") && !is_result(b"Result") && !is_result(b"<Error/>"));
    }

    #[test]
    fn answers_about_uploads_are_read_behind_white_space_and_with_quotes_or_without() {
        let body = b"  \n\n<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Location>x</Location>\
            <ETag>&quot;abc-2&quot;</ETag></CompleteMultipartUploadResult>";
        assert_eq!(completed(body, &Secrets::none()).unwrap().as_deref(), Some("abc-2"));
        let bare = b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
        assert_eq!(completed(bare, &Secrets::none()).unwrap(), None);
        assert!(
            completed(b"  \n", &Secrets::none()).is_err()
                && completed(b"<Error/>", &Secrets::none()).is_err()
        );
        let none = b"<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>";
        assert!(upload_id(none, &Secrets::none()).is_err());
        let parts =
            b"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker>\
            <Part><PartNumber>2</PartNumber><ETag>t</ETag><Size>5</Size></Part>\
            <Part><PartNumber>3</PartNumber><Size>5</Size></Part></ListPartsResult>";
        let (parts, next) = parts_page(parts, &Secrets::none()).unwrap();
        assert_eq!((parts[0].number, parts[0].etag.as_deref(), next), (2, Some("t"), Some(2)));
        assert_eq!((parts[1].number, &parts[1].etag), (3, &None));
    }

    #[test]
    fn the_body_that_completes_an_upload_escapes_its_tags() {
        let part = SentPart { etag: "a&<b".to_owned(), sha256: [0; 32] };
        let body = complete_body(&[part.clone(), part], true);
        assert!(body.starts_with(
            "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>&quot;a&amp;&lt;b&quot;</ETag>\
             <ChecksumSHA256>AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=</ChecksumSHA256></Part><Part>"
        ));
        assert!(body.contains("<PartNumber>2</PartNumber>"));
    }

    #[test]
    fn a_listing_decodes_keys_only_when_the_store_says_that_it_encoded_them() {
        let page = |encoding: &str, key: &str| {
            let body = format!(
                "<ListBucketResult>{encoding}<IsTruncated>false</IsTruncated><Contents><Key>p/{key}</Key>\
                 <LastModified>x</LastModified><Size>3</Size></Contents></ListBucketResult>"
            );
            list_page(body.as_bytes(), &Secrets::none(), "p/").unwrap().objects.remove(0).key
        };
        assert_eq!(page("<EncodingType>url</EncodingType>", "a+b%2Bc%0A"), "a b+c\n");
        assert_eq!(page("", "a+b%2B"), "a+b%2B");
    }

    #[test]
    fn interleaved_elements_of_a_delete_are_read() {
        let body = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error>\
            <Deleted><Key>c</Key></Deleted><Error><Key>d</Key></Error></DeleteResult>";
        let keys: Vec<_> =
            refused_keys(body, &Secrets::none()).unwrap().into_iter().map(|error| error.key).collect();
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
            assert!(refused_keys(body.as_bytes(), &Secrets::none()).is_err(), "{body}");
        }
        let endless = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(list_page(endless, &Secrets::none(), "").is_err());
        let foreign =
            b"<ListBucketResult><Contents><Key>q/x</Key><Size>1</Size></Contents></ListBucketResult>";
        assert!(list_page(foreign, &Secrets::none(), "p/").is_err());
    }

    #[test]
    fn keys_that_xml_cannot_carry_are_known() {
        assert!(can_carry("a b/ü+&<😀"));
        for key in ["a\u{1}b", "a\rb", "a\nb", "\u{ffff}", " a", "a "] {
            assert!(!can_carry(key), "{key:?}");
        }
    }
}
