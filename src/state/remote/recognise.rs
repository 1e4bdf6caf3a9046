//! The meaning of a head that was read: for a run that has a claim, and for a cache that knows an earlier one.

use crate::state::remote::head::{Head, Outcome};
use crate::state::remote::name::Token;

/// The state of a head that a run has stored, or tried to store, by the head that it read afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// It is there: the head that was read is ours.
    Stored,
    /// It is not there, and the head before it still is. The same bytes may be sent again.
    NotStored,
    /// It was stored, and ended our claim with this outcome. Others have gone on from it.
    Ended(Outcome),
    /// Another run was first, or has taken our claim over, or the head is gone: nothing more may be sent. A run that
    /// was about to claim begins anew with the head that is there.
    Superseded,
}

/// Recognises what became of our head of this token and beat, after an answer was lost, a 412, or a 404.
///
/// `before` is the head that the PUT was to replace; none for the first claim. The bytes of each try must be the
/// same: which of them landed cannot be told.
pub(crate) fn recognise(read: Option<&Head>, before: Option<&Head>, token: Token, beat: u64) -> Own {
    let Some(read) = read else {
        // A head that was there is never made anew: it was removed, and with it the record of our intent.
        return if before.is_none() { Own::NotStored } else { Own::Superseded };
    };
    let is_ours = read.claim.as_ref().is_some_and(|claim| claim.token == token);
    if is_ours && read.beat == beat {
        return Own::Stored;
    }
    let is_unchanged = before.is_some_and(|before| (before.epoch, before.beat) == (read.epoch, read.beat));
    if is_unchanged && beat > read.beat {
        return Own::NotStored;
    }
    // An earlier head of our own claim: somebody put an old version back.
    if is_ours {
        return Own::Superseded;
    }
    if let Some(past) = read.history.iter().find(|past| past.token == token) {
        return match past.outcome {
            Outcome::Taken => Own::Superseded,
            _ if read.beat == beat => Own::Stored,
            outcome => Own::Ended(outcome),
        };
    }
    Own::Superseded
}

/// What a cache remembers of the head that it is a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cached {
    pub(crate) epoch: u64,
    pub(crate) beat: u64,
    pub(crate) etag: String,
}

/// The relation of a head that was read to the one that a cache is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// There is no head.
    Absent,
    /// The same head.
    Same,
    /// A later one.
    Later,
    /// An earlier one, or one of another line: the head was rolled back, or removed and made anew. Everything is in
    /// doubt.
    WentBack,
}

/// Compares a head and its ETag with what a cache remembers.
pub(crate) fn compare(read: Option<(&Head, &str)>, cached: Option<&Cached>) -> Since {
    let Some((head, etag)) = read else { return Since::Absent };
    let Some(cached) = cached else { return Since::Later };
    match (head.epoch, head.beat).cmp(&(cached.epoch, cached.beat)) {
        _ if etag == cached.etag => Since::Same,
        std::cmp::Ordering::Greater if head.beat > cached.beat => Since::Later,
        _ => Since::WentBack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::remote::head::{Claim, Inline, Segment, Target};
    use crate::state::remote::lease::Judgement;
    use crate::state::remote::name::StoreTime;
    use crate::state::remote::transitions::{ClaimRequest, Ending, Order, Seen, add_intent, claim, release};

    fn token(number: u8) -> Token {
        Token::new([number; 16])
    }

    fn claimed(head: Option<&Head>, number: u8) -> Head {
        let request = ClaimRequest {
            who: "x".to_owned(),
            token: token(number),
            since: StoreTime::new(0),
            lease: 300,
            target: Target { bucket: "b".to_owned(), prefix: String::new() },
            tree: None,
            order: Order::Unordered,
            intent: None,
            judgement: Some(Judgement::Dead(StoreTime::new(1000))),
            known_epoch: 0,
            known: (0, None),
            lost_at: None,
            merged_doubt: None,
        };
        claim(head.map(|head| Seen { head, modified: StoreTime::new(0) }), &request).unwrap()
    }

    fn named(head: &Head, number: u8) -> Head {
        let intent = Segment::Inline(Inline { rows: 1, unpacked: 1, bytes: vec![1] });
        add_intent(head, token(number), intent).unwrap()
    }

    fn released(head: &Head, number: u8, complete: bool) -> Head {
        release(head, token(number), Ending { complete, ..Ending::default() }).unwrap()
    }

    #[test]
    fn d4_a_lost_answer_is_told_by_the_head_that_is_there() {
        let free = released(&claimed(None, 9), 9, true);
        let one = claimed(Some(&free), 1);
        let two = named(&one, 1);
        let end = released(&two, 1, true);
        let partial = released(&two, 1, false);
        let other = claimed(Some(&free), 2);
        let gone_on = released(&named(&claimed(Some(&end), 2), 2), 2, true);
        let taken = claimed(Some(&two), 2);
        // The head that is read, the one before ours, ours, and what became of it.
        let cases = [
            ("first claim, not there", None, None, &one, Own::NotStored),
            ("first claim, there", Some(&one), None, &one, Own::Stored),
            ("first claim, others were first", Some(&other), None, &one, Own::Superseded),
            ("claim, not there", Some(&free), Some(&free), &one, Own::NotStored),
            ("claim, there", Some(&one), Some(&free), &one, Own::Stored),
            ("claim, others were first", Some(&other), Some(&free), &one, Own::Superseded),
            ("claim, head gone", None, Some(&free), &one, Own::Superseded),
            ("intent, not there", Some(&one), Some(&one), &two, Own::NotStored),
            ("intent, there", Some(&two), Some(&one), &two, Own::Stored),
            (
                "intent, taken over before it",
                Some(&claimed(Some(&one), 2)),
                Some(&one),
                &two,
                Own::Superseded,
            ),
            ("intent, taken over after it", Some(&taken), Some(&one), &two, Own::Superseded),
            ("intent, head gone", None, Some(&one), &two, Own::Superseded),
            ("intent, an older head put back", Some(&free), Some(&one), &two, Own::Superseded),
            ("release, an older head of ours put back", Some(&one), Some(&two), &end, Own::Superseded),
            ("release, not there", Some(&two), Some(&two), &end, Own::NotStored),
            ("release, there", Some(&end), Some(&two), &end, Own::Stored),
            ("partial release, there", Some(&partial), Some(&two), &partial, Own::Stored),
            ("release, others went on", Some(&gone_on), Some(&two), &end, Own::Ended(Outcome::Complete)),
            ("release, taken over", Some(&taken), Some(&two), &end, Own::Superseded),
        ];
        for (name, read, before, ours, expected) in cases {
            assert_eq!(recognise(read, before, token(1), ours.beat), expected, "{name}");
        }
    }

    #[test]
    fn d13_a_head_that_went_back_is_told_from_a_later_one() {
        let cached = Cached { epoch: 5, beat: 20, etag: "a".to_owned() };
        // Epoch, beat, ETag.
        let cases = [
            (5, 20, "a", Since::Same),
            (5, 20, "b", Since::WentBack),
            (5, 21, "b", Since::Later),
            (6, 21, "b", Since::Later),
            (5, 19, "b", Since::WentBack),
            (4, 19, "b", Since::WentBack),
            (4, 90, "b", Since::WentBack),
            // Removed and made anew, above all epochs.
            (6, 1, "b", Since::WentBack),
        ];
        for (epoch, beat, etag, expected) in cases {
            let claim = None::<Claim>;
            let head = Head { epoch, beat, claim, ..claimed(None, 1) };
            assert_eq!(compare(Some((&head, etag)), Some(&cached)), expected, "{epoch} {beat} {etag}");
            assert_eq!(compare(Some((&head, etag)), None), Since::Later);
        }
        assert_eq!((compare(None, Some(&cached)), compare(None, None)), (Since::Absent, Since::Absent));
    }
}
