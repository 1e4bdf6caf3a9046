//! Names of segments, the tokens in them, and times by the store's clock.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number in a head. JSON readers that use doubles are exact up to here.
pub(crate) const MAX_NUMBER: u64 = 1 << 53;
/// The last second that an HTTP date can show: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// The random name of one claim or one segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token([u8; 16]);

impl Token {
    /// A token of 16 random bytes.
    pub(crate) fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Parses 32 lower-case hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let is_lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
        (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The content of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SegmentKind {
    /// Everything that is published.
    Snapshot,
    /// What changed since the snapshot and the deltas before.
    Delta,
    /// The keys that a run is about to write or delete.
    Intent,
}

impl SegmentKind {
    const ALL: [Self; 3] = [Self::Snapshot, Self::Delta, Self::Intent];

    fn folder(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Delta => "delta",
            Self::Intent => "intent",
        }
    }
}

/// The name of a segment below `.brigade/`: `KIND/EPOCH-TOKEN`, the epoch as 16 hexadecimal digits. Nothing else
/// parses, so a name that was read leads nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) kind: SegmentKind,
    /// The epoch of the claim that stored the segment.
    pub(crate) epoch: u64,
    pub(crate) token: Token,
}

impl SegmentName {
    /// Parses a name; `None` if it is not exactly in the form in which it is shown.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (folder, rest) = text.split_once('/')?;
        let kind = SegmentKind::ALL.into_iter().find(|kind| kind.folder() == folder)?;
        let (epoch, token) = rest.split_once('-')?;
        let epoch = u64::from_str_radix(epoch, 16).ok().filter(|epoch| (1..=MAX_NUMBER).contains(epoch))?;
        let name = Self { kind, epoch, token: Token::parse(token)? };
        // `from_str_radix` takes a sign and any number of zeros.
        (name.to_string() == text).then_some(name)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}-{}", self.kind.folder(), self.epoch, self.token)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! as_text {
    ($type:ty, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| serde::de::Error::custom(concat!("expected ", $expected)))
            }
        }
    };
}

as_text!(Token, "a token of 32 hexadecimal digits");
as_text!(SegmentName, "a segment name");

/// A time by the store's clock, in seconds since 1970: a `Last-Modified`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StoreTime(u64);

impl StoreTime {
    /// The time that is `seconds` after 1970; at most the last second of the year 9999.
    pub(crate) fn new(seconds: u64) -> Self {
        Self(seconds.min(LAST_SECOND))
    }

    /// Returns false for a time that no HTTP date can show.
    pub(crate) fn is_valid(self) -> bool {
        self.0 <= LAST_SECOND
    }

    /// Returns the seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }

    /// Returns the time from `earlier` to this; zero if the clock was set back in between.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }

    /// Returns the time that is `by` later, rounded up to a second.
    pub(crate) fn plus(self, by: Duration) -> Self {
        let up = u64::from(by.subsec_nanos() > 0);
        Self::new(self.0.saturating_add(by.as_secs()).saturating_add(up))
    }
}

impl fmt::Display for StoreTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A date after the year 9999 cannot be shown.
        let seconds = self.0.min(LAST_SECOND);
        f.write_str(&httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_parses_only_in_the_form_in_which_it_is_shown() {
        let token = Token::new([0xab; 16]);
        for kind in SegmentKind::ALL {
            let name = SegmentName { kind, epoch: 0x1f, token };
            assert_eq!(SegmentName::parse(&name.to_string()), Some(name));
        }
        let good = SegmentName { kind: SegmentKind::Delta, epoch: 1, token }.to_string();
        assert_eq!(good, format!("delta/0000000000000001-{}", "ab".repeat(16)));
        let bad = [
            String::new(),
            good.replace("delta", "deltas"),
            good.replace("delta/", "/delta/"),
            good.replace("delta/", "delta/../"),
            good.replace("delta/", "../"),
            good.replace('-', "_"),
            good.replace("0001-", "1-"),
            good.replace("00000001-", "+0000001-"),
            good.replace("0000000000000001", "0000000000000000"),
            good.replace("0000000000000001", "0020000000000001"),
            good.replace("0000000000000001", "ffffffffffffffff"),
            good.replace("ab", "AB"),
            format!("{good}\n"),
            format!(" {good}"),
            format!("{good}/x"),
            good[..good.len() - 1].to_owned(),
        ];
        for text in bad {
            assert_eq!(SegmentName::parse(&text), None, "{text:?}");
        }
    }

    #[test]
    fn store_times_never_run_over() {
        let last = StoreTime::new(u64::MAX);
        assert!(last.is_valid() && last.plus(Duration::MAX) == last);
        assert_eq!(last.to_string(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(StoreTime::new(5).since(StoreTime::new(9)), Duration::ZERO);
        assert_eq!(StoreTime::new(5).plus(Duration::from_millis(1)), StoreTime::new(6));
    }
}
