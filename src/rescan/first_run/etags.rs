//! The divisions into parts that may have given an object its `ETag`. Pure.

use std::num::NonZeroU64;

use crate::tree::fingerprint::Division;

const MIB: u64 = 1024 * 1024;

/// The part sizes of other tools, in MiB: rclone and s3cmd's smallest (5, 15), the AWS tools (8), minio-go (16), s5cmd
/// (50), and sizes that people set by hand.
const USUAL_PART_SIZES: [u64; 9] = [5, 8, 15, 16, 25, 32, 50, 64, 100];

/// Returns the divisions of a file of `size` bytes that may have this `ETag`: none for an object that was sent in one
/// request, else the usual part sizes and `own` that give its number of parts. Empty if it is no MD5 at all.
pub(crate) fn possible_divisions(etag: &str, size: u64, own: Division) -> Vec<Division> {
    let etag = etag.trim_matches('"');
    let (md5, parts) = match etag.split_once('-') {
        Some((md5, parts)) => (md5, Some(parts)),
        None => (etag, None),
    };
    if md5.len() != 32 || !md5.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Vec::new();
    }
    let Some(parts) = parts else { return vec![None] };
    let Ok(count) = parts.parse::<u64>() else { return Vec::new() };
    let sizes = own.into_iter().chain(USUAL_PART_SIZES.iter().filter_map(|mib| NonZeroU64::new(mib * MIB)));
    let mut fitting: Vec<_> = sizes.filter(|part_size| size.div_ceil(part_size.get()) == count).collect();
    fitting.sort_unstable();
    fitting.dedup();
    // A single part has the same MD5 whatever its room.
    fitting.truncate(if count == 1 { 1 } else { usize::MAX });
    fitting.into_iter().map(Some).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisions_are_those_that_give_the_number_of_parts() {
        let md5 = "0123456789abcdef0123456789ABCDEF";
        let mib = |size: u64| NonZeroU64::new(size * MIB);
        let found = |etag: String, size: u64, own: Division| possible_divisions(&etag, size, own);
        assert_eq!(found(md5.into(), 7, None), [None]);
        assert_eq!(found(format!("\"{md5}\""), 0, mib(8)), [None]);
        assert_eq!(found(format!("{md5}-3"), 20 * MIB, None), [mib(8)]);
        assert_eq!(found(format!("{md5}-2"), 20 * MIB, mib(10)), [mib(10), mib(15), mib(16)]);
        assert_eq!(found(format!("{md5}-2"), 20 * MIB, mib(16)), [mib(15), mib(16)]);
        assert_eq!(found(format!("{md5}-1"), MIB, mib(16)), [mib(5)]);
        for other in ["-7", "-0", "-", "-x", "-2-2", "-99999999999999999999"] {
            assert_eq!(found(format!("{md5}{other}"), 20 * MIB, mib(8)), [], "{other}");
        }
        for other in ["", "\"\"", "x", &md5[1..], &format!("g{}", &md5[1..]), "W/\"1\""] {
            assert_eq!(found(other.to_owned(), 20 * MIB, mib(8)), [], "{other}");
        }
    }
}
