//! Whether every value that a graph uses is there when it is used.

use std::collections::HashSet;

use super::OnnxError;

/// Most bytes of names that are kept at a time.
const MAX_BYTES: usize = 32 << 20;
/// What a name takes besides its letters.
const OVERHEAD: usize = 64;

/// The names that one graph or function has made and used so far.
#[derive(Default)]
pub(super) struct Names {
    made: HashSet<String>,
    /// Used before any node made them: they must be inputs, weights, or from the graph around.
    awaited: HashSet<String>,
    bytes: usize,
}

impl Names {
    /// A node, or an output of the graph, uses a value. No name means that it is left out.
    pub(super) fn used(&mut self, name: String) -> Result<(), OnnxError> {
        if name.is_empty() || self.made.contains(&name) {
            return Ok(());
        }
        self.count(&name)?;
        self.awaited.insert(name);
        Ok(())
    }

    /// A node makes a value.
    pub(super) fn made(&mut self, name: String) -> Result<(), OnnxError> {
        if name.is_empty() {
            return Ok(());
        }
        self.count(&name)?;
        if self.awaited.contains(&name) || !self.made.insert(name.clone()) {
            return Err(OnnxError::Order(name));
        }
        Ok(())
    }

    fn count(&mut self, name: &str) -> Result<(), OnnxError> {
        self.bytes += name.len() + OVERHEAD;
        if self.bytes > MAX_BYTES {
            return Err(OnnxError::TooManyNames);
        }
        Ok(())
    }

    /// What must come from around, when these are the inputs and weights.
    pub(super) fn missing(mut self, is_given: impl Fn(&str) -> bool) -> HashSet<String> {
        self.awaited.retain(|name| !is_given(name));
        self.awaited
    }
}
