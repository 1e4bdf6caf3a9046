//! Counts what a connection carries, below TLS, and reads responses that come before their request was sent.

use std::io;
use std::time::{Duration, Instant};

use ureq::Timeout;
use ureq::unversioned::transport::time::Duration as UreqDuration;
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use crate::backend::s3::http::thread_context::{context_is, count_metric, update_context};

/// A connection that received something this recently is reused without a check. ureq checks twice a request, which
/// takes six system calls. If the server has closed it after all, the request fails and is retried, and a retry
/// checks.
const UNCHECKED_REUSE: Duration = Duration::from_millis(1);

/// The interval at which a wait for input looks at the cancel token.
const CANCEL_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The wait for a response after the run was cancelled. Most responses come within it, and then the outcome of the
/// request is known.
const CANCEL_GRACE: Duration = Duration::from_secs(3);

fn is_grace_over() -> bool {
    context_is(|current| current.cancel.is_cancelled_for(CANCEL_GRACE))
}

/// Counts connections and bytes. Allows a longer silence before a response than within it. Reads a response that a
/// server sends before it has read the whole request body.
#[derive(Debug)]
pub(crate) struct MeteredTransport<In> {
    inner: In,
    /// The time of the last input; `None` if the last wait brought nothing.
    last_input: Option<Instant>,
    /// The server has closed its side: what is sent goes nowhere.
    write_closed: bool,
}

/// Returns whether the error means that the server closed the connection.
fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted
    )
}

/// Records that the connection was reset instead of a response. By then a body that fits the socket's buffers is
/// written, so the server did not read it. A reused connection that was not checked may have been closed earlier.
fn mark_body_unread() {
    update_context(|current| current.cut_off |= current.has_body && current.known_open);
}

impl<In: Transport> MeteredTransport<In> {
    /// Wraps a connection that was just made.
    pub(crate) fn new(inner: In) -> Self {
        count_metric(|metrics| metrics.connections(1));
        update_context(|current| current.known_open = true);
        Self { inner, last_input: None, write_closed: false }
    }

    /// Waits for input, and ends the wait if the run was cancelled.
    fn await_input_or_cancel(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let whole = timeout.for_read();
        let began = Instant::now();
        loop {
            let left = whole.after.saturating_sub(began.elapsed());
            let last = left <= CANCEL_POLL_INTERVAL;
            let after = UreqDuration::Exact(left.min(CANCEL_POLL_INTERVAL));
            match self.inner.await_input(NextTimeout { after, ..whole }) {
                Err(ureq::Error::Timeout(_)) if is_grace_over() => {
                    let why = "the run was cancelled before the response came";
                    return Err(ureq::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)));
                }
                // Only this slice of the wait is over.
                Err(ureq::Error::Timeout(_)) if !last => {}
                result => return result,
            }
        }
    }
}

impl<In: Transport> Transport for MeteredTransport<In> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if self.write_closed {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(ureq::Error::Io(error)) if is_closed(&error) => {
                // The server may have sent a response before it closed, which says more than the reset. So the rest
                // of the body is dropped, and the response is read.
                self.write_closed = true;
                update_context(|current| current.cut_off = true);
                return Ok(());
            }
            // Other errors may be the network's, with no response to wait for.
            sent => sent?,
        }
        count_metric(|metrics| {
            metrics.bytes_sent(amount as u64);
            metrics.sends(1);
        });
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if timeout.reason == Timeout::RecvResponse && timeout.after != UreqDuration::NotHappening {
            // The idle limit holds within a response. Before it, only the limit for the whole response does.
            timeout.per_read = None;
        }
        let before = self.inner.buffers().input().len();
        // A reset within a response is a broken connection, not a refused body.
        let silent = timeout.reason == Timeout::RecvResponse && before == 0;
        let result = self.await_input_or_cancel(timeout);
        if let Err(ureq::Error::Io(error)) = &result
            && error.kind() == io::ErrorKind::ConnectionReset
            && silent
        {
            mark_body_unread();
        }
        let progress = result?;
        let after = self.inner.buffers().input().len();
        self.last_input = progress.then(Instant::now);
        count_metric(|metrics| metrics.bytes_received(after.saturating_sub(before) as u64));
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        let may_trust = context_is(|current| !current.known_open);
        let fresh = may_trust && self.last_input.is_some_and(|at| at.elapsed() < UNCHECKED_REUSE);
        // A connection that the server closed for writing is never reused.
        if self.write_closed || fresh {
            return !self.write_closed;
        }
        let open = self.inner.is_open();
        update_context(|current| current.known_open |= open);
        open
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
