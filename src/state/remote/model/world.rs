//! One state of the model.

use super::super::head::Head;
use super::super::name::StoreTime;
use super::publisher::Run;
use super::store::{self, Object, Operation, Request};
use super::{Broken, KEYS, LONG, Stored, Tree, token};

/// One state of everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// The store's clock, in seconds. Publishers measure with it, too.
    pub(super) clock: u64,
    /// The head, and when it was stored.
    pub(super) head: Option<(Stored, u64)>,
    pub(super) objects: [Option<Object>; KEYS],
    /// The requests that may still land, in order.
    pub(super) flying: Vec<Request>,
    pub(super) publishers: Vec<Publisher>,
    pub(super) crashes: u8,
    pub(super) lost: u8,
    pub(super) short: u8,
    pub(super) long: u8,
    /// The first rule that was seen to be broken while something was sent or landed.
    pub(super) broken: Option<&'static str>,
    /// Set once a request landed whose claim had been taken over.
    pub(super) landed_late: bool,
    /// The epoch of the head that somebody else removed.
    pub(super) removed: Option<u64>,
}

/// A publisher, between two runs or in one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Publisher {
    /// The number of runs that it began and that were not refused.
    pub(super) begun: u8,
    pub(super) run: Option<Run>,
}

impl World {
    pub(super) fn now(&self) -> StoreTime {
        StoreTime::new(self.clock)
    }

    pub(super) fn head(&self) -> Option<&Head> {
        self.head.as_ref().map(|(stored, _)| stored.head())
    }

    pub(super) fn blame(&mut self, rule: &'static str) {
        self.broken.get_or_insert(rule);
    }

    /// The content of each key in the store.
    pub(super) fn contents(&self) -> Tree {
        self.objects.map(|object| object.map_or(0, |object| object.value))
    }

    pub(super) fn send(&mut self, request: Request) {
        let at = self.flying.partition_point(|other| *other <= request);
        self.flying.insert(at, request);
    }

    /// Takes a request that is awaited out of flight, or marks it as not awaited.
    pub(super) fn give_up(&mut self, publisher: usize) {
        let awaited = |request: &Request| request.awaited && request.publisher == publisher;
        if let Some(at) = self.flying.iter().position(awaited) {
            let request = self.flying.remove(at);
            self.send(Request { awaited: false, ..request });
        }
    }

    /// Drops PUTs of heads that nobody waits for and whose condition can never hold again: no two heads are equal.
    pub(super) fn forget_stale_heads(&mut self) {
        let there = self.head.as_ref().map(|(head, _)| head.etag());
        self.flying.retain(|request| {
            let stale = matches!(&request.operation, Operation::Head { expected, .. } if *expected != there);
            request.awaited || !stale
        });
    }

    pub(super) fn advance(&mut self, by: u64) {
        self.clock += by;
        let clock = self.clock;
        self.flying.retain(|request| clock - request.sent < LONG);
    }

    /// Lets a request land; its answer reaches the sender, if that still waits.
    pub(super) fn land(&mut self, at: usize, broken: Broken) {
        let request = self.flying.remove(at);
        let run = request.run;
        if matches!(request.operation, Operation::Data { .. }) {
            let taken =
                self.head().is_some_and(|head| head.doubt.iter().any(|doubt| doubt.token == token(run)));
            self.landed_late |= taken;
        }
        let taken = store::apply(self, &request, broken);
        if request.awaited
            && let Some(run) = &mut self.publishers[request.publisher].run
        {
            run.hear(Some(taken), broken);
        }
    }
}
