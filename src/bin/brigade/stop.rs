//! Signals: the first stops a run gently, the second at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bucket_brigade::{CancelToken, ErrorKind, Operation, StorageError};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::progress::Display;

/// What is in flight when a signal comes has this long to end.
const GRACE: Duration = Duration::from_secs(5);

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
                display.say("stopping: what is in flight ends within 5 s, the rest stays pending; once more ends at once");
                // A process that is told to stop ends, whatever it waits for.
                let _ = std::thread::Builder::new().spawn(move || {
                    std::thread::sleep(GRACE);
                    signal_hook::low_level::exit(128 + signal);
                });
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
