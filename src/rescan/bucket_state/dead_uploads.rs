//! Multipart uploads that a dead claim left open, and whose upload IDs only its machine knows: they are found by listing.

use crate::backend::{ListedUpload, Transfers, UploadName, new_token};
use crate::error::{ErrorKind, StorageError};
use crate::key::RemoteKey;
use crate::rescan::context::Context;
use crate::rescan::multipart::unfinished::{Recorded, all_recorded, listed_uploads_of, named};
use crate::state::cache::CacheManager;
use crate::state::remote::head::{Doubt, Head};
use crate::state::remote::name::StoreTime;

/// The time in which a dead claim may have begun uploads, by the store's clock.
pub(crate) struct DeadUploads {
    from: StoreTime,
    to: StoreTime,
    /// Those that this machine goes on with.
    own: Recorded,
}

impl DeadUploads {
    /// `None` if it is not known when the claim began, or when it ended.
    pub(crate) fn of(head: &Head, doubt: &Doubt, cache: &CacheManager) -> Result<Option<Self>, StorageError> {
        let past = head.history.iter().find(|past| past.token == doubt.token);
        let (Some(past), Some(to)) = (past, doubt.since) else { return Ok(None) };
        Ok(Some(Self { from: past.since, to, own: all_recorded(cache)? }))
    }

    /// Aborts the uploads of a key that were begun in that time and that nobody here knows. A store that does not list
    /// them, or credentials that may not, leave them to the bucket's lifecycle rule.
    pub(crate) fn abort(&self, context: &Context, key: &str) -> Result<(), StorageError> {
        let Some(transfers) = context.session.backend.transfers() else { return Ok(()) };
        let key = RemoteKey::new(key)?;
        match self.abort_all(context, transfers, &key) {
            Err(error) if error.is_not_tried() || error.kind().is_transient() => Err(error),
            Err(error) => {
                let harmless = matches!(error.kind(), ErrorKind::AccessDenied | ErrorKind::Unsupported);
                let level = if harmless { log::Level::Debug } else { log::Level::Warn };
                let what = "uploads that an interrupted run left open cannot be aborted";
                context.session.trace.log(level, what, &[("key", &key), ("error", &error)]);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn abort_all(
        &self,
        context: &Context,
        transfers: &dyn Transfers,
        key: &RemoteKey,
    ) -> Result<(), StorageError> {
        let is_dead = |upload: &ListedUpload| self.is_dead(upload);
        let found = listed_uploads_of(key, &context.request_context(), transfers, is_dead)?;
        for upload in found {
            let name = UploadName { key: key.clone(), token: new_token(), upload_id: upload.upload_id };
            transfers.abort(&context.request_context(), &name)?;
        }
        Ok(())
    }

    fn is_dead(&self, upload: &ListedUpload) -> bool {
        let in_time =
            upload.initiated.map(StoreTime::new).is_some_and(|at| (self.from..=self.to).contains(&at));
        let is_own = || named(&self.own).any(|(_, name, _)| name.upload_id == upload.upload_id);
        in_time && !is_own()
    }
}
