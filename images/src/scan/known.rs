//! The values of secrets that were given to a build: wherever they are, whatever they look like.

use std::io::{self, Read};

use memchr::memmem::Finder;
use mlwm_engines::BuildSecret;

/// A value that is shorter is in many files by chance.
const SHORTEST: usize = 8;
/// Bytes of a file that are read at once.
const PIECE: usize = 1 << 20;

/// Finds known values.
pub(super) struct Known {
    values: Vec<Finder<'static>>,
    longest: usize,
}

impl Known {
    /// Without the white space around them, with which files often end.
    pub(super) fn of(secrets: &[BuildSecret]) -> Self {
        let values = secrets.iter().map(|secret| secret.value().trim_ascii());
        let values = values.filter(|value| value.len() >= SHORTEST);
        let values: Vec<_> = values
            .map(|value| Finder::new(value).into_owned())
            .collect();
        let lengths = values.iter().map(|value| value.needle().len());
        Self {
            longest: lengths.max().unwrap_or(0),
            values,
        }
    }

    /// Whether there is nothing to find.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether these bytes hold one.
    pub(super) fn is_in(&self, bytes: &[u8]) -> bool {
        self.values.iter().any(|value| value.find(bytes).is_some())
    }

    /// Whether what is read holds one. It is read to its end.
    pub(super) fn is_read(&self, reader: &mut dyn Read) -> io::Result<bool> {
        let mut found = false;
        let mut window = Vec::new();
        loop {
            // A value may begin in one piece and end in the next.
            window.drain(..window.len().saturating_sub(self.longest));
            if reader.take(PIECE as u64).read_to_end(&mut window)? == 0 {
                return Ok(found);
            }
            found = found || self.is_in(&window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(values: &[&[u8]]) -> Known {
        let secrets: Vec<BuildSecret> = values
            .iter()
            .map(|value| BuildSecret::new("a", value.to_vec()).unwrap())
            .collect();
        Known::of(&secrets)
    }

    #[test]
    fn a_value_is_found_wherever_it_begins() {
        let value = b"correct horse\xff\n";
        let known = known(&[b"something else", value, b"short"]);
        for start in [0, 5, PIECE - 20, PIECE - 7, PIECE, 2 * PIECE - 1] {
            let mut bytes = vec![0xff; 3 * PIECE];
            assert!(!known.is_read(&mut bytes.as_slice()).unwrap());
            bytes[start..start + 14].copy_from_slice(&value[..14]);
            let mut reader = bytes.as_slice();
            assert!(known.is_read(&mut reader).unwrap(), "at {start}");
            assert!(reader.is_empty());
        }
        assert!(!known.is_in(b"it is short"));
    }

    #[test]
    fn nothing_is_found_if_nothing_is_known() {
        let known = known(&[b"short", b"  \n"]);
        assert!(known.is_empty() && !known.is_in(b"short"));
    }

    #[test]
    fn the_largest_value_can_be_searched_for() {
        let value: Vec<u8> = (0..500_u32 * 1024).map(|n| (n % 251) as u8).collect();
        let known = known(&[&value]);
        assert!(!known.is_empty() && known.is_in(&value) && !known.is_in(&value[1..]));
    }
}
