//! Every XML answer of a store.

use serde::Deserialize;

use super::{SECRET, TOKEN, check_error, check_no_secret};
use crate::backend::s3::redaction::{MAX_ETAG_BYTES, MAX_TOKEN_BYTES, Secrets};
use crate::backend::s3::xml;
use crate::backend::{Listed, SentPart};
use crate::error::StorageError;

const PREFIX: &str = "site/";
/// The shortest element of a listing has 41 bytes, one of a list of parts 48.
const SHORTEST_ITEM: usize = 40;

pub(crate) fn target(data: &[u8]) {
    let secrets = Secrets::of([SECRET, TOKEN]);
    check_listings(data, &secrets);
    check_writes(data, &secrets);
    let (is_error, is_result) = (xml::is_error(data), xml::is_result(data));
    assert!(!(is_error && is_result));
    if let Some(error) = xml::parse_error(data, &secrets) {
        let xml::ErrorBody { code, message, request_id, region, endpoint, access_key_id } = &error;
        for text in [code, message, request_id, region, endpoint, access_key_id].into_iter().flatten() {
            assert!(text.len() <= 1024 + '…'.len_utf8());
        }
        check_no_secret(&error);
    }
    // Stores send white space first, to keep a connection alive. Nothing that precedes the document changes its meaning.
    for before in [" \r\n\t", "<!--<CompleteMultipartUploadResult>-->", "<?a <Error>?>\n"] {
        let later = [before.as_bytes(), data].concat();
        let is_first = !data.trim_ascii_start().starts_with("\u{feff}".as_bytes());
        assert!(xml::is_error(&later) == is_error || !is_first);
        assert!(xml::is_result(&later) == is_result || !is_first);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        check_bodies(text);
    }
}

fn check_listings(data: &[u8], secrets: &Secrets) {
    if let Some(page) = accepted(data, xml::parse_list_page(data, secrets, PREFIX)) {
        assert!(page.objects.len() * SHORTEST_ITEM <= data.len());
        page.objects.iter().for_each(check_listed);
        assert!(page.next.as_ref().is_none_or(|token| token.len() <= MAX_TOKEN_BYTES));
        let keys = page.objects.len();
        let page = page.without_states();
        assert_eq!(page.keys().count(), keys);
    }
    if let Some((parts, _)) = accepted(data, xml::parse_parts_page(data, secrets)) {
        assert!(parts.len() * SHORTEST_ITEM <= data.len());
        assert!(parts.iter().all(|part| is_short(part.etag.as_deref())));
    }
    if let Some(page) = accepted(data, xml::parse_uploads_page(data, secrets, PREFIX)) {
        assert!(page.uploads.len() * SHORTEST_ITEM <= data.len());
        assert!(page.uploads.iter().all(|upload| upload.upload_id.len() <= MAX_TOKEN_BYTES));
        let next = page.next.as_ref();
        assert!(next.is_none_or(|next| next.key.len().max(next.upload_id.len()) <= MAX_TOKEN_BYTES));
    }
}

fn check_listed(listed: &Listed) {
    assert!(is_short(listed.etag.as_deref()));
}

fn is_short(etag: Option<&str>) -> bool {
    etag.is_none_or(|etag| etag.len() <= MAX_ETAG_BYTES)
}

fn check_writes(data: &[u8], secrets: &Secrets) {
    if let Some(id) = accepted(data, xml::parse_upload_id(data, secrets)) {
        // With an empty one, an abort would delete the object.
        assert!(!id.is_empty() && id.len() <= MAX_TOKEN_BYTES);
    }
    for etag in [xml::parse_copied(data, secrets), xml::parse_completed(data, secrets)] {
        let etag = accepted(data, etag).flatten();
        assert!(etag.as_ref().is_none_or(|etag| !etag.is_empty()) && is_short(etag.as_deref()));
    }
    if let Some(refused) = accepted(data, xml::parse_refused_keys(data, secrets)) {
        assert!(refused.len() <= data.len() / "<Error/>".len());
        assert!(refused.iter().all(|refusal| refusal.code.len().max(refusal.message.len()) < 1100));
    }
}

/// Returns what was read. A document type is never accepted: it could define entities.
fn accepted<T: std::fmt::Debug>(data: &[u8], read: Result<T, StorageError>) -> Option<T> {
    match read {
        Ok(value) => {
            assert!(!data.windows(9).any(|window| window == b"<!DOCTYPE"));
            assert!(!xml::is_error(data), "an error as a success");
            check_no_secret(&value);
            Some(value)
        }
        Err(error) => {
            check_error(&error, 0);
            None
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteRequest {
    object: Vec<DeletedObject>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeletedObject {
    key: String,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CompleteRequest {
    part: Vec<CompletedPart>,
}

#[derive(Deserialize)]
struct CompletedPart {
    #[serde(rename = "ETag")]
    etag: String,
}

/// A store that reads our requests gets the keys and the tags that were meant, whatever is in them.
fn check_bodies(text: &str) {
    if !xml::can_carry(text) || text.is_empty() {
        return;
    }
    let body = xml::delete_body([(text, Some(text.to_owned())), ("b", None)].into_iter());
    let read: DeleteRequest = quick_xml::de::from_str(&body).unwrap();
    let read: Vec<_> = read.object.into_iter().map(|object| (object.key, object.etag)).collect();
    assert_eq!(read, [(text.to_owned(), Some(text.to_owned())), ("b".to_owned(), None)]);
    let parts = [SentPart { etag: text.to_owned(), sha256: [7; 32] }];
    let body = xml::complete_body(&parts, true);
    let read: CompleteRequest = quick_xml::de::from_str(&body).unwrap();
    assert_eq!(read.part.len(), 1);
    assert_eq!(read.part[0].etag, format!("\"{text}\""));
}
