//! The settings of an S3 backend, and their defaults.

use std::sync::Arc;

use s3::bucket::Bucket;

use crate::backend::s3::address::{S3Address, split_url};
#[cfg(feature = "profiles")]
use crate::backend::s3::auth::chain::CredentialChain;
use crate::backend::s3::auth::credentials::Credentials;
use crate::backend::s3::auth::renewal::Renewal;
use crate::backend::s3::checks::{check_base_url, check_bucket, check_endpoint, is_aws, resolve_region};
use crate::backend::s3::headers::check_headers;
use crate::backend::s3::headers::rules::{HeaderRule, HeaderRules};
use crate::backend::s3::http::network::{NetworkConfig, NetworkSettings};
use crate::error::StorageError;
use crate::key::Prefix;
use crate::retry::RetryPolicy;
use crate::tree::digest::{LARGEST_OBJECT, LARGEST_PART, SMALLEST_PART};

/// Bytes of a part; also the default of `part_threshold`.
const DEFAULT_PART_SIZE: u64 = 16 * 1024 * 1024;

/// The bucket, the store and the limits of an [`S3Backend`](crate::S3Backend).
/// [`S3Backend::new`](crate::S3Backend::new) checks all of it; its errors name the field.
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
    renewal: Option<Renewal>,
    path_style: Option<bool>,
    bucket_prefix: String,
    public_url: Option<String>,
    headers: Vec<(String, String)>,
    header_rules: Vec<HeaderRule>,
    checksum_header: Option<bool>,
    chunk_size: usize,
    part_threshold: u64,
    part_size: u64,
    largest_object: u64,
    retry: RetryPolicy,
    network: NetworkConfig,
}

impl S3Config {
    /// Starts with the defaults for a bucket. The bucket must exist.
    pub fn new(bucket: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint: None,
            region: None,
            credentials: None,
            renewal: None,
            path_style: None,
            bucket_prefix: String::new(),
            public_url: None,
            headers: Vec::new(),
            header_rules: Vec::new(),
            checksum_header: None,
            chunk_size: 8 * 1024,
            part_threshold: DEFAULT_PART_SIZE,
            part_size: DEFAULT_PART_SIZE,
            largest_object: LARGEST_OBJECT,
            retry: RetryPolicy::default(),
            network: NetworkConfig::default(),
        }
    }

    /// Returns the size above which a file becomes a multipart upload.
    #[cfg(feature = "config")]
    pub(crate) fn multipart_threshold(&self) -> u64 {
        self.part_threshold
    }

    /// Replaces the bucket.
    #[cfg(feature = "config")]
    pub(crate) fn with_bucket(mut self, bucket: &str) -> Self {
        bucket.clone_into(&mut self.bucket);
        self
    }

    /// Starts with the bucket and prefix of `s3://BUCKET[/PREFIX]`, as other tools write it.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `url` is not such a URL.
    pub fn for_url(url: &str) -> Result<Self, StorageError> {
        let (bucket, prefix) = split_url(url)?;
        Ok(Self::new(bucket).bucket_prefix(prefix))
    }

    /// The store's URL, `https://host[:port]` or `http://host[:port]`; without a scheme, https.
    /// Default: that of AWS for the region.
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// The region, such as `eu-central-1`; `auto` if the store wants that. Required for AWS;
    /// with an endpoint the default is `us-east-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// The credentials to sign with. Required.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// A function that returns new credentials, for temporary ones that expire. It is called when the store
    /// refuses the current ones, on the thread of the refused request. If it returns others, the request is
    /// retried with them. Without it, refused credentials end the run.
    ///
    /// If the time at which they expire is known ([`Credentials::with_expiry`]), it is also called by one request from
    /// 5 minutes before that time, while the others go on with the current ones. If it fails, a warning is logged once
    /// and it is called again a minute later at the earliest. Once they have expired, requests wait for new ones, and
    /// fail if there are none.
    ///
    /// ```
    /// use bucket_brigade::{Credentials, S3Config};
    /// let config = S3Config::new("releases").renew_credentials(Credentials::from_env);
    /// # let _ = config;
    /// ```
    pub fn renew_credentials(
        mut self,
        renew: impl Fn() -> Result<Credentials, StorageError> + Send + Sync + 'static,
    ) -> Self {
        self.renewal = Some(Renewal(Arc::new(renew)));
        self
    }

    /// Takes the credentials of a chain now, and new ones from it before they expire or when the store refuses them.
    /// With the feature `profiles`.
    ///
    /// # Errors
    /// Those of [`CredentialChain::credentials`].
    #[cfg(feature = "profiles")]
    pub fn credential_chain(self, chain: CredentialChain) -> Result<Self, StorageError> {
        Ok(self.credentials(chain.credentials()?).renew_credentials(move || chain.credentials()))
    }

    /// True: `endpoint/bucket/key` (path-style); false: `bucket.endpoint/key` (virtual-hosted-style). Default:
    /// path-style with an endpoint other than AWS's, and for bucket names with a dot, which wildcard certificates
    /// do not cover.
    pub fn path_style(mut self, yes: bool) -> Self {
        self.path_style = Some(yes);
        self
    }

    /// The prefix of every key in the bucket. Slashes at its ends do not matter: `"a"`, `"a/"` and `"/a"` are the
    /// same. Default: none.
    pub fn bucket_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.bucket_prefix = prefix.into();
        self
    }

    /// The URL under which readers find the bucket's objects: an object's URL is `public_url/prefix/key`.
    /// Default: the bucket's URL at the endpoint.
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.public_url = Some(url.into());
        self
    }

    /// Adds a header to every object: `Cache-Control`, `x-amz-storage-class`, `x-amz-acl`,
    /// `x-amz-server-side-encryption` and its key ID, `x-amz-meta-*`. Values are ASCII; a run of spaces becomes one
    /// space, because stores sign such runs differently.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds headers for the objects whose keys match the rule's pattern. An object gets the headers of
    /// [`header`](Self::header) first, then those of every rule that matches its key, in the order in which the rules were
    /// added: a later value replaces an earlier one of the same name, an empty value removes it. The headers of one object
    /// have 4 KiB at most, whichever rules match. Objects of the state in the bucket take no rules. Default: no rules.
    ///
    /// A file whose headers are no longer those of its object is brought in line by the next rescan: by a copy of the
    /// object onto itself, or, where that is not possible, by sending the file again.
    ///
    /// ```
    /// use bucket_brigade::{HeaderRule, S3Config};
    /// let config = S3Config::new("site")
    ///     .header("Cache-Control", "public, max-age=31536000, immutable")
    ///     .header_rule(HeaderRule::new("*.html").set("Cache-Control", "no-cache"))
    ///     .header_rule(HeaderRule::new("/install").set("Content-Type", "text/x-shellscript"));
    /// # let _ = config;
    /// ```
    pub fn header_rule(mut self, rule: HeaderRule) -> Self {
        self.header_rules.push(rule);
        self
    }

    /// Stores objects with `x-amz-checksum-sha256`. Default: on for AWS, off elsewhere.
    /// The body is protected either way: its SHA-256 is part of the signature.
    pub fn checksum_header(mut self, yes: bool) -> Self {
        self.checksum_header = Some(yes);
        self
    }

    /// The bytes that are read from a file and written to the connection at a time, 4 KiB to 1 MiB. Default
    /// 8 KiB. Each connection holds one such buffer.
    ///
    /// The cost of publishing 2 GiB from the page cache, SHA-256 (1.1 s) included, with 10 parts in flight. CPU
    /// seconds and peak MiB, from `cargo bench --bench large_file -- chunks` on 2 cores of an `x86_64` virtual
    /// machine; a TLS record holds at most 16 KiB:
    ///
    /// | | 8 KiB | 16 KiB | 64 KiB | 256 KiB |
    /// |---|---|---|---|---|
    /// | http | 2.1 s, 9.4 | 1.7 s, 9.4 | 1.6 s, 9.9 | 1.5 s, 11.8 |
    /// | https | 2.3 s, 11.3 | 2.0 s, 11.4 | 1.9 s, 12.3 | 2.0 s, 16.2 |
    pub fn chunk_size(mut self, bytes: usize) -> Self {
        self.chunk_size = bytes;
        self
    }

    /// Files larger than this are sent as a multipart upload. 8 MiB to 5 GiB, default 16 MiB. A file of exactly this
    /// size is one request. One byte more makes two parts, two further requests (`CreateMultipartUpload` and
    /// `CompleteMultipartUpload`) and two commits of the cache.
    pub fn part_threshold(mut self, bytes: u64) -> Self {
        self.part_threshold = bytes;
        self
    }

    /// The bytes of a part, 8 MiB to 5 GiB, default 16 MiB. A file of more than 10,000 parts gets larger ones
    /// ([`PartPlan`](crate::PartPlan)). A part is what a retry repeats and what one worker sends at a time. It is
    /// streamed, so its size costs no memory. Publishing 2 GiB takes 2.06 CPU seconds with parts of 8 MiB, 1.93 with
    /// 16 and 1.86 with 32 (`cargo bench --bench large_file -- parts`). A digest records the part size it was computed
    /// with and is compared with the same size, so a new part size sends nothing again.
    pub fn part_size(mut self, bytes: u64) -> Self {
        self.part_size = bytes;
        self
    }

    /// The largest object that the store takes, in bytes. Default 5 TiB. A larger file is an error that
    /// names it; it is not read.
    pub fn largest_object(mut self, bytes: u64) -> Self {
        self.largest_object = bytes;
        self
    }

    /// The retry policy of requests.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The settings of connections: proxies, TLS, rate, time limits.
    pub fn network(mut self, network: NetworkConfig) -> Self {
        self.network = network;
        self
    }

    /// Returns the destination and the URLs of this configuration. Checks only the settings that these depend on;
    /// needs no credentials.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) with a message that begins with the field's name.
    pub fn address(&self) -> Result<S3Address, StorageError> {
        check_bucket(&self.bucket)?;
        let prefix = Prefix::new(&self.bucket_prefix)?;
        let endpoint = self.endpoint.as_deref().map(check_endpoint).transpose()?;
        let region = resolve_region(self.region.as_deref(), endpoint)?;
        // Stores other than AWS rarely have a DNS name for each bucket.
        let path_style = self.path_style.unwrap_or(!is_aws(&region.host()) || self.bucket.contains('.'));
        let bucket = Bucket::new_public(&self.bucket, region).map_err(|error| {
            StorageError::config("bucket", "the name cannot be part of a URL").with_source(error)
        })?;
        let bucket = if path_style { *bucket.with_path_style() } else { bucket };
        let public_url = match &self.public_url {
            Some(url) => check_base_url("public_url", url)?,
            None => bucket.url(),
        };
        // Only a path-style request names the bucket in its path; the host does otherwise.
        let path = if path_style { format!("/{}/", self.bucket) } else { "/".to_owned() };
        Ok(S3Address { path, host: bucket.host(), bucket, prefix, public_url })
    }

    /// Checks every setting.
    pub(crate) fn validate(self) -> Result<S3Settings, StorageError> {
        // A wrong bucket is reported before missing credentials.
        check_bucket(&self.bucket)?;
        let credentials = self.credentials.clone().ok_or_else(|| {
            StorageError::config("credentials", "missing: use Credentials::new or Credentials::from_env")
        })?;
        credentials.check()?;
        let address = self.address()?;
        if !(4096..=1 << 20).contains(&self.chunk_size) {
            let why = format!("{} is not from 4 KiB to 1 MiB", self.chunk_size);
            return Err(StorageError::config("chunk_size", why));
        }
        for (field, bytes) in [("part_threshold", self.part_threshold), ("part_size", self.part_size)] {
            if !(SMALLEST_PART..=LARGEST_PART).contains(&bytes) {
                return Err(StorageError::config(field, format!("{bytes} is not from 8 MiB to 5 GiB")));
            }
        }
        Ok(S3Settings {
            checksum_header: self.checksum_header.unwrap_or_else(|| is_aws(&address.bucket.region().host())),
            address,
            credentials,
            renewal: self.renewal,
            headers: HeaderRules::new(check_headers(&self.headers)?, &self.header_rules)?,
            chunk_size: self.chunk_size,
            part_threshold: self.part_threshold,
            part_size: self.part_size,
            largest_object: self.largest_object,
            retry: self.retry,
            network: self.network.check()?,
        })
    }
}

/// A checked [`S3Config`].
pub(crate) struct S3Settings {
    pub(crate) address: S3Address,
    pub(crate) credentials: Credentials,
    pub(crate) renewal: Option<Renewal>,
    pub(crate) headers: HeaderRules,
    pub(crate) checksum_header: bool,
    pub(crate) chunk_size: usize,
    pub(crate) part_threshold: u64,
    pub(crate) part_size: u64,
    pub(crate) largest_object: u64,
    pub(crate) retry: RetryPolicy,
    pub(crate) network: NetworkSettings,
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
            (config().network(NetworkConfig::new().proxy("ftp://h")), "proxy: "),
        ] {
            let Err(error) = config.validate() else { panic!("{field} passed") };
            assert!(error.message().starts_with(field), "{field}: {error}");
            assert_eq!(error.kind(), crate::ErrorKind::Config);
        }
    }

    /// A signed URL in the place of an endpoint was repeated whole by the error.
    #[test]
    fn i7_query_of_an_endpoint_is_not_repeated() {
        let signed = "https://h/key?X-Amz-Signature=CANARY";
        let error = config().endpoint(signed).validate().err().map(|error| error.to_string());
        let text = error.unwrap();
        assert!(text.contains("\"https://h/key\": it has a path") && !text.contains("CANARY"), "{text}");
        let error = config().public_url(signed).validate().err().map(|error| error.to_string());
        assert!(!error.unwrap().contains("CANARY"));
    }

    #[test]
    fn stores_are_addressed_by_their_defaults() {
        let aws = |bucket: &str, region: &str| {
            S3Config::new(bucket).region(region).credentials(Credentials::new("k", "s")).validate().unwrap()
        };
        let virtual_host = aws("plain", "eu-central-1");
        assert_eq!(virtual_host.address.path, "/");
        assert!(virtual_host.address.host.starts_with("plain.s3") && virtual_host.checksum_header);
        assert_eq!(aws("a.b", "eu-central-1").address.path, "/a.b/");
        assert_eq!(aws("b", "xx-new-9").address.host, "b.s3.xx-new-9.amazonaws.com");
        let custom = config().validate().unwrap();
        assert_eq!((custom.address.host.as_str(), custom.address.path.as_str()), ("h:9000", "/b/"));
        assert_eq!(custom.address.public_url, "http://h:9000/b");
        assert!(!custom.checksum_header);
        assert_eq!(config().path_style(false).validate().unwrap().address.host, "b.h:9000");
        assert_eq!(config().endpoint("https://H:443/").validate().unwrap().address.host, "h");
    }

    #[test]
    fn runs_of_spaces_in_header_values_become_one() {
        let settings = config().header("Cache-Control", "public,   max-age=60 ").validate().unwrap();
        assert_eq!(settings.headers.common["cache-control"], "public, max-age=60");
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", config().credentials(Credentials::new("CANARYKEY", "CANARYSECRET")));
        assert!(!text.contains("CANARY"), "{text}");
    }
}
