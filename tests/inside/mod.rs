//! Tests of operations that no caller of the library reaches: they run inside the crate, against whole stores.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure here is a failed test")]
#![allow(unreachable_pub, missing_docs, reason = "support is shared with the suite")]

#[path = "../support/mod.rs"]
pub(crate) mod support;

mod conditions;
mod hostile_state;
mod model;
mod probe;
mod reserved;
mod state_objects;

use std::fs::{self, File};
use std::sync::Arc;

use tempfile::TempDir;

use self::support::memory_store::MemoryStore;
use self::support::proxy::{Fault, FaultProxy, Rule, Seen};
use self::support::seaweedfs;
use self::support::server::{ACCESS_KEY, S3Server, SECRET_KEY};
use self::support::signed::Client;
use self::support::{BUCKET, PREFIX, s3_config_at};
use crate::backend::{
    Assembly, Condition, Creation, Fetched, Finished, PartUpload, Proof, PutSmall, Receipt, SentPart,
    SmallObject, StateObjects, Transfers, Upload, UploadName, new_token,
};
use crate::clock::{CancelToken, VirtualClock};
use crate::engine::{Engine, EngineConfig, gate::Gate};
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;
use crate::{S3Backend, S3Config};

/// The `ETag` of nothing that the tests store.
const STALE: &str = "0123456789abcdef0123456789abcdef";

/// A backend, behind a proxy, and a client that is not ours, past it.
struct Site {
    s3: S3Backend,
    proxy: FaultProxy,
    client: Client,
    clock: Arc<VirtualClock>,
    engine: Engine,
    cancel: CancelToken,
    gate: Gate,
    folder: TempDir,
    run: String,
}

impl Site {
    fn new(proxy: FaultProxy, client: Client, config: S3Config) -> Self {
        let clock = Arc::new(VirtualClock::new());
        let engine = EngineConfig::new().workers(2).clock(clock.clone()).build().unwrap();
        let s3 = S3Backend::new(&engine, config).unwrap();
        let (cancel, gate, folder) = (CancelToken::new(), Gate::new(2), tempfile::tempdir().unwrap());
        Self { s3, proxy, client, clock, engine, cancel, gate, folder, run: new_token() }
    }

    fn context(&self) -> RequestContext<'_> {
        let (clock, trace) = (&*self.clock, self.engine.trace());
        RequestContext { cancel: &self.cancel, deadline: None, clock, gate: &self.gate, trace, fence: None }
    }

    fn state(&self) -> &dyn StateObjects {
        self.s3.state_objects()
    }

    fn source(&self, content: &str) -> Source {
        let path = self.folder.path().join(new_token());
        fs::write(&path, content).unwrap();
        Source::open(&path).unwrap()
    }

    fn upload(&self, key: &str, content: &str, condition: &Condition) -> Result<Receipt, StorageError> {
        let (source, key) = (self.source(content), key_of(key));
        let digest = source.hash(|_| Ok(())).unwrap();
        let file = Upload { source: &source, key: &key, digest: &digest, run: &self.run, condition };
        self.s3.put(&self.context(), &file)
    }

    /// Uploads a file in one part.
    fn upload_parts(&self, key: &str, text: &str, condition: &Condition) -> Result<Finished, StorageError> {
        let (source, key, token) = (self.source(text), key_of(key), new_token());
        let size = text.len() as u64;
        let plan = PartPlan::new(size, 5 << 20).unwrap();
        let proof = Proof::of_parts(None, &plan, &self.run);
        let context = self.context();
        let begun = self.s3.begin(&context, &key, &Creation { token: &token, proof: &proof });
        let upload = UploadName { key, token, upload_id: begun.upload_id.unwrap() };
        let sha256 = source.hash_range(0, size, |_| Ok(())).unwrap();
        let part = PartUpload {
            upload: &upload,
            source: &source,
            number: 1,
            offset: 0,
            length: size,
            sha256: &sha256,
        };
        let parts = [SentPart { etag: self.s3.part(&context, &part).unwrap(), sha256 }];
        self.s3.finish(&context, &Assembly { upload: &upload, parts: &parts, size, condition })
    }

    fn delete(&self, keys: &[(&str, Condition)]) -> Vec<Result<(), StorageError>> {
        let keys: Vec<_> = keys.iter().map(|(key, condition)| (key_of(key), condition.clone())).collect();
        let deleted = self.s3.delete_many(&self.context(), &keys).unwrap();
        assert_eq!(deleted.iter().map(|(key, _)| key).collect::<Vec<_>>().len(), keys.len());
        // The order of the results is that of the requests.
        let result_of = |key| deleted.iter().find(|(found, _)| found == key).unwrap().1.as_ref();
        keys.iter().map(|(key, _)| result_of(key).copied().map_err(StorageError::repeated)).collect()
    }

    fn put_small(&self, key: &str, bytes: &str, condition: &Condition) -> Result<PutSmall, StorageError> {
        let (key, bytes, content_type) = (&key_of(key), bytes.as_bytes(), "application/json");
        self.state().put_small(&self.context(), &SmallObject { key, bytes, content_type, condition })
    }

    fn get_small(&self, key: &str, limit: u64, if_none_match: Option<&str>) -> Result<Fetched, StorageError> {
        self.state().get_small(&self.context(), &key_of(key), limit, if_none_match)
    }

    /// Stores an object as another program would. Returns the `ETag` without quotes.
    fn others_put(&self, key: &str, content: &str) -> String {
        let answer = self.client.put(&format!("{PREFIX}{key}"), content, &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.etag().trim_matches('"').to_owned()
    }

    /// The `ETag` of an object without quotes; `None` if there is none.
    fn etag(&self, key: &str) -> Option<String> {
        let answer = self.client.head(&format!("{PREFIX}{key}"), &[]);
        (answer.status == 200).then(|| answer.etag().trim_matches('"').to_owned())
    }

    fn content(&self, key: &str) -> Option<String> {
        let answer = self.client.get(&format!("{PREFIX}{key}"), &[]);
        (answer.status == 200).then(|| String::from_utf8(answer.body).unwrap())
    }

    /// All keys in the bucket without the prefix.
    fn keys(&self) -> Vec<String> {
        let keys = self.client.keys("");
        keys.iter().map(|key| key.strip_prefix(PREFIX).unwrap().to_owned()).collect()
    }

    /// Injects a fault into the next request with this method.
    fn once(&self, method: &str, fault: Fault) {
        self.proxy.add(Rule::new(fault).method(method).times(1));
    }

    /// The methods of all requests since the last call.
    fn methods(&self) -> Vec<String> {
        self.requests().into_iter().map(|seen| seen.method).collect()
    }

    fn requests(&self) -> Vec<Seen> {
        let requests = self.proxy.requests();
        self.proxy.clear_counts();
        requests
    }
}

/// A site on a store in memory.
struct InMemory {
    store: MemoryStore,
    _server: S3Server,
    site: Site,
}

impl InMemory {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(change: impl Fn(S3Config) -> S3Config) -> Self {
        let store = MemoryStore::with_bucket(BUCKET);
        let server = S3Server::start(store.service());
        let proxy = FaultProxy::start(server.addr());
        let client = Client::new(&server.endpoint(), ACCESS_KEY, SECRET_KEY, BUCKET);
        let config = change(s3_config_at(&proxy.endpoint()));
        Self { store, _server: server, site: Site::new(proxy, client, config) }
    }
}

/// Runs a test on the store in memory, and on `SeaweedFS` where there is one.
fn on_both(test: fn(&Site)) {
    test(&InMemory::new().site);
    if let Some(weed) = seaweedfs::shared() {
        println!("SeaweedFS");
        let bucket = weed.new_bucket();
        let proxy = FaultProxy::start(weed.addr());
        let config = weed.s3_config(&bucket).endpoint(proxy.endpoint()).bucket_prefix(PREFIX);
        test(&Site::new(proxy, weed.client(&bucket), config));
    }
}

fn key_of(key: &str) -> RemoteKey {
    RemoteKey::new(key).unwrap()
}

fn matches(etag: &str) -> Condition {
    Condition::Matches(etag.to_owned())
}

fn answer(status: u16, code: &str) -> Fault {
    let body = format!("<Error><Code>{code}</Code><Message>said so</Message></Error>");
    Fault::Answer(status, Vec::new(), body.into_bytes())
}

fn scratch() -> File {
    tempfile::tempfile().unwrap()
}

fn sha256_of(content: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(content).into()
}

fn digest_of(content: &str) -> Digest {
    Digest::whole(sha256_of(content))
}
