//! The state that lies in the bucket, beside what it describes: its rules, without any request.
//!
//! # Architecture
//!
//! [`head::Head`] is the one object that is overwritten. It says what is published and who is publishing. Every
//! change of it is a pure function from one head to the next; the caller stores the result under the condition that
//! the head which it read is still there.
//!
//! | | |
//! |---|---|
//! | [`name`] | names of segments, tokens, and the store's time |
//! | [`head`] | the fields of the head, and `head::codec`, its JSON with every bound checked |
//! | [`lease`] | how long a claim holds, for its owner and for others |
//! | [`doubt`] | what dead claims may still change, and when that is over |
//! | [`segment`] | the rows of a segment as bytes: written, read with every bound checked, and merged |
//! | [`segments`] | when deltas are merged, when a snapshot is due, and which segments may be deleted |
//! | [`transitions`] | from one head to the next: claim, intent, checkpoint, release |
//! | [`recognise`] | what a head that was read means for a run: its own, not stored yet, taken over, gone back |
//!
//! # What the rules ask of a run
//!
//! - A head that is sent again is sent with the same bytes and the same condition, and its lease counts from the first
//!   try.
//! - A key of which any request got no answer is unanswered when the run ends, even if a later try was
//!   acknowledged: the first can still land, once its condition is true again.
//! - A failed condition on data is a conflict only if head, read again, still has our claim. Otherwise the run that
//!   took over has written. On a key in doubt it is none either: the key is looked at again, and its ETag is the
//!   next condition.
//! - The store time of a look is read before the first key is asked for.
//! - A run that finds everything lost writes its first data one lease after its claim was acknowledged, and looks at
//!   the keys after that.
//!
//! The model (tests only) explores publishers that use these functions on a store with requests that outlive their
//! senders.

pub(crate) mod doubt;
pub(crate) mod head;
pub(crate) mod lease;
#[cfg(test)]
mod model;
pub(crate) mod name;
pub(crate) mod recognise;
pub(crate) mod segment;
pub(crate) mod segments;
pub(crate) mod transitions;
