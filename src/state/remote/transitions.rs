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
    #[error("{who} is publishing since {since} (epoch {epoch})")]
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
    /// The keys that the run is about to write or delete, if its plan was made from the head that it claims: one PUT
    /// less than with [`add_intent`].
    pub(crate) intent: Option<Segment>,
    /// The judgement of the claim that is there, if it was judged.
    pub(crate) judgement: Option<Judgement>,
    /// The highest epoch that is known otherwise: by the cache, and by all names of segments in the bucket if the
    /// head is absent.
    pub(crate) known_epoch: u64,
    /// The generation and the order of the head that the cache knows: they go on where that one was lost.
    pub(crate) known: (u64, Option<u64>),
    /// A store time by which a loss was found out: no head where there are objects or segments, or one that went back. It puts
    /// every key in doubt. The run then waits one lease before its first data write.
    pub(crate) lost_at: Option<StoreTime>,
    /// One segment with the keys of all doubts and of the claim that is taken over, in place of these, after
    /// [`Refused::DoubtFull`].
    pub(crate) merged_doubt: Option<Segment>,
}

/// Claims an absent head, a free one, or one whose claim is dead.
///
/// Intents of a dead claim move into doubt in the same step. Nothing may be written before a head with our intent is
/// acknowledged, this one or that of [`add_intent`].
///
/// Segments that the request names have the epoch that this claim gets.
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
    let (generation, order) = request.lost_at.map_or((0, None), |_| request.known);
    next.generation = next.generation.max(generation);
    next.order = order_after(next.order.max(order), request.order)?;
    // What a dead run pushed is of a tree that is not whole either.
    let base = next.claim.as_ref().map_or(next.deltas.len() as u64, |old| old.base);
    if let Some(old) = next.claim.take() {
        let since = end_of(&old, seen.map(|seen| seen.modified), request.judgement)?;
        remember(&mut next, &old, Outcome::Taken);
        doubt::add(&mut next.doubt, doubt::after_takeover(&old, since));
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
        base,
        intents: request.intent.clone().into_iter().collect(),
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
    let base = own_claim(&mut next, token)?.base;
    // Readers still need what the claim found.
    let keeps_base = match &update.change {
        Change::None => true,
        Change::Delta { keep, .. } => *keep as u64 >= base,
        Change::Snapshot(_) => false,
    };
    if !keeps_base {
        return Err(Refused::Misused("a checkpoint replaces what the claim found"));
    }
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
    doubt::add(&mut next.doubt, doubt::after_release(&claim, unanswered));
    if complete {
        next.generation = grown("generation", next.generation)?;
    }
    let mut next = finish(Some(head), next, &collected)?;
    remember(&mut next, &claim, if complete { Outcome::Complete } else { Outcome::Partial });
    Ok(next)
}

/// Returns the head with a higher order, for a run that has nothing to do; none if the order is the head's already.
///
/// It leaves no trace of who stored it: after a lost answer the order of the head that is there tells.
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
    // It was read for a reader.
    if head.min_writer > FORMAT {
        return Err(Flaw::NewerWriter { needed: head.min_writer }.into());
    }
    Ok(())
}

pub(crate) fn order_after(newest: Option<u64>, order: Order) -> Result<Option<u64>, Refused> {
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
        who: claim.who.clone(),
        since: claim.since,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::remote::doubt::LANDING;
    use crate::state::remote::head::{Inline, Retired, SegmentRef};
    use crate::state::remote::name::SegmentKind;

    fn token(number: u8) -> Token {
        Token::new([number; 16])
    }

    fn at(seconds: u64) -> StoreTime {
        StoreTime::new(seconds)
    }

    fn target() -> Target {
        Target { bucket: "b".to_owned(), prefix: "p/".to_owned() }
    }

    fn inline(number: u8) -> Segment {
        Segment::Inline(Inline { rows: 1, unpacked: 1, bytes: vec![number] })
    }

    fn stored(kind: SegmentKind, epoch: u64, number: u8) -> Segment {
        let name = SegmentName { kind, epoch, token: token(number) };
        Segment::Stored(SegmentRef { name, size: 1, sha256: [0; 32], rows: 1, unpacked: 1 })
    }

    fn request(number: u8) -> ClaimRequest {
        ClaimRequest {
            who: format!("runner {number}"),
            token: token(number),
            since: at(50),
            lease: 300,
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

    fn seen(head: &Head) -> Seen<'_> {
        Seen { head, modified: at(1000) }
    }

    /// A head that run 1 has claimed, with an intent.
    fn claimed() -> Head {
        add_intent(&claim(None, &request(1)).unwrap(), token(1), inline(1)).unwrap()
    }

    /// The head after run 1.
    fn free() -> Head {
        release(&claimed(), token(1), Ending { complete: true, ..Ending::default() }).unwrap()
    }

    fn taken(head: &Head, number: u8, now: u64) -> Head {
        let judgement = Some(Judgement::Dead(at(now)));
        claim(Some(seen(head)), &ClaimRequest { judgement, ..request(number) }).unwrap()
    }

    #[test]
    fn a_run_goes_from_no_head_to_a_free_one() {
        let first = claim(None, &request(1)).unwrap();
        assert_eq!((first.epoch, first.beat, first.generation), (1, 1, 0));
        assert!(first.claim.as_ref().unwrap().intents.is_empty() && first.doubt.is_empty());
        let at_once = claim(None, &ClaimRequest { intent: Some(inline(1)), ..request(1) }).unwrap();
        assert_eq!(at_once.claim, claimed().claim);
        let named = claimed();
        assert_eq!((named.epoch, named.beat, named.claim.as_ref().unwrap().intents.len()), (1, 2, 1));
        let change = Change::Delta { keep: 0, delta: inline(2) };
        let update = Update { change, ..Update::default() };
        let later = checkpoint(&named, token(1), update.clone()).unwrap();
        assert_eq!((later.beat, later.deltas.clone()), (3, vec![inline(2)]));
        let end = release(&later, token(1), Ending { update, complete: true, ..Ending::default() }).unwrap();
        assert_eq!((end.epoch, end.beat, end.generation, &end.claim), (1, 4, 1, &None));
        let past = Past {
            epoch: 1,
            token: token(1),
            who: "runner 1".to_owned(),
            since: at(50),
            beat: 4,
            generation: 1,
            outcome: Outcome::Complete,
        };
        assert_eq!(end.history, [past]);
        let next = claim(Some(seen(&end)), &request(2)).unwrap();
        assert_eq!((next.epoch, next.beat, next.generation), (2, 5, 1));
    }

    #[test]
    fn i2_a_run_that_is_not_complete_gives_its_claim_back_and_makes_no_generation() {
        let end = release(&claimed(), token(1), Ending::default()).unwrap();
        assert_eq!((end.generation, &end.claim, end.history[0].outcome), (0, &None, Outcome::Partial));
    }

    #[test]
    fn r4_the_epoch_of_a_first_claim_is_above_all_that_were_seen() {
        for (known_epoch, epoch) in [(0, 1), (41, 42)] {
            let request = ClaimRequest { known_epoch, lost_at: Some(at(100)), ..request(1) };
            let head = claim(None, &request).unwrap();
            let doubt = &head.doubt[0];
            assert_eq!((head.epoch, doubt.epoch, &doubt.keys), (epoch, epoch, &Keys::All));
            // From the time at which whoever held the lost claim begins nothing more.
            assert_eq!(doubt.since, Some(at(400)));
        }
        let back = ClaimRequest { known_epoch: 9, ..request(2) };
        assert_eq!(claim(Some(seen(&free())), &back).unwrap().epoch, 10);
        let last = ClaimRequest { known_epoch: MAX_NUMBER, ..request(1) };
        assert_eq!(claim(None, &last), Err(Refused::Exhausted("epoch")));
    }

    #[test]
    fn d6_a_lower_order_is_refused_and_names_the_newer_one() {
        use Order::{At, ResetTo, Unordered};
        // The head's order, the run's, the result.
        let cases = [
            (None, Unordered, Ok(None)),
            (None, At(4), Ok(Some(4))),
            (Some(5), Unordered, Ok(Some(5))),
            (Some(5), At(4), Err(Refused::OlderOrder { ours: 4, newest: 5 })),
            (Some(5), At(5), Ok(Some(5))),
            (Some(5), At(6), Ok(Some(6))),
            (Some(5), ResetTo(Some(2)), Ok(Some(2))),
            (Some(5), ResetTo(None), Ok(None)),
            (None, At(u64::MAX), Err(Refused::Exhausted("order"))),
        ];
        for (order, ours, expected) in cases {
            let head = Head { order, ..free() };
            let claimed = claim(Some(seen(&head)), &ClaimRequest { order: ours, ..request(2) });
            assert_eq!(claimed.map(|head| head.order), expected, "{order:?} {ours:?}");
            let raised = raise_order(seen(&head), ours);
            let raised = raised.map(|next| next.map_or(order, |next| next.order));
            assert_eq!(raised, expected, "{order:?} {ours:?}");
        }
        // It is refused at once, although the claim of others might end.
        let head = Head { order: Some(5), ..claimed() };
        let claimed = claim(Some(seen(&head)), &ClaimRequest { order: At(4), ..request(2) });
        assert_eq!(claimed, Err(Refused::OlderOrder { ours: 4, newest: 5 }));
        assert!(matches!(raise_order(seen(&head), At(9)), Err(Refused::Claimed { .. })));
    }

    #[test]
    fn d1_a_live_claim_is_left_alone() {
        let left = Duration::from_secs(7);
        for (judgement, left) in [(None, None), (Some(Judgement::Alive(left)), Some(left))] {
            let refused =
                claim(Some(seen(&claimed())), &ClaimRequest { judgement, ..request(2) }).unwrap_err();
            let expected = Refused::Claimed { who: "runner 1".to_owned(), since: at(50), epoch: 1, left };
            assert_eq!(refused, expected);
            let text = "runner 1 is publishing since Thu, 01 Jan 1970 00:00:50 GMT (epoch 1)";
            assert_eq!(refused.to_string(), text);
        }
    }

    #[test]
    fn d12_all_keys_of_claims_that_were_taken_over_are_in_doubt() {
        let second = add_intent(&taken(&claimed(), 2, 2000), token(2), inline(2)).unwrap();
        let third = taken(&second, 3, 4000);
        let doubts: Vec<_> = third
            .doubt
            .iter()
            .map(|doubt| (doubt.token, doubt.epoch, doubt.since, doubt.keys.clone()))
            .collect();
        let expected = [
            (token(1), 1, Some(at(2000)), Keys::Of(vec![inline(1)])),
            (token(2), 2, Some(at(4000)), Keys::Of(vec![inline(2)])),
        ];
        assert_eq!(doubts, expected);
        let outcomes: Vec<_> = third.history.iter().map(|past| (past.beat, past.outcome)).collect();
        assert_eq!(outcomes, [(2, Outcome::Taken), (4, Outcome::Taken)]);
    }

    #[test]
    fn r2_a_claim_without_intent_leaves_no_doubt() {
        let head = taken(&claim(None, &request(1)).unwrap(), 2, 2000);
        assert!(head.doubt.is_empty());
        assert_eq!(head.history[0].outcome, Outcome::Taken);
    }

    #[test]
    fn a_forced_takeover_waits_for_the_lease_that_it_broke() {
        let forced = |now| {
            let judgement = Some(Judgement::Forced(at(now)));
            claim(Some(seen(&claimed())), &ClaimRequest { judgement, ..request(2) }).unwrap().doubt[0].since
        };
        assert_eq!((forced(1001), forced(5000)), (Some(at(1330)), Some(at(5000))));
    }

    #[test]
    fn d3_a_run_that_was_taken_over_changes_nothing() {
        for head in [taken(&claimed(), 2, 2000), free()] {
            assert_eq!(add_intent(&head, token(1), inline(3)), Err(Refused::Superseded));
            assert_eq!(checkpoint(&head, token(1), Update::default()), Err(Refused::Superseded));
            assert_eq!(release(&head, token(1), Ending::default()), Err(Refused::Superseded));
        }
    }

    #[test]
    fn d11_doubt_ends_with_a_look_that_began_thirty_minutes_after_the_takeover() {
        let head = taken(&claimed(), 2, 2000);
        let due = 2000 + LANDING.as_secs();
        // The token that was looked at, the time of the look, the number of doubts that are left.
        for (number, time, left) in [(1, due - 1, 1), (1, due, 0), (2, due, 1), (1, u64::MAX, 0)] {
            let looked = vec![Looked { token: token(number), at: at(time) }];
            let update = Update { looked, ..Update::default() };
            let next = checkpoint(&head, token(2), update.clone()).unwrap();
            assert_eq!(next.doubt.len(), left, "{number} {time}");
            let ending = Ending { update, complete: true, ..Ending::default() };
            assert_eq!(release(&head, token(2), ending).unwrap().doubt.len(), left);
        }
        assert_eq!(head.due_doubts(at(0), at(due - 1)).count(), 0);
        assert_eq!(head.due_doubts(at(0), at(due)).count(), 1);
    }

    #[test]
    fn keys_without_an_answer_are_in_doubt_from_the_date_of_the_head_that_says_so() {
        let cases = [
            (Unanswered::Nothing, None),
            (Unanswered::Keys(inline(9)), Some(Keys::Of(vec![inline(9)]))),
            (Unanswered::Intents, Some(Keys::Of(vec![inline(1)]))),
        ];
        for (unanswered, expected) in cases {
            let end = release(&claimed(), token(1), Ending { unanswered, ..Ending::default() }).unwrap();
            assert_eq!(end.doubt.first().map(|doubt| doubt.keys.clone()), expected);
            assert!(
                end.doubt.iter().all(|doubt| doubt.since.is_none() && !doubt.is_settled_by(at(u64::MAX)))
            );
            // `seen` has read it with a date of 1,000.
            let next = claim(Some(seen(&end)), &request(2)).unwrap();
            assert!(next.doubt.iter().all(|doubt| doubt.since == Some(at(1000))));
            let raised = raise_order(seen(&end), Order::At(7)).unwrap().unwrap();
            assert_eq!(raised.doubt, next.doubt);
        }
        // A run that found everything lost keeps its doubt about everything, and it begins anew.
        let lost = claim(None, &ClaimRequest { lost_at: Some(at(1)), ..request(1) }).unwrap();
        let ending = Ending { unanswered: Unanswered::Keys(inline(1)), ..Ending::default() };
        let end = release(&lost, token(1), ending).unwrap();
        assert_eq!((end.doubt.len(), &end.doubt[0].keys, end.doubt[0].since), (1, &Keys::All, None));
    }

    #[test]
    fn i8_doubt_is_bounded_and_no_claim_is_locked_out() {
        let mut head = claimed();
        let mut number = 1;
        let full = loop {
            number += 1;
            let judgement = Some(Judgement::Dead(at(2000 + u64::from(number))));
            let request = ClaimRequest { judgement, ..request(number) };
            match claim(Some(seen(&head)), &request) {
                Ok(next) => head = add_intent(&next, token(number), inline(number)).unwrap(),
                Err(refused) => break (refused, request),
            }
        };
        assert_eq!((full.0, head.doubt.len()), (Refused::DoubtFull, MAX_DOUBT - 1));
        let next =
            claim(Some(seen(&head)), &ClaimRequest { merged_doubt: Some(inline(99)), ..full.1 }).unwrap();
        // The newest time counts for all, so that none is settled too early.
        let since = Some(at(2000 + u64::from(number)));
        let expected =
            Doubt { token: token(number - 1), epoch: head.epoch, since, keys: Keys::Of(vec![inline(99)]) };
        assert_eq!(next.doubt, [expected]);
        assert_eq!(next.history.len(), MAX_HISTORY);
    }

    #[test]
    fn intents_are_added_and_bounded() {
        let mut head = claimed();
        for number in 2..=u8::try_from(MAX_INTENTS).unwrap() {
            head = add_intent(&head, token(1), inline(number)).unwrap();
        }
        assert_eq!(add_intent(&head, token(1), inline(0)), Err(Refused::IntentsFull));
        assert_eq!(taken(&head, 2, 2000).doubt[0].keys.intents().len(), MAX_INTENTS);
    }

    #[test]
    fn d13_a_head_of_another_place_is_not_claimed() {
        let elsewhere = Target { bucket: "c".to_owned(), prefix: "p/".to_owned() };
        let refused = claim(Some(seen(&free())), &ClaimRequest { target: elsewhere, ..request(2) });
        assert_eq!(refused, Err(Refused::Invalid(Flaw::OtherTarget(target()))));
        let refused =
            claim(Some(seen(&free())), &ClaimRequest { tree: Some("docs".to_owned()), ..request(2) });
        assert_eq!(refused, Err(Refused::Invalid(Flaw::OtherTree(None))));
        let newer = Head { format: 3, min_writer: 3, ..free() };
        let refused = claim(Some(seen(&newer)), &request(2));
        assert_eq!(refused, Err(Refused::Invalid(Flaw::NewerWriter { needed: 3 })));
        for who in ["", "a\nb"] {
            let refused = claim(None, &ClaimRequest { who: who.to_owned(), ..request(2) });
            assert!(matches!(refused, Err(Refused::Invalid(_))), "{who:?}");
        }
        assert!(claim(None, &ClaimRequest { lease: 0, ..request(2) }).is_err());
    }

    #[test]
    fn r9_segments_are_retired_when_they_leave_the_head_and_deleted_one_epoch_later() {
        let intent = stored(SegmentKind::Intent, 1, 1);
        let delta = |epoch, number| stored(SegmentKind::Delta, epoch, number);
        let update = |change, collected| Update { change, collected, ..Update::default() };
        let head = add_intent(&claim(None, &request(1)).unwrap(), token(1), intent).unwrap();
        let head = checkpoint(&head, token(1), update(Change::Delta { keep: 0, delta: delta(1, 2) }, vec![]))
            .unwrap();
        assert!(head.retired.is_empty());
        let merged = update(Change::Delta { keep: 0, delta: delta(1, 3) }, vec![]);
        let head = release(&head, token(1), Ending { update: merged, complete: true, ..Ending::default() });
        let head = head.unwrap();
        let names = |head: &Head| -> Vec<_> {
            head.retired.iter().map(|Retired { name, epoch }| (name.kind, name.token, *epoch)).collect()
        };
        let both = [(SegmentKind::Delta, token(2), 1), (SegmentKind::Intent, token(1), 1)];
        assert_eq!(names(&head), both);
        assert_eq!(segments::collectable(&head), []);
        let head = claim(Some(seen(&head)), &request(2)).unwrap();
        let old = segments::collectable(&head);
        assert_eq!(old.len(), 2);
        // A name that may not go is not forgotten.
        let referenced = head.names().collect();
        let head = checkpoint(&head, token(2), update(Change::None, referenced)).unwrap();
        assert_eq!((names(&head).len(), head.deltas.len()), (2, 1));
        let snapshot = || update(Change::Snapshot(inline(5)), old.clone());
        // Readers need the deltas until the claim ends.
        assert!(matches!(checkpoint(&head, token(2), snapshot()), Err(Refused::Misused(_))));
        let all = update(Change::Delta { keep: 0, delta: inline(5) }, vec![]);
        assert!(matches!(checkpoint(&head, token(2), all), Err(Refused::Misused(_))));
        let ending = Ending { update: snapshot(), complete: true, ..Ending::default() };
        let head = release(&head, token(2), ending).unwrap();
        assert_eq!(names(&head), [(SegmentKind::Delta, token(3), 2)]);
        assert_eq!((segments::collectable(&head), head.deltas.len()), (vec![], 0));
        // By listing, what nobody references is found as well, but not what this epoch has made.
        let name = |kind, epoch, number| SegmentName { kind, epoch, token: token(number) };
        let listed = [
            name(SegmentKind::Delta, 1, 3),
            name(SegmentKind::Snapshot, 1, 8),
            name(SegmentKind::Intent, 2, 8),
            name(SegmentKind::Delta, 3, 8),
        ];
        assert_eq!(segments::strays(&head, listed), [listed[1]]);
    }

    #[test]
    fn a_probe_replaces_the_one_of_its_endpoint() {
        let probe = |endpoint: &str, create| Probe {
            endpoint: endpoint.to_owned(),
            at: at(1),
            create,
            replace: true,
            delete: true,
        };
        let mut head = claimed();
        for number in 0..20 {
            for create in [false, true] {
                let probe = Some(probe(&format!("https://{number}"), create));
                head = checkpoint(&head, token(1), Update { probe, ..Update::default() }).unwrap();
            }
        }
        assert_eq!(head.probes.len(), MAX_PROBES);
        assert!(head.probe("https://19").unwrap().passed() && head.probe("https://0").is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let keep = |keep| {
            let change = Change::Delta { keep, delta: inline(1) };
            checkpoint(&claimed(), token(1), Update { change, ..Update::default() })
        };
        assert!(keep(0).is_ok());
        assert!(matches!(keep(1), Err(Refused::Misused(_))));
        let worn = Head { beat: MAX_NUMBER, ..claimed() };
        assert_eq!(checkpoint(&worn, token(1), Update::default()), Err(Refused::Exhausted("beat")));
        let worn = Head { generation: MAX_NUMBER, ..claimed() };
        let ending = Ending { complete: true, ..Ending::default() };
        assert_eq!(release(&worn, token(1), ending), Err(Refused::Exhausted("generation")));
    }
}
