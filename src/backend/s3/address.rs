//! The destination and the URLs of a configuration.

use s3::bucket::Bucket;

use crate::error::StorageError;
use crate::key::{Prefix, join_url};

/// The destination and the object URLs of an [`S3Config`](crate::backend::s3::config::S3Config). Needs no credentials
/// and sends nothing.
///
/// ```
/// use bucket_brigade::S3Config;
/// let config = S3Config::for_url("s3://releases/game/live")?.endpoint("https://minio.example.com");
/// let address = config.public_url("https://cdn.example.com").address()?;
/// assert_eq!(address.destination(), "s3://minio.example.com/releases/game/live/");
/// assert_eq!(address.get_url("a b.txt"), "https://cdn.example.com/game/live/a%20b.txt");
/// # Ok::<(), bucket_brigade::StorageError>(())
/// ```
#[derive(Debug, Clone)]
pub struct S3Address {
    pub(crate) bucket: Bucket,
    /// The `Host` header.
    pub(crate) host: String,
    /// The part of a request's path before the key: `/bucket/` or `/`.
    pub(crate) path: String,
    pub(crate) prefix: Prefix,
    pub(crate) public_url: String,
}

impl S3Address {
    /// Returns the name of the destination, to which a cache is bound: `s3://host/[bucket/]prefix/`.
    pub fn destination(&self) -> String {
        format!("s3://{}{}{}", self.host, self.path, self.prefix.as_str())
    }

    /// Returns the object's name in the bucket: the prefix, then `remote_key`.
    pub fn build_key(&self, remote_key: &str) -> String {
        self.prefix.join(remote_key)
    }

    /// Returns the public URL of a key, published or not.
    pub fn get_url(&self, remote_key: &str) -> String {
        join_url(&self.public_url, &self.build_key(remote_key))
    }
}

/// Splits `s3://BUCKET[/PREFIX]` into bucket and prefix.
pub(crate) fn split_url(url: &str) -> Result<(&str, &str), StorageError> {
    let Some(rest) = url.strip_prefix("s3://") else {
        let why = format!("{url:?} does not begin with s3://; write s3://BUCKET or s3://BUCKET/PREFIX");
        return Err(StorageError::config("destination", why));
    };
    // The prefix is checked with the other settings.
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        let why = format!("{url:?} names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX");
        return Err(StorageError::config("destination", why));
    }
    Ok((bucket, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_bucket_and_prefix() {
        assert_eq!(split_url("s3://b").unwrap(), ("b", ""));
        assert_eq!(split_url("s3://b/").unwrap(), ("b", ""));
        assert_eq!(split_url("s3://b/a/c").unwrap(), ("b", "a/c"));
        for wrong in ["b/a", "https://b/a", "s3:/b", "s3:///a", "s3://", ""] {
            let error = split_url(wrong).unwrap_err();
            assert!(error.message().starts_with("destination: ") && error.message().contains("s3://BUCKET"));
        }
    }
}
