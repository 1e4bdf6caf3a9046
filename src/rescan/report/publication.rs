//! What a report says of the state in the bucket.

use std::fmt;
use std::time::SystemTime;

/// A run that published, or is publishing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedBy {
    /// The publisher's name ([`RemoteState::publisher`](crate::RemoteState::publisher)).
    pub who: String,
    /// When it claimed the state, by the store's clock.
    pub since: SystemTime,
}

impl fmt::Display for PublishedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} since {}", self.who, httpdate::fmt_http_date(self.since))
    }
}

/// The state in the bucket, as a run left it or a pull found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StateReport {
    /// One more with each tree that was published completely.
    pub generation: u64,
    /// One more with each claim.
    pub epoch: u64,
    /// The highest order that was published, if there is one.
    pub order: Option<u64>,
    /// Keys that the cache did not know as they are published, and learned from the bucket.
    pub pulled: u64,
    /// The last run that ended with a claim.
    pub published_by: Option<PublishedBy>,
    /// Another run that holds the claim now.
    pub claimed_by: Option<PublishedBy>,
    /// Interrupted runs that may still change objects.
    pub in_doubt: u64,
    /// The record in the bucket was lost or damaged, and the run made it anew.
    pub was_lost: bool,
    /// Set if a tree of a higher order was published, so that this run published nothing: that order.
    pub newer_order: Option<u64>,
}

impl StateReport {
    /// Takes over what this run found out besides the head.
    pub(crate) fn with_findings_of(self, before: &Self) -> Self {
        let Self { pulled, was_lost, newer_order, .. } = *before;
        Self { pulled, was_lost, newer_order, ..self }
    }
}
