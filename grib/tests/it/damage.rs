//! Files with bytes that are no messages: each byte is in the place of one item of the reader.

use std::path::{Path, PathBuf};

use mlwm_grib::{Error, Message, Reader};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::oracle::make;

/// Two messages, of edition 1 and 2.
fn two_messages(folder: &Path) -> [Vec<u8>; 2] {
    let path = folder.join("sound.grib");
    make(
        &path,
        &json!([
            {"sample": "regular_ll_sfc_grib1", "keys": [], "points": 496},
            {"sample": "regular_ll_sfc_grib2", "keys": [], "points": 496},
        ]),
    );
    let bytes = std::fs::read(&path).unwrap();
    let lengths: Vec<u64> = Reader::open(&path)
        .unwrap()
        .map(|message| message.unwrap().place().length)
        .collect();
    let (first, second) = bytes.split_at(lengths[0] as usize);
    assert_eq!(second.len() as u64, lengths[1]);
    [first.to_owned(), second.to_owned()]
}

fn write(folder: &TempDir, parts: &[&[u8]]) -> PathBuf {
    let path = folder.path().join("damaged.grib");
    std::fs::write(&path, parts.concat()).unwrap();
    path
}

/// All items of a file, after a check that their places are the whole file.
fn items(path: &Path) -> Vec<Result<Message, Error>> {
    let reader = Reader::open(path).unwrap();
    let size = reader.size();
    let items: Vec<_> = reader.collect();
    let mut end = 0;
    for item in &items {
        let place = match item {
            Ok(message) => message.place(),
            Err(error) => error.place().expect("the error is about some bytes"),
        };
        assert_eq!(place.offset, end);
        assert!(place.length > 0);
        end += place.length;
    }
    assert_eq!(end, size);
    items
}

/// The items of a file in short: `m` and `g` for a message and garbage, and so on, with lengths.
fn outline(path: &Path) -> Vec<(char, u64)> {
    items(path)
        .into_iter()
        .map(|item| match item {
            Ok(message) => ('m', message.place().length),
            Err(error) => {
                let kind = match error {
                    Error::Garbage { .. } => 'g',
                    Error::Truncated { .. } => 't',
                    Error::WrongLength { .. } => 'w',
                    Error::MultiField { .. } => 'f',
                    Error::TooLarge { .. } => 'l',
                    Error::Message { .. } => 'x',
                    _ => panic!("{error}"),
                };
                (kind, error.place().unwrap().length)
            }
        })
        .collect()
}

#[test]
fn garbage_before_between_and_after_messages() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    let (a, b) = (one.len() as u64, two.len() as u64);
    let path = write(
        &folder,
        &[b"GRIB?", &one, b"x", &two, &[0; 200_000], &one, b"7777"],
    );
    assert_eq!(
        outline(&path),
        [
            ('g', 5),
            ('m', a),
            ('g', 1),
            ('m', b),
            ('g', 200_000),
            ('m', a),
            ('g', 4)
        ]
    );
    let error = items(&path).remove(2).unwrap_err();
    let expected = format!("the 1 bytes from byte {} of `", 5 + a);
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn a_message_across_the_blocks_of_the_search_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    for length in 64 * 1024 - 9..64 * 1024 + 2 {
        let path = write(&folder, &[&vec![b'G'; length], &two, &one]);
        let expected = [
            ('g', length as u64),
            ('m', two.len() as u64),
            ('m', one.len() as u64),
        ];
        assert_eq!(outline(&path), expected);
    }
}

#[test]
fn a_truncated_message_at_any_byte() {
    let folder = tempfile::tempdir().unwrap();
    for message in two_messages(folder.path()) {
        for length in (1..message.len()).step_by(3) {
            let path = write(&folder, &[&message, &message[..length]]);
            // Less than a message's first eight bytes is nothing yet.
            let kind = if length < 8 { 'g' } else { 't' };
            let expected = [('m', message.len() as u64), (kind, length as u64)];
            assert_eq!(outline(&path), expected);
        }
    }
}

#[test]
fn a_truncated_message_before_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    let path = write(&folder, &[&one[..100], &two]);
    // Its length leads into the next message, where it does not end.
    assert_eq!(outline(&path), [('w', 100), ('m', two.len() as u64)]);
    let path = write(&folder, &[&two[..100], &one[..50], &one]);
    assert_eq!(outline(&path)[1], ('m', one.len() as u64));
}

#[test]
fn a_length_that_swallows_the_next_message() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    let (a, b) = (one.len() as u64, two.len() as u64);
    let mut first = two.clone();
    first[8..16].copy_from_slice(&(a + b).to_be_bytes());
    let path = write(&folder, &[&first, &one]);
    assert_eq!(outline(&path), [('w', b), ('m', a)]);
    let mut first = one.clone();
    first[4..7].copy_from_slice(&(2 * a as u32).to_be_bytes()[1..]);
    let path = write(&folder, &[&first, &one]);
    assert_eq!(outline(&path), [('w', a), ('m', a)]);
}

#[test]
fn lengths_beyond_all_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    for length in [0, 1, 16, 19, 20, u64::from(u32::MAX), 1 << 60, u64::MAX] {
        let mut wrong = two.clone();
        wrong[8..16].copy_from_slice(&length.to_be_bytes());
        let path = write(&folder, &[&wrong, &one]);
        let kind = if length > 20 { 't' } else { 'w' };
        let expected = [(kind, two.len() as u64), ('m', one.len() as u64)];
        assert_eq!(outline(&path), expected, "{length}");
    }
    for length in [0_u32, 1, 8, 0x7f_ffff, 0x80_0000, 0xff_ffff] {
        let mut wrong = one.clone();
        wrong[4..7].copy_from_slice(&length.to_be_bytes()[1..]);
        let path = write(&folder, &[&wrong, &two]);
        let found = outline(&path);
        assert_eq!(found[1], ('m', two.len() as u64), "{length}");
        assert_eq!(found[0].1, one.len() as u64);
    }
}

#[test]
fn an_empty_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(&folder, &[]);
    let mut reader = Reader::open(&path).unwrap();
    assert!(matches!(reader.next(), Some(Err(Error::Empty { .. }))));
    assert!(reader.next().is_none());
}

#[test]
fn what_is_no_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(
        Reader::open(folder.path()),
        Err(Error::Read { .. })
    ));
    let missing = folder.path().join("missing.grib");
    assert!(matches!(Reader::open(missing), Err(Error::Read { .. })));
}

#[test]
fn several_fields_in_a_message_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = two_messages(folder.path());
    // Sections 4 to 7 a second time.
    let mut at = 16;
    let mut fourth = None;
    while &two[at..at + 4] != b"7777" {
        if two[at + 4] == 4 {
            fourth = Some(at);
        }
        at += u32::from_be_bytes(two[at..at + 4].try_into().unwrap()) as usize;
    }
    let again = &two[fourth.unwrap()..at];
    let mut both = [&two[..at], again, b"7777"].concat();
    let length = both.len() as u64;
    both[8..16].copy_from_slice(&length.to_be_bytes());
    let path = write(&folder, &[&both, &one]);
    assert_eq!(outline(&path), [('f', length), ('m', one.len() as u64)]);
    let error = items(&path).remove(0).unwrap_err();
    assert!(error.to_string().contains("2 fields"), "{error}");
}

#[test]
fn edition_1_beyond_its_largest_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.grib");
    let large = json!({
        "sample": "regular_ll_sfc_grib1",
        "keys": [["Ni", 2000], ["Nj", 1500], ["bitsPerValue", 24]],
        "points": 3_000_000,
    });
    let small = json!({"sample": "regular_ll_sfc_grib1", "keys": [], "points": 496});
    make(&path, &json!([large, small]));
    let found = outline(&path);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|(kind, _)| *kind == 'm'));
    assert!(found[0].1 > 8 << 20);
}

#[test]
fn more_points_than_any_grid_has_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("points.grib");
    // A constant field: its points take no bytes.
    let constant = json!({
        "sample": "regular_ll_sfc_grib2",
        "keys": [],
        "points": 496,
        "wave": 0,
    });
    make(&path, &json!([constant]));
    let mut bytes = std::fs::read(&path).unwrap();
    // In section 3, at 16 + 21: the number of points at byte 6, Ni and Nj at 30 and 34; in section
    // 5 the number of values at byte 5.
    let grid = 16 + 21;
    let huge = 0x7fff_0000_u32.to_be_bytes();
    bytes[grid + 6..grid + 10].copy_from_slice(&huge);
    bytes[grid + 30..grid + 34].copy_from_slice(&0x7fff_u32.to_be_bytes());
    bytes[grid + 34..grid + 38].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    let mut at = 16;
    while bytes[at + 4] != 5 {
        at += u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    bytes[at + 5..at + 9].copy_from_slice(&huge);
    std::fs::write(&path, bytes).unwrap();
    let error = items(&path).remove(0).unwrap_err();
    assert!(error.to_string().contains("2147418112 values"), "{error}");
}

/// The error that refuses a message of edition 2 of which bytes of a section were changed.
fn refused(message: &Value, section: u8, change: fn(&mut [u8])) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.grib");
    make(&path, &json!([message]));
    assert!(items(&path).remove(0).is_ok());
    let mut bytes = std::fs::read(&path).unwrap();
    let mut at = 16;
    while bytes[at + 4] != section {
        at += u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    }
    let length = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    change(&mut bytes[at..at + length]);
    std::fs::write(&path, bytes).unwrap();
    items(&path).remove(0).unwrap_err().to_string()
}

#[test]
fn what_the_library_does_not_check_is_checked() {
    let regular = |keys: Value, gap: u32| json!({"sample": "regular_ll_sfc_grib2", "keys": keys, "points": 496, "gap": gap});
    // With a bitmap the number of packed values is that of section 5 alone.
    let error = refused(&regular(json!([]), 7), 5, |section| {
        section[5..9].copy_from_slice(&0x7fff_0000_u32.to_be_bytes());
    });
    assert!(
        error.contains("2147418112 of its 496 values are packed"),
        "{error}"
    );
    let error = refused(&regular(json!([]), 0), 5, |section| section[19] = 60);
    assert!(
        error.contains("496 values of 60 bits are packed in 1488 bytes"),
        "{error}"
    );
    let ccsds = json!([["packingType", "grid_ccsds"]]);
    let error = refused(&regular(ccsds, 0), 5, |section| section[23..25].fill(0));
    assert!(
        error.contains("intervals of 0 blocks of 32 samples"),
        "{error}"
    );
    // The points of latitudes are the last in section 3.
    let reduced = json!({"sample": "reduced_gg_pl_32_grib2", "keys": [], "points": 6114});
    let error = refused(&reduced, 3, |section| {
        let length = section.len();
        section[length - 2..].fill(0);
    });
    assert!(
        error.contains("N32 has a latitude with less than two points"),
        "{error}"
    );
    // The latitudes between a pole and the equator, before them.
    let error = refused(&reduced, 3, |section| section[70] = 31);
    assert!(error.contains("N31 has 64 latitudes"), "{error}");
}

#[test]
fn jpeg_2000_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jpeg.grib");
    let keys = [["packingType", "grid_jpeg"]];
    make(
        &path,
        &json!([{"sample": "regular_ll_sfc_grib2", "keys": keys, "points": 496}]),
    );
    let error = items(&path).remove(0).unwrap_err();
    assert!(error.to_string().contains("JPEG 2000"), "{error}");
}

/// The parts that random files are made of.
fn part() -> impl Strategy<Value = (u8, prop::sample::Index, Vec<u8>)> {
    (
        0_u8..4,
        any::<prop::sample::Index>(),
        prop::collection::vec(any::<u8>(), 1..40),
    )
}

#[test]
fn each_byte_of_any_file_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let messages = two_messages(folder.path());
    proptest!(ProptestConfig::with_cases(300), |(parts in prop::collection::vec(part(), 1..8))| {
        let mut bytes = Vec::new();
        let mut whole = 0;
        for (kind, index, noise) in &parts {
            match kind {
                0 | 1 => {
                    bytes.extend_from_slice(&messages[usize::from(*kind)]);
                    whole += 1;
                }
                2 => bytes.extend_from_slice(noise),
                _ => {
                    let message = &messages[index.index(2)];
                    bytes.extend_from_slice(&message[..index.index(message.len())]);
                }
            }
        }
        prop_assume!(!bytes.is_empty());
        let path = write(&folder, &[&bytes]);
        // All whole messages are found, whatever is between them.
        let found = outline(&path);
        prop_assert_eq!(found.iter().filter(|(kind, _)| *kind == 'm').count(), whole);
    });
}
