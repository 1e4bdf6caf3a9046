//! Credentials that a program prints (`credential_process`).

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use crate::backend::s3::auth::chain::document::Document;
use crate::backend::s3::auth::chain::walk::{Answer, Walk, failed, misconfigured};
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::profiles::WholeProfile;
use crate::error::StorageError;

/// The bytes that a process may print.
const MAX_OUTPUT: usize = 64 * 1024;
/// A wait for output looks this often whether the process has ended: what it started may keep the pipe open.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The longest pause before a process that has closed its output is looked at again.
const END_INTERVAL: Duration = Duration::from_millis(20);

/// Returns the credentials that the process of the walk's profile prints.
pub(crate) fn of_profile(walk: &Walk<'_>) -> Result<Answer, StorageError> {
    of_settings(walk, &walk.profile)
}

/// Does the same for any profile.
pub(crate) fn of_settings(walk: &Walk<'_>, profile: &WholeProfile) -> Result<Answer, StorageError> {
    let place = format!("credential_process in profile {}", profile.name);
    let Some(line) = profile.value("credential_process") else {
        return Ok(Answer::Nothing(format!("{place}: not set")));
    };
    let words = shlex::split(&line).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| misconfigured(&place, "its quotes do not match, or it is empty"))?;
    let printed = run(&words, None, walk.limits.process).map_err(|error| failed(&place, error))?;
    // The error never quotes what it printed, which may hold secrets.
    let credentials = read_output(&printed).map_err(|why| failed(&place, format!("its output: {why}")));
    credentials.map(Answer::Credentials)
}

pub(crate) fn read_output(printed: &[u8]) -> Result<Credentials, String> {
    let document = Document::parse(printed)?;
    if document.number("Version") != Some(1) {
        return Err("Version is not 1".to_owned());
    }
    document.credentials("SessionToken")
}

/// Runs a program and returns what it prints, or a text for people that does not quote it.
///
/// It runs in `folder`, or in the current one.
pub(crate) fn run(
    words: &[String],
    folder: Option<&Path>,
    limit: Duration,
) -> Result<Zeroizing<Vec<u8>>, String> {
    let until = Instant::now() + limit;
    // The arguments may hold a secret: only the program is named.
    let program = &words[0];
    let cannot = |what: &str, error: io::Error| format!("{program} {what}: {error}");
    let mut command = Command::new(OsStr::new(program));
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    let mut child = command
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // What it starts can be killed with it.
        .process_group(0)
        .spawn()
        .map_err(|error| cannot("could not be started", error))?;
    let output = child.stdout.take();
    let mut running = Running { child, end: None };
    let late = || format!("{program} did not end within {} s", limit.as_secs_f64());
    let mut printed = Zeroizing::new(Vec::with_capacity(MAX_OUTPUT + 1));
    if let Some(output) = output {
        match running.read_all(output, until, &mut printed) {
            Ok(true) => {}
            Ok(false) => return Err(late()),
            Err(error) => return Err(cannot("could not be read", error)),
        }
    }
    if printed.len() > MAX_OUTPUT {
        return Err(format!("{program} printed more than 64 KiB"));
    }
    match running.wait_until(until) {
        Some(End::Status(status)) if !status.success() => Err(format!("{program} failed ({status})")),
        Some(_) => Ok(printed),
        None => Err(late()),
    }
}

/// A process that is killed, with its group, unless it has ended.
struct Running {
    child: Child,
    end: Option<End>,
}

#[derive(Clone, Copy)]
enum End {
    Status(ExitStatus),
    /// The host ignores SIGCHLD, and the system has told nobody. What was printed decides.
    Unknown,
}

impl Running {
    fn has_ended(&mut self) -> bool {
        if self.end.is_none() {
            self.end = match self.child.try_wait() {
                Ok(status) => status.map(End::Status),
                Err(_) => Some(End::Unknown),
            };
        }
        self.end.is_some()
    }

    /// Reads until the pipe is closed, or the process has ended and the pipe is empty. Returns false once the time is
    /// over.
    fn read_all(
        &mut self,
        mut output: ChildStdout,
        until: Instant,
        printed: &mut Vec<u8>,
    ) -> io::Result<bool> {
        let mut ended = false;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let wait = if ended { Duration::ZERO } else { left.min(POLL_INTERVAL) };
            if is_readable(&output, wait)? {
                // Never beyond the room that was made first: no copy of a secret is left behind.
                let room = MAX_OUTPUT + 1 - printed.len();
                let mut buffer = Zeroizing::new([0; 4096]);
                let count = output.read(&mut buffer[..room.min(4096)])?;
                printed.extend_from_slice(&buffer[..count]);
                if count == 0 || printed.len() > MAX_OUTPUT {
                    return Ok(true);
                }
            } else if ended {
                return Ok(true);
            } else {
                // What it printed before its end is in the pipe by now, and is read first.
                ended = self.has_ended();
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    /// Waits for the end of the process; `None` once the time is over.
    fn wait_until(&mut self, until: Instant) -> Option<End> {
        let mut pause = Duration::from_millis(1);
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(pause);
            pause = (pause * 2).min(END_INTERVAL);
        }
        self.end
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.end.is_none() {
            // It has not been waited for, so the number still is that of its group.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Waits until there is something to read, or the pipe is closed.
fn is_readable(output: &ChildStdout, wait: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        // A signal handler of the host ran.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn shell(script: &str, limit: Duration) -> Result<String, String> {
        let words = ["sh", "-c", script].map(str::to_owned);
        run(&words, None, limit).map(|printed| String::from_utf8(printed.to_vec()).unwrap())
    }

    /// Returns whether a process is there. One that was killed and is not waited for yet is a zombie.
    fn is_running(pid: &str) -> bool {
        let state = Command::new("ps").args(["-o", "stat=", "-p", pid.trim()]).output().unwrap();
        let state = String::from_utf8(state.stdout).unwrap();
        !state.trim().is_empty() && !state.trim().starts_with('Z')
    }

    #[test]
    fn n_a_process_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let limit = Duration::from_millis(500);
        for script in [
            // It prints, and hangs; its child has the pipe, too.
            "echo CANARY; sleep 1000 & echo $! > FILE; wait",
            // It closes its output, and hangs.
            "echo CANARY; exec >/dev/null; sleep 1000 & echo $! > FILE; wait",
        ] {
            let began = Instant::now();
            let error = shell(&script.replace("FILE", file.to_str().unwrap()), limit).unwrap_err();
            assert_eq!(error, "sh did not end within 0.5 s");
            assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
            let pid = std::fs::read_to_string(&file).unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while is_running(&pid) {
                assert!(Instant::now() < until, "{pid} still runs");
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn n_a_process_that_leaves_its_pipe_to_another_has_ended_all_the_same() {
        let began = Instant::now();
        let printed = shell("echo $$; sleep 5 & echo all", HOUR).unwrap();
        assert!(printed.ends_with("all\n"), "{printed}");
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }

    #[test]
    fn i8_output_without_end_is_cut_off_and_its_process_killed() {
        let error = shell("while :; do echo CANARYCANARYCANARYCANARYCANARY; done", HOUR).unwrap_err();
        assert_eq!(error, "sh printed more than 64 KiB");
        let fits = shell("head -c 65536 /dev/zero", HOUR).unwrap();
        assert_eq!(fits.len(), MAX_OUTPUT);
    }

    #[test]
    fn it_reads_nothing_and_its_errors_are_discarded() {
        assert_eq!(shell("cat; echo CANARY >&2; echo all", HOUR).unwrap(), "all\n");
        assert_eq!(shell("exit 7", HOUR).unwrap_err(), "sh failed (exit status: 7)");
    }
}
