//! Finding and resuming a multipart upload that an earlier run left open.

use crate::backend::{DueHeaders, Journal, ListedPart, Reconciled, UploadName};
use crate::error::StorageError;
use crate::rescan::multipart::task::{EarlierCompletion, Held, Opened, Opening, Part, Parts};
use crate::rescan::multipart::worker::Worker;
use crate::state::records::OpenUpload;
use crate::tree::digest::PartPlan;
use crate::tree::source::Source;

/// Resumes an upload of this very file where there is one, or creates one; aborts all others.
pub(crate) fn resume_or_create(
    worker: &Worker,
    source: &Source,
    opening: Opening,
) -> Result<Opened, StorageError> {
    worker.context.check_running()?;
    let headers = worker.transfers()?.headers_of(&worker.key)?;
    let recorded = worker.cache.open_uploads(worker.key.as_str())?;
    let mut found = None;
    for open in recorded.iter().rev() {
        let Some(upload_id) = open.upload_id.clone() else {
            continue;
        };
        let upload = UploadName { key: worker.key.clone(), token: open.token.clone(), upload_id };
        if opening.gone.as_ref() == Some(&open.token) {
            worker.recorder.closed(&worker.key, &open.token);
        } else if found.is_none() && open.stat == *source.stat() && open.headers == Some(headers.digest) {
            found = resume(worker, source, open, upload, &opening.parts, headers)?;
        } else if worker.abort(&upload) {
            worker.recorder.closed(&worker.key, &open.token);
        }
    }
    match found {
        Some(found) => Ok(found),
        None => worker.create(source, opening, headers),
    }
}

/// Resumes an upload of this file; `None`: nothing is left of it.
fn resume(
    worker: &Worker,
    source: &Source,
    open: &OpenUpload,
    upload: UploadName,
    hashed: &Parts,
    headers: DueHeaders,
) -> Result<Option<Opened>, StorageError> {
    let size = open.stat.size;
    let Some(plan) = PartPlan::exactly(size, open.part_size) else {
        return Ok(None);
    };
    let mut parts = recorded_parts(worker, open, plan)?;
    let reconciled = worker.transfers()?.reconcile(&worker.context.request_context(), &upload, size)?;
    let mut completed = None;
    match reconciled {
        Reconciled::Open(listed) => agree(parts.as_mut_slice(), &plan, &listed, open.not_racy),
        // Parts may not be listed: the cache is believed, and where it is wrong, Complete fails.
        Reconciled::Unlisted => {}
        Reconciled::Finished(receipt) if open.not_racy || parts.has_all() => {
            // The object is made of what was sent, whatever the file holds by now.
            for part in parts.as_mut_slice() {
                part.sha256 = part.held.as_ref().and_then(|held| held.sha256).or(part.sha256);
            }
            completed = Some(EarlierCompletion { receipt, not_racy: open.not_racy });
        }
        Reconciled::Finished(_) | Reconciled::Gone => {
            worker.recorder.closed(&worker.key, &open.token);
            return Ok(None);
        }
    }
    worker.tell_start(size);
    let mut known = hashed.clone();
    known.adopt(parts);
    let opened = Opened { upload, parts: known, completed, headers };
    tell_resumed(worker, source, &opened);
    Ok(Some(opened))
}

/// The parts of an upload that the cache has recorded.
fn recorded_parts(worker: &Worker, open: &OpenUpload, plan: PartPlan) -> Result<Parts, StorageError> {
    let mut parts = Parts::new(plan);
    for (number, sent) in worker.cache.sent_parts(&open.token)? {
        if let Some(part) = parts.get_mut(number) {
            // The stat of a file that was too young then proves nothing: it is hashed again.
            let sha256 = Some(sent.sha256).filter(|_| open.not_racy);
            *part = Part { sha256, held: Some(Held { etag: sent.etag, sha256: Some(sent.sha256) }) };
        }
    }
    Ok(parts)
}

/// Counts, and tells observers of, what need not be sent.
fn tell_resumed(worker: &Worker, source: &Source, opened: &Opened) {
    let progress = &worker.context.session.trace.progress;
    if opened.completed.is_some() {
        return progress.bytes_present(source.stat().size);
    }
    for (number, bytes) in opened.parts.done() {
        progress.bytes_present(bytes);
        worker.tell_part(source, number, bytes, true);
    }
}

/// Keeps what cache and store agree on. A part that only the store has counts where the file's stat could be
/// trusted all the time: it is hashed, and not sent again.
fn agree(parts: &mut [Part], plan: &PartPlan, listed: &[ListedPart], not_racy: bool) {
    let mut known = vec![None; parts.len()];
    for part in listed {
        let index = (part.number as usize).wrapping_sub(1);
        let right_size = plan.part(part.number).is_some_and(|(_, length)| length == part.size);
        if let Some(place) = known.get_mut(index).filter(|_| right_size) {
            // A store that lists no ETags has what was recorded.
            let recorded = parts.get(index).and_then(|part| Some(part.held.as_ref()?.etag.clone()));
            *place = part.etag.clone().or(recorded);
        }
    }
    for (part, etag) in parts.iter_mut().zip(known) {
        if etag.is_some() && part.held.as_ref().map(|held| &held.etag) == etag.as_ref() {
            continue;
        }
        *part = match etag {
            Some(etag) if not_racy => Part { sha256: None, held: Some(Held { etag, sha256: None }) },
            _ => Part { sha256: part.sha256, held: None },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(etag: &str, sha256: Option<[u8; 32]>) -> Held {
        Held { etag: etag.to_owned(), sha256 }
    }

    #[test]
    fn parts_count_where_cache_and_store_agree() {
        let plan = PartPlan::exactly(45, 10).unwrap();
        let hash = Some([1; 32]);
        let recorded = |etag: &str, not_racy: bool| Part {
            sha256: hash.filter(|_| not_racy),
            held: Some(held(etag, hash)),
        };
        let listed = |number, size, etag: &str| ListedPart { number, size, etag: Some(etag.to_owned()) };
        let at_store = [
            listed(1, 10, "a"),
            listed(2, 10, "other"),
            listed(3, 9, "c"),
            listed(4, 10, "d"),
            listed(0, 10, "x"),
            listed(6, 10, "x"),
        ];
        let agreed = |not_racy: bool| {
            let mut parts: Vec<_> = ["a", "b", "c"].map(|etag| recorded(etag, not_racy)).into();
            parts.extend([Part::default(), recorded("e", not_racy)]);
            agree(&mut parts, &plan, &at_store, not_racy);
            parts
        };
        let only_hash = Part { sha256: hash, held: None };
        let only_tag = |etag: &str| Part { sha256: None, held: Some(held(etag, None)) };
        assert_eq!(
            agreed(true),
            [recorded("a", true), only_tag("other"), only_hash.clone(), only_tag("d"), only_hash.clone()]
        );
        // A store that lists no tags: what is recorded and has the right size counts.
        let mut parts = vec![recorded("a", true), recorded("b", true), Part::default()];
        let untagged = [1, 3].map(|number| ListedPart { number, size: 10, etag: None });
        agree(&mut parts, &PartPlan::exactly(30, 10).unwrap(), &untagged, true);
        assert_eq!(parts, [recorded("a", true), only_hash, Part::default()]);
        let nothing = Part::default();
        assert_eq!(
            agreed(false),
            [recorded("a", false), nothing.clone(), nothing.clone(), nothing.clone(), nothing]
        );
    }
}
