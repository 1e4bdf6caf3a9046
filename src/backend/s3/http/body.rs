//! Bodies on their way, either way, within the limits of their request.

use std::io::Read;
use std::time::Duration;

use crate::backend::s3::http::thread_context::is_cut_off;
use crate::backend::s3::request::S3Request;
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;

/// A request may take this long, and as long again as its body takes at the rate below. Idle limits
/// end what stands still; this ends what only pretends to move.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(300);
/// Bytes a second.
const SLOWEST_RATE: u64 = 8 * 1024;

/// How long a request with such a body may take.
pub(crate) fn allowance(length: u64) -> Duration {
    SHORTEST_DEADLINE + Duration::from_secs(length / SLOWEST_RATE)
}

/// What takes the body of an answer as it comes.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&mut dyn Read) -> std::io::Result<()>;

/// A body that ends in an error when the exchange is cancelled or out of time.
pub(crate) struct Timed<'a> {
    inner: &'a mut dyn Read,
    operation: Operation,
    until: Duration,
    exchange: &'a RequestContext<'a>,
    /// Bytes of the body that were not asked for yet.
    left: u64,
    /// It is a file's content, and counts for the progress.
    counts: bool,
    pub(crate) moved: u64,
}

impl<'a> Timed<'a> {
    pub(crate) fn new(
        exchange: &'a RequestContext<'a>,
        ask: &S3Request<'_>,
        inner: &'a mut dyn Read,
        counts: bool,
    ) -> Self {
        let until = exchange.clock.now() + allowance(ask.length.max(ask.expected));
        Self { inner, operation: ask.operation, until, exchange, left: ask.length, counts, moved: 0 }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.exchange.check(self.operation).map_err(std::io::Error::other)?;
        if self.exchange.clock.now() >= self.until {
            let late = "the body did not move within the request's deadline";
            let error = StorageError::new(ErrorKind::Timeout, self.operation, late);
            return Err(std::io::Error::other(error));
        }
        if is_cut_off() {
            // Nobody takes it any more. The HTTP layer wants a whole body before it looks at the answer.
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..count].fill(0);
            self.left -= count as u64;
            return Ok(count);
        }
        let count = self.inner.read(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        if self.counts {
            self.moved += count as u64;
            self.exchange.trace.progress.bytes_sent(count as u64);
        }
        Ok(count)
    }
}
