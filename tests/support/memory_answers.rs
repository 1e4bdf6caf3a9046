//! The responses of the in-memory store. Part of `memory_store.rs`.

use std::fmt::Write;
use std::ops::Bound;

use s3s::dto::{
    ChecksumMode, ChecksumType, Delete, DeleteObjectsOutput, DeletedObject, EncodingType, Error,
    GetObjectOutput, HeadObjectOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, Metadata, MultipartUpload,
    Object, ObjectStorageClass, Part, StorageClass, StreamingBlob, Timestamp,
};
use s3s::{Body, S3Result, s3_error};

use super::conditions::Conditions;
use super::state::{State, StoredObject, Upload};

const PAGE: usize = 1000;

/// The object with its content, and its checksum if the request asks for it.
pub(super) fn get_object(object: &StoredObject, mode: Option<&ChecksumMode>) -> GetObjectOutput {
    let asked = mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED);
    let shown = object.checksum_sha256.clone().filter(|_| asked);
    GetObjectOutput {
        body: Some(StreamingBlob::from(Body::from(object.bytes.clone()))),
        content_length: Some(object.size()),
        content_type: object.content_type.clone(),
        cache_control: object.cache_control.clone(),
        content_disposition: object.headers.get("content-disposition").cloned(),
        content_encoding: object.headers.get("content-encoding").cloned(),
        content_language: object.headers.get("content-language").cloned(),
        checksum_sha256: shown.clone(),
        checksum_type: shown.as_deref().map(checksum_type),
        e_tag: Some(object.e_tag()),
        last_modified: Some(object.modified()),
        metadata: metadata(object),
        storage_class: object.storage_class.clone().map(StorageClass::from),
        ..Default::default()
    }
}

/// The object without its content.
pub(super) fn head_object(object: &StoredObject, mode: Option<&ChecksumMode>) -> HeadObjectOutput {
    let full = get_object(object, mode);
    HeadObjectOutput {
        content_length: full.content_length,
        content_type: full.content_type,
        cache_control: full.cache_control,
        content_disposition: full.content_disposition,
        content_encoding: full.content_encoding,
        content_language: full.content_language,
        checksum_sha256: full.checksum_sha256,
        checksum_type: full.checksum_type,
        e_tag: full.e_tag,
        last_modified: full.last_modified,
        metadata: full.metadata,
        storage_class: full.storage_class,
        ..Default::default()
    }
}

fn checksum_type(checksum: &str) -> ChecksumType {
    let composite = checksum.contains('-');
    ChecksumType::from_static(if composite { ChecksumType::COMPOSITE } else { ChecksumType::FULL_OBJECT })
}

fn metadata(object: &StoredObject) -> Option<Metadata> {
    (!object.metadata.is_empty()).then(|| object.metadata.clone().into_iter().collect())
}

/// Deletes the objects that may be deleted and returns a result for each key.
pub(super) fn delete_objects(state: &mut State, delete: Delete) -> S3Result<DeleteObjectsOutput> {
    if state.lacks_bulk_delete {
        return Err(s3_error!(NotImplemented));
    }
    if delete.objects.is_empty() || delete.objects.len() > PAGE {
        return Err(s3_error!(MalformedXML));
    }
    let mut deleted = Vec::new();
    let mut errors = Vec::new();
    for object in delete.objects {
        let conditions = Conditions::of_listed_delete(&object);
        match state.delete(&object.key, &conditions) {
            Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..Default::default() }),
            Err(error) => errors.push(Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    if delete.quiet == Some(true) {
        deleted.clear();
    }
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), request_charged: None })
}

/// One page of the objects below a prefix.
pub(super) fn list_objects(state: &State, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(s3_error!(NotImplemented, "delimiter"));
    }
    let prefix = input.prefix.clone().unwrap_or_default();
    let token = input.continuation_token.as_deref().map(key_of_token).transpose()?;
    let limit = input.max_keys.map_or(PAGE, |keys| usize::try_from(keys).unwrap_or(0).min(PAGE));
    let limit = limit.min(state.page_limit.unwrap_or(PAGE));

    let mut found = in_listing_order(state, &prefix, input.start_after.clone(), token);
    let page: Vec<_> = found.by_ref().take(limit).collect();
    // A page without keys counts as the last, or a client would page for ever.
    let last = page.last().filter(|_| found.next().is_some());
    let next_continuation_token = last.map(|(key, _)| token_of_key(key));

    let encode = Encoding::new(state, input.encoding_type.as_ref());
    let tagged = !state.lists_no_etags;
    let contents = page.iter().map(|(key, object)| listed(encode.text(key), object, tagged));
    let contents: Vec<_> = contents.collect();
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encode.text(&prefix)),
        max_keys: Some(input.max_keys.unwrap_or(1000)),
        key_count: i32::try_from(contents.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(next_continuation_token.is_some()),
        next_continuation_token,
        contents: Some(contents),
        start_after: input.start_after.as_deref().map(|key| encode.text(key)),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

/// What is left of a listing, after its token: in the order of the keys, or in one that has nothing to do with it.
fn in_listing_order<'a>(
    state: &'a State,
    prefix: &'a str,
    start: Option<String>,
    token: Option<String>,
) -> Box<dyn Iterator<Item = (&'a String, &'a StoredObject)> + 'a> {
    let start = start.filter(|_| token.is_none());
    let after = if state.lists_out_of_order { start } else { token.clone().or(start) };
    let from = match after {
        Some(after) if *after >= *prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix.to_owned()),
    };
    let under =
        state.objects.range((from, Bound::Unbounded)).take_while(move |(key, _)| key.starts_with(prefix));
    if !state.lists_out_of_order {
        return Box::new(under);
    }
    let place = |key: &str| (md5::compute(key).0, key.to_owned());
    let token = token.map(|token| place(&token));
    let mut found: Vec<_> = under.collect();
    found.retain(|(key, _)| token.as_ref().is_none_or(|token| place(key) > *token));
    found.sort_by_cached_key(|(key, _)| place(key));
    Box::new(found.into_iter())
}

fn listed(key: String, object: &StoredObject, tagged: bool) -> Object {
    let class = object.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned());
    Object {
        key: Some(key),
        size: Some(object.size()),
        e_tag: tagged.then(|| object.e_tag()),
        last_modified: Some(object.modified()),
        storage_class: Some(ObjectStorageClass::from(class)),
        ..Default::default()
    }
}

/// Tokens look like base64, so clients have to URL-encode them.
fn token_of_key(key: &str) -> String {
    let mut token = "1/".to_owned();
    for byte in key.bytes() {
        let _ = write!(token, "{byte:02x}");
    }
    token + "+="
}

fn key_of_token(token: &str) -> S3Result<String> {
    let digits = token.strip_prefix("1/").and_then(|rest| rest.strip_suffix("+="));
    let bytes = digits.filter(|digits| digits.is_ascii()).and_then(|digits| {
        let pairs = (0..digits.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect::<Option<Vec<_>>>()
    });
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

/// The encoding of keys in a listing.
struct Encoding {
    url: bool,
    plus: bool,
}

impl Encoding {
    fn new(state: &State, asked: Option<&EncodingType>) -> Self {
        let url = asked.is_some_and(|encoding| encoding.as_str() == EncodingType::URL);
        Self { url, plus: state.spaces_as_plus }
    }

    fn text(&self, key: &str) -> String {
        if !self.url {
            return key.to_owned();
        }
        let mut text = String::with_capacity(key.len());
        for byte in key.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => {
                    text.push(char::from(byte));
                }
                b' ' if self.plus => text.push('+'),
                _ => {
                    let _ = write!(text, "%{byte:02X}");
                }
            }
        }
        text
    }
}

/// One page of the parts of an upload.
pub(super) fn list_parts(upload: &Upload, input: ListPartsInput) -> ListPartsOutput {
    let marker = input.part_number_marker.unwrap_or(0);
    let limit = input.max_parts.map_or(PAGE, |parts| usize::try_from(parts).unwrap_or(0).min(PAGE));
    let mut rest = upload.parts.range((Bound::Excluded(marker), Bound::Unbounded));
    let parts: Vec<_> = rest.by_ref().take(limit).map(|(number, part)| listed_part(*number, part)).collect();
    let truncated = rest.next().is_some() && !parts.is_empty();
    ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker),
        next_part_number_marker: parts.last().and_then(|part| part.part_number),
        max_parts: i32::try_from(limit).ok(),
        is_truncated: Some(truncated),
        parts: Some(parts),
        ..Default::default()
    }
}

fn listed_part(number: i32, part: &StoredObject) -> Part {
    Part {
        part_number: Some(number),
        size: Some(part.size()),
        e_tag: Some(part.e_tag()),
        last_modified: Some(part.modified()),
        ..Default::default()
    }
}

/// One page of the unfinished uploads, by key and then by upload ID.
pub(super) fn list_uploads(state: &State, input: ListMultipartUploadsInput) -> ListMultipartUploadsOutput {
    let prefix = input.prefix.clone().unwrap_or_default();
    let limit = input.max_uploads.map_or(PAGE, |uploads| usize::try_from(uploads).unwrap_or(0).min(PAGE));
    let limit = limit.min(state.page_limit.unwrap_or(PAGE));
    let mut found: Vec<_> = state.uploads.iter().map(|(id, upload)| (&upload.key, id, upload)).collect();
    let whole = state.lists_uploads_by_whole_key && !prefix.is_empty();
    let under = |key: &String| if whole { *key == prefix } else { key.starts_with(&prefix) };
    found.retain(|(key, id, _)| under(key) && is_after(&input, key, id));
    found.sort_by_key(|(key, id, _)| (*key, *id));
    let truncated = found.len() > limit && limit > 0;
    found.truncate(limit);

    let encode = Encoding::new(state, input.encoding_type.as_ref());
    let last = found.last().filter(|_| truncated);
    ListMultipartUploadsOutput {
        next_key_marker: last.map(|(key, _, _)| encode.text(key)),
        next_upload_id_marker: last.map(|(_, id, _)| (*id).clone()),
        is_truncated: Some(truncated),
        max_uploads: i32::try_from(limit).ok(),
        prefix: Some(encode.text(&prefix)),
        key_marker: input.key_marker.as_deref().map(|key| encode.text(key)),
        upload_id_marker: input.upload_id_marker,
        uploads: Some(
            found.iter().map(|(key, id, upload)| listed_upload(encode.text(key), id, upload)).collect(),
        ),
        bucket: Some(input.bucket),
        encoding_type: input.encoding_type,
        ..Default::default()
    }
}

fn is_after(input: &ListMultipartUploadsInput, key: &str, id: &str) -> bool {
    let Some(key_marker) = input.key_marker.as_deref() else {
        return true;
    };
    match &input.upload_id_marker {
        Some(id_marker) => (key, id) > (key_marker, id_marker),
        None => key > key_marker,
    }
}

fn listed_upload(key: String, id: &str, upload: &Upload) -> MultipartUpload {
    MultipartUpload {
        key: Some(key),
        upload_id: Some(id.to_owned()),
        initiated: Some(Timestamp::from(upload.initiated)),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        ..Default::default()
    }
}
