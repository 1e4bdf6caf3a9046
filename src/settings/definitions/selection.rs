//! The files of the tree that are published.

use crate::settings::definitions::{Group, TREE};
use crate::settings::kind::Kind;
use crate::settings::setting::Setting;
use crate::tree::filter::Filter;
use crate::tree::folder::FollowSymlinks;

pub(super) const GROUP: Group = Group {
    title: "Selection",
    about: "A pattern without `/` is matched with each name in a path: `*.map`, `node_modules`. A pattern with `/` is \
            matched with the path from the root: `/assets`, `docs/**/*.txt`. `*` and `?` match within a name, `**` \
            matches any number of folders, `[a-z]` and `{a,b}` match a class and alternatives. Case matters. A pattern \
            that matches a folder means everything below it. No pattern takes another one back.\n\n\
            A published file that is excluded later is kept in the bucket and reported. A file or folder named \
            `.brigade`, at any depth, is never published, and is reported as \
            skipped: the name is reserved for the state in the bucket. `exclude = \".brigade\"` leaves it out without that \
            note.",
    settings: &[
        Setting::new(
            "include",
            Kind::Texts(|parts, pattern| {
                Filter::new(&[pattern.to_owned()], &[])?;
                parts.rescan(|rescan| rescan.include(pattern));
                Ok(())
            }),
            "Publish only what matches: '*.html', /assets (repeatable)",
        )
        .on(TREE)
        .value_name("GLOB")
        .example("*.html"),
        Setting::new(
            "include_from",
            Kind::PatternFiles("include"),
            "File of --include patterns, one per line (repeatable)",
        )
        .on(TREE)
        .rare()
        .example("include.txt")
        .field("include")
        .detail(
            "Empty lines and lines that begin with `#` are ignored. A line that begins with `!` is an error; `\\!` stands for a \
             name that begins so. A file without any pattern is an error: it would \
             publish everything.",
        ),
        Setting::new(
            "exclude",
            Kind::Texts(|parts, pattern| {
                Filter::new(&[], &[pattern.to_owned()])?;
                parts.rescan(|rescan| rescan.exclude(pattern));
                Ok(())
            }),
            "Leave out what matches, and do not delete it (repeatable)",
        )
        .on(TREE)
        .value_name("GLOB")
        .example("*.map")
        .detail("It wins over `include`."),
        Setting::new(
            "exclude_from",
            Kind::PatternFiles("exclude"),
            "File of --exclude patterns, one per line (repeatable)",
        )
        .on(TREE)
        .rare()
        .example("exclude.txt")
        .field("exclude")
        .detail("Empty lines and lines that begin with `#` are ignored. A line that begins with `!` is an error."),
        Setting::new(
            "follow_symlinks",
            Kind::Choice(&["no", "inside", "all"], |parts, how| {
                let which = match how {
                    "all" => FollowSymlinks::All,
                    "inside" => FollowSymlinks::Inside,
                    _ => FollowSymlinks::No,
                };
                parts.rescan(|rescan| rescan.follow_symlinks(which));
            }),
            "Follow links to targets inside DIR; =all: to any target",
        )
        .on(TREE)
        .default("no")
        .example("inside")
        .detail(
            "`inside` publishes the target of a link inside the root at the link's place, if the target is inside the \
             root; `all` follows links to any place; `no` skips and reports them. A link that leads back to a folder that \
             contains it, or that leads nowhere, is always skipped. What is excluded at its real place is left out behind \
             a link, too.",
        ),
        Setting::new(
            "ignore_files",
            Kind::Switch(|parts, yes| parts.rescan(|rescan| rescan.ignore_files(yes))),
            "Read no .brigadeignore files",
        )
        .on(TREE)
        .flag_name("no_ignore")
        .default("true")
        .example("false")
        .detail(
            "A `.brigadeignore`, in the root or in any folder below, leaves out files as a `.gitignore` does. One that \
             cannot be read, or has a pattern that is not valid, is an error before anything is sent.",
        ),
        Setting::new(
            "max_size",
            Kind::Size(0, u64::MAX, |parts, bytes| parts.rescan(|rescan| rescan.max_size(bytes))),
            "Leave out files larger than this",
        )
        .on(TREE)
        .example("100MiB")
        .detail("They are counted in the report."),
        Setting::new(
            "min_size",
            Kind::Size(0, u64::MAX, |parts, bytes| parts.rescan(|rescan| rescan.min_size(bytes))),
            "Leave out files smaller than this",
        )
        .on(TREE)
        .rare()
        .example("1KiB")
        .detail("They are counted in the report."),
    ],
};
