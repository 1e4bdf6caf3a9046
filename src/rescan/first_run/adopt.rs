//! Takes over the objects that hold what the tree has: one listing, and a comparison of each file that may be there.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::pagination::Pages;
use crate::backend::{Listed, Transfers};
use crate::engine::Engine;
use crate::engine::batch_queue::BatchQueue;
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::observe::event::Event;
use crate::rescan::context::{Context, given_up};
use crate::rescan::first_run::compare::{Candidate, Compared, Verdict, compare};
use crate::rescan::report::Adoption;
use crate::state::records::{Pending, Published};

/// What is known of the file of a listed object.
pub(crate) enum Standing {
    /// The cache has published it, or a request for its key may have changed the object.
    Known,
    /// A file that is to be uploaded.
    File(Pending),
    /// There is no such file in the tree.
    NoFile,
}

/// Where the adoption looks files up, and where it puts what it finds. The thread of the run calls it.
pub(crate) trait Ledger {
    /// Returns the standing of each object of a page.
    fn standings(&mut self, page: &[Listed]) -> Result<Vec<Standing>, StorageError>;
    /// The object holds the file.
    fn same(&mut self, key: String, published: Published) -> Result<(), StorageError>;
    /// The object has the key of a file, and another content as far as is known.
    fn differs(&mut self, key: String, pending: Pending, listed: Listed) -> Result<(), StorageError>;
    fn no_file(&mut self, object: Listed) -> Result<(), StorageError>;
}

/// Lists the prefix and compares every object with the file of its key. Returns when all comparisons have ended, also
/// after an error.
pub(crate) fn adopt(
    engine: &Engine,
    context: &Arc<Context>,
    transfers: &dyn Transfers,
    ledger: &mut dyn Ledger,
) -> Result<Adoption, StorageError> {
    let (pages, page) = (Pages::new(), Vec::new().into_iter().zip(Vec::new()));
    let mut listing = Listing { context, transfers, pages, page, next: None, ended: false };
    let (results, mut in_flight, mut found) = (BatchQueue::new(), 0, Adoption::default());
    let (mut result, most) = (Ok(true), engine.workers() * 2);
    loop {
        while matches!(result, Ok(true)) && in_flight < most {
            result = next_candidate(&mut listing, ledger, &mut found).map(|candidate| {
                let Some(candidate) = candidate else { return false };
                let context = context.clone();
                results.submit(engine, move || compare(&context, candidate));
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
            let settled = settle(context, ledger, compared, &mut found);
            result = result.and_then(|more| settled.map(|()| more));
        }
    }
}

/// Returns the next object that may hold its file.
fn next_candidate(
    listing: &mut Listing<'_>,
    ledger: &mut dyn Ledger,
    found: &mut Adoption,
) -> Result<Option<Candidate>, StorageError> {
    while let Some((listed, standing)) = listing.next_object(ledger)? {
        found.listed += 1;
        match standing {
            Standing::Known => {}
            Standing::NoFile => {
                found.without_file += 1;
                ledger.no_file(listed)?;
            }
            Standing::File(pending) if pending.stat.size == listed.size => {
                let key = RemoteKey::new(listed.key.clone())?;
                return Ok(Some(Candidate { key, pending, listed }));
            }
            Standing::File(pending) => {
                found.different += 1;
                ledger.differs(listed.key.clone(), pending, listed)?;
            }
        }
    }
    Ok(None)
}

fn settle(
    context: &Context,
    ledger: &mut dyn Ledger,
    compared: Compared,
    found: &mut Adoption,
) -> Result<(), StorageError> {
    let Compared { candidate: Candidate { key, pending, listed }, verdict, asked } = compared;
    found.head_requests += u64::from(asked);
    let key = key.into_string();
    match verdict {
        Verdict::Same(published) => {
            let trace = &context.session.trace;
            trace.progress.file_done();
            trace.progress.bytes_present(published.stat.size);
            trace.emit(|| Event::Adopted { key: key.clone(), bytes: published.stat.size });
            ledger.same(key, published)
        }
        // The run was stopped.
        Verdict::Failed(error) if error.is_not_tried() => Err(error),
        // The upload meets the same error, or is the answer to it.
        Verdict::Differs | Verdict::Failed(_) => {
            found.different += 1;
            ledger.differs(key, pending, listed)
        }
    }
}

/// The objects under the prefix, a page at a time, in the order of the store.
struct Listing<'a> {
    context: &'a Context,
    transfers: &'a dyn Transfers,
    pages: Pages,
    page: std::iter::Zip<std::vec::IntoIter<Listed>, std::vec::IntoIter<Standing>>,
    /// The continuation token of the next page; `None` for the first page.
    next: Option<String>,
    ended: bool,
}

impl Listing<'_> {
    fn next_object(&mut self, ledger: &mut dyn Ledger) -> Result<Option<(Listed, Standing)>, StorageError> {
        loop {
            if let Some(object) = self.page.next() {
                return Ok(Some(object));
            }
            if self.ended {
                return Ok(None);
            }
            let request_context = self.context.request_context();
            request_context.check(Operation::List)?;
            if self.context.session.gate.is_circuit_open() {
                return Err(given_up(Operation::List));
            }
            let page = self.transfers.list(&request_context, self.next.as_deref())?;
            self.pages.follow(page.next.as_ref(), page.objects.iter().map(|object| object.key.as_str()))?;
            (self.ended, self.next) = (page.next.is_none(), page.next);
            let standings = ledger.standings(&page.objects)?;
            self.page = page.objects.into_iter().zip(standings);
        }
    }
}
