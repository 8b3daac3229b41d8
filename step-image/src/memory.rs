//! How much memory reading into a store takes, told before anything is created.

use std::path::Path;

use mlwm_datasets::Element;
use mlwm_spec::bytes::ByteSize;

use crate::Fault;
use crate::moving::BASE;

/// What the process may take, and what reading takes of it besides blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) limit: ByteSize,
    pub(crate) reading: u64,
}

impl Budget {
    /// What it takes to fill blocks of so many bytes while so many threads write others: each of these has its values,
    /// those of a chunk of them, and these compressed.
    fn need(self, block: u64, writers: u64) -> u64 {
        let blocks = block.saturating_mul(1 + 3 * writers);
        blocks.saturating_add(BASE).saturating_add(self.reading)
    }

    /// How many threads may write such blocks; one in any case.
    pub(crate) fn writers(self, block: u64, most: u64) -> u64 {
        let fit = |writers: &u64| self.need(block, *writers) <= self.limit.0;
        (1..=most).rev().find(fit).unwrap_or(1)
    }

    /// Refuses blocks that do not fit with one thread that writes.
    pub(crate) fn check(self, store: &Path, variable: &str, block: u64) -> Result<(), Fault> {
        const MIB: u64 = 1 << 20;
        let least = self.need(block, 1);
        match least <= self.limit.0 {
            true => Ok(()),
            false => Err(Fault::Memory {
                store: store.to_owned(),
                variable: variable.to_owned(),
                given: self.limit,
                least: ByteSize(least.checked_next_multiple_of(MIB).unwrap_or(least)),
            }),
        }
    }
}

/// The bytes of so many values.
pub(crate) fn bytes<'a>(element: Element, lengths: impl Iterator<Item = &'a u64>) -> u64 {
    let size = if element == Element::F32 { 4 } else { 8 };
    lengths.fold(size, |bytes, length| bytes.saturating_mul(*length))
}
