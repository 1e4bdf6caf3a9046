//! The operations on the objects of the state, as `S3Backend` has them.

use std::fs::File;

use crate::backend::s3::S3Backend;
use crate::backend::s3::operations::{
    delete_objects, first_request, list_objects, state_reads, state_writes,
};
use crate::backend::{
    Fetched, FoundState, Modified, Page, ProbeResult, PutSmall, SmallObject, StateObjects, StatePlace, probe,
};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::tree::digest::Digest;
use crate::tree::source::Source;

impl StateObjects for S3Backend {
    fn place(&self) -> StatePlace {
        let address = &self.settings.address;
        StatePlace {
            endpoint: address.host.clone(),
            bucket: address.bucket.name(),
            prefix: address.prefix.as_str().to_owned(),
        }
    }

    fn find_head(&self, context: &RequestContext<'_>) -> Result<Option<FoundState>, StorageError> {
        first_request::find_head(self, context)
    }

    fn get_small(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        limit: u64,
        if_none_match: Option<&str>,
    ) -> Result<Fetched, StorageError> {
        state_reads::get_small(self, context, key, limit, if_none_match)
    }

    fn put_small(
        &self,
        context: &RequestContext<'_>,
        object: &SmallObject<'_>,
    ) -> Result<PutSmall, StorageError> {
        state_writes::put_small(self, context, object)
    }

    fn modified_of(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
    ) -> Result<Option<Modified>, StorageError> {
        state_reads::modified_of(self, context, key)
    }

    fn get_to_file(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        file: &mut File,
    ) -> Result<[u8; 32], StorageError> {
        state_reads::get_to_file(self, context, key, size, file)
    }

    fn put_file(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        source: &Source,
        digest: &Digest,
    ) -> Result<String, StorageError> {
        state_writes::put_file(self, context, key, source, digest)
    }

    fn delete_small(&self, context: &RequestContext<'_>, key: &RemoteKey) -> Result<(), StorageError> {
        delete_objects::delete_of_state(self, context, key)
    }

    fn list_keys(
        &self,
        context: &RequestContext<'_>,
        under: &str,
        from: Option<&str>,
    ) -> Result<Page, StorageError> {
        list_objects::list_objects(self, context, under, from)
    }

    fn store_date(&self) -> Option<u64> {
        self.client.store_date()
    }

    fn probe(&self, context: &RequestContext<'_>) -> Result<ProbeResult, StorageError> {
        probe::probe(self, context)
    }

    fn probe_cheaply(&self, context: &RequestContext<'_>) -> Result<Option<String>, StorageError> {
        probe::probe_cheaply(self, context)
    }
}
