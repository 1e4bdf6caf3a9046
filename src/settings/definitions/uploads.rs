//! How files are published.

use crate::rescan::config::{FirstRun, Verify};
use crate::settings::definitions::{Group, SYNC};
use crate::settings::kind::Kind;
use crate::settings::setting::{Section, Setting};
use crate::settings::values::add_header;

pub(super) const GROUP: Group = Group {
    title: "Uploads",
    about: "",
    settings: &[
        Setting::new("headers", Kind::Texts(add_header), "Header for every object: 'Name: value', or for some: '[*.html] Name: value' (repeatable)")
            .on(SYNC)
            .accepted_by(&["rebuild"])
            .flag_name("header")
            .value_name("LINE")
            .example("Cache-Control: no-cache")
            .field("header")
            .detail(
                "Examples: `Cache-Control`, `x-amz-storage-class`, `x-amz-meta-*`, `Content-Type`. They apply in order: \
                 those of the file, of the destination, then flags. A later one replaces an earlier one of the same name, an \
                 empty one removes it. Without one of its own, an object has the `Content-Type` of its file's name, and text \
                 is UTF-8. If only headers differ from those that an object was stored with, it is copied onto itself with \
                 the new ones; `plan` tells how many.",
            ),
        Setting::new("force", Kind::Switch(|parts, yes| parts.run(|run| run.force(yes))), "Upload every file again, even if unchanged")
            .on(SYNC)
            .example("true")
            .detail("If that run is stopped, say it again.")
            .section(Section::OneRun),
        Setting::new(
            "first_run",
            Kind::Choice(&["adopt", "overwrite", "refuse", "mirror"], |parts, how| {
                let policy = match how {
                    "overwrite" => FirstRun::Overwrite,
                    "refuse" => FirstRun::Refuse,
                    "mirror" => FirstRun::Mirror,
                    _ => FirstRun::Adopt,
                };
                parts.rescan(|rescan| rescan.first_run(policy));
            }),
            "First run: adopt (default), overwrite, refuse, mirror",
        )
        .on(SYNC)
        .default("adopt")
        .example("refuse")
        .detail(FIRST_RUN),
        Setting::new(
            "verify",
            Kind::Choice(&["ack", "list", "content"], |parts, how| {
                let how = match how {
                    "list" => Verify::List,
                    "content" => Verify::Content,
                    _ => Verify::Ack,
                };
                parts.run(|run| run.verify(how));
            }),
            "Check the result by ack (the store's responses; default), list (a listing), or content (download and hash)",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("ack")
        .example("list")
        .detail(
            "`ack` sends no request of its own. An object that is missing or different is published again in the same \
             run.",
        ),
        Setting::new(
            "whole_file_digest",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.whole_file_digest(yes))),
            "Also record the plain SHA-256 of multipart uploads",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .default("false")
        .rare()
        .example("true")
        .detail("It reads each large file once more: about 0.7 s of one core per GiB."),
        Setting::new(
            "checksum_header",
            Kind::Switch(|parts, yes| parts.s3(|s3| s3.checksum_header(yes))),
            "Store objects with their SHA-256 [default: on AWS]",
        )
        .on(&["sync"])
        .accepted_by(SYNC)
        .rare()
        .example("true")
        .detail("The header is `x-amz-checksum-sha256`. Bodies are protected either way."),
        Setting::new(
            "catalog",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.catalog(yes))),
            "Write no catalog beside the cache",
        )
        .on(&["sync", "rebuild"])
        .accepted_by(SYNC)
        .flag_name("no_catalog")
        .default("true")
        .rare()
        .example("false")
        .detail("The catalog is what other processes read; see [`Catalog`](crate::Catalog)."),
    ],
};

const FIRST_RUN: &str = "\
It decides about objects that lie under the prefix before the first run of a cache: after the first day with another \
tool, on a new machine, after a lost disk. `adopt` takes over an object that is proven to hold its file: it counts as \
published, with the headers that it has, and is not sent. Proof is an ETag that is the file's MD5, also of a multipart \
upload under a usual part size (5, 8, 15, 16, 25, 32, 50, 64 or 100 MiB, or `part_size`), or else a HEAD that shows the \
metadata of an earlier sync or a SHA-256 of the store. Every other file is sent. Objects without a file are counted and \
never deleted. `overwrite` sends every file. `refuse` fails if there are any objects, with exit code 4. No object is downloaded. `mirror` does as `adopt`, and takes \
every object under the prefix for its own: those without a file are deleted, within the rules of all deletes. It is \
`aws s3 sync --delete` with a valve; `plan` shows what would go. Objects of another publisher, below a folder with a `.brigade/head` of its own, \
count for none of these.";
