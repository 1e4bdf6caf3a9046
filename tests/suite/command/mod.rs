//! The command `brigade`, as a shell sees it.

mod adoption;
mod config;
mod connection;
mod deploys;
mod errors;
pub(crate) mod injected;
mod output;
mod readers;
mod rebuild;
mod shared_state;
mod stopping;
mod tree;
mod work;

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use assert_cmd::Command;
use bucket_brigade::RescanOutcome;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::oracle::{check, check_idle};
use crate::support::proxy::{Fault, Latch, Rule, latch};
use crate::support::server::{ACCESS_KEY, SECRET_KEY};
use crate::support::{SESSION_TOKEN, World};

/// Where the worlds' trees are published to.
pub(crate) const DEST: &str = "s3://bucket/site";

/// Somebody's home, and the variables of their shell.
pub(crate) struct Shell {
    pub(crate) home: TempDir,
    variables: Vec<(&'static str, String)>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Shell {
    /// With nothing set, on a machine that is no instance of a cloud.
    pub(crate) fn bare() -> Self {
        Self { home: tempfile::tempdir().unwrap(), variables: Vec::new() }
            .set("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// With what reaches the store of a world, by way of its proxy.
    pub(crate) fn of(world: &World) -> Self {
        Self::bare()
            .set("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .set("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            .set("AWS_SESSION_TOKEN", SESSION_TOKEN)
            .set("AWS_ENDPOINT_URL", &world.proxy.endpoint())
    }

    pub(crate) fn set(mut self, name: &'static str, value: &str) -> Self {
        self.variables.retain(|(other, _)| *other != name);
        self.variables.push((name, value.to_owned()));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn std_command(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_brigade"));
        command.env_clear().env("HOME", self.home.path()).args(args);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let output = Command::from_std(self.std_command(args)).output().unwrap();
        Ended::of(output)
    }

    /// `brigade sync` of a world's tree with its cache.
    pub(crate) fn sync(&self, world: &World, args: &[&str]) -> Ended {
        self.of_tree("sync", world, args)
    }

    pub(crate) fn plan(&self, world: &World, args: &[&str]) -> Ended {
        self.of_tree("plan", world, args)
    }

    fn of_tree(&self, command: &str, world: &World, args: &[&str]) -> Ended {
        let (root, cache) = (text(world.root()), text(world.cache_path()));
        self.run(&[&[command, &root, DEST, "--cache", &cache], args].concat())
    }

    /// A command that only needs the destination, with the world's cache.
    pub(crate) fn ask(&self, world: &World, command: &str, args: &[&str]) -> Ended {
        let cache = text(world.cache_path());
        self.run(&[&[command, DEST, "--cache", &cache], args].concat())
    }
}

impl Ended {
    pub(crate) fn of(output: std::process::Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ended = Self {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        };
        for secret in [SECRET_KEY, SESSION_TOKEN] {
            assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "I7: {ended:?}");
        }
        assert!(!ended.out.contains('\u{1b}') && !ended.err.contains('\u{1b}'), "no terminal, no escapes");
        ended
    }

    /// The code, with everything that was said if it is another one.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, expected, "{self:#?}");
        self
    }

    /// That standard error says this.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not said: {self:#?}");
        self
    }

    /// That standard output shows this.
    #[track_caller]
    pub(crate) fn shows(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is not shown: {self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<_> = self.out.lines().collect();
        assert_eq!(lines.len(), 1, "one object and nothing else: {self:#?}");
        serde_json::from_str(lines[0]).unwrap()
    }
}

/// A folder of another release, with one file, and the arguments that publish it through the world's cache.
pub(crate) fn next_release(world: &World, shell: &Shell) -> Vec<String> {
    let next = shell.path("release-2");
    fs::create_dir(&next).unwrap();
    fs::write(next.join("only"), "2").unwrap();
    ["sync", &text(next), DEST, "--cache", &text(world.cache_path())].map(str::to_owned).to_vec()
}

pub(crate) fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}

/// After a command: everything of the tree is published, the oracle has nothing to say, and the cache is as
/// a rescan of this process leaves it.
#[track_caller]
pub(crate) fn all_is_well(world: &World) {
    let site = world.orchestrator();
    let report = site.rescan().unwrap();
    check(world, &site, &report);
    assert_eq!(report.outcome, RescanOutcome::Unchanged, "{report:?}");
    world.let_files_settle();
    site.rescan().unwrap();
    check_idle(world, &site);
}

/// A sync under way; what it says is kept.
pub(crate) fn started(shell: &Shell, world: &World, args: &[&str]) -> Child {
    let (root, cache) = (text(world.root()), text(world.cache_path()));
    let mut command = shell.std_command(&[&["sync", &root, DEST, "--cache", &cache], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a child says that it stops: it has handled the signal.
pub(crate) fn wait_until_it_stops(child: &mut Child) {
    let (said, mut text) = (child.stderr.as_mut().unwrap(), Vec::new());
    while !text.ends_with(b"stopping: ") {
        let mut byte = [0];
        assert!(said.read(&mut byte).unwrap() > 0, "it ended without a word");
        text.extend(byte);
    }
}

/// Keeps back the answers to uploads, but for so many at first.
pub(crate) fn held(world: &World, after: u64) -> Latch {
    let held = latch();
    world.proxy.add(Rule::new(Fault::Hold(held.clone())).method("PUT").skip(after));
    held
}

/// A tree of some files.
pub(crate) fn some_files(count: usize) -> World {
    let world = World::new();
    for n in 0..count {
        world.write(&format!("d{}/f{n:03}.txt", n % 7), format!("content of {n}"));
    }
    world
}

/// Writes a file of the home.
pub(crate) fn write_home(shell: &Shell, name: &str, content: &str) {
    let path = shell.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
