//! The patterns of the settings `include` and `exclude`, and of headers.

use super::{check_error, parts};
use crate::ErrorKind;
use crate::key::is_reserved;
use crate::tree::filter::{Filter, compile_patterns, matching_patterns};

/// A path, then patterns.
pub(crate) fn target(data: &[u8]) {
    let mut texts = parts(data).map(|part| std::str::from_utf8(part).ok());
    let Some(Some(path)) = texts.next() else { return };
    let patterns: Vec<String> = texts.flatten().map(str::to_owned).collect();
    let compiled = match compile_patterns("exclude", &patterns) {
        Ok(compiled) => compiled,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Config);
            return check_error(&error, 2 * data.len());
        }
    };
    assert_eq!(compiled.is_none(), patterns.is_empty());
    let exclude = Filter::new(&[], &patterns).unwrap();
    let include = Filter::new(&patterns, &[]).unwrap();
    let is_matched = exclude.excludes(path);
    // The same patterns leave out what they admit, and the other way round.
    assert!(!(is_matched && exclude.admits(path)));
    let is_admitted = include.admits(path);
    assert_eq!(is_admitted, (is_matched || patterns.is_empty()) && !is_reserved(path));
    // What matches a folder matches everything below it.
    let below = format!("{path}/x/.y");
    assert!(!is_matched || exclude.excludes(&below));
    assert_eq!(exclude.excludes_path(path.as_ref()), is_matched);
    if let Some(set) = &compiled {
        let matching = matching_patterns(set, path);
        assert!(matching.is_sorted() && matching.iter().all(|number| *number < patterns.len()));
        assert_eq!(!matching.is_empty(), is_matched);
        // Each pattern means the same alone.
        for (number, pattern) in patterns.iter().enumerate().take(4) {
            let alone = Filter::new(&[], std::slice::from_ref(pattern)).unwrap();
            assert_eq!(alone.excludes(path), matching.contains(&number), "{pattern:?}");
        }
    }
}
