//! Segments as a whole: what is written is read back, and damage is an error.
#![allow(clippy::cast_possible_truncation, reason = "lengths of segments that the tests made")]

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroU64;
use std::time::Instant;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::key::RemoteKey;
use crate::state::remote::name::MAX_NUMBER;
use crate::state::remote::segment::block::put_number;
use crate::state::remote::segment::row::Content;
use crate::tree::digest::Digest;

fn key(text: &str) -> RemoteKey {
    RemoteKey::new(text).unwrap()
}

fn state(at: &str, content: KeyState) -> Row<KeyState> {
    Row { key: key(at), content }
}

fn published(size: u64) -> KeyState {
    published_since(size, None)
}

fn published_since(size: u64, recent: Option<u64>) -> KeyState {
    let digest = Some(Digest::whole([size as u8; 32]));
    KeyState::Published { size, digest, etag: Some("e".to_owned()), recent, headers: None }
}

fn open(upload_id: &str) -> KeyState {
    KeyState::Open { upload_id: upload_id.to_owned(), token: "t".to_owned() }
}

fn filled<T: Content>(mut writer: Writer<Vec<u8>, T>, rows: &[Row<T>]) -> (Vec<u8>, Bounds) {
    for row in rows {
        writer.write(row).unwrap();
    }
    let (bytes, written) = writer.finish().unwrap();
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let Written { rows: count, unpacked, size, sha256: own } = written;
    assert_eq!((size, own), (bytes.len() as u64, sha256));
    assert_eq!(count, rows.len() as u64);
    // The head's own bound.
    assert!(count <= unpacked && unpacked <= count * MAX_ROW);
    (bytes, Bounds { rows: count, unpacked })
}

fn delta(rows: &[Row<KeyState>]) -> (Vec<u8>, Bounds) {
    filled(Writer::delta(Vec::new()), rows)
}

fn read(bytes: &[u8], bounds: Bounds) -> Result<Vec<Row<KeyState>>, SegmentError> {
    collect(&mut Reader::delta(bytes, bounds))
}

/// Reads to the end, and looks at the memory that the reader reserved.
fn collect<R: Read, T: Content>(reader: &mut Reader<R, T>) -> Result<Vec<Row<T>>, SegmentError> {
    let rows = reader.collect();
    assert!(reader.reserved() <= 4 * MAX_BLOCK, "{}", reader.reserved());
    assert!(reader.next().is_none());
    rows
}

fn damage(bytes: &[u8], bounds: Bounds) -> &'static str {
    match read(bytes, bounds) {
        Err(SegmentError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_layout_is_pinned() {
    let md5 = "00112233445566778899aabbccddeeff";
    let part_size = NonZeroU64::new(8 << 20);
    let rows = [
        state("a/b", published(300)),
        state(
            "a/c",
            KeyState::Published {
                size: 1,
                digest: Some(Digest::known([9; 32], part_size)),
                etag: Some(format!("\"{md5}-2\"")),
                recent: None,
                headers: None,
            },
        ),
        state("a/c", open("u")),
        state("b", KeyState::Removed),
        state("c", published_since(2, Some(300))),
        state(
            "d",
            KeyState::Published { size: 0, digest: None, etag: None, recent: Some(1), headers: Some([7; 8]) },
        ),
    ];
    let (bytes, bounds) = delta(&rows);
    let header = b"BBSG\x02\x01".to_vec();
    let lengths = vec![6, 54, 54, 112];
    let first = b"\x14\xac\x02\x01e\x00\x03a/b".to_vec();
    let second = b"\x58\x01\x80\x80\x80\x04\x02\x02\x01c".to_vec();
    let others = b"\x02\x01u\x01t\x03\x00\x01\x00\x01b".to_vec();
    let recent = b"\x94\x02\x01e\xac\x02\x00\x01c".to_vec();
    let hashes = [vec![300_u64 as u8; 32], vec![9; 32], hex::decode(md5).unwrap(), vec![2; 32]].concat();
    let with_headers = b"\x83\x00\x01\x07\x07\x07\x07\x07\x07\x07\x07\x00\x01d".to_vec();
    let fields = [first, second, others, recent, with_headers].concat();
    assert_eq!(bytes, [header, lengths, fields, hashes].concat(), "{}", bytes.escape_ascii());
    assert_eq!(bounds, Bounds { rows: 6, unpacked: 166 });
    assert_eq!(read(&bytes, bounds).unwrap(), rows);
}

#[test]
fn a_segment_without_rows_is_its_header() {
    let (bytes, bounds) = delta(&[]);
    assert_eq!((bytes.len(), bounds), (6, Bounds { rows: 0, unpacked: 0 }));
    assert_eq!(read(&bytes, bounds).unwrap(), []);
    assert!(read(&bytes[..5], bounds).is_err() && read(&[&bytes[..], b"\0"].concat(), bounds).is_err());
}

#[test]
fn rows_out_of_order_and_rows_that_are_too_long_are_refused_and_the_writer_goes_on() {
    let mut writer = Writer::delta(Vec::new());
    writer.write(&state("b", published(1))).unwrap();
    writer.write(&state("b", open("2"))).unwrap();
    for late in
        [state("a", published(1)), state("b", published(1)), state("b", open("2")), state("b", open("1"))]
    {
        assert!(matches!(writer.write(&late), Err(SegmentError::NotInOrder(_))), "{late:?}");
    }
    // The row has a tag, two lengths of two bytes, the text, the token, and a key of three bytes.
    let of = |length: usize| state("c", open(&"u".repeat(length)));
    let most = MAX_ROW as usize - 8;
    for length in [most + 1, 100_000] {
        let error = writer.write(&of(length)).unwrap_err();
        assert!(
            matches!(error, SegmentError::RowTooLong { bytes, .. } if bytes == length + 8 + length / 100_000)
        );
    }
    writer.write(&of(most)).unwrap();
    let (bytes, written) = writer.finish().unwrap();
    let rows = read(&bytes, Bounds { rows: 3, unpacked: written.unpacked }).unwrap();
    assert_eq!(rows, [state("b", published(1)), state("b", open("2")), of(most)]);
}

#[test]
fn a_snapshot_has_no_removed_keys() {
    let removed = state("a", KeyState::Removed);
    let mut writer = Writer::snapshot(Vec::new());
    assert!(matches!(writer.write(&removed), Err(SegmentError::RemovedInSnapshot(_))));
    let (mut bytes, bounds) = delta(&[removed]);
    assert!(matches!(Reader::snapshot(&bytes[..], bounds).next(), Some(Err(SegmentError::Damaged { .. }))));
    bytes[5] = 0;
    let mut reader = Reader::snapshot(&bytes[..], bounds);
    let Some(Err(SegmentError::Damaged { what, .. })) = reader.next() else { panic!() };
    assert_eq!(what, "a removed key in a snapshot");
    assert!(reader.next().is_none());
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let (mut bytes, bounds) = delta(&[state("a", published(1))]);
    // The version before has no digests of headers, and is read as well.
    bytes[4] = 1;
    assert_eq!(read(&bytes, bounds).unwrap(), [state("a", published(1))]);
    bytes[4] = 3;
    assert!(matches!(read(&bytes, bounds), Err(SegmentError::NewerVersion(3))));
    bytes[4] = 0;
    assert!(matches!(read(&bytes, bounds), Err(SegmentError::Damaged { .. })));
}

/// A segment of one block as a hostile hand would write it.
fn forged(numbers: [u64; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = b"BBSG\x01\x01".to_vec();
    for number in numbers {
        put_number(number, &mut bytes);
    }
    bytes.extend_from_slice(body);
    bytes
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn r1_counts_lengths_and_inflated_bytes_beyond_the_head_s_are_damage() {
    let bomb = deflated(&vec![0; 50_000_000]);
    let zeros = deflated(&[0; 1000]);
    let (packed, all) = (zeros.len() as u64, u64::MAX);
    let removed = b"\x01\x00\x01a";
    assert_eq!(read(&forged([1, 4, 4, 0], removed), Bounds { rows: 1, unpacked: 4 }).unwrap().len(), 1);
    // The block, the rows and the bytes that the head declares, the error.
    let large = "a block is too large";
    let more = "more rows or bytes than declared, or an empty block";
    let inflates = "a block does not inflate to its size";
    let cases: [(Vec<u8>, u64, u64, &str); 19] = [
        (forged([1, all, 4, 0], removed), 1, all, large),
        (forged([1, 4, all, 0], removed), 1, all, large),
        (forged([1, 4, 4, all], removed), 1, all, large),
        (forged([1, 4, 5, 0], removed), 1, all, large),
        (forged([1, MAX_BLOCK as u64, 4, 1], removed), 1, all, large),
        (forged([all, 4, 4, 0], removed), 1, all, more),
        (forged([0, 4, 4, 0], removed), 1, all, more),
        (forged([0, 0, 0, 0], b""), 1, all, more),
        (forged([1, 5, 5, 0], b"\x01\x00\x01ab"), 1, 4, more),
        (forged([1, 100_000, bomb.len() as u64, 0], &bomb), 1, all, inflates),
        (forged([1, 1001, packed, 0], &zeros), 1, all, inflates),
        (forged([1, 999, packed, 0], &zeros), 1, all, inflates),
        (forged([1, 1000, packed + 1, 0], &[&zeros[..], b"\0"].concat()), 1, all, inflates),
        (forged([1, 4, 4, 0], removed), 1, 5, "fewer bytes than declared"),
        (forged([1, 4, 4, 0], removed), 2, 9, "it ends early"),
        (forged([1, 4, 4, 0], b"\x01\x00\x01ab"), 1, 4, "bytes follow its last row"),
        (forged([1, 5, 5, 0], b"\x01\x00\x01ab"), 1, 5, "a block has more bytes than its rows"),
        (forged([1, 4, 4, 1], b"\x01\x00\x01a\0"), 1, 5, "a block has more bytes than its rows"),
        (forged([2, 5, 5, 0], b"\x01\x00\x01a\x01"), 2, 5, "a row ends early"),
    ];
    for (at, (bytes, rows, unpacked, what)) in cases.iter().enumerate() {
        assert_eq!(damage(bytes, Bounds { rows: *rows, unpacked: *unpacked }), *what, "case {at}");
    }
}

#[test]
fn r1_keys_are_validated_and_rows_are_in_order() {
    let long = [b"\x01\x00\x81\x08".as_slice(), &[b'k'; 1025]].concat();
    let padded = [b"\x02\xf9\x1f".as_slice(), &[b'u'; 4089], b"\x01t\x00\x01a"].concat();
    let cases: [(&[u8], u64, &str); 21] = [
        (b"\x01\x00\x04../x", 1, "an invalid key"),
        (b"\x01\x00\x02/x", 1, "an invalid key"),
        (b"\x01\x00\x00", 1, "an invalid key"),
        (b"\x01\x00\x01\x00", 1, "an invalid key"),
        (&long, 1, "an invalid key"),
        (b"\x01\x00\x01\xff", 1, "a key is not UTF-8"),
        (b"\x01\x01\x01a", 1, "a key shares more than there is"),
        (b"\x01\x00\x01b\x01\x00\x01a", 2, "its rows are not in order"),
        (b"\x01\x00\x01a\x01\x01\x00", 2, "its rows are not in order"),
        (b"\x02\x01u\x01t\x00\x01a\x02\x01u\x01t\x01\x00", 2, "its rows are not in order"),
        (b"\x02\x01u\x01t\x00\x01a\x01\x01\x00", 2, "its rows are not in order"),
        (&padded, 1, "a row is too long"),
        (b"\x03\x00\x01a", 1, "a row ends early"),
        (b"\x81\x00\x01a", 1, "an unknown tag"),
        (b"\x82\x01u\x01t\x00\x01a", 1, "an unknown tag"),
        (b"\x05\x00\x01a", 1, "an unknown tag"),
        (b"\x0c\x00\x00\x01a", 1, "an unknown form of digest"),
        (b"\x08\x01\x00\x00\x01a", 1, "a part size of zero"),
        // The first generation that a head cannot have, one of more than 64 bits, and none.
        (b"\x80\x01\x81\x80\x80\x80\x80\x80\x80\x10\x00\x01a", 1, "a generation is too large"),
        (b"\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00\x01a", 1, "a number of more than 64 bits"),
        (b"\x80\x01", 1, "a row ends early"),
    ];
    for (fields, rows, what) in cases {
        let length = fields.len() as u64;
        let bytes = forged([rows, length, length, 0], fields);
        assert_eq!(damage(&bytes, Bounds { rows, unpacked: length }), what, "{}", fields.escape_ascii());
    }
}

#[test]
fn an_error_of_the_input_is_not_damage() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let (bytes, bounds) = delta(&[state("a", published(1))]);
    for length in 0..=bytes.len() {
        let rows: Result<Vec<_>, _> = Reader::delta((&bytes[..length]).chain(Failing), bounds).collect();
        assert!(matches!(rows, Err(SegmentError::Read(_))), "{length}");
    }
}

#[test]
fn deltas_and_a_snapshot_are_merged() {
    let read_all = |merged: Merged<std::vec::IntoIter<_>>| merged.collect::<Result<Vec<_>, _>>().unwrap();
    let source = |rows: &[Row<KeyState>]| rows.iter().cloned().map(Ok).collect::<Vec<_>>().into_iter();
    let oldest = [
        state("a", published(1)),
        state("b", published(1)),
        state("b", open("1")),
        state("c", published(1)),
        state("d", open("1")),
        state("e", open("1")),
    ];
    let middle = [state("a", KeyState::Removed), state("b", open("2")), state("c", KeyState::Removed)];
    let latest = [state("c", open("3")), state("c", open("4")), state("d", KeyState::Removed)];
    let sources = || vec![source(&oldest), source(&middle), source(&latest)];
    let kept = [state("b", published(1)), state("b", open("2"))];
    let opened = [state("c", open("3")), state("c", open("4"))];
    let gone = |at| [state(at, KeyState::Removed)];
    let last = [state("e", open("1"))];
    assert_eq!(read_all(Merged::snapshot(sources())), [&kept[..], &opened, &last].concat());
    let whole = [&gone("a")[..], &kept, &gone("c"), &opened, &gone("d"), &last].concat();
    assert_eq!(read_all(Merged::delta(sources())), whole);
    assert_eq!(read_all(Merged::snapshot(Vec::new())), []);
}

#[test]
fn a_merge_ends_with_the_first_error() {
    let (bytes, bounds) = delta(&[state("a", published(1)), state("b", published(1))]);
    let mut merged = Merged::snapshot(vec![
        Reader::delta(&bytes[..], bounds),
        Reader::delta(&bytes[..bytes.len() - 1], bounds),
    ]);
    assert!(merged.next().is_some_and(|row| row.is_err()));
    assert!(merged.next().is_none());
}

fn etags() -> impl Strategy<Value = Option<String>> {
    let md5 = "\"?[0-9a-f]{32}(-[0-9]{1,5})?\"?";
    prop::option::of(prop_oneof![4 => md5, 1 => "\\PC{0,40}"])
}

fn digests() -> impl Strategy<Value = Option<Digest>> {
    prop::option::of(
        (any::<[u8; 32]>(), any::<u64>(), any::<bool>()).prop_map(|(sha256, size, whole)| {
            Digest::known(sha256, NonZeroU64::new(size).filter(|_| !whole))
        }),
    )
}

fn keys() -> impl Strategy<Value = RemoteKey> {
    prop_oneof![
        4 => "[ab]{1,3}(/[aé]{1,2}){0,3}",
        1 => "[a-z]{1000,1024}",
    ]
    .prop_map(|text| key(&text))
}

type State = (Option<KeyState>, Vec<String>);

fn states() -> impl Strategy<Value = State> {
    let recent = prop::option::of(prop_oneof![0..300_u64, Just(MAX_NUMBER)]);
    let headers = prop::option::of(any::<[u8; 8]>());
    let published = (any::<u64>(), digests(), etags(), recent, headers).prop_map(
        |(size, digest, etag, recent, headers)| KeyState::Published { size, digest, etag, recent, headers },
    );
    let object =
        prop_oneof![6 => published.prop_map(Some), 2 => Just(Some(KeyState::Removed)), 1 => Just(None)];
    let uploads = prop::collection::btree_set("\\PC{0,9}", 0..3).prop_map(|ids| ids.into_iter().collect());
    (object, prop_oneof![3 => Just(Vec::new()), 1 => uploads])
}

type Model = BTreeMap<RemoteKey, State>;

fn models(most: usize) -> impl Strategy<Value = Model> {
    prop::collection::btree_map(keys(), states(), 0..most)
}

fn rows_of(model: &Model) -> Vec<Row<KeyState>> {
    let mut rows = Vec::new();
    for (key, (object, uploads)) in model {
        let uploads = uploads.iter().map(|id| open(id));
        rows.extend(
            object.clone().into_iter().chain(uploads).map(|content| Row { key: key.clone(), content }),
        );
    }
    rows
}

fn apply(model: &mut Model, later: &Model) {
    for (key, (object, uploads)) in later {
        // A key with no rows in the delta is not changed by it.
        if object.is_some() || !uploads.is_empty() {
            let entry = model.entry(key.clone()).or_default();
            entry.0 = object.clone().or(entry.0.take());
            entry.1.clone_from(uploads);
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(model in models(40)) {
        let rows = rows_of(&model);
        let (bytes, bounds) = delta(&rows);
        prop_assert_eq!(read(&bytes, bounds).unwrap(), rows);
    }

    #[test]
    fn intents_are_read_back(
        model in prop::collection::btree_map(keys(), (0..3_usize, etags()), 0..40),
    ) {
        let planned = [Planned::Put, Planned::Delete, Planned::Multipart];
        let rows: Vec<_> = model
            .into_iter()
            .map(|(key, (at, before))| Row { key, content: KeyIntent { planned: planned[at], before } })
            .collect();
        let (bytes, bounds) = filled(Writer::intent(Vec::new()), &rows);
        prop_assert_eq!(collect(&mut Reader::intent(&bytes[..], bounds)).unwrap(), rows);
        prop_assert!(read(&bytes, bounds).is_err());
    }

    #[test]
    fn a_segment_that_was_cut_short_or_extended_is_damage(
        model in models(20),
        at in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..9),
    ) {
        let (bytes, bounds) = delta(&rows_of(&model));
        damage(&bytes[..at.index(bytes.len())], bounds);
        damage(&[&bytes[..], &more].concat(), bounds);
    }

    #[test]
    fn other_bounds_than_the_segment_s_are_damage(model in models(20), rows in 0..30_u64, unpacked in 0..9000_u64) {
        let (bytes, bounds) = delta(&rows_of(&model));
        let others = [Bounds { rows, ..bounds }, Bounds { unpacked, ..bounds }, Bounds { rows, unpacked }];
        for other in others.into_iter().filter(|other| *other != bounds) {
            damage(&bytes, other);
        }
    }

    #[test]
    fn mutated_bytes_are_refused_or_give_as_many_rows_in_order(
        model in models(60),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let rows = rows_of(&model);
        let (mut bytes, bounds) = delta(&rows);
        for (at, byte) in mutations {
            *at.get_mut(&mut bytes) = byte;
        }
        if let Ok(read) = read(&bytes, bounds) {
            prop_assert_eq!(read.len(), rows.len());
            // Whatever was read can be written, so it is in order and within the bounds of a row.
            let (again, bounds) = delta(&read);
            prop_assert_eq!(self::read(&again, bounds).unwrap(), read);
        }
    }

    #[test]
    fn mutated_fields_are_refused_or_give_as_many_rows_in_order(
        model in models(20),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let rows = rows_of(&model);
        let (bytes, bounds) = delta(&rows);
        let Some((mut fields, hashes)) = unpacked(&bytes) else { return Ok(()) };
        for (at, byte) in mutations {
            *at.get_mut(&mut fields) = byte;
        }
        let lengths = [rows.len() as u64, fields.len() as u64, fields.len() as u64, hashes.len() as u64];
        let bytes = forged(lengths, &[fields, hashes].concat());
        if let Ok(read) = read(&bytes, bounds) {
            let (again, bounds) = delta(&read);
            prop_assert_eq!(self::read(&again, bounds).unwrap(), read);
        }
    }

    #[test]
    fn arbitrary_bytes_are_no_segment(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        rows in 1..u64::MAX,
        unpacked in any::<u64>(),
    ) {
        let bounds = Bounds { rows, unpacked };
        prop_assert!(read(&bytes, bounds).is_err());
        let bytes = [b"BBSG\x01\x01", &bytes[..]].concat();
        if let Ok(read) = read(&bytes, bounds) {
            prop_assert_eq!(read.len() as u64, rows);
        }
    }

    #[test]
    fn a_merge_equals_the_changes_made_one_after_the_other(
        layers in prop::collection::vec(models(12), 1..6),
        split in any::<prop::sample::Index>(),
    ) {
        let segments: Vec<_> = layers.iter().map(|layer| delta(&rows_of(layer))).collect();
        let readers = || -> Vec<_> {
            segments.iter().map(|(bytes, bounds)| Reader::delta(&bytes[..], *bounds)).collect()
        };
        let mut model = Model::new();
        for layer in &layers {
            apply(&mut model, layer);
        }
        let merged: Vec<_> = Merged::delta(readers()).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(&merged, &rows_of(&model));
        let whole: Vec<_> = Merged::snapshot(readers()).collect::<Result<_, _>>().unwrap();
        let kept: Vec<_> = rows_of(&model).into_iter().filter(|row| row.content != KeyState::Removed).collect();
        prop_assert_eq!(&whole, &kept);
        // A snapshot can be written of it, and neighbours can be merged first.
        filled(Writer::snapshot(Vec::new()), &whole);
        let mut older = readers();
        let newer = Merged::delta(older.split_off(split.index(older.len() + 1)));
        let sources: Vec<Box<dyn Iterator<Item = _>>> = vec![Box::new(Merged::delta(older)), Box::new(newer)];
        let in_groups: Vec<_> = Merged::delta(sources).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(in_groups, merged);
    }
}

/// Returns the fields and the hashes of a segment of one block.
fn unpacked(bytes: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut from = bytes.get(6..).filter(|rest| !rest.is_empty())?;
    let mut number = || {
        crate::state::remote::segment::block::take_number(|| {
            let (byte, rest) = from.split_first().ok_or("")?;
            from = rest;
            Ok::<_, &str>(*byte)
        })
    };
    let [_, fields, packed, _] = [number().ok()?, number().ok()?, number().ok()?, number().ok()?];
    let (packed_bytes, hashes) = from.split_at(packed as usize);
    let mut plain = Vec::new();
    if packed == fields {
        plain.extend_from_slice(packed_bytes);
    } else {
        flate2::read::DeflateDecoder::new(packed_bytes).read_to_end(&mut plain).unwrap();
    }
    Some((plain, hashes.to_vec()))
}

/// Rows as a web build gives them: `assets/HASH/NAME.js`, in folders of 100, ETags that are MD5s.
fn realistic(count: usize) -> impl Iterator<Item = Row<KeyState>> {
    const WORDS: [&str; 20] = [
        "app", "button", "card", "chart", "chunk", "form", "icons", "index", "input", "list", "main", "menu",
        "modal", "page", "route", "store", "style", "table", "utils", "vendor",
    ];
    let mut random = fastrand::Rng::with_seed(18);
    let folders = count / 100;
    let step = (1_u64 << 48) / folders as u64;
    (0..folders as u64).flat_map(move |folder| {
        let hash = folder * step + random.u64(0..step);
        let mut names = std::collections::BTreeSet::new();
        while names.len() < 100 {
            let [first, second] = [0; 2].map(|_| WORDS[random.usize(..WORDS.len())]);
            names.insert(format!("{first}-{second}-{}", random.u32(..1000)));
        }
        let rows: Vec<_> = names.into_iter().map(|name| realistic_row(hash, &name, &mut random)).collect();
        rows
    })
}

fn realistic_row(folder: u64, name: &str, random: &mut fastrand::Rng) -> Row<KeyState> {
    let (mut sha256, mut md5) = ([0; 32], [0; 16]);
    random.fill(&mut sha256);
    random.fill(&mut md5);
    let size = 1 << random.u64(8..20);
    let content = KeyState::Published {
        size: size + random.u64(..size),
        digest: Some(Digest::whole(sha256)),
        etag: Some(format!("\"{}\"", hex::encode(md5))),
        recent: None,
        headers: Some([5; 8]),
    };
    state(&format!("assets/{folder:012x}/{name}.js"), content)
}

#[test]
fn a_row_takes_less_than_60_bytes() {
    let rows: Vec<_> = realistic(20_000).collect();
    let (bytes, bounds) = filled(Writer::snapshot(Vec::new()), &rows);
    let each = bytes.len() as f64 / rows.len() as f64;
    assert!((50.0..58.0).contains(&each), "{each} bytes a row");
    assert_eq!(collect(&mut Reader::snapshot(&bytes[..], bounds)).unwrap(), rows);
}

#[test]
fn a_small_delta_stands_in_the_head() {
    let rows: Vec<_> = realistic(100).collect();
    assert!(delta(&rows).0.len() < crate::state::remote::head::MAX_INLINE);
}

/// The most memory that the process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Run it alone, optimised, with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_million_rows() {
    const ROWS: usize = 1_000_000;
    let base = peak();
    let begun = Instant::now();
    assert_eq!(realistic(ROWS).count(), ROWS);
    let making = begun.elapsed();
    let begun = Instant::now();
    let mut writer = Writer::snapshot(tempfile::tempfile().unwrap());
    realistic(ROWS).for_each(|row| writer.write(&row).unwrap());
    let (mut file, written) = writer.finish().unwrap();
    let writing = begun.elapsed().saturating_sub(making);
    let bounds = Bounds { rows: written.rows, unpacked: written.unpacked };
    io::Seek::rewind(&mut file).unwrap();
    let begun = Instant::now();
    assert_eq!(Reader::snapshot(&file, bounds).map(Result::unwrap).count(), ROWS);
    let reading = begun.elapsed();
    io::Seek::rewind(&mut file).unwrap();
    let (bytes, changed) = delta(&realistic(10_000).collect::<Vec<_>>());
    let begun = Instant::now();
    let sources: Vec<Box<dyn Iterator<Item = _>>> =
        vec![Box::new(Reader::snapshot(&file, bounds)), Box::new(Reader::delta(&bytes[..], changed))];
    let mut writer = Writer::snapshot(io::sink());
    Merged::snapshot(sources).for_each(|row| writer.write(&row.unwrap()).unwrap());
    writer.finish().unwrap();
    let merging = begun.elapsed();
    println!(
        "{written:?}\nmade in {making:?}, written in {writing:?}, read in {reading:?}, merged in {merging:?}"
    );
    println!("peak memory {} KiB, {} KiB before", peak(), base);
}
