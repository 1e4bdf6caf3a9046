//! What fuzzing has found. Each input is also a seed, `found-…`.

use crate::backend::s3::redaction::Secrets;
use crate::backend::s3::xml;
use crate::{ErrorKind, S3Config};

/// The endpoint `:443` was accepted, as `https://`: requests went to no host, and public URLs had none. Endpoints and public
/// URLs must have a host.
#[test]
fn endpoint_without_a_host_is_refused() {
    let config = S3Config::new("bucket").region("eu-central-1");
    for url in [":443", "https://:443", "http://:9000"] {
        let error = config.clone().endpoint(url).address().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
    }
    let error = config.public_url("https://:443/files").address().unwrap_err();
    assert!(error.message().starts_with("public_url: "), "{error}");
}

/// N8: the code of an error behind a comment was not looked for, and a comment that named the result made the body a
/// success. The name of the first element decides, whatever comments say.
#[test]
fn n08_error_behind_a_comment_is_no_success() {
    let secrets = Secrets::of([]);
    let body = b"<!-- <CompleteMultipartUploadResult> --><Error><Code>InternalError</Code></Error>";
    assert!(xml::is_error(body));
    assert!(xml::parse_completed(body, &secrets).is_err());
    assert_eq!(xml::parse_error(body, &secrets).unwrap().code.as_deref(), Some("InternalError"));
}

/// Every element whose name begins with `Error` was taken for an error of the store.
#[test]
fn only_an_element_named_error_is_an_error() {
    for (body, is_error) in
        [("<Error/>", true), ("<Error x='y'>", true), ("<ErrorsResult>", false), ("<Errors>", false)]
    {
        assert_eq!(xml::is_error(body.as_bytes()), is_error, "{body}");
    }
}

#[cfg(feature = "profiles")]
mod credentials {
    use std::time::Duration;

    use crate::NetworkConfig;
    use crate::backend::s3::http::plain::{PlainClient, PlainRequest};
    use crate::fuzz_targets::wire::Server;

    /// The library and ureq disagreed about where the body of an answer begins or how it is framed. Then the answer was
    /// refused, or credentials were read that nobody sent; and parts of a body were not hidden from the log of ureq. Both
    /// read heads with the same parser now, and by the same rules.
    #[test]
    fn body_that_is_hidden_is_the_one_that_was_sent() {
        for (answer, body) in [
            ("\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: :chunked\r\nContent-Length: 3\r\n\r\n2\r\nhi", "2\r\n"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\nContent-Length: 1\r\n\r\nx", "x"),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                "1\r\nx\r\n0\r\n\r\n",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\n \r\n12345\r\n0\r\n\r\n", "12345"),
        ] {
            let network = NetworkConfig::new().proxy("socks5h://127.0.0.1:9").check().unwrap();
            let (request, limit) = (PlainRequest::get("http://127.0.0.1:9/"), Duration::from_secs(10));
            let server = Server::new([answer.as_bytes()], 1);
            let response = PlainClient::new(network).send_over(&request, limit, server).unwrap();
            assert_eq!(String::from_utf8_lossy(&response.body), body, "{answer:?}");
        }
    }
}
