//! What a proxy answers: HTTP's CONNECT, and SOCKS5.

use std::io::{self, Read, Write};

use super::{SECRET, check_no_secret};
use crate::backend::s3::http::proxy::Proxy;
use crate::backend::s3::http::tunnel::{Refusal, Target, http_connect, socks5_connect};

/// A proxy that has its answer ready.
struct Stream<'a> {
    answer: &'a [u8],
    chunk: usize,
    sent: Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.answer.len().min(into.len()).min(self.chunk);
        into[..count].copy_from_slice(&self.answer[..count]);
        self.answer = &self.answer[count..];
        Ok(count)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first byte chooses the kind of proxy, the second one the bytes that come at a time.
pub(crate) fn target(data: &[u8]) {
    let [kind, chunk, answer @ ..] = data else { return };
    let login = if kind & 1 == 0 { String::new() } else { format!("user:{SECRET}@") };
    let is_http = kind & 2 == 0;
    let scheme = if is_http { "http" } else { "socks5" };
    let proxy = Proxy::parse(&format!("{scheme}://{login}proxy.test:3128")).unwrap();
    let address = (kind & 4 != 0).then(|| ([127, 0, 0, 1], 443).into());
    let target = Target { host: "store.test", port: 443, address };
    let mut stream = Stream { answer, chunk: usize::from(*chunk).max(1), sent: Vec::new() };
    let result = if is_http {
        http_connect(&mut stream, &proxy, target, "fuzz/1")
    } else {
        socks5_connect(&mut stream, &proxy, target)
    };
    match result {
        Ok(()) if is_http => {
            // What follows the blank line is the server's.
            let read = &answer[..answer.len() - stream.answer.len()];
            assert!(read.ends_with(b"\r\n\r\n"));
            assert_eq!(read.windows(4).position(|window| window == b"\r\n\r\n"), Some(read.len() - 4));
            assert!(read.starts_with(b"HTTP/"));
        }
        Ok(()) => assert!(answer.starts_with(&[5])),
        Err(Refusal::Said(error)) => {
            assert!(error.text.len() <= 1024 && error.text.is_ascii(), "{}", error.text);
            check_no_secret(&error);
        }
        Err(Refusal::Io(error)) => panic!("the stream does not fail: {error}"),
    }
}
