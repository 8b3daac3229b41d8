//! The kind of machine that a program is for.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What ELF begins with.
const MAGIC: [u8; 4] = *b"\x7fELF";
/// Where ELF says whether its numbers are little-endian (1) or big-endian (2), and the machine.
const ORDER: usize = 5;
const MACHINE: usize = 18;

/// The architecture of a program or a library, as images call it; none if it is no ELF file, such as a
/// script, or one of an architecture that images have no name for here.
pub(crate) fn architecture(path: &Path) -> io::Result<Option<&'static str>> {
    let mut head = [0; MACHINE + 2];
    match File::open(path)?.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    if !head.starts_with(&MAGIC) {
        return Ok(None);
    }
    let number = [head[MACHINE], head[MACHINE + 1]];
    let (machine, is_little) = match head[ORDER] {
        2 => (u16::from_be_bytes(number), false),
        _ => (u16::from_le_bytes(number), true),
    };
    Ok(match machine {
        3 => Some("386"),
        21 if is_little => Some("ppc64le"),
        22 => Some("s390x"),
        40 => Some("arm"),
        62 => Some("amd64"),
        183 => Some("arm64"),
        243 => Some("riscv64"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_say_what_machine_they_are_for() {
        let found = architecture(&std::env::current_exe().unwrap()).unwrap();
        let this = crate::Platform::of_this_machine().architecture;
        assert_eq!(found, Some(this.as_str()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let head = |order: u8, machine: [u8; 2]| {
            let mut head = b"\x7fELF\x02".to_vec();
            head.push(order);
            head.resize(MACHINE, 0);
            head.extend(machine);
            head
        };
        for (bytes, expected) in [
            (head(1, [183, 0]), Some("arm64")),
            (head(2, [0, 22]), Some("s390x")),
            (head(1, [0, 183]), None),
            (b"#!/bin/sh\nexit 0\n# and so on\n".to_vec(), None),
            (b"\x7fELF".to_vec(), None),
        ] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(architecture(&path).unwrap(), expected);
        }
        assert!(architecture(&folder.path().join("none")).is_err());
    }
}
