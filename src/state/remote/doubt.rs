//! Doubt: what requests of ended claims may still change.
//!
//! A request can be held by a proxy and land after its sender is dead, and its condition may hold then. So the keys
//! of a claim that was taken over are in doubt until a run looks at them when no such request can land any more.
//!
//! That time comes from the signature: a store refuses a request whose `x-amz-date` is 15 minutes off its own
//! clock. One that was signed up to 15 minutes ahead can therefore land up to 30 minutes later.

use std::time::Duration;

use crate::state::remote::head::{Claim, Doubt, Head, Keys, Segment};
use crate::state::remote::name::{StoreTime, Token};

/// How long a request can land after it was sent: twice the 15 minutes by which its date may be off.
pub(crate) const LANDING: Duration = Duration::from_secs(30 * 60);

/// A look at all keys of a doubt: each was asked for, and what had changed was put right under our claim, or the
/// store's rows now say what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Looked {
    /// The token of the doubt.
    pub(crate) token: Token,
    /// A store time from before the first key was asked for.
    pub(crate) at: StoreTime,
}

/// The keys of our own claim that are in doubt when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Unanswered {
    /// Every request was answered.
    #[default]
    Nothing,
    /// A segment with the keys of which some request got no answer, even if a later one did.
    Keys(Segment),
    /// Everything that the claim's intents name.
    Intents,
}

impl Doubt {
    /// Returns true if a look at this store time settles the doubt.
    pub(crate) fn is_settled_by(&self, at: StoreTime) -> bool {
        self.since.is_some_and(|since| at >= since.plus(LANDING))
    }
}

impl Head {
    /// The doubts that a look at this store time would settle. While there are any, a run has something to do even
    /// if its tree is unchanged. `modified` is the date of this head.
    pub(crate) fn due_doubts(&self, modified: StoreTime, at: StoreTime) -> impl Iterator<Item = &Doubt> {
        self.doubt.iter().filter(move |doubt| at >= doubt.since.unwrap_or(modified).plus(LANDING))
    }
}

/// Gives doubts without a time the date of the head that has them.
pub(super) fn date(doubts: &mut [Doubt], modified: StoreTime) {
    for doubt in doubts {
        doubt.since.get_or_insert(modified);
    }
}

/// Drops the doubts that these looks settle.
pub(super) fn settle(doubts: &mut Vec<Doubt>, looks: &[Looked]) {
    doubts
        .retain(|doubt| !looks.iter().any(|look| look.token == doubt.token && doubt.is_settled_by(look.at)));
}

/// Returns the doubt about a claim that is taken over; none if it had no intent, so that it wrote nothing.
pub(super) fn after_takeover(claim: &Claim, since: StoreTime) -> Option<Doubt> {
    let keys = Keys::Of(claim.intents.clone());
    (!claim.intents.is_empty()).then_some(Doubt {
        token: claim.token,
        epoch: claim.epoch,
        since: Some(since),
        keys,
    })
}

/// Returns the doubt about our own claim as it ends.
pub(super) fn after_release(claim: &Claim, unanswered: Unanswered) -> Option<Doubt> {
    let intents = match unanswered {
        Unanswered::Nothing => return None,
        Unanswered::Keys(segment) => vec![segment],
        Unanswered::Intents => claim.intents.clone(),
    };
    let doubt = Doubt { token: claim.token, epoch: claim.epoch, since: None, keys: Keys::Of(intents) };
    (!doubt.keys.intents().is_empty()).then_some(doubt)
}

/// Adds a doubt, if there is one. If its claim has one already, that is about all keys and was there from its
/// beginning.
pub(super) fn add(doubts: &mut Vec<Doubt>, new: Option<Doubt>) {
    let Some(new) = new else { return };
    match doubts.iter_mut().find(|doubt| doubt.token == new.token) {
        None => doubts.push(new),
        Some(doubt) => {
            doubt.keys = Keys::All;
            // A doubt that is not dated yet begins last.
            doubt.since = doubt.since.zip(new.since).map(|(one, other)| one.max(other));
        }
    }
}

/// Replaces all doubts, which are dated, by one with the keys of all. It begins at the latest of their times.
pub(super) fn merge(doubts: &mut Vec<Doubt>, merged: Segment) {
    let Some(newest) = doubts.iter().max_by_key(|doubt| doubt.epoch) else { return };
    let (token, epoch) = (newest.token, newest.epoch);
    let since = doubts.iter().filter_map(|doubt| doubt.since).max();
    let has_all = doubts.iter().any(|doubt| doubt.keys == Keys::All);
    let keys = if has_all { Keys::All } else { Keys::Of(vec![merged]) };
    *doubts = vec![Doubt { token, epoch, since, keys }];
}
