//! The parts of a plan that only a dry run needs.

use crate::rescan::plan::headers::copyable_etag;
use crate::rescan::plan::{Planner, content};
use crate::state::records::{Pending, PendingKind, Published};
use crate::tree::source::Source;

impl Planner<'_> {
    /// Returns true if a changed file has the published content. Used by dry runs only.
    pub(super) fn has_published_content(&mut self, key: &str, there: &Published) -> bool {
        let source = Source::open_below(self.input.root, key);
        let matches =
            source.and_then(|source| content::matches_published(&self.input.request_context, &source, there));
        matches.unwrap_or_else(|error| {
            if !error.is_not_tried() {
                self.report.add_failed(error);
            }
            false
        })
    }

    /// Adds what would be done to the report of a dry run.
    pub(super) fn add_to_preview(
        &mut self,
        key: String,
        wanted: Option<Pending>,
        published: Option<&Published>,
    ) {
        let copyable = |transfers| published.and_then(|there| copyable_etag(transfers, there));
        let is_copied = self.input.backend.transfers().and_then(copyable).is_some();
        match wanted {
            Some(Pending { kind: PendingKind::Removed, .. }) => self.report.add_deleted(key),
            Some(Pending { kind: PendingKind::Headers, .. }) if is_copied => {
                self.report.add_headers_updated(key);
            }
            Some(pending) if pending.kind != PendingKind::Unsettled => {
                let url = self.input.backend.get_url(&key);
                self.report.add_uploaded(key, url, pending.stat.size, pending.kind);
            }
            _ => {}
        }
    }
}
