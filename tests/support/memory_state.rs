//! The contents of the in-memory store. Part of `memory_store.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use s3s::dto::{
    CompletedPart, CreateMultipartUploadInput, ETag, ETagCondition, PutObjectInput, StorageClass, Timestamp,
};
use s3s::{S3Result, s3_error};

/// An object, or a part of a multipart upload, as it was stored.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// The content.
    pub bytes: Bytes,
    /// The `ETag` without quotes. It does not depend on the content.
    pub etag: String,
    /// The `Content-Type`.
    pub content_type: Option<String>,
    /// The `Cache-Control`.
    pub cache_control: Option<String>,
    /// The storage class.
    pub storage_class: Option<String>,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// The SHA-256 of the content in base64, if the request had it.
    pub checksum_sha256: Option<String>,
    /// The `Content-MD5`, if the request had it. It is not checked.
    pub content_md5: Option<String>,
    /// All headers of the `PutObject` request, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// When it was stored.
    pub last_modified: SystemTime,
}

impl StoredObject {
    pub(super) fn new(bytes: Bytes, etag: String) -> Self {
        Self {
            bytes,
            etag,
            content_type: None,
            cache_control: None,
            storage_class: None,
            metadata: BTreeMap::new(),
            checksum_sha256: None,
            content_md5: None,
            headers: BTreeMap::new(),
            last_modified: SystemTime::now(),
        }
    }

    pub(super) fn of_put(
        bytes: Bytes,
        etag: String,
        input: &PutObjectInput,
        headers: BTreeMap<String, String>,
    ) -> Self {
        Self {
            content_type: input.content_type.clone(),
            cache_control: input.cache_control.clone(),
            storage_class: input.storage_class.as_ref().map(|class| class.as_str().to_owned()),
            metadata: input.metadata.clone().unwrap_or_default().into_iter().collect(),
            checksum_sha256: input.checksum_sha256.clone(),
            content_md5: input.content_md5.clone(),
            headers,
            ..Self::new(bytes, etag)
        }
    }

    pub(super) fn e_tag(&self) -> ETag {
        ETag::Strong(self.etag.clone())
    }

    pub(super) fn size(&self) -> i64 {
        i64::try_from(self.bytes.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn modified(&self) -> Timestamp {
        Timestamp::from(self.last_modified)
    }
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) key: String,
    pub(super) initiated: SystemTime,
    pub(super) parts: BTreeMap<i32, StoredObject>,
    /// All that the object will have besides its content.
    attributes: StoredObject,
}

impl Upload {
    pub(super) fn new(input: CreateMultipartUploadInput) -> Self {
        let attributes = StoredObject {
            content_type: input.content_type,
            cache_control: input.cache_control,
            storage_class: input.storage_class.as_ref().map(StorageClass::as_str).map(str::to_owned),
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            ..StoredObject::new(Bytes::new(), String::new())
        };
        Self { key: input.key, initiated: SystemTime::now(), parts: BTreeMap::new(), attributes }
    }

    fn assemble(&self, listed: &[CompletedPart]) -> S3Result<Bytes> {
        let mut whole = BytesMut::new();
        let mut last = 0;
        for part in listed {
            let number = part.part_number.unwrap_or_default();
            if number <= last {
                return Err(s3_error!(InvalidPartOrder));
            }
            last = number;
            let stored = self.parts.get(&number).ok_or_else(|| s3_error!(InvalidPart))?;
            if part.e_tag.as_ref().map(ETag::value) != Some(&stored.etag) {
                return Err(s3_error!(InvalidPart));
            }
            whole.extend_from_slice(&stored.bytes);
        }
        Ok(whole.freeze())
    }
}

/// The bucket's contents, the logs and the faults.
#[allow(clippy::struct_excessive_bools, reason = "each is a property of some store")]
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, StoredObject>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) puts: Vec<String>,
    pub(super) commits: Vec<String>,
    pub(super) deletes: Vec<String>,
    pub(super) undeletable: BTreeSet<String>,
    /// Keys whose deletes fail: the error code, and how many more times.
    pub(super) failing_deletes: BTreeMap<String, (String, u32)>,
    pub(super) lacks_bulk_delete: bool,
    pub(super) refusals: Vec<(String, String)>,
    pub(super) folders_are_files: bool,
    pub(super) page_limit: Option<usize>,
    pub(super) spaces_as_plus: bool,
    pub(super) lists_uploads_by_whole_key: bool,
    counter: u64,
}

impl State {
    pub(super) fn next_etag(&mut self) -> String {
        self.counter += 1;
        format!("etag-{:06x}", self.counter)
    }

    pub(super) fn object(&self, key: &str) -> S3Result<&StoredObject> {
        self.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey))
    }

    pub(super) fn commit(&mut self, key: String, object: StoredObject) {
        self.commits.push(key.clone());
        self.objects.insert(key, object);
    }

    /// The errors of stores that keep objects as files, such as `MinIO`: a key cannot be both object and folder.
    pub(super) fn check_folders(&self, key: &str) -> S3Result<()> {
        if !self.folders_are_files {
            return Ok(());
        }
        let refused = |code: &'static str, status: u16| {
            let mut error = s3s::S3Error::new(s3s::S3ErrorCode::Custom(code.into()));
            error.set_status_code(http::StatusCode::from_u16(status).unwrap_or_default());
            Err(error)
        };
        if key.match_indices('/').any(|(at, _)| self.objects.contains_key(&key[..at])) {
            return refused("XMinioParentIsObject", 400);
        }
        let below = format!("{key}/");
        if self.objects.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below)) {
            return refused("XMinioObjectExistsAsDirectory", 409);
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, key: &str) -> S3Result<()> {
        if self.undeletable.contains(key) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if let Some((code, left)) = self.failing_deletes.get_mut(key).filter(|(_, left)| *left > 0) {
            *left -= 1;
            return Err(super::error_of(code));
        }
        if self.objects.remove(key).is_some() {
            self.deletes.push(key.to_owned());
        }
        Ok(())
    }

    pub(super) fn check_refusals(&self, key: &str) -> S3Result<()> {
        match self.refusals.iter().find(|(suffix, _)| key.ends_with(suffix.as_str())) {
            Some((_, code)) => Err(super::error_of(code)),
            None => Ok(()),
        }
    }

    pub(super) fn check_conditions(&self, input: &PutObjectInput) -> S3Result<()> {
        let stored = self.objects.get(&input.key);
        let fulfils = |condition: &ETagCondition| match condition {
            ETagCondition::Any => stored.is_some(),
            ETagCondition::ETag(etag) => stored.is_some_and(|object| object.etag == etag.value()),
        };
        let fails = input.if_match.as_ref().is_some_and(|condition| !fulfils(condition))
            || input.if_none_match.as_ref().is_some_and(fulfils);
        if fails { Err(s3_error!(PreconditionFailed)) } else { Ok(()) }
    }

    pub(super) fn begin(&mut self, upload: Upload) -> String {
        self.counter += 1;
        let id = format!("upload-{:06x}", self.counter);
        self.uploads.insert(id.clone(), upload);
        id
    }

    pub(super) fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        let upload = self.uploads.get_mut(id).filter(|upload| upload.key == key);
        upload.ok_or_else(|| s3_error!(NoSuchUpload))
    }

    pub(super) fn complete(&mut self, key: &str, id: &str, parts: &[CompletedPart]) -> S3Result<ETag> {
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML));
        }
        let upload = self.upload(key, id)?;
        let bytes = upload.assemble(parts)?;
        let attributes = upload.attributes.clone();
        let etag = format!("{}-{}", self.next_etag(), parts.len());
        let object = StoredObject { bytes, etag, last_modified: SystemTime::now(), ..attributes };
        let answer = object.e_tag();
        self.uploads.remove(id);
        self.commit(key.to_owned(), object);
        Ok(answer)
    }
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let padded = [group[0], group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0)];
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.push(if place > group.len() { '=' } else { char::from(DIGITS[digit as usize]) });
        }
    }
    text
}
