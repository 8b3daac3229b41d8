//! Everything that is wrong with an input, told at once.

use std::fmt;

/// More than these are counted, not told; the report has all.
const TOLD: usize = 20;

/// What is wrong with an input: each a sentence. All that can be found before a result is begun is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// One more.
    pub fn push(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return f.write_str(only);
        }
        write!(f, "{} problems", self.0.len())?;
        for problem in self.0.iter().take(TOLD) {
            write!(f, "\n  - {problem}")?;
        }
        match self.0.len().checked_sub(TOLD) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\n  - and {more} more, which `--report` lists"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_sentence_and_many_are_a_list() {
        let mut problems = Problems::default();
        problems.push("a is wrong");
        assert_eq!(problems.to_string(), "a is wrong");
        for _ in 0..21 {
            problems.push("b");
        }
        let text = problems.to_string();
        assert!(
            text.starts_with("22 problems\n  - a is wrong\n  - b"),
            "{text}"
        );
        assert!(
            text.ends_with("and 2 more, which `--report` lists"),
            "{text}"
        );
    }
}
