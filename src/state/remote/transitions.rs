//! From one head to the next. Each function takes the head that is there and returns the one to be stored, under the
//! condition that the first is still there (`If-Match`), or that there is none (`If-None-Match: *`).

use std::time::Duration;

use crate::state::remote::doubt::{self, Looked, Unanswered};
use crate::state::remote::head::codec::{Flaw, check_name};
use crate::state::remote::head::{
    Claim, Doubt, FORMAT, Head, Keys, MAX_DELTAS, MAX_DOUBT, MAX_HISTORY, MAX_INTENTS, MAX_PROBES, Outcome,
    Past, Probe, Segment, Target,
};
use crate::state::remote::lease::{Judgement, LEASES};
use crate::state::remote::name::{MAX_NUMBER, SegmentName, StoreTime, Token};
use crate::state::remote::segments::{self, Change};

/// The reason why a head may not be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Another run is publishing, or its claim was not judged yet. The time is how long it may live without renewal.
    #[error("{who} is publishing since {} s after 1970 (epoch {epoch})", .since.seconds())]
    Claimed { who: String, since: StoreTime, epoch: u64, left: Option<Duration> },
    /// A newer build was published, or began to be.
    #[error("order {ours} is older than order {newest}, which was published: reset the order to go back")]
    OlderOrder { ours: u64, newest: u64 },
    /// The claim is another run's, or nobody's.
    #[error("another run has taken over")]
    Superseded,
    /// There are as many doubts as a head can hold: their keys are to be merged into one segment first.
    #[error("{MAX_DOUBT} interrupted runs are still in doubt")]
    DoubtFull,
    /// The claim has as many intents as it can hold.
    #[error("a claim has at most {MAX_INTENTS} intents")]
    IntentsFull,
    /// An epoch, a beat or a generation would be larger than a head can hold.
    #[error("the {0} of the head cannot grow")]
    Exhausted(&'static str),
    /// A name or a number is not one that a head can hold.
    #[error(transparent)]
    Invalid(#[from] Flaw),
    /// The caller asked for what makes no sense. A defect of this crate.
    #[error("{0}")]
    Misused(&'static str),
}

/// The head as it was read, with its `Last-Modified`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) head: &'a Head,
    pub(crate) modified: StoreTime,
}

/// The place of a run among builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Order {
    /// No order is given: the head's stays.
    #[default]
    Unordered,
    /// Not below the head's.
    At(u64),
    /// In place of the head's, whatever that is.
    ResetTo(Option<u64>),
}

/// What a run says when it claims.
#[derive(Debug, Clone)]
pub(crate) struct ClaimRequest {
    pub(crate) who: String,
    /// The random name of the run.
    pub(crate) token: Token,
    /// The store's time, to be shown.
    pub(crate) since: StoreTime,
    /// The lease in seconds.
    pub(crate) lease: u64,
    pub(crate) target: Target,
    pub(crate) tree: Option<String>,
    pub(crate) order: Order,
    /// The judgement of the claim that is there, if it was judged.
    pub(crate) judgement: Option<Judgement>,
    /// The highest epoch that is known otherwise: by the cache, and by all names of segments in the bucket if the
    /// head is absent.
    pub(crate) known_epoch: u64,
    /// A store time by which a loss was found out: no head where there are objects or segments, or one that went back. It puts
    /// every key in doubt. The run then waits one lease before its first data write.
    pub(crate) lost_at: Option<StoreTime>,
    /// One segment with the keys of all doubts and of the claim that is taken over, in place of these, after
    /// [`Refused::DoubtFull`].
    pub(crate) merged_doubt: Option<Segment>,
}

/// Claims an absent head, a free one, or one whose claim is dead.
///
/// Intents of a dead claim move into doubt in the same step. The result has no intent of ours yet: nothing may be
/// written before [`add_intent`]'s head is stored.
pub(crate) fn claim(seen: Option<Seen<'_>>, request: &ClaimRequest) -> Result<Head, Refused> {
    check_request(request)?;
    let mut next = match seen {
        None => Head::empty(request.target.clone(), request.tree.clone()),
        Some(Seen { head, modified }) => {
            let mut next = head.clone();
            check_place(head, request)?;
            doubt::date(&mut next.doubt, modified);
            next
        }
    };
    next.order = order_after(next.order, request.order)?;
    if let Some(old) = next.claim.take() {
        let since = end_of(&old, seen.map(|seen| seen.modified), request.judgement)?;
        remember(&mut next, &old, Outcome::Taken);
        doubt::after_takeover(&old, since).into_iter().for_each(|new| doubt::add(&mut next.doubt, new));
    }
    next.epoch = grown("epoch", next.epoch.max(request.known_epoch))?;
    let lost = request.lost_at.map(|at| everything_lost(request, at, next.epoch));
    next.doubt.extend(lost);
    if let Some(merged) = &request.merged_doubt {
        doubt::merge(&mut next.doubt, merged.clone());
    }
    // One place is kept free for our own doubt at the end.
    if next.doubt.len() >= MAX_DOUBT {
        return Err(Refused::DoubtFull);
    }
    next.claim = Some(Claim {
        who: request.who.clone(),
        token: request.token,
        epoch: next.epoch,
        since: request.since,
        lease: request.lease,
        intents: Vec::new(),
    });
    finish(seen.map(|seen| seen.head), next, &[])
}

/// Stores the keys that our claim is about to write or delete, besides those that it has named before.
///
/// Also a renewal. Data may be written once the store has acknowledged this head.
pub(crate) fn add_intent(head: &Head, token: Token, intent: Segment) -> Result<Head, Refused> {
    let mut next = head.clone();
    let claim = own_claim(&mut next, token)?;
    if claim.intents.len() >= MAX_INTENTS {
        return Err(Refused::IntentsFull);
    }
    claim.intents.push(intent);
    finish(Some(head), next, &[])
}

/// What a run has done since the last head that it stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Update {
    /// The rows of what the store acknowledged.
    pub(crate) change: Change,
    /// The doubts whose keys were looked at.
    pub(crate) looked: Vec<Looked>,
    /// The segments that were deleted.
    pub(crate) collected: Vec<SegmentName>,
    /// A new finding of a probe.
    pub(crate) probe: Option<Probe>,
}

/// Publishes what was acknowledged so far, and renews the claim.
pub(crate) fn checkpoint(head: &Head, token: Token, update: Update) -> Result<Head, Refused> {
    let mut next = head.clone();
    own_claim(&mut next, token)?;
    let collected = apply(&mut next, update)?;
    finish(Some(head), next, &collected)
}

/// The end of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) update: Update,
    /// Set if the bucket is the run's tree, whole: every upload and every delete was acknowledged, and every doubt
    /// was looked at in this run.
    pub(crate) complete: bool,
    pub(crate) unanswered: Unanswered,
}

/// Publishes the last rows and gives the claim back. Every run that has a claim ends so, also one that did nothing.
pub(crate) fn release(head: &Head, token: Token, ending: Ending) -> Result<Head, Refused> {
    let Ending { update, complete, unanswered } = ending;
    let mut next = head.clone();
    own_claim(&mut next, token)?;
    let collected = apply(&mut next, update)?;
    let Some(claim) = next.claim.take() else { return Err(Refused::Superseded) };
    doubt::after_release(&claim, unanswered).into_iter().for_each(|new| doubt::add(&mut next.doubt, new));
    if complete {
        next.generation = grown("generation", next.generation)?;
    }
    let mut next = finish(Some(head), next, &collected)?;
    remember(&mut next, &claim, if complete { Outcome::Complete } else { Outcome::Partial });
    Ok(next)
}

/// Returns the head with a higher order, for a run that has nothing to do; none if the order is the head's already.
pub(crate) fn raise_order(seen: Seen<'_>, order: Order) -> Result<Option<Head>, Refused> {
    let Seen { head, modified } = seen;
    let order = order_after(head.order, order)?;
    if order == head.order {
        return Ok(None);
    }
    if let Some(claim) = &head.claim {
        return Err(refused(claim, None));
    }
    let mut next = Head { order, ..head.clone() };
    doubt::date(&mut next.doubt, modified);
    finish(Some(head), next, &[]).map(Some)
}

fn check_request(request: &ClaimRequest) -> Result<(), Refused> {
    check_name("who", &request.who)?;
    request.tree.as_deref().map_or(Ok(()), |tree| check_name("tree", tree))?;
    if LEASES.contains(&request.lease) { Ok(()) } else { Err(Refused::Misused("a lease out of range")) }
}

fn check_place(head: &Head, request: &ClaimRequest) -> Result<(), Refused> {
    if head.target != request.target {
        return Err(Flaw::OtherTarget(head.target.clone()).into());
    }
    if head.tree != request.tree {
        return Err(Flaw::OtherTree(head.tree.clone()).into());
    }
    Ok(())
}

fn order_after(newest: Option<u64>, order: Order) -> Result<Option<u64>, Refused> {
    match (order, newest) {
        (Order::Unordered, newest) => Ok(newest),
        (Order::At(ours), Some(newest)) if ours < newest => Err(Refused::OlderOrder { ours, newest }),
        (Order::At(ours) | Order::ResetTo(Some(ours)), _) if ours > MAX_NUMBER => {
            Err(Refused::Exhausted("order"))
        }
        (Order::At(ours), _) => Ok(Some(ours)),
        (Order::ResetTo(order), _) => Ok(order),
    }
}

/// Returns a store time at which every request of the old claim had begun.
fn end_of(
    old: &Claim,
    modified: Option<StoreTime>,
    judgement: Option<Judgement>,
) -> Result<StoreTime, Refused> {
    match judgement {
        Some(Judgement::Dead(now)) => Ok(now),
        // Its owner may be alive after all, and then goes on until its lease ends.
        Some(Judgement::Forced(now)) => Ok(modified.map_or(now, |time| time.plus(old.limit()).max(now))),
        Some(Judgement::Alive(left)) => Err(refused(old, Some(left))),
        None => Err(refused(old, None)),
    }
}

fn refused(claim: &Claim, left: Option<Duration>) -> Refused {
    Refused::Claimed { who: claim.who.clone(), since: claim.since, epoch: claim.epoch, left }
}

/// The doubt about every key. Runs that nobody remembers may have a lease as long as ours from now on.
fn everything_lost(request: &ClaimRequest, at: StoreTime, epoch: u64) -> Doubt {
    let since = Some(at.plus(Duration::from_secs(request.lease)));
    Doubt { token: request.token, epoch, since, keys: Keys::All }
}

fn own_claim(head: &mut Head, token: Token) -> Result<&mut Claim, Refused> {
    head.claim.as_mut().filter(|claim| claim.token == token).ok_or(Refused::Superseded)
}

fn apply(head: &mut Head, update: Update) -> Result<Vec<SegmentName>, Refused> {
    match update.change {
        Change::None => {}
        Change::Delta { keep, delta } => {
            if keep > head.deltas.len() || keep >= MAX_DELTAS {
                return Err(Refused::Misused("more deltas are to be kept than there may be"));
            }
            head.deltas.truncate(keep);
            head.deltas.push(delta);
        }
        Change::Snapshot(snapshot) => {
            head.deltas.clear();
            head.snapshot = Some(snapshot);
        }
    }
    doubt::settle(&mut head.doubt, &update.looked);
    if let Some(probe) = update.probe {
        head.probes.retain(|old| old.endpoint != probe.endpoint);
        let surplus = (head.probes.len() + 1).saturating_sub(MAX_PROBES);
        head.probes.drain(..surplus);
        head.probes.push(probe);
    }
    Ok(update.collected)
}

/// Adds an ended claim to the history, with the beat of the last head that it stored.
fn remember(head: &mut Head, claim: &Claim, outcome: Outcome) {
    let surplus = (head.history.len() + 1).saturating_sub(MAX_HISTORY);
    head.history.drain(..surplus);
    head.history.push(Past {
        epoch: claim.epoch,
        token: claim.token,
        beat: head.beat,
        generation: head.generation,
        outcome,
    });
}

/// Completes a head that is to be stored after `before`.
fn finish(before: Option<&Head>, mut next: Head, deleted: &[SegmentName]) -> Result<Head, Refused> {
    next.beat = grown("beat", next.beat)?;
    // A publisher that an older format allows drops what a newer one added.
    (next.format, next.min_reader, next.min_writer) = (FORMAT, FORMAT, FORMAT);
    if let Some(before) = before {
        segments::retire(before, &mut next, deleted);
    }
    Ok(next)
}

fn grown(name: &'static str, number: u64) -> Result<u64, Refused> {
    if number < MAX_NUMBER { Ok(number + 1) } else { Err(Refused::Exhausted(name)) }
}
