//! Whether a run may delete at all (I3), from plain values.

/// What is known when the deletes of a run are due.
pub(crate) struct Conditions {
    /// Keys that are to be deleted.
    pub(crate) removed: u64,
    /// The most that may be.
    pub(crate) limit: u64,
    /// The run has stopped, or ends with an error.
    pub(crate) stopped: bool,
    /// Something could not be read.
    pub(crate) blocked: bool,
    pub(crate) failed_uploads: u64,
    /// Whether the path of the root still leads to the folder that was walked.
    pub(crate) same_root: bool,
}

/// Why nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NothingToDelete,
    Stopped,
    Blocked,
    UploadsFailed,
    TooMany,
    RootReplaced,
}

/// The first reason to delete nothing, if there is one.
pub(crate) fn refusal(conditions: &Conditions) -> Option<Refusal> {
    let reasons = [
        (conditions.removed == 0, Refusal::NothingToDelete),
        (conditions.stopped, Refusal::Stopped),
        (conditions.blocked, Refusal::Blocked),
        (conditions.failed_uploads > 0, Refusal::UploadsFailed),
        (conditions.removed > conditions.limit, Refusal::TooMany),
        (!conditions.same_root, Refusal::RootReplaced),
    ];
    reasons.into_iter().find_map(|(is_so, refusal)| is_so.then_some(refusal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i3_deletes_need_a_whole_scan_all_uploads_few_enough_removals_and_the_same_root() {
        let good = || Conditions {
            removed: 10,
            limit: 10,
            stopped: false,
            blocked: false,
            failed_uploads: 0,
            same_root: true,
        };
        for (conditions, expected) in [
            (good(), None),
            (Conditions { removed: 0, ..good() }, Some(Refusal::NothingToDelete)),
            (Conditions { stopped: true, ..good() }, Some(Refusal::Stopped)),
            (Conditions { blocked: true, ..good() }, Some(Refusal::Blocked)),
            (Conditions { failed_uploads: 1, ..good() }, Some(Refusal::UploadsFailed)),
            (Conditions { removed: 11, ..good() }, Some(Refusal::TooMany)),
            (Conditions { same_root: false, ..good() }, Some(Refusal::RootReplaced)),
        ] {
            assert_eq!(refusal(&conditions), expected);
        }
    }
}
