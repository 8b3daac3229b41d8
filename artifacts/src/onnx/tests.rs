use std::io::Cursor;

use proptest::prelude::*;

use super::*;

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn tensor_info(name: &str, dims: &[Vec<u8>]) -> Vec<u8> {
    let shape: Vec<u8> = dims.iter().flat_map(|dim| field(1, dim)).collect();
    let tensor = [number(1, 1), field(2, &shape)].concat();
    [field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat()
}

fn model(graph: &[u8]) -> Vec<u8> {
    let operators = number(2, 20);
    [
        number(1, 8),
        field(2, b"producer"),
        field(7, graph),
        field(8, &operators),
    ]
    .concat()
}

fn read(bytes: &[u8]) -> Result<OnnxSignature, OnnxError> {
    read_signature(Cursor::new(bytes), bytes.len() as u64)
}

fn node(inputs: &[&str], outputs: &[&str]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name.as_bytes()));
    let outputs = outputs.iter().flat_map(|name| field(2, name.as_bytes()));
    inputs.chain(outputs).chain(field(4, b"Add")).collect()
}

fn graph_with_weights() -> Vec<u8> {
    let weights = [
        field(1, &[0xa8, 0xc3, 0x01]),
        number(2, 1),
        field(8, b"w"),
        field(9, &[7; 100_000]),
    ]
    .concat();
    [
        field(1, &node(&["x", "w"], &["y"])),
        field(5, &weights),
        field(11, &tensor_info("x", &[number(1, 1), field(2, b"n")])),
        field(11, &tensor_info("w", &[])),
        field(12, &tensor_info("y", &[number(1, 1), number(1, 5)])),
    ]
    .concat()
}

#[test]
fn weights_are_stepped_over_and_are_not_inputs() {
    let signature = read(&model(&graph_with_weights())).unwrap();
    assert_eq!(signature.inputs.len(), 1);
    assert_eq!(signature.inputs[0].name, "x");
    assert_eq!(signature.inputs[0].element_type, FLOAT);
    assert_eq!(
        signature.inputs[0].dimensions,
        Some(vec![Dimension::Fixed(1), Dimension::Symbolic("n".into())])
    );
    assert_eq!(
        signature.outputs[0].dimensions,
        Some(vec![Dimension::Fixed(1), Dimension::Fixed(5)])
    );
}

#[test]
fn weights_elsewhere_are_found_wherever_they_hide() {
    let tensor = [field(8, b"far"), number(14, 1)].concat();
    let in_attribute = field(5, &[field(1, b"value"), field(5, &tensor)].concat());
    let in_subgraph = field(5, &field(6, &field(1, &in_attribute)));
    let hidden = [
        field(5, &tensor),
        field(1, &in_attribute),
        field(1, &in_subgraph),
        field(15, &field(2, &tensor)),
    ];
    for place in hidden {
        let graph = [graph_with_weights(), place].concat();
        let error = read(&model(&graph)).unwrap_err();
        assert!(
            matches!(&error, OnnxError::ExternalData(name) if name == "far"),
            "{error}"
        );
    }
}

#[test]
fn graphs_cannot_be_nested_without_end() {
    let mut graph = Vec::new();
    for _ in 0..40 {
        graph = field(1, &field(5, &field(6, &graph)));
    }
    assert!(matches!(read(&model(&graph)), Err(OnnxError::TooDeep)));
}

#[test]
fn what_is_cut_off_is_refused() {
    let whole = model(&graph_with_weights());
    for length in (0..whole.len()).step_by(997).chain([1, 2, whole.len() - 1]) {
        assert!(read(&whole[..length]).is_err(), "{length} bytes");
    }
}

/// A graph of one input `x`, these nodes, and the output `y`.
fn graph_of(nodes: &[Vec<u8>]) -> Vec<u8> {
    let nodes = nodes.iter().flat_map(|node| field(1, node));
    let inputs = field(11, &tensor_info("x", &[]));
    let outputs = field(12, &tensor_info("y", &[]));
    nodes.chain(inputs).chain(outputs).collect()
}

#[test]
fn every_value_must_be_made_before_it_is_used() {
    let good = [node(&["x", ""], &["a"]), node(&["a"], &["y"])];
    read(&model(&graph_of(&good))).unwrap();
    let [first, second] = good;
    let cases = [
        (
            vec![second.clone(), first.clone()],
            "makes `a` comes too late",
        ),
        (
            vec![first.clone(), second.clone(), second.clone()],
            "another makes it too",
        ),
        (vec![second.clone()], "uses `a`"),
        (vec![first.clone()], "uses `y`"),
    ];
    for (nodes, expected) in cases {
        let error = read(&model(&graph_of(&nodes))).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_graph_in_a_node_sees_what_is_around_it() {
    let inner = |used| {
        let graph = [
            field(1, &node(&[used], &["i"])),
            field(12, &tensor_info("i", &[])),
        ]
        .concat();
        [node(&["x"], &["y"]), field(5, &field(6, &graph))].concat()
    };
    let before = node(&["x"], &["a"]);
    for used in ["x", "a"] {
        read(&model(&graph_of(&[before.clone(), inner(used)]))).unwrap();
    }
    let late = [inner("a"), before];
    assert!(matches!(
        read(&model(&graph_of(&late))),
        Err(OnnxError::Order(_))
    ));
    let nothing = [inner("z")];
    let error = read(&model(&graph_of(&nothing))).unwrap_err();
    assert!(
        matches!(&error, OnnxError::Undefined(name) if name == "z"),
        "{error}"
    );
}

#[test]
fn operators_must_have_a_version() {
    let graph = graph_of(&[node(&["x"], &["y"])]);
    let without = [number(1, 8), field(7, &graph)].concat();
    assert!(matches!(read(&without), Err(OnnxError::NoOperatorSet(_))));
    let foreign = [node(&["x"], &["y"]), field(7, b"com.example")].concat();
    let error = read(&model(&graph_of(&[foreign]))).unwrap_err().to_string();
    assert!(error.contains("com.example"), "{error}");
}

#[test]
fn tensors_must_be_as_long_as_their_shapes() {
    let shape = |dims: &[u8]| field(1, dims);
    let check = |parts: &[Vec<u8>]| {
        let graph = [
            field(5, &[field(8, b"w"), parts.concat()].concat()),
            graph_of(&[node(&["x"], &["y"])]),
        ]
        .concat();
        match read(&model(&graph)) {
            Ok(_) => true,
            Err(OnnxError::IncompleteTensor(name)) => {
                assert_eq!(name, "w");
                false
            }
            Err(other) => panic!("{other}"),
        }
    };
    // Two by three float32, as bytes and as numbers; dimensions packed or one by one.
    assert!(check(&[shape(&[2, 3]), number(2, 1), field(9, &[0; 24])]));
    assert!(check(&[
        number(1, 2),
        number(1, 3),
        number(2, 1),
        field(9, &[0; 24])
    ]));
    assert!(check(&[shape(&[2, 3]), number(2, 1), field(4, &[0; 24])]));
    assert!(!check(&[shape(&[2, 3]), number(2, 1), field(9, &[0; 23])]));
    assert!(!check(&[shape(&[2, 3]), number(2, 1), field(4, &[0; 20])]));
    assert!(!check(&[shape(&[2, 3]), number(2, 1)]));
    assert!(!check(&[shape(&[2, 3]), number(2, 11), field(9, &[0; 24])]));
    assert!(!check(&[shape(&[2, 3]), number(2, 0), field(9, &[0; 24])]));
    // A scalar, an empty tensor, half bytes.
    assert!(check(&[number(2, 7), field(7, &[0x80, 0x01])]));
    assert!(check(&[shape(&[0, 3]), number(2, 1)]));
    assert!(check(&[shape(&[3]), number(2, 22), field(9, &[0; 2])]));
    assert!(!check(&[shape(&[3]), number(2, 22), field(9, &[0; 3])]));
    // 2^62 times 2^62 elements.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40].repeat(2);
    assert!(!check(&[shape(&huge), number(2, 1), field(9, &[0; 24])]));
}

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
    }
}

/// Models of all kinds that the reference implementation finds right must be read, and the broken
/// ones refused.
#[test]
fn the_reference_checker_agrees() {
    const SCRIPT: &str = r#"
import sys, pathlib, numpy as np, onnx
from onnx import TensorProto as T, helper as h, numpy_helper as n
out = pathlib.Path(sys.argv[1])
def model(nodes, name, right=True, weights=(), functions=(), extra=()):
    graph = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, [2])],
                         [h.make_tensor_value_info("y", T.FLOAT, [2])], initializer=list(weights))
    imports = [h.make_opsetid("", 20), *extra]
    m = h.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=9)
    try:
        onnx.checker.check_model(m)
        found = True
    except onnx.checker.ValidationError:
        found = False
    assert found == right, name
    (out / f"{name}.{'right' if right else 'wrong'}").write_bytes(m.SerializeToString())
one = n.from_array(np.ones(2, "f4"), "w")
add = h.make_node("Add", ["x", "w"], ["y"])
model([add], "add", weights=[one])
model([add], "no-weight", False)
late = [h.make_node("Neg", ["a"], ["y"]), h.make_node("Neg", ["x"], ["a"])]
model(late, "late", False)
model(late[::-1], "in-order")
model([h.make_node("Neg", ["x"], ["y"])] * 2, "twice", False)
short = n.from_array(np.ones(2, "f4"), "w"); short.raw_data = short.raw_data[:7]
model([add], "short", False, weights=[short])
for kind in ["FLOAT", "DOUBLE", "INT64", "UINT64", "INT32", "UINT32", "INT8", "UINT8", "BOOL", "FLOAT16",
             "INT16", "COMPLEX64", "COMPLEX128", "BFLOAT16", "INT4", "UINT4", "FLOAT8E4M3FN"]:
    for raw in (False, True):
        if raw:
            values = np.ones(3, h.tensor_dtype_to_np_dtype(getattr(T, kind)))
            tensor = n.from_array(values, "t")
        else:
            tensor = h.make_tensor("t", getattr(T, kind), [3], [1, 0, 1])
        used = h.make_node("Identity", ["t"], ["u"])
        model([used, h.make_node("Neg", ["x"], ["y"])], f"{kind}-{raw}", weights=[tensor])
text = h.make_tensor("t", T.STRING, [2], [b"a", b"b"])
model([h.make_node("Identity", ["t"], ["u"]), h.make_node("Neg", ["x"], ["y"])], "text", weights=[text])
big = h.make_tensor("t", T.INT64, [100000], list(range(100000)))
constant = h.make_node("Constant", [], ["c"], value=big)
model([constant, h.make_node("Neg", ["x"], ["y"])], "constant")
def branch(used):
    return h.make_graph([h.make_node("Neg", [used], ["b"])], "b", [], [h.make_tensor_value_info("b", T.FLOAT, [2])])
yes = h.make_node("Constant", [], ["c"], value=h.make_tensor("", T.BOOL, [], [True]))
choose = h.make_node("If", ["c"], ["y"], then_branch=branch("x"), else_branch=branch("w"))
model([yes, choose], "if", weights=[one])
model([yes, choose], "if-without", False)
twice = h.make_function("mine", "twice", ["p"], ["q"], [h.make_node("Add", ["p", "p"], ["q"])], [h.make_opsetid("", 20)])
call = h.make_node("twice", ["x"], ["y"], domain="mine")
model([call], "function", functions=[twice], extra=[h.make_opsetid("mine", 1)])
model([call], "function-undeclared", False, functions=[twice])
"#;
    let folder = tempfile::tempdir().unwrap();
    let python = std::env::var("MLWM_TEST_PYTHON").unwrap_or_else(|_| {
        let home = std::env::var("HOME").unwrap_or_default();
        format!("{home}/.cache/mlwm/python/bin/python")
    });
    let output = std::process::Command::new(python)
        .args(["-c", SCRIPT])
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let outcome = read(&std::fs::read(&path).unwrap());
        let is_right = path.extension().is_some_and(|kind| kind == "right");
        assert_eq!(outcome.is_ok(), is_right, "{}: {outcome:?}", path.display());
        count += 1;
    }
    assert!(count > 40, "{count} models");
}
