//! Serves the requests of a connection one after another. Part of `proxy.rs`.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::rules::{Fault, HeldRequest};
use super::wire::{Body, Head, Socket, Source};
use super::{Connection, Seen, Shared, lock};

/// The fate of the connection after a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Keep,
    Close,
    Reset,
}

/// Serves a client until the connection is closed by either side, by a fault, or by the end of the proxy.
pub(super) fn serve(shared: &Shared, connection: &Connection, client: &Socket) {
    let mut exchange =
        Exchange { shared, connection, source: client.reader(), client: client.clone(), upstream: None };
    loop {
        match exchange.next() {
            Ok(After::Keep) => {}
            Ok(After::Reset) => {
                exchange.client.reset_on_close();
                if let Some(upstream) = &exchange.upstream {
                    upstream.socket.reset_on_close();
                }
                return;
            }
            Ok(After::Close) | Err(_) => return,
        }
    }
}

struct Upstream {
    addr: SocketAddr,
    socket: Socket,
    source: Source,
}

struct Exchange<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    source: Source,
    client: Socket,
    upstream: Option<Upstream>,
}

/// Counts a request as in flight until it is dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Exchange<'_> {
    /// Serves one request.
    fn next(&mut self) -> io::Result<After> {
        let Some(head) = Head::read(&mut self.source)? else {
            return Ok(After::Close);
        };
        let _under_way = UnderWay::begin(&self.shared.under_way);
        let received = self.shared.arrived(&head);
        let fault = self.shared.fault_for(&head);
        match &fault {
            Some(Fault::ResetBefore) => return Ok(After::Reset),
            Some(Fault::Stall) => {
                self.connection.sleep(std::time::Duration::MAX);
                return Ok(After::Close);
            }
            Some(Fault::Answer(status, headers, body)) => {
                self.drain(&head, &received)?;
                return self.answer(&head, *status, headers, body);
            }
            Some(Fault::Made(maker)) => {
                self.drain(&head, &received)?;
                let (status, headers, body) = maker.make(&Seen::of(&head));
                return self.answer(&head, status, &headers, &body);
            }
            Some(Fault::EarlyAnswer(status, body)) => {
                self.answer(&head, *status, &[], body)?;
                return Ok(After::Close);
            }
            Some(Fault::Endless(status)) => {
                self.drain(&head, &received)?;
                let head = format!("HTTP/1.1 {status} Endless\r\nConnection: close\r\n\r\n");
                return self.pour(head.as_bytes(), &[b' '; 16 * 1024]);
            }
            Some(Fault::HeaderFlood) => {
                self.drain(&head, &received)?;
                return self.pour(b"HTTP/1.1 200 OK\r\n", b"X-Flood: yes\r\n");
            }
            _ => {}
        }
        if self.connect().is_err() {
            return Ok(After::Reset);
        }
        if let Some(Fault::HoldRequest(held)) = &fault {
            return self.hold(&head, held);
        }
        if let Some(Fault::ResetInBody(bytes)) = fault {
            // An error means that the client closed in the middle of the body: reset as well.
            let _ = self.forward(&head, &received, Some(bytes));
            return Ok(After::Reset);
        }
        let whole = self.forward(&head, &received, None)?;
        self.relay(&head, fault.as_ref(), whole)
    }

    /// Connects to the current upstream, unless that connection is already open.
    fn connect(&mut self) -> io::Result<()> {
        let addr = *lock(&self.shared.upstream);
        if self.upstream.as_ref().is_some_and(|open| open.addr == addr && !open.socket.is_stale()) {
            return Ok(());
        }
        self.upstream = None;
        let socket = Socket::new(TcpStream::connect(addr)?);
        self.connection.adopt(&socket)?;
        self.upstream = Some(Upstream { addr, source: socket.reader(), socket });
        Ok(())
    }

    fn upstream(&mut self) -> io::Result<&mut Upstream> {
        self.upstream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Forwards a request with at most `limit` bytes of its body. Returns true if the upstream took everything: it may
    /// answer before the end of the body and close. The rest of the body is then read and dropped.
    fn forward(&mut self, head: &Head, received: &AtomicU64, limit: Option<u64>) -> io::Result<bool> {
        self.invite(head)?;
        let mut upstream = self.upstream()?.socket.clone();
        let mut whole = upstream.write_all(&head.raw).is_ok();
        let mut left = limit.unwrap_or(u64::MAX);
        if left == 0 {
            return Ok(false);
        }
        head.request_body().copy(&mut self.source, &mut |bytes| {
            received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            let allowed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            whole = whole && upstream.write_all(&bytes[..allowed]).is_ok();
            left -= allowed as u64;
            if left == 0 { Err(io::ErrorKind::QuotaExceeded.into()) } else { Ok(()) }
        })?;
        Ok(whole)
    }

    /// Takes a request, and forwards it when it is let go.
    fn hold(&mut self, head: &Head, request: &HeldRequest) -> io::Result<After> {
        self.invite(head)?;
        let mut body = Vec::new();
        head.request_body().copy(&mut self.source, &mut |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        request.go.hold(|| self.connection.is_closed());
        // The connection to the store may be stale by now.
        self.upstream = None;
        self.connect()?;
        let mut upstream = self.upstream()?.socket.clone();
        upstream.write_all(&head.raw)?;
        upstream.write_all(&body)?;
        let relayed = self.relay(head, None, true);
        request.landed.release();
        relayed
    }

    /// Reads a body without forwarding it.
    fn drain(&mut self, head: &Head, received: &AtomicU64) -> io::Result<()> {
        self.invite(head)?;
        head.request_body().copy(&mut self.source, &mut |bytes| {
            received.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(())
        })
    }

    /// Sends `100 Continue` if the client waits for it; the upstream's own interim answer is dropped.
    fn invite(&mut self, head: &Head) -> io::Result<()> {
        if head.expects_continue() {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }

    fn answer(
        &mut self,
        head: &Head,
        status: u16,
        headers: &[(String, String)],
        body: &[u8],
    ) -> io::Result<After> {
        let mut text = format!("HTTP/1.1 {status} Injected\r\n");
        for (name, value) in headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            let _ = write!(text, "Content-Length: {}\r\n", body.len());
        }
        text.push_str("\r\n");
        let mut message = text.into_bytes();
        if head.first[0] != "HEAD" {
            message.extend_from_slice(body);
        }
        self.client.write_all(&message)?;
        Ok(if head.closes() { After::Close } else { After::Keep })
    }

    /// Sends the same bytes again and again until the client closes the connection.
    fn pour(&mut self, first: &[u8], then: &[u8]) -> io::Result<After> {
        self.client.write_all(first)?;
        while !self.connection.is_closed() {
            self.client.write_all(then)?;
        }
        Ok(After::Close)
    }

    fn relay(&mut self, request: &Head, fault: Option<&Fault>, whole: bool) -> io::Result<After> {
        let Some(head) = self.answer_head() else {
            return Ok(After::Reset);
        };
        match fault {
            Some(Fault::Delay(time)) => self.connection.sleep(*time),
            Some(Fault::Hold(latch)) => latch.hold(|| self.connection.is_closed()),
            _ => {}
        }
        let mut left = match fault {
            Some(Fault::ResetAfter | Fault::DropAnswer) => 0,
            Some(Fault::TruncateAnswer(bytes)) => *bytes,
            _ => u64::MAX,
        };
        let body = head.answer_body(&request.first[0]);
        let mut client = self.client.clone();
        let connection = self.connection;
        let mut relay = |bytes: &[u8]| {
            if let Some(Fault::Drip(apart)) = fault {
                return bytes.iter().try_for_each(|byte| {
                    connection.sleep(*apart);
                    client.write_all(&[*byte])
                });
            }
            let allowed = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= allowed as u64;
            client.write_all(&bytes[..allowed])
        };
        match fault {
            Some(Fault::WithoutHeader(name)) => relay(&head.without(name))?,
            Some(Fault::WithHeader(name, value)) => relay(&head.with(name, value))?,
            _ => relay(&head.raw)?,
        }
        let complete = body.copy(&mut self.upstream()?.source, &mut relay).is_ok();

        let closes = request.closes() || head.closes() || body == Body::UntilClose || !whole || !complete;
        Ok(match fault {
            Some(Fault::ResetAfter) => After::Reset,
            Some(Fault::DropAnswer | Fault::TruncateAnswer(_) | Fault::CloseIdle) => After::Close,
            _ if closes => After::Close,
            _ => After::Keep,
        })
    }

    /// The head of the final answer; `None` if the upstream closes the connection instead.
    fn answer_head(&mut self) -> Option<Head> {
        let upstream = self.upstream().ok()?;
        loop {
            let head = Head::read(&mut upstream.source).ok()??;
            if head.status() >= 200 {
                return Some(head);
            }
        }
    }
}
