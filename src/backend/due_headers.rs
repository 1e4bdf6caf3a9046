//! The headers that an object gets, as digests: records have them, and a change shows.

/// The digest of an object's headers in records: the first bytes of a SHA-256. It shows that headers differ, nothing more.
pub(crate) type HeadersDigest = [u8; 8];

/// The headers that the object of a key gets by the settings.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueHeaders {
    /// The SHA-256 of the headers, Content-Type included, and of the settings that the store keeps with the object.
    pub(crate) digest: [u8; 32],
    /// The settings name headers for the key. Otherwise there is only a Content-Type, by the file's name.
    pub(crate) is_explicit: bool,
}

impl DueHeaders {
    /// Returns the digest as records have it.
    pub(crate) fn recorded(&self) -> HeadersDigest {
        let mut short = HeadersDigest::default();
        short.copy_from_slice(&self.digest[..8]);
        short
    }

    /// Returns true if an object has other headers, by its record. One whose headers are not known is left as it is,
    /// unless the settings name headers.
    pub(crate) fn differ_from(&self, recorded: Option<HeadersDigest>) -> bool {
        recorded.map_or(self.is_explicit, |recorded| recorded != self.recorded())
    }
}
