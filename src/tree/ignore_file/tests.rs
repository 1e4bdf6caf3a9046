//! The walk over trees with ignore files: compared with git, and case by case.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::*;
use crate::error::ErrorKind;
use crate::key::MAX_KEY_BYTES;
use crate::tree::exclusions::Exclusions;
use crate::tree::filter::Filter;
use crate::tree::folder::FollowSymlinks;
use crate::tree::walk::{Found, walk};

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn reading() -> Filter {
    Filter::default().with_ignore_files(true)
}

fn found(root: &Path, links: FollowSymlinks, filter: &Filter) -> Vec<Found> {
    let root = fs::canonicalize(root).unwrap();
    walk(&Folder::open(&root).unwrap().following(links), MAX_KEY_BYTES, filter).collect()
}

fn keys_following(root: &Path, links: FollowSymlinks, filter: &Filter) -> Vec<String> {
    let key = |found| match found {
        Found::File(entry) => Some(entry.key.into_string()),
        Found::IgnoreFile => None,
        other => panic!("{other:?}"),
    };
    found(root, links, filter).into_iter().filter_map(key).collect()
}

fn keys(root: &Path) -> Vec<String> {
    keys_following(root, FollowSymlinks::No, &reading())
}

/// The message of the error of a walk that must not go on.
fn refusal(root: &Path, links: FollowSymlinks) -> String {
    let bad = found(root, links, &reading()).into_iter().find_map(|found| match found {
        Found::BadIgnoreFile(error) => Some(error),
        _ => None,
    });
    let error = bad.unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    error.message().to_owned()
}

/// Returns the files that git would not ignore; `None` if there is no git.
fn kept_by_git(git_dir: &Path, root: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env_remove("GIT_INDEX_FILE");
    git.current_dir(root).arg("--git-dir").arg(git_dir).arg("--work-tree").arg(root);
    let output =
        git.args(["ls-files", "-z", "--others", "--exclude-per-directory=.gitignore"]).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split_terminator('\0').map(str::to_owned).collect())
}

fn without_ignore_files(mut keys: Vec<String>) -> Vec<String> {
    keys.retain(|key| !key.ends_with(".gitignore") && !key.ends_with(IGNORE_FILE));
    keys.sort();
    keys
}

/// Patterns of pieces that mean something, mean nothing, or are easily taken for something else.
fn line() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "ab",
        "x.y",
        "é",
        " ",
        "{a,b}",
        "{",
        ",",
        "*",
        "?",
        "**",
        "***",
        "/",
        "/",
        "[ab]",
        "[!a]",
        "[^b]",
        "[a-c]",
        "[]a]",
        "[a-]",
        "[\\]a]",
        "[a-b-c]",
        "[[:alpha:]]",
        "[![:alpha:]]",
        "[+-9]",
        "\\a",
        "\\*",
        "\\ ",
        "#",
        "!",
        "\\[",
        "-",
        "\t",
        "a/**/",
        "/**",
        "**/",
    ]);
    let body = prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat());
    let plain = prop::sample::select(vec![
        "a", "b", "ab", "/a", "a/", "/b/", "a/b", "*", "/*", "*/", "a/*", "**/b", "a/**",
    ]);
    let body = prop_oneof![2 => body, 1 => plain.prop_map(str::to_owned)];
    (prop::bool::weighted(0.3), body).prop_map(|(back, body)| if back { format!("!{body}") } else { body })
}

fn path_of(name: impl Strategy<Value = &'static str>) -> impl Strategy<Value = String> {
    prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"))
}

/// The same files and rules, once as `.gitignore` and once as ours. Lines that are wrong here are left out.
#[test]
fn what_is_published_is_what_git_would_not_ignore() {
    let git_dir = tempfile::tempdir().unwrap();
    let made = Command::new("git").args(["init", "-q", "--bare"]).arg(git_dir.path()).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no git on this machine");
        return;
    }
    let name = || {
        prop::sample::select(vec![
            "a", "b", "c", "ab", "a b", "x.y", "{a,b}", "é", "[a]", "*", "!a", "#a", "a\t", "ba", "-", "\\a",
            "a ",
        ])
    };
    let folder = || prop_oneof![1 => Just(String::new()), 2 => path_of(name())];
    let files = prop::collection::btree_set(path_of(name()), 1..20);
    let rules = prop::collection::vec((folder(), prop::collection::vec(line(), 1..5)), 1..4);
    let cases =
        std::env::var("BRIGADE_TEST_GIT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let same = |(files, rules): (std::collections::BTreeSet<String>, Vec<(String, Vec<String>)>)| {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            // A file may be where a folder would have to be, and the other way round.
            let _ = fs::create_dir_all(path.parent().unwrap()).and_then(|()| fs::write(path, "x"));
        }
        for (folder, mut lines) in rules {
            lines.retain(|line| compile(line.as_bytes()).is_ok());
            for name in [".gitignore", IGNORE_FILE] {
                let _ = fs::write(root.path().join(&folder).join(name), lines.join("\n"));
            }
        }
        let expected = kept_by_git(git_dir.path(), root.path()).unwrap();
        prop_assert_eq!(without_ignore_files(keys(root.path())), without_ignore_files(expected.clone()));
        // Asked for one by one, without the walk.
        let folder = Folder::open(root.path()).unwrap();
        let mut ignored = IgnoredPaths::new(&folder);
        let all = without_ignore_files(keys_following(root.path(), FollowSymlinks::No, &Filter::default()));
        for key in all {
            prop_assert_eq!(
                ignored.contain(Path::new(&key), false).unwrap(),
                !expected.contains(&key),
                "{}",
                key
            );
        }
        Ok(())
    };
    runner.run(&(files, rules), same).unwrap();
}

#[test]
fn deeper_files_come_first_and_nothing_below_an_ignored_folder_is_taken_back() {
    let root = tree(&[
        (".brigadeignore", "\u{feff}*.log\r\n/build/\r\ntmp/\r\n!keep.log\r\n# a comment\r\n\r\n"),
        ("keep.log", ""),
        ("a.log", ""),
        ("build/x", ""),
        ("build/.brigadeignore", "!x\n"),
        ("sub/build/x", ""),
        ("sub/.brigadeignore", "!b.log\n/only-here\nkeep.log\n"),
        ("sub/b.log", ""),
        ("sub/keep.log", ""),
        ("sub/deep/b.log", ""),
        ("sub/deep/only-here", ""),
        ("sub/only-here", ""),
        ("only-here", ""),
        ("sub/tmp", "a file, and no folder"),
        ("x/tmp/y", ""),
    ]);
    let expected = [
        "keep.log",
        "only-here",
        "sub/b.log",
        "sub/build/x",
        "sub/deep/b.log",
        "sub/deep/only-here",
        "sub/tmp",
    ];
    assert_eq!(keys(root.path()), expected);
    let all = keys_following(root.path(), FollowSymlinks::No, &Filter::default());
    assert_eq!(all.len(), 15, "{all:?}");
    // Patterns come on top, and hide no ignore file.
    let hidden = Filter::new(&["sub".to_owned()], &[".*".to_owned()]).unwrap().with_ignore_files(true);
    assert_eq!(keys_following(root.path(), FollowSymlinks::No, &hidden), &expected[2..]);
}

/// The rules of a folder hold for names that come before the name of its ignore file, too.
#[test]
fn ignore_file_is_found_before_the_entries_that_precede_it() {
    let root = tree(&[("!a", ""), ("+b", ""), (".brigadeignore", "\\!a\n"), ("z", "")]);
    let found = found(root.path(), FollowSymlinks::No, &reading());
    assert!(matches!(found[0], Found::IgnoreFile), "{found:?}");
    assert_eq!(keys(root.path()), ["+b", "z"]);
}

#[test]
fn path_whose_folder_is_gone_is_under_the_rules_of_the_folders_that_are_there() {
    let root = tree(&[(".brigadeignore", "*.log\n/gone/x/\n"), ("a/.brigadeignore", "!b.log\n")]);
    let folder = Folder::open(root.path()).unwrap();
    let filter = reading();
    let mut exclusions = Exclusions::new(&folder, &filter);
    let mut contain = |key: &str| exclusions.contain(key).unwrap();
    assert!(!contain("z.log"), "no ignore file is looked for if the walk has met none");
    exclusions.expect_ignore_files();
    let mut contain = |key: &str| exclusions.contain(key).unwrap();
    for (key, expected) in [
        ("z.log", true),
        ("a/b.log", false),
        ("a/c.log", true),
        ("a/gone/b.log", false),
        ("gone/b.log", true),
        ("gone/x", false),
        ("gone/x/y", true),
        ("gone/y", false),
        ("a/.brigadeignore", true),
        ("z.log/x", true),
    ] {
        assert_eq!(contain(key), expected, "{key}");
    }
}

#[test]
fn link_is_no_way_around_an_ignore_file() {
    let root = tree(&[
        (".brigadeignore", "/private/*.txt\n/links/c\n"),
        ("private/a.txt", ""),
        ("private/b", ""),
        ("private/deep/.brigadeignore", "secret\n"),
        ("private/deep/secret", ""),
        ("private/deep/plain", ""),
        ("c", ""),
    ]);
    fs::create_dir(root.path().join("links")).unwrap();
    for (target, link) in [
        ("../private", "links/folder"),
        ("../private/a.txt", "links/file"),
        ("../private/deep/secret", "links/secret"),
        ("../private/deep/.brigadeignore", "links/rules"),
        ("../c", "links/c"),
        ("../c", "links/d"),
    ] {
        symlink(target, root.path().join(link)).unwrap();
    }
    let expected =
        ["c", "links/d", "links/folder/b", "links/folder/deep/plain", "private/b", "private/deep/plain"];
    for links in [FollowSymlinks::Inside, FollowSymlinks::All] {
        assert_eq!(keys_following(root.path(), links, &reading()), expected);
        let canonical = fs::canonicalize(root.path()).unwrap();
        let (folder, filter) = (Folder::open(&canonical).unwrap().following(links), reading());
        let mut exclusions = Exclusions::new(&folder, &filter);
        for key in [
            "links/folder/a.txt",
            "links/file",
            "links/secret",
            "links/folder/deep/secret",
            "links/folder/gone.txt",
        ] {
            assert!(exclusions.contain(key).unwrap(), "{key}");
        }
        for key in expected {
            assert!(!exclusions.contain(key).unwrap(), "{key}");
        }
    }
}

#[test]
fn file_that_cannot_be_used_is_an_error_with_its_path_and_line() {
    for (text, why) in [
        (&b"a\n\n[b\n"[..], "line 3: \"[b\": the [ has no ]"),
        (b"a\r\nb\\\r\n", "line 2: \"b\\\\\": the backslash at the end"),
        (b"a\n\xff\n", "line 2: it is not UTF-8"),
        (&vec![b'\n'; 1024 * 1024 + 1], "it has more than 1 MiB"),
    ] {
        let root = tree(&[("sub/a", ""), ("sub/0", ""), ("z", "")]);
        fs::write(root.path().join("sub/.brigadeignore"), text).unwrap();
        let message = refusal(root.path(), FollowSymlinks::No);
        assert!(
            message.starts_with("ignore_files: ") && message.contains("/sub/.brigadeignore: "),
            "{message}"
        );
        assert!(message.contains(why), "{message}");
        // Nothing of the folder is seen, and a walk that reads none does not care.
        let found = found(root.path(), FollowSymlinks::No, &reading());
        assert!(matches!(&found[..], [Found::BadIgnoreFile(_), Found::File(_)]), "{found:?}");
        assert_eq!(keys_following(root.path(), FollowSymlinks::No, &Filter::default()).len(), 4);
    }
    let largest = tree(&[("a", ""), (".brigadeignore", &"\n".repeat(1024 * 1024 - 2))]);
    let file = fs::File::options().append(true).open(largest.path().join(IGNORE_FILE));
    std::io::Write::write_all(&mut file.unwrap(), b"a\n").unwrap();
    assert_eq!(keys(largest.path()), [""; 0]);
}

/// S5: `[!a]` is compiled to a pattern a hundred times as long. An ignore file of 1 MiB took more than 12 GB of memory, and
/// ended the process. Compiling stops at 2 MiB of such patterns.
#[test]
fn s5_brackets_that_would_take_gigabytes_are_refused_at_their_line() {
    for (line, most) in [("[!a]x\n", 10_000), ("[!a]", 1)] {
        let file = line.repeat(200 * 1024 / line.len());
        let (number, why) = compile(file.as_bytes()).unwrap_err();
        assert!(number.is_some_and(|number| number <= most) && why.contains("brackets"), "{number:?}: {why}");
    }
    // Names without brackets may fill the file.
    assert!(compile("ab\n".repeat(100 * 1024).as_bytes()).is_ok());
}

#[test]
fn what_is_no_regular_file_is_an_error_and_a_fifo_does_not_hang() {
    let outside = tree(&[("rules", "a\n")]);
    let place = |root: &Path| root.join("sub/.brigadeignore");
    let kinds: [(Make<'_>, &str); 4] = [
        (&|root| fs::create_dir(place(root)).unwrap(), "it is not a regular file"),
        (&|root| make_fifo(&place(root)), "it is not a regular file"),
        (&|root| symlink("../rules", place(root)).unwrap(), "it is a symbolic link, and none are followed"),
        (&|root| symlink(outside.path().join("rules"), place(root)).unwrap(), "it is a symbolic link"),
    ];
    for (make, why) in kinds {
        let root = tree(&[("rules", "a\n"), ("sub/a", ""), ("sub/b", "")]);
        make(root.path());
        let message = refusal(root.path(), FollowSymlinks::No);
        assert!(message.contains("/sub/.brigadeignore: ") && message.contains(why), "{message}");
    }
    // The same links, followed.
    let root = tree(&[("rules", "a\n"), ("sub/a", ""), ("sub/b", "")]);
    symlink("../rules", place(root.path())).unwrap();
    assert_eq!(keys_following(root.path(), FollowSymlinks::Inside, &reading()), ["rules", "sub/b"]);
    fs::remove_file(place(root.path())).unwrap();
    symlink(outside.path().join("rules"), place(root.path())).unwrap();
    assert_eq!(keys_following(root.path(), FollowSymlinks::All, &reading()), ["rules", "sub/b"]);
    assert!(refusal(root.path(), FollowSymlinks::Inside).contains("leads out of the tree"));
}

#[test]
fn file_that_may_not_be_read_is_an_error() {
    let root = tree(&[(".brigadeignore", "a\n"), ("a", "")]);
    let path = root.path().join(IGNORE_FILE);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    assert!(refusal(root.path(), FollowSymlinks::No).contains("Permission denied"));
}

/// Makes the ignore file of the folder `sub` of a tree.
type Make<'a> = &'a dyn Fn(&Path);

fn make_fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
}
