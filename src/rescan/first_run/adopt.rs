//! Takes over the objects that hold what the tree has: one listing, and a comparison of each file that may be there.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Listed, Transfers};
use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::StorageError;
use crate::key::RemoteKey;
use crate::rescan::context::Context;
use crate::rescan::first_run::compare::{Candidate, Compared, Heads, Verdict, compare};
use crate::rescan::first_run::listing::Listing;
use crate::rescan::report::Adoption;
use crate::state::records::{Pending, Published};

/// What is known of the file of a listed object.
pub(crate) enum FileState {
    /// The cache has published it, or a request for its key may have changed the object.
    Known,
    /// A file that is to be uploaded if its object holds something else.
    File(Pending),
    /// There is no such file in the tree.
    NoFile,
}

/// Where the adoption looks files up, and where it puts what it finds. The thread of the run calls it.
pub(crate) trait AdoptionSink {
    /// Returns the state of the file of each object of a page.
    fn file_states(&mut self, page: &[Listed]) -> Result<Vec<FileState>, StorageError>;
    /// The object holds the file.
    fn same(&mut self, key: String, published: Published);
    /// The object has the key of a file, and another content as far as is known.
    fn differs(&mut self, key: String, pending: Pending, listed: Listed);
    fn no_file(&mut self, object: Listed);
}

/// Lists the prefix and compares every object with the file of its key, but for those of other publishers. Returns when
/// all comparisons have ended, also after an error.
pub(crate) fn adopt(
    engine: &Engine,
    context: &Arc<Context>,
    transfers: &dyn Transfers,
    sink: &mut dyn AdoptionSink,
) -> Result<Adoption, StorageError> {
    let (listing, page) = (Listing::read(context, transfers)?, Vec::new().into_iter().zip(Vec::new()));
    let mut objects = Objects { context, listing, page };
    let (results, mut in_flight, mut found) = (BatchQueue::new(), 0, Adoption::default());
    let _end = results.wait_at_end();
    let heads = Arc::new(Heads::default());
    let (mut result, most) = (Ok(true), engine.workers() * 2);
    loop {
        while matches!(result, Ok(true)) && in_flight < most {
            result = next_candidate(&mut objects, sink, &mut found).map(|candidate| {
                let Some(candidate) = candidate else { return false };
                let (context, heads) = (context.clone(), heads.clone());
                results.submit(engine, move || compare(&context, &heads, candidate));
                in_flight += 1;
                true
            });
        }
        if in_flight == 0 {
            return result.map(|_| found);
        }
        let spare: usize = in_flight.saturating_sub(engine.workers());
        for compared in results.take((spare / 2).max(1), Duration::MAX) {
            in_flight -= 1;
            let settled = settle(sink, compared, &mut found);
            result = result.and_then(|more| settled.map(|()| more));
        }
    }
}

/// Returns the next object that may hold its file.
fn next_candidate(
    objects: &mut Objects<'_>,
    sink: &mut dyn AdoptionSink,
    found: &mut Adoption,
) -> Result<Option<Candidate>, StorageError> {
    while let Some((listed, file_state)) = objects.next_object(sink)? {
        found.listed += 1;
        match file_state {
            FileState::Known => {}
            FileState::NoFile => {
                found.without_file += 1;
                sink.no_file(listed);
            }
            FileState::File(pending) if pending.stat.size == listed.size && !objects.context.is_forced() => {
                let key = RemoteKey::new(listed.key.clone())?;
                return Ok(Some(Candidate { key, pending, listed }));
            }
            FileState::File(pending) => {
                found.different += 1;
                sink.differs(listed.key.clone(), pending, listed);
            }
        }
    }
    Ok(None)
}

fn settle(sink: &mut dyn AdoptionSink, compared: Compared, found: &mut Adoption) -> Result<(), StorageError> {
    let Compared { candidate: Candidate { key, pending, listed }, verdict, asked } = compared;
    found.head_requests += u64::from(asked);
    let key = key.into_string();
    match verdict {
        Verdict::Same(published) => sink.same(key, published),
        // The run was stopped.
        Verdict::Failed(error) if error.is_not_tried() => return Err(error),
        // The upload meets the same error, or goes past it.
        Verdict::Differs | Verdict::Failed(_) => {
            found.different += 1;
            sink.differs(key, pending, listed);
        }
    }
    Ok(())
}

/// The objects of a listing, each with the state of its file.
struct Objects<'a> {
    context: &'a Context,
    listing: Listing<'a>,
    page: std::iter::Zip<std::vec::IntoIter<Listed>, std::vec::IntoIter<FileState>>,
}

impl Objects<'_> {
    fn next_object(
        &mut self,
        sink: &mut dyn AdoptionSink,
    ) -> Result<Option<(Listed, FileState)>, StorageError> {
        loop {
            if let Some(object) = self.page.next() {
                return Ok(Some(object));
            }
            let Some(page) = self.listing.next_page()? else { return Ok(None) };
            let file_states = sink.file_states(&page)?;
            self.page = page.into_iter().zip(file_states);
        }
    }
}
