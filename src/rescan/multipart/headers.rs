//! A large file whose content is published, and whose object may lack nothing but headers.

use crate::backend::{Copied, DueHeaders};
use crate::error::StorageError;
use crate::rescan::multipart::file::Coordinator;
use crate::rescan::plan::headers::{due_headers, have_changed};
use crate::rescan::upload::Ending;
use crate::state::records::{Pending, Published};

impl Coordinator {
    /// Ends a file that holds what is published. `None`: the headers of its object are to be changed.
    pub(super) fn settle_same_content(&mut self) -> Result<Option<Ending>, StorageError> {
        let Some(there) = self.file.item.published.clone() else { return Ok(None) };
        if have_changed(self.due_headers()?, &there) {
            self.file.only_headers = true;
            self.file.item.pending.digest = Some(there.digest);
            self.recut(self.file.wanted);
            return Ok(None);
        }
        let headers = there.headers;
        Ok(Some(Ending::Confirmed(Published { headers, ..self.published_again(&there, there.etag.clone()) })))
    }

    /// Copies the object onto itself if only its headers differ. `None`: the file has to be sent.
    pub(super) fn update_headers(&mut self) -> Result<Option<Ending>, StorageError> {
        let Some(there) = self.file.item.published.clone().filter(|_| self.file.only_headers) else {
            return Ok(None);
        };
        self.context().check_running()?;
        self.tasks.set_left(1);
        let attempted = Pending { attempted: true, ..self.file.item.pending.clone() };
        self.file.recorded = attempted.clone();
        let known = there.clone();
        let copied = self.tasks.run(move |worker| worker.update_headers(&known, attempted));
        let copied =
            copied.inspect_err(|error| self.file.item.pending.attempted |= error.may_have_taken_effect())?;
        if let Copied::Done(receipt) = copied {
            let headers = self.due_headers()?.map(|due| due.recorded());
            let published = Published { headers, ..self.published_again(&there, receipt.etag) };
            return Ok(Some(Ending::HeadersUpdated(published)));
        }
        let context = self.tasks.worker.context.clone();
        self.file.item.note_sent_for_headers(&context, &copied);
        self.tasks.set_left(self.file.parts.len());
        Ok(None)
    }

    fn due_headers(&self) -> Result<Option<DueHeaders>, StorageError> {
        due_headers(&*self.context().session.backend, &self.file.item.key)
    }

    /// The record of a file that is published as it was, without the headers of its object.
    fn published_again(&self, there: &Published, etag: Option<String>) -> Published {
        Published { whole: there.whole, ..self.published(there.digest, etag) }
    }
}
