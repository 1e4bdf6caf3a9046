//! A store around a store: writes down each request and its answer, and changes files and cancels runs in between.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::memory::{Faults, Memory};
use super::reference::{Answer, Class, Sent};
use super::steps::{Content, Key, Mode, Moment, Op, Run};
use crate::S3Backend;
use crate::backend::{
    Assembly, Begun, Condition, Copied, Creation, Deleted, DueHeaders, Fetched, Finished, FoundState,
    HeaderCopy, Modified, Page, PartUpload, ProbeResult, PutSmall, Receipt, Reconciled, SmallObject,
    StateObjects, StatePlace, StorageBackend, StoredObject, Transfers, Upload, UploadMarker, UploadName,
    UploadPage, sealed,
};
use crate::clock::CancelToken;
use crate::error::{ErrorKind, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::tree::digest::{Digest, PartPlan};
use crate::tree::source::Source;

pub(super) enum Store {
    Memory(Memory),
    S3(Box<S3Backend>),
}

/// Changes a file of the tree.
pub(super) type Editor = Box<dyn Fn(Key, Content) + Send + Sync>;

/// What happens during the run that is under way.
#[derive(Default)]
pub(super) struct Script {
    pub(super) run: Option<Run>,
    pub(super) cancel: CancelToken,
    pub(super) sent: Vec<Sent>,
    pub(super) requests: usize,
    pub(super) edited: bool,
}

pub(super) struct Watched {
    pub(super) store: Store,
    pub(super) script: Mutex<Script>,
    pub(super) faults: Arc<Mutex<Faults>>,
    pub(super) edit: Editor,
    /// Makes everything fail from now on, where the store is behind a proxy.
    pub(super) begin_outage: Box<dyn Fn(Mode) + Send + Sync>,
}

impl Watched {
    fn inner(&self) -> &dyn Transfers {
        match &self.store {
            Store::Memory(memory) => memory,
            Store::S3(s3) => &**s3,
        }
    }

    fn backend(&self) -> &dyn StorageBackend {
        match &self.store {
            Store::Memory(memory) => memory,
            Store::S3(s3) => &**s3,
        }
    }

    /// Begins the script of a run.
    pub(super) fn begin_run(&self, run: Run) -> CancelToken {
        let cancel = CancelToken::new();
        *self.faults.lock().unwrap() = Faults { run: Some(run), outage: None };
        *self.script.lock().unwrap() = Script { run: Some(run), cancel: cancel.clone(), ..Script::default() };
        cancel
    }

    /// Ends the script. Returns what was sent, and whether the file was edited.
    pub(super) fn end_run(&self) -> (Vec<Sent>, bool) {
        *self.faults.lock().unwrap() = Faults::default();
        let script = std::mem::take(&mut *self.script.lock().unwrap());
        (script.sent, script.edited)
    }

    fn before(&self, op: Op, key: Key) {
        let mut script = self.script.lock().unwrap();
        let number = script.requests;
        script.requests += 1;
        let Some(run) = script.run else { return };
        if run.cancelled == Some(number) {
            script.cancel.cancel();
        }
        if let Some((from, mode)) = run.outage
            && from == number
        {
            self.faults.lock().unwrap().outage = Some(mode);
            (self.begin_outage)(mode);
        }
        drop(script);
        self.edit_at(op, key, Moment::BeforeSending);
    }

    fn edit_at(&self, op: Op, key: Key, moment: Moment) {
        let mut script = self.script.lock().unwrap();
        let edited = script.run.and_then(|run| run.edited);
        if let Some((name, content, at)) = edited
            && (name, at) == (key, moment)
            && matches!(op, Op::Put | Op::Part)
            && !script.edited
        {
            script.edited = true;
            (self.edit)(key, content);
        }
    }

    /// Sends a request and writes down its answer.
    fn sent<T>(
        &self,
        op: Op,
        keys: &[&str],
        send: impl FnOnce() -> Result<T, StorageError>,
        found: impl FnOnce(&T) -> bool,
    ) -> Result<T, StorageError> {
        let keys: Vec<Key> = keys.iter().map(|key| super::known(key)).collect();
        let first = keys.first().copied().unwrap_or_default();
        self.before(op, first);
        let result = send();
        self.note(op, keys, result.as_ref().map(found));
        self.edit_at(op, first, Moment::AfterAnswer);
        result
    }

    fn note(&self, op: Op, keys: Vec<Key>, result: Result<bool, &StorageError>) {
        let first = keys.first().copied().unwrap_or_default();
        let mode = self.faults.lock().unwrap().of(op, first).map(|(mode, _)| mode);
        let (answer, mode) = match result {
            Ok(found) => (Answer::Done(found), None),
            Err(error) => (answer_of(error), mode),
        };
        // What was not tried, or not read to its end, never reached the store.
        let mode = mode.filter(|_| !matches!(answer, Answer::NotTried | Answer::Failed(Class::Source)));
        self.script.lock().unwrap().sent.push(Sent { op, keys, answer, mode });
    }
}

fn answer_of(error: &StorageError) -> Answer {
    use ErrorKind::{AccessDenied, Cancelled, Credentials, SourceChanged, SourceVanished, Unavailable};
    match error.kind() {
        Cancelled | Unavailable => Answer::NotTried,
        SourceChanged | SourceVanished => Answer::Failed(Class::Source),
        Credentials => Answer::Failed(Class::Credentials),
        AccessDenied => Answer::Failed(Class::Refused),
        kind if kind.is_transient() => Answer::Failed(Class::Outage),
        _ => Answer::Failed(Class::Refused),
    }
}

impl StorageBackend for Watched {
    fn upload_file(&self, local_path: &Path, remote_key: &str) -> Result<String, StorageError> {
        self.backend().upload_file(local_path, remote_key)
    }

    fn delete_file(&self, remote_key: &str) -> Result<(), StorageError> {
        self.backend().delete_file(remote_key)
    }

    fn get_url(&self, remote_key: &str) -> String {
        self.backend().get_url(remote_key)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn transfers(&self) -> Option<&dyn Transfers> {
        Some(self)
    }

    fn destination(&self) -> String {
        self.backend().destination()
    }
}

impl sealed::Sealed for Watched {}

impl Transfers for Watched {
    fn bucket(&self) -> &str {
        self.inner().bucket()
    }

    fn part_plan(&self, size: u64) -> Result<Option<PartPlan>, StorageError> {
        self.inner().part_plan(size)
    }

    fn content(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        size: u64,
        part_size: Option<u64>,
    ) -> Result<Option<Digest>, StorageError> {
        self.inner().content(context, key, size, part_size)
    }

    fn preflight(&self, context: &RequestContext<'_>) -> Result<(), StorageError> {
        self.inner().preflight(context)
    }

    fn headers_of(&self, key: &RemoteKey) -> Result<DueHeaders, StorageError> {
        self.inner().headers_of(key)
    }

    fn put(&self, context: &RequestContext<'_>, file: &Upload<'_>) -> Result<Receipt, StorageError> {
        self.sent(Op::Put, &[file.key.as_str()], || self.inner().put(context, file), |_| true)
    }

    fn may_copy(&self, size: u64) -> bool {
        self.inner().may_copy(size)
    }

    fn copy_in_place(
        &self,
        context: &RequestContext<'_>,
        object: &HeaderCopy<'_>,
    ) -> Result<Copied, StorageError> {
        self.inner().copy_in_place(context, object)
    }

    fn head(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        with_checksum: bool,
    ) -> Result<Option<StoredObject>, StorageError> {
        let head = || self.inner().head(context, key, with_checksum);
        self.sent(Op::Head, &[key.as_str()], head, Option::is_some)
    }

    fn begin(&self, context: &RequestContext<'_>, key: &RemoteKey, creation: &Creation<'_>) -> Begun {
        self.before(Op::Begin, super::known(key.as_str()));
        let begun = self.inner().begin(context, key, creation);
        self.note(Op::Begin, vec![super::known(key.as_str())], begun.upload_id.as_ref().map(|_| true));
        begun
    }

    fn part(&self, context: &RequestContext<'_>, part: &PartUpload<'_>) -> Result<String, StorageError> {
        self.sent(Op::Part, &[part.upload.key.as_str()], || self.inner().part(context, part), |_| true)
    }

    fn finish(&self, context: &RequestContext<'_>, upload: &Assembly<'_>) -> Result<Finished, StorageError> {
        self.sent(
            Op::Finish,
            &[upload.upload.key.as_str()],
            || self.inner().finish(context, upload),
            |_| true,
        )
    }

    fn abort(&self, context: &RequestContext<'_>, upload: &UploadName) -> Result<(), StorageError> {
        self.sent(Op::Abort, &[upload.key.as_str()], || self.inner().abort(context, upload), |()| true)
    }

    fn reconcile(
        &self,
        context: &RequestContext<'_>,
        upload: &UploadName,
        size: u64,
    ) -> Result<Reconciled, StorageError> {
        let reconcile = || self.inner().reconcile(context, upload, size);
        let is_finished = |found: &Reconciled| matches!(found, Reconciled::Finished(_));
        self.sent(Op::Reconcile, &[upload.key.as_str()], reconcile, is_finished)
    }

    fn list_uploads(
        &self,
        context: &RequestContext<'_>,
        key: &RemoteKey,
        from: Option<&UploadMarker>,
    ) -> Result<UploadPage, StorageError> {
        self.inner().list_uploads(context, key, from)
    }

    fn delete_many(
        &self,
        context: &RequestContext<'_>,
        keys: &[(RemoteKey, Condition)],
    ) -> Result<Deleted, StorageError> {
        let names: Vec<_> = keys.iter().map(|(key, _)| key.as_str()).collect();
        let delete = || {
            let mut deleted = self.inner().delete_many(context, keys)?;
            // No fault is about a single key of a request: where one failed, all did.
            match deleted.iter().position(|(_, result)| result.is_err()) {
                Some(failed) => Err(deleted.swap_remove(failed).1.unwrap_err()),
                None => Ok(deleted),
            }
        };
        self.sent(Op::Delete, &names, delete, |_| true)
    }

    fn list(&self, context: &RequestContext<'_>, from: Option<&str>) -> Result<Page, StorageError> {
        self.sent(Op::List, &[], || self.inner().list(context, from), |_| true)
    }

    fn state_objects(&self) -> &dyn StateObjects {
        self
    }

    fn delete_limit(&self) -> usize {
        self.inner().delete_limit()
    }

    fn key_room(&self) -> usize {
        self.inner().key_room()
    }
}

const LOCAL: &str = "the state is on this machine";

impl StateObjects for Watched {
    fn place(&self) -> StatePlace {
        unreachable!("{LOCAL}")
    }

    fn find_head(&self, context: &RequestContext<'_>) -> Result<Option<FoundState>, StorageError> {
        let find = || match &self.store {
            Store::Memory(memory) => memory.find_head(context).map(|()| None),
            Store::S3(s3) => s3.state_objects().find_head(context),
        };
        self.sent(Op::First, &[], find, Option::is_some)
    }

    fn get_small(
        &self,
        _: &RequestContext<'_>,
        _: &RemoteKey,
        _: u64,
        _: Option<&str>,
    ) -> Result<Fetched, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn put_small(&self, _: &RequestContext<'_>, _: &SmallObject<'_>) -> Result<PutSmall, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn modified_of(&self, _: &RequestContext<'_>, _: &RemoteKey) -> Result<Option<Modified>, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn get_to_file(
        &self,
        _: &RequestContext<'_>,
        _: &RemoteKey,
        _: u64,
        _: &mut File,
    ) -> Result<[u8; 32], StorageError> {
        unreachable!("{LOCAL}")
    }

    fn put_file(
        &self,
        _: &RequestContext<'_>,
        _: &RemoteKey,
        _: &Source,
        _: &Digest,
    ) -> Result<String, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn delete_small(&self, _: &RequestContext<'_>, _: &RemoteKey) -> Result<(), StorageError> {
        unreachable!("{LOCAL}")
    }

    fn list_keys(&self, _: &RequestContext<'_>, _: &str, _: Option<&str>) -> Result<Page, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn store_date(&self) -> Option<u64> {
        None
    }

    fn probe(&self, _: &RequestContext<'_>) -> Result<ProbeResult, StorageError> {
        unreachable!("{LOCAL}")
    }

    fn probe_cheaply(&self, _: &RequestContext<'_>) -> Result<Option<String>, StorageError> {
        unreachable!("{LOCAL}")
    }
}
