//! The state in the bucket: where the record of what is published lies, and how publishers share it.

use crate::rescan::bucket_state::settings::OnConflict;
use crate::settings::definitions::{Group, SYNC};
use crate::settings::kind::Kind;
use crate::settings::setting::{Section, Setting};
use crate::settings::values::parse_state_place;

pub(super) const GROUP: Group = Group {
    title: "State",
    about: "The cache is the record of what is published, on one machine. Where many publish, or a machine lives for one \
            job, the record lies in the bucket, and the cache is a copy of it. With `state = \"local\"` every other \
            setting of this group is an error. The first run over objects that lie under the prefix already waits one \
            `lease` before it sends anything, unless it has `single_writer`: another run, whose record was lost, may \
            still be publishing.",
    settings: &[
        Setting::new(
            "state",
            Kind::Text(|parts, text| {
                parts.place = parse_state_place(text)?;
                Ok(())
            }),
            "Keep the record of what is published here: local (the cache; default), bucket (under DEST), or s3://BUCKET/PREFIX",
        )
        .on(&["sync", "plan", "pull", "rebuild"])
        .default("local")
        .value_name("WHERE")
        .example("bucket")
        .detail(
            "`bucket` keeps the record in `.brigade/` under the prefix, and is the default of `pull`. \
             `s3://BUCKET/PREFIX` keeps it there, such as in a bucket that is not public, with the same endpoint, region \
             and credentials, and leaves a marker under the prefix that says where. Every run on a destination has the \
             same `state`.",
        ),
        Setting::new(
            "order",
            Kind::Number(0, u64::MAX, |parts, order| parts.remote("order", |state| state.order(order))),
            "Number of this build; refuse it if a higher one was published",
        )
        .on(SYNC)
        .example("118")
        .detail(
            "If a higher one was published, the run sends nothing, with exit code 6. An equal one is a rerun. Without it the order stays as it is. In a file: \
             `order = { env = \"GITHUB_RUN_NUMBER\" }`.",
        ),
        Setting::new(
            "reset_order",
            Kind::Switch(|parts, yes| parts.remote("reset_order", |state| state.reset_order(yes))),
            "Publish an older build, and count on from its --order",
        )
        .on(SYNC)
        .rare()
        .example("true")
        .detail("A rollback.")
        .section(Section::OneRun),
        Setting::new(
            "wait",
            Kind::Time(0, u64::MAX, |parts, wait| parts.remote("wait", |state| state.wait(wait))),
            "Wait for another publisher",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("0s")
        .example("10m")
        .detail("By default it does not wait. When the time is over, the exit code is 6."),
        Setting::new(
            "lease",
            Kind::Time(5, 86_400, |parts, lease| parts.remote("lease", |state| state.lease(lease))),
            "After a crash, others may publish after this",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("5m")
        .rare()
        .example("2m")
        .detail("In whole seconds. A run renews its claim by itself. After a crash, others publish once this and 30 s more have passed."),
        Setting::new(
            "single_writer",
            Kind::Switch(|parts, yes| parts.remote("single_writer", |state| state.single_writer(yes))),
            "Only one publisher runs at a time: allow every store",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("false")
        .rare()
        .example("true")
        .detail(
            "Something else sees to it, such as the concurrency group of a CI system. Without it, a store that does not \
             honour conditional writes is refused, with exit code 2.",
        ),
        Setting::new(
            "take_over",
            Kind::Switch(|parts, yes| parts.remote("take_over", |state| state.take_over(yes))),
            "Take over from another publisher that is certainly gone",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .rare()
        .example("true")
        .detail("It does not wait for the lease. If the other one is not gone, two runs write at the same time.")
        .section(Section::OneRun),
        Setting::new(
            "on_conflict",
            Kind::Choice(&["fail", "overwrite"], |parts, how| {
                let what = if how == "overwrite" { OnConflict::Overwrite } else { OnConflict::Fail };
                parts.remote("on_conflict", |state| state.on_conflict(what));
            }),
            "Objects that somebody else changed: fail (default), overwrite",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("fail")
        .rare()
        .example("overwrite")
        .detail("`fail` keeps the object; the file stays pending, with exit code 1."),
        Setting::new(
            "publisher",
            Kind::Text(|parts, name| {
                parts.remote("publisher", |state| state.publisher(name));
                Ok(())
            }),
            "Name to tell others [default: the CI job, or host and process]",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .rare()
        .example("release job")
        .detail(
            "The command's default is the job of GitHub Actions (from `GITHUB_REPOSITORY`, `GITHUB_RUN_ID` and \
             `GITHUB_RUN_ATTEMPT`) or GitLab CI (from `CI_PROJECT_PATH` and `CI_JOB_ID`), else the host and the process \
             ID.",
        ),
        Setting::new(
            "tree",
            Kind::Text(|parts, name| {
                parts.remote("tree", |state| state.tree(name));
                Ok(())
            }),
            "Name of this tree; refuse to publish over another one",
        )
        .on(&["sync", "plan", "pull", "rebuild"])
        .rare()
        .example("website")
        .detail("A run with another name than the published tree has is refused, with exit code 4. `pull` takes any tree without it."),
    ],
};
