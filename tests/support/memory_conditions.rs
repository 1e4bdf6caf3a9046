//! The conditions of requests, as S3 defines them, and the stores that do not keep them. Part of `memory_store.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::{HeaderMap, header};
use s3s::dto::{
    CompleteMultipartUploadInput, CopyObjectInput, DeleteObjectInput, ETag, ETagCondition, ObjectIdentifier,
    PutObjectInput,
};
use s3s::{S3Error, S3Result, s3_error};

use super::state::{State, StoredObject};

/// An operation whose conditions a store may ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conditional {
    /// `PutObject`.
    Put,
    /// `CompleteMultipartUpload`.
    Complete,
    /// `DeleteObject`.
    Delete,
    /// The `ETag` of a key in `DeleteObjects`.
    DeleteMany,
    /// The source of a `CopyObject`.
    CopySource,
    /// `GetObject` and `HeadObject`.
    Read,
}

impl Conditional {
    /// All operations that store or delete.
    pub const WRITES: [Self; 4] = [Self::Put, Self::Complete, Self::Delete, Self::DeleteMany];
}

/// The conditions of one request on one key.
#[derive(Clone, Debug)]
pub(super) struct Conditions {
    of: Conditional,
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
}

impl Conditions {
    pub(super) fn of_put(input: &PutObjectInput) -> Self {
        let (if_match, if_none_match) = (input.if_match.clone(), input.if_none_match.clone());
        Self { of: Conditional::Put, if_match, if_none_match }
    }

    pub(super) fn of_complete(input: &CompleteMultipartUploadInput) -> Self {
        let (if_match, if_none_match) = (input.if_match.clone(), input.if_none_match.clone());
        Self { of: Conditional::Complete, if_match, if_none_match }
    }

    pub(super) fn of_delete(input: &DeleteObjectInput) -> Self {
        Self { of: Conditional::Delete, if_match: input.if_match.clone(), if_none_match: None }
    }

    pub(super) fn of_listed_delete(object: &ObjectIdentifier) -> Self {
        let if_match = object.e_tag.clone().map(ETagCondition::ETag);
        Self { of: Conditional::DeleteMany, if_match, if_none_match: None }
    }

    pub(super) fn of_read(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> Self {
        Self { of: Conditional::Read, if_match, if_none_match }
    }

    pub(super) fn of_copy(input: &CopyObjectInput) -> Self {
        let (if_match, if_none_match) =
            (input.copy_source_if_match.clone(), input.copy_source_if_none_match.clone());
        Self { of: Conditional::CopySource, if_match, if_none_match }
    }

    fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    /// AWS answers 404 to `If-Match` where there is no object, and 501 to a write with `If-None-Match` of an `ETag`.
    fn check(&self, stored: Option<&StoredObject>) -> S3Result<()> {
        let reads = self.of == Conditional::Read;
        match (&self.if_match, stored) {
            (Some(_), None) => return Err(s3_error!(NoSuchKey)),
            (Some(ETagCondition::ETag(expected)), Some(object)) if !expected.strong_cmp(&object.e_tag()) => {
                return Err(s3_error!(PreconditionFailed));
            }
            _ => {}
        }
        let Some(unwanted) = &self.if_none_match else {
            return Ok(());
        };
        if let (ETagCondition::ETag(_), false) = (unwanted, reads) {
            return Err(s3_error!(NotImplemented, "If-None-Match with an ETag"));
        }
        let hit = stored.filter(|object| match unwanted {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.weak_cmp(&object.e_tag()),
        });
        match hit {
            Some(object) if reads => Err(not_modified(&object.e_tag())),
            Some(_) => Err(s3_error!(PreconditionFailed)),
            None => Ok(()),
        }
    }
}

fn not_modified(etag: &ETag) -> S3Error {
    let mut headers = HeaderMap::new();
    if let Ok(value) = etag.to_http_header() {
        headers.insert(header::ETAG, value);
    }
    let mut error = s3_error!(NotModified);
    error.set_headers(headers);
    error
}

/// How well the store keeps conditions.
#[derive(Debug, Default)]
pub(super) struct Habits {
    pub(super) ignored: BTreeSet<Conditional>,
    /// The next conditional writes that are answered 409.
    pub(super) conflicts: u32,
    /// The longest time between the check of a condition and the write, if the two are not one step.
    pub(super) gap: Option<Duration>,
    /// The writes between check and commit, by key.
    racing: BTreeMap<String, Racing>,
}

#[derive(Debug, Default)]
struct Racing {
    /// How many are between check and commit now.
    waiting: u32,
    /// How many passed the check so far.
    passed: u64,
}

impl State {
    /// Checks the conditions in the same step as the write that follows, unless the store has a gap between the two:
    /// there [`State::enter_gap`] checked them.
    pub(super) fn check_conditions(&mut self, key: &str, conditions: &Conditions) -> S3Result<()> {
        let single = matches!(conditions.of, Conditional::Put | Conditional::Complete | Conditional::Delete);
        if single && self.habits.gap.is_some() { Ok(()) } else { self.check_now(key, conditions) }
    }

    fn check_now(&mut self, key: &str, conditions: &Conditions) -> S3Result<()> {
        if conditions.is_empty() || self.habits.ignored.contains(&conditions.of) {
            return Ok(());
        }
        if conditions.of != Conditional::Read && self.habits.conflicts > 0 {
            self.habits.conflicts -= 1;
            return Err(s3_error!(ConditionalRequestConflict));
        }
        conditions.check(self.objects.get(key))
    }

    /// Checks the conditions and returns the longest time to wait before the write, and how many writes of this key
    /// passed the check so far. `None`: there is no gap.
    pub(super) fn enter_gap(
        &mut self,
        key: &str,
        conditions: &Conditions,
    ) -> S3Result<Option<(Duration, u64)>> {
        let Some(gap) = self.habits.gap.filter(|_| !conditions.is_empty()) else {
            return Ok(None);
        };
        self.check_now(key, conditions)?;
        let racing = self.habits.racing.entry(key.to_owned()).or_default();
        racing.waiting += 1;
        racing.passed += 1;
        let gap = if racing.waiting > 1 { Duration::ZERO } else { gap };
        Ok(Some((gap, racing.passed)))
    }

    pub(super) fn others_passed(&self, key: &str, since: u64) -> bool {
        self.habits.racing.get(key).is_some_and(|racing| racing.passed > since)
    }

    pub(super) fn leave_gap(&mut self, key: &str) {
        if let Some(racing) = self.habits.racing.get_mut(key) {
            racing.waiting = racing.waiting.saturating_sub(1);
        }
    }
}
