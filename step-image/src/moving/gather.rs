//! The second way of a copy: each cell of the sink from its pieces, by one thread.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::copy::copy_part;
use super::{Sink, Source};
use crate::Fault;

/// Fills the cells of a sink from a source whose cells each lie in one of them.
///
/// # Errors
/// The first that any thread meets.
pub(super) fn gather(
    source: &dyn Source,
    sink: &dyn Sink,
    size: usize,
    workers: usize,
) -> Result<(), Fault> {
    let gathering = Gathering {
        source,
        sink,
        size,
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..workers)
            .map(|_| scope.spawn(|| gathering.work()))
            .collect();
        let first = gathering.work();
        let all = others.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        all.fold(first, Result::and)
    })
}

struct Gathering<'a> {
    source: &'a dyn Source,
    sink: &'a dyn Sink,
    size: usize,
    /// The next cell that nobody has begun.
    next: AtomicUsize,
    failed: AtomicBool,
}

impl Gathering<'_> {
    fn work(&self) -> Result<(), Fault> {
        let (mut cell, mut piece) = (Vec::new(), Vec::new());
        while !self.failed.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.sink.grid().cells() {
                break;
            }
            self.fill(number, &mut cell, &mut piece)
                .inspect_err(|_| self.failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn fill(&self, number: usize, cell: &mut Vec<u8>, piece: &mut Vec<u8>) -> Result<(), Fault> {
        let (whole, block) = (self.sink.whole(number), self.sink.grid().block(number));
        cell.resize(whole.len() as usize * self.size, 0);
        if whole != block {
            let fill = self.sink.fill();
            for value in cell.chunks_exact_mut(fill.len()) {
                value.copy_from_slice(fill);
            }
        }
        for at in self.source.grid().overlapping(&block) {
            let held = self.source.read(at, piece)?;
            let part = held.common(&block);
            copy_part((piece, &held), (cell, &whole), &part, self.size);
        }
        self.sink.write(number, cell)
    }
}
