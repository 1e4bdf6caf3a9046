//! All rules about which objects may be deleted, and when (I3), as pure functions over plain values.
//!
//! An object is deleted if
//! 1. the root exists, and holds a file or may be empty ([`may_be_published`]);
//! 2. its file was not found, and there is no reason to keep it ([`reason_to_keep`]);
//! 3. the run had no failures so far, and the deletes are not too many ([`refusal`], [`too_many`]);
//! 4. immediately before the delete the object is still ours and its file still gone ([`may_be_deleted`]).

use crate::rescan::config::MaxDelete;
use crate::rescan::report::{DeletesRefused, KeptReason, TooMany};

/// Returns true if the root may be published. A root without files is probably a disk that is not mounted, if files
/// were published from it.
pub(crate) fn may_be_published(holds_a_file: bool, published: u64, empty_is_allowed: bool) -> bool {
    holds_a_file || published == 0 || empty_is_allowed
}

/// A published key whose file was not found.
#[derive(Debug, Clone, Copy)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and a row of the table below has them all"
)]
pub(crate) struct Missing {
    /// Its path is excluded or ignored now, no longer included, or has a reserved name.
    pub(crate) excluded: bool,
    /// Its file is there, and smaller or larger than what is published.
    pub(crate) outside_sizes: bool,
    /// Its path, or a folder above it, is now a symbolic link or a special file.
    pub(crate) skipped: bool,
    /// Another root published it, or the root is now another folder on another device.
    pub(crate) of_another_root: bool,
    /// The objects of another root may be deleted.
    pub(crate) new_root_is_allowed: bool,
    /// Deletes are switched off.
    pub(crate) deletes_are_off: bool,
}

/// The device numbers that tell whether the file system of a published file is still mounted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mount {
    /// The file was on the root's own device.
    pub(crate) with_root: bool,
    /// The device that the file was on.
    pub(crate) then: u64,
    /// The device of the nearest folder above it that exists now.
    pub(crate) above: Option<u64>,
    /// The root's device now.
    pub(crate) root: u64,
}

impl Mount {
    /// Returns true if the file system is still mounted. Device numbers may change with a reboot: a file that was on
    /// the root's device is still expected there, and any other file cannot be on the root's device now.
    fn is_mounted(self) -> bool {
        let Self { with_root, then, above, root } = self;
        let at_root = above == Some(root);
        if with_root { at_root || above == Some(then) } else { !at_root && above == Some(then) }
    }
}

/// Returns the reason to keep an object whose file was not found, if there is one. `mount` reads the disk and is called
/// only if the devices matter.
pub(crate) fn reason_to_keep<E>(
    missing: Missing,
    mount: impl FnOnce() -> Result<Mount, E>,
) -> Result<Option<KeptReason>, E> {
    let Missing { excluded, outside_sizes, skipped, .. } = missing;
    let Missing { of_another_root, new_root_is_allowed, deletes_are_off, .. } = missing;
    // The order counts: the report shows the first reason only.
    if excluded {
        return Ok(Some(KeptReason::Excluded));
    }
    if outside_sizes {
        return Ok(Some(KeptReason::OutsideSizes));
    }
    if skipped {
        return Ok(Some(KeptReason::Skipped));
    }
    if of_another_root && !new_root_is_allowed {
        return Ok(Some(KeptReason::OtherRoot));
    }
    // The devices of another root say nothing about this one.
    if !of_another_root && !mount()?.is_mounted() {
        return Ok(Some(KeptReason::OtherDevice));
    }
    Ok(deletes_are_off.then_some(KeptReason::DeletesOff))
}

/// The last check before a delete: this cache published the object, its turn has come, and its file is gone.
pub(crate) fn may_be_deleted(is_ours: bool, is_its_turn: bool, is_gone: bool) -> bool {
    is_ours && is_its_turn && is_gone
}

/// The number of deletes that always pass if no cap is set.
const ALWAYS_PASS: u64 = 10;

/// The numbers of files that a walk found, and did not find. Keys that are kept for a reason of their own are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Files in the tree.
    pub(crate) files: u64,
    /// Files of the last complete tree that still exist, with any content.
    pub(crate) common: u64,
    /// Files of the last complete tree that are gone.
    pub(crate) gone: u64,
    /// Objects to be deleted: those of `gone`, and those that incomplete runs have added or left since.
    pub(crate) removed: u64,
    /// All published objects, kept or not.
    pub(crate) published: u64,
}

/// The limits that the caller has set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Allowed {
    /// The cap on deletes, if any.
    pub(crate) max_delete: Option<MaxDelete>,
    /// An empty root deletes everything.
    pub(crate) empty: bool,
}

/// Returns the rule that these deletes break, if they are too many. With a cap, the cap is the only rule. Without one,
/// the tree must have at least half as many files as the last tree that was published completely (half a disk may be
/// missing), and must share files with it (it may be the wrong tree).
///
/// Files that incomplete runs have added do not count. Otherwise a wrong tree would pass on its second run, and the
/// leftovers of a few failed deploys would outnumber every good one.
pub(crate) fn too_many(counts: Counts, allowed: Allowed) -> Option<DeletesRefused> {
    let Counts { files, common, gone, removed, published } = counts;
    let before = common + gone;
    let refused = |reason, published| Some(DeletesRefused { reason, removed, files, published });
    // A cap replaces the other rules: the caller has decided.
    if let Some(cap) = allowed.max_delete {
        let limit = cap.limit(published);
        return if removed > limit { refused(TooMany::Cap(limit), published) } else { None };
    }
    // A few deletes, none of the last complete tree, or an empty tree on purpose.
    if removed <= ALWAYS_PASS || gone == 0 || (files == 0 && allowed.empty) {
        return None;
    }
    if common == 0 {
        return refused(TooMany::NoneInCommon, before);
    }
    if files < before.div_ceil(2) { refused(TooMany::Shrunk, before) } else { None }
}

/// The state of a run when its deletes are due.
#[allow(clippy::struct_excessive_bools, reason = "each is a reason of its own to delete nothing")]
pub(crate) struct Conditions {
    pub(crate) counts: Counts,
    pub(crate) allowed: Allowed,
    /// The run was stopped, or ends with an error.
    pub(crate) stopped: bool,
    /// Part of the tree could not be read.
    pub(crate) blocked: bool,
    /// The records are those of a copied cache, and are not compared with the objects.
    pub(crate) unverified: bool,
    pub(crate) failed_uploads: u64,
    /// The path of the root still leads to the folder that was walked.
    pub(crate) same_root: bool,
}

/// The reason why nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NothingToDelete,
    Stopped,
    Blocked,
    Unverified,
    UploadsFailed,
    TooMany(DeletesRefused),
    RootReplaced,
}

/// Returns the first reason to delete nothing, if there is one.
pub(crate) fn refusal(conditions: &Conditions) -> Option<Refusal> {
    let reasons = [
        (conditions.counts.removed == 0).then_some(Refusal::NothingToDelete),
        conditions.stopped.then_some(Refusal::Stopped),
        conditions.blocked.then_some(Refusal::Blocked),
        conditions.unverified.then_some(Refusal::Unverified),
        (conditions.failed_uploads > 0).then_some(Refusal::UploadsFailed),
        too_many(conditions.counts, conditions.allowed).map(Refusal::TooMany),
        (!conditions.same_root).then_some(Refusal::RootReplaced),
    ];
    reasons.into_iter().flatten().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Missing = Missing {
        excluded: false,
        outside_sizes: false,
        skipped: false,
        of_another_root: false,
        new_root_is_allowed: false,
        deletes_are_off: false,
    };
    const HERE: Mount = Mount { with_root: true, then: 1, above: Some(1), root: 1 };

    /// All cases of a published file that is not found any more: may its object be deleted?
    #[test]
    fn i3_object_whose_file_is_gone_is_kept_for_each_of_these_reasons() {
        use KeptReason::{DeletesOff, Excluded, OtherDevice, OtherRoot, OutsideSizes, Skipped};
        let elsewhere = Mount { above: Some(9), root: 7, ..HERE };
        for (why, missing, mount, expected) in [
            ("it was removed", GONE, HERE, None),
            ("a new pattern excludes it", Missing { excluded: true, ..GONE }, HERE, Some(Excluded)),
            (
                "it grew too large, of another root",
                Missing { outside_sizes: true, of_another_root: true, ..GONE },
                elsewhere,
                Some(OutsideSizes),
            ),
            (
                "it is excluded, and too large",
                Missing { excluded: true, outside_sizes: true, ..GONE },
                HERE,
                Some(Excluded),
            ),
            ("its folder became a link", Missing { skipped: true, ..GONE }, HERE, Some(Skipped)),
            ("another folder published it", Missing { of_another_root: true, ..GONE }, HERE, Some(OtherRoot)),
            (
                "another folder did, and may be followed",
                Missing { of_another_root: true, new_root_is_allowed: true, ..GONE },
                elsewhere,
                None,
            ),
            ("its disk is not mounted", GONE, elsewhere, Some(OtherDevice)),
            ("deletes are off", Missing { deletes_are_off: true, ..GONE }, HERE, Some(DeletesOff)),
            (
                "deletes are off, whatever root published it",
                Missing { of_another_root: true, new_root_is_allowed: true, deletes_are_off: true, ..GONE },
                HERE,
                Some(DeletesOff),
            ),
            (
                "it is excluded, and its folder a link, of another root",
                Missing { excluded: true, skipped: true, of_another_root: true, ..GONE },
                elsewhere,
                Some(Excluded),
            ),
        ] {
            let kept = reason_to_keep(missing, || Ok::<_, ()>(mount));
            assert_eq!(kept, Ok(expected), "{why}");
        }
        assert_eq!(reason_to_keep(GONE, || Err("it cannot be looked at")), Err("it cannot be looked at"));
        let excluded = Missing { excluded: true, ..GONE };
        assert_eq!(reason_to_keep(excluded, || Err("not looked at")), Ok(Some(Excluded)));
    }

    #[test]
    fn i3_root_without_a_file_is_taken_for_a_missing_mount_and_the_last_look_needs_all_three() {
        for (holds_a_file, published, allowed, expected) in [
            (true, 9, false, true),
            (false, 0, false, true),
            (false, 1, false, false),
            (false, 1, true, true),
        ] {
            assert_eq!(may_be_published(holds_a_file, published, allowed), expected);
        }
        assert!(may_be_deleted(true, true, true));
        for (ours, turn, gone) in [(false, true, true), (true, false, true), (true, true, false)] {
            assert!(!may_be_deleted(ours, turn, gone));
        }
    }

    #[test]
    fn f9_disk_that_is_not_mounted_is_seen_whatever_numbers_devices_have_now() {
        for (with_root, then, above, root, there) in [
            (true, 1, Some(1), 1, true),
            // The root's own, after a reboot.
            (true, 1, Some(7), 7, true),
            // Something is mounted over it.
            (true, 1, Some(9), 7, false),
            (false, 2, Some(2), 1, true),
            (false, 2, Some(1), 1, false),
            // Not mounted, and the root has its number now.
            (false, 2, Some(2), 2, false),
            // Another disk in its place.
            (false, 2, Some(3), 1, false),
            (true, 1, None, 1, false),
        ] {
            let mount = Mount { with_root, then, above, root };
            assert_eq!(mount.is_mounted(), there, "{mount:?}");
        }
    }

    const NO_CAP: Allowed = Allowed { max_delete: None, empty: false };

    fn counts(files: u64, common: u64, removed: u64) -> Counts {
        Counts { files, common, gone: removed, removed, published: common + removed }
    }

    /// The cases of the default rules: a build, a missing disk, another tree, an emptied one.
    #[test]
    fn i3_without_a_cap_a_tree_that_shrank_or_is_another_one_deletes_nothing() {
        for (why, found, expected) in [
            ("30 of 31 have new names", counts(31, 1, 30), None),
            ("half of them are gone", counts(50, 50, 50), None),
            ("one less than half is left", counts(49, 49, 51), Some(TooMany::Shrunk)),
            ("an odd number: 50 of 101", counts(50, 50, 51), Some(TooMany::Shrunk)),
            ("an odd number: 51 of 101", counts(51, 51, 50), None),
            ("all new names, and more of them", counts(200, 0, 100), Some(TooMany::NoneInCommon)),
            ("ten always pass", counts(1, 1, 10), None),
            ("ten always pass, of another tree too", counts(5, 0, 10), None),
            ("eleven do not", counts(1, 1, 11), Some(TooMany::Shrunk)),
            ("an empty tree", counts(0, 0, 11), Some(TooMany::NoneInCommon)),
            ("nothing is gone", counts(0, 0, 0), None),
        ] {
            assert_eq!(too_many(found, NO_CAP).map(|refused| refused.reason), expected, "{why}");
        }
        // Two failed deploys of 30 files each lie beside the 31 of the last good one.
        let after_failures = Counts { gone: 30, removed: 90, published: 91, ..counts(31, 1, 0) };
        assert_eq!(too_many(after_failures, NO_CAP), None);
        // The wrong tree was published beside the right one, and looks as if it were all there.
        let wrong_again = Counts { gone: 31, removed: 31, published: 62, ..counts(31, 0, 0) };
        assert_eq!(too_many(wrong_again, NO_CAP).unwrap().reason, TooMany::NoneInCommon);
        // The right tree is back: the wrong one goes.
        let right_again = Counts { removed: 31, published: 62, ..counts(31, 31, 0) };
        assert_eq!(too_many(right_again, NO_CAP), None);
        let empty = Allowed { empty: true, ..NO_CAP };
        assert_eq!(too_many(counts(0, 0, 1000), empty), None);
        assert!(too_many(counts(1, 1, 1000), empty).is_some(), "it is not empty");
    }

    #[test]
    fn i3_a_cap_is_a_hard_one_and_the_only_rule() {
        let with = |cap| Allowed { max_delete: Some(cap), empty: true };
        for (cap, found, expected) in [
            (MaxDelete::Count(5), counts(100, 100, 5), None),
            (MaxDelete::Count(5), counts(100, 100, 6), Some(TooMany::Cap(5))),
            (MaxDelete::Count(0), counts(100, 100, 1), Some(TooMany::Cap(0))),
            (MaxDelete::Share(0.05), counts(20, 20, 2), Some(TooMany::Cap(1))),
            (MaxDelete::Share(1.0), counts(1, 0, 1000), None),
            (MaxDelete::Share(0.5), counts(0, 0, 20), Some(TooMany::Cap(10))),
        ] {
            assert_eq!(
                too_many(found, with(cap)).map(|refused| refused.reason),
                expected,
                "{cap:?} {found:?}"
            );
        }
    }

    #[test]
    fn i3_deletes_need_a_whole_scan_all_uploads_few_enough_removals_and_the_same_root() {
        let good = || Conditions {
            counts: counts(100, 100, 10),
            allowed: Allowed { max_delete: Some(MaxDelete::Count(10)), empty: false },
            stopped: false,
            blocked: false,
            unverified: false,
            failed_uploads: 0,
            same_root: true,
        };
        let more = counts(100, 100, 11);
        let refused = DeletesRefused { reason: TooMany::Cap(10), removed: 11, files: 100, published: 111 };
        for (conditions, expected) in [
            (good(), None),
            (Conditions { counts: counts(100, 100, 0), ..good() }, Some(Refusal::NothingToDelete)),
            (Conditions { stopped: true, ..good() }, Some(Refusal::Stopped)),
            (Conditions { blocked: true, ..good() }, Some(Refusal::Blocked)),
            (Conditions { unverified: true, ..good() }, Some(Refusal::Unverified)),
            (Conditions { failed_uploads: 1, ..good() }, Some(Refusal::UploadsFailed)),
            (Conditions { counts: more, ..good() }, Some(Refusal::TooMany(refused))),
            (Conditions { same_root: false, ..good() }, Some(Refusal::RootReplaced)),
        ] {
            assert_eq!(refusal(&conditions), expected);
        }
    }
}
