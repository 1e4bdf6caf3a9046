//! What tests see of the in-memory store, and store in it past its protocol. Part of `memory_store.rs`.

use std::collections::BTreeMap;

use bytes::Bytes;
use s3s::dto::CreateMultipartUploadInput;

use super::MemoryStore;
use super::state::StoredObject;

impl MemoryStore {
    /// The contents of all objects, by key.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().objects.iter().map(|(key, object)| (key.clone(), object.bytes.to_vec())).collect()
    }

    /// Returns true if the object has this user metadata, `NAME` of `x-amz-meta-NAME`.
    pub fn has_metadata(&self, key: &str, name: &str) -> bool {
        self.state().objects.get(key).is_some_and(|object| object.metadata.contains_key(name))
    }

    /// The keys of the objects whose metadata, or whose content if they are part of a state, is of this kind.
    pub fn keys_of_ours(&self, matches: impl Fn(&[u8]) -> bool) -> Vec<String> {
        let is_found = |(key, object): &(&String, &StoredObject)| {
            let has_metadata = object.metadata.values().any(|value| matches(value.as_bytes()));
            has_metadata || key.contains(".brigade/") && matches(&object.bytes)
        };
        self.state().objects.iter().filter(is_found).map(|(key, _)| key.clone()).collect()
    }

    /// The sizes of all objects, by key.
    pub fn sizes(&self) -> BTreeMap<String, usize> {
        self.state().objects.iter().map(|(key, object)| (key.clone(), object.bytes.len())).collect()
    }

    /// One object with all its headers and metadata.
    pub fn get(&self, key: &str) -> Option<StoredObject> {
        self.state().objects.get(key).cloned()
    }

    /// Stores an object as another program would; `puts` does not list it.
    pub fn put_raw(&self, key: &str, bytes: impl Into<Bytes>) {
        self.put_raw_with(key, bytes, &[]);
    }

    /// Stores an object as [`MemoryStore::put_raw`] does, with headers as `PutObject` has them: `content-type`,
    /// `x-amz-meta-…`, `x-amz-checksum-sha256`. The checksum is not verified. Returns the `ETag`.
    pub fn put_raw_with(&self, key: &str, bytes: impl Into<Bytes>, headers: &[(&str, &str)]) -> String {
        let mut state = self.state();
        let object = state.new_object(bytes.into()).with_headers(headers);
        let etag = object.etag.clone();
        state.objects.insert(key.to_owned(), object);
        etag
    }

    /// Stores an object as [`MemoryStore::put_raw_with`] does, with the `ETag` of a multipart upload in parts of
    /// `part_size` bytes, which it returns.
    pub fn put_raw_in_parts(
        &self,
        key: &str,
        bytes: impl Into<Bytes>,
        part_size: usize,
        headers: &[(&str, &str)],
    ) -> String {
        let mut state = self.state();
        let object = state.new_object_of_parts(&bytes.into(), part_size).with_headers(headers);
        let etag = object.etag.clone();
        state.objects.insert(key.to_owned(), object);
        etag
    }

    /// Changes the bytes of an object and keeps its `ETag`, as a bad disk under the store would.
    pub fn corrupt(&self, key: &str, bytes: &[u8]) {
        if let Some(object) = self.state().objects.get_mut(key) {
            object.bytes = Bytes::copy_from_slice(bytes);
        }
    }

    /// Removes an object as another program would; `deletes` does not list it. Returns true if it existed.
    pub fn remove_raw(&self, key: &str) -> bool {
        self.state().objects.remove(key).is_some()
    }

    /// The unfinished multipart uploads: pairs of key and upload ID.
    pub fn uploads(&self) -> Vec<(String, String)> {
        self.state().uploads.iter().map(|(id, upload)| (upload.key.clone(), id.clone())).collect()
    }

    /// Creates a multipart upload as another program would; returns its upload ID.
    pub fn begin_raw(&self, key: &str) -> String {
        let input = CreateMultipartUploadInput {
            bucket: self.bucket.to_string(),
            key: key.to_owned(),
            ..Default::default()
        };
        self.state().begin(input)
    }

    /// Removes all unfinished uploads, as a lifecycle rule would.
    pub fn expire_uploads(&self) {
        self.state().uploads.clear();
    }

    /// The part numbers of an unfinished upload.
    pub fn parts_of(&self, upload_id: &str) -> Vec<i32> {
        self.state()
            .uploads
            .get(upload_id)
            .map(|upload| upload.parts.keys().copied().collect())
            .unwrap_or_default()
    }

    /// Removes one part of an unfinished upload.
    pub fn lose_part(&self, upload_id: &str, number: i32) {
        if let Some(upload) = self.state().uploads.get_mut(upload_id) {
            upload.parts.remove(&number);
        }
    }

    /// The keys in the order in which `PutObject` committed them.
    pub fn puts(&self) -> Vec<String> {
        self.state().puts.clone()
    }

    /// The keys in the order in which `PutObject` or `CompleteMultipartUpload` committed them.
    pub fn commits(&self) -> Vec<String> {
        self.state().commits.clone()
    }

    /// The keys in the order in which `CopyObject` committed them.
    pub fn copies(&self) -> Vec<String> {
        self.state().copies.clone()
    }

    /// The keys of existing objects in the order in which `DeleteObject` or `DeleteObjects` removed them.
    pub fn deletes(&self) -> Vec<String> {
        self.state().deletes.clone()
    }

    /// Empties the logs of `puts`, `commits`, `copies` and `deletes`.
    pub fn clear_logs(&self) {
        let mut state = self.state();
        state.puts.clear();
        state.commits.clear();
        state.copies.clear();
        state.deletes.clear();
    }
}
