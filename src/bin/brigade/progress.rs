//! Progress of a run: lines that are redrawn on a terminal, a line every ten seconds elsewhere.

use std::collections::HashMap;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bucket_brigade::{Event, Observer, Progress, ProgressSnapshot};
use crossbeam_channel::{RecvTimeoutError, Sender};
use indicatif::{BinaryBytes, HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

use crate::printable::Printable;

/// Interval at which a terminal is redrawn.
const FRAME: Duration = Duration::from_millis(100);
/// Interval of lines where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The place where progress is shown. Cheap to clone; clones share the place.
#[derive(Clone)]
pub(crate) enum Display {
    /// Nowhere.
    Hidden,
    /// Lines at the bottom of a terminal, redrawn.
    Terminal(MultiProgress),
    /// One line after another.
    Lines,
}

impl Display {
    pub(crate) fn new(quiet: bool) -> Self {
        match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Self::Hidden,
            (false, true) => Self::Terminal(MultiProgress::new()),
            (false, false) => Self::Lines,
        }
    }

    /// Runs `write`, whose output appears above the lines of progress.
    pub(crate) fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        match self {
            Self::Terminal(lines) => lines.suspend(write),
            Self::Hidden | Self::Lines => write(),
        }
    }

    /// Prints a line to standard error.
    pub(crate) fn print_line(&self, text: &str) {
        // Ignored: a closed standard error has no reader.
        self.above(|| drop(writeln!(anstream::stderr(), "{text}")));
    }
}

/// Shows the progress of one run until it is dropped.
pub(crate) struct Follower {
    pub(crate) progress: Progress,
    watched: Arc<Watched>,
    painter: Option<(Sender<()>, JoinHandle<()>)>,
}

/// State that comes from events, in addition to the counters of [`Progress`].
struct Watched {
    display: Display,
    retries: AtomicU64,
    /// Larger files have a line of their own.
    large: u64,
    files: Mutex<HashMap<String, ProgressBar>>,
}

impl Follower {
    /// Starts to show progress. The text `what` is shown until the plan is known.
    pub(crate) fn start(display: &Display, what: &str, large: u64) -> Self {
        let progress = Progress::new();
        let watched = Arc::new(Watched {
            display: display.clone(),
            retries: AtomicU64::new(0),
            large,
            files: Mutex::default(),
        });
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (seen, counts, what) = (watched.clone(), progress.clone(), what.to_owned());
        let paint = move || {
            let mut painter = Painter::new(&seen, &what);
            while stopped.recv_timeout(painter.interval()) == Err(RecvTimeoutError::Timeout) {
                painter.draw(&counts.snapshot(), seen.retries.load(Relaxed));
            }
            painter.clear();
        };
        let painter = match display {
            Display::Hidden => None,
            // Without the thread the run goes on, and shows no progress.
            _ => std::thread::Builder::new().name("brigade-progress".to_owned()).spawn(paint).ok(),
        };
        Self { progress, watched, painter: painter.map(|thread| (stop, thread)) }
    }

    /// Returns the observer that a run reports its events to.
    pub(crate) fn observer(&self) -> Arc<dyn Observer> {
        let watched = self.watched.clone();
        Arc::new(move |event: &Event| watched.on_event(event))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.painter.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Watched {
    fn on_event(&self, event: &Event) {
        if let Event::Retrying { .. } = event {
            self.retries.fetch_add(1, Relaxed);
        }
        let Display::Terminal(lines) = &self.display else { return };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::UploadStarted { key, bytes } if *bytes > self.large => {
                let line =
                    lines.add(ProgressBar::new(*bytes).with_style(style(
                        "  {bar:20} {binary_bytes:>11}/{binary_total_bytes:11} {wide_msg}",
                    )));
                line.set_message(Printable(key).to_string());
                files.insert(key.clone(), line);
            }
            Event::PartFinished { key, bytes, .. } => {
                if let Some(line) = files.get(key) {
                    line.inc(*bytes);
                }
            }
            Event::UploadFinished { key, .. } | Event::UploadFailed { key, .. } => {
                if let Some(line) = files.remove(key) {
                    line.finish_and_clear();
                    lines.remove(&line);
                }
            }
            _ => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

/// Draws the overall line.
struct Painter {
    /// The line on a terminal.
    line: Option<ProgressBar>,
    planned: bool,
    /// Time of the first frame in which a byte was sent.
    sending: Option<Instant>,
}

impl Painter {
    fn new(watched: &Watched, what: &str) -> Self {
        let line = match &watched.display {
            Display::Terminal(lines) => {
                let line = lines.insert(0, ProgressBar::new_spinner());
                line.set_message(what.to_owned());
                Some(line)
            }
            _ => None,
        };
        Self { line, planned: false, sending: None }
    }

    fn interval(&self) -> Duration {
        if self.line.is_some() { FRAME } else { LINE_INTERVAL }
    }

    fn draw(&mut self, at: &ProgressSnapshot, retries: u64) {
        let is_planned = at.files_total + at.deletes_total > 0;
        let sending = (at.bytes_sent > 0).then(|| self.sending.get_or_insert_with(Instant::now).elapsed());
        let rate = sending.map(|since| Rate::of(at, since));
        let Some(line) = &self.line else {
            if is_planned {
                // Ignored: a closed standard error has no reader.
                let _ = writeln!(anstream::stderr(), "{}", plain_line(at, retries, rate.as_ref()));
            }
            return;
        };
        if !is_planned {
            line.tick();
            return;
        }
        if !std::mem::replace(&mut self.planned, true) {
            line.set_style(style("{bar:24} {binary_bytes}/{binary_total_bytes}  {msg}"));
            line.reset();
        }
        line.set_length(at.bytes_total);
        line.set_position(at.bytes_done);
        let rate = rate.map(|rate| format!("{rate}  ")).unwrap_or_default();
        line.set_message(rate + &counts_text(at, retries));
    }

    fn clear(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }
}

/// Bytes sent a second, and the time left at that rate. What the store had already counts as done, not as sent.
struct Rate {
    per_second: u64,
    left: Duration,
}

impl Rate {
    fn of(at: &ProgressSnapshot, sending: Duration) -> Self {
        let millis = u64::try_from(sending.as_millis()).unwrap_or(u64::MAX).max(1);
        let per_second = at.bytes_sent.saturating_mul(1000) / millis;
        let left = at.bytes_total.saturating_sub(at.bytes_done) / per_second.max(1);
        Self { per_second, left: Duration::from_secs(left) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s, {} left", BinaryBytes(self.per_second), HumanDuration(self.left))
    }
}

fn counts_text(at: &ProgressSnapshot, retries: u64) -> String {
    let mut text = format!("{}/{} files", HumanCount(at.files_done), HumanCount(at.files_total));
    if at.bytes_sent == 0 && at.bytes_hashed > 0 {
        text = format!("{text}  {} hashed", BinaryBytes(at.bytes_hashed));
    }
    let retry_name = if retries == 1 { "retry" } else { "retries" };
    for (count, name) in [(at.deletes_done, "deleted"), (at.files_failed, "failed"), (retries, retry_name)] {
        if count > 0 {
            text = format!("{text}  {} {name}", HumanCount(count));
        }
    }
    text
}

fn plain_line(at: &ProgressSnapshot, retries: u64, rate: Option<&Rate>) -> String {
    let rate = rate.map(|rate| format!(", {rate}")).unwrap_or_default();
    let (done, total) = (BinaryBytes(at.bytes_done), BinaryBytes(at.bytes_total));
    format!("{}, {done} of {total}{rate}", counts_text(at, retries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_files_bytes_rate_time_left_and_retries() {
        let progress = Progress::new();
        let mut at = progress.snapshot();
        (at.files_done, at.files_total, at.bytes_done, at.bytes_total) = (1200, 3000, 4 << 20, 12 << 20);
        at.bytes_hashed = 8 << 20;
        let line = plain_line(&at, 3, None);
        assert_eq!(line, "1,200/3,000 files  8.00 MiB hashed  3 retries, 4.00 MiB of 12.00 MiB");
        // Half of the bytes were stored by an earlier run.
        at.bytes_sent = 2 << 20;
        let line = plain_line(&at, 3, Some(&Rate::of(&at, Duration::from_secs(4))));
        assert_eq!(
            line,
            "1,200/3,000 files  3 retries, 4.00 MiB of 12.00 MiB, 512.00 KiB/s, 16 seconds left"
        );
    }
}
