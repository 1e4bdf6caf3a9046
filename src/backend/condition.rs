//! The condition of a write or a delete.

/// The store's error code for a conditional request that did not take effect because another one did at the same time.
pub(crate) const WRITES_RACED: &str = "ConditionalRequestConflict";

/// A condition on the object that the store has under a key when it executes a write or a delete.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Condition {
    /// Any object, or none.
    #[default]
    None,
    /// There is no object.
    Absent,
    /// There is an object with this `ETag`, without quotes.
    Matches(String),
}

impl Condition {
    /// Returns the `ETag` as requests have it, in quotes; `None` if the condition names none.
    pub(crate) fn quoted_etag(&self) -> Option<String> {
        match self {
            Self::Matches(etag) => Some(quoted(etag)),
            Self::None | Self::Absent => None,
        }
    }
}

/// Returns an `ETag` as requests have it. A weak one keeps its mark: stores never match it.
pub(crate) fn quoted(etag: &str) -> String {
    match etag.strip_prefix("W/\"") {
        Some(weak) => format!("W/\"{weak}\""),
        None => format!("\"{etag}\""),
    }
}

/// Returns whether an `ETag` promises the same bytes only roughly (RFC 9110, 8.8.1).
pub(crate) fn is_weak(etag: &str) -> bool {
    etag.starts_with("W/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etags_go_out_in_quotes() {
        assert_eq!(Condition::Matches("ab-2".to_owned()).quoted_etag().as_deref(), Some("\"ab-2\""));
        assert_eq!(Condition::Matches("W/\"ab".to_owned()).quoted_etag().as_deref(), Some("W/\"ab\""));
        assert_eq!((Condition::None.quoted_etag(), Condition::Absent.quoted_etag()), (None, None));
        assert!(is_weak("W/\"ab") && !is_weak("ab"));
    }
}
