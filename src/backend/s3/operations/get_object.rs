//! `GetObject`: reads an object to compare it.

use std::io::{Read, empty};

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::request::{BodyContent, S3Request};
use crate::error::{Operation, StorageError};
use crate::key::RemoteKey;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::Digest;

/// Returns the digest of an object's content, hashed as it comes; `None` if it does not have the expected size.
pub(crate) fn read_digest(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    key: &RemoteKey,
    size: u64,
    part_size: Option<u64>,
) -> Result<Option<Digest>, StorageError> {
    let object = s3.settings.address.prefix.join_checked(key)?;
    let request = S3Request {
        // One byte more shows that the object is longer.
        expected: size.saturating_add(1),
        content: BodyContent::FileReceived,
        ..S3Request::plain(
            Operation::Download,
            Method::GET,
            key.as_str(),
            s3.object_path(&object),
            String::new(),
        )
    };
    retry::run(&s3.settings.retry, context, Operation::Download, |attempt| {
        let mut digest = None;
        let mut sink = |body: &mut dyn Read| {
            let mut body = CountingReader { inner: body.take(request.expected), count: 0 };
            let found = Digest::of_stream(&mut body, part_size)?;
            digest = (body.count == size).then_some(found);
            Ok(())
        };
        s3.client.send_with_sink(context, attempt, &request, &mut empty(), Some(&mut sink))?;
        Ok(digest)
    })
}

/// Counts the bytes that are read.
struct CountingReader<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}
