//! `CopyObject` of an object onto itself: gives it other headers, without its content being sent.

use std::io::empty;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{PROOF, object_headers, set_header};
use crate::backend::s3::operations::head_object::{find_object, is_encrypted};
use crate::backend::s3::operations::multipart::COMPLETE_TIMEOUT;
use crate::backend::s3::request::{COPY_SOURCE, S3Request, S3Response};
use crate::backend::s3::xml;
use crate::backend::{Copied, HeaderCopy, Proof, Receipt, quoted};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::encode_path;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::LARGEST_PART;

/// So many copies in a row are refused, and no more are tried: a single one may be refused for its object.
const REFUSALS_IN_A_ROW: u32 = 3;

/// Whether the store copies objects in place, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct CopySupport {
    refused_in_a_row: AtomicU32,
}

impl CopySupport {
    fn is_refused(&self) -> bool {
        self.refused_in_a_row.load(Relaxed) >= REFUSALS_IN_A_ROW
    }

    fn note_copied(&self) {
        // A store that was given up stays so.
        let _ = self.refused_in_a_row.fetch_update(Relaxed, Relaxed, |refused| {
            (refused > 0 && refused < REFUSALS_IN_A_ROW).then_some(0)
        });
    }

    /// Notes a refusal. Returns true if it is the one after which no more copies are tried.
    fn note_refused(&self, is_unsupported: bool) -> bool {
        let by = if is_unsupported { REFUSALS_IN_A_ROW } else { 1 };
        let before = self.refused_in_a_row.fetch_add(by, Relaxed);
        before < REFUSALS_IN_A_ROW && before + by >= REFUSALS_IN_A_ROW
    }
}

/// Returns whether an object of this size can be copied in one request, as far as is known.
pub(crate) fn may_copy(s3: &S3Backend, size: u64) -> bool {
    // The limit of CopyObject is that of a part: 5 GiB.
    size <= LARGEST_PART && !s3.copies.is_refused()
}

/// Copies an object onto itself with the headers of now, if it is still the one with this `ETag`.
pub(crate) fn copy_in_place(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
) -> Result<Copied, StorageError> {
    let key = object.key.as_str();
    let mut ignored = false;
    let copied = s3.with_records(context, Operation::Copy, key, 0, |attempts| {
        let request = copy_request(s3, object)?;
        retry::run(&s3.settings.retry, context, Operation::Copy, |attempt| {
            *attempts = attempt;
            let response = s3.client.send(context, attempt, &request, &mut empty())?;
            // Such a store has stored an empty object in its place, and gets the file at once.
            if response.body.trim_ascii().is_empty() {
                ignored = true;
                let what = "the store took a copy for an upload";
                return Err(StorageError::new(ErrorKind::Unsupported, Operation::Copy, what).with_key(key));
            }
            let receipt = read_copied(s3, object, &response).map_err(|error| error.with_key(key))?;
            Ok((receipt, response.request_id()))
        })
    });
    let error = match copied {
        Ok(receipt) => {
            s3.copies.note_copied();
            return Ok(Copied::Done(receipt));
        }
        Err(error) => error,
    };
    let is_changed = error.kind() == ErrorKind::Conflict || error.code() == Some("NoSuchKey");
    match error.kind() {
        _ if ignored => {
            give_up(s3, context, &error);
            Ok(Copied::Refused)
        }
        // An earlier try may have made the copy, which can have another ETag.
        _ if is_changed && error.may_have_taken_effect() => find_own(s3, context, object, &error),
        _ if is_changed => Ok(Copied::Changed),
        // Nobody knows whether an earlier try still takes effect.
        _ if error.may_have_taken_effect() => Err(error),
        ErrorKind::Unsupported | ErrorKind::Rejected | ErrorKind::AccessDenied | ErrorKind::TooLarge => {
            give_up(s3, context, &error);
            Ok(Copied::Refused)
        }
        _ => Err(error),
    }
}

/// Notes a refusal, and says so once no more copies are tried.
fn give_up(s3: &S3Backend, context: &RequestContext<'_>, error: &StorageError) {
    if s3.copies.note_refused(error.kind() == ErrorKind::Unsupported) {
        let what = "the store refuses to copy objects in place: files whose headers changed are sent again";
        context.trace.warn(what, &[("bucket", &s3.bucket), ("error", error)]);
    }
}

/// Builds the `CopyObject`, with the headers of the object.
fn copy_request<'a>(s3: &S3Backend, object: &HeaderCopy<'a>) -> Result<S3Request<'a>, StorageError> {
    let name = s3.settings.address.prefix.join_checked(object.key)?;
    let mut headers = object_headers(s3, object.key)?;
    let proof = Proof::of_stored(*object.digest, object.size, object.run).stored_under(&name);
    set_header(&mut headers, PROOF, &proof.to_string())?;
    set_header(&mut headers, COPY_SOURCE, &format!("/{}/{}", s3.bucket, encode_path(&name)))?;
    set_header(&mut headers, "x-amz-copy-source-if-match", &quoted(object.etag))?;
    set_header(&mut headers, "x-amz-metadata-directive", "REPLACE")?;
    // Without this, the tags are those that the object has. Not every store knows it.
    if headers.contains_key("x-amz-tagging") {
        set_header(&mut headers, "x-amz-tagging-directive", "REPLACE")?;
    }
    // The store computes it. Without this, it keeps one that it has.
    if s3.settings.checksum_header {
        set_header(&mut headers, "x-amz-checksum-algorithm", "SHA256")?;
    }
    let (key, path) = (object.key.as_str(), s3.object_path(&name));
    Ok(S3Request {
        headers,
        timeout: (object.size > s3.settings.part_threshold).then_some(COMPLETE_TIMEOUT),
        ..S3Request::plain(Operation::Copy, Method::PUT, key, path, String::new())
    })
}

fn read_copied(
    s3: &S3Backend,
    object: &HeaderCopy<'_>,
    response: &S3Response,
) -> Result<Receipt, StorageError> {
    let etag = xml::parse_copied(&response.body, &response.secrets)?;
    let (before, after) = (object.etag, etag.as_deref().unwrap_or_default());
    // A store that ignores the condition has copied what somebody else has stored.
    if is_md5(before) && is_md5(after) && before != after && !is_encrypted(response) {
        let what = format!("the object is another one: its ETag was {before}, and is {after} now");
        return Err(StorageError::new(ErrorKind::Conflict, Operation::Copy, what));
    }
    Ok(Receipt { url: s3.url(object.key.as_str()), etag })
}

fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Looks for the copy after its condition failed: it carries the token of the run.
fn find_own(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
    refusal: &StorageError,
) -> Result<Copied, StorageError> {
    let found = find_object(s3, context, object.key, Operation::Copy)
        .map_err(|error| error.unsettled(refusal.may_have_taken_effect()))?;
    let is_ours = |proof: &Proof| proof.digest.as_ref() == Some(object.digest) && proof.run == object.run;
    let ours = found.filter(|found| found.is_as_stored && found.proof.as_ref().is_some_and(is_ours));
    Ok(ours.map_or(Copied::Changed, |found| {
        Copied::Done(Receipt { url: s3.url(object.key.as_str()), etag: found.etag })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_given_up_after_three_refusals_in_a_row_or_one_that_says_unsupported() {
        let support = CopySupport::default();
        assert!(!support.note_refused(false) && !support.note_refused(false) && !support.is_refused());
        support.note_copied();
        assert!(!support.note_refused(false) && !support.note_refused(false));
        assert!(support.note_refused(false) && support.is_refused());
        support.note_copied();
        assert!(support.is_refused() && !support.note_refused(true));
        let support = CopySupport::default();
        assert!(support.note_refused(true) && support.is_refused());
    }
}
