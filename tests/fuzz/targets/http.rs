//! Answers of a store as the transport sees them, head and body, to every request that the library sends.

use std::fs::File;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::wire::Server;
use super::{SECRET, TOKEN, check_error, check_no_secret, parts};
use crate::backend::{
    Assembly, Condition, Creation, Fetched, HeaderCopy, Listed, PartUpload, Proof, SentPart, SmallObject,
    StateObjects, StoredObject, Transfers, Upload, UploadName,
};
use crate::clock::{CancelToken, VirtualClock};
use crate::engine::gate::Gate;
use crate::engine::{Engine, EngineConfig};
use crate::error::StorageError;
use crate::key::{RemoteKey, is_reserved};
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;
use crate::{Credentials, NetworkConfig, RetryPolicy, S3Backend, S3Config};

const CONTENT: &[u8] = b"content";
const RUN: &str = "0123456789abcdef0123456789abcdef";
/// The most bytes of a small object.
const LIMIT: u64 = 64;
/// The longest text that a store can have stored: an upload ID or a token.
const LONGEST: usize = 8 * 1024;

/// What all runs share. No store is asked for it.
struct Shared {
    engine: Engine,
    clock: Arc<VirtualClock>,
    source: Source,
    digest: Digest,
    _folder: tempfile::TempDir,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let clock = Arc::new(VirtualClock::new());
    let engine = EngineConfig::new().workers(1).clock(clock.clone()).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, CONTENT).unwrap();
    let source = Source::open(&path).unwrap();
    let digest = source.hash(|_| Ok(())).unwrap();
    Shared { engine, clock, source, digest, _folder: folder }
});

/// What an operation needs.
struct Site<'a> {
    s3: &'a S3Backend,
    context: RequestContext<'a>,
    key: RemoteKey,
    upload: UploadName,
}

/// The first byte chooses the operation, the second one the bytes that come in at a time.
pub(crate) fn target(data: &[u8]) {
    let [operation, chunk, answers @ ..] = data else { return };
    let server = Server::new(parts(answers), *chunk);
    if let Err(error) = run(*operation, &backend(server.clone())) {
        check_error(&error, 0);
        assert!(error.code().is_none_or(|code| code.len() <= 1100));
        assert!(error.request_id().is_none_or(|id| id.len() <= 1100));
    }
    server.sent().iter().for_each(|sent| check_request(sent));
}

/// Runs an operation, and checks what it accepts.
pub(super) fn run(operation: u8, s3: &S3Backend) -> Result<(), StorageError> {
    let (cancel, gate) = (CancelToken::new(), Gate::new(1));
    let Shared { engine, clock, .. } = &*SHARED;
    let trace = engine.trace();
    let context =
        RequestContext { cancel: &cancel, deadline: None, clock: &**clock, gate: &gate, trace, fence: None };
    let key = RemoteKey::new("a b").unwrap();
    let upload = UploadName { key: key.clone(), token: RUN.to_owned(), upload_id: "id/+ ?".to_owned() };
    let site = Site { s3, context, key, upload };
    if operation & 1 == 0 { site.read(operation >> 1) } else { site.write(operation >> 1) }
}

fn backend(server: Server) -> S3Backend {
    let config = S3Config::new("bucket")
        .endpoint("http://127.0.0.1:9")
        .bucket_prefix("site")
        .credentials(Credentials::new("AKIAFUZZ", SECRET).with_session_token(TOKEN))
        // Names are resolved by the proxy, so no thread is started for that. The server takes the place of both.
        .network(NetworkConfig::new().proxy("socks5h://127.0.0.1:9"))
        .retry(RetryPolicy {
            base: Duration::ZERO,
            cap: Duration::ZERO,
            ..RetryPolicy::default().with_attempts(1)
        });
    S3Backend::new(&SHARED.engine, config).and_then(|s3| s3.over(server)).unwrap()
}

impl Site<'_> {
    fn read(&self, operation: u8) -> Result<(), StorageError> {
        let Self { s3, context, key, upload } = self;
        match operation % 10 {
            0 => s3.head(context, key, true)?.iter().for_each(check_object),
            1 => {
                let page = s3.list(context, None)?;
                assert!(page.objects.iter().all(|object| !is_reserved(&object.key)));
                page.objects.iter().for_each(check_listed);
                assert!(page.next.as_ref().is_none_or(|next| next.len() <= LONGEST));
                check_no_secret(&page);
            }
            2 | 3 => {
                let known = (operation % 10 == 3).then_some("abc");
                let found = s3.get_small(context, key, LIMIT, known)?;
                if let Fetched::Found { bytes, etag, .. } = &found {
                    assert!(bytes.len() as u64 <= LIMIT && is_strong(etag));
                }
            }
            4 => {
                let modified = s3.modified_of(context, key)?;
                assert!(modified.as_ref().is_none_or(|modified| is_strong(&modified.etag)));
                check_no_secret(&modified);
            }
            5 => {
                let page = s3.list_uploads(context, key, None)?;
                assert!(page.uploads.iter().all(|upload| upload.upload_id.len() <= LONGEST));
                check_no_secret(&page);
            }
            6 => drop(s3.reconcile(context, upload, CONTENT.len() as u64)?),
            7 => drop(s3.content(context, key, CONTENT.len() as u64, None)?),
            8 => check_no_secret(&s3.find_head(context)?),
            _ => self.get_to_file()?,
        }
        Ok(())
    }

    fn get_to_file(&self) -> Result<(), StorageError> {
        let mut file = tempfile::tempfile().unwrap();
        let size = CONTENT.len() as u64;
        let sha256 = self.s3.get_to_file(&self.context, &self.key, size, &mut file)?;
        let length = |file: &File| file.metadata().unwrap().len();
        assert_eq!(length(&file), size);
        // Whatever was received, the digest is that of the file.
        let digest = Digest::of_stream(rewound(file), None).unwrap();
        assert_eq!(digest, Digest::whole(sha256));
        Ok(())
    }

    fn write(&self, operation: u8) -> Result<(), StorageError> {
        let Self { s3, context, key, upload } = self;
        let Shared { source, digest, .. } = &*SHARED;
        let condition = Condition::Matches("abc".to_owned());
        let parts = [SentPart { etag: "abc".to_owned(), sha256: *digest.as_bytes() }];
        match operation % 8 {
            0 => {
                let condition = &if operation & 8 == 0 { Condition::None } else { condition };
                let receipt = s3.put(context, &Upload { source, key, digest, run: RUN, condition })?;
                check_etag(receipt.etag.as_deref());
                check_no_secret(&receipt);
            }
            1 => {
                let keys = [(key.clone(), Condition::None), (RemoteKey::new("c").unwrap(), condition)];
                let deleted = s3.delete_many(context, &keys[..=usize::from(operation >> 3 & 1)])?;
                check_deleted(&deleted, &keys);
            }
            2 => {
                let proof = Proof::of_parts(None, &PartPlan::new(7, 8 << 20).unwrap(), RUN);
                let id = s3.begin(context, key, &Creation { token: RUN, proof: &proof }).upload_id?;
                assert!(!id.is_empty() && id.len() <= LONGEST);
                check_no_secret(&id);
            }
            3 => {
                let (length, sha256) = (CONTENT.len() as u64, digest.as_bytes());
                let part = PartUpload { upload, source, number: 1, offset: 0, length, sha256 };
                check_etag(Some(&s3.part(context, &part)?));
            }
            4 => {
                let assembly = Assembly { upload, parts: &parts, size: 7, condition: &condition };
                check_etag(s3.finish(context, &assembly)?.receipt.etag.as_deref());
            }
            5 => s3.abort(context, upload)?,
            6 => {
                let object = HeaderCopy { key, digest, size: 7, etag: "abc", run: RUN };
                drop(s3.copy_in_place(context, &object)?);
            }
            _ => {
                let (bytes, content_type, condition) = (CONTENT, "application/json", &condition);
                let object = SmallObject { key, bytes, content_type, condition };
                check_no_secret(&s3.put_small(context, &object)?);
            }
        }
        Ok(())
    }
}

fn rewound(mut file: File) -> File {
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn is_strong(etag: &str) -> bool {
    !etag.is_empty() && etag.len() <= 1024 && !etag.starts_with("W/")
}

fn check_etag(etag: Option<&str>) {
    assert!(etag.is_none_or(|etag| etag.len() <= 1024));
    check_no_secret(&etag);
}

fn check_object(object: &StoredObject) {
    check_etag(object.etag.as_deref());
    // What is as it was stored is so by its proof.
    let proof = object.proof.as_ref();
    assert!(
        !object.is_as_stored || proof.is_some_and(|proof| proof.size == object.size && proof.key.is_some())
    );
    check_no_secret(&object.upload_token);
    if let Some(proof) = proof {
        assert_eq!(Proof::parse(&proof.to_string()).as_ref(), Some(proof));
    }
}

fn check_listed(listed: &Listed) {
    check_etag(listed.etag.as_deref());
}

/// Each key that was asked for has one result, and no other key has any.
fn check_deleted(deleted: &[(RemoteKey, Result<(), StorageError>)], keys: &[(RemoteKey, Condition)]) {
    for (key, result) in deleted {
        assert_eq!(keys.iter().filter(|(asked, _)| asked == key).count(), 1);
        assert_eq!(deleted.iter().filter(|(other, _)| other == key).count(), 1);
        if let Err(error) = result {
            check_error(error, 0);
        }
    }
}

/// Nothing that a store has sent makes another request of ours than the one that was meant.
fn check_request(sent: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let status = request.parse(sent).unwrap();
    assert!(status.is_complete(), "{}", sent.escape_ascii());
    assert!(matches!(request.method, Some("GET" | "HEAD" | "PUT" | "POST" | "DELETE")));
    let path = request.path.unwrap();
    assert!(path.starts_with("/bucket") && path.is_ascii() && !path.contains(' '), "{path}");
    let hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    assert_eq!(hosts.map(|host| host.value).collect::<Vec<_>>(), [b"127.0.0.1:9"]);
}
