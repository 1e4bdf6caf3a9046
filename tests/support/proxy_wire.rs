//! HTTP/1.1 as the proxy sees it: heads, bodies and sockets. Part of `proxy.rs`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ServerConfig, ServerConnection, Stream};

const LONGEST_HEAD: usize = 256 * 1024;
const BUFFER: usize = 64 * 1024;

/// A socket that is closed when the last of its clones is dropped.
#[derive(Clone)]
pub(super) struct Socket(pub(super) Arc<TcpStream>, Option<Arc<Mutex<ServerConnection>>>);

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self(Arc::new(stream), None)
    }

    /// Adds the server side of TLS to this socket. Only one thread uses it at a time.
    pub(super) fn secured(self, config: &Arc<ServerConfig>) -> Self {
        let session = ServerConnection::new(Arc::clone(config)).expect("the configuration is complete");
        Self(self.0, Some(Arc::new(Mutex::new(session))))
    }

    pub(super) fn reader(&self) -> Source {
        BufReader::with_capacity(BUFFER, self.clone())
    }

    /// Turns the close of this socket into a reset, which drops the bytes that have not been delivered.
    pub(super) fn reset_on_close(&self) {
        linger::none(&self.0);
    }

    /// Returns true if the other side has closed, or has sent something unasked.
    pub(super) fn is_stale(&self) -> bool {
        let alive = self.0.set_nonblocking(true).is_ok()
            && matches!(self.0.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.0.set_nonblocking(false).is_err() || !alive
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &self.1 else {
            return (&*self.0).read(buf);
        };
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        Stream::new(&mut *session, &mut &*self.0).read(buf)
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let Some(session) = &self.1 else {
            return (&*self.0).write(buf);
        };
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tcp = &*self.0;
        let mut stream = Stream::new(&mut *session, &mut tcp);
        let count = stream.write(buf)?;
        stream.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The reading half of a connection.
pub(super) type Source = BufReader<Socket>;

/// A receiver of the bytes of a body.
pub(super) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// The head of a request or an answer.
pub(super) struct Head {
    /// The bytes as received, including the empty line at the end.
    pub(super) raw: Vec<u8>,
    /// The three words of the first line.
    pub(super) first: [String; 3],
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// Reads the next head; `None` if the connection ends before it.
    pub(super) fn read(source: &mut Source) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        let mut lines = Vec::new();
        loop {
            let start = raw.len();
            source.by_ref().take(LONGEST_HEAD as u64).read_until(b'\n', &mut raw)?;
            if raw.is_empty() {
                return Ok(None);
            }
            let line = raw[start..].strip_suffix(b"\r\n").ok_or_else(broken)?;
            if line.is_empty() {
                break;
            }
            lines.push(String::from_utf8_lossy(line).into_owned());
            if raw.len() > LONGEST_HEAD {
                return Err(broken());
            }
        }
        let mut lines = lines.into_iter();
        let first_line = lines.next().ok_or_else(broken)?;
        let mut words = first_line.splitn(3, ' ').map(str::to_owned);
        let first = std::array::from_fn(|_| words.next().unwrap_or_default());
        let headers = lines.filter_map(|line| {
            line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        });
        Ok(Some(Self { headers: headers.collect(), raw, first }))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The head as received, without this header.
    pub(super) fn without(&self, name: &str) -> Vec<u8> {
        let lines = self.raw.split_inclusive(|byte| *byte == b'\n');
        let named = |line: &&[u8]| {
            let start = line.split(|byte| *byte == b':').next().unwrap_or_default();
            start.eq_ignore_ascii_case(name.as_bytes())
        };
        lines.filter(|line| !named(line)).collect::<Vec<_>>().concat()
    }

    /// The head as received, with this header set.
    pub(super) fn with(&self, name: &str, value: &str) -> Vec<u8> {
        let mut raw = self.without(name);
        raw.truncate(raw.len() - b"\r\n".len());
        raw.extend_from_slice(format!("{name}: {value}\r\n\r\n").as_bytes());
        raw
    }

    fn says(&self, name: &str, value: &str) -> bool {
        self.header(name).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// Returns true if the client waits for an interim answer before it sends the body.
    pub(super) fn expects_continue(&self) -> bool {
        self.says("expect", "100-continue")
    }

    /// Returns true if the connection is closed after this message.
    pub(super) fn closes(&self) -> bool {
        self.says("connection", "close") || self.first.iter().any(|word| word == "HTTP/1.0")
    }

    /// The body of a request with this head.
    pub(super) fn request_body(&self) -> Body {
        self.framed().unwrap_or(Body::Length(0))
    }

    /// The status of an answer with this head.
    pub(super) fn status(&self) -> u16 {
        self.first[1].parse().unwrap_or(0)
    }

    /// The body of an answer with this head.
    pub(super) fn answer_body(&self, method: &str) -> Body {
        if method == "HEAD" || matches!(self.status(), 100..=199 | 204 | 304) {
            return Body::Length(0);
        }
        self.framed().unwrap_or(Body::UntilClose)
    }

    fn framed(&self) -> Option<Body> {
        if self.says("transfer-encoding", "chunked") {
            return Some(Body::Chunked);
        }
        Some(Body::Length(self.header("content-length")?.parse().ok()?))
    }
}

/// The value of the first header with this name.
pub(super) fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut headers = headers.iter();
    headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// The framing of a body: where it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

impl Body {
    /// Copies the body to the sink, including its framing.
    pub(super) fn copy(self, source: &mut Source, sink: &mut Sink<'_>) -> io::Result<()> {
        match self {
            Self::Length(length) => copy_exactly(source, length, sink),
            Self::Chunked => copy_chunks(source, sink),
            Self::UntilClose => copy_rest(source, sink),
        }
    }
}

fn copy_exactly(source: &mut Source, mut left: u64, sink: &mut Sink<'_>) -> io::Result<()> {
    while left > 0 {
        let buffered = source.fill_buf()?;
        if buffered.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let length = buffered.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        sink(&buffered[..length])?;
        source.consume(length);
        left -= length as u64;
    }
    Ok(())
}

fn copy_rest(source: &mut Source, sink: &mut Sink<'_>) -> io::Result<()> {
    loop {
        let buffered = source.fill_buf()?;
        let length = buffered.len();
        if length == 0 {
            return Ok(());
        }
        sink(buffered)?;
        source.consume(length);
    }
}

fn copy_chunks(source: &mut Source, sink: &mut Sink<'_>) -> io::Result<()> {
    loop {
        let line = copy_line(source, sink)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(digits, 16).map_err(|_| broken())?;
        if size == 0 {
            break;
        }
        copy_exactly(source, size + 2, sink)?;
    }
    while !copy_line(source, sink)?.is_empty() {}
    Ok(())
}

fn copy_line(source: &mut Source, sink: &mut Sink<'_>) -> io::Result<String> {
    let mut line = Vec::new();
    source.by_ref().take(LONGEST_HEAD as u64).read_until(b'\n', &mut line)?;
    sink(&line)?;
    let text = line.strip_suffix(b"\r\n").ok_or_else(broken)?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not HTTP/1.1, or cut off")
}

#[cfg(unix)]
mod linger {
    use std::ffi::{c_int, c_uint, c_void};
    use std::net::TcpStream;
    use std::os::fd::AsRawFd;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    const NAMES: (c_int, c_int) = (1, 13);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    const NAMES: (c_int, c_int) = (0xffff, 0x80);

    const LENGTH: c_uint = 8;

    #[repr(C)]
    struct Linger {
        onoff: c_int,
        linger: c_int,
    }

    const _: () = assert!(size_of::<Linger>() == LENGTH as usize);

    #[allow(unsafe_code, reason = "std has no stable way to set SO_LINGER")]
    unsafe extern "C" {
        fn setsockopt(
            socket: c_int,
            level: c_int,
            name: c_int,
            value: *const c_void,
            length: c_uint,
        ) -> c_int;
    }

    #[allow(unsafe_code, reason = "std has no stable way to set SO_LINGER")]
    pub(super) fn none(stream: &TcpStream) {
        let value = Linger { onoff: 1, linger: 0 };
        let (level, name) = NAMES;
        // SAFETY: the descriptor is open as long as `stream` is borrowed; `value` is a `struct linger` of the
        // length given, outlives the call, and is only read.
        let failed = unsafe {
            let value = std::ptr::from_ref(&value).cast::<c_void>();
            setsockopt(stream.as_raw_fd(), level, name, value, LENGTH)
        };
        debug_assert_eq!(failed, 0, "SO_LINGER was not set");
    }
}

#[cfg(not(unix))]
mod linger {
    /// Here a reset is an ordinary close.
    pub(super) fn none(_stream: &std::net::TcpStream) {}
}
