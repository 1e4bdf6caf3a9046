//! The store of the model: objects, conditions, and requests that land at any time.

use super::super::head::Outcome;
use super::super::segments::Change;
use super::super::transitions::{Ending, Update, add_intent, claim, release};
use super::{
    Broken, FIRST_RUN, FIRST_TREE, KeySet, Stored, World, claimed, doubted, intent_of, request_of, rows_of,
    token,
};

/// An object: its content, and the run that stored it (the proof of origin). Its ETag is its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Object {
    pub(super) value: u8,
    pub(super) run: u8,
}

/// A request that was signed, and may land.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Request {
    pub(super) publisher: usize,
    pub(super) run: u8,
    pub(super) sent: u64,
    /// Set while its sender waits for the answer.
    pub(super) awaited: bool,
    pub(super) operation: Operation,
}

/// A conditional write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Operation {
    /// PUT of a head, if the one of this ETag is there, or none is.
    Head { head: Stored, expected: Option<u64> },
    /// PUT of an object, or DELETE for value 0, if this content is there; 0 for none.
    Data { key: usize, value: u8, expected: u8 },
}

impl PartialOrd for Stored {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Stored {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.etag().cmp(&other.etag())
    }
}

/// The store's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// 200.
    Done,
    /// 412 or 404.
    ConditionFailed,
}

/// Applies a request that lands.
pub(super) fn apply(world: &mut World, request: &Request, broken: Broken) -> Taken {
    let ignored = broken == Broken::Conditions;
    match &request.operation {
        Operation::Head { head, expected } => {
            let there = world.head.as_ref().map(|(head, _)| head.etag());
            if there != *expected && !ignored {
                return Taken::ConditionFailed;
            }
            world.head = Some((head.clone(), world.clock));
        }
        Operation::Data { key, value, expected } => {
            let there = world.objects[*key].map_or(0, |object| object.value);
            if there != *expected && !ignored {
                return Taken::ConditionFailed;
            }
            let object = Object { value: *value, run: request.run };
            world.objects[*key] = (*value != 0).then_some(object);
            // With the head, the record of what may change is gone. The next claim puts everything into doubt.
            let without = if world.removed.is_some() { KeySet::MAX } else { 0 };
            let known = world.head().map_or(without, |head| claimed(head) | doubted(head));
            if known & 1 << *key == 0 {
                world.blame("R2, R8: an object changed whose key no live claim has named and no doubt has");
            }
        }
    }
    Taken::Done
}

/// The world after one complete publish.
pub(super) fn publish_first(mut world: World) -> World {
    let token = token(FIRST_RUN);
    let request = request_of(FIRST_RUN);
    let head = claim(None, &request).unwrap();
    let head = add_intent(&head, token, intent_of(1)).unwrap();
    let change = Change::Delta { keep: 0, delta: rows_of(FIRST_TREE) };
    let update = Update { change, ..Update::default() };
    let head = release(&head, token, Ending { update, complete: true, ..Ending::default() }).unwrap();
    assert_eq!(head.history.last().map(|past| past.outcome), Some(Outcome::Complete));
    world.head = Some((Stored::new(head), world.clock));
    world.objects = FIRST_TREE.map(|value| (value != 0).then_some(Object { value, run: FIRST_RUN }));
    world
}
