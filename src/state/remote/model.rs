//! A model of publishers that share one prefix, explored in every interleaving.
//!
//! # Architecture
//!
//! | | |
//! |---|---|
//! | [`world`] | one state: the store's clock and objects, requests in flight, publishers |
//! | [`store`] | what a request does when it lands, its conditions included |
//! | [`publisher`] | a run, one step at a time; it makes heads with the real transitions and times with the real lease |
//! | [`rules`] | the properties: R2, R3, R5 and R8 of the design |
//! | [`checks`] | the tests: rules hold, and each broken rule is found |
//!
//! What the model takes for granted:
//! - A request lands within 30 minutes of being signed, or never ([`LANDING`]). It may land long after its sender
//!   gave it up, died, or lost its claim.
//! - Reads are answered at once. A slow answer to a read is a publisher that is slow to take its next step.
//! - A publisher may stop for any time between two steps. A process that stops between the look at its lease and the
//!   send is a request in flight, as its signature has been made.
//! - ETags are those of contents, so a condition can become true again.
//! - Nobody else writes under the prefix.

mod checks;
mod publisher;
mod rules;
mod store;
mod world;

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Model, Property};

use self::publisher::Run;
use self::store::Taken;
use self::world::{Publisher, World};
use super::doubt::LANDING;
use super::head::{Head, Inline, Keys, Segment, Target};
use super::name::{StoreTime, Token};
use super::transitions::{ClaimRequest, Order};

/// The number of keys.
const KEYS: usize = 2;

/// The content of each key; 0 is no object.
type Tree = [u8; KEYS];

/// A set of keys, a bit for each.
type KeySet = u8;

/// A rule that a publisher or the store breaks, to show that the model finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The store answers 200 to every conditional write.
    Conditions,
    /// Data is written before the intent is stored.
    Intent,
    /// A takeover does not move the dead claim's intent into doubt.
    TakeoverDoubt,
    /// The lease is not looked at before a send.
    Lease,
    /// A claim is judged by the candidate's lease, which is shorter.
    JudgedByOwnLease,
    /// A look settles a doubt at any time.
    Settling,
    /// A run that ends does not put unanswered keys into doubt.
    Unanswered,
    /// A run that finds the head lost does not put everything in doubt.
    LostDoubt,
    /// A run that finds the head lost does not wait for a lease.
    LostWait,
    /// A key whose retry was acknowledged is not in doubt, although its first request got no answer.
    Retried,
}

/// The bounds of an exploration.
#[derive(Debug, Clone)]
struct Publishers {
    /// For each publisher the trees of its runs.
    trees: Vec<Vec<Tree>>,
    broken: Broken,
    /// The number of runs that may be killed.
    crashes: u8,
    /// The number of requests that get no answer although they may land.
    lost: u8,
    /// How often the clock moves by `tick` and by [`LONG`].
    short: u8,
    long: u8,
    /// In seconds.
    tick: u64,
    /// Set if somebody else removes the head, once and at any time.
    removed: bool,
    /// Set if a run begins only once no other is there and nothing is in flight (`single_writer`).
    alone: bool,
}

/// The time in which a request lands.
const LONG: u64 = LANDING.as_secs();
const LEASE: u64 = 300;

/// A head with its hash, which is its ETag.
#[derive(Debug, Clone)]
struct Stored(Arc<(u64, Head)>);

impl Stored {
    fn new(head: Head) -> Self {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        head.hash(&mut hasher);
        Self(Arc::new((hasher.digest(), head)))
    }

    fn etag(&self) -> u64 {
        self.0.0
    }

    fn head(&self) -> &Head {
        &self.0.1
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.etag() == other.etag()
    }
}

impl Eq for Stored {}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.etag());
    }
}

/// The next event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// A publisher takes its next step, or begins a run.
    Step(usize),
    /// A request in flight lands and is answered, if its sender still waits.
    Land(usize),
    /// A publisher gives a request up, which stays in flight. If it lands next, its answer was lost.
    GiveUp(usize),
    /// A publisher is killed.
    Crash(usize),
    /// The clock moves by so many seconds.
    Advance(u64),
    /// Somebody else removes the head.
    Remove,
}

/// The number of a run: its publisher and its place among that one's runs.
fn run_id(publisher: usize, begun: u8) -> u8 {
    u8::try_from(publisher).unwrap() * 8 + begun
}

/// The run that published the tree from which everything starts.
const FIRST_RUN: u8 = 200;
const FIRST_TREE: Tree = [1, 0];

fn token(run: u8) -> Token {
    Token::new([run; 16])
}

fn target() -> Target {
    Target { bucket: "b".to_owned(), prefix: String::new() }
}

/// The rows of a whole tree as a delta. Models of the other segments are keys.
fn rows_of(tree: Tree) -> Segment {
    Segment::Inline(Inline { rows: 1, unpacked: 1, bytes: tree.to_vec() })
}

fn intent_of(keys: KeySet) -> Segment {
    Segment::Inline(Inline { rows: 1, unpacked: 1, bytes: vec![keys] })
}

fn bytes_of(segment: &Segment) -> &[u8] {
    match segment {
        Segment::Inline(inline) => &inline.bytes,
        Segment::Stored(_) => unreachable!("the model has inline segments only"),
    }
}

/// What a run says when it claims.
fn request_of(run: u8) -> ClaimRequest {
    ClaimRequest {
        who: "p".to_owned(),
        token: token(run),
        // It is shown only, and would make states differ that are alike.
        since: StoreTime::new(0),
        lease: LEASE,
        target: target(),
        tree: None,
        order: Order::Unordered,
        intent: None,
        judgement: None,
        known_epoch: 0,
        known: (0, None),
        lost_at: None,
        merged_doubt: None,
    }
}

/// The tree that a head says is published.
fn published(head: &Head) -> Tree {
    head.deltas.last().map_or([0; KEYS], |delta| bytes_of(delta).try_into().unwrap())
}

fn keys_of(intents: &[Segment]) -> KeySet {
    intents.iter().fold(0, |keys, intent| keys | bytes_of(intent)[0])
}

/// The keys that a head has in doubt.
fn doubted(head: &Head) -> KeySet {
    head.doubt.iter().fold(0, |keys, doubt| match &doubt.keys {
        Keys::All => KeySet::MAX,
        Keys::Of(intents) => keys | keys_of(intents),
    })
}

/// The keys that the live claim of a head may change.
fn claimed(head: &Head) -> KeySet {
    head.claim.as_ref().map_or(0, |claim| keys_of(&claim.intents))
}

impl Model for Publishers {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let empty = World {
            clock: 1000,
            head: None,
            objects: [None; KEYS],
            flying: Vec::new(),
            publishers: vec![Publisher { begun: 0, run: None }; self.trees.len()],
            crashes: self.crashes,
            lost: self.lost,
            short: self.short,
            long: self.long,
            broken: None,
            landed_late: false,
            removed: None,
        };
        let first = store::publish_first(empty.clone());
        // A head is removed where one is.
        if self.removed { vec![first] } else { vec![empty, first] }
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        for (number, publisher) in world.publishers.iter().enumerate() {
            let is_waiting = publisher.run.as_ref().is_some_and(Run::is_waiting);
            let is_flying = world.flying.iter().any(|request| request.awaited && request.publisher == number);
            let may_begin = usize::from(publisher.begun) < self.trees[number].len();
            let is_alone =
                world.flying.is_empty() && world.publishers.iter().all(|other| other.run.is_none());
            let may_begin = may_begin && (is_alone || !self.alone);
            if publisher.run.is_some() && !is_waiting || publisher.run.is_none() && may_begin {
                actions.push(Action::Step(number));
            }
            // A request that can land no more is given up at no cost.
            if is_waiting && (world.lost > 0 || !is_flying) {
                actions.push(Action::GiveUp(number));
            }
            if publisher.run.is_some() && world.crashes > 0 {
                actions.push(Action::Crash(number));
            }
        }
        actions.extend((0..world.flying.len()).map(Action::Land));
        if self.removed && world.removed.is_none() && world.head.is_some() {
            actions.push(Action::Remove);
        }
        if world.short > 0 {
            actions.push(Action::Advance(self.tick));
        }
        if world.long > 0 {
            actions.push(Action::Advance(LONG));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Step(number) => {
                let tree = self.trees[number].get(usize::from(next.publishers[number].begun)).copied();
                publisher::step(&mut next, number, tree.unwrap_or_default(), self.broken);
            }
            Action::Land(at) => next.land(at, self.broken),
            Action::GiveUp(number) => {
                if next.flying.iter().any(|request| request.awaited && request.publisher == number) {
                    next.lost -= 1;
                }
                next.give_up(number);
                if let Some(run) = &mut next.publishers[number].run {
                    run.hear(None, self.broken);
                }
            }
            Action::Crash(number) => {
                next.crashes -= 1;
                next.give_up(number);
                let publisher = &mut next.publishers[number];
                publisher.run = None;
                publisher.begun += 1;
            }
            Action::Remove => next.removed = next.head.take().map(|(head, _)| head.head().epoch),
            Action::Advance(by) => {
                if by == self.tick {
                    next.short -= 1;
                } else {
                    next.long -= 1;
                }
                next.advance(by);
            }
        }
        if self.broken != Broken::Conditions {
            next.forget_stale_heads();
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        rules::properties()
    }
}

/// The answer to a request, as its sender hears it.
type Answer = Option<Taken>;
