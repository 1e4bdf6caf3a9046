//! The nearest known name to a misspelt one.

/// Names that are less alike than this are not suggested.
const LEAST_LIKENESS: f64 = 0.8;

/// Returns the known name that is most like the given one.
pub(crate) fn nearest_name<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A hyphen is how flags are written.
    let given = given.to_lowercase().replace('-', "_");
    let likeness = |name: &str| {
        // A part of a name is often what somebody remembers: `endpoint`, `access_key`.
        let is_part = given.len() >= 4 && (name.starts_with(&given) || name.ends_with(&given));
        // The more of it is given, the likelier it is meant.
        let share = given.len() as f64 / name.len() as f64;
        if is_part { 0.9 + 0.1 * share } else { strsim::jaro_winkler(&given, name) }
    };
    let ranked = known.into_iter().map(|name| (likeness(name), name));
    let best = ranked.filter(|(likeness, _)| *likeness >= LEAST_LIKENESS);
    best.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// Returns ` (did you mean "…"?)`, or nothing.
pub(crate) fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest_name(given, known).map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_nonsense_is_not() {
        let known = [
            "endpoint_url",
            "region",
            "part_size",
            "part_threshold",
            "max_delete",
            "secret_access_key",
            "checksum_header",
            "headers",
        ];
        for (given, expected) in [
            ("part-size", Some("part_size")),
            ("endpoint", Some("endpoint_url")),
            ("regoin", Some("region")),
            ("MaxDelete", Some("max_delete")),
            ("access_key", Some("secret_access_key")),
            ("header", Some("headers")),
            ("zebra", None),
        ] {
            assert_eq!(nearest_name(given, known), expected, "{given}");
        }
    }
}
