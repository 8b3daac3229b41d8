//! Where each value of a YAML text stands, for errors that are found after it was read.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned};

/// The lines of all values of a YAML text, by key.
pub(crate) struct Outline(Option<Spanned<Node>>);

enum Node {
    Map(Vec<(String, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

impl Outline {
    /// The outline of `text`; an empty one if it cannot be read.
    pub(crate) fn of(text: &str) -> Self {
        let options = serde_saphyr::options! {
            non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        };
        Self(serde_saphyr::from_str_with_options(text, options).ok())
    }

    /// The line, counted from 1, of the value at this path of keys and list positions, or of the
    /// innermost value on the way to it that is there; `None` if not even the first key is.
    pub(crate) fn line<S: AsRef<str>>(&self, path: &[S]) -> Option<u64> {
        let mut here = self.0.as_ref()?;
        let mut line = None;
        for step in path.iter().map(AsRef::as_ref) {
            let next = match &here.value {
                Node::Map(entries) => entries.iter().find(|(key, _)| key == step).map(|(_, v)| v),
                Node::List(items) => step.parse().ok().and_then(|at: usize| items.get(at)),
                Node::Scalar => None,
            };
            let Some(next) = next else { break };
            here = next;
            line = Some(here.referenced.line());
        }
        line.filter(|line| *line > 0)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        IgnoredAny::deserialize(inner).map(|_| Node::Scalar)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_line_of_the_value_or_of_what_would_hold_it() {
        let text = "a: 1\nb:\n  c: x\n  d:\n    - 1.5\n    - {e: ~}\nf: .nan\n";
        let outline = Outline::of(text);
        for (path, line) in [
            (vec!["a"], 1),
            (vec!["b", "c"], 3),
            (vec!["b", "d", "0"], 5),
            (vec!["b", "d", "1", "e"], 6),
            (vec!["b", "missing", "deeper"], 3),
            (vec!["f"], 7),
        ] {
            assert_eq!(outline.line(&path), Some(line), "{path:?}");
        }
        assert_eq!(outline.line(&["missing"]), None);
        assert_eq!(Outline::of("a: [").line(&["a"]), None);
    }
}
