//! The rules of deletes.

use crate::settings::definitions::{Group, SYNC};
use crate::settings::kind::Kind;
use crate::settings::setting::Setting;
use crate::settings::values::parse_max_delete;

pub(super) const GROUP: Group = Group {
    title: "Deletes",
    about: "Deletes come last, and only if everything else succeeded.",
    settings: &[
        Setting::new(
            "delete",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.delete(yes))),
            "Delete nothing; report published files gone from DIR",
        )
        .on(SYNC)
        .flag_name("no_delete")
        .default("true")
        .example("false"),
        Setting::new(
            "max_delete",
            Kind::Text(|parts, text| {
                let limit = parse_max_delete(text)?;
                parts.rescan(|rescan| rescan.max_delete(limit));
                Ok(())
            }),
            "Delete nothing if more files are gone [default: if DIR has fewer than half as many files as published, or none of them]",
        )
        .on(SYNC)
        .value_name("N|P%")
        .example("10%")
        .detail(
            "A hard cap on the deletes of one run. Without it, a tree that shrank deletes nothing: one with less than half \
             as many files as are published, or none of the published ones. Ten deletes always pass, and so does a build \
             that renames most of its files. The measure is the last tree that was published whole: what failed runs \
             added, or a run without deletes left, does not count.",
        ),
        Setting::new(
            "allow_empty",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.allow_empty(yes))),
            "Allow an empty DIR, deleting everything",
        )
        .on(SYNC)
        .default("false")
        .example("true")
        .detail("Without it, an empty root is refused, and so are patterns that leave no file."),
        Setting::new(
            "allow_new_root",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.allow_new_root(yes))),
            "Also delete what another DIR published with this cache",
        )
        .on(SYNC)
        .default("false")
        .example("true")
        .detail("Release folders with different names need it, or old files stay. State in the bucket implies it."),
    ],
};
