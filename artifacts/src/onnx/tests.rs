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
    [number(1, 8), field(2, b"producer"), field(7, graph)].concat()
}

fn read(bytes: &[u8]) -> Result<OnnxSignature, OnnxError> {
    read_signature(Cursor::new(bytes), bytes.len() as u64)
}

fn graph_with_weights() -> Vec<u8> {
    let weights = [field(8, b"w"), field(9, &[7; 100_000])].concat();
    [
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

proptest! {
    #[test]
    fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let _ = read(&bytes);
    }
}
