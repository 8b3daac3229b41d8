//! What a PyTorch checkpoint would import, found without running anything of it.
//!
//! A checkpoint is a pickle, and a pickle is a program: it names functions and calls them while it
//! is loaded. The program is followed here symbolically: strings are kept as far as they can become
//! names, everything else is only counted. What cannot be followed is refused, since another
//! reader could make something else of it. Opcodes are those of CPython's `pickletools`.

mod machine;
mod policy;
mod stream;
#[cfg(test)]
mod tests;
mod torch_zip;

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};

use serde::{Serialize, Serializer};

pub use self::policy::{CheckpointPolicy, Verdict};

use self::machine::{Findings, run};
use self::stream::Stream;

/// A function or class that loading a pickle imports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Global {
    /// The module it is imported from.
    pub module: String,
    /// Its name there; dots lead to attributes of attributes.
    pub name: String,
}

impl Global {
    /// The global `module.name`.
    pub fn new(module: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            module: module.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Global {
    /// `module.name`. All but visible ASCII is escaped, since letters of other scripts can look
    /// like it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.module.chars().chain(['.']).chain(self.name.chars());
        for letter in text {
            if letter.is_ascii_graphic() {
                write!(f, "{letter}")?;
            } else {
                write!(f, "{}", letter.escape_unicode())?;
            }
        }
        Ok(())
    }
}

impl Serialize for Global {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a checkpoint is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckpointKind {
    /// The zip of `torch.save` since PyTorch 1.6: a pickle and the tensors beside it.
    TorchZip,
    /// The file of `torch.save` before: five pickles, then the tensors. The tensors are not looked
    /// at.
    TorchLegacy,
    /// One pickle.
    Pickle,
}

/// What is known about a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checkpoint {
    /// How it is stored.
    pub kind: CheckpointKind,
    /// Version of the pickle protocol; 0 stands for 0 and 1, which do not say.
    pub protocol: u8,
    /// All that loading it imports, sorted, each once.
    pub globals: Vec<Global>,
    /// References to what lies outside the pickle: one for each use of a tensor's storage.
    pub persistent_ids: u64,
}

/// A checkpoint that cannot be read, or not trusted to be what it seems.
#[derive(Debug, thiserror::Error)]
pub enum PickleError {
    /// It could not be read.
    #[error("it could not be read: {0}")]
    Io(#[from] io::Error),
    /// It ends too early.
    #[error("it is cut off: its pickle goes on at byte {at}, where it ends")]
    Truncated {
        /// Offset in the pickle.
        at: u64,
    },
    /// No such opcode.
    #[error("it is not a PyTorch checkpoint: byte {at} (0x{opcode:02x}) is no pickle opcode")]
    Opcode {
        /// Offset in the pickle.
        at: u64,
        /// The byte.
        opcode: u8,
    },
    /// A pickle that no pickler writes.
    #[error("its pickle is damaged at byte {at}: {why}")]
    Damaged {
        /// Offset in the pickle.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// Something follows the end of the pickle.
    #[error("bytes follow the end of its pickle, from byte {at} on")]
    Trailing {
        /// Offset of the first.
        at: u64,
    },
    /// More than any checkpoint needs.
    #[error("it has more than {limit} {what}, which no checkpoint needs (byte {at})")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is read.
        limit: u64,
        /// Offset in the pickle.
        at: u64,
    },
    /// A name that is known only once the pickle runs.
    #[error(
        "it computes the name of what it imports at byte {at}, so that it cannot be told what runs when it is loaded"
    )]
    ComputedName {
        /// Offset in the pickle.
        at: u64,
    },
    /// A name of the extension registry.
    #[error(
        "it imports something by a number of the extension registry at byte {at}, which only the process that wrote it can resolve"
    )]
    Extension {
        /// Offset in the pickle.
        at: u64,
    },
    /// It changes a class or function.
    #[error("it changes a class or function that it imports, at byte {at}")]
    ChangesGlobal {
        /// Offset in the pickle.
        at: u64,
    },
    /// A damaged zip, or one that two readers could read differently.
    #[error("its zip cannot be used: {0}")]
    Zip(String),
    /// TorchScript.
    #[error(
        "it is a TorchScript program, which runs code of its own when it is loaded: save the state of the model with `torch.save` instead"
    )]
    TorchScript,
    /// The tar of PyTorch before 0.1.10.
    #[error("it is a tar: load it and save it again with `torch.save`")]
    Tar,
}

/// Finds out what loading a checkpoint of `size` bytes would import. Reads the pickle once and no
/// tensors; memory does not grow with the size of the file.
///
/// # Errors
///
/// A file that is no checkpoint, is damaged, or cannot be followed to its end.
pub fn inspect<R: Read + Seek>(mut source: R, size: u64) -> Result<Checkpoint, PickleError> {
    let mut start = Vec::new();
    source.rewind()?;
    source.by_ref().take(TAR_BLOCK).read_to_end(&mut start)?;
    source.seek(SeekFrom::Start(0))?;
    if start.starts_with(b"PK\x03\x04") {
        return torch_zip::inspect(source, size);
    }
    if starts_a_tar(&start) {
        return Err(PickleError::Tar);
    }
    inspect_stream(Stream::new(source, size))
}

/// One pickle, or those of a legacy file.
fn inspect_stream<R: Read>(mut stream: Stream<R>) -> Result<Checkpoint, PickleError> {
    let mut findings = Findings::default();
    let kind = if run(&mut stream, &mut findings)?.is_torch_magic {
        // Format version, facts about the machine, the object, names of the storages.
        for _ in 0..4 {
            run(&mut stream, &mut findings)?;
        }
        CheckpointKind::TorchLegacy
    } else {
        stream.finish()?;
        CheckpointKind::Pickle
    };
    Ok(findings.into_checkpoint(kind))
}

const TAR_BLOCK: u64 = 512;

/// Whether PyTorch would take this for a tar, as it tries before it reads a legacy file: a file
/// could be a harmless pickle here, and a tar with another one there.
fn starts_a_tar(block: &[u8]) -> bool {
    const CHECKSUM: std::ops::Range<usize> = 148..156;
    if block.len() < TAR_BLOCK as usize {
        return false;
    }
    let field = &block[CHECKSUM];
    let recorded = if field[0] & 0x80 != 0 {
        field[1..].iter().fold(0i64, |value, byte| {
            (value & 0xffff_ffff) << 8 | i64::from(*byte)
        })
    } else {
        let digits: String = field
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| char::from(*byte))
            .collect();
        match i64::from_str_radix(digits.trim(), 8) {
            Ok(value) => value,
            Err(_) => return false,
        }
    };
    let outside = || {
        let (before, after) = (&block[..CHECKSUM.start], &block[CHECKSUM.end..]);
        before.iter().chain(after)
    };
    let blanks = 8 * i64::from(b' ');
    let unsigned: i64 = outside().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = outside().map(|byte| i64::from(byte.cast_signed())).sum();
    recorded == unsigned + blanks || recorded == signed + blanks
}
