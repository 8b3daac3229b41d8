//! `.containerignore` and `.dockerignore`: what of a folder does not go into a build, as Docker reads
//! them: patterns of paths from the folder on, of which the last that matches decides.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use regex::Regex;

use crate::Error;

/// The files that hold patterns; the first that is there is read.
pub(super) const FILES: [&str; 2] = [".containerignore", ".dockerignore"];

/// What is left out.
#[derive(Debug, Default)]
pub(super) struct Ignored(Vec<Pattern>);

#[derive(Debug)]
struct Pattern {
    /// Of a path, or of a folder that it lies in.
    matching: Regex,
    /// Whether it brings back (`!`) what others leave out.
    exception: bool,
}

impl Ignored {
    /// What the file in this folder says, if there is one.
    pub(super) fn of(folder: &Path) -> Result<Self, Error> {
        for name in FILES {
            let path = folder.join(name);
            match fs::read_to_string(&path) {
                Ok(text) => {
                    return Self::parse(&text).map_err(|line| Error::Context {
                        path,
                        why: format!("its pattern `{line}` cannot be understood: correct it"),
                    });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::local("read", path)(error)),
            }
        }
        Ok(Self::default())
    }

    /// The error is the line that is no pattern.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(str::trim).filter(|line| !line.is_empty());
        let patterns = lines.map(|line| {
            let exception = line.strip_prefix('!').map(str::trim);
            let matching = clean(exception.unwrap_or(line));
            let matching = expression(&matching).and_then(|text| Regex::new(&text).ok());
            Ok(Pattern {
                matching: matching.ok_or(line)?,
                exception: exception.is_some(),
            })
        });
        Ok(Self(patterns.collect::<Result<_, String>>()?))
    }

    /// Whether a file is left out; its path is relative, with `/`.
    pub(super) fn has(&self, path: &str) -> bool {
        let decides = |pattern: &&Pattern| pattern.matching.is_match(path);
        let last = self.0.iter().rev().find(decides);
        last.is_some_and(|pattern| !pattern.exception)
    }

    /// Whether a folder is left out with all that is in it.
    pub(super) fn has_all_of(&self, folder: &str) -> bool {
        self.has(folder) && !self.0.iter().any(|pattern| pattern.exception)
    }
}

/// A pattern without `.`, `..`, and `/` where it says nothing.
fn clean(pattern: &str) -> String {
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The regular expression of a pattern; `None` if it ends in the middle of a class or is empty.
fn expression(pattern: &str) -> Option<String> {
    let mut text = String::from("(?s)^(?:");
    let mut rest = pattern.chars().peekable();
    rest.peek()?;
    while let Some(c) = rest.next() {
        match c {
            '*' if rest.next_if_eq(&'*').is_some() => {
                rest.next_if_eq(&'/');
                // Any number of folders.
                text.push_str(if rest.peek().is_some() {
                    "(?:.*/)?"
                } else {
                    ".*"
                });
            }
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '[' => {
                text.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    text.push('^');
                }
                loop {
                    match rest.next()? {
                        ']' => break,
                        '-' => text.push('-'),
                        '\\' => text.push_str(&escaped(rest.next()?)),
                        c => text.push_str(&escaped(c)),
                    }
                }
                text.push(']');
            }
            '\\' => text.push_str(&escaped(rest.next()?)),
            c => text.push_str(&escaped(c)),
        }
    }
    // What lies in a folder goes with it.
    text.push_str(")(?:/.*)?$");
    Some(text)
}

fn escaped(c: char) -> String {
    regex::escape(c.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(patterns: &str, out: &[&str], kept: &[&str]) {
        let ignored = Ignored::parse(patterns).unwrap();
        for path in out {
            assert!(ignored.has(path), "{patterns:?} leaves {path} out");
        }
        for path in kept {
            assert!(!ignored.has(path), "{patterns:?} keeps {path}");
        }
    }

    /// The examples of Docker's documentation, and what its tests have.
    #[test]
    fn patterns_mean_what_they_mean_to_docker() {
        check(
            "*/temp*",
            &["a/temporary.txt", "a/temp", "a/temp/b"],
            &["temp", "a/b/temp"],
        );
        check("*/*/temp*", &["a/b/temporary.txt"], &["a/temp"]);
        check("temp?", &["tempa", "tempb/c"], &["temp", "temp/a"]);
        check("**/*.go", &["a.go", "a/b/c.go"], &["a.goo"]);
        check("*.md\n!README.md", &["a.md"], &["README.md", "a/b.md"]);
        check(
            "*.md\n!README*.md\nREADME-secret.md",
            &["README-secret.md"],
            &["README-a.md"],
        );
        check(
            "*.md\nREADME-secret.md\n!README*.md",
            &["a.md"],
            &["README-secret.md"],
        );
        check(
            "/foo/\n./bar/../baz",
            &["foo", "foo/a", "baz"],
            &["bar", "a/foo"],
        );
        check("foo/**", &["foo/a", "foo/a/b"], &["food"]);
        check(
            "foo/**/bar",
            &["foo/bar", "foo/a/b/bar", "foo/bar/c"],
            &["foo/abar"],
        );
        check("**", &["a", "a/b"], &[]);
        check(
            "*\n!src/**\nsrc/*.log",
            &["a", "src/a.log"],
            &["src/a.py", "src/b/a.log"],
        );
        check("# a\n\n  b  \n#c", &["b"], &["# a", "a", "#c"]);
        check("a.b+(c){d}", &["a.b+(c){d}"], &["axb+(c){d}", "a.bb(c){d}"]);
        check("[ab]*.t\\*t", &["a.t*t", "bc.t*t"], &["c.t*t", "a.txt"]);
        check("[^a-c&&x]1", &["d1"], &["a1", "b1", "&1", "x1"]);
        check("\u{feff}a", &["a"], &[]);
    }

    #[test]
    fn a_folder_is_looked_into_if_something_may_come_back() {
        let ignored = Ignored::parse("a").unwrap();
        assert!(ignored.has_all_of("a") && !ignored.has_all_of("b"));
        let ignored = Ignored::parse("a\n!a/b").unwrap();
        assert!(!ignored.has_all_of("a") && ignored.has("a/c") && !ignored.has("a/b"));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["a[b", "!", "a\\", "!a[", "[b-a]"] {
            assert_eq!(
                Ignored::parse(&format!("ok\n{pattern}\n")).unwrap_err(),
                pattern
            );
        }
    }
}
