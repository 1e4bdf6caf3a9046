//! `status` and `url`: what the cache knows. No request is sent, no credentials are needed.

use std::io::{self, Write};
use std::sync::Arc;

use bucket_brigade::{ErrorKind, KeyState, LocalBackend, RemoteKey, StorageError};

use crate::args::{PlaceArgs, UrlArgs};
use crate::place::Place;
use crate::{exit, json, print_json, printed, text};

/// What is published, and what is pending.
pub(crate) fn status(args: &PlaceArgs) -> Result<u8, StorageError> {
    let place = Place::find(args)?;
    let destination = place.address.destination();
    let cache = place.existing_cache()?;
    let held = match &cache {
        Some(cache) => {
            cache.check_destination(&destination)?;
            Some((cache.summary()?, cache.pending()?))
        }
        None => None,
    };
    let held = held.as_ref().map(|(summary, pending)| (summary, pending.as_slice()));
    let path = place.cache_path.display().to_string();
    if args.output.json {
        print_json(&json::status(&destination, &path, held))?;
    } else {
        printed(text::status(&destination, &path, held))?;
    }
    Ok(exit::DONE)
}

/// Prints where keys are to be read, a line each. Where there is a cache, what it knows counts.
pub(crate) fn url(args: &UrlArgs) -> Result<u8, StorageError> {
    for key in &args.keys {
        RemoteKey::new(key)?;
    }
    let place = Place::find(&args.place)?;
    let fallback = args.fallback_url.as_ref().map(|url| Arc::new(LocalBackend::new(url, "/")));
    let cache = match place.existing_cache() {
        Err(error) if error.kind() == ErrorKind::CacheLocked => {
            text::note("a sync is running: these URLs do not say what is published yet");
            None
        }
        other => other?,
    };
    if let Some(cache) = &cache {
        cache.check_destination(&place.address.destination())?;
        let store = LocalBackend::new(place.address.get_url(""), "/");
        cache.use_urls_of(Arc::new(store), fallback.map(|fallback| fallback as _));
    }
    let (mut urls, mut missing) = (Vec::new(), false);
    for key in &args.keys {
        let known = cache.as_ref().map(|cache| cache.resolve(key)).transpose()?;
        let state = match &known {
            None => "unknown",
            Some(None) => "unpublished",
            Some(Some(there)) => state_of(there.state),
        };
        let url = known.flatten().map_or_else(|| place.address.get_url(key), |there| there.url);
        missing |= state == "unpublished";
        urls.push((key, url, state));
    }
    if args.place.output.json {
        let list: Vec<_> = urls
            .iter()
            .map(|(key, url, state)| serde_json::json!({ "key": key, "url": url, "state": state }))
            .collect();
        print_json(&serde_json::Value::Array(list))?;
    } else {
        let mut out = io::stdout().lock();
        for (key, url, state) in &urls {
            if *state == "unpublished" {
                text::note(&format!("{} is not published", text::printable(key)));
            }
            printed(writeln!(out, "{url}"))?;
        }
    }
    Ok(if missing { exit::FAILED } else { exit::DONE })
}

fn state_of(state: KeyState) -> &'static str {
    match state {
        KeyState::Published => "published",
        KeyState::Pending => "pending",
        KeyState::Stale => "stale",
        _ => "unknown",
    }
}
