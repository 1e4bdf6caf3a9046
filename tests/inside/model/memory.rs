//! A store in memory, without a network: objects, `ETag`s, proofs of origin, multipart uploads of tiny parts. Each request
//! may fail, on each of its tries, as [`Faults`] says.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::steps::{Key, Mode, Op, PART_SIZE, Run};
use crate::backend::{
    Assembly, Begun, Condition, Copied, Creation, Deleted, DueHeaders, Finished, HeaderCopy, Listed,
    ListedPart, Page, PartUpload, Proof, Receipt, Reconciled, StateObjects, StorageBackend, StoredObject,
    Transfers, Upload, UploadMarker, UploadName, UploadPage, sealed,
};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry::{self, RetryPolicy};
use crate::tree::digest::{Digest, PartPlan};

/// What fails now.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) run: Option<Run>,
    /// Everything fails so.
    pub(super) outage: Option<Mode>,
}

impl Faults {
    /// How a request fails, and whether a second try may do better.
    pub(super) fn of(&self, op: Op, key: Key) -> Option<(Mode, bool)> {
        let one = || self.run?.fault_of(op, key).map(|fault| (fault.mode, fault.once));
        self.outage.map(|mode| (mode, false)).or_else(one)
    }
}

#[derive(Default)]
struct Content {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Open>,
    created: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    etag: String,
    proof: Option<Proof>,
    token: Option<String>,
}

struct Open {
    key: String,
    token: String,
    proof: Proof,
    parts: BTreeMap<u32, (String, Vec<u8>)>,
    /// The answer that named it was lost.
    nameless: bool,
}

pub(super) struct Memory {
    content: Mutex<Content>,
    faults: Arc<Mutex<Faults>>,
}

impl Memory {
    pub(super) fn new(faults: Arc<Mutex<Faults>>) -> Self {
        Self { content: Mutex::default(), faults }
    }

    /// Stores an object as another program would.
    pub(super) fn put_raw(&self, key: &str, bytes: Vec<u8>) {
        let etag = format!("{:x}", md5::compute(&bytes));
        let object = Object { bytes, etag, proof: None, token: None };
        self.content.lock().unwrap().objects.insert(key.to_owned(), object);
    }

    /// The bytes of each object, and whether it has a proof of origin.
    pub(super) fn objects(&self) -> BTreeMap<String, (Vec<u8>, bool)> {
        let content = self.content.lock().unwrap();
        let shown =
            |(key, object): (&String, &Object)| (key.clone(), (object.bytes.clone(), object.proof.is_some()));
        content.objects.iter().map(shown).collect()
    }

    /// The keys of open uploads, but for those whose upload ID was never received.
    pub(super) fn uploads(&self) -> Vec<String> {
        let content = self.content.lock().unwrap();
        content.uploads.values().filter(|open| !open.nameless).map(|open| open.key.clone()).collect()
    }

    /// Sends one request: tries it as a backend does, and does `effect` where the fault of the moment permits.
    fn request<T>(
        &self,
        context: &RequestContext<'_>,
        (op, operation, key): (Op, Operation, &str),
        mut effect: impl FnMut(&mut Content, bool) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let policy = RetryPolicy::default().with_attempts(2);
        retry::run(&policy, context, operation, |attempt| {
            context.gate.pass(
                operation,
                || context.check(operation),
                || {
                    context.trace.metrics.requests(1);
                    let fault = self.faults.lock().unwrap().of(op, super::known(key));
                    let fault = fault.filter(|(_, once)| !once || attempt == 1).map(|(mode, _)| mode);
                    let mut stored = self.content.lock().unwrap();
                    match fault {
                        None => effect(&mut stored, false),
                        Some(Mode::Lost) => {
                            effect(&mut stored, true).and(Err(error_of(Mode::Lost, operation)))
                        }
                        Some(mode) => Err(error_of(mode, operation)),
                    }
                },
            )
        })
        .map_err(|error| if key.is_empty() { error } else { error.with_key(key) })
    }

    pub(super) fn find_head(&self, context: &RequestContext<'_>) -> Result<(), StorageError> {
        self.request(context, (Op::First, Operation::State, ""), |_, _| Ok(()))
    }

    fn read(bytes: &mut Vec<u8>, mut body: impl std::io::Read) -> Result<(), StorageError> {
        let read = body.read_to_end(bytes);
        read.map(drop).map_err(|error| *error.into_inner().unwrap().downcast::<StorageError>().unwrap())
    }
}

fn error_of(mode: Mode, operation: Operation) -> StorageError {
    let kind = match mode {
        Mode::Unreachable => ErrorKind::Connect,
        Mode::Broken | Mode::Lost => ErrorKind::Network,
        Mode::Server => ErrorKind::Server,
        Mode::Throttled => ErrorKind::Throttled,
        Mode::Refused => ErrorKind::Rejected,
        Mode::Denied => ErrorKind::AccessDenied,
        Mode::Credentials => ErrorKind::Credentials,
    };
    let code = (mode == Mode::Credentials).then(|| "ExpiredToken".to_owned());
    StorageError::new(kind, operation, format!("{mode:?}")).with_code(code)
}

impl StorageBackend for Memory {
    fn upload_file(&self, _: &Path, _: &str) -> Result<String, StorageError> {
        unreachable!("a rescan uses the transfers")
    }

    fn delete_file(&self, _: &str) -> Result<(), StorageError> {
        unreachable!("a rescan uses the transfers")
    }

    fn get_url(&self, remote_key: &str) -> String {
        format!("https://memory.example/{remote_key}")
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn transfers(&self) -> Option<&dyn Transfers> {
        Some(self)
    }
}

impl sealed::Sealed for Memory {}

impl Transfers for Memory {
    fn bucket(&self) -> &'static str {
        "memory"
    }

    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError> {
        Ok(PartPlan::exactly(size, PART_SIZE).filter(|_| size > PART_SIZE))
    }

    fn content(
        &self,
        _: &RequestContext<'_>,
        _: &RemoteKey,
        _: u64,
        _: Option<u64>,
    ) -> Result<Option<Digest>, StorageError> {
        unreachable!("no run verifies contents")
    }

    fn preflight(&self, context: &RequestContext<'_>) -> Result<(), StorageError> {
        self.find_head(context)
    }

    fn headers_of(&self, _: &RemoteKey) -> Result<DueHeaders, StorageError> {
        Ok(DueHeaders { digest: [0; 32], is_explicit: false })
    }

    fn put(&self, context: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError> {
        let key = file.key.as_str();
        let mut body = Vec::new();
        if file.source.stat().size == 0 {
            file.source.check_unchanged()?;
        }
        // A body that cannot be read to its end is never a whole request.
        Self::read(&mut body, file.source.reader(8))?;
        assert!(
            Digest::of_stream(&body[..], None).unwrap() == *file.digest,
            "the body of {key} is not what was hashed"
        );
        self.request(context, (Op::Put, Operation::Upload, key), |content, _| {
            let etag = format!("{:x}", md5::compute(&body));
            let proof = Proof::of_file(*file.digest, body.len() as u64, file.run);
            let object = Object { bytes: body.clone(), etag: etag.clone(), proof: Some(proof), token: None };
            content.objects.insert(key.to_owned(), object);
            Ok(Receipt { url: self.get_url(key), etag: Some(etag) })
        })
    }

    fn may_copy(&self, _: u64) -> bool {
        false
    }

    fn copy_in_place(&self, _: &RequestContext<'_>, _: &HeaderCopy<'_>) -> Result<Copied, StorageError> {
        unreachable!("headers never change")
    }

    fn head(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        _: bool,
    ) -> Result<Option<StoredObject>, StorageError> {
        self.request(context, (Op::Head, Operation::Head, key.as_str()), |content, _| {
            Ok(content.objects.get(key.as_str()).map(|object| StoredObject {
                size: object.bytes.len() as u64,
                etag: Some(object.etag.clone()),
                is_as_stored: object.proof.is_some(),
                proof: object.proof.clone(),
                encrypted: false,
                checksum: None,
                upload_token: object.token.clone(),
            }))
        })
    }

    fn begin(&self, context: &RequestContext<'_>, key: &RemoteKey, creation: &Creation<'_>) -> Begun {
        let mut was_lost = false;
        let upload_id =
            self.request(context, (Op::Begin, Operation::Upload, key.as_str()), |content, lost| {
                content.created += 1;
                let id = format!("upload-{}", content.created);
                was_lost |= lost;
                let (key, token) = (key.as_str().to_owned(), creation.token.to_owned());
                let open = Open {
                    key,
                    token,
                    proof: creation.proof.clone(),
                    parts: BTreeMap::new(),
                    nameless: lost,
                };
                content.uploads.insert(id.clone(), open);
                Ok(id)
            });
        let lost = was_lost || upload_id.as_ref().is_err_and(StorageError::may_have_taken_effect);
        Begun { upload_id, lost }
    }

    fn part(&self, context: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError> {
        let mut body = Vec::new();
        Self::read(&mut body, part.source.range_reader(part.offset, part.length, 8))?;
        let sha256 = Digest::whole(*part.sha256);
        assert!(Digest::of_stream(&body[..], None).unwrap() == sha256, "a part is not what was hashed");
        self.request(context, (Op::Part, Operation::Upload, part.upload.key.as_str()), |content, _| {
            let open = content.uploads.get_mut(&part.upload.upload_id).ok_or_else(no_such_upload)?;
            let etag = format!("{:x}", md5::compute(&body));
            open.parts.insert(part.number, (etag.clone(), body.clone()));
            Ok(etag)
        })
    }

    fn finish(&self, context: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError> {
        let (key, id) = (upload.upload.key.as_str(), &upload.upload.upload_id);
        self.request(context, (Op::Finish, Operation::Upload, key), |content, _| {
            let Some(open) = content.uploads.remove(id) else {
                // A try without an answer has completed it.
                let own = content
                    .objects
                    .get(key)
                    .filter(|object| object.token.as_ref() == Some(&upload.upload.token));
                let etag = own.ok_or_else(no_such_upload)?.etag.clone();
                return Ok(Finished {
                    receipt: Receipt { url: self.get_url(key), etag: Some(etag) },
                    request_id: String::new(),
                });
            };
            let named: Vec<_> = upload.parts.iter().map(|part| &part.etag).collect();
            assert_eq!(
                named,
                open.parts.values().map(|(etag, _)| etag).collect::<Vec<_>>(),
                "parts of {key}"
            );
            let bytes: Vec<u8> = open.parts.values().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(bytes.len() as u64, upload.size, "the size of {key}");
            let etag = format!("{:x}-{}", md5::compute(&bytes), named.len());
            let object =
                Object { bytes, etag: etag.clone(), proof: Some(open.proof), token: Some(open.token) };
            content.objects.insert(key.to_owned(), object);
            Ok(Finished {
                receipt: Receipt { url: self.get_url(key), etag: Some(etag) },
                request_id: String::new(),
            })
        })
    }

    fn abort(&self, context: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError> {
        self.request(context, (Op::Abort, Operation::Abort, upload.key.as_str()), |content, _| {
            content.uploads.remove(&upload.upload_id);
            Ok(())
        })
    }

    fn reconcile(
        &self,
        context: &RequestContext<'_>,
        upload: &UploadName,
        _: u64,
    ) -> Result<Reconciled, StorageError> {
        let key = upload.key.as_str();
        self.request(context, (Op::Reconcile, Operation::Upload, key), |content, _| {
            if let Some(open) = content.uploads.get(&upload.upload_id) {
                let listed = |(number, (etag, bytes)): (&u32, &(String, Vec<u8>))| ListedPart {
                    number: *number,
                    size: bytes.len() as u64,
                    etag: Some(etag.clone()),
                };
                return Ok(Reconciled::Open(open.parts.iter().map(listed).collect()));
            }
            let own = content.objects.get(key).filter(|object| object.token.as_ref() == Some(&upload.token));
            let receipt =
                |object: &Object| Receipt { url: self.get_url(key), etag: Some(object.etag.clone()) };
            Ok(own.map_or(Reconciled::Gone, |object| Reconciled::Finished(receipt(object))))
        })
    }

    fn list_uploads(
        &self,
        _: &RequestContext<'_>,
        _: &RemoteKey,
        _: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError> {
        unreachable!("a rescan with its own state lists no uploads")
    }

    fn delete_many(
        &self,
        context: &RequestContext<'_>,
        keys: &[(RemoteKey, Condition)],
    ) -> Result<Deleted, StorageError> {
        self.request(context, (Op::Delete, Operation::Delete, ""), |content, _| {
            Ok(keys
                .iter()
                .map(|(key, _)| {
                    content.objects.remove(key.as_str());
                    (key.clone(), Ok(()))
                })
                .collect())
        })
    }

    fn list(&self, context: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError> {
        self.request(context, (Op::List, Operation::List, ""), |content, _| {
            let after = |key: &&String| from.is_none_or(|from| key.as_str() > from);
            let keys: Vec<_> = content.objects.keys().filter(after).take(3).cloned().collect();
            let next = keys.get(2).cloned();
            let listed = |key: String| {
                let object = &content.objects[&key];
                Listed { size: object.bytes.len() as u64, etag: Some(object.etag.clone()), key }
            };
            Ok(Page { objects: keys.into_iter().map(listed).collect(), next, ..Page::default() })
        })
    }

    fn state_objects(&self) -> &dyn StateObjects {
        unreachable!("asked of the store around it")
    }

    fn delete_limit(&self) -> usize {
        2
    }
}

fn no_such_upload() -> StorageError {
    StorageError::new(ErrorKind::NotFound, Operation::Upload, "no such upload")
        .with_code(Some("NoSuchUpload".to_owned()))
}
