//! A machine: its tree, its cache, and the process that publishes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::publisher::{Ended, Task};
use crate::tree::Tree;

/// What may happen to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    pub is_killed: bool,
    /// Its cache is lost, or put back from an old copy, while no process runs.
    pub loses_cache: bool,
}

/// What has happened to a machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Happened {
    pub starts: u64,
    pub kills: u64,
    pub stalls: u64,
    pub lost_caches: u64,
    pub old_copies: u64,
    pub uploaded: u64,
    pub deleted: u64,
    pub in_doubt: u64,
}

/// Descriptors, threads and memory of a process at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    pub descriptors: u64,
    pub threads: u64,
    pub resident_kib: u64,
}

struct Process {
    child: Child,
    said: Receiver<Ended>,
    stalled_until: Option<Instant>,
}

enum Life {
    Runs(Process),
    Rests { until: Instant },
}

pub struct Machine {
    pub name: String,
    pub tree: Tree,
    pub task: Task,
    pub happened: Happened,
    /// The number of runs by outcome and reason.
    pub outcomes: BTreeMap<String, u64>,
    /// The number of failures by kind.
    pub failures: BTreeMap<u16, u64>,
    /// Failures that no fault of this test explains, and processes that ended badly. They fail the test at its end.
    pub unexplained: Vec<String>,
    /// Of a process that is never killed, a few times a second.
    pub samples: Vec<Sample>,
    fate: Fate,
    life: Life,
    next_blow: Instant,
    next_edit: Instant,
    next_sample: Instant,
    random: fastrand::Rng,
}

fn pid_of(child: &Child) -> Pid {
    // It is not waited for yet, so the process ID is its own.
    Pid::from_child(child)
}

impl Process {
    fn start(task: &Task) -> Self {
        let (name, value) = task.to_variable();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command.env(name, value).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The last line of a process that was killed may be cut.
                if let Ok(ended) = serde_json::from_str(&line) {
                    let _ = sender.send(ended);
                }
            }
        });
        Self { child, said, stalled_until: None }
    }

    fn sample(&self) -> Option<Sample> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status")).ok()?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(process.join("fd")).ok()?.count() as u64;
        Some(Sample { descriptors, threads: number("Threads:")?, resident_kib: number("VmRSS:")? })
    }
}

impl Machine {
    pub fn new(name: &str, tree: Tree, task: Task, fate: Fate, mut random: fastrand::Rng) -> Self {
        let now = Instant::now();
        let until = now + Duration::from_millis(random.u64(0..2000));
        Self {
            name: name.to_owned(),
            tree,
            task,
            happened: Happened::default(),
            outcomes: BTreeMap::new(),
            failures: BTreeMap::new(),
            unexplained: Vec::new(),
            samples: Vec::new(),
            fate,
            life: Life::Rests { until },
            next_blow: now,
            next_edit: now,
            next_sample: now,
            random,
        }
    }

    fn folder(&self) -> &Path {
        self.task.cache.parent().unwrap()
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    /// Goes on until now.
    pub fn live(&mut self) {
        let now = Instant::now();
        if now >= self.next_edit {
            self.tree.edit();
            self.next_edit = now + self.millis(50..1500);
        }
        match &self.life {
            Life::Rests { until } if now >= *until => {
                self.suffer_loss();
                self.happened.starts += 1;
                self.life = Life::Runs(Process::start(&self.task));
                self.next_blow = now + self.millis(0..2500);
            }
            Life::Rests { .. } => {}
            Life::Runs(_) => self.run(now),
        }
    }

    fn run(&mut self, now: Instant) {
        self.take_said();
        let Life::Runs(process) = &mut self.life else { return };
        if let Some(status) = process.child.try_wait().unwrap() {
            if !status.success() {
                self.unexplained.push(format!("{}: its process ended with {status}", self.name));
            }
            self.rest(1..3000);
            return;
        }
        if let Some(until) = process.stalled_until {
            if now >= until {
                process.stalled_until = None;
                kill_process(pid_of(&process.child), Signal::CONT).unwrap();
            }
        } else if now >= self.next_sample && !self.fate.is_killed {
            self.samples.extend(process.sample());
            self.next_sample = now + Duration::from_millis(500);
        }
        if now >= self.next_blow {
            self.next_blow = now + self.millis(200..6000);
            self.strike(now);
        }
    }

    /// Kills or stalls the process.
    fn strike(&mut self, now: Instant) {
        if self.fate.is_killed && self.random.bool() {
            self.kill();
            self.rest(0..4000);
            return;
        }
        // One in eight outlasts its lease, and what others wait beyond it.
        let long = self.fate.is_killed && self.random.u8(0..8) == 0;
        let time = self.millis(if long { 35_000..50_000 } else { 50..4000 });
        let Life::Runs(process) = &mut self.life else { return };
        if process.stalled_until.is_none() {
            kill_process(pid_of(&process.child), Signal::STOP).unwrap();
            process.stalled_until = Some(now + time);
            self.happened.stalls += 1;
        }
    }

    fn kill(&mut self) {
        if let Life::Runs(process) = &mut self.life
            && process.child.try_wait().unwrap().is_none()
        {
            process.child.kill().unwrap();
            process.child.wait().unwrap();
            self.happened.kills += 1;
        }
        self.take_said();
    }

    fn rest(&mut self, millis: std::ops::Range<u64>) {
        self.take_said();
        self.life = Life::Rests { until: Instant::now() + self.millis(millis) };
    }

    /// Ends the process for good.
    pub fn end(&mut self) {
        self.kill();
        self.rest(0..1);
    }

    fn take_said(&mut self) {
        let Life::Runs(process) = &self.life else { return };
        for ended in process.said.try_iter() {
            self.unexplained.extend(ended.unexplained.iter().map(|text| format!("{}: {text}", self.name)));
            let outcome = ended.stop_reason.map(|reason| format!("{} ({reason})", ended.outcome));
            *self.outcomes.entry(outcome.unwrap_or(ended.outcome)).or_default() += 1;
            for kind in ended.kinds {
                *self.failures.entry(kind).or_default() += 1;
            }
            self.happened.uploaded += ended.uploaded;
            self.happened.deleted += ended.deleted;
            self.happened.in_doubt += u64::from(ended.was_in_doubt);
        }
    }

    /// What happens to the cache of a machine whose process does not run: it is copied, lost, or replaced by the copy.
    fn suffer_loss(&mut self) {
        let (folder, backup) = (self.folder().to_owned(), self.folder().with_extension("backup"));
        if !self.fate.loses_cache || !folder.exists() {
            return;
        }
        match self.random.u8(0..12) {
            0..=1 => copy_files(&folder, &backup),
            2 if backup.exists() => {
                copy_files(&backup, &folder);
                self.happened.old_copies += 1;
            }
            3 => {
                fs::remove_dir_all(&folder).unwrap();
                self.happened.lost_caches += 1;
            }
            _ => {}
        }
    }
}

/// The files in the folder of a cache, the cache included, with their sizes.
pub fn sizes_beside(cache: &Path) -> BTreeMap<String, u64> {
    let entries = fs::read_dir(cache.parent().unwrap()).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len())).collect()
}

/// Makes a folder that has these files, and no other.
fn copy_files(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    // As the library makes it.
    let private = fs::metadata(from).unwrap().permissions();
    fs::set_permissions(to, private).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
