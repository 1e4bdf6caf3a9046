use s3::bucket::Bucket;

use crate::error::StorageError;
use crate::key::{Prefix, join_url};

/// Where an [`S3Config`](crate::backend::s3::config::S3Config) leads: what its destination is called and what its objects' URLs are.
/// It needs no credentials and sends nothing.
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
    /// As it is signed and sent.
    pub(crate) host: String,
    /// What stands before the key in a request's path: `/bucket/` or `/`.
    pub(crate) path: String,
    pub(crate) prefix: Prefix,
    pub(crate) public_url: String,
}

impl S3Address {
    /// What a cache of this place is bound to: `s3://host/[bucket/]prefix/`.
    pub fn destination(&self) -> String {
        format!("s3://{}{}{}", self.host, self.path, self.prefix.as_str())
    }

    /// What the object of `remote_key` is called in the bucket: prefix and key.
    pub fn build_key(&self, remote_key: &str) -> String {
        self.prefix.join(remote_key)
    }

    /// The public URL of a key, whether or not it is published.
    pub fn get_url(&self, remote_key: &str) -> String {
        join_url(&self.public_url, &self.build_key(remote_key))
    }
}

/// Bucket and prefix of `s3://BUCKET[/PREFIX]`.
pub(crate) fn split_url(url: &str) -> Result<(&str, &str), StorageError> {
    let Some(rest) = url.strip_prefix("s3://") else {
        let why = format!("{url:?} does not begin with s3://; write s3://BUCKET or s3://BUCKET/PREFIX");
        return Err(StorageError::config("destination", why));
    };
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
