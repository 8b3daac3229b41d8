//! What a pickle imports, compared with what Python's own `pickle` asks for when it loads it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, reason = "each test program uses its own part")]
mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use mlwm_artifacts::pickle::{
    Checkpoint, CheckpointKind, CheckpointPolicy, Global, PickleError, Verdict, inspect,
};

/// Writes many objects in all protocols, each beside the globals that unpickling it looks up. The
/// look-up gives a stand-in, so that nothing of a hostile pickle runs.
const WRITE_PICKLES: &str = r#"
import argparse, collections, datetime, decimal, fractions, functools, io, json, operator, os
import pathlib, pickle, pickletools, subprocess, sys, types, uuid
import numpy as np

class Evil:
    def __init__(self, *call):
        self.call = call
    def __reduce__(self):
        return self.call

objects = {
    "plain": [None, True, 1, -5, 2**70, 1.5, b"bytes", bytearray(b"x"), "text", "\u043e\n\\", {1: 2}],
    "long": ["x" * 100000, b"y" * 100000, list(range(5000)), tuple(range(3000)), "y" * 600],
    "sets": [{1, 2}, frozenset([3]), range(3), slice(1), 1j, ...],
    "same": [["os", "system"]] * 3 + [collections.OrderedDict(os="system")],
    "standard": [
        argparse.Namespace(a=pathlib.PurePosixPath("/x")), datetime.datetime(2020, 1, 1),
        datetime.timedelta(1), decimal.Decimal(1), fractions.Fraction(1, 2), uuid.UUID(int=1),
        collections.defaultdict(list), collections.Counter("aab"), collections.deque([1]),
        types.SimpleNamespace(a=1),
    ],
    "numpy": [np.arange(5), np.float32(1), np.dtype("f4"), np.zeros((2, 3), order="F"), np.array(["a"])],
    "os.system": Evil(os.system, ("true",)),
    "eval": [1, Evil(eval, ("1",))],
    "popen": {"a": Evil(subprocess.Popen, (["true"],))},
    "getter": Evil(operator.attrgetter, ("a",)),
    "partial": functools.partial(os.system, "true"),
    "getattr": Evil(getattr, (Evil(__import__, ("os",)), "system")),
    "nested": Evil(pickle.loads, (pickle.dumps(Evil(os.system, ("true",))),)),
    "method": datetime.date.today,
}

class Asked(pickle._Unpickler):
    """Python's own machine, with stand-ins for everything that is imported."""
    def __init__(self, file):
        super().__init__(file)
        self.asked = set()
    def find_class(self, module, name):
        self.asked.add((module, name))
        class StandIn(dict):
            def __new__(cls, *a, **k): return dict.__new__(cls)
            def __init__(self, *a, **k): pass
            def __setstate__(self, state): pass
            def append(self, x): pass
            def extend(self, x): pass
            def add(self, x): pass
            def __hash__(self): return 1
        return StandIn

folder = pathlib.Path(sys.argv[1])
answers = {}
def write(name, text):
    # fix_imports changes names after they are read from the pickle.
    unpickler = Asked(io.BytesIO(text))
    unpickler.fix_imports = False
    unpickler.load()
    (folder / f"{name}.pkl").write_bytes(text)
    answers[name] = sorted(f"{m} {n}" for m, n in unpickler.asked)

for name, value in objects.items():
    for protocol in range(6):
        try:
            text = pickle.dumps(value, protocol)
        except (pickle.PicklingError, TypeError):
            continue
        write(f"{name}-{protocol}", text)
        write(f"{name}-{protocol}-optimized", pickletools.optimize(text))
json.dump(answers, open(folder / "answers.json", "w"))
"#;

fn look(path: &Path) -> Result<Checkpoint, PickleError> {
    let file = File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    inspect(file, size)
}

#[test]
fn the_imports_are_those_that_python_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    common::succeeded(&common::python(WRITE_PICKLES, &[folder.path()]));
    let answers = fs::read(folder.path().join("answers.json")).unwrap();
    let answers: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&answers).unwrap();
    assert!(answers.len() > 100, "{} pickles", answers.len());
    let mut seen = BTreeSet::new();
    for (name, expected) in &answers {
        let checkpoint = look(&folder.path().join(format!("{name}.pkl"))).unwrap();
        let found: Vec<String> = checkpoint
            .globals
            .iter()
            .map(|global| format!("{} {}", global.module, global.name))
            .collect();
        let expected: Vec<String> = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(found, expected, "{name}");
        seen.extend(found);

        let refused = CheckpointPolicy::default();
        let refused = refused.refused(&checkpoint.globals);
        let harmless = ["plain", "long", "sets", "same", "standard", "numpy"];
        let is_harmless = harmless.iter().any(|kind| name.starts_with(kind));
        assert_eq!(refused.is_empty(), is_harmless, "{name}: {refused:?}");
    }
    for hostile in ["builtins eval", "posix system", "subprocess Popen"] {
        assert!(seen.contains(hostile), "{seen:?}");
    }
}

#[test]
fn the_checkpoint_of_the_case_is_harmless() {
    let path = common::case().join("train/runs/graph_lam/checkpoints/last.ckpt");
    let checkpoint = look(&path).unwrap();
    assert_eq!(checkpoint.kind, CheckpointKind::TorchZip);
    assert_eq!(checkpoint.protocol, 2);
    let refused = CheckpointPolicy::default();
    assert_eq!(refused.refused(&checkpoint.globals), []);
    let script = r#"
import pickletools, sys, zipfile
zip = zipfile.ZipFile(sys.argv[1])
operations = list(pickletools.genops(zip.read("last/data.pkl")))
print(sum(opcode.name == "BINPERSID" for opcode, _, _ in operations))
print(*sorted({a.replace(" ", "|") for opcode, a, _ in operations if opcode.name == "GLOBAL"}))
"#;
    let answer = common::succeeded(&common::python(script, &[&path]));
    let (references, names) = answer.trim().split_once('\n').unwrap();
    assert_eq!(references, checkpoint.persistent_ids.to_string());
    let expected: BTreeSet<Global> = names
        .split(' ')
        .map(|name| name.split_once('|').unwrap())
        .map(|(module, name)| Global::new(module, name))
        .collect();
    assert_eq!(expected, checkpoint.globals.into_iter().collect());
}

/// Every length of the real checkpoint, in steps, and every one near its end.
#[test]
fn the_checkpoint_of_the_case_cut_off_is_refused() {
    let path = common::case().join("train/runs/graph_lam/checkpoints/last.ckpt");
    let whole = fs::read(path).unwrap();
    let lengths = (0..whole.len()).step_by(61);
    for length in lengths.chain(whole.len() - 100..whole.len()) {
        let cut = std::io::Cursor::new(&whole[..length]);
        assert!(inspect(cut, length as u64).is_err(), "{length} bytes");
    }
}

#[test]
fn a_hostile_checkpoint_is_not_packed_and_what_was_allowed_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let case = common::copy_of_case(folder.path());
    let mut request = common::request(&case, &folder.path().join("x.zip"));
    let checkpoint = request.checkpoint.clone().unwrap();
    fs::write(&checkpoint, b"\x80\x04\x8c\x08my.model\x8c\x03Net\x93.").unwrap();
    let error = mlwm_artifacts::build(&request).unwrap_err();
    let code = mlwm_spec::ExitCode::ArtifactMismatch;
    assert_eq!(error.exit_code(), code);
    assert!(error.to_string().contains("my.model.Net"), "{error}");
    assert!(!folder.path().join("x.zip").exists());

    request.checkpoint_policy.allow = vec!["my.*".into()];
    let built = mlwm_artifacts::build(&request).unwrap();
    let provenance = fs::read_to_string(built.provenance).unwrap();
    assert!(provenance.contains("- my.model.Net"), "{provenance}");

    fs::write(&checkpoint, b"\x80\x04\x8c\x02os\x8c\x06system\x93.").unwrap();
    request.checkpoint_policy.allow = vec!["os.*".into()];
    let error = mlwm_artifacts::build(&request).unwrap_err();
    assert_eq!(error.exit_code(), code);
    let os_system = Global::new("os", "system");
    assert_eq!(os_system.verdict(), Verdict::Dangerous);
}
