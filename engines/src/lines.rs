//! Lines out of a stream of bytes.

/// The longest piece of a line.
pub(crate) const MAX_LINE: usize = 64 * 1024;

/// Cuts a stream of bytes into lines, however it is cut into chunks.
///
/// A line ends at `\n`, `\r\n` or `\r` (a progress bar that draws itself anew). A line longer than
/// [`MAX_LINE`] comes in pieces, cut between characters.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// The last byte was `\r`: a `\n` that follows belongs to it.
    after_return: bool,
}

impl Lines {
    pub(crate) fn push(&mut self, mut bytes: &[u8], line: &mut impl FnMut(String)) {
        while let Some(&first) = bytes.first() {
            if std::mem::take(&mut self.after_return) && first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            if self.pending.len() == MAX_LINE && !ends_line(first) {
                let cut = MAX_LINE - unfinished_character(&self.pending);
                line(text(&self.pending[..cut]));
                self.pending.drain(..cut);
            }
            // A line that is as long as it may be has room for its end only.
            let room = (MAX_LINE - self.pending.len()).max(1);
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|&byte| ends_line(byte)) {
                Some(end) => {
                    self.pending.extend_from_slice(&window[..end]);
                    self.after_return = window[end] == b'\r';
                    // A progress bar begins with a carriage return: that ends no line.
                    if !(self.after_return && self.pending.is_empty()) {
                        line(text(&self.pending));
                    }
                    self.pending.clear();
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.pending.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                }
            }
        }
    }

    /// The end of the stream: what is left is a line, too.
    pub(crate) fn finish(&mut self, line: &mut impl FnMut(String)) {
        if !self.pending.is_empty() {
            line(text(&self.pending));
            self.pending.clear();
        }
    }
}

fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Number of bytes at the end that begin a character of UTF-8 without finishing it.
fn unfinished_character(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for (back, &byte) in bytes[tail..].iter().rev().enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        return if length > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.push(chunk, &mut |line| found.push(line));
        }
        lines.finish(&mut |line| found.push(line));
        found
    }

    #[test]
    fn chunks_do_not_matter() {
        let text = "one\ntwo\r\n\n10%\r20%\r\rdrei \u{e4}\u{20ac}\u{1f300}\nend".as_bytes();
        let whole = lines(&[text]);
        assert_eq!(
            whole,
            [
                "one",
                "two",
                "",
                "10%",
                "20%",
                "drei \u{e4}\u{20ac}\u{1f300}",
                "end"
            ]
        );
        for size in 1..text.len() {
            assert_eq!(
                lines(&text.chunks(size).collect::<Vec<_>>()),
                whole,
                "chunks of {size}"
            );
        }
    }

    #[test]
    fn long_lines_come_in_pieces_between_characters() {
        for shift in 0..4 {
            let text = format!("{}{}", "x".repeat(shift), "\u{1f300}".repeat(MAX_LINE));
            let pieces = lines(&[text.as_bytes()]);
            assert!(pieces.len() >= 4);
            assert!(pieces.iter().all(|piece| piece.len() <= MAX_LINE));
            assert_eq!(pieces.concat(), text);
        }
        let exact = "y".repeat(MAX_LINE);
        assert_eq!(lines(&[exact.as_bytes()]), [exact.as_str()]);
        assert_eq!(
            lines(&[format!("{exact}\n{exact}\r\nz").as_bytes()]),
            [&exact, &exact, "z"]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(
            lines(&[b"a\xff\xfeb\n\xc3"]),
            ["a\u{fffd}\u{fffd}b", "\u{fffd}"]
        );
        let invalid = vec![0x80; MAX_LINE + 5];
        assert_eq!(
            lines(&[&invalid])
                .iter()
                .map(|line| line.chars().count())
                .sum::<usize>(),
            MAX_LINE + 5
        );
    }
}
