//! Multipart uploads that were left open: what a caller can ask and do about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::backend::pagination::Pages;
use crate::backend::{ListedUpload, StorageBackend, Transfers, UploadName};
use crate::clock::CancelToken;
use crate::engine::Engine;
use crate::engine::gate::Gate;
use crate::error::caught::caught;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::state::cache::CacheManager;
use crate::state::catalog;
use crate::state::records::{OpenUpload, UploadStep};
use crate::state::store::Write;

/// A multipart upload that a run with this cache created and did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnfinishedUpload {
    /// The key of its file.
    pub key: String,
    /// The upload ID. `None`: it was lost with the answer that held it, and the store may not be asked which
    /// uploads it has.
    pub upload_id: Option<String>,
    /// The size of its file in bytes.
    pub size: u64,
    /// Bytes that the store has acknowledged, as the cache knows.
    pub sent: u64,
    /// It is ours for certain. One whose ID was lost can only be guessed: an upload of this key that
    /// the store lists and the cache does not know. It is never aborted here.
    pub certain: bool,
}

/// The result of aborting the uploads that were left open.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct AbortedUploads {
    /// Gone, with their parts.
    pub aborted: Vec<UnfinishedUpload>,
    /// The errors of those that could not be aborted.
    pub failed: Vec<StorageError>,
    /// Those that may be ours and were left alone.
    pub left: Vec<UnfinishedUpload>,
}

impl CacheManager {
    /// The multipart uploads that runs with this cache left open at the backend. Sends a listing request for each
    /// key with a lost ID, and none where no ID was lost; one more for each 1,000 uploads that the store lists. Of
    /// a key's uploads that may be ours, up to 1,000 are given.
    ///
    /// The next rescan resumes those whose files are unchanged, and aborts the others.
    ///
    /// # Errors
    /// [`ErrorKind::CacheForeign`] if the cache belongs to another destination, those of the cache, and
    /// those of the store.
    pub fn unfinished_uploads(
        &self,
        engine: &Engine,
        backend: &dyn StorageBackend,
    ) -> Result<Vec<UnfinishedUpload>, StorageError> {
        self.with_store(engine, backend, |request_context, transfers| {
            let recorded = all_recorded(self)?;
            let found = Found::among(request_context, transfers, &recorded)?;
            let certain = named(&recorded).map(|(key, _, open)| described(self, key, open));
            let mut all = certain.collect::<Result<Vec<_>, _>>()?;
            all.extend(found.guessed(&recorded));
            Ok(all)
        })
        .map(Option::unwrap_or_default)
    }

    /// Aborts those uploads that are ours for certain, also those that the next rescan would have resumed, and
    /// forgets those with lost IDs that the store does not list.
    ///
    /// # Errors
    /// As [`unfinished_uploads`](Self::unfinished_uploads), and [`ErrorKind::CacheLocked`] while a rescan
    /// of this process uses the cache. An upload that cannot be aborted is in the result.
    pub fn abort_uploads(
        &self,
        engine: &Engine,
        backend: &dyn StorageBackend,
    ) -> Result<AbortedUploads, StorageError> {
        let _lock = self.lock()?;
        self.with_store(engine, backend, |request_context, transfers| {
            let recorded = all_recorded(self)?;
            let found = Found::among(request_context, transfers, &recorded)?;
            let (mut result, mut writes) = (AbortedUploads::default(), found.forgotten(&recorded));
            for (key, name, open) in named(&recorded) {
                let upload = described(self, key, open)?;
                match transfers.abort(request_context, &name) {
                    Ok(()) => {
                        // In front: what is forgotten besides is forgotten after it.
                        let closed = UploadStep::Closed(open.token.clone());
                        writes.insert(0, Write::Upload(key.clone(), closed));
                        result.aborted.push(upload);
                    }
                    Err(error) => {
                        let hopeless = error.is_not_tried() || error.kind() == ErrorKind::Credentials;
                        result.failed.push(error);
                        if hopeless {
                            break;
                        }
                    }
                }
            }
            self.apply(&writes)?;
            result.failed.extend(catalog::follow(self, engine.clock().wall()).err());
            result.left = found.guessed(&recorded);
            Ok(result)
        })
        .map(Option::unwrap_or_default)
    }

    /// Runs a step against the store that the cache is bound to; `None`: it has no multipart uploads.
    fn with_store<T>(
        &self,
        engine: &Engine,
        backend: &dyn StorageBackend,
        step: impl FnOnce(&RequestContext<'_>, &dyn Transfers) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        caught(Operation::List, || self.with_store_unguarded(engine, backend, step))
    }

    fn with_store_unguarded<T>(
        &self,
        engine: &Engine,
        backend: &dyn StorageBackend,
        step: impl FnOnce(&RequestContext<'_>, &dyn Transfers) -> Result<T, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let destination = backend.destination();
        self.bind(&destination)?;
        let Some(transfers) = backend.transfers() else {
            return Ok(None);
        };
        let (gate, cancel): (Arc<Gate>, _) = (engine.gate(&destination), CancelToken::new());
        gate.close_circuit();
        let request_context = RequestContext {
            cancel: &cancel,
            deadline: None,
            clock: &**engine.clock(),
            gate: &gate,
            trace: engine.trace(),
            fence: None,
        };
        step(&request_context, transfers).map(Some)
    }
}

/// Uploads that the cache has recorded, by key.
pub(crate) type Recorded = BTreeMap<String, Vec<OpenUpload>>;

pub(crate) fn all_recorded(cache: &CacheManager) -> Result<Recorded, StorageError> {
    let (mut all, mut after) = (Recorded::new(), None);
    loop {
        let keys = cache.keys_with_uploads(after.as_deref())?;
        let Some(last) = keys.last() else {
            return Ok(all);
        };
        after = Some(last.clone());
        for key in keys {
            let uploads = cache.open_uploads(&key)?;
            all.insert(key, uploads);
        }
    }
}

/// Returns the tokens of all uploads that the cache has recorded.
pub(crate) fn recorded_tokens(cache: &CacheManager) -> Result<BTreeSet<String>, StorageError> {
    Ok(all_recorded(cache)?.into_values().flatten().map(|open| open.token).collect())
}

/// Those whose upload ID is known.
pub(crate) fn named(recorded: &Recorded) -> impl Iterator<Item = (&String, UploadName, &OpenUpload)> {
    recorded.iter().flat_map(|(key, uploads)| uploads.iter().map(move |open| (key, open))).filter_map(
        |(key, open)| {
            let upload_id = open.upload_id.clone()?;
            let name = UploadName { key: RemoteKey::new(key).ok()?, token: open.token.clone(), upload_id };
            Some((key, name, open))
        },
    )
}

fn described(cache: &CacheManager, key: &str, open: &OpenUpload) -> Result<UnfinishedUpload, StorageError> {
    let parts = cache.sent_parts(&open.token)?.len() as u64;
    Ok(UnfinishedUpload {
        key: key.to_owned(),
        upload_id: open.upload_id.clone(),
        size: open.stat.size,
        sent: parts.saturating_mul(open.part_size).min(open.stat.size),
        certain: true,
    })
}

/// The store's listing for keys with lost upload IDs.
enum Found {
    /// Uploads that the cache does not know.
    Strangers(Vec<ListedUpload>),
    /// It may not be asked.
    Unknown,
}

fn lost(uploads: &[OpenUpload]) -> impl Iterator<Item = &OpenUpload> {
    uploads.iter().filter(|open| open.lost || open.upload_id.is_none())
}

/// Uploads of one key that are kept: what the store lists of them may have no end.
const MOST_LISTED: usize = 1000;

/// The uploads of a key that the store lists and that are wanted.
pub(crate) fn listed_uploads_of(
    key: &RemoteKey,
    request_context: &RequestContext<'_>,
    transfers: &dyn Transfers,
    wanted: impl Fn(&ListedUpload) -> bool,
) -> Result<Vec<ListedUpload>, StorageError> {
    // By upload ID: a store may list one twice.
    let (mut found, mut from, mut pages) = (BTreeMap::new(), None, Pages::new());
    while found.len() < MOST_LISTED {
        let page = transfers.list_uploads(request_context, key, from.as_ref())?;
        pages.follow(page.next.as_ref(), page.uploads.iter().map(|one| (&one.key, &one.upload_id)))?;
        let of_key = page.uploads.into_iter().filter(|upload| upload.key == key.as_str() && wanted(upload));
        found.extend(of_key.map(|upload| (upload.upload_id.clone(), upload)));
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    Ok(found.into_values().take(MOST_LISTED).collect())
}

impl Found {
    fn among(
        request_context: &RequestContext<'_>,
        transfers: &dyn Transfers,
        recorded: &Recorded,
    ) -> Result<Self, StorageError> {
        if !recorded.values().any(|uploads| lost(uploads).next().is_some()) {
            return Ok(Self::Strangers(Vec::new()));
        }
        let known: BTreeSet<String> = named(recorded).map(|(_, name, _)| name.upload_id).collect();
        let mut strangers = Vec::new();
        for (key, _) in recorded.iter().filter(|(_, uploads)| lost(uploads).next().is_some()) {
            let is_stranger = |upload: &ListedUpload| !known.contains(&upload.upload_id);
            match listed_uploads_of(&RemoteKey::new(key)?, request_context, transfers, is_stranger) {
                Ok(of_key) => strangers.extend(of_key),
                Err(error) if matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::Unsupported) => {
                    return Ok(Self::Unknown);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self::Strangers(strangers))
    }

    /// Uploads that may be ours.
    fn guessed(&self, recorded: &Recorded) -> Vec<UnfinishedUpload> {
        let guess = |key: &str, upload_id: Option<&String>| UnfinishedUpload {
            key: key.to_owned(),
            upload_id: upload_id.cloned(),
            size: recorded.get(key).and_then(|all| lost(all).next()).map_or(0, |open| open.stat.size),
            sent: 0,
            certain: false,
        };
        match self {
            Self::Strangers(listed) => {
                listed.iter().map(|upload| guess(&upload.key, Some(&upload.upload_id))).collect()
            }
            Self::Unknown => {
                let lost = recorded.iter().flat_map(|(key, all)| lost(all).map(move |_| key));
                lost.map(|key| guess(key, None)).collect()
            }
        }
    }

    /// The records of lost IDs that the store does not list.
    fn forgotten(&self, recorded: &Recorded) -> Vec<Write> {
        let Self::Strangers(listed) = self else {
            return Vec::new();
        };
        let still: BTreeSet<&str> = listed.iter().map(|upload| upload.key.as_str()).collect();
        let gone = recorded.iter().filter(|(key, _)| !still.contains(key.as_str()));
        gone.flat_map(|(key, uploads)| {
            let nameless = uploads.iter().filter(|open| open.upload_id.is_none());
            nameless.map(|open| Write::Upload(key.clone(), UploadStep::Forgotten(open.token.clone())))
        })
        .collect()
    }
}
