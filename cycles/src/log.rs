//! What a container prints, as far as it is kept: its beginning, and the end of what follows.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, LineWriter, Write};
use std::path::{Path, PathBuf};

/// What is written as it comes.
const HEAD: u64 = 32 << 20;
/// What is kept of all that follows, until the container has ended.
const TAIL: u64 = 1 << 20;

/// The log of one container.
pub(crate) struct Log {
    path: PathBuf,
    /// Made with the first line, so that a container that was refused leaves no log.
    file: Option<LineWriter<File>>,
    written: io::Result<()>,
    /// How much more is written, and how much is kept after that.
    head: u64,
    tail: u64,
    end: VecDeque<String>,
    /// Bytes of `end`.
    end_bytes: u64,
    left_out: LeftOut,
}

#[derive(Default)]
struct LeftOut {
    lines: u64,
    bytes: u64,
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is written.
    Written,
    /// It is the first that is not: from here on only the end is kept.
    First(String),
    /// It is kept if it is among the last.
    AtEnd,
}

impl Log {
    pub(crate) fn new(path: &Path) -> Self {
        Self::bounded(path, HEAD, TAIL)
    }

    fn bounded(path: &Path, head: u64, tail: u64) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            written: Ok(()),
            head,
            tail,
            end: VecDeque::new(),
            end_bytes: 0,
            left_out: LeftOut::default(),
        }
    }

    pub(crate) fn take(&mut self, line: &str) -> Kept {
        let size = line.len() as u64 + 1;
        let full = self.head == 0;
        if let Some(left) = self.head.checked_sub(size) {
            self.head = left;
            self.write(line);
            return Kept::Written;
        }
        self.head = 0;
        self.end.push_back(line.to_owned());
        self.end_bytes += size;
        while self.end_bytes > self.tail
            && let Some(first) = self.end.pop_front()
        {
            let size = first.len() as u64 + 1;
            self.end_bytes -= size;
            self.left_out.lines += 1;
            self.left_out.bytes += size;
        }
        if full {
            return Kept::AtEnd;
        }
        let notice = format!(
            "[mlwm: the container prints too much: from here on, only the last {} KiB are kept, \
             and follow when it has ended]",
            self.tail >> 10
        );
        self.write(&notice);
        Kept::First(notice)
    }

    fn write(&mut self, line: &str) {
        if self.written.is_ok() {
            self.written = self.file().and_then(|file| writeln!(file, "{line}"));
        }
    }

    fn file(&mut self) -> io::Result<&mut LineWriter<File>> {
        if self.file.is_none() {
            mlwm_storage::create_folders(self.path.parent().unwrap_or(&self.path))?;
            // What converted the inputs of the same attempt has written before.
            let file = File::options().create(true).append(true).open(&self.path);
            self.file = Some(LineWriter::new(file?));
        }
        // It was just made, if it was not there.
        self.file
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The end, once all is in the file; an empty file if there are no lines.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        let LeftOut { lines, bytes } = self.left_out;
        if lines > 0 {
            self.write(&format!("[mlwm: {lines} lines, {bytes} bytes, left out]"));
        }
        for line in std::mem::take(&mut self.end) {
            self.write(&line);
        }
        std::mem::replace(&mut self.written, Ok(()))?;
        self.file()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log_of(lines: impl Iterator<Item = String>, head: u64, tail: u64) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/log");
        let mut log = Log::bounded(&path, head, tail);
        let firsts = lines
            .filter(|line| matches!(log.take(line), Kept::First(_)))
            .count();
        log.finish().unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(firsts, text.matches("prints too much").count(), "told once");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let numbers = || (1..=25).map(|number| format!("{number:03}"));
        assert_eq!(
            log_of(numbers(), 100, 0),
            numbers().collect::<Vec<_>>(),
            "exactly"
        );
        assert!(log_of(std::iter::empty(), 100, 10).is_empty());
    }

    #[test]
    fn of_more_beginning_and_end_are_kept_and_the_rest_is_counted() {
        let numbers = (1..=1000).map(|number| format!("{number:04}"));
        let log = log_of(numbers, 52, 15);
        let (head, rest) = log.split_at(10);
        assert_eq!((head[0].as_str(), head[9].as_str()), ("0001", "0010"));
        assert!(rest[0].contains("prints too much"), "{rest:?}");
        assert_eq!(rest[1], "[mlwm: 987 lines, 4935 bytes, left out]");
        assert_eq!(rest[2..], ["0998", "0999", "1000"]);
    }

    #[test]
    fn what_is_just_too_long_is_not_called_left_out() {
        let numbers = (1..=12).map(|number| format!("{number:04}"));
        let log = log_of(numbers, 52, 15);
        assert_eq!(log.len(), 13);
        assert!(!log.iter().any(|line| line.contains("left out")), "{log:?}");
    }

    #[test]
    fn a_line_that_is_longer_than_all_that_is_kept_is_counted() {
        let log = log_of(["x".repeat(99), "y".into()].into_iter(), 10, 20);
        assert_eq!(log[1..], ["[mlwm: 1 lines, 100 bytes, left out]", "y"]);
    }
}
