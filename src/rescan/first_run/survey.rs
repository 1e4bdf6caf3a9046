//! Counts the objects under the prefix that the cache does not know, for the policies that take over nothing.

use crate::backend::{Listed, STATE_HEAD};
use crate::error::StorageError;
use crate::rescan::config::FirstRun;
use crate::rescan::first_run::FirstRunContext;
use crate::rescan::first_run::listing::PageReader;
use crate::rescan::first_run::others::Others;
use crate::rescan::report::UnknownObjects;

/// Counts the objects that the cache has no record of, on the first page of the listing that has any. Those of other
/// publishers are left out, as far as the listing has shown them by then.
pub(crate) fn count_unknown(first_run: &FirstRunContext<'_>) -> Result<UnknownObjects, StorageError> {
    let mut reader = PageReader::new(first_run.context, first_run.transfers);
    let mut others = Others::default();
    let mut found = UnknownObjects { count: 0, at_least: false };
    while let Some(page) = reader.next_page()? {
        let at_least = page.next.is_some();
        others.add(page.others)?;
        let mut unknown = unknown_keys(first_run, &others, page.objects)?;
        // Objects of others are no reason to refuse, also if their heads are on later pages.
        if at_least && first_run.policy == FirstRun::Refuse {
            leave_out_hidden(first_run, &mut others, &mut unknown)?;
        }
        if !unknown.is_empty() {
            found = UnknownObjects { count: unknown.len() as u64, at_least };
            break;
        }
    }
    others.warn(&first_run.context.session.trace);
    Ok(found)
}

fn unknown_keys(
    first_run: &FirstRunContext<'_>,
    others: &Others,
    objects: Vec<Listed>,
) -> Result<Vec<String>, StorageError> {
    let mut unknown = Vec::new();
    for Listed { key, .. } in objects {
        if !others.have(&key) && first_run.cache.published_record(&key)?.is_none() {
            unknown.push(key);
        }
    }
    Ok(unknown)
}

/// Leaves out the objects of publishers whose heads are not listed yet, until one object certainly is of none.
fn leave_out_hidden(
    first_run: &FirstRunContext<'_>,
    others: &mut Others,
    unknown: &mut Vec<String>,
) -> Result<(), StorageError> {
    let depth = |key: &&String| key.matches('/').count();
    while let Some(key) = unknown.iter().min_by_key(depth) {
        let Some(folder) = find_other(first_run, key)? else { break };
        others.add(vec![folder])?;
        unknown.retain(|key| !others.have(key));
    }
    Ok(())
}

/// Returns the folder above a key that belongs to another publisher. Sends a request for each folder.
fn find_other(first_run: &FirstRunContext<'_>, key: &str) -> Result<Option<String>, StorageError> {
    let (context, state) = (first_run.context.request_context(), first_run.transfers.state_objects());
    for (at, _) in key.match_indices('/') {
        let (folder, head) = (&key[..=at], format!("{}{STATE_HEAD}", &key[..=at]));
        let page = state.list_keys(&context, &head, None)?;
        if page.objects.iter().any(|object| object.key == head) {
            return Ok(Some(folder.to_owned()));
        }
    }
    Ok(None)
}
