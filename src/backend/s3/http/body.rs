//! Request and response bodies, within the time limit of their request.

use std::io::Read;
use std::time::Duration;

use http::Request;
use ureq::{Agent, AsSendBody};

use crate::backend::s3::http::bandwidth::{self, Pace};
use crate::backend::s3::http::thread_context::is_cut_off;
use crate::backend::s3::request::{BodyContent, S3Request};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::request_context::RequestContext;

/// The time limit of a request without a body; a body adds its length at the rate below. Idle limits end a
/// connection on which nothing moves; this ends one on which a byte moves now and then.
const MIN_TIME_LIMIT: Duration = Duration::from_secs(300);
/// The slowest rate of a body.
const MIN_BYTES_PER_SECOND: u64 = 8 * 1024;

/// Returns the time limit of a request with a body of `length` bytes.
pub(crate) fn time_limit(length: u64) -> Duration {
    MIN_TIME_LIMIT + Duration::from_secs(length / MIN_BYTES_PER_SECOND)
}

/// A function that takes the body of a response as it comes.
pub(crate) type BodySink<'a> = &'a mut dyn FnMut(&mut dyn Read) -> std::io::Result<()>;

/// A longer body may be on its way while its time limit is extended.
const SMALL_BODY: u64 = 1024 * 1024;

/// Applies the time limits of this request where they differ from those of the agent. `total` limits all of it; a long
/// body looks at its limit itself. So does every body that may wait for its rate (`paced`): ureq would count the wait.
pub(crate) fn with_own_limits<T: AsSendBody>(
    request: &S3Request<'_>,
    total: Option<Duration>,
    paced: bool,
    agent: &Agent,
    signed: Request<T>,
) -> Request<T> {
    let usual = agent.config().timeouts().recv_response;
    let of_total = total.map(|total| usual.map_or(total, |usual| usual.min(total)));
    let response = request.timeout.into_iter().chain(of_total).min();
    if response.is_none() && request.expected == 0 {
        return signed;
    }
    let mut config = agent.configure_request(signed);
    if request.expected > 0 {
        config = config.timeout_recv_body((!paced).then(|| time_limit(request.expected)));
    }
    if let Some(limit) = response {
        config = config.timeout_recv_response(Some(limit));
    }
    if let Some(limit) = request.timeout {
        config = config.timeout_recv_body(Some(limit)).timeout_per_read(Some(limit));
    }
    let is_short = if paced { bandwidth::is_free(request.length) } else { request.length <= SMALL_BODY };
    if is_short {
        config = config.timeout_global(total);
    }
    config.build()
}

/// A body that fails once its run is cancelled or its time limit has passed, and that keeps to the rate of its backend.
pub(crate) struct TimedBody<'a> {
    inner: &'a mut dyn Read,
    operation: Operation,
    until: Duration,
    context: &'a RequestContext<'a>,
    /// Bytes of the body that were not read yet.
    left: u64,
    content: BodyContent,
    pace: Option<&'a Pace>,
    /// The body is short and of the protocol: it is counted, but does not wait.
    is_free: bool,
    /// Bytes of a file's content that were counted.
    pub(crate) moved: u64,
}

impl<'a> TimedBody<'a> {
    pub(crate) fn new(
        context: &'a RequestContext<'a>,
        request: &S3Request<'_>,
        inner: &'a mut dyn Read,
        pace: Option<&'a Pace>,
    ) -> Self {
        let length = request.length.max(request.expected);
        let until = context.clock.now() + time_limit(length);
        Self {
            inner,
            operation: request.operation,
            until,
            context,
            left: request.length,
            content: request.content,
            pace,
            is_free: request.content == BodyContent::Internal && bandwidth::is_free(length),
            moved: 0,
        }
    }

    /// Returns an error if the body must end now.
    fn check(&self) -> Result<(), StorageError> {
        self.context.check(self.operation)?;
        // The idle limits do not end a body that trickles.
        let is_over = self.context.fence.is_some_and(|fence| fence.remaining().is_zero());
        if is_over || self.context.clock.now() >= self.until {
            let late = "the body took longer than the time limit of the request";
            return Err(StorageError::new(ErrorKind::Timeout, self.operation, late));
        }
        Ok(())
    }

    /// Reads a piece, and waits until it may pass.
    fn read_paced(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let Some(pace) = self.pace else {
            return self.inner.read(buffer);
        };
        let room = pace.piece(buffer.len());
        let count = self.inner.read(&mut buffer[..room])?;
        if self.is_free {
            pace.count(self.context, count as u64);
            return Ok(count);
        }
        // The claim may be lost during the wait; the time limit of the body is not touched by it.
        let fence = self.context.fence;
        let may_wait = || match fence {
            Some(fence) if fence.remaining().is_zero() => self.check(),
            _ => self.context.check(self.operation),
        };
        self.until += pace.pass(self.context, count as u64, may_wait).map_err(std::io::Error::other)?;
        Ok(count)
    }
}

impl Read for TimedBody<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.check().map_err(std::io::Error::other)?;
        if is_cut_off() {
            // The server reads no more, but ureq wants the whole body before it reads the response: send zeros.
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
            buffer[..count].fill(0);
            self.left -= count as u64;
            return Ok(count);
        }
        let count = self.read_paced(buffer)?;
        self.left = self.left.saturating_sub(count as u64);
        let progress = &self.context.trace.progress;
        match self.content {
            BodyContent::FileSent => progress.bytes_sent(count as u64),
            BodyContent::FileReceived => progress.bytes_present(count as u64),
            // Only file content is progress.
            BodyContent::Internal => return Ok(count),
        }
        self.moved += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::backend::s3::http::bandwidth::Bandwidth;
    use crate::clock::{CancelToken, Clock, VirtualClock};
    use crate::engine::gate::Gate;
    use crate::observe::trace::Trace;
    use crate::request_context::Fence;

    const MIB: usize = 1 << 20;
    const SLOWEST: u64 = 16 * 1024;

    /// A claim that is lost at a time of the clock.
    struct LostAt<'a>(Duration, &'a VirtualClock);

    impl Fence for LostAt<'_> {
        fn check(&self, _: Operation) -> Result<Option<Duration>, StorageError> {
            Ok(None)
        }

        fn remaining(&self) -> Duration {
            self.0.saturating_sub(self.1.now())
        }

        fn note_unanswered(&self) {}
    }

    /// Reads a body of this length after `owed` bytes were taken; returns the time that it took.
    fn read(
        owed: usize,
        length: usize,
        kind: BodyContent,
        fence: Option<Duration>,
    ) -> (std::io::Result<usize>, Duration) {
        let (clock, cancel, gate, trace) =
            (VirtualClock::new(), CancelToken::new(), Gate::new(1), Trace::default());
        let lost = fence.map(|at| LostAt(at, &clock));
        let fence = lost.as_ref().map(|fence| fence as &dyn Fence);
        let context = RequestContext {
            cancel: &cancel,
            deadline: None,
            clock: &clock,
            gate: &gate,
            trace: &trace,
            fence,
        };
        let pace = Pace::new(Bandwidth::per_second(SLOWEST), &clock);
        pace.count(&context, owed as u64);
        let plain = S3Request::plain(Operation::Upload, Method::PUT, "k", "/k".to_owned(), String::new());
        let request = S3Request { length: length as u64, content: kind, ..plain };
        let mut inner = std::io::repeat(1).take(length as u64);
        let mut body = TimedBody::new(&context, &request, &mut inner, Some(&pace));
        let result = body.read_to_end(&mut Vec::new());
        (result, clock.now())
    }

    #[test]
    fn waiting_counts_for_no_time_limit_of_the_body() {
        let (result, took) = read(64 * MIB, MIB, BodyContent::FileSent, None);
        assert_eq!((result.unwrap(), took), (MIB, Duration::from_secs(65 * 64)));
        assert!(took > time_limit(MIB as u64));
    }

    #[test]
    fn claim_that_is_lost_ends_a_wait() {
        let (result, took) = read(64 * MIB, MIB, BodyContent::FileSent, Some(Duration::from_secs(100)));
        let error = result.unwrap_err().downcast::<StorageError>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!((100.0..101.0).contains(&took.as_secs_f64()), "{took:?}");
    }

    /// The head of the state is stored in time, however much is waiting.
    #[test]
    fn short_body_of_the_protocol_never_waits_and_a_long_one_does() {
        let (result, took) = read(64 * MIB, 128 * 1024, BodyContent::Internal, None);
        assert_eq!((result.unwrap(), took), (128 * 1024, Duration::ZERO));
        let (result, took) = read(0, MIB, BodyContent::Internal, None);
        assert_eq!((result.unwrap(), took), (MIB, Duration::from_secs(64)));
    }
}
