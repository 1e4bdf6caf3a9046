//! What is said to a proxy before a connection through it can be used: HTTP's CONNECT, and SOCKS5 (RFC 1928, 1929).
//!
//! ureq has connectors for both. These are our own because they keep the time limit over all steps, count the bytes,
//! look at the cancel token, keep the password out of the pool's keys, and say why a proxy refused.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::backend::s3::http::proxy::{Login, Proxy};
use crate::error::ErrorKind;

/// The bytes that are read of a response to CONNECT.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;
const MAX_RESPONSE_HEADERS: usize = 100;

/// The failure of a connection through a proxy. Its text names the proxy.
#[derive(Debug)]
pub(crate) struct ProxyError {
    /// `Connect`, or a kind that is not retried.
    pub(crate) kind: ErrorKind,
    pub(crate) text: String,
    /// The proxy's name has no address.
    pub(crate) without_address: bool,
}

impl ProxyError {
    pub(crate) fn new(kind: ErrorKind, text: String) -> Self {
        Self { kind, text, without_address: false }
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ProxyError {}

/// A handshake that failed.
pub(crate) enum Refusal {
    /// The connection failed.
    Io(io::Error),
    /// The proxy refused, or speaks something else.
    Said(ProxyError),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The server that the proxy is asked to connect to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    /// A name, or an address; one of IPv6 in brackets.
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    /// The address, if it was resolved here.
    pub(crate) address: Option<SocketAddr>,
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The ends of a handshake, for its errors.
struct Talk<'a> {
    proxy: &'a Proxy,
    target: Target<'a>,
}

impl Talk<'_> {
    fn refuse(&self, kind: ErrorKind, what: &str) -> Refusal {
        Refusal::Said(ProxyError::new(kind, format!("proxy {} {what}", self.proxy.place())))
    }

    /// The proxy works, but not for this target: a retry may help, as after any failed connect.
    fn unreached(&self, what: &str) -> Refusal {
        self.refuse(ErrorKind::Connect, what)
    }

    /// The user or the password is wrong: a setting, which no retry mends.
    fn login_refused(&self, said: &str) -> Refusal {
        let text = if self.proxy.login.is_some() {
            format!(
                "proxy: {} refused the user name or the password ({said}): check both",
                self.proxy.place()
            )
        } else {
            let form = "write its URL as SCHEME://USER:PASSWORD@HOST:PORT";
            format!("proxy: {} asks for a user name and a password ({said}): {form}", self.proxy.place())
        };
        Refusal::Said(ProxyError::new(ErrorKind::Config, text))
    }
}

/// Asks an HTTP proxy for a tunnel.
pub(crate) fn http_connect(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    target: Target<'_>,
    user_agent: &str,
) -> Result<(), Refusal> {
    stream.write_all(&connect_request(proxy.login.as_ref(), target, user_agent))?;
    let talk = Talk { proxy, target };
    let response = read_head(stream, &talk)?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_RESPONSE_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    if !matches!(parsed.parse(&response), Ok(httparse::Status::Complete(_))) {
        return Err(talk.unreached(NO_HTTP));
    }
    match parsed.code.unwrap_or_default() {
        200..=299 => Ok(()),
        // tinyproxy answers 401 to a wrong password.
        status @ (401 | 407) => Err(talk.login_refused(&offered_schemes(status, parsed.headers))),
        status @ (403 | 405) => Err(talk.unreached(&format!(
            "refused a connection to {target} ({status}): it must allow CONNECT to this host and port"
        ))),
        status @ 500..=599 => Err(talk.unreached(&format!("could not connect to {target} ({status})"))),
        status => Err(talk.unreached(&format!("answered {status} to CONNECT {target}"))),
    }
}

const NO_HTTP: &str = "did not answer in HTTP: check the scheme of its URL (http, https, socks5 or socks5h)";

/// Returns the request. All of it is wiped after use, because it may hold the password.
fn connect_request(login: Option<&Login>, target: Target<'_>, user_agent: &str) -> Zeroizing<Vec<u8>> {
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n");
    let mut request = Zeroizing::new(Vec::with_capacity(head.len() + 1024));
    request.extend_from_slice(head.as_bytes());
    if let Some(Login { user, password }) = login {
        let plain = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(plain.as_bytes()));
        request.extend_from_slice(b"Proxy-Authorization: Basic ");
        request.extend_from_slice(encoded.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Reads up to the blank line, and not beyond it: what follows is the server's.
fn read_head(stream: &mut impl Read, talk: &Talk<'_>) -> Result<Vec<u8>, Refusal> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_RESPONSE_BYTES || head.len() == 5 && head != *b"HTTP/" {
            return Err(talk.unreached(NO_HTTP));
        }
        read_exact(stream, &mut byte, talk)?;
        head.push(byte[0]);
    }
    Ok(head)
}

/// Reads as many bytes as fit, and says so if the proxy closes the connection before.
fn read_exact(stream: &mut impl Read, into: &mut [u8], talk: &Talk<'_>) -> Result<(), Refusal> {
    stream.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => talk.unreached(
            "closed the connection before it was of use: check its address and the scheme of its URL",
        ),
        _ => Refusal::Io(error),
    })
}

/// Returns the status and how the proxy wants to be logged in to, if that is not `Basic`.
fn offered_schemes(status: u16, headers: &[httparse::Header<'_>]) -> String {
    let offers = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("proxy-authenticate"));
    let scheme = |header: &httparse::Header<'_>| {
        let text = String::from_utf8_lossy(header.value);
        // The name alone: what follows is the proxy's to choose.
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').take(20).collect::<String>()
    };
    let schemes: Vec<String> = offers.map(scheme).filter(|scheme| !scheme.is_empty()).take(5).collect();
    if schemes.is_empty() || schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
        return status.to_string();
    }
    format!("{status}, it accepts only {}, and Basic is all that is supported here", schemes.join(", "))
}

/// Asks a SOCKS5 proxy for a connection.
pub(crate) fn socks5_connect(
    stream: &mut (impl Read + Write),
    proxy: &Proxy,
    target: Target<'_>,
) -> Result<(), Refusal> {
    let talk = Talk { proxy, target };
    let methods: &[u8] = if proxy.login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    stream.write_all(methods)?;
    let mut reply = [0; 2];
    read_exact(stream, &mut reply, &talk)?;
    match (reply, &proxy.login) {
        ([5, 0], _) => {}
        ([5, 2], Some(login)) => log_in(stream, login, &talk)?,
        ([5, 0xff], _) => return Err(talk.login_refused("SOCKS5")),
        _ => return Err(talk.unreached("does not speak SOCKS5: check the scheme of its URL")),
    }
    stream.write_all(&connect_command(&talk)?)?;
    // Version, reply, reserved, type of the address that the proxy uses.
    let mut reply = [0; 4];
    read_exact(stream, &mut reply, &talk)?;
    if reply[1] != 0 {
        return Err(socks5_failure(reply[1], &talk));
    }
    let rest = match reply[3] {
        1 => 4,
        4 => 16,
        3 => {
            let mut length = [0];
            read_exact(stream, &mut length, &talk)?;
            usize::from(length[0])
        }
        _ => return Err(talk.unreached("sent an answer that is not SOCKS5")),
    };
    // The address and its port, which nobody needs.
    read_exact(stream, &mut vec![0; rest + 2], &talk)
}

fn log_in(stream: &mut (impl Read + Write), login: &Login, talk: &Talk<'_>) -> Result<(), Refusal> {
    let mut request = Zeroizing::new(Vec::with_capacity(600));
    request.push(1);
    for text in [login.user.as_str(), login.password.as_str()] {
        // The URL was checked for at most 255 bytes.
        request.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        request.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&request)?;
    let mut reply = [0; 2];
    // A server may close the connection right after it refused, or instead of it.
    match stream.read_exact(&mut reply) {
        Ok(()) if reply[1] == 0 => Ok(()),
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
        {
            Err(Refusal::Io(error))
        }
        _ => Err(talk.login_refused("SOCKS5")),
    }
}

/// Returns the command that names the target: by its address if it is known here, else by its name.
fn connect_command(talk: &Talk<'_>) -> Result<Vec<u8>, Refusal> {
    let target = &talk.target;
    let bare = target.host.trim_start_matches('[').trim_end_matches(']');
    let mut command = vec![5, 1, 0];
    match target.address.map(|address| address.ip()).or_else(|| bare.parse().ok()) {
        Some(IpAddr::V4(address)) => {
            command.push(1);
            command.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            command.push(4);
            command.extend_from_slice(&address.octets());
        }
        None => {
            let Ok(length) = u8::try_from(bare.len()) else {
                return Err(talk.unreached("takes no host name of more than 255 bytes"));
            };
            command.extend_from_slice(&[3, length]);
            command.extend_from_slice(bare.as_bytes());
        }
    }
    command.extend_from_slice(&target.port.to_be_bytes());
    Ok(command)
}

fn socks5_failure(reply: u8, talk: &Talk<'_>) -> Refusal {
    let why = match reply {
        2 => {
            let refused = format!("refused a connection to {}: its rules must allow it", talk.target);
            return talk.unreached(&refused);
        }
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported; socks5h lets the proxy resolve names",
        _ => "general failure",
    };
    talk.unreached(&format!("could not connect to {}: {why}", talk.target))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy that says what it was told to, and keeps what it was sent.
    struct Script {
        says: io::Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.says.read(into)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(url: &str, says: &[u8]) -> (Result<(), Refusal>, Script) {
        let mut script = Script { says: io::Cursor::new(says.to_vec()), heard: Vec::new() };
        let proxy = Proxy::parse(url).unwrap();
        let target = Target { host: "store.example", port: 443, address: None };
        let result = if url.starts_with("socks") {
            socks5_connect(&mut script, &proxy, target)
        } else {
            http_connect(&mut script, &proxy, target, "agent/1")
        };
        (result, script)
    }

    fn refused(url: &str, says: &[u8]) -> (ErrorKind, String) {
        match run(url, says).0 {
            Err(Refusal::Said(error)) => (error.kind, error.text),
            Err(Refusal::Io(error)) => panic!("{error}"),
            Ok(()) => panic!("accepted"),
        }
    }

    #[test]
    fn connect_names_the_target_and_reads_no_byte_beyond_the_blank_line() {
        let (result, mut script) = run("http://u:p@h:1", b"HTTP/1.0 200 OK\r\nVia: x\r\n\r\nserver");
        assert!(result.is_ok());
        let sent = "CONNECT store.example:443 HTTP/1.1\r\nHost: store.example:443\r\nUser-Agent: agent/1\r\n\
                    Proxy-Authorization: Basic dTpw\r\n\r\n";
        assert_eq!(String::from_utf8(script.heard).unwrap(), sent);
        let mut rest = String::new();
        script.says.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "server");
    }

    #[test]
    fn refusals_of_an_http_proxy_say_what_to_do() {
        use ErrorKind::{Config, Connect};
        for (says, kind, text) in [
            (&b"HTTP/1.1 403 No\r\n\r\n"[..], Connect, "must allow CONNECT"),
            (b"HTTP/1.1 502 Bad\r\n\r\n", Connect, "could not connect to store.example:443 (502)"),
            (b"HTTP/1.1 302 Login\r\n\r\n", Connect, "answered 302"),
            (b"", Connect, "closed the connection"),
            (b"HTTP/1.1 200", Connect, "closed the connection"),
            (b"SSH-2.0-x\r\n\r\n", Connect, "did not answer in HTTP"),
            (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", Config, "asks for a user name"),
            (b"HTTP/1.0 401 No\r\n\r\n", Config, "(401)"),
            (b"HTTP/1.1 407 No\r\nproxy-authenticate: NTLM\r\n\r\n", Config, "accepts only NTLM"),
        ] {
            let (found, error) = refused("http://h:3128", says);
            assert!(found == kind && error.contains(text) && error.contains("h:3128"), "{error}");
        }
        let (_, error) = refused("http://u:CANARY@h:3128", b"HTTP/1.1 407 No\r\n\r\n");
        assert!(
            error.contains("refused the user name or the password") && !error.contains("CANARY"),
            "{error}"
        );
        let endless = [b"HTTP/1.1 200 ".to_vec(), vec![b'x'; 100_000]].concat();
        assert!(refused("http://h:1", &endless).1.contains("did not answer in HTTP"));
    }

    #[test]
    fn socks5_names_the_target_or_its_address() {
        let accepted = [5, 0, 5, 0, 0, 3, 2, b'x', b'y', 0, 80];
        let (result, script) = run("socks5h://h", &accepted);
        assert!(result.is_ok());
        let name = [&[5, 1, 0, 5, 1, 0, 3, 13][..], b"store.example", &[1, 187]].concat();
        assert_eq!(script.heard, name);
        let (result, script) = run("socks5://u:pw@h", &[5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert!(result.is_ok());
        assert!(script.heard.starts_with(&[5, 2, 0, 2, 1, 1, b'u', 2, b'p', b'w', 5, 1, 0]));
        let proxy = Proxy::parse("socks5://h").unwrap();
        let address = Some("[2001:db8::1]:443".parse().unwrap());
        let talk = Talk { proxy: &proxy, target: Target { host: "store.example", port: 443, address } };
        let Ok(command) = connect_command(&talk) else { panic!("no command") };
        assert_eq!((command[3], command.len()), (4, 22));
    }

    #[test]
    fn refusals_of_a_socks5_proxy_say_what_to_do() {
        use ErrorKind::{Config, Connect};
        for (url, says, kind, text) in [
            ("socks5h://h", &b"HTTP/1.1 400\r\n"[..], Connect, "does not speak SOCKS5"),
            ("socks5h://h", &[5, 0xff], Config, "asks for a user name"),
            ("socks5h://u:CANARY@h", &[5, 0xff], Config, "refused the user name"),
            ("socks5h://u:CANARY@h", &[5, 2, 1, 1], Config, "refused the user name"),
            ("socks5h://u:CANARY@h", &[5, 2], Config, "refused the user name"),
            ("socks5h://h", &[5, 0, 5, 2, 0, 1], Connect, "its rules must allow it"),
            ("socks5h://h", &[5, 0, 5, 5, 0, 1], Connect, "store.example:443: connection refused"),
            ("socks5h://h", &[5, 0, 5, 0, 0, 9], Connect, "not SOCKS5"),
            ("socks5h://h", &[5, 0, 5], Connect, "closed the connection"),
        ] {
            let (found, error) = refused(url, says);
            assert!(found == kind && error.contains(text) && !error.contains("CANARY"), "{error}");
        }
    }
}
