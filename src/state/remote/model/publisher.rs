//! A run of the model, one step at a time.

use std::time::Duration;

use super::super::doubt::{LANDING, Looked, Unanswered};
use super::super::head::Head;
use super::super::lease::{Clocks, Judgement, Lease, judge};
use super::super::name::StoreTime;
use super::super::recognise::{Own, recognise};
use super::super::segments::Change;
use super::super::transitions::{
    ClaimRequest, Ending, Refused, Seen, Update, add_intent, checkpoint, claim, release,
};
use super::store::{Operation, Request, Taken};
use super::{
    Answer, Broken, KEYS, KeySet, LEASE, Stored, Tree, World, claimed, doubted, intent_of, keys_of,
    published, request_of, rows_of, token,
};

/// The most tries of a write whose condition fails or that gets no answer.
const TRIES: u8 = 2;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Its claim, or a later head, is to be stored; this is what follows.
    Head(After),
    /// It looks at the keys in doubt and stores its intent.
    Look,
    /// It writes data.
    Write,
    /// Its head was not acknowledged: it reads the head that is there.
    Recognise(After),
    /// Its write was not acknowledged: it asks for the object.
    Recheck,
    /// It is over.
    Over,
}

/// The phase that follows once a head is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum After {
    Claim,
    Intent,
    Renewal,
    Release,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Run {
    id: u8,
    tree: Tree,
    phase: Phase,
    /// Set while it waits for the answer to a request.
    waiting: bool,
    /// The last head of ours that is known to be stored; before the claim the one that was read.
    head: Option<Stored>,
    /// The head that is being stored, and when its first try began.
    pending: Option<(Stored, u64)>,
    lease: Option<Lease>,
    /// What is known of each key in the store: the conditions of writes, and the rows of the next head.
    rows: Tree,
    /// The keys that are to be written or deleted.
    todo: KeySet,
    tries: u8,
    unanswered: KeySet,
    failed: bool,
    looked_at: Option<u64>,
    /// The time before which nothing is written: the head was lost, and its claim may live.
    waits_until: u64,
}

fn clocks(clock: u64) -> Clocks {
    let time = Duration::from_secs(clock);
    Clocks { boot: time, wall: time, store: None }
}

/// Takes the next step of a publisher, or begins its next run.
pub(super) fn step(world: &mut World, number: usize, tree: Tree, broken: Broken) {
    let publisher = &mut world.publishers[number];
    let Some(mut run) = publisher.run.take() else {
        let id = super::run_id(number, publisher.begun);
        world.publishers[number].run = begin(world, number, id, tree, broken);
        return;
    };
    match run.phase {
        Phase::Head(_) | Phase::Over => {}
        Phase::Look => run.look(world, number, broken),
        Phase::Write => run.write(world, number, broken),
        Phase::Recognise(after) => run.read_head(world, number, after),
        Phase::Recheck => run.read_object(world, broken),
    }
    if run.phase == Phase::Over {
        world.publishers[number].begun += 1;
    } else {
        world.publishers[number].run = Some(run);
    }
}

/// Pulls, plans and claims; none if the run is refused or has nothing to do.
fn begin(world: &mut World, number: usize, id: u8, tree: Tree, broken: Broken) -> Option<Run> {
    let (seen, modified) = world.head.clone().map_or((None, 0), |(head, at)| (Some(head), at));
    let head = seen.as_ref().map(Stored::head);
    let rows = head.map_or([0; KEYS], published);
    let judgement = head.and_then(|head| head.claim.as_ref()).map(|claim| {
        let lease = if broken == Broken::JudgedByOwnLease { LEASE / 10 } else { claim.lease };
        judge(Duration::from_secs(lease), StoreTime::new(modified), world.now())
    });
    if rows == tree && head.is_some_and(|head| head.doubt.is_empty() && head.claim.is_none()) {
        return None;
    }
    let lost = head.is_none() && world.removed.is_some();
    let is_in_doubt = lost || head.is_some_and(|head| head.claim.is_some() || !head.doubt.is_empty());
    let todo = difference(rows, tree);
    let seen_head = head.map(|head| Seen { head, modified: StoreTime::new(modified) });
    let request = ClaimRequest {
        known_epoch: world.removed.unwrap_or(0),
        known: (0, None),
        lost_at: (lost && broken != Broken::LostDoubt).then(|| world.now()),
        // Where nothing is in doubt, the plan stands, and half of the publishers name its keys at once.
        intent: (number % 2 == 1 && !is_in_doubt && todo != 0).then(|| intent_of(todo)),
        judgement,
        ..request_of(id)
    };
    let mut next = match claim(seen_head, &request) {
        Ok(next) => next,
        Err(Refused::Claimed { .. }) => return None,
        Err(refused) => panic!("{refused}"),
    };
    if broken == Broken::TakeoverDoubt {
        next.doubt.clear();
    }
    let mut run = Run {
        id,
        tree,
        phase: Phase::Look,
        waiting: false,
        head: seen,
        pending: None,
        lease: None,
        rows,
        todo: 0,
        tries: 0,
        unanswered: 0,
        failed: false,
        looked_at: None,
        waits_until: if lost && broken != Broken::LostWait { world.clock + LEASE } else { 0 },
    };
    run.store_head(world, number, next, After::Claim);
    Some(run)
}

impl Run {
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// Returns true if the run would send data now.
    pub(super) fn may_write(&self, clock: u64) -> bool {
        self.phase == Phase::Write && self.lease.is_some_and(|lease| lease.may_begin(&clocks(clock)))
    }

    fn own(&self) -> &Head {
        self.head.as_ref().map(Stored::head).unwrap()
    }

    /// Takes the answer to the request that was sent last; none if there is none.
    pub(super) fn hear(&mut self, answer: Answer, broken: Broken) {
        self.waiting = false;
        match (self.phase, answer) {
            (Phase::Head(after), Some(Taken::Done)) => self.head_is_stored(after),
            (Phase::Head(after), _) => self.phase = Phase::Recognise(after),
            (Phase::Write, Some(Taken::Done)) => {
                if broken == Broken::Retried {
                    self.unanswered &= !(1 << self.next_key().unwrap());
                }
                self.key_is_done();
            }
            (Phase::Write, answer) => {
                if answer.is_none() {
                    self.unanswered |= 1 << self.next_key().unwrap();
                }
                self.phase = Phase::Recheck;
            }
            (phase, _) => unreachable!("an answer in {phase:?}"),
        }
    }

    fn store_head(&mut self, world: &mut World, number: usize, next: Head, after: After) {
        self.pending = Some((Stored::new(next), world.clock));
        self.send_head(world, number, after);
    }

    fn send_head(&mut self, world: &mut World, number: usize, after: After) {
        let (head, _) = self.pending.clone().unwrap();
        let expected = self.head.as_ref().map(Stored::etag);
        self.send(world, number, Operation::Head { head, expected });
        self.phase = Phase::Head(after);
    }

    fn send(&mut self, world: &mut World, publisher: usize, operation: Operation) {
        let sent = world.clock;
        world.send(Request { publisher, run: self.id, sent, awaited: true, operation });
        self.waiting = true;
    }

    fn head_is_stored(&mut self, after: After) {
        let (head, start) = self.pending.take().unwrap();
        self.head = Some(head);
        self.lease = Some(Lease::new(Duration::from_secs(LEASE), clocks(start)));
        self.phase = match after {
            After::Claim => Phase::Look,
            After::Intent | After::Renewal => Phase::Write,
            After::Release => Phase::Over,
        };
    }

    fn read_head(&mut self, world: &mut World, number: usize, after: After) {
        let (pending, _) = self.pending.clone().unwrap();
        let before = self.head.as_ref().map(Stored::head);
        match recognise(world.head(), before, token(self.id), pending.head().beat) {
            Own::Stored => self.head_is_stored(after),
            Own::NotStored => self.send_head(world, number, after),
            Own::Ended(_) | Own::Superseded => self.phase = Phase::Over,
        }
    }

    /// Looks at the keys in doubt, and stores the keys that are to be written as the intent.
    fn look(&mut self, world: &mut World, number: usize, broken: Broken) {
        if world.clock < self.waits_until {
            return;
        }
        let doubted = doubted(self.own());
        if doubted != 0 {
            self.looked_at = Some(world.clock);
            let there = world.contents();
            (0..KEYS).filter(|key| doubted & 1 << key != 0).for_each(|key| self.rows[key] = there[key]);
        }
        self.todo = difference(self.rows, self.tree);
        if self.todo == 0 {
            self.end(world, number, broken);
        } else if broken == Broken::Intent || claimed(self.own()) & self.todo == self.todo {
            self.phase = Phase::Write;
        } else {
            let next = add_intent(self.own(), token(self.id), intent_of(self.todo)).unwrap();
            self.store_head(world, number, next, After::Intent);
        }
    }

    /// The next key: uploads first, deletes only if no upload has failed.
    fn next_key(&self) -> Option<usize> {
        let open = |key: &usize| self.todo & 1 << *key != 0;
        let upload = (0..KEYS).filter(open).find(|key| self.tree[*key] != 0);
        upload.or_else(|| (0..KEYS).filter(open).find(|_| !self.failed))
    }

    fn key_is_done(&mut self) {
        let key = self.next_key().unwrap();
        self.rows[key] = self.tree[key];
        self.todo &= !(1 << key);
        (self.tries, self.phase) = (0, Phase::Write);
    }

    fn write(&mut self, world: &mut World, number: usize, broken: Broken) {
        let Some(key) = self.next_key() else { return self.end(world, number, broken) };
        let may_begin = self.lease.is_some_and(|lease| lease.may_begin(&clocks(world.clock)));
        if !may_begin && broken != Broken::Lease {
            let base = usize::try_from(self.own().claim.as_ref().map_or(0, |claim| claim.base)).unwrap();
            let next = checkpoint(self.own(), token(self.id), self.update(broken, base)).unwrap();
            return self.store_head(world, number, next, After::Renewal);
        }
        // A run whose claim was removed with the head does not know it yet. Its lease bounds what it sends.
        if world.removed.is_none_or(|epoch| self.own().epoch > epoch) || !may_begin {
            blame_a_send(world, self.id, key);
        }
        let operation = Operation::Data { key, value: self.tree[key], expected: self.rows[key] };
        self.send(world, number, operation);
    }

    /// Asks for the object of the key whose write was not acknowledged.
    fn read_object(&mut self, world: &mut World, broken: Broken) {
        let key = self.next_key().unwrap();
        let there = world.objects[key];
        let wanted = self.tree[key];
        let is_ours = there.is_none_or(|object| object.run == self.id);
        if there.map_or(0, |object| object.value) == wanted && is_ours {
            if broken == Broken::Retried {
                self.unanswered &= !(1 << key);
            }
            return self.key_is_done();
        }
        self.tries += 1;
        self.phase = Phase::Write;
        let value = there.map_or(0, |object| object.value);
        let is_in_doubt = doubted(self.own()) & 1 << key != 0;
        let is_expected = is_in_doubt || value == self.rows[key] || there.is_none();
        let claim = world.head().and_then(|head| head.claim.as_ref());
        let is_superseded = claim.is_none_or(|claim| claim.token != token(self.id));
        if self.tries >= TRIES {
            // A conflict, or no answer: what is there now is not known.
            self.failed = true;
            self.todo &= !(1 << key);
            self.tries = 0;
            self.unanswered |= 1 << key;
        } else if is_expected {
            self.rows[key] = value;
        } else if is_superseded {
            // Not a conflict: the run that took over wrote it.
            self.phase = Phase::Over;
        } else {
            world.blame("D7: a conflict although only publishers write");
        }
    }

    fn update(&self, broken: Broken, keep: usize) -> Update {
        let delta = rows_of(self.rows);
        let late = if broken == Broken::Settling { LANDING.as_secs() } else { 0 };
        let looks = self.looked_at.into_iter().flat_map(|at| {
            let looked = move |token| Looked { token, at: StoreTime::new(at + late) };
            self.own().doubt.iter().map(move |doubt| looked(doubt.token))
        });
        Update { change: Change::Delta { keep, delta }, looked: looks.collect(), ..Update::default() }
    }

    fn end(&mut self, world: &mut World, number: usize, broken: Broken) {
        let complete = !self.failed && self.todo == 0;
        let unanswered = match self.unanswered {
            _ if broken == Broken::Unanswered => Unanswered::Nothing,
            0 => Unanswered::Nothing,
            keys if keys == keys_of(&self.own().claim.as_ref().unwrap().intents) => Unanswered::Intents,
            keys => Unanswered::Keys(intent_of(keys)),
        };
        let ending = Ending { update: self.update(broken, 0), complete, unanswered };
        let next = release(self.own(), token(self.id), ending).unwrap();
        self.store_head(world, number, next, After::Release);
    }
}

/// The keys whose contents differ.
fn difference(one: Tree, other: Tree) -> KeySet {
    (0..KEYS).filter(|key| one[*key] != other[*key]).fold(0, |keys, key| keys | 1 << key)
}

/// R2 and R8, at the moment of a send: the claim in the store is ours, it names the key, and it is not dead.
fn blame_a_send(world: &mut World, run: u8, key: usize) {
    let Some((stored, modified)) = world.head.clone() else {
        return world.blame("R2: data was sent without a head");
    };
    let claim = stored.head().claim.as_ref().filter(|claim| claim.token == token(run));
    let Some(claim) = claim else { return world.blame("R8: data was sent after the claim was taken over") };
    if keys_of(&claim.intents) & 1 << key == 0 {
        world.blame("R2: data was sent that no stored intent names");
    }
    let judgement = judge(claim.lease(), StoreTime::new(modified), world.now());
    if !matches!(judgement, Judgement::Alive(_)) {
        world.blame("R2: data was sent under a dead claim");
    }
}
