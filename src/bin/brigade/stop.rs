//! Signals: the first stops the run and lets requests in flight finish, the second exits at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bucket_brigade::{CancelToken, ErrorKind, Operation, StorageError};
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use crate::progress::Display;

const STOPPING: &str =
    "stopping: requests in flight have 5 s to finish, the rest stays pending; a second signal exits at once";
const GRACE_OVER: &str =
    "exiting: requests in flight did not finish within 5 s; the next run checks their results";

/// Time that requests in flight have to finish after a signal.
const GRACE: Duration = Duration::from_secs(5);

/// Makes a write beyond the file size limit (`ulimit -f`) an error, as on a full disk. By default the signal ends
/// the process without a message.
pub(crate) fn handle_file_size_limit() {
    // Without the handler everything else works.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// The signal that stopped this process, if one did, and the token that it cancels.
#[derive(Clone)]
pub(crate) struct Stop {
    pub(crate) token: CancelToken,
    signal: Arc<AtomicI32>,
}

impl Stop {
    /// Listens for SIGINT and SIGTERM, which cancel the token.
    pub(crate) fn on_signals(display: &Display) -> Result<Self, StorageError> {
        Self::listen(display).map_err(|error| {
            let what = "cannot listen for signals";
            StorageError::new(ErrorKind::Other, Operation::Configure, what).with_source(error)
        })
    }

    fn listen(display: &Display) -> io::Result<Self> {
        let stop = Self { token: CancelToken::new(), signal: Arc::default() };
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let (received, display) = (stop.clone(), display.clone());
        std::thread::Builder::new().name("brigade-signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                // The second signal: the user does not want to wait.
                if received.signal.swap(signal, Ordering::SeqCst) != 0 {
                    signal_hook::low_level::exit(128 + signal);
                }
                received.token.cancel();
                exit_after_grace(signal, &display);
                print_from_thread(&display, STOPPING);
            }
        })?;
        Ok(stop)
    }

    /// Returns the exit code of a run that a signal stopped.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => u8::try_from(128 + signal).ok(),
        }
    }
}

/// Exits when the grace is over, whatever the process waits for then.
fn exit_after_grace(signal: i32, display: &Display) {
    let display = display.clone();
    let exit = move || {
        std::thread::sleep(GRACE);
        print_from_thread(&display, GRACE_OVER);
        // Enough for the message, unless standard error blocks.
        std::thread::sleep(Duration::from_millis(100));
        signal_hook::low_level::exit(128 + signal);
    };
    if std::thread::Builder::new().spawn(exit).is_err() {
        signal_hook::low_level::exit(128 + signal);
    }
}

/// Prints from a thread of its own: a terminal that blocks must not delay the next signal.
fn print_from_thread(display: &Display, text: &'static str) {
    let display = display.clone();
    // Without a thread the message is lost, and the run stops all the same.
    let _ = std::thread::Builder::new().spawn(move || display.print_line(text));
}
