//! Sending a file.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, Method};

use super::S3Backend;
use super::client::{Answer, Ask};
use crate::backend::{Exchange, Receipt, Upload};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::retry;

/// The largest body of one `PutObject` (Amazon S3 User Guide, "Uploading objects").
const LARGEST_PUT: u64 = 5 * 1024 * 1024 * 1024;

/// An error above what one request can store.
pub(crate) fn check_size(size: u64) -> Result<(), StorageError> {
    if size <= LARGEST_PUT {
        return Ok(());
    }
    let why = format!("{size} bytes are more than the 5 GiB that one request can store");
    Err(StorageError::new(ErrorKind::TooLarge, Operation::Upload, why))
}

/// Stores a file with one PUT, streamed from disk, repeated where that may help.
pub(crate) fn put(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    file: &Upload<'_>,
) -> Result<Receipt, StorageError> {
    let length = file.source.stat().size;
    check_size(length).map_err(|error| error.with_key(file.key.as_str()))?;
    let object = s3.settings.prefix.join_checked(file.key)?;
    let payload = file.digest.to_hex();
    let ask = Ask {
        operation: Operation::Upload,
        method: Method::PUT,
        key: file.key.as_str(),
        path: s3.object_path(&object),
        query: String::new(),
        headers: headers(s3, file)?,
        payload: &payload,
        length,
    };
    let mut reread = false;
    s3.watched(exchange, Operation::Upload, file.key.as_str(), length, |attempts| {
        let answer = retry::run(&s3.settings.retry, exchange, Operation::Upload, |attempt| {
            *attempts = attempt;
            send(s3, exchange, attempt, &ask, file).map_err(|error| {
                let suspect = error.kind() == ErrorKind::Integrity && !std::mem::replace(&mut reread, true);
                if suspect { second_opinion(file, error) } else { error }
            })
        })?;
        Ok((Receipt { url: s3.url(file.key.as_str()), etag: etag(&answer) }, request_id(&answer)))
    })
}

fn send(
    s3: &S3Backend,
    exchange: &Exchange<'_>,
    attempt: u32,
    ask: &Ask<'_>,
    file: &Upload<'_>,
) -> Result<Answer, StorageError> {
    if ask.length == 0 {
        file.source.check_unchanged()?;
    }
    let mut body = file.source.reader(s3.settings.chunk_size);
    s3.client.exchange(exchange, attempt, ask, &mut body)
}

/// The store received other bytes than were hashed: the file was rewritten meanwhile, or the bytes
/// were damaged on their way, which is worth one more try.
fn second_opinion(file: &Upload<'_>, error: StorageError) -> StorageError {
    match file.source.hash(|_| Ok(())) {
        Ok(digest) if digest == *file.digest => error.retryable(true),
        Ok(_) => StorageError::new(
            ErrorKind::SourceChanged,
            Operation::Read,
            "it was rewritten while it was being published; the next rescan publishes it",
        )
        .with_source(error),
        Err(unreadable) => unreadable,
    }
}

fn headers(s3: &S3Backend, file: &Upload<'_>) -> Result<HeaderMap, StorageError> {
    let mut headers = s3.settings.headers.clone();
    let mime = mime_guess::from_path(file.key.as_str()).first_or_octet_stream();
    let mut set = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(|_| StorageError::config(name, "cannot be sent"))?;
        headers.insert(name, value);
        Ok::<(), StorageError>(())
    };
    set("content-type", mime.as_ref())?;
    if s3.settings.checksum_header {
        set("x-amz-checksum-sha256", &BASE64_STANDARD.encode(file.digest.as_bytes()))?;
    }
    Ok(headers)
}

/// The store's tag without the quotes that some answers have and some listings leave out.
pub(crate) fn etag(answer: &Answer) -> Option<String> {
    answer.header("etag").map(|tag| tag.trim_matches('"').to_owned())
}

pub(crate) fn request_id(answer: &Answer) -> String {
    answer.header("x-amz-request-id").unwrap_or_default().to_owned()
}
