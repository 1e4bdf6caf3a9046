//! Segments of the state in the bucket: read within bounds, written again, merged.

use super::parts;
use crate::key::RemoteKey;
use crate::state::remote::segment::{
    Bounds, KeyIntent, KeyState, Merged, Reader, Row, SegmentError, Writer, Written,
};

/// A block has 68 KiB at most. Fields, packed fields and hashes each have a buffer, which grows by doubling.
const MOST_RESERVED: usize = 512 * 1024;

const SNAPSHOT: u8 = 0;
const DELTA: u8 = 1;
const INTENT: u8 = 2;

/// The first byte chooses the kind, four more are the rows and the bytes that the head declares.
pub(crate) fn target(data: &[u8]) {
    let [kind, rows, rows_above, unpacked, unpacked_above, bytes @ ..] = data else { return };
    let rows = u64::from(u16::from_le_bytes([*rows, *rows_above]));
    let unpacked = u64::from(u16::from_le_bytes([*unpacked, *unpacked_above]));
    let bounds = Bounds { rows, unpacked };
    match kind % 4 {
        kind @ (SNAPSHOT | DELTA) => drop(check_states(kind, bytes, bounds)),
        INTENT => check_intents(bytes, bounds),
        _ => check_merged(bytes, bounds),
    }
}

fn states(kind: u8, bytes: &[u8], bounds: Bounds) -> Reader<&[u8], KeyState> {
    if kind == SNAPSHOT { Reader::snapshot(bytes, bounds) } else { Reader::delta(bytes, bounds) }
}

/// Reads rows up to the first error, and checks that those are written and read again as they are.
fn check_states(kind: u8, bytes: &[u8], bounds: Bounds) -> Vec<Row<KeyState>> {
    let mut reader = states(kind, bytes, bounds);
    let rows: Vec<_> = reader.by_ref().map_while(Result::ok).collect();
    assert!(reader.reserved() <= MOST_RESERVED && reader.next().is_none());
    check_keys(rows.iter().map(|row| &row.key), bounds);
    let mut writer = if kind == SNAPSHOT { Writer::snapshot(Vec::new()) } else { Writer::delta(Vec::new()) };
    for row in &rows {
        writer.write(row).unwrap();
    }
    let (bytes, written) = writer.finish().unwrap();
    check_written(rows.len(), bytes.len(), &written);
    let read: Result<Vec<_>, SegmentError> = states(kind, &bytes, Bounds::from(&written)).collect();
    assert_eq!(read.unwrap(), rows);
    rows
}

fn check_intents(bytes: &[u8], bounds: Bounds) {
    let mut reader = Reader::intent(bytes, bounds);
    let rows: Vec<Row<KeyIntent>> = reader.by_ref().map_while(Result::ok).collect();
    assert!(reader.reserved() <= MOST_RESERVED && reader.next().is_none());
    check_keys(rows.iter().map(|row| &row.key), bounds);
    let mut writer = Writer::intent(Vec::new());
    for row in &rows {
        writer.write(row).unwrap();
    }
    let (bytes, written) = writer.finish().unwrap();
    check_written(rows.len(), bytes.len(), &written);
    let read: Result<Vec<_>, SegmentError> =
        Reader::intent(bytes.as_slice(), Bounds::from(&written)).collect();
    assert_eq!(read.unwrap(), rows);
}

/// No more rows than declared, in order, each with a key that a caller could have given.
fn check_keys<'a>(keys: impl Iterator<Item = &'a RemoteKey>, bounds: Bounds) {
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() as u64 <= bounds.rows && keys.is_sorted());
    assert!(keys.iter().all(|key| RemoteKey::new(key.as_str()).is_ok()));
}

fn check_written(rows: usize, bytes: usize, written: &Written) {
    assert_eq!((written.rows, written.size), (rows as u64, bytes as u64));
    // The bounds that a head has.
    assert!(written.rows <= written.unpacked && written.unpacked <= written.rows * 4096);
}

/// Three deltas merge to the same rows, in whatever groups neighbours are merged.
fn check_merged(bytes: &[u8], bounds: Bounds) {
    let mut deltas: Vec<_> = parts(bytes).take(3).map(|part| check_states(DELTA, part, bounds)).collect();
    deltas.resize(3, Vec::new());
    let merged = |deltas: &[&[Row<KeyState>]]| {
        let sources = deltas.iter().map(|rows| rows.iter().cloned().map(Ok)).collect();
        Merged::delta(sources).collect::<Result<Vec<_>, _>>().unwrap()
    };
    let [first, second, third] = [&deltas[0][..], &deltas[1], &deltas[2]];
    let all = merged(&[first, second, third]);
    assert_eq!(merged(&[&merged(&[first, second]), third]), all);
    assert_eq!(merged(&[first, &merged(&[second, third])]), all);
    let mut writer = Writer::delta(Vec::new());
    for row in &all {
        writer.write(row).unwrap();
    }
}
