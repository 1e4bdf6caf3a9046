use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use s3::bucket::Bucket;
use s3::region::Region;

use crate::backend::s3::credentials::Credentials;
use crate::error::StorageError;
use crate::key::Prefix;
use crate::retry::RetryPolicy;
use crate::tree::digest::{LARGEST_OBJECT, LARGEST_PART, SMALLEST_PART};

/// A header is written whole into the connection's buffer.
const MOST_OF_A_TOKEN: usize = 8 * 1024;
/// What S3 takes of headers that are kept with an object (Amazon S3 User Guide, "Working with object
/// metadata"), and something for the others.
const MOST_OF_HEADERS: usize = 4 * 1024;

/// Bytes; also the default threshold.
const DEFAULT_PART_SIZE: u64 = 16 * 1024 * 1024;

/// Stored with objects that went up in parts: it proves whose upload made them.
pub(crate) const UPLOAD_TOKEN: &str = "x-amz-meta-brigade-upload";

/// Headers that are set per request, or would change what is signed or sent.
const RESERVED: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "content-md5",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-amz-content-sha256",
    "x-amz-date",
    "x-amz-security-token",
];

/// Where and how an [`S3Backend`](crate::S3Backend) publishes. Everything is checked by
/// [`S3Backend::new`](crate::S3Backend::new), with errors that name the field.
///
/// ```
/// use bucket_brigade::{Credentials, S3Config};
/// let aws = S3Config::new("releases")
///     .region("eu-central-1")
///     .credentials(Credentials::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI"))
///     .bucket_prefix("game/live")
///     .public_url("https://cdn.example.com")
///     .header("Cache-Control", "public, max-age=60");
/// let minio = S3Config::new("releases")
///     .endpoint("http://127.0.0.1:9000")
///     .credentials(Credentials::new("minio", "minio123"));
/// # let _ = (aws, minio);
/// ```
#[derive(Debug, Clone)]
pub struct S3Config {
    bucket: String,
    endpoint: Option<String>,
    region: Option<String>,
    credentials: Option<Credentials>,
    path_style: Option<bool>,
    bucket_prefix: String,
    public_url: Option<String>,
    headers: Vec<(String, String)>,
    checksum_header: Option<bool>,
    ca_file: Option<PathBuf>,
    chunk_size: usize,
    part_threshold: u64,
    part_size: u64,
    largest_object: u64,
    retry: RetryPolicy,
    idle_timeout: Duration,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

impl S3Config {
    /// For this bucket, which must exist.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint: None,
            region: None,
            credentials: None,
            path_style: None,
            bucket_prefix: String::new(),
            public_url: None,
            headers: Vec::new(),
            checksum_header: None,
            ca_file: None,
            chunk_size: 8 * 1024,
            part_threshold: DEFAULT_PART_SIZE,
            part_size: DEFAULT_PART_SIZE,
            largest_object: LARGEST_OBJECT,
            retry: RetryPolicy::default(),
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(120),
        }
    }

    /// The store's address, `https://host[:port]` or `http://host[:port]`; without a scheme, https.
    /// Default: AWS's for the region.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The region, such as `eu-central-1`; `auto` where the store wants that. Required for AWS;
    /// with an endpoint the default is `us-east-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Who publishes. Required.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// True: `endpoint/bucket/key`; false: `bucket.endpoint/key`. Default: path-style with an
    /// endpoint of its own and for bucket names with a dot, which certificates do not cover.
    pub fn path_style(mut self, yes: bool) -> Self {
        self.path_style = Some(yes);
        self
    }

    /// What stands before every key in the bucket. `""`, `"a"`, `"a/"` and `"/a/b/"` all do what one
    /// expects.
    pub fn bucket_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.bucket_prefix = prefix.into();
        self
    }

    /// Where readers find the bucket's content: URLs are `public_url/prefix/key`. Default: the
    /// bucket's own address.
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// A header sent with every object: `Cache-Control`, `x-amz-storage-class`, `x-amz-acl`,
    /// `x-amz-server-side-encryption` and its key id, `x-amz-meta-*`. Values are ASCII; runs of
    /// spaces become one, as signatures have it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Whether objects are stored with `x-amz-checksum-sha256`. Default: on for AWS, off elsewhere.
    /// The body is protected either way: its SHA-256 is part of the signature.
    pub fn checksum_header(mut self, yes: bool) -> Self {
        self.checksum_header = Some(yes);
        self
    }

    /// A PEM file of certificates that are trusted besides the system's own.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Bytes read from a file and written to the connection at a time, 4 KiB to 1 MiB. Default
    /// 8 KiB. Each connection holds one such buffer.
    pub fn chunk_size(mut self, bytes: usize) -> Self {
        self.chunk_size = bytes;
        self
    }

    /// Files of more than so many bytes go up in parts. 8 MiB to 5 GiB, default 16 MiB. A file at the
    /// threshold is one request; one byte more makes two parts and two requests beside them (begin and
    /// complete), and two commits of the cache.
    pub fn part_threshold(mut self, bytes: u64) -> Self {
        self.part_threshold = bytes;
        self
    }

    /// Bytes of a part, 8 MiB to 5 GiB, default 16 MiB. A file of more than 10,000 parts gets larger ones
    /// ([`PartPlan`](crate::PartPlan)). A part is what a failed request repeats and what one worker sends
    /// at a time; it is never held in memory, so its size costs none. A digest says the part size it was
    /// taken with, and is compared under that one: changing this sends nothing again.
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// The largest object that the store holds, in bytes. Default 5 TiB; a larger file is an error that
    /// names it, and is not read.
    pub fn largest_object(mut self, bytes: u64) -> Self {
        self.largest_object = bytes;
        self
    }

    /// How often and when requests are tried again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// A connection on which no byte moves for this long is given up. Default 30 s.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// The longest wait for a connection, TLS included. Default 5 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// The longest wait for an answer once a request is sent. Default 120 s: the wait begins with up
    /// to 4 MB still in the socket's buffer.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    pub(crate) fn validate(self) -> Result<S3Settings, StorageError> {
        check_bucket(&self.bucket)?;
        let credentials = self.credentials.ok_or_else(|| {
            StorageError::config("credentials", "missing; use Credentials::new or Credentials::from_env")
        })?;
        credentials.check()?;
        if credentials.session_token().is_some_and(|token| token.len() > MOST_OF_A_TOKEN) {
            return Err(StorageError::config("session_token", "it is longer than 8 KiB"));
        }
        let prefix = Prefix::new(&self.bucket_prefix)?;
        let endpoint = self.endpoint.as_deref().map(check_endpoint).transpose()?;
        let region = resolve_region(self.region.as_deref(), endpoint)?;
        let aws = is_aws(&region.host());
        let path_style = self.path_style.unwrap_or(!aws || self.bucket.contains('.'));
        let bucket = Bucket::new_public(&self.bucket, region)
            .map_err(|error| StorageError::config("bucket", "cannot be addressed").with_source(error))?;
        let bucket = if path_style { *bucket.with_path_style() } else { bucket };
        let public_url = match &self.public_url {
            Some(url) => check_base("public_url", url)?,
            None => bucket.url(),
        };
        if !(4096..=1 << 20).contains(&self.chunk_size) {
            return Err(StorageError::config("chunk_size", "it is not from 4 KiB to 1 MiB"));
        }
        for (field, bytes) in [("part_threshold", self.part_threshold), ("part_size", self.part_size)] {
            if !(SMALLEST_PART..=LARGEST_PART).contains(&bytes) {
                return Err(StorageError::config(field, format!("{bytes} is not from 8 MiB to 5 GiB")));
            }
        }
        for (field, limit) in [
            ("idle_timeout", self.idle_timeout),
            ("connect_timeout", self.connect_timeout),
            ("answer_timeout", self.answer_timeout),
        ] {
            if limit.is_zero() {
                return Err(StorageError::config(field, "it cannot be zero"));
            }
        }
        Ok(S3Settings {
            path: if path_style { format!("/{}/", self.bucket) } else { "/".to_owned() },
            host: bucket.host(),
            bucket,
            credentials,
            prefix,
            public_url,
            headers: check_headers(&self.headers)?,
            checksum_header: self.checksum_header.unwrap_or(aws),
            ca_file: self.ca_file,
            chunk_size: self.chunk_size,
            part_threshold: self.part_threshold,
            part_size: self.part_size,
            largest_object: self.largest_object,
            retry: self.retry,
            idle_timeout: self.idle_timeout,
            connect_timeout: self.connect_timeout,
            answer_timeout: self.answer_timeout,
        })
    }
}

/// A checked [`S3Config`].
pub(crate) struct S3Settings {
    pub(crate) bucket: Bucket,
    /// As it is signed and sent.
    pub(crate) host: String,
    /// What stands before the key in a request's path: `/bucket/` or `/`.
    pub(crate) path: String,
    pub(crate) credentials: Credentials,
    pub(crate) prefix: Prefix,
    pub(crate) public_url: String,
    pub(crate) headers: HeaderMap,
    pub(crate) checksum_header: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) chunk_size: usize,
    pub(crate) part_threshold: u64,
    pub(crate) part_size: u64,
    pub(crate) largest_object: u64,
    pub(crate) retry: RetryPolicy,
    pub(crate) idle_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Duration,
}

fn check_bucket(name: &str) -> Result<(), StorageError> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.contains('/') {
        "a bucket's name has no '/'; what follows it belongs into bucket_prefix"
    } else if name.len() > 255 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        "only letters, digits, '-', '.' and '_' are allowed, 255 at most"
    } else {
        return Ok(());
    };
    Err(StorageError::config("bucket", format!("{name:?}: {problem}")))
}

/// Scheme and authority, nothing else.
fn check_endpoint(text: &str) -> Result<String, StorageError> {
    let wrong = |problem: &str| StorageError::config("endpoint", format!("{text:?}: {problem}"));
    if text.contains('@') {
        return Err(StorageError::config("endpoint", "it holds a user name; use credentials instead"));
    }
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let uri: Uri = with_scheme.trim_end_matches('/').parse().map_err(|_| wrong("it is no URL"))?;
    let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.ok_or_else(|| wrong("it begins with neither https:// nor http://"))?;
    let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?.as_str();
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(wrong("it has a path; the bucket goes into bucket, the rest into bucket_prefix"));
    }
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).unwrap_or(authority);
    Ok(format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

fn resolve_region(name: Option<&str>, endpoint: Option<String>) -> Result<Region, StorageError> {
    let plain =
        |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if let Some(name) = name
        && !plain(&name)
    {
        return Err(StorageError::config("region", format!("{name:?} is no region's name")));
    }
    match (name, endpoint) {
        (name, Some(endpoint)) => {
            Ok(Region::Custom { region: name.unwrap_or("us-east-1").to_owned(), endpoint })
        }
        (None, None) => Err(StorageError::config("region", "missing; AWS needs one, such as \"us-east-1\"")),
        (Some("auto"), None) => Err(StorageError::config("region", "\"auto\" needs an endpoint")),
        (Some(name), None) => match name.parse() {
            Ok(Region::Custom { .. }) | Err(_) => Ok(Region::Custom {
                region: name.to_owned(),
                endpoint: format!("https://s3.{name}.amazonaws.com"),
            }),
            Ok(known) => Ok(known),
        },
    }
}

fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
}

/// A base of URLs, refused where it is none.
fn check_base(field: &str, url: &str) -> Result<String, StorageError> {
    let absolute = url.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.query().is_none());
    if !absolute || url.contains('#') {
        let why = format!("{url:?} is no absolute URL without a query");
        return Err(StorageError::config(field, why));
    }
    Ok(url.to_owned())
}

fn check_headers(given: &[(String, String)]) -> Result<HeaderMap, StorageError> {
    let mut headers = HeaderMap::new();
    if given.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MOST_OF_HEADERS {
        return Err(StorageError::config("header", "all of them together are longer than 4 KiB"));
    }
    for (name, value) in given {
        let wrong = |problem: &str| StorageError::config("header", format!("{name:?}: {problem}"));
        let header = HeaderName::try_from(name).map_err(|_| wrong("it is no header's name"))?;
        if RESERVED.contains(&header.as_str())
            || header.as_str().starts_with("x-amz-checksum-")
            || header == UPLOAD_TOKEN
        {
            return Err(wrong("it is set by this library"));
        }
        if header.as_str().starts_with("x-amz-server-side-encryption-customer-") {
            return Err(wrong("keys of one's own (SSE-C) are not supported: they would be written to logs"));
        }
        if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong("its value is not plain ASCII; encode it (RFC 2047)"));
        }
        let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let value = HeaderValue::try_from(value).map_err(|_| wrong("its value cannot be sent"))?;
        if headers.insert(header, value).is_some() {
            return Err(wrong("it is given twice"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> S3Config {
        S3Config::new("b").endpoint("http://h:9000").credentials(Credentials::new("k", "s"))
    }

    #[test]
    fn errors_name_the_field() {
        for (config, field) in [
            (S3Config::new("a/b"), "bucket: "),
            (S3Config::new(""), "bucket: "),
            (S3Config::new("b"), "credentials: "),
            (S3Config::new("b").credentials(Credentials::new("k", "s")), "region: "),
            (S3Config::new("b").credentials(Credentials::new("k", "s")).region("auto"), "region: "),
            (config().region("x y"), "region: "),
            (config().endpoint("ftp://h"), "endpoint: "),
            (config().endpoint("http://h/bucket"), "endpoint: "),
            (config().endpoint("http://u:p@h"), "endpoint: "),
            (config().bucket_prefix("a//b"), "bucket_prefix: "),
            (config().public_url("cdn.example.com"), "public_url: "),
            (config().header("host", "x"), "header: "),
            (config().header("x-amz-meta-a", "ü"), "header: "),
            (config().header("x-amz-server-side-encryption-customer-key", "k"), "header: "),
            (config().chunk_size(1), "chunk_size: "),
            (config().part_size((8 << 20) - 1), "part_size: "),
            (config().part_threshold((5 << 30) + 1), "part_threshold: "),
            (config().header("x-amz-meta-brigade-upload", "x"), "header: "),
            (config().idle_timeout(Duration::ZERO), "idle_timeout: "),
        ] {
            let Err(error) = config.validate() else { panic!("{field} passed") };
            assert!(error.message().starts_with(field), "{field}: {error}");
            assert_eq!(error.kind(), crate::ErrorKind::Config);
        }
    }

    #[test]
    fn stores_are_addressed_by_their_defaults() {
        let aws = |bucket: &str, region: &str| {
            S3Config::new(bucket).region(region).credentials(Credentials::new("k", "s")).validate().unwrap()
        };
        let virtual_host = aws("plain", "eu-central-1");
        assert_eq!(virtual_host.path, "/");
        assert!(virtual_host.host.starts_with("plain.s3") && virtual_host.checksum_header);
        assert_eq!(aws("a.b", "eu-central-1").path, "/a.b/");
        assert_eq!(aws("b", "xx-new-9").host, "b.s3.xx-new-9.amazonaws.com");
        let custom = config().validate().unwrap();
        assert_eq!((custom.host.as_str(), custom.path.as_str()), ("h:9000", "/b/"));
        assert_eq!(custom.public_url, "http://h:9000/b");
        assert!(!custom.checksum_header);
        assert_eq!(config().path_style(false).validate().unwrap().host, "b.h:9000");
        assert_eq!(config().endpoint("https://H:443/").validate().unwrap().host, "h");
    }

    #[test]
    fn runs_of_spaces_in_header_values_become_one() {
        let settings = config().header("Cache-Control", "public,   max-age=60 ").validate().unwrap();
        assert_eq!(settings.headers["cache-control"], "public, max-age=60");
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", config().credentials(Credentials::new("CANARYKEY", "CANARYSECRET")));
        assert!(!text.contains("CANARY"), "{text}");
    }
}
