//! `CopyObject` of an object onto itself: gives it other headers, without its content being sent.
//!
//! A store may ignore the condition that the object is still ours. Where both `ETag`s are MD5s, that of the copy shows it.
//! Others show nothing: then one copy is asked for twice, and the store keeps conditions if it refuses the second one.
//! Until that is known, or if it is not so, HEADs look at the object before and after its copy.

use std::io::empty;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};

use http::Method;

use crate::backend::s3::S3Backend;
use crate::backend::s3::headers::{PROOF, object_headers, set_header};
use crate::backend::s3::operations::head_object::{find_object, is_encrypted};
use crate::backend::s3::operations::multipart::COMPLETE_TIMEOUT;
use crate::backend::s3::request::{COPY_SOURCE, S3Request, S3Response};
use crate::backend::s3::xml;
use crate::backend::{Copied, HeaderCopy, Proof, Receipt, StoredObject, quoted};
use crate::error::{ErrorKind, Operation, StorageError};
use crate::key::encode_path;
use crate::request_context::RequestContext;
use crate::retry;
use crate::tree::digest::LARGEST_PART;

/// So many copies in a row are refused, and no more are tried: a single one may be refused for its object.
const REFUSALS_IN_A_ROW: u32 = 3;

/// Whether the store copies objects in place, and keeps the condition of a copy, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct CopySupport {
    refused_in_a_row: AtomicU32,
    /// It refused a copy whose condition did not hold.
    kept_condition: AtomicBool,
    /// It made a copy whose condition did not hold.
    ignored_condition: AtomicBool,
    /// An `ETag` with the form of an MD5 was none.
    hides_md5: AtomicBool,
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

    /// One copy that ignored its condition outweighs all that kept theirs.
    fn keeps_condition(&self) -> bool {
        self.kept_condition.load(Relaxed) && !self.ignores_condition()
    }

    fn ignores_condition(&self) -> bool {
        self.ignored_condition.load(Relaxed)
    }

    /// Returns whether nothing in the answer to a copy would show that it was one of another object.
    fn must_look_first(&self, etag: &str) -> bool {
        !self.keeps_condition() && (!is_md5(etag) || self.hides_md5.load(Relaxed))
    }
}

/// Returns whether an object of this size can be copied in one request, as far as is known.
pub(crate) fn may_copy(s3: &S3Backend, size: u64) -> bool {
    // The limit of CopyObject is that of a part: 5 GiB.
    size <= LARGEST_PART && !s3.copies.is_refused()
}

/// A copy that the store has made.
struct Made {
    receipt: Receipt,
    /// The `ETag` shows that it has the content of our object.
    is_shown: bool,
}

/// Copies an object onto itself with the headers of now, if it is still the one with this `ETag`.
pub(crate) fn copy_in_place(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
) -> Result<Copied, StorageError> {
    let looked = s3.copies.must_look_first(object.etag);
    if looked && let Some(end) = look_before(s3, context, object)? {
        return Ok(end);
    }
    let mut taken_for_upload = false;
    match copy(s3, context, object, &mut taken_for_upload) {
        Ok(made) => {
            s3.copies.note_copied();
            if made.is_shown {
                Ok(Copied::Done(made.receipt))
            } else {
                confirm(s3, context, object, made, looked)
            }
        }
        Err(error) if taken_for_upload => {
            give_up(s3, context, &error);
            Ok(Copied::Refused)
        }
        Err(error) => settle_failure(s3, context, object, error),
    }
}

/// Sends the copy. `taken_for_upload` is set if the store does not know copies.
fn copy(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
    taken_for_upload: &mut bool,
) -> Result<Made, StorageError> {
    let key = object.key.as_str();
    s3.with_records(context, Operation::Copy, key, 0, |attempts| {
        let request = copy_request(s3, object)?;
        retry::run(&s3.settings.retry, context, Operation::Copy, |attempt| {
            *attempts = attempt;
            let response = s3.client.send(context, attempt, &request, &mut empty())?;
            // Such a store has stored an empty object in its place, and gets the file at once.
            if response.body.trim_ascii().is_empty() {
                *taken_for_upload = true;
                let what = "the store took a copy for an upload";
                return Err(StorageError::new(ErrorKind::Unsupported, Operation::Copy, what).with_key(key));
            }
            let made = read_copied(s3, object, &response).map_err(|error| error.with_key(key))?;
            Ok((made, response.request_id()))
        })
    })
}

/// Decides what a copy that failed means for its object.
fn settle_failure(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
    error: StorageError,
) -> Result<Copied, StorageError> {
    if error.kind() == ErrorKind::Conflict {
        s3.copies.kept_condition.store(true, Relaxed);
    }
    let is_changed = error.kind() == ErrorKind::Conflict || error.code() == Some("NoSuchKey");
    // Where the condition is ignored, an earlier try may have given our token to another object.
    let may_be_own = error.may_have_taken_effect() && !s3.copies.ignores_condition();
    match error.kind() {
        // An earlier try may have made the copy, which can have another ETag.
        _ if is_changed && may_be_own => find_own(s3, context, object, None, error.may_have_taken_effect()),
        _ if is_changed => Ok(Copied::Changed),
        // Nobody knows whether an earlier try still takes effect.
        _ if error.may_have_taken_effect() => Err(error),
        kind if is_refusal(kind) => {
            give_up(s3, context, &error);
            Ok(Copied::Refused)
        }
        _ => Err(error),
    }
}

fn is_refusal(kind: ErrorKind) -> bool {
    use ErrorKind::{AccessDenied, Rejected, TooLarge, Unsupported};
    matches!(kind, Unsupported | Rejected | AccessDenied | TooLarge)
}

/// Looks whether the object is the recorded one, before a copy. `None`: it is.
fn look_before(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
) -> Result<Option<Copied>, StorageError> {
    match find_object(s3, context, object.key, Operation::Copy) {
        Ok(Some(found)) if found.etag.as_deref() == Some(object.etag) && found.size == object.size => {
            Ok(None)
        }
        Ok(_) => Ok(Some(Copied::Changed)),
        Err(error) if is_refusal(error.kind()) => {
            give_up(s3, context, &error);
            Ok(Some(Copied::Refused))
        }
        Err(error) => Err(error),
    }
}

/// Decides whether a copy was one of our object, which its `ETag` does not show.
fn confirm(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
    made: Made,
    looked: bool,
) -> Result<Copied, StorageError> {
    s3.copies.hides_md5.fetch_or(is_md5(object.etag), Relaxed);
    let mut receipt = made.receipt;
    if !s3.copies.keeps_condition() && !s3.copies.ignores_condition() {
        match copy_again(s3, context, object) {
            Ok(etag) => {
                s3.copies.ignored_condition.store(true, Relaxed);
                receipt.etag = etag;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                s3.copies.kept_condition.store(true, Relaxed);
            }
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(Copied::Changed),
            // The copy itself was made.
            Err(error) => return Err(error.unsettled(true)),
        }
    }
    if s3.copies.keeps_condition() {
        return Ok(Copied::Done(receipt));
    }
    if looked { find_own(s3, context, object, receipt.etag.as_deref(), true) } else { Ok(Copied::Changed) }
}

/// Asks for a copy that was made once more. Its condition does not hold any longer: the object has another `ETag`.
fn copy_again(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
) -> Result<Option<String>, StorageError> {
    let request = copy_request(s3, object)?;
    retry::run(&s3.settings.retry, context, Operation::Copy, |attempt| {
        let response = s3.client.send(context, attempt, &request, &mut empty())?;
        xml::parse_copied(&response.body, &response.secrets)
    })
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

fn read_copied(s3: &S3Backend, object: &HeaderCopy<'_>, response: &S3Response) -> Result<Made, StorageError> {
    let etag = xml::parse_copied(&response.body, &response.secrets)?;
    let (before, after) = (object.etag, etag.as_deref().unwrap_or_default());
    let are_md5s = is_md5(before) && is_md5(after) && !is_encrypted(response);
    // A store that ignores the condition has copied what somebody else has stored.
    if are_md5s && before != after {
        s3.copies.ignored_condition.store(true, Relaxed);
        let what = format!("the object is another one: its ETag was {before}, and is {after} now");
        return Err(StorageError::new(ErrorKind::Conflict, Operation::Copy, what));
    }
    let is_shown = before == after;
    Ok(Made { receipt: Receipt { url: s3.url(object.key.as_str()), etag }, is_shown })
}

fn is_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Looks for the copy that this run made: it carries the token of the run, and the `ETag` of the answer if there was one.
fn find_own(
    s3: &S3Backend,
    context: &RequestContext<'_>,
    object: &HeaderCopy<'_>,
    etag: Option<&str>,
    may_have_been_made: bool,
) -> Result<Copied, StorageError> {
    let found = find_object(s3, context, object.key, Operation::Copy)
        .map_err(|error| error.unsettled(may_have_been_made))?;
    let is_answered = |found: &StoredObject| etag.is_none_or(|etag| found.etag.as_deref() == Some(etag));
    let ours = found.filter(|found| is_own(object, found) && is_answered(found));
    let receipt = |found: StoredObject| Receipt { url: s3.url(object.key.as_str()), etag: found.etag };
    Ok(ours.map_or(Copied::Changed, |found| Copied::Done(receipt(found))))
}

/// Returns whether what was found has the size of the object, and the proof that this run's copy of it has.
fn is_own(object: &HeaderCopy<'_>, found: &StoredObject) -> bool {
    let is_ours = |proof: &Proof| proof.digest.as_ref() == Some(object.digest) && proof.run == object.run;
    found.size == object.size && found.is_as_stored && found.proof.as_ref().is_some_and(is_ours)
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
