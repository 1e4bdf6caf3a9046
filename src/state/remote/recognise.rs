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
