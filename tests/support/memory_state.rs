//! The contents of the in-memory store. Part of `memory_store.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use s3s::dto::{
    ChecksumAlgorithm, CompletedPart, CreateMultipartUploadInput, ETag, PutObjectInput, StorageClass,
    Timestamp,
};
use s3s::{S3Result, s3_error};
use sha2::{Digest, Sha256};

use super::conditions::{Conditions, Habits};
use super::etags::ETags;

/// An object, or a part of a multipart upload, as it was stored.
#[derive(Clone, Debug)]
pub struct StoredObject {
    /// The content.
    pub bytes: Bytes,
    /// The `ETag` without quotes.
    pub etag: String,
    /// The `Content-Type`.
    pub content_type: Option<String>,
    /// The `Cache-Control`.
    pub cache_control: Option<String>,
    /// The storage class.
    pub storage_class: Option<String>,
    /// User metadata, without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// The SHA-256 of the content in base64, if the request had it; that of a multipart upload ends in `-N`.
    pub checksum_sha256: Option<String>,
    /// The `Content-MD5`, if the request had it. It is not checked.
    pub content_md5: Option<String>,
    /// All headers of the `PutObject` request, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// When it was stored, by the store's clock.
    pub last_modified: SystemTime,
}

impl StoredObject {
    pub(super) fn new(bytes: Bytes, etag: String, last_modified: SystemTime) -> Self {
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
            last_modified,
        }
    }

    /// Sets what a `PutObject` request said of the object besides its content.
    pub(super) fn with_put(self, input: &PutObjectInput, headers: BTreeMap<String, String>) -> Self {
        Self {
            content_type: input.content_type.clone(),
            cache_control: input.cache_control.clone(),
            storage_class: input.storage_class.as_ref().map(|class| class.as_str().to_owned()),
            metadata: input.metadata.clone().unwrap_or_default().into_iter().collect(),
            checksum_sha256: input.checksum_sha256.clone(),
            content_md5: input.content_md5.clone(),
            headers,
            ..self
        }
    }

    /// Sets what these headers of a `PutObject` request say of the object besides its content.
    pub(super) fn with_headers(mut self, headers: &[(&str, &str)]) -> Self {
        for (name, value) in headers {
            let (name, value) = (name.to_ascii_lowercase(), (*value).to_owned());
            match name.as_str() {
                "content-type" => self.content_type = Some(value.clone()),
                "cache-control" => self.cache_control = Some(value.clone()),
                "content-md5" => self.content_md5 = Some(value.clone()),
                "x-amz-storage-class" => self.storage_class = Some(value.clone()),
                "x-amz-checksum-sha256" => self.checksum_sha256 = Some(value.clone()),
                _ => {}
            }
            if let Some(meta) = name.strip_prefix("x-amz-meta-") {
                self.metadata.insert(meta.to_owned(), value.clone());
            }
            self.headers.insert(name, value);
        }
        self
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
    /// True if the object will have a SHA-256 checksum.
    has_sha256: bool,
}

impl Upload {
    fn new(input: CreateMultipartUploadInput, initiated: SystemTime) -> Self {
        let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let attributes = StoredObject {
            content_type: input.content_type,
            cache_control: input.cache_control,
            storage_class: input.storage_class.as_ref().map(StorageClass::as_str).map(str::to_owned),
            metadata: input.metadata.unwrap_or_default().into_iter().collect(),
            ..StoredObject::new(Bytes::new(), String::new(), initiated)
        };
        let has_sha256 = algorithm == Some(ChecksumAlgorithm::SHA256);
        Self { key: input.key, initiated, parts: BTreeMap::new(), attributes, has_sha256 }
    }

    fn listed_parts(&self, listed: &[CompletedPart]) -> S3Result<Vec<StoredObject>> {
        let mut parts = Vec::with_capacity(listed.len());
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
            parts.push(stored.clone());
        }
        Ok(parts)
    }
}

/// The error for a key that a test refuses.
fn refused(refusals: &[(String, String)], key: &str) -> S3Result<()> {
    match refusals.iter().find(|(suffix, _)| key.ends_with(suffix.as_str())) {
        Some((_, code)) => Err(super::error_of(code)),
        None => Ok(()),
    }
}

fn joined(parts: &[StoredObject]) -> Bytes {
    let mut whole = BytesMut::new();
    for part in parts {
        whole.extend_from_slice(&part.bytes);
    }
    whole.freeze()
}

/// The checksum of a multipart upload: that of its parts' checksums, and their number.
fn composite_sha256(parts: &[StoredObject]) -> String {
    let each = parts.iter().map(|part| Sha256::digest(&part.bytes));
    let whole = Sha256::digest(each.collect::<Vec<_>>().concat());
    format!("{}-{}", BASE64_STANDARD.encode(whole), parts.len())
}

/// The bucket's contents, the logs and the faults.
#[allow(clippy::struct_excessive_bools, reason = "each is a property of some store")]
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) objects: BTreeMap<String, StoredObject>,
    pub(super) uploads: BTreeMap<String, Upload>,
    pub(super) puts: Vec<String>,
    pub(super) commits: Vec<String>,
    pub(super) copies: Vec<String>,
    pub(super) deletes: Vec<String>,
    pub(super) undeletable: BTreeSet<String>,
    /// Keys whose deletes fail: the error code, and how many more times.
    pub(super) failing_deletes: BTreeMap<String, (String, u32)>,
    pub(super) lacks_bulk_delete: bool,
    pub(super) lacks_copy: bool,
    pub(super) refusals: Vec<(String, String)>,
    pub(super) copy_refusals: Vec<(String, String)>,
    pub(super) folders_are_files: bool,
    pub(super) page_limit: Option<usize>,
    pub(super) spaces_as_plus: bool,
    pub(super) lists_uploads_by_whole_key: bool,
    pub(super) lists_no_etags: bool,
    pub(super) lists_out_of_order: bool,
    pub(super) etags: ETags,
    /// The `ETag`s of objects that are encrypted with a key of KMS.
    pub(super) encrypted: BTreeSet<String>,
    pub(super) habits: Habits,
    /// How far the store's clock is ahead of this machine's.
    pub(super) ahead: Duration,
    pub(super) counter: u64,
}

impl State {
    /// The time of the store's clock.
    pub(super) fn now(&self) -> SystemTime {
        SystemTime::now() + self.ahead
    }

    /// An object of now with this content, and nothing else.
    pub(super) fn new_object(&mut self, bytes: Bytes) -> StoredObject {
        let etag = self.etag_of(&bytes);
        StoredObject::new(bytes, etag, self.now())
    }

    /// The object that an upload of these bytes in parts of `part_size` makes.
    pub(super) fn new_object_of_parts(&mut self, bytes: &Bytes, part_size: usize) -> StoredObject {
        let starts = (0..bytes.len().max(1)).step_by(part_size);
        let slices = starts.map(|at| bytes.slice(at..bytes.len().min(at + part_size)));
        let parts: Vec<_> = slices.map(|part| self.new_object(part)).collect();
        let etag = self.etag_of_parts(&parts);
        StoredObject::new(bytes.clone(), etag, self.now())
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

    pub(super) fn delete(&mut self, key: &str, conditions: &Conditions) -> S3Result<()> {
        if self.undeletable.contains(key) {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if let Some((code, left)) = self.failing_deletes.get_mut(key).filter(|(_, left)| *left > 0) {
            *left -= 1;
            return Err(super::error_of(code));
        }
        self.check_conditions(key, conditions)?;
        if self.objects.remove(key).is_some() {
            self.deletes.push(key.to_owned());
        }
        Ok(())
    }

    pub(super) fn check_refusals(&self, key: &str) -> S3Result<()> {
        refused(&self.refusals, key)
    }

    pub(super) fn check_copy_refusals(&self, key: &str) -> S3Result<()> {
        refused(&self.copy_refusals, key)
    }

    pub(super) fn begin(&mut self, input: CreateMultipartUploadInput) -> String {
        self.counter += 1;
        let id = format!("upload-{:06x}", self.counter);
        self.uploads.insert(id.clone(), Upload::new(input, self.now()));
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
        let parts = upload.listed_parts(parts)?;
        let checksum_sha256 = upload.has_sha256.then(|| composite_sha256(&parts));
        let attributes = upload.attributes.clone();
        let (bytes, etag, last_modified) = (joined(&parts), self.etag_of_parts(&parts), self.now());
        let object = StoredObject { bytes, etag, checksum_sha256, last_modified, ..attributes };
        let answer = object.e_tag();
        self.uploads.remove(id);
        self.commit(key.to_owned(), object);
        Ok(answer)
    }
}
