//! Reading an object, to compare it.

use std::io::{Read, empty};

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::request::S3Request;
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::Digest;

/// The digest of an object's content, hashed as it comes; `None` where it is not of the expected size.
pub(crate) fn content(
    s3: &S3Backend,
    exchange: &RequestContext<'_>,
    key: &RemoteKey,
    size: u64,
    part_size: Option<u64>,
) -> Result<Option<Digest>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let ask = S3Request {
        // A byte more than expected tells a longer one.
        expected: size.saturating_add(1),
        ..S3Request::plain(
            Operation::Download,
            Method::GET,
            key.as_str(),
            s3.object_path(&object),
            String::new(),
        )
    };
    retry::run(&s3.settings.retry, exchange, Operation::Download, |attempt| {
        let mut digest = None;
        let mut take = |body: &mut dyn Read| {
            let mut body = Counted { inner: body.take(ask.expected), count: 0 };
            let found = Digest::of_stream(&mut body, part_size)?;
            digest = (body.count == size).then_some(found);
            Ok(())
        };
        s3.client.exchange_with(exchange, attempt, &ask, &mut empty(), Some(&mut take))?;
        Ok(digest)
    })
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
