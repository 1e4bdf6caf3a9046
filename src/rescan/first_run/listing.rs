//! The listing of a first run.
//!
//! A head of another publisher makes all objects of its folder theirs, and may be listed after them. So the whole prefix
//! is listed before the first object is looked at. If the pages are too many to be kept, they are listed a second time.

use crate::backend::pagination::Pages;
use crate::backend::{Listed, Page, Transfers};
use crate::error::{Operation, StorageError};
use crate::rescan::context::{Context, given_up};
use crate::rescan::first_run::others::Others;

/// The most memory for pages that are kept, in bytes: some 80,000 objects with keys of 60 bytes.
const MOST_KEPT: usize = 16 << 20;

/// The pages of one listing of the prefix, in the order of the store.
pub(crate) struct PageReader<'a> {
    context: &'a Context,
    transfers: &'a dyn Transfers,
    pages: Pages,
    /// The continuation token of the next page; `None` for the first page.
    next: Option<String>,
    ended: bool,
}

impl<'a> PageReader<'a> {
    pub(crate) fn new(context: &'a Context, transfers: &'a dyn Transfers) -> Self {
        Self { context, transfers, pages: Pages::new(), next: None, ended: false }
    }

    pub(crate) fn next_page(&mut self) -> Result<Option<Page>, StorageError> {
        if self.ended {
            return Ok(None);
        }
        check_running(self.context)?;
        let page = self.transfers.list(&self.context.request_context(), self.next.as_deref())?;
        self.pages.follow(page.next.as_ref(), page.keys())?;
        self.next.clone_from(&page.next);
        self.ended = page.next.is_none();
        Ok(Some(page))
    }
}

/// Returns an error if nothing more is to be sent.
fn check_running(context: &Context) -> Result<(), StorageError> {
    context.request_context().check(Operation::List)?;
    if context.session.gate.is_circuit_open() { Err(given_up(Operation::List)) } else { Ok(()) }
}

/// The objects under the prefix that do not belong to other publishers.
pub(crate) struct Listing<'a> {
    context: &'a Context,
    /// `None` if the prefix is listed a second time.
    kept: Option<std::vec::IntoIter<Page>>,
    second: PageReader<'a>,
    others: Others,
}

impl<'a> Listing<'a> {
    /// Lists the prefix and learns which folders belong to other publishers.
    pub(crate) fn read(context: &'a Context, transfers: &'a dyn Transfers) -> Result<Self, StorageError> {
        Self::read_keeping(MOST_KEPT, context, transfers)
    }

    /// As [`read`](Self::read), with a limit for the memory of kept pages.
    fn read_keeping(
        most: usize,
        context: &'a Context,
        transfers: &'a dyn Transfers,
    ) -> Result<Self, StorageError> {
        let (mut reader, mut others) = (PageReader::new(context, transfers), Others::default());
        let (mut kept, mut size) = (Vec::new(), 0);
        while let Some(mut page) = reader.next_page()? {
            others.add(std::mem::take(&mut page.others))?;
            size += page.objects.iter().map(memory_of).sum::<usize>();
            if size <= most {
                kept.push(Page { reserved: Vec::new(), ..page });
            } else {
                kept.clear();
            }
        }
        others.warn(&context.session.trace);
        let kept = (size <= most).then(|| kept.into_iter());
        Ok(Self { context, kept, second: PageReader::new(context, transfers), others })
    }

    /// Returns the next page of objects, without those of other publishers.
    pub(crate) fn next_page(&mut self) -> Result<Option<Vec<Listed>>, StorageError> {
        check_running(self.context)?;
        let page = match &mut self.kept {
            Some(kept) => kept.next(),
            None => self.second.next_page()?,
        };
        let Some(mut page) = page else { return Ok(None) };
        // A publisher may have begun meanwhile.
        self.others.add(page.others)?;
        page.objects.retain(|object| !self.others.have(&object.key));
        Ok(Some(page.objects))
    }
}

/// Returns the memory that an object of a kept page takes, about.
fn memory_of(object: &Listed) -> usize {
    size_of::<Listed>() + object.key.len() + object.etag.as_ref().map_or(0, String::len) + 32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::Run;
    use crate::backend::StorageBackend;
    use crate::inside::support::{PREFIX, World};
    use crate::rescan::context::open_root;
    use crate::rescan::session::Session;
    use crate::state::cache::binding::KnownRoot;

    fn context_of(world: &World, backend: &Arc<dyn StorageBackend>) -> Context {
        let (root, stat) = open_root(&world.root(), &world.cache_path()).unwrap();
        let trace = world.engine.trace();
        Context {
            session: Session::new(&world.engine, backend, trace, &Run::new(), std::time::Duration::ZERO),
            token: String::new(),
            root: Arc::new(root),
            known: KnownRoot { number: 0, moved: false },
            root_device: stat.device,
            offline: AtomicBool::new(false),
            force: AtomicBool::new(false),
            hash_only: AtomicBool::new(false),
            unverified: AtomicBool::new(false),
            shared: None,
        }
    }

    /// Whatever is kept of the first listing, the objects are the same.
    #[test]
    fn long_listing_is_made_twice() {
        for (most, unordered, times) in
            [(1 << 20, false, 1), (1 << 20, true, 1), (2000, false, 2), (2000, true, 2), (0, true, 2)]
        {
            let world = World::new();
            for n in 0..40 {
                world.stranger(&format!("d{}/{n}", n % 3), "x");
            }
            for key in ["d1/.brigade/head", "e/!a", "e/.brigade/head", "e/z"] {
                world.stranger(key, "x");
            }
            world.store.lists_out_of_order(unordered);
            world.store.page_limit(4);
            let backend: Arc<dyn StorageBackend> = world.backend();
            let context = context_of(&world, &backend);
            let mut listing = Listing::read_keeping(most, &context, backend.transfers().unwrap()).unwrap();
            let mut keys = Vec::new();
            while let Some(page) = listing.next_page().unwrap() {
                keys.extend(page.into_iter().map(|object| object.key));
            }
            keys.sort_unstable();
            let mut expected: Vec<_> =
                (0..40).filter(|n| n % 3 != 1).map(|n| format!("d{}/{n}", n % 3)).collect();
            expected.sort_unstable();
            assert_eq!((keys, world.proxy.requests().len()), (expected, 11 * times));
        }
    }

    /// A publisher that begins between the two listings is seen by the second one.
    #[test]
    fn publisher_that_begins_meanwhile_is_left_alone() {
        let world = World::new();
        for n in 0..20 {
            world.stranger(&format!("d/{n:02}"), "x");
        }
        world.store.page_limit(4);
        let backend: Arc<dyn StorageBackend> = world.backend();
        let context = context_of(&world, &backend);
        let mut listing = Listing::read_keeping(0, &context, backend.transfers().unwrap()).unwrap();
        world.store.put_raw(&format!("{PREFIX}d/.brigade/head"), "x");
        while let Some(page) = listing.next_page().unwrap() {
            assert!(page.is_empty(), "{page:?}");
        }
    }
}
