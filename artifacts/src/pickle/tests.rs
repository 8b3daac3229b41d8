use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

fn look(bytes: &[u8]) -> Result<Checkpoint, PickleError> {
    inspect(Cursor::new(bytes), bytes.len() as u64)
}

fn globals(bytes: &[u8]) -> Vec<String> {
    let checkpoint = look(bytes).unwrap();
    checkpoint.globals.iter().map(ToString::to_string).collect()
}

/// Protocol 2, as `torch.save` uses it: `OrderedDict([("weight", <tensor>)])`.
fn torch_pickle() -> Vec<u8> {
    let mut bytes =
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01X\x06\x00\x00\x00weightq\x02".to_vec();
    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\x00\x00\x00storageq\x04");
    bytes.extend(
        b"ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x01tq\x08Q",
    );
    bytes.extend(b"K\x00K\x01\x85K\x01\x85\x89h\x00)RtRq\x09s.");
    bytes
}

fn zip_of(members: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in members {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(*name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn torch_zip() -> Vec<u8> {
    let members: [(&str, &[u8]); 4] = [
        ("model/data.pkl", &torch_pickle()),
        ("model/byteorder", b"little"),
        ("model/data/0", &[0; 4]),
        ("model/version", b"3\n"),
    ];
    zip_of(&members, CompressionMethod::Stored)
}

#[test]
fn a_torch_zip_shows_what_it_imports() {
    let expected = Checkpoint {
        kind: CheckpointKind::TorchZip,
        protocol: 2,
        globals: vec![
            Global::new("collections", "OrderedDict"),
            Global::new("torch", "FloatStorage"),
            Global::new("torch._utils", "_rebuild_tensor_v2"),
        ],
        persistent_ids: 1,
    };
    assert_eq!(look(&torch_zip()).unwrap(), expected);
    let deflated = zip_of(
        &[("model/data.pkl", &torch_pickle())],
        CompressionMethod::Deflated,
    );
    assert_eq!(look(&deflated).unwrap(), expected);
}

#[test]
fn a_legacy_file_is_five_pickles_and_then_tensors() {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let mut bytes = magic.to_vec();
    bytes.extend(b"\x80\x02M\xe9\x03.\x80\x02}q\x00.");
    bytes.extend(torch_pickle());
    bytes.extend(b"\x80\x02]q\x00X\x01\x00\x00\x000q\x01a.");
    let pickles = bytes.len();
    bytes.extend([0xff; 12]);
    let checkpoint = look(&bytes).unwrap();
    assert_eq!(checkpoint.kind, CheckpointKind::TorchLegacy);
    assert_eq!(checkpoint.globals.len(), 3);
    for length in 0..pickles {
        assert!(look(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn names_are_followed_through_the_memo() {
    // "os" and "system" put into the memo, dropped, taken out again, swapped and doubled.
    let by_index = b"\x80\x04\x8c\x06systemq\x05\x8c\x02os\x94000h\x05\x320";
    assert!(look(by_index).is_err(), "its stack is empty at the end");
    let memo =
        b"\x80\x04\x8c\x06systemr\x07\x00\x00\x000\x8c\x02os\x940h\x01j\x07\x00\x00\x00\x93.";
    assert_eq!(globals(memo), ["os.system"]);
    let text = b"Vos\np3\n0S'system'\np4\n0g3\ng4\n\x93.";
    assert_eq!(globals(text), ["os.system"]);
    assert_eq!(globals(b"(S'id'\nios\nsystem\n."), ["os.system"]);
    let twice = b"\x80\x02cb\nb\n0ca\na\n0cb\nb\n.";
    assert_eq!(globals(twice), ["a.a", "b.b"]);
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let cases: [(&[u8], &str); 12] = [
        // str("os") as a module.
        (
            b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93.",
            "computes the name",
        ),
        // An escape that becomes a letter.
        (b"Vo\\u0073\nVsystem\n\x93.", "computes the name"),
        (b"\x80\x02\x82\x01.", "extension registry"),
        (b"\x80\x04cargparse\nNamespace\n}b.", "changes a class"),
        (b"\x80\x04cargparse\nNamespace\nNNs.", "changes a class"),
        (b"\x80\x06N.", "protocol"),
        (b"\x80\x02Nh\x03.", "not remembered"),
        (b"\x80\x020.", "stack is empty"),
        (b"\x80\x02(NR.", "stack is empty"),
        (b"\x80\x02e.", "no mark"),
        (
            b"N.N.",
            "bytes follow the end of its pickle, from byte 2 on",
        ),
        (
            b"version https://git-lfs",
            "byte 0 (0x76) is no pickle opcode",
        ),
    ];
    for (bytes, expected) in cases {
        let error = look(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn lengths_are_not_believed() {
    for bytes in [
        &b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.",
        b"B\xff\xff\xff\x7f",
    ] {
        assert!(matches!(look(bytes), Err(PickleError::Truncated { .. })));
    }
    assert!(matches!(
        look(b"Nr\xff\xff\xff\xff."),
        Err(PickleError::TooMuch { .. })
    ));
    assert!(matches!(
        look(b"T\xff\xff\xff\xff."),
        Err(PickleError::Damaged { at: 0, .. })
    ));
}

#[test]
fn the_stack_and_the_texts_are_bounded() {
    let tall = vec![b'N'; 3 << 20];
    assert!(matches!(look(&tall), Err(PickleError::TooMuch { .. })));
    let marks = vec![b'('; 3 << 20];
    assert!(matches!(look(&marks), Err(PickleError::TooMuch { .. })));
    // More texts than are kept: those that come after cannot become names any more.
    let mut bytes = b"\x80\x04".to_vec();
    for number in 0..400_000 {
        write!(bytes, "X\x08\x00\x00\x00{number:08}0").unwrap();
    }
    let mut harmless = bytes.clone();
    harmless.extend(b"N.");
    assert!(look(&harmless).is_ok());
    bytes.extend(b"\x8c\x02os\x8c\x06system\x93.");
    assert!(matches!(
        look(&bytes),
        Err(PickleError::ComputedName { .. })
    ));
}

#[test]
fn zips_that_two_readers_could_read_differently_are_refused() {
    let evil: &[u8] = b"cos\nsystem\n.";
    let pickle = torch_pickle();
    let stored = |members: &[(&str, &[u8])]| zip_of(members, CompressionMethod::Stored);
    let cases = [
        (
            stored(&[("m/data.pkl", &pickle), ("m/DATA.pkl", evil)]),
            "same name",
        ),
        (
            stored(&[("m/data.pkl", &pickle), ("n/data.pkl", evil)]),
            "one folder",
        ),
        (stored(&[("data.pkl", &pickle)]), "one folder"),
        (stored(&[("m/version", b"3")]), "no data.pkl"),
        (
            stored(&[("m/data.pkl", &pickle), ("m/constants.pkl", b"")]),
            "TorchScript",
        ),
        (
            stored(&[("m/data.pkl", &pickle), ("m/code/x.py", b"")]),
            "TorchScript",
        ),
        ([torch_zip(), vec![0]].concat(), "end like a zip"),
        ([torch_zip(), torch_zip()].concat(), "directory"),
    ];
    for (zip, expected) in cases {
        let error = look(&zip).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    // 64 MiB of zeros after the pickle, in a member that says it is as long as the pickle.
    let mut content = torch_pickle();
    let length = content.len() as u32;
    content.resize(64 << 20, 0);
    let mut zip = zip_of(&[("m/data.pkl", &content)], CompressionMethod::Deflated);
    let error = look(&zip).unwrap_err().to_string();
    assert!(error.contains("follow the end"), "{error}");
    let directory = zip.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    zip[directory + 24..directory + 28].copy_from_slice(&length.to_le_bytes());
    let error = look(&zip).unwrap_err().to_string();
    assert!(error.contains("CRC-32"), "{error}");
    zip[directory + 24..directory + 28].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let error = look(&zip).unwrap_err().to_string();
    assert!(error.contains("256 MiB"), "{error}");
}

#[test]
fn a_file_that_is_also_a_tar_is_refused() {
    // The name in the header of the tar is a pickle.
    let mut block = [0; 512];
    block[..2].copy_from_slice(b"N.");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    assert!(matches!(look(&block), Err(PickleError::Tar)));
}

#[test]
fn cut_off_at_any_byte_it_is_refused() {
    let protocol_4 = b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01k\x94\x8c\x02os\x94\x8c\x06system\x94\x93s.".to_vec();
    for whole in [torch_pickle(), torch_zip(), protocol_4] {
        look(&whole).unwrap();
        for length in 0..whole.len() {
            assert!(
                look(&whole[..length]).is_err(),
                "{length} of {}",
                whole.len()
            );
        }
    }
}

#[test]
fn verdicts() {
    let policy = |patterns: &[&str]| CheckpointPolicy {
        allow: patterns.iter().map(ToString::to_string).collect(),
    };
    let none = policy(&[]);
    let wide = policy(&["torch.*", "os.*", "my.*", "builtins.*", "*", ".*"]);
    let cases = [
        ("torch", "FloatStorage", Verdict::Allowed, Verdict::Allowed),
        (
            "torch._utils",
            "_rebuild_tensor_v2",
            Verdict::Allowed,
            Verdict::Allowed,
        ),
        (
            "torch.nn.modules.linear",
            "Linear",
            Verdict::Allowed,
            Verdict::Allowed,
        ),
        ("argparse", "Namespace", Verdict::Allowed, Verdict::Allowed),
        ("builtins", "set", Verdict::Allowed, Verdict::Allowed),
        ("my.models", "Net", Verdict::Unknown, Verdict::Allowed),
        ("my", "Net", Verdict::Unknown, Verdict::Allowed),
        ("mymodels", "Net", Verdict::Unknown, Verdict::Unknown),
        // A path to an attribute is not a plain name.
        (
            "my.models",
            "Net.forward",
            Verdict::Unknown,
            Verdict::Unknown,
        ),
        (
            "torch",
            "_utils._rebuild_tensor_v2",
            Verdict::Unknown,
            Verdict::Unknown,
        ),
        (
            "torch",
            "_utils.os.system",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "torch",
            "FloatStorage.__class__",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        ("torch", "load", Verdict::Dangerous, Verdict::Dangerous),
        (
            "torch.hub",
            "download_url_to_file",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "torch.storage",
            "_load_from_bytes",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "torch.serialization",
            "os",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        ("builtins", "eval", Verdict::Dangerous, Verdict::Dangerous),
        (
            "builtins",
            "getattr",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "__builtin__",
            "apply",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        ("os", "system", Verdict::Dangerous, Verdict::Dangerous),
        ("posix", "system", Verdict::Dangerous, Verdict::Dangerous),
        (
            "commands",
            "getoutput",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "operator",
            "attrgetter",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        // Cyrillic o.
        (
            "t\u{43e}rch",
            "FloatStorage",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "torch",
            "Fl\u{43e}atStorage",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        (
            "torch ",
            "FloatStorage",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
        ("", "", Verdict::Dangerous, Verdict::Dangerous),
        ("torch", "", Verdict::Dangerous, Verdict::Dangerous),
        (
            "torch..",
            "FloatStorage",
            Verdict::Dangerous,
            Verdict::Dangerous,
        ),
    ];
    for (module, name, without, with) in cases {
        let global = Global::new(module, name);
        assert_eq!(none.verdict(&global), without, "{global}");
        assert_eq!(wide.verdict(&global), with, "{global} with patterns");
        let exact = policy(&[&global.to_string()]);
        assert_eq!(exact.verdict(&global), Verdict::Allowed, "{global} named");
        let overridden = exact.overridden(std::slice::from_ref(&global));
        assert_eq!(
            overridden.is_empty(),
            without == Verdict::Allowed,
            "{global}"
        );
    }
    assert_eq!(
        Global::new("t\u{43e}rch", "a b").to_string(),
        r"t\u{43e}rch.a\u{20}b"
    );
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = look(&bytes);
    }

    /// Opcodes that do something more often than random bytes.
    #[test]
    fn any_opcodes_end_in_an_answer(
        opcodes in proptest::collection::vec(
            proptest::sample::select(&b"(.012NKMJ}])tlds\x85\x86\x87\x88\x8c\x90\x91\x92\x93\x94\x95aeubRcioqhrjpgQPXUTSVIFL\x81"[..]),
            0..300,
        ),
    ) {
        let _ = look(&opcodes);
    }

    #[test]
    fn a_flipped_byte_ends_in_an_answer(at in any::<prop::sample::Index>(), flip in 1u8..) {
        for whole in [torch_pickle(), torch_zip()] {
            let mut bytes = whole;
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = look(&bytes);
        }
    }
}
