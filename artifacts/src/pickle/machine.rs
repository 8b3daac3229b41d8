//! The stack machine that a pickle is a program for, with everything left out but names.

use std::collections::BTreeSet;
use std::io::Read;

use indexmap::IndexSet;

use super::stream::Stream;
use super::{Checkpoint, CheckpointKind, Global, PickleError};

/// Most values on the stack, marks on it, and entries of the memo.
const MAX_VALUES: usize = 1 << 21;
/// Most bytes of texts that are kept, as each could become a name.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// Most different globals.
const MAX_GLOBALS: usize = 10_000;
/// The highest protocol there is.
const MAX_PROTOCOL: u8 = 5;

/// The number that a file of `torch.save` before PyTorch 1.6 starts with.
const TORCH_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// What was found in one pickle or several.
#[derive(Default)]
pub(super) struct Findings {
    globals: BTreeSet<Global>,
    persistent_ids: u64,
    protocol: u8,
}

impl Findings {
    pub(super) fn into_checkpoint(self, kind: CheckpointKind) -> Checkpoint {
        Checkpoint {
            kind,
            protocol: self.protocol,
            globals: self.globals.into_iter().collect(),
            persistent_ids: self.persistent_ids,
        }
    }
}

/// What one pickle turned out to be.
pub(super) struct Outcome {
    /// It is PyTorch's magic number.
    pub(super) is_torch_magic: bool,
}

/// Follows one pickle to its end.
pub(super) fn run<R: Read>(
    stream: &mut Stream<R>,
    findings: &mut Findings,
) -> Result<Outcome, PickleError> {
    let mut machine = Machine {
        at: stream.at(),
        stream,
        findings,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        memoized: 0,
        texts: IndexSet::new(),
        text_bytes: 0,
    };
    loop {
        machine.at = machine.stream.at();
        let opcode = machine.stream.byte()?;
        if opcode == b'.' {
            let is_torch_magic = machine.pop()? == Slot::TorchMagic;
            return Ok(Outcome { is_torch_magic });
        }
        machine.step(opcode)?;
    }
}

/// A value, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Other,
    /// A text that could become a name, by its number.
    Text(u32),
    /// A class or function that was imported, not what it gives when called.
    Global,
    TorchMagic,
}

struct Machine<'a, R> {
    stream: &'a mut Stream<R>,
    findings: &'a mut Findings,
    /// Offset of the current opcode.
    at: u64,
    stack: Vec<Slot>,
    /// Lengths of the stack where marks were set.
    marks: Vec<usize>,
    memo: Vec<Option<Slot>>,
    memoized: usize,
    texts: IndexSet<Box<str>>,
    text_bytes: usize,
}

impl<R: Read> Machine<'_, R> {
    fn step(&mut self, opcode: u8) -> Result<(), PickleError> {
        match opcode {
            // PROTO, FRAME
            0x80 => self.protocol(),
            0x95 => {
                let length = self.length::<8>()?;
                self.stream.require(length)
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.mark(),
            b'0' => self.pop_value_or_mark(),
            b'1' => self.pop_to_mark().map(drop),
            b'2' => self.peek().and_then(|slot| self.push(slot)),
            // NONE, NEWTRUE, NEWFALSE, EMPTY_DICT, EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET
            b'N' | 0x88 | 0x89 | b'}' | b']' | b')' | 0x8f => self.push(Slot::Other),
            // BININT1, BININT2, BININT, BINFLOAT
            b'K' => self.constant(1),
            b'M' => self.constant(2),
            b'J' => self.constant(4),
            b'G' => self.constant(8),
            // INT, LONG, FLOAT
            b'I' | b'L' | b'F' => self.number_line(),
            // LONG1, LONG4
            0x8a => self.long1(),
            0x8b => self
                .signed_length()
                .and_then(|length| self.constant(length)),
            // BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8
            b'B' => self.length::<4>().and_then(|length| self.constant(length)),
            b'C' => self.length::<1>().and_then(|length| self.constant(length)),
            0x8e | 0x96 => self.length::<8>().and_then(|length| self.constant(length)),
            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8, BINSTRING, SHORT_BINSTRING
            b'X' => self.length::<4>().and_then(|length| self.text(length)),
            0x8c | b'U' => self.length::<1>().and_then(|length| self.text(length)),
            0x8d => self.length::<8>().and_then(|length| self.text(length)),
            b'T' => self.signed_length().and_then(|length| self.text(length)),
            // UNICODE, STRING
            b'V' => self.text_line(),
            b'S' => self.quoted_line(),
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' => self.index_line().and_then(|index| self.put(index)),
            b'q' => self.length::<1>().and_then(|index| self.put(index)),
            b'r' => self.length::<4>().and_then(|index| self.put(index)),
            0x94 => self.put(self.memoized as u64),
            // GET, BINGET, LONG_BINGET
            b'g' => self.index_line().and_then(|index| self.get(index)),
            b'h' => self.length::<1>().and_then(|index| self.get(index)),
            b'j' => self.length::<4>().and_then(|index| self.get(index)),
            // TUPLE, LIST, DICT, FROZENSET; TUPLE1, TUPLE2, TUPLE3
            b't' | b'l' | b'd' | 0x91 => {
                self.pop_to_mark()?;
                self.push(Slot::Other)
            }
            0x85 => self.replace(1),
            0x86 => self.replace(2),
            0x87 => self.replace(3),
            // APPEND, SETITEM; APPENDS, SETITEMS, ADDITEMS
            b'a' => self.change(1),
            b's' => self.change(2),
            b'e' | b'u' | 0x90 => {
                self.pop_to_mark()?;
                self.change(0)
            }
            // GLOBAL, STACK_GLOBAL, INST, OBJ
            b'c' => {
                self.global_lines()?;
                self.push(Slot::Global)
            }
            0x93 => self.stack_global(),
            b'i' => {
                self.global_lines()?;
                self.pop_to_mark()?;
                self.push(Slot::Other)
            }
            b'o' => {
                if self.pop_to_mark()? == 0 {
                    return Err(self.damaged("nothing is called"));
                }
                self.push(Slot::Other)
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX, BUILD
            b'R' | 0x81 => self.replace(2),
            0x92 => self.replace(3),
            b'b' => self.change(1),
            // PERSID, BINPERSID
            b'P' => {
                self.stream.line()?;
                self.findings.persistent_ids += 1;
                self.push(Slot::Other)
            }
            b'Q' => {
                self.findings.persistent_ids += 1;
                self.replace(1)
            }
            // READONLY_BUFFER, NEXT_BUFFER
            0x98 => self.peek().map(drop),
            0x97 => Err(self.damaged("it asks for a buffer that is not in the file")),
            // EXT1, EXT2, EXT4
            0x82..=0x84 => Err(PickleError::Extension { at: self.at }),
            _ => Err(PickleError::Opcode {
                at: self.at,
                opcode,
            }),
        }
    }

    fn protocol(&mut self) -> Result<(), PickleError> {
        let version = self.stream.byte()?;
        if version > MAX_PROTOCOL {
            return Err(self.damaged("no pickle protocol has this number"));
        }
        self.findings.protocol = self.findings.protocol.max(version);
        Ok(())
    }

    fn push(&mut self, slot: Slot) -> Result<(), PickleError> {
        if self.stack.len() >= MAX_VALUES {
            return Err(self.too_much("values on its stack", MAX_VALUES));
        }
        self.stack.push(slot);
        Ok(())
    }

    /// Length of the stack below which nothing may be taken: the innermost mark.
    fn fence(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Slot, PickleError> {
        let slot = self.peek()?;
        self.stack.pop();
        Ok(slot)
    }

    fn peek(&self) -> Result<Slot, PickleError> {
        match self.stack.last() {
            Some(slot) if self.stack.len() > self.fence() => Ok(*slot),
            _ => Err(self.damaged("its stack is empty")),
        }
    }

    fn mark(&mut self) -> Result<(), PickleError> {
        if self.marks.len() >= MAX_VALUES {
            return Err(self.too_much("marks on its stack", MAX_VALUES));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_value_or_mark(&mut self) -> Result<(), PickleError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(drop)
    }

    /// Takes everything above the innermost mark and the mark, and says how much that was.
    fn pop_to_mark(&mut self) -> Result<usize, PickleError> {
        let start = self
            .marks
            .pop()
            .ok_or_else(|| self.damaged("there is no mark on its stack"))?;
        let taken = self.stack.len() - start;
        self.stack.truncate(start);
        Ok(taken)
    }

    /// Takes `count` values and puts one that is made of them.
    fn replace(&mut self, count: usize) -> Result<(), PickleError> {
        for _ in 0..count {
            self.pop()?;
        }
        self.push(Slot::Other)
    }

    /// Takes `count` values and changes the one below.
    fn change(&mut self, count: usize) -> Result<(), PickleError> {
        for _ in 0..count {
            self.pop()?;
        }
        match self.peek()? {
            Slot::Global => Err(PickleError::ChangesGlobal { at: self.at }),
            _ => Ok(()),
        }
    }

    /// Steps over a value of `length` bytes.
    fn constant(&mut self, length: u64) -> Result<(), PickleError> {
        self.stream.skip(length)?;
        self.push(Slot::Other)
    }

    fn long1(&mut self) -> Result<(), PickleError> {
        let length = self.stream.byte()?;
        if usize::from(length) != TORCH_MAGIC.len() {
            return self.constant(length.into());
        }
        let is_magic = self.stream.array::<{ TORCH_MAGIC.len() }>()? == TORCH_MAGIC;
        self.push(if is_magic {
            Slot::TorchMagic
        } else {
            Slot::Other
        })
    }

    fn number_line(&mut self) -> Result<(), PickleError> {
        let line = self.stream.line()?;
        if line.is_some_and(|line| line.is_empty() || !line.iter().all(u8::is_ascii_graphic)) {
            return Err(self.damaged("a number was expected"));
        }
        self.push(Slot::Other)
    }

    fn text(&mut self, length: u64) -> Result<(), PickleError> {
        let text = self.stream.text(length)?;
        self.push_text(text)
    }

    /// A text where a backslash starts an escape. Names need none.
    fn text_line(&mut self) -> Result<(), PickleError> {
        let line = self.stream.line()?;
        let plain = line.filter(|line| line.is_ascii() && !line.contains(&b'\\'));
        self.push_text(plain.and_then(|line| String::from_utf8(line).ok()))
    }

    /// A text in quotation marks, with escapes.
    fn quoted_line(&mut self) -> Result<(), PickleError> {
        let Some(line) = self.stream.line()? else {
            return self.push_text(None);
        };
        let content = match line.as_slice() {
            [first @ (b'"' | b'\''), content @ .., last] if first == last => content,
            _ => return Err(self.damaged("a text in quotation marks was expected")),
        };
        let is_plain = content.is_ascii() && !content.contains(&b'\\');
        let text = is_plain.then(|| String::from_utf8_lossy(content).into_owned());
        self.push_text(text)
    }

    /// A text that is `None`, or comes after too many others, cannot become a name later.
    fn push_text(&mut self, text: Option<String>) -> Result<(), PickleError> {
        let slot = text.map_or(Slot::Other, |text| self.keep(text));
        self.push(slot)
    }

    fn keep(&mut self, text: String) -> Slot {
        let known = self.texts.get_index_of(text.as_str());
        let number = known.or_else(|| {
            // What each entry takes besides its letters.
            const OVERHEAD: usize = 48;
            let bytes = self.text_bytes + text.len() + OVERHEAD;
            (bytes <= MAX_TEXT_BYTES).then(|| {
                self.text_bytes = bytes;
                self.texts.insert_full(text.into_boxed_str()).0
            })
        });
        number
            .and_then(|number| u32::try_from(number).ok())
            .map_or(Slot::Other, Slot::Text)
    }

    fn put(&mut self, index: u64) -> Result<(), PickleError> {
        let slot = self.peek()?;
        let index = match usize::try_from(index) {
            Ok(index) if index < MAX_VALUES => index,
            _ => return Err(self.too_much("entries in its memo", MAX_VALUES)),
        };
        if index >= self.memo.len() {
            self.memo.resize(index + 1, None);
        }
        if self.memo[index].replace(slot).is_none() {
            self.memoized += 1;
        }
        Ok(())
    }

    fn get(&mut self, index: u64) -> Result<(), PickleError> {
        let known = usize::try_from(index)
            .ok()
            .and_then(|index| self.memo.get(index).copied().flatten());
        match known {
            Some(slot) => self.push(slot),
            None => Err(self.damaged("it refers to a value that was not remembered")),
        }
    }

    fn index_line(&mut self) -> Result<u64, PickleError> {
        let line = self.stream.line()?;
        line.filter(|line| line.iter().all(u8::is_ascii_digit))
            .and_then(|line| String::from_utf8(line).ok()?.parse().ok())
            .ok_or_else(|| self.damaged("a number in the memo was expected"))
    }

    fn global_lines(&mut self) -> Result<(), PickleError> {
        let mut line = || -> Result<String, PickleError> {
            self.stream
                .line()?
                .and_then(|line| String::from_utf8(line).ok())
                .ok_or(PickleError::Damaged {
                    at: self.at,
                    why: "a name was expected",
                })
        };
        let (module, name) = (line()?, line()?);
        self.found(Global { module, name })
    }

    fn stack_global(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Slot::Text(module), Slot::Text(name)) = (module, name) else {
            return Err(PickleError::ComputedName { at: self.at });
        };
        let text = |number: u32| {
            self.texts
                .get_index(number as usize)
                .map(ToString::to_string)
        };
        let (Some(module), Some(name)) = (text(module), text(name)) else {
            return Err(PickleError::ComputedName { at: self.at });
        };
        self.found(Global { module, name })?;
        self.push(Slot::Global)
    }

    fn found(&mut self, global: Global) -> Result<(), PickleError> {
        self.findings.globals.insert(global);
        if self.findings.globals.len() > MAX_GLOBALS {
            return Err(self.too_much("imports", MAX_GLOBALS));
        }
        Ok(())
    }

    /// A little-endian number of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<u64, PickleError> {
        let bytes = self.stream.array::<N>()?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |length, byte| length << 8 | u64::from(*byte)))
    }

    fn signed_length(&mut self) -> Result<u64, PickleError> {
        let length = i32::from_le_bytes(self.stream.array()?);
        u64::try_from(length).map_err(|_| self.damaged("a length is negative"))
    }

    fn damaged(&self, why: &'static str) -> PickleError {
        PickleError::Damaged { at: self.at, why }
    }

    fn too_much(&self, what: &'static str, limit: usize) -> PickleError {
        PickleError::TooMuch {
            what,
            limit: limit as u64,
            at: self.at,
        }
    }
}
