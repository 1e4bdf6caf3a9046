//! `CopyObject` of the in-memory store. Part of `memory_store.rs`.

use std::collections::BTreeMap;

use s3s::dto::{
    ChecksumAlgorithm, CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, MetadataDirective,
    ServerSideEncryption, StorageClass,
};
use s3s::{S3Result, s3_error};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use super::conditions::Conditions;
use super::state::{State, StoredObject};

impl State {
    /// Copies an object of this bucket. Onto itself that changes its headers, which have to be replaced then.
    pub(super) fn copy(
        &mut self,
        bucket: &str,
        input: CopyObjectInput,
        headers: BTreeMap<String, String>,
    ) -> S3Result<CopyObjectOutput> {
        if self.lacks_copy {
            return Err(s3_error!(NotImplemented));
        }
        let CopySource::Bucket { bucket: from, key: source, .. } = &input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let directive = input.metadata_directive.as_ref().map(MetadataDirective::as_str);
        let replaces = directive == Some(MetadataDirective::REPLACE);
        if **source == *input.key && !replaces {
            return Err(s3_error!(InvalidRequest, "This copy request is illegal"));
        }
        if **from != *bucket {
            return Err(s3_error!(NoSuchBucket));
        }
        self.check_copy_refusals(source)?;
        self.check_conditions(source, &Conditions::of_copy(&input))?;
        let before = self.object(source)?.clone();
        let copy = self.new_object(before.bytes.clone());
        let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
        let checksum = if algorithm == Some(ChecksumAlgorithm::SHA256) || before.checksum_sha256.is_some() {
            Some(BASE64_STANDARD.encode(Sha256::digest(&before.bytes)))
        } else {
            None
        };
        let copy = StoredObject { checksum_sha256: checksum, ..copy };
        let copy = if replaces { with_copy(copy, &input, headers) } else { with_headers_of(copy, &before) };
        let encrypted = self.encrypted.contains(&copy.etag);
        let result = CopyObjectResult {
            e_tag: Some(copy.e_tag()),
            last_modified: Some(copy.modified()),
            ..Default::default()
        };
        self.copies.push(input.key.clone());
        self.objects.insert(input.key, copy);
        Ok(CopyObjectOutput {
            copy_object_result: Some(result),
            server_side_encryption: encrypted
                .then(|| ServerSideEncryption::from_static(ServerSideEncryption::AWS_KMS)),
            ..Default::default()
        })
    }
}

fn with_copy(copy: StoredObject, input: &CopyObjectInput, headers: BTreeMap<String, String>) -> StoredObject {
    StoredObject {
        content_type: input.content_type.clone(),
        cache_control: input.cache_control.clone(),
        storage_class: input.storage_class.as_ref().map(StorageClass::as_str).map(str::to_owned),
        metadata: input.metadata.clone().unwrap_or_default().into_iter().collect(),
        headers,
        ..copy
    }
}

fn with_headers_of(copy: StoredObject, before: &StoredObject) -> StoredObject {
    let before = before.clone();
    let StoredObject { bytes, etag, checksum_sha256, last_modified, .. } = copy;
    StoredObject { bytes, etag, checksum_sha256, last_modified, ..before }
}
