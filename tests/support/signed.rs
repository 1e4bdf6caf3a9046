//! A client that is not ours: it signs single requests, with any headers, and shows the whole answer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use hmac::{Hmac, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::server::exchange;

const REGION: &str = "us-east-1";
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const IN_PATH: &AsciiSet = &IN_QUERY.remove(b'/');

/// An S3 client for one bucket. It logs nothing, so that what it sends is no leak of the library's.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
    access_key: String,
    secret_key: String,
    bucket: String,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The `ETag` header, with its quotes.
    pub fn etag(&self) -> &str {
        self.header("etag").unwrap()
    }

    /// The texts of all elements of this name in the body, with the usual entities.
    pub fn elements(&self, name: &str) -> Vec<String> {
        let body = String::from_utf8_lossy(&self.body);
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let texts = body.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()));
        texts.map(|text| text.replace("&quot;", "\"").replace("&#34;", "\"").replace("&amp;", "&")).collect()
    }

    /// The status and the code of the error, which is empty where there is none.
    pub fn outcome(&self) -> (u16, String) {
        (self.status, self.elements("Code").pop().unwrap_or_default())
    }
}

impl Client {
    /// A client for a bucket in path style, at `http://HOST:PORT`.
    pub fn new(endpoint: &str, access_key: &str, secret_key: &str, bucket: &str) -> Self {
        let host = endpoint.strip_prefix("http://").unwrap();
        let [host, access_key, secret_key, bucket] =
            [host, access_key, secret_key, bucket].map(str::to_owned);
        Self { host, access_key, secret_key, bucket }
    }

    /// Creates the bucket.
    pub fn create_bucket(&self) -> io::Result<Answer> {
        self.try_send("PUT", "", &[], &[], b"")
    }

    pub fn put(&self, key: &str, bytes: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Answer {
        self.send("PUT", key, &[], headers, bytes.as_ref())
    }

    pub fn get(&self, key: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", key, &[], headers, b"")
    }

    pub fn head(&self, key: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("HEAD", key, &[], headers, b"")
    }

    pub fn delete(&self, key: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("DELETE", key, &[], headers, b"")
    }

    /// Deletes these keys, each on condition that it has this `ETag`, if one is given.
    pub fn delete_many(&self, keys: &[(&str, Option<&str>)]) -> Answer {
        let mut body = "<Delete>".to_owned();
        for (key, etag) in keys {
            let etag = etag.map(|etag| format!("<ETag>{}</ETag>", etag.replace('"', "&quot;")));
            let _ = write!(body, "<Object><Key>{key}</Key>{}</Object>", etag.unwrap_or_default());
        }
        body += "</Delete>";
        let md5 = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, *md5::compute(&body));
        self.send("POST", "", &[("delete", "")], &[("content-md5", &md5)], body.as_bytes())
    }

    /// One page of a listing.
    pub fn list(&self, prefix: &str, query: &[(&str, &str)]) -> Answer {
        let mut all = vec![("list-type", "2"), ("prefix", prefix)];
        all.extend(query);
        self.send("GET", "", &all, &[], b"")
    }

    /// All keys under a prefix, in the order of the listing's pages.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        loop {
            let page = match &token {
                Some(token) => {
                    self.list(prefix, &[("encoding-type", "url"), ("continuation-token", token.as_str())])
                }
                None => self.list(prefix, &[("encoding-type", "url")]),
            };
            assert_eq!(page.status, 200, "{page:?}");
            keys.extend(page.elements("Key").iter().map(|key| decoded(key)));
            token = page.elements("NextContinuationToken").pop();
            if token.is_none() {
                return keys;
            }
        }
    }

    /// Begins a multipart upload and stores its parts. Returns the upload ID and the body that completes it.
    pub fn upload_parts(&self, key: &str, parts: &[&[u8]], headers: &[(&str, &str)]) -> (String, String) {
        let begun = self.send("POST", key, &[("uploads", "")], headers, b"");
        let id = begun.elements("UploadId").pop().unwrap();
        let mut body = "<CompleteMultipartUpload>".to_owned();
        for (number, part) in (1..).zip(parts) {
            let query = [("partNumber", &*number.to_string()), ("uploadId", &*id)];
            let stored = self.send("PUT", key, &query, &[], part);
            let etag = stored.etag().replace('"', "&quot;");
            let _ = write!(body, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        (id, body + "</CompleteMultipartUpload>")
    }

    pub fn complete(&self, key: &str, (id, body): &(String, String), headers: &[(&str, &str)]) -> Answer {
        self.send("POST", key, &[("uploadId", id)], headers, body.as_bytes())
    }

    /// Sends one request. An empty key is the bucket.
    pub fn send(
        &self,
        method: &str,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.try_send(method, key, query, headers, body)
            .unwrap_or_else(|error| panic!("{method} {key}: {error}"))
    }

    /// Sends one request, to a server that may not be there.
    pub fn try_send(
        &self,
        method: &str,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let slash = if key.is_empty() { "" } else { "/" };
        let path = utf8_percent_encode(&format!("/{}{slash}{key}", self.bucket), IN_PATH).to_string();
        let encode = |text: &str| utf8_percent_encode(text, IN_QUERY).to_string();
        let mut pairs: Vec<_> =
            query.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        pairs.sort();
        let query = pairs.join("&");
        let headers = self.signed(method, &path, &query, headers, body);

        let mark = if query.is_empty() { "" } else { "?" };
        let mut request = format!("{method} {path}{mark}{query} HTTP/1.1\r\n");
        for (name, value) in headers {
            let _ = write!(request, "{name}: {value}\r\n");
        }
        let _ = write!(request, "content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        let (status, headers, body) = exchange(&self.host, &[request.as_bytes(), body].concat())?;
        Ok(Answer { status, headers, body })
    }

    /// All headers, with their signature (AWS Signature Version 4).
    fn signed(
        &self,
        method: &str,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> BTreeMap<String, String> {
        let at = OffsetDateTime::now_utc();
        let day = format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day());
        let when = format!("{day}T{:02}{:02}{:02}Z", at.hour(), at.minute(), at.second());
        let payload = hex::encode(Sha256::digest(body));
        let mut all: BTreeMap<String, String> =
            headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
        all.insert("host".to_owned(), self.host.clone());
        all.insert("x-amz-content-sha256".to_owned(), payload.clone());
        all.insert("x-amz-date".to_owned(), when.clone());

        let names = all.keys().map(String::as_str).collect::<Vec<_>>().join(";");
        let lines = all.iter().fold(String::new(), |lines, (name, value)| lines + name + ":" + value + "\n");
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let hash = hex::encode(Sha256::digest(canonical));
        let text = format!("AWS4-HMAC-SHA256\n{when}\n{scope}\n{hash}");
        let secret = format!("AWS4{}", self.secret_key).into_bytes();
        let signature = scope.split('/').chain([text.as_str()]).fold(secret, |key, text| hmac(&key, text));
        let (access_key, signature) = (&self.access_key, hex::encode(signature));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/{scope},SignedHeaders={names},Signature={signature}"
        );
        all.insert("authorization".to_owned(), authorization);
        all
    }
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8().unwrap().into_owned()
}
