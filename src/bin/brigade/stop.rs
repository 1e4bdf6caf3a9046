//! Signals: the first stops a run gently, the second at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bucket_brigade::{CancelToken, ErrorKind, Operation, StorageError};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::progress::Display;

const STOPPING: &str =
    "stopping: what is in flight ends within 5 s, the rest stays pending; once more ends at once";
const CUT_OFF: &str = "ended: something in flight did not end within 5 s; the next run finds out about it";

/// What is in flight when a signal comes has this long to end.
const GRACE: Duration = Duration::from_secs(5);

/// From now on a write beyond the limit on the size of files (`ulimit -f`) is an error, as on a full disk. By itself
/// the signal ends the process without a word.
pub(crate) fn survive_limits() {
    // Where it cannot be handled all else goes on.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// Whether and by what this process was told to stop.
#[derive(Clone)]
pub(crate) struct Stop {
    pub(crate) token: CancelToken,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// From now on signals cancel the token.
    pub(crate) fn on_signals(display: &Display) -> Result<Self, StorageError> {
        Self::listen(display).map_err(|error| {
            let what = "cannot listen for signals";
            StorageError::new(ErrorKind::Other, Operation::Configure, what).with_source(error)
        })
    }

    fn listen(display: &Display) -> io::Result<Self> {
        let stop = Self { token: CancelToken::new(), signal: Arc::default() };
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (told, display) = (stop.clone(), display.clone());
        std::thread::Builder::new().name("brigade-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if told.signal.swap(signal, Ordering::SeqCst) != 0 {
                    signal_hook::low_level::exit(128 + signal);
                }
                told.token.cancel();
                end_after_grace(signal, &display);
                aside(&display, STOPPING);
            }
        })?;
        Ok(stop)
    }

    /// The exit code of a run that a signal stopped.
    pub(crate) fn code(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}

/// A process that is told to stop ends, whatever it waits for.
fn end_after_grace(signal: i32, display: &Display) {
    let display = display.clone();
    let end = move || {
        std::thread::sleep(GRACE);
        aside(&display, CUT_OFF);
        std::thread::sleep(Duration::from_millis(100));
        signal_hook::low_level::exit(128 + signal);
    };
    if std::thread::Builder::new().spawn(end).is_err() {
        signal_hook::low_level::exit(128 + signal);
    }
}

/// Says it on a thread of its own: a terminal that stands still must not keep the next signal waiting.
fn aside(display: &Display, text: &'static str) {
    let display = display.clone();
    // Without a thread there is nothing more to be said.
    let _ = std::thread::Builder::new().spawn(move || display.say(text));
}
