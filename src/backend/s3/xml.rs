//! The XML of requests and responses. Responses are read leniently: elements that are not needed may be missing.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use memchr::memmem;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use time::{Date, Month};

use crate::backend::s3::redaction::{RawText, Secrets};
use crate::backend::{Listed, ListedPart, ListedUpload, Page, SentPart, UploadMarker, UploadPage};
use crate::error::{ErrorKind, Operation, StorageError};

/// The texts of an `<Error>` document, redacted. Stores leave out any of them.
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
    code: Option<RawText>,
    message: Option<RawText>,
    request_id: Option<RawText>,
    region: Option<RawText>,
    endpoint: Option<RawText>,
    #[serde(rename = "AWSAccessKeyId")]
    access_key_id: Option<RawText>,
}

/// Returns whether a body is an `<Error>` document. Other documents may have elements of that name.
pub(crate) fn is_error(body: &[u8]) -> bool {
    root_name(body) == Some(b"Error".as_slice())
}

/// Returns whether a body is the XML result of an S3 operation.
pub(crate) fn is_result(body: &[u8]) -> bool {
    root_name(body).is_some_and(|name| name.ends_with(b"Result"))
}

/// Returns the name of a document's first element: what comments and instructions say does not count.
fn root_name(body: &[u8]) -> Option<&[u8]> {
    let mut text = body.trim_ascii_start();
    text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text).trim_ascii_start();
    while let Some((_, end)) =
        [("<?", "?>"), ("<!--", "-->")].iter().find(|(begin, _)| text.starts_with(begin.as_bytes()))
    {
        let at = memmem::find(text, end.as_bytes())?;
        text = text[at + end.len()..].trim_ascii_start();
    }
    text.strip_prefix(b"<")?.split(|byte| b" \t\r\n/>".contains(byte)).next()
}

/// Reads an `<Error>` document, also after leading white space; `None` if the body is none.
pub(crate) fn parse_error(body: &[u8], secrets: &Secrets) -> Option<ErrorBody> {
    // Stores that take long send white space first, to keep the connection alive.
    let text = std::str::from_utf8(body).ok().filter(|_| is_error(body))?.trim_start();
    let raw: RawError = quick_xml::de::from_str(text).ok()?;
    let redacted = |text: Option<RawText>| text.map(|text| text.text(secrets));
    Some(ErrorBody {
        code: redacted(raw.code),
        message: redacted(raw.message),
        request_id: redacted(raw.request_id),
        region: redacted(raw.region),
        endpoint: redacted(raw.endpoint),
        access_key_id: redacted(raw.access_key_id),
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ListBody {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_continuation_token: Option<RawText>,
    contents: Vec<ObjectBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectBody {
    key: RawText,
    size: u64,
    #[serde(rename = "ETag")]
    etag: Option<RawText>,
}

/// Reads a page of `ListObjectsV2`. Strips `prefix` from the keys; a key outside of it is an error.
pub(crate) fn parse_list_page(body: &[u8], secrets: &Secrets, prefix: &str) -> Result<Page, StorageError> {
    let list: ListBody = parse_document(body, secrets, Operation::List, "ListBucketResult")?;
    // Some stores ignore the request to encode keys, and say so by leaving this out.
    let encoded = list.encoding_type.as_deref() == Some("url");
    let objects = list
        .contents
        .into_iter()
        .map(|object| to_listed(object, secrets, encoded, prefix))
        .collect::<Result<Vec<_>, _>>()?;
    let next = match (list.is_truncated, list.next_continuation_token) {
        (false, _) => None,
        (true, Some(token)) => Some(token.list_token("a continuation token", secrets)?),
        // Without a token the listing would end early, and the rest of the objects would count as missing.
        (true, None) => {
            return Err(unexpected(Operation::List, "a truncated listing has no continuation token"));
        }
    };
    Ok(Page { objects, next, ..Page::default() })
}

fn to_listed(
    object: ObjectBody,
    secrets: &Secrets,
    encoded: bool,
    prefix: &str,
) -> Result<Listed, StorageError> {
    let key = decode_key(object.key, encoded)?.key(secrets);
    // Such a page is the answer to another request: nothing of it can be trusted.
    let Some(key) = key.strip_prefix(prefix) else {
        return Err(unexpected(Operation::List, "the listing holds keys outside of the prefix"));
    };
    let etag = object.etag.map(|tag| tag.etag(secrets, Operation::List)).transpose()?;
    Ok(Listed { key: key.to_owned(), size: object.size, etag })
}

fn decode_key(key: RawText, encoded: bool) -> Result<RawText, StorageError> {
    // A `%` in a key that was not encoded is a `%`.
    if encoded { key.decoded(|key| decode_url(&key)) } else { Ok(key) }
}

/// Decodes a key of a listing with `encoding-type=url`. It is encoded like a form: a `+` is a space.
fn decode_url(key: &str) -> Result<String, StorageError> {
    let plain = key.replace('+', " ");
    let decoded = percent_decode_str(&plain).decode_utf8();
    Ok(decoded.map_err(|_| unexpected(Operation::List, "a listed key is not UTF-8"))?.into_owned())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct BegunBody {
    upload_id: RawText,
}

/// Reads the upload ID from the response to `CreateMultipartUpload`.
pub(crate) fn parse_upload_id(body: &[u8], secrets: &Secrets) -> Result<String, StorageError> {
    let begun: BegunBody = parse_document(body, secrets, Operation::Upload, "InitiateMultipartUploadResult")?;
    let id = begun.upload_id.upload_id(secrets, Operation::Upload)?;
    // With an empty ID, an abort could delete the object.
    if id.is_empty() {
        return Err(unexpected(Operation::Upload, "the response has no upload ID"));
    }
    Ok(id)
}

/// Returns the body of a `CompleteMultipartUpload`, with the checksums of the parts if they were sent with them.
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
    etag: Option<RawText>,
}

/// Reads the `ETag` of a copy.
pub(crate) fn parse_copied(body: &[u8], secrets: &Secrets) -> Result<Option<String>, StorageError> {
    let copied: CompletedBody = parse_document(body, secrets, Operation::Copy, "CopyObjectResult")?;
    let etag = copied.etag.map(|tag| tag.etag(secrets, Operation::Copy)).transpose()?;
    Ok(etag.filter(|tag| !tag.is_empty()))
}

/// Reads the `ETag` of a completed upload's object.
pub(crate) fn parse_completed(body: &[u8], secrets: &Secrets) -> Result<Option<String>, StorageError> {
    let completed: CompletedBody =
        parse_document(body, secrets, Operation::Upload, "CompleteMultipartUploadResult")?;
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
    etag: Option<RawText>,
    size: u64,
}

/// Reads a page of `ListParts`, and the part after which the next page begins.
pub(crate) fn parse_parts_page(
    body: &[u8],
    secrets: &Secrets,
) -> Result<(Vec<ListedPart>, Option<u32>), StorageError> {
    let list: PartsBody = parse_document(body, secrets, Operation::List, "ListPartsResult")?;
    let mut parts = Vec::with_capacity(list.parts.len());
    for part in list.parts {
        let etag = part.etag.map(|tag| tag.etag(secrets, Operation::List)).transpose()?;
        parts.push(ListedPart { number: part.part_number, size: part.size, etag });
    }
    match (list.is_truncated, list.next_part_number_marker) {
        (false, _) => Ok((parts, None)),
        (true, Some(next)) => Ok((parts, Some(next))),
        (true, None) => {
            Err(unexpected(Operation::List, "a truncated list of parts has no part number marker"))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct UploadsBody {
    encoding_type: Option<String>,
    is_truncated: bool,
    next_key_marker: Option<RawText>,
    next_upload_id_marker: Option<RawText>,
    #[serde(rename = "Upload")]
    uploads: Vec<UploadBody>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UploadBody {
    key: RawText,
    upload_id: RawText,
    /// It becomes a number, so it cannot repeat a secret.
    initiated: Option<String>,
}

/// Reads a page of `ListMultipartUploads`. Strips `prefix` from the keys.
pub(crate) fn parse_uploads_page(
    body: &[u8],
    secrets: &Secrets,
    prefix: &str,
) -> Result<UploadPage, StorageError> {
    let list: UploadsBody = parse_document(body, secrets, Operation::List, "ListMultipartUploadsResult")?;
    let encoded = list.encoding_type.as_deref() == Some("url");
    let mut uploads = Vec::with_capacity(list.uploads.len());
    for upload in list.uploads {
        let key = decode_key(upload.key, encoded)?.key(secrets);
        let key = key.strip_prefix(prefix).map(str::to_owned);
        let key = key.ok_or_else(|| {
            unexpected(Operation::List, "the list of uploads holds keys outside of the prefix")
        })?;
        let upload_id = upload.upload_id.upload_id(secrets, Operation::List)?;
        let initiated = upload.initiated.and_then(|time| iso_seconds(&time));
        uploads.push(ListedUpload { key, upload_id, initiated });
    }
    let next = match (list.is_truncated, list.next_key_marker) {
        (false, _) => None,
        (true, Some(key)) => {
            let upload_id = list.next_upload_id_marker.unwrap_or_default();
            let upload_id = upload_id.list_token("an upload ID marker", secrets)?;
            Some(UploadMarker {
                key: decode_key(key, encoded)?.list_token("a key marker", secrets)?,
                upload_id,
            })
        }
        (true, None) => {
            return Err(unexpected(Operation::List, "a truncated list of uploads has no key marker"));
        }
    };
    Ok(UploadPage { uploads, next })
}

/// Returns a time such as `2026-11-28T21:02:35.000Z` in seconds since 1970; `None` if it is no time in UTC.
fn iso_seconds(text: &str) -> Option<u64> {
    let (date, time) = text.trim().strip_suffix('Z')?.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<u16>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    // Parts of a second do not count.
    let mut time = time.split('.').next()?.split(':').map(|part| part.parse::<u8>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let moment = date.with_hms(hour, minute, second).ok()?.assume_utc();
    u64::try_from(moment.unix_timestamp()).ok()
}

/// Returns the body of a `DeleteObjects` for these objects, each with the `ETag` that it must have, if any, in quotes.
/// The response names only the objects that were not deleted (`Quiet`).
pub(crate) fn delete_body<'a>(objects: impl Iterator<Item = (&'a str, Option<String>)>) -> String {
    let mut text =
        String::from(r#"<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>"#);
    for (object, etag) in objects {
        text.extend(["<Object><Key>", &quick_xml::escape::escape(object), "</Key>"]);
        if let Some(etag) = etag {
            text.extend(["<ETag>", &quick_xml::escape::escape(etag), "</ETag>"]);
        }
        text.push_str("</Object>");
    }
    text.push_str("</Delete>");
    text
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
    key: RawText,
    code: Option<RawText>,
    message: Option<RawText>,
}

/// Why one key of a `DeleteObjects` was not deleted.
#[derive(Debug)]
pub(crate) struct KeyRefusal {
    pub(crate) key: String,
    /// Empty if the store sent none.
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Reads the keys that a `DeleteObjects` did not delete.
pub(crate) fn parse_refused_keys(body: &[u8], secrets: &Secrets) -> Result<Vec<KeyRefusal>, StorageError> {
    let result: DeleteBody = parse_document(body, secrets, Operation::Delete, "DeleteResult")?;
    let redacted = |text: Option<RawText>| text.unwrap_or_default().text(secrets);
    let refusal = |raw: RawDeleteError| KeyRefusal {
        key: raw.key.key(secrets),
        code: redacted(raw.code),
        message: redacted(raw.message),
    };
    Ok(result.errors.into_iter().map(refusal).collect())
}

fn parse_document<T: serde::de::DeserializeOwned>(
    body: &[u8],
    secrets: &Secrets,
    operation: Operation,
    root: &str,
) -> Result<T, StorageError> {
    let text = std::str::from_utf8(body).map_err(|_| unexpected(operation, "the response is not UTF-8"))?;
    let text = text.trim_start();
    // A document type can define entities of any size.
    if text.contains("<!DOCTYPE") || root_name(body) != Some(root.as_bytes()) {
        return Err(unexpected(operation, &format!("the response is not a {root}")));
    }
    // The parser's error quotes the document.
    quick_xml::de::from_str(text).map_err(|error| {
        let what = format!("the response cannot be read: {}", secrets.redact_text(&error.to_string()));
        unexpected(operation, &what)
    })
}

fn unexpected(operation: Operation, what: &str) -> StorageError {
    StorageError::new(ErrorKind::Protocol, operation, what)
}

/// Returns whether a key survives XML. XML 1.0 cannot express most control characters, and parsers differ on line ends
/// and on white space at the ends of a text.
pub(crate) fn can_carry(key: &str) -> bool {
    key.trim() == key && !key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without conditions it is what rust-s3 writes.
    #[test]
    fn the_body_of_a_delete_has_an_etag_for_each_condition() {
        use s3::serde_types::{DeleteObjectsRequest, ObjectIdentifier};
        let keys = ["a", "b & <c>", "d'\"e"];
        let objects = keys.map(|key| ObjectIdentifier::new(key.to_owned())).into();
        let theirs = DeleteObjectsRequest { objects, quiet: true }.to_string();
        assert_eq!(delete_body(keys.into_iter().map(|key| (key, None))), theirs);
        let body = delete_body([("a", Some("\"0f-2\"".to_owned())), ("b", None)].into_iter());
        assert!(body.ends_with(
            "<Object><Key>a</Key><ETag>&quot;0f-2&quot;</ETag></Object><Object><Key>b</Key></Object></Delete>"
        ));
    }

    #[test]
    fn errors_are_read_with_whatever_they_have() {
        let full = parse_error(b" \n<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>m</Message><RequestId>r</RequestId></Error>", &Secrets::none());
        assert_eq!(full.unwrap().code.as_deref(), Some("NoSuchBucket"));
        assert_eq!(parse_error(b"<Error><Code>X</Code></Error>", &Secrets::none()).unwrap().message, None);
        assert_eq!(parse_error(b"<html>gateway</html>", &Secrets::none()), None);
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
        assert_eq!(parse_completed(body, &Secrets::none()).unwrap().as_deref(), Some("abc-2"));
        let bare = b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>";
        assert_eq!(parse_completed(bare, &Secrets::none()).unwrap(), None);
        assert!(
            parse_completed(b"  \n", &Secrets::none()).is_err()
                && parse_completed(b"<Error/>", &Secrets::none()).is_err()
        );
        let none = b"<InitiateMultipartUploadResult><UploadId/></InitiateMultipartUploadResult>";
        assert!(parse_upload_id(none, &Secrets::none()).is_err());
        let parts =
            b"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>2</NextPartNumberMarker>\
            <Part><PartNumber>2</PartNumber><ETag>t</ETag><Size>5</Size></Part>\
            <Part><PartNumber>3</PartNumber><Size>5</Size></Part></ListPartsResult>";
        let (parts, next) = parse_parts_page(parts, &Secrets::none()).unwrap();
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
            parse_list_page(body.as_bytes(), &Secrets::none(), "p/").unwrap().objects.remove(0).key
        };
        assert_eq!(page("<EncodingType>url</EncodingType>", "a+b%2Bc%0A"), "a b+c\n");
        assert_eq!(page("", "a+b%2B"), "a+b%2B");
    }

    #[test]
    fn interleaved_elements_of_a_delete_are_read() {
        let body = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error>\
            <Deleted><Key>c</Key></Deleted><Error><Key>d</Key></Error></DeleteResult>";
        let keys: Vec<_> =
            parse_refused_keys(body, &Secrets::none()).unwrap().into_iter().map(|error| error.key).collect();
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
            assert!(parse_refused_keys(body.as_bytes(), &Secrets::none()).is_err(), "{body}");
        }
        let endless = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>";
        assert!(parse_list_page(endless, &Secrets::none(), "").is_err());
        let foreign =
            b"<ListBucketResult><Contents><Key>q/x</Key><Size>1</Size></Contents></ListBucketResult>";
        assert!(parse_list_page(foreign, &Secrets::none(), "p/").is_err());
    }

    #[test]
    fn keys_that_xml_cannot_carry_are_known() {
        assert!(can_carry("a b/ü+&<😀"));
        for key in ["a\u{1}b", "a\rb", "a\nb", "\u{ffff}", " a", "a "] {
            assert!(!can_carry(key), "{key:?}");
        }
    }
}
