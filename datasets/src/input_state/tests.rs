use std::io::{Cursor, Write};
use std::path::PathBuf;

use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::npy::{Element, Header};
use super::npz::Npz;

fn npy(header: &str, values: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values);
    bytes
}

fn header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn npz(members: &[(&str, Vec<u8>)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.npz");
    let mut writer = ZipWriter::new(std::fs::File::create(&path).unwrap());
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    for (name, bytes) in members {
        writer.start_file(*name, deflated).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap();
    (folder, path)
}

#[test]
fn a_header_is_read_as_numpy_writes_it() {
    let read = |bytes: Vec<u8>| Header::read(&mut Cursor::new(bytes));
    let found = read(npy(&header("<f4", "(2, 544)"), &[])).unwrap();
    assert_eq!(
        (found.element.clone(), found.shape.clone()),
        (Element::F32, vec![2, 544])
    );
    assert_eq!(found.size(), Some(4352));
    assert_eq!(
        read(npy(&header("<f8", "()"), &[])).unwrap().size(),
        Some(8)
    );
    assert_eq!(read(npy(&header("<i8", "(3,)"), &[])).unwrap().shape, [3]);
    assert_eq!(
        read(npy(&header(">f4", "(3,)"), &[])).unwrap().type_name(),
        ">f4"
    );
}

#[test]
fn a_header_that_is_none_is_refused() {
    let fortran = header("<f4", "(2, 3)").replace("False", "True");
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    let mut later = npy(&header("<f4", "(2,)"), &[]);
    later[6] = 9;
    for (bytes, part) in [
        (npy(&fortran, &[]), "fortran_order"),
        (npy("{'descr': '<f4'}", &[]), "header"),
        (npy(&header("<f4", "(-2,)"), &[]), "header"),
        (npy(&header("<f4", "((((((((2"), &[]), "header"),
        (long, "4294967295 bytes"),
        (later, "version 9"),
        (b"\x93NUMPY\x01".to_vec(), "fill whole buffer"),
        (b"GIF89a..".to_vec(), "not a `.npy`"),
    ] {
        let error = Header::read(&mut Cursor::new(bytes)).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
    let huge = npy(&header("<f8", "(18446744073709551615, 2)"), &[]);
    assert_eq!(Header::read(&mut Cursor::new(huge)).unwrap().size(), None);
}

#[test]
fn an_array_has_exactly_the_bytes_of_its_shape() {
    let (_folder, path) = npz(&[
        ("short.npy", npy(&header("<f4", "(4,)"), &[0; 12])),
        // Compresses a thousandfold; no more of it is read than the shape says.
        ("bomb.npy", npy(&header("<f4", "(4,)"), &vec![0; 64 << 20])),
        (
            "whole.npy",
            npy(&header("<f4", "(2,)"), &[0, 0, 128, 63, 0, 0, 0, 64]),
        ),
        (
            "time.npy",
            npy(&header("<M8[h]", "(1,)"), &497_112i64.to_le_bytes()),
        ),
        (
            "half.npy",
            npy(&header("<M8[ms]", "(1,)"), &1_500i64.to_le_bytes()),
        ),
        ("text.npy", npy(&header("|S4", "(1,)"), &[65; 8])),
    ]);
    let mut npz = Npz::open(&path).unwrap();
    assert!(npz.floats("short").unwrap_err().contains("16 bytes"));
    assert!(npz.floats("bomb").unwrap_err().contains("16 bytes"));
    let whole = npz.floats("whole").unwrap().into_f32().unwrap();
    assert_eq!(whole.as_slice(), Some(&[1.0, 2.0][..]));
    assert_eq!(npz.times("time"), Ok(vec![497_112 * 3600]));
    assert!(npz.times("half").unwrap_err().contains("whole second"));
    assert!(npz.times("text").is_err() && npz.floats("text").is_err());
    assert!(npz.floats("none").is_err());
}

#[test]
fn integers_of_a_npy_have_one_dimension_and_all_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("points.npy");
    let bytes: Vec<u8> = [3_i64, 1].iter().flat_map(|n| n.to_le_bytes()).collect();
    std::fs::write(&path, npy(&header("<i8", "(2,)"), &bytes)).unwrap();
    assert_eq!(crate::npy_integers(&path).unwrap(), [3, 1]);
    for wrong in [
        npy(&header("<i8", "(3,)"), &bytes),
        npy(&header("<i8", "(1, 2)"), &bytes),
        npy(&header("<f8", "(2,)"), &bytes),
    ] {
        std::fs::write(&path, wrong).unwrap();
        let error = crate::npy_integers(&path).unwrap_err();
        assert!(matches!(error, crate::Error::Npy { .. }), "{error}");
    }
}

#[test]
fn a_zip_of_something_else_is_no_state() {
    let (_folder, path) = npz(&[("../evil", vec![1])]);
    let error = Npz::open(&path).err().unwrap();
    assert!(error.contains("is not a `.npy`"), "{error}");
}
